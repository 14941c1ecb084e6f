//go:build unix

package frame

import (
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/delivery-station/ds/hostabi"
)

// TestTrace: a trace has what a frame is about and nothing of what is in it.
func TestTrace(t *testing.T) {
	ours, theirs := net.Pipe()
	var mu sync.Mutex
	var lines []string
	served := make(chan error, 1)
	go func() {
		served <- ServeTraced(t.Context(), ours, newFake(), func(line string) {
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, line)
		})
	}()
	c := NewConn(theirs)
	secret := []byte("s3cret")
	_, err := c.Invoke(t.Context(), hostabi.Call{Method: "/echo", Req: secret})
	if err != nil {
		t.Error(err)
	}
	_, err = c.Invoke(t.Context(), hostabi.Call{Method: "/fail\nx", Enc: hostabi.EncJSON, Req: secret})
	if hostabi.ReasonOf(err) != hostabi.ReasonUnknownMethod {
		t.Error(err)
	}
	st, err := c.Stream(t.Context(), "/stream/echo", hostabi.EncProto)
	if err == nil {
		err = st.Send(secret)
	}
	if err == nil {
		_, err = st.Recv()
	}
	if err != nil {
		t.Error(err)
	}
	_ = st.Close()
	_ = c.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
	for _, want := range []string{
		`from plugin: id 1 "/echo" END 6 bytes`,
		`to plugin: id 1 END OK 6 bytes`,
		`from plugin: id 2 "/fail\nx" END 6 bytes of JSON`,
		`from plugin: id 3 "/stream/echo" 6 bytes`,
		`to plugin: id 3 6 bytes`,
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("no line %s", want)
		}
	}
	all := strings.Join(lines, "\n")
	if strings.Contains(all, "s3cret") || !strings.Contains(all, "to plugin: id 2 END UNIMPLEMENTED") || strings.Count(all, "\n")+1 != len(lines) {
		t.Errorf("trace:\n%s", all)
	}
}
