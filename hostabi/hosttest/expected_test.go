package hosttest

import (
	"slices"
	"testing"

	"github.com/delivery-station/ds/hostabi/hosttest/cases"
)

func TestEveryResultHasACase(t *testing.T) {
	for name := range expected {
		if !slices.Contains(cases.Names(), name) {
			t.Errorf("result %s: no such case", name)
		}
	}
	if got := cases.Run(t.Context(), nil, "no/case"); got != "no such case: no/case" {
		t.Errorf("unknown case gives %q", got)
	}
}
