//go:build unix

package frame

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
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

func TestStreamEcho(t *testing.T) {
	c := connect(t, newFake())
	st, err := c.Stream(t.Context(), "/stream/echo", hostabi.EncProto)
	if err != nil {
		t.Fatal(err)
	}
	const n = 200
	go func() {
		for i := range n {
			if err := st.Send([]byte{byte(i)}); err != nil {
				t.Errorf("send %d: %v", i, err)
			}
		}
		if err := st.CloseSend(); err != nil {
			t.Error(err)
		}
	}()
	for i := range n {
		msg, err := st.Recv()
		if err != nil || len(msg) != 1 || msg[0] != byte(i) {
			t.Fatalf("message %d: %v, %v", i, msg, err)
		}
	}
	for range 2 {
		if _, err := st.Recv(); err != io.EOF {
			t.Errorf("after the end: %v, want io.EOF", err)
		}
	}
	if err := st.Send(nil); hostabi.ReasonOf(err) != hostabi.ReasonBadMessage {
		t.Errorf("send after CloseSend: %v", err)
	}
	if err := st.Close(); err != nil {
		t.Error(err)
	}
}

func startCount(t *testing.T, c *Conn, n int) hostabi.Stream {
	t.Helper()
	st, err := c.Stream(t.Context(), "/stream/count", hostabi.EncProto)
	if err == nil {
		err = st.Send(binary.LittleEndian.AppendUint32(nil, uint32(n)))
	}
	if err == nil {
		err = st.CloseSend()
	}
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestStreamErrors(t *testing.T) {
	c := connect(t, newFake())
	st, err := c.Stream(t.Context(), "/no/stream", hostabi.EncProto)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Send(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Recv(); hostabi.ReasonOf(err) != hostabi.ReasonUnknownMethod {
		t.Errorf("unknown stream: %v", err)
	}
	if err := st.Send(nil); err != io.EOF {
		t.Errorf("send to an ended stream: %v, want io.EOF", err)
	}
	st, _ = c.Stream(t.Context(), "/stream/echo", hostabi.EncProto)
	if err := st.Send(make([]byte, hostabi.MaxMessage+1)); hostabi.ReasonOf(err) != hostabi.ReasonTooLarge {
		t.Errorf("4 MiB + 1 message: %v", err)
	}
	if err := st.Send(make([]byte, hostabi.MaxMessage)); err != nil {
		t.Errorf("4 MiB message: %v", err)
	}
	if msg, err := st.Recv(); err != nil || len(msg) != hostabi.MaxMessage {
		t.Errorf("4 MiB message back: %d bytes, %v", len(msg), err)
	}
	st.Close()
}

// TestSlowReaderIsolated: a stream that nobody reads keeps its credit and stops nothing else.
func TestSlowReaderIsolated(t *testing.T) {
	c := connect(t, newFake())
	slow := startCount(t, c, 100_000)
	for range 20 {
		fast := startCount(t, c, 100)
		for i := 99; i >= 0; i-- {
			if msg, err := fast.Recv(); err != nil || msg[0] != byte(i) {
				t.Fatalf("fast stream at %d: %v, %v", i, msg, err)
			}
		}
		if _, err := fast.Recv(); err != io.EOF {
			t.Fatal(err)
		}
		if _, err := invoke(t, c, "/echo", nil); err != nil {
			t.Fatal(err)
		}
	}
	if msg, err := slow.Recv(); err != nil || msg[0] != byte((100_000-1)%256) {
		t.Errorf("slow stream: %v, %v", msg, err)
	}
	slow.Close()
	for {
		if _, err := slow.Recv(); err != nil {
			if hostabi.ReasonOf(err) != hostabi.ReasonInterrupted {
				t.Errorf("closed stream: %v", err)
			}
			return
		}
	}
}

func TestStreams64(t *testing.T) {
	s := newFake()
	c := connect(t, s)
	var streams []hostabi.Stream
	for range hostabi.MaxStreams {
		st, _ := c.Stream(t.Context(), "/stream/echo", hostabi.EncProto)
		if err := st.Send([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := st.Recv(); err != nil {
			t.Fatal(err)
		}
		streams = append(streams, st)
	}
	st, _ := c.Stream(t.Context(), "/stream/echo", hostabi.EncProto)
	if err := st.Send([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Recv(); hostabi.ReasonOf(err) != hostabi.ReasonTooMany {
		t.Errorf("65th stream: %v, want TOO_MANY", err)
	}
	if err := streams[0].CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := streams[0].Recv(); err != io.EOF {
		t.Fatal(err)
	}
	st, _ = c.Stream(t.Context(), "/stream/echo", hostabi.EncProto)
	_ = st.Send([]byte("y"))
	if msg, err := st.Recv(); err != nil || string(msg) != "y" {
		t.Errorf("stream in the place of a finished one: %q, %v", msg, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.maxOpen != hostabi.MaxStreams {
		t.Errorf("%d streams at once in the session, want %d", s.maxOpen, hostabi.MaxStreams)
	}
}

func TestStreamCancel(t *testing.T) {
	for _, how := range []string{"close", "ctx"} {
		t.Run(how, func(t *testing.T) {
			s := newFake()
			c := connect(t, s)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			st, _ := c.Stream(ctx, "/stream/sink", hostabi.EncProto)
			if err := st.Send(nil); err != nil {
				t.Fatal(err)
			}
			<-s.blocked
			if how == "close" {
				st.Close()
			} else {
				cancel()
			}
			if _, err := st.Recv(); hostabi.ReasonOf(err) != hostabi.ReasonInterrupted {
				t.Errorf("cancelled stream: %v", err)
			}
			for end := time.Now().Add(5 * time.Second); ; runtime.Gosched() {
				s.mu.Lock()
				open := s.open
				s.mu.Unlock()
				if open == 0 {
					return
				}
				if time.Now().After(end) {
					t.Fatal("the host still runs the stream")
				}
			}
		})
	}
}

// TestSendWaitsForCredit: the guest's own messages stop at the limit and go on with ACK.
func TestSendWaitsForCredit(t *testing.T) {
	s := newFake()
	c := connect(t, s)
	st, _ := c.Stream(t.Context(), "/stream/sink", hostabi.EncProto)
	for range hostabi.MaxQueued {
		if err := st.Send([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	sent := make(chan error)
	go func() { sent <- st.Send([]byte("x")) }()
	<-s.blocked
	select {
	case err := <-sent:
		t.Fatalf("message without credit was sent: %v", err)
	default:
	}
	st.Close()
	if err := <-sent; err != io.EOF {
		t.Errorf("send on a closed stream: %v, want io.EOF", err)
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

func TestHostGone(t *testing.T) {
	s := newFake()
	host, guest := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, host, s) }()
	c := NewConn(guest)
	defer c.Close()
	st, _ := c.Stream(t.Context(), "/stream/sink", hostabi.EncProto)
	_ = st.Send(nil)
	<-s.blocked
	done := make(chan error)
	go func() {
		_, err := invoke(t, c, "/block", nil)
		done <- err
	}()
	<-s.blocked
	cancel()
	if err := <-served; !errors.Is(err, context.Canceled) {
		t.Errorf("Serve with a cancelled context: %v", err)
	}
	if err := <-done; hostabi.ReasonOf(err) != hostabi.ReasonInterrupted {
		t.Errorf("call: %v", err)
	}
	if _, err := st.Recv(); hostabi.ReasonOf(err) != hostabi.ReasonInterrupted {
		t.Errorf("stream: %v", err)
	}
	if _, err := invoke(t, c, "/echo", nil); hostabi.ReasonOf(err) != hostabi.ReasonInterrupted {
		t.Errorf("next call: %v", err)
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

// raw sends bytes to a served session and returns the frames that come back until it closes.
func raw(t *testing.T, s hostabi.Session, want func(error) bool, in io.Reader) []Frame {
	t.Helper()
	guest := serve(t, s, want)
	if _, err := io.Copy(struct{ io.Writer }{guest}, in); err != nil && !errors.Is(err, syscall.EPIPE) {
		t.Fatal(err)
	}
	rc, err := guest.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = rc.Control(func(fd uintptr) { _ = syscall.Shutdown(int(fd), syscall.SHUT_WR) })
	var got []Frame
	for {
		f, err := Decode(guest, nil)
		if err != nil {
			return got
		}
		got = append(got, f)
	}
}

func TestSessionErrors(t *testing.T) {
	open := func(id uint32, flags Flags, method string, body string) []byte {
		return Append(nil, &Frame{ID: id, Flags: flags, Method: method, Body: []byte(body)})
	}
	for name, c := range map[string]struct {
		in   []byte
		code hostabi.Code
	}{
		"bad-version":       {[]byte{9}, hostabi.Unimplemented},
		"http2-preface":     {[]byte("PRI * HTTP/2.0\r\n\r\n"), hostabi.Unimplemented},
		"bad-flag":          {open(1, 32, "/echo", ""), hostabi.InvalidArgument},
		"fd from guest":     {open(1, FlagEnd|FlagFD, "/echo", ""), hostabi.InvalidArgument},
		"id 0":              {open(0, FlagEnd, "/echo", ""), hostabi.InvalidArgument},
		"id too large":      {open(1<<31, FlagEnd, "/echo", ""), hostabi.InvalidArgument},
		"no method":         {open(1, FlagEnd, "", ""), hostabi.InvalidArgument},
		"live id-reuse":     {append(open(1, 0, "/stream/sink", ""), open(1, 0, "/stream/sink", "")...), hostabi.InvalidArgument},
		"dead id-reuse":     {append(open(5, FlagEnd, "/echo", ""), open(5, FlagEnd, "/echo", "")...), hostabi.InvalidArgument},
		"id going back":     {append(open(5, FlagEnd, "/echo", ""), open(4, FlagEnd, "/echo", "")...), hostabi.InvalidArgument},
		"cancel with open":  {open(1, FlagEnd|FlagCancel, "/echo", ""), hostabi.InvalidArgument},
		"two requests":      {append(open(1, FlagEnd, "/block", ""), open(1, FlagEnd, "", "")...), hostabi.InvalidArgument},
		"message after END": {append(open(1, FlagEnd, "/stream/sink", ""), open(1, 0, "", "x")...), hostabi.InvalidArgument},
		"surplus ACK": {
			append(open(1, 0, "/stream/sink", ""), Append(nil, &Frame{ID: 1, Flags: FlagAck, Code: 1})...), hostabi.InvalidArgument,
		},
		"length over 64 MiB": {binary.LittleEndian.AppendUint32(open(1, FlagEnd, "/echo", "")[:12], MaxSkip+1), hostabi.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			got := raw(t, newFake(), func(err error) bool { return hostabi.ReasonOf(err) == hostabi.ReasonBadFrame }, bytes.NewReader(c.in))
			if len(got) == 0 {
				t.Fatal("no frame")
			}
			last := got[len(got)-1]
			for i := range got { // answers of cancelled calls may come behind
				if got[i].ID == 0 {
					last = got[i]
				}
			}
			if last.ID != 0 || last.Flags != FlagEnd || last.Code != uint16(c.code) || hostabi.ParseStatus(last.Body).Reason != hostabi.ReasonBadFrame {
				t.Errorf("got %+v, want id 0, END, %s", last, c.code)
			}
		})
	}
}

func TestGuestSeesSessionError(t *testing.T) {
	guest := serve(t, newFake(), func(err error) bool { return hostabi.ReasonOf(err) == hostabi.ReasonBadFrame })
	c := NewConn(guest)
	if _, err := invoke(t, c, "/echo", nil); err != nil {
		t.Fatal(err)
	}
	if err := c.w.write([]byte{77}); err != nil {
		t.Fatal(err)
	}
	if _, err := invoke(t, c, "/echo", nil); hostabi.ReasonOf(err) != hostabi.ReasonBadFrame {
		t.Errorf("call after a session error: %v", err)
	}
	c.Close()
}

// TestLateFrames: what a guest sends before it knows that a call has ended is ignored.
func TestLateFrames(t *testing.T) {
	s := newFake()
	guest := serve(t, s, clean)
	write := func(f Frame) {
		t.Helper()
		if _, err := guest.Write(Append(nil, &f)); err != nil {
			t.Fatal(err)
		}
	}
	write(Frame{ID: 1, Flags: FlagEnd, Method: "/echo"})
	if f, err := Decode(guest, nil); err != nil || f.ID != 1 {
		t.Fatalf("%+v, %v", f, err)
	}
	for _, flags := range []Flags{FlagCancel, FlagAck, FlagEnd, 0} {
		write(Frame{ID: 1, Flags: flags, Code: 1, Body: []byte("late")})
	}
	write(Frame{ID: 2, Flags: FlagEnd, Method: "/echo", Body: []byte("alive")})
	if f, err := Decode(guest, nil); err != nil || f.ID != 2 || string(f.Body) != "alive" {
		t.Fatalf("%+v, %v", f, err)
	}
}

// TestSimpleGuest drives a server stream as guests of few lines do: one request with END; no ACK may come.
func TestSimpleGuest(t *testing.T) {
	guest := serve(t, newFake(), clean)
	req := Frame{ID: 1, Flags: FlagEnd, Method: "/stream/count", Body: binary.LittleEndian.AppendUint32(nil, 40)}
	if _, err := guest.Write(Append(nil, &req)); err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		f, err := Decode(guest, nil)
		if err != nil || f.Code != 0 {
			t.Fatalf("%+v, %v", f, err)
		}
		if f.Flags == FlagEnd && len(f.Body) == 0 {
			if n != 40 {
				t.Errorf("%d messages, want 40", n)
			}
			return
		}
		if _, err := guest.Write(Append(nil, &Frame{ID: 1, Flags: FlagAck, Code: 1})); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCreditExceeded(t *testing.T) {
	guest := serve(t, newFake(), clean)
	for i := range hostabi.MaxQueued + 3 { // the last ones arrive when the stream has ended already
		f := Frame{ID: 1, Body: []byte("x")}
		if i == 0 {
			f.Method = "/stream/sink"
		}
		if _, err := guest.Write(Append(nil, &f)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := Decode(guest, nil)
	if err != nil || f.ID != 1 || f.Flags != FlagEnd || f.Code != uint16(hostabi.ResourceExhausted) || hostabi.ParseStatus(f.Body).Reason != hostabi.ReasonCredit {
		t.Fatalf("got %+v, %v, want RESOURCE_EXHAUSTED CREDIT", f, err)
	}
	_, _ = guest.Write(Append(nil, &Frame{ID: 2, Flags: FlagEnd, Method: "/echo"}))
	if f, err := Decode(guest, nil); err != nil || f.ID != 2 {
		t.Errorf("next call: %+v, %v", f, err)
	}
}

func TestTooLargeMessages(t *testing.T) {
	big := make([]byte, hostabi.MaxMessage+1)
	guest := serve(t, newFake(), clean)
	for _, f := range []Frame{
		{ID: 1, Flags: FlagEnd, Method: "/echo", Body: big},
		{ID: 2, Method: "/stream/sink"},
		{ID: 2, Body: big},
	} {
		if _, err := guest.Write(Append(nil, &f)); err != nil {
			t.Fatal(err)
		}
	}
	got := make([]Frame, 2)
	for i := range got {
		var err error
		if got[i], err = Decode(guest, nil); err != nil {
			t.Fatal(err)
		}
	}
	for i, f := range got {
		if f.ID != uint32(i+1) || f.Code != uint16(hostabi.ResourceExhausted) || hostabi.ParseStatus(f.Body).Reason != hostabi.ReasonTooLarge {
			t.Errorf("frame %d: id %d code %d", i, f.ID, f.Code)
		}
	}
}

// TestSplitServe: the same conversation whatever the pieces that the bytes come in.
func TestSplitServe(t *testing.T) {
	var in []byte
	for _, f := range []Frame{
		{ID: 1, Flags: FlagEnd, Method: "/echo", Body: []byte("one")},
		{ID: 2, Enc: hostabi.EncJSON, Flags: FlagEnd, Method: "/fail"},
	} {
		in = Append(in, &f)
	}
	guest := serve(t, newFake(), clean)
	r := iotest.OneByteReader(bytes.NewReader(in))
	if _, err := io.Copy(struct{ io.Writer }{guest}, r); err != nil {
		t.Fatal(err)
	}
	seen := map[uint32]Frame{}
	for range 2 {
		f, err := Decode(iotest.OneByteReader(guest), nil)
		if err != nil {
			t.Fatal(err)
		}
		seen[f.ID] = f
	}
	if string(seen[1].Body) != "one" || seen[2].Enc != hostabi.EncJSON || hostabi.ParseStatusJSON(seen[2].Body).Reason != hostabi.ReasonCapabilityDenied {
		t.Errorf("got %+v", seen)
	}
}

// bad is a host that writes given bytes to whoever calls.
func bad(t *testing.T, answer []byte) *Conn {
	t.Helper()
	host, guest := pair(t)
	go func() {
		_, _ = Decode(host, nil)
		_, _ = host.Write(answer)
		_, _ = io.Copy(io.Discard, host)
		host.Close()
	}()
	c := NewConn(guest)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestGuestRefusesBadHost(t *testing.T) {
	flood := []byte{}
	for range hostabi.MaxQueued + 1 {
		flood = Append(flood, &Frame{ID: 1, Body: []byte("x")})
	}
	for name, c := range map[string]struct {
		answer []byte
		want   hostabi.Reason
	}{
		"garbage":       {[]byte("garbage!garbage!garbage!"), hostabi.ReasonProtocol},
		"flood":         {flood, hostabi.ReasonProtocol},
		"surplus ACK":   {Append(nil, &Frame{ID: 1, Flags: FlagAck, Code: 9}), hostabi.ReasonProtocol},
		"large message": {Append(nil, &Frame{ID: 1, Body: make([]byte, hostabi.MaxMessage+1)}), hostabi.ReasonTooLarge},
		"bad status":    {Append(nil, &Frame{ID: 1, Flags: FlagEnd, Code: 5, Body: []byte{0xff}}), hostabi.ReasonInternal},
	} {
		t.Run(name, func(t *testing.T) {
			st, err := bad(t, c.answer).Stream(t.Context(), "/stream/sink", hostabi.EncProto)
			if err != nil {
				t.Fatal(err)
			}
			if err := st.Send(nil); err != nil {
				t.Fatal(err)
			}
			for err == nil {
				<-st.(*outbound).ended // the reader has seen everything
				_, err = st.Recv()
			}
			if hostabi.ReasonOf(err) != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
	t.Run("descriptor without file", func(t *testing.T) {
		answer := Append(nil, &Frame{ID: 1, Flags: FlagEnd | FlagFD, Body: []byte{8, 7}})
		if _, err := invoke(t, bad(t, answer), cacheOpen, nil); err != nil {
			t.Errorf("reply without the promised descriptor: %v", err)
		}
	})
}

// FuzzServe: no bytes of a guest panic the host, leave a goroutine or keep Serve from ending.
func FuzzServe(f *testing.F) {
	var talk []byte
	for _, fr := range []Frame{
		{ID: 1, Flags: FlagEnd, Method: "/echo", Body: []byte("x")},
		{ID: 2, Method: "/stream/echo", Body: []byte("a")},
		{ID: 2, Body: []byte("b")},
		{ID: 2, Flags: FlagEnd},
		{ID: 3, Flags: FlagEnd, Method: "/stream/count", Body: []byte{40, 0, 0, 0}},
		{ID: 3, Flags: FlagAck, Code: 3},
		{ID: 4, Flags: FlagEnd, Method: "/block"},
		{ID: 4, Flags: FlagCancel},
	} {
		talk = Append(talk, &fr)
	}
	f.Add(talk)
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\n"))
	f.Add([]byte{1, 0, 0, 0, 1, 0, 0, 0, 5, 0, 1, 0, 255, 255, 255, 3, '/', 'e', 'c', 'h', 'o'})
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &fakeSession{blocked: make(chan struct{}, len(b)+100)}
		_ = Serve(t.Context(), &half{Reader: bytes.NewReader(b)}, s)
		if s.open != 0 {
			t.Fatalf("%d streams left open", s.open)
		}
	})
}

// half is a guest that sends bytes and discards what it gets.
type half struct{ io.Reader }

func (*half) Write(p []byte) (int, error) { return len(p), nil }
func (*half) Close() error                { return nil }

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
