//go:build unix

package frame

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// fakeSession serves a handful of methods. Streams count what they got and send what they are told.
type fakeSession struct {
	mu      sync.Mutex
	open    int
	maxOpen int
	file    *os.File
	blocked chan struct{} // one value for each /block or stream that waits
}

func newFake() *fakeSession { return &fakeSession{blocked: make(chan struct{}, 1000)} }

func (s *fakeSession) Streaming(method string) bool { return strings.HasPrefix(method, "/stream/") }

// Quick: the reader answers /quick itself.
func (s *fakeSession) Quick(method string) bool { return method == "/quick" }

func (s *fakeSession) Invoke(ctx context.Context, c hostabi.Call) ([]byte, error) {
	switch c.Method {
	case "/echo", "/quick":
		return append(c.Dst, c.Req...), nil
	case "/fail":
		return c.Dst, hostabi.Errorf(hostabi.ReasonCapabilityDenied, "no").WithMeta("capability", "x.y").WithFix("ds grant")
	case "/big":
		return append(c.Dst, make([]byte, hostabi.MaxMessage+1)...), nil
	case "/block":
		s.blocked <- struct{}{}
		<-ctx.Done()
		return c.Dst, hostabi.Errorf(hostabi.ReasonInterrupted, "cancelled")
	case cacheOpen:
		if c.Enc == hostabi.EncJSON {
			return append(c.Dst, `{"handle":7,"path":"/p"}`...), nil
		}
		return append(c.Dst, 8, 7), nil
	}
	return c.Dst, hostabi.Errorf(hostabi.ReasonUnknownMethod, "method %s: unknown", c.Method)
}

func (s *fakeSession) Stream(ctx context.Context, method string, _ hostabi.Encoding) (hostabi.Stream, error) {
	if !s.Streaming(method) {
		return nil, hostabi.Errorf(hostabi.ReasonUnknownMethod, "method %s: unknown", method)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open++
	s.maxOpen = max(s.maxOpen, s.open)
	ctx, cancel := context.WithCancelCause(ctx)
	return &fakeStream{s: s, ctx: ctx, cancel: cancel, kind: strings.TrimPrefix(method, "/stream/"), in: make(chan []byte)}, nil
}

func (s *fakeSession) Handle(id uint32) (io.ReadWriteCloser, error) {
	if id != 7 || s.file == nil {
		return nil, hostabi.Errorf(hostabi.ReasonBadHandle, "handle")
	}
	return &passed{f: s.file}, nil
}

func (s *fakeSession) Close() error { return nil }

// fakeStream: "echo" returns every message; "count" answers the first message, a little-endian number n,
// with n messages; "sink" takes nothing until it is cancelled.
type fakeStream struct {
	s      *fakeSession
	ctx    context.Context
	cancel context.CancelCauseFunc
	kind   string
	in     chan []byte
	once   sync.Once
	left   int
	asked  bool
}

func (st *fakeStream) Send(msg []byte) error {
	if st.kind == "sink" {
		<-st.ctx.Done()
		return io.EOF
	}
	select {
	case st.in <- bytes.Clone(msg):
		return nil
	case <-st.ctx.Done():
		return io.EOF
	}
}

func (st *fakeStream) CloseSend() error {
	close(st.in)
	return nil
}

func (st *fakeStream) Recv() ([]byte, error) {
	if st.kind == "sink" {
		st.s.blocked <- struct{}{}
	}
	if st.asked {
		if st.left == 0 {
			return nil, io.EOF
		}
		st.left--
		return []byte{byte(st.left)}, nil
	}
	select {
	case msg, ok := <-st.in:
		if !ok {
			return nil, io.EOF
		}
		if st.kind == "count" {
			st.left, st.asked = int(binary.LittleEndian.Uint32(msg)), true
			return st.Recv()
		}
		return msg, nil
	case <-st.ctx.Done():
		return nil, hostabi.Errorf(hostabi.ReasonInterrupted, "cancelled")
	}
}

func (st *fakeStream) Close() error {
	st.once.Do(func() {
		st.cancel(nil)
		st.s.mu.Lock()
		defer st.s.mu.Unlock()
		st.s.open--
	})
	return nil
}

// pair is a connected pair of unix sockets.
func pair(t testing.TB) (host, guest *os.File) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		syscall.CloseOnExec(fd)
		if err := syscall.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
	}
	return os.NewFile(uintptr(fds[0]), "host"), os.NewFile(uintptr(fds[1]), "guest")
}

// serve runs Serve over s until the test ends, which fails if goroutines stay or Serve returns another error
// than want says.
func serve(t testing.TB, s hostabi.Session, want func(error) bool) *os.File {
	t.Helper()
	before := runtime.NumGoroutine()
	host, guest := pair(t)
	done := make(chan error, 1)
	go func() { done <- Serve(context.Background(), host, s) }()
	t.Cleanup(func() {
		guest.Close()
		if err := <-done; !want(err) {
			t.Errorf("Serve returned %v", err)
		}
		noLeak(t, before)
	})
	return guest
}

func noLeak(t testing.TB, before int) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

func clean(err error) bool { return err == nil }

// connect is a Conn to a served session.
func connect(t testing.TB, s hostabi.Session) *Conn {
	t.Helper()
	c := NewConn(serve(t, s, clean))
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

func invoke(t *testing.T, c *Conn, method string, req []byte) ([]byte, error) {
	t.Helper()
	return c.Invoke(t.Context(), hostabi.Call{Method: method, Req: req})
}
