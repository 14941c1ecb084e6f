//go:build unix

package manager_test

import (
	"bufio"
	"context"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// TestHandlerThatReadsNothing: an event that does not fit into the pipe is dropped with its process, also when a
// descendant of that holds the other end.
func TestHandlerThatReadsNothing(t *testing.T) {
	p := newPlace(t, "notify a")
	p.start(func(_ context.Context, _ plugin.Name, inv *plugin.Invocation, _ *bufio.Scanner) error {
		fd, err := syscall.Dup(int(inv.Stdin.(*os.File).Fd()))
		if err != nil {
			t.Error(err)
		}
		t.Cleanup(func() { _ = syscall.Close(fd) })
		return nil
	})
	large := hostabi.Event{Topic: "a", Source: "/ds", ContentType: "text/plain", Data: []byte(strings.Repeat("x", hostabi.MaxEventData))}
	if _, _, err := p.bus.Publish(t.Context(), large); err != nil {
		t.Fatal(err)
	}
	p.h.Close(t.Context())
	p.wantWarnings("event handler notify on failed: ended without reading an event that does not fit into its standard input")
	if n := p.runs.Load(); n != 1 {
		t.Errorf("%d processes for one event", n)
	}
}
