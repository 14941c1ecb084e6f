package docs_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/delivery-station/ds/docs"
	"github.com/delivery-station/ds/hostabi"
)

// TestEveryNumberHasItsPage keeps the reason table and the pages together; the exits are those of the table.
func TestEveryNumberHasItsPage(t *testing.T) {
	for _, r := range hostabi.Reasons() {
		number := fmt.Sprintf("DS%04d", r.Number)
		page, err := docs.Error(number)
		if err != nil {
			t.Errorf("%s (%s) has no page: %v", number, r.Reason, err)
			continue
		}
		if !strings.HasPrefix(page, "# "+number+": ") || !strings.Contains(page, "What to do: ") {
			t.Errorf("%s: page does not name its number or what to do", number)
		}
	}
}

func TestNoPage(t *testing.T) {
	for _, n := range []string{"DS0000", "../docs", "DS2004.md", ""} {
		if _, err := docs.Error(n); err == nil {
			t.Errorf("%q has a page", n)
		}
	}
}
