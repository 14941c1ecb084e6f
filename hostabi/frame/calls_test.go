//go:build unix

package frame

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

func TestInvoke(t *testing.T) {
	c := connect(t, newFake())
	for _, n := range []int{0, 1, 64 << 10, hostabi.MaxMessage} {
		req := bytes.Repeat([]byte{'x'}, n)
		got, err := c.Invoke(t.Context(), hostabi.Call{Method: "/echo", Req: req, Dst: []byte("head")})
		if err != nil || string(got[:4]) != "head" || !bytes.Equal(got[4:], req) {
			t.Fatalf("%d bytes: %d back, %v", n, len(got), err)
		}
	}
	for name, c2 := range map[string]struct {
		method string
		req    []byte
		want   hostabi.Reason
	}{
		"4 MiB + 1 request": {"/echo", make([]byte, hostabi.MaxMessage+1), hostabi.ReasonTooLarge},
		"4 MiB + 1 reply":   {"/big", nil, hostabi.ReasonTooLarge},
		"unknown method":    {"/no", nil, hostabi.ReasonUnknownMethod},
		"no method":         {"", nil, hostabi.ReasonTooLarge},
		"long method":       {strings.Repeat("m", hostabi.MaxMethod+1), nil, hostabi.ReasonTooLarge},
		"unary as stream":   {"/stream/echo", nil, ""},
	} {
		if _, err := invoke(t, c, c2.method, c2.req); hostabi.ReasonOf(err) != c2.want {
			t.Errorf("%s: %v, want %s", name, err, c2.want)
		}
	}
	for _, enc := range []hostabi.Encoding{hostabi.EncProto, hostabi.EncJSON} {
		_, err := c.Invoke(t.Context(), hostabi.Call{Method: "/fail", Enc: enc})
		e, ok := errors.AsType[*hostabi.Error](err)
		if !ok || e.Code != hostabi.PermissionDenied || e.Fix != "ds grant" || e.Meta["capability"] != "x.y" {
			t.Errorf("encoding %d: error %+v", enc, e)
		}
	}
}

func TestParallel32(t *testing.T) {
	c := connect(t, newFake())
	var wg sync.WaitGroup
	for i := range 2 * hostabi.MaxCalls {
		wg.Go(func() {
			for j := range 50 {
				want := fmt.Sprintf("%d-%d", i, j)
				if got, err := c.Invoke(t.Context(), hostabi.Call{Method: "/echo", Req: []byte(want)}); err != nil || string(got) != want {
					t.Errorf("got %q, %v, want %q", got, err, want)
				}
			}
		})
	}
	wg.Wait()
}

func TestInvokeCancel(t *testing.T) {
	s := newFake()
	c := connect(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := c.Invoke(ctx, hostabi.Call{Method: "/block"})
		done <- err
	}()
	<-s.blocked
	cancel()
	if err := <-done; hostabi.ReasonOf(err) != hostabi.ReasonInterrupted {
		t.Errorf("cancelled call: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := c.Invoke(ctx, hostabi.Call{Method: "/block"}); hostabi.ReasonOf(err) != hostabi.ReasonTimeout {
		t.Errorf("call past its deadline: %v", err)
	}
	if _, err := invoke(t, c, "/echo", nil); err != nil {
		t.Errorf("call behind them: %v", err)
	}
}

func TestLazy(t *testing.T) {
	host, guest := pair(t)
	c := NewConn(guest)
	if _, err := c.Stream(t.Context(), "/stream/echo", hostabi.EncProto); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(host); err != nil || len(b) != 0 {
		t.Errorf("%d bytes written before the first call, %v", len(b), err)
	}
	host.Close()
	if _, err := invoke(t, c, "/echo", nil); hostabi.ReasonOf(err) != hostabi.ReasonInterrupted {
		t.Errorf("call after Close: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestDescriptor(t *testing.T) {
	for _, enc := range []hostabi.Encoding{hostabi.EncProto, hostabi.EncJSON} {
		path := filepath.Join(t.TempDir(), "blob")
		if err := os.WriteFile(path, []byte("content of the blob"), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		s := newFake()
		s.file = f
		c := connect(t, s)
		want, plain, field := []byte{2 << 3, 1}, []byte(nil), string([]byte{8, 7, 5 << 3, 1})
		if enc == hostabi.EncJSON {
			want, plain, field = []byte(`{"wantFd": true}`), []byte(`{}`), `{"handle":7,"path":"/p","hasFd":true}`
		}
		var wg sync.WaitGroup
		for range 8 { // other replies around it must not move the descriptor to a wrong frame
			wg.Go(func() {
				for range 50 {
					if _, err := c.Invoke(t.Context(), hostabi.Call{Method: "/echo", Req: make([]byte, 40_000)}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for range 10 {
			reply, err := c.Invoke(t.Context(), hostabi.Call{Method: cacheOpen, Enc: enc, Req: want})
			if err != nil || string(reply) != field {
				t.Fatalf("reply %q, %v, want %q", reply, err, field)
			}
			h, err := c.Handle(7)
			if err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 7)
			if _, err := h.(filer).File().ReadAt(b, 0); err != nil || string(b) != "content" {
				t.Errorf("read %q, %v", b, err)
			}
			if _, err := h.Write([]byte("x")); err == nil {
				t.Error("the descriptor can be written to")
			}
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		}
		wg.Wait()
		if reply, err := c.Invoke(t.Context(), hostabi.Call{Method: cacheOpen, Enc: enc, Req: plain}); err != nil || strings.Contains(string(reply), "hasFd") {
			t.Errorf("not asked for: %q, %v", reply, err)
		}
		if _, err := c.Handle(7); hostabi.ReasonOf(err) != hostabi.ReasonBadHandle {
			t.Errorf("handle without descriptor: %v", err)
		}
	}
}

func BenchmarkInvoke(b *testing.B) {
	c := connect(b, newFake())
	for _, n := range []int{64, 1 << 10, 64 << 10} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			req, dst := make([]byte, n), make([]byte, 0, n)
			b.ReportAllocs()
			b.SetBytes(int64(n))
			for b.Loop() {
				if _, err := c.Invoke(b.Context(), hostabi.Call{Method: "/echo", Req: req, Dst: dst}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestQuickUnread: a guest that sends all its calls before it reads an answer makes the reader, which answers them,
// neither wait nor lose anything.
func TestQuickUnread(t *testing.T) {
	guest := serve(t, newFake(), clean)
	if err := guest.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	const calls, size = hostabi.MaxCalls, 256 << 10 // more than any socket holds
	for id := range uint32(calls) {
		body := bytes.Repeat([]byte{byte(id)}, size)
		if _, err := guest.Write(Append(nil, &Frame{ID: id + 1, Flags: FlagEnd, Method: "/quick", Body: body})); err != nil {
			t.Fatal(err)
		}
	}
	seen := make(map[uint32]bool)
	for r := bufio.NewReader(guest); len(seen) < calls; {
		f, err := Decode(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if seen[f.ID] || f.Code != 0 || !bytes.Equal(f.Body, bytes.Repeat([]byte{byte(f.ID - 1)}, size)) {
			t.Fatalf("id %d: code %d, %d bytes, seen %v", f.ID, f.Code, len(f.Body), seen[f.ID])
		}
		seen[f.ID] = true
	}
}
