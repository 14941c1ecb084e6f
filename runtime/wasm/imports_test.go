package wasm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/experimental/wazerotest"
	"github.com/tetratelabs/wazero/sys"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// guest calls imports as a module would, on one page of memory.
type guest struct {
	t   testing.TB
	in  *instance
	mem *wazerotest.Memory
	mod *wazerotest.Module
	ctx context.Context
}

func newGuest(t testing.TB, s *fakeSession) *guest {
	t.Helper()
	stop := newStopper(t.Context(), &plugin.Invocation{})
	t.Cleanup(stop.end)
	mem := wazerotest.NewFixedMemory(pageSize)
	in := &instance{session: s, stop: stop, methods: make(map[string]string), streams: make(map[uint32]hostabi.Stream)}
	return &guest{
		t: t, in: in, mem: mem, mod: wazerotest.NewModule(mem),
		ctx: context.WithValue(t.Context(), instanceKey{}, in),
	}
}

// do calls an import and returns code and n.
func (g *guest) do(name string, args ...uint64) (code, n uint32) {
	stack := append(make([]uint64, 0, 8), args...)
	f := imports[name]
	for len(stack) < f.arity {
		stack = append(stack, 0)
	}
	f.Call(g.ctx, g.mod, stack)
	return uint32(stack[0] >> 32), uint32(stack[0])
}

// put writes a string and returns where.
func (g *guest) put(at uint64, s string) (ptr, size uint64) {
	if !g.mem.WriteString(uint32(at), s) {
		g.t.Fatal("test writes outside of memory")
	}
	return at, uint64(len(s))
}

func (g *guest) text(at, n uint32) string {
	b, _ := g.mem.Read(at, n)
	return string(b)
}

// status takes the kept status.
func (g *guest) status() *hostabi.Error {
	code, n := g.do("take", 60000, 5000)
	if code != 0 || n == 0 {
		return nil
	}
	b, _ := g.mem.Read(60000, n)
	return hostabi.ParseStatus(bytes.Clone(b))
}

func (g *guest) expect(what string, code, n, wantCode, wantN uint32) {
	g.t.Helper()
	if code != wantCode || n != wantN {
		g.t.Errorf("%s: code %d n %d, want %d %d", what, code, n, wantCode, wantN)
	}
}

func (g *guest) expectError(what string, code, n uint32, want hostabi.Reason) {
	g.t.Helper()
	e := g.status()
	if e == nil || e.Reason != want || code != uint32(want.Info().Code) || n == 0 {
		g.t.Errorf("%s: code %d, status %v, want %s", what, code, e, want)
	}
}

func TestCall(t *testing.T) {
	g := newGuest(t, &fakeSession{})
	m, ml := g.put(0, "/echo")
	r, rl := g.put(100, "request")
	code, n := g.do("call", m, ml, r, rl, 200, 100)
	g.expect("call", code, n, 0, 7)
	if g.text(200, 7) != "request" {
		t.Errorf("reply %q", g.text(200, 7))
	}
	code, n = g.do("call", m, ml, r, rl, 100, 7)
	g.expect("overlap", code, n, 0, 7)
	code, n = g.do("call", m, ml, r, 0, 0, 0)
	g.expect("empty", code, n, 0, 0)
	code, n = g.do("call", m, ml, r, rl, 200, 0)
	if code != codeTruncated || n != 7 {
		t.Errorf("no room at all: %d %d", code, n)
	}
	m, ml = g.put(0, "/nope")
	code, n = g.do("call", m, ml, r, rl, 200, 100)
	g.expectError("unknown method", code, n, hostabi.ReasonUnknownMethod)
	code, n = g.do("take", 0, 10)
	g.expect("nothing kept", code, n, 0, 0)
	code, n = g.do("call", 0, hostabi.MaxMethod+1, r, rl, 200, 100)
	g.expectError("long method", code, n, hostabi.ReasonTooLarge)
}

func TestTruncatedIsTakenInPieces(t *testing.T) {
	g := newGuest(t, &fakeSession{})
	m, ml := g.put(0, "/big")
	g.put(200, "untouched!")
	code, n := g.do("call", m, ml, 0, 0, 200, 10)
	g.expect("call", code, n, codeTruncated, 1000)
	if g.text(200, 10) != "untouched!" {
		t.Errorf("something was written: %q", g.text(200, 10))
	}
	var all strings.Builder
	for {
		code, n := g.do("take", 300, 333)
		all.WriteString(g.text(300, n))
		if code == 0 {
			break
		}
		if code != codeTruncated || n != 333 {
			t.Fatalf("take: %d %d", code, n)
		}
	}
	if all.String() != strings.Repeat("0123456789", 100) {
		t.Errorf("taken %q", all.String())
	}
	code, n = g.do("take", 300, 333)
	g.expect("after the end", code, n, 0, 0)

	g.do("call", m, ml, 0, 0, 200, 10)
	m, ml = g.put(0, "/echo")
	g.do("call", m, ml, 0, 0, 200, 10)
	code, n = g.do("take", 300, 333)
	g.expect("cleared by the next call", code, n, 0, 0)
}

// TestBadPointers: every argument of every import is checked before anything runs.
func TestBadPointers(t *testing.T) {
	s := &fakeSession{handles: map[uint32]io.ReadWriteCloser{1: &fakeBlob{}}}
	g := newGuest(t, s)
	m, ml := g.put(0, "/echo")
	sm, sml := g.put(50, "/stream")
	_, h := g.do("open", sm, sml, 0, 0)
	const end = pageSize
	for name, c := range map[string]struct {
		f    string
		args []uint64
	}{
		"call method":        {"call", []uint64{end, 1, 0, 0, 0, 0}},
		"call method wraps":  {"call", []uint64{0xfffffff0, 0x20, 0, 0, 0, 0}},
		"call request":       {"call", []uint64{m, ml, end - 1, 2, 0, 0}},
		"call request wraps": {"call", []uint64{m, ml, 1, 0xffffffff, 0, 0}},
		"call reply":         {"call", []uint64{m, ml, 0, 0, end, 1}},
		"call reply wraps":   {"call", []uint64{m, ml, 0, 0, 0xffffffff, 0xffffffff}},
		"call reply beyond":  {"call", []uint64{m, ml, 0, 0, end + 1, 0}},
		"take":               {"take", []uint64{end, 1}},
		"open method":        {"open", []uint64{end, 1, 0, 0}},
		"open request":       {"open", []uint64{sm, sml, 0, end + 1}},
		"send":               {"send", []uint64{uint64(h), end, 1}},
		"recv":               {"recv", []uint64{uint64(h), end, 1}},
		"read":               {"read", []uint64{1, end, 1}},
		"write":              {"write", []uint64{1, end, 1}},
	} {
		before := s.calls
		code, n := g.do(c.f, c.args...)
		g.expectError(name, code, n, hostabi.ReasonBadPointer)
		if s.calls != before {
			t.Errorf("%s: the call ran", name)
		}
	}
}

func TestStreams(t *testing.T) {
	g := newGuest(t, &fakeSession{})
	m, ml := g.put(0, "/stream")
	p, pl := g.put(100, "first")
	code, h := g.do("open", m, ml, p, pl)
	if code != 0 || h < streamBase {
		t.Fatalf("open: %d, handle %d", code, h)
	}
	g.put(100, "XXXXX") // the message was copied
	code, n := g.do("recv", uint64(h), 200, 100)
	g.expect("recv", code, n, 0, 5)
	if g.text(200, 5) != "first" {
		t.Errorf("message %q", g.text(200, 5))
	}
	p, pl = g.put(100, "second")
	code, n = g.do("send", uint64(h), p, pl)
	g.expect("send", code, n, 0, 6)
	code, n = g.do("recv", uint64(h), 200, 3)
	g.expect("recv truncated", code, n, codeTruncated, 6)
	code, n = g.do("take", 200, 100)
	g.expect("take", code, n, 0, 6)
	code, n = g.do("close", uint64(h), closeHalf)
	g.expect("half-close", code, n, 0, 0)
	code, n = g.do("send", uint64(h), p, pl)
	g.expect("send after the end", code, n, codeEnd, 0)
	code, n = g.do("recv", uint64(h), 200, 100)
	g.expect("end", code, n, codeEnd, 0)
	code, n = g.do("close", uint64(h), closeRelease)
	g.expect("release", code, n, 0, 0)
	code, n = g.do("recv", uint64(h), 200, 100)
	g.expectError("released", code, n, hostabi.ReasonBadHandle)
	code, n = g.do("close", uint64(h), closeRelease)
	g.expectError("released twice", code, n, hostabi.ReasonBadHandle)

	_, second := g.do("open", m, ml, p, pl)
	if second <= h {
		t.Errorf("id %d after %d", second, h)
	}
	g.do("recv", uint64(second), 200, 100)
	code, n = g.do("close", uint64(second), closeCancel)
	g.expect("cancel", code, n, 0, 0)
	code, n = g.do("recv", uint64(second), 200, 100)
	g.expectError("cancelled", code, n, hostabi.ReasonInterrupted)
	code, n = g.do("close", uint64(second), 9)
	g.expectError("unknown flags", code, n, hostabi.ReasonUsage)

	p, pl = g.put(0, "/nope")
	code, n = g.do("open", p, pl, 0, 0)
	g.expectError("unknown method", code, n, hostabi.ReasonUnknownMethod)

	p, pl = g.put(0, "/cut")
	_, cut := g.do("open", p, pl, 0, 0)
	code, n = g.do("recv", uint64(cut), 200, 100)
	g.expectError("failure caused by an end", code, n, hostabi.ReasonRegistryUnavailable)
	code, n = g.do("close", uint64(cut), closeHalf)
	g.expectError("half-close that fails", code, n, hostabi.ReasonRegistryUnavailable)
}

func TestPoll(t *testing.T) {
	g := newGuest(t, &fakeSession{})
	m, ml := g.put(0, "/stream")
	_, h := g.do("open", m, ml, 0, 0)
	code, n := g.do("poll", uint64(h))
	g.expect("both", code, n, 0, pollRecv|pollSend)
	g.do("recv", uint64(h), 200, 100)
	code, n = g.do("poll", uint64(h))
	g.expect("nothing has come", code, n, 0, pollSend)
	for range hostabi.MaxQueued {
		g.do("send", uint64(h), 0, 0)
	}
	code, n = g.do("poll", uint64(h))
	g.expect("no room", code, n, 0, pollRecv)
	code, n = g.do("poll", 1)
	g.expectError("no stream", code, n, hostabi.ReasonBadHandle)
	g.put(0, "/cut")
	_, cut := g.do("open", m, 4, 0, 0)
	code, n = g.do("poll", uint64(cut))
	g.expectError("a stream that cannot tell", code, n, hostabi.ReasonBadHandle)
}

func TestStreamLimit(t *testing.T) {
	g := newGuest(t, &fakeSession{})
	m, ml := g.put(0, "/stream")
	for i := range hostabi.MaxStreams {
		if code, _ := g.do("open", m, ml, 0, 0); code != 0 {
			t.Fatalf("stream %d: code %d", i, code)
		}
	}
	code, n := g.do("open", m, ml, 0, 0)
	g.expectError("one more", code, n, hostabi.ReasonTooMany)
	g.do("close", streamBase, closeRelease)
	if code, _ := g.do("open", m, ml, 0, 0); code != 0 {
		t.Errorf("after one was released: code %d", code)
	}
}

// fakeBlob is a blob "content" and a sink.
type fakeBlob struct {
	at     int
	wrote  bytes.Buffer
	closed bool
	err    error
}

func (b *fakeBlob) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	const content = "content"
	if b.at == len(content) {
		return 0, io.EOF
	}
	n := copy(p, content[b.at:])
	b.at += n
	return n, nil
}

func (b *fakeBlob) Write(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	return b.wrote.Write(p)
}

func (b *fakeBlob) Close() error { b.closed = true; return b.err }

func TestBlobs(t *testing.T) {
	b := &fakeBlob{}
	bad := &fakeBlob{err: hostabi.Errorf(hostabi.ReasonQuota, "over the quota")}
	other := &fakeBlob{err: errors.New("disk on fire")}
	g := newGuest(t, &fakeSession{handles: map[uint32]io.ReadWriteCloser{1: b, 2: bad, 3: other}})
	code, n := g.do("read", 1, 100, 4)
	g.expect("read", code, n, 0, 4)
	code, n = g.do("read", 1, 104, 100)
	g.expect("rest", code, n, 0, 3)
	if g.text(100, 7) != "content" {
		t.Errorf("read %q", g.text(100, 7))
	}
	code, n = g.do("read", 1, 100, 100)
	g.expect("end", code, n, 0, 0)
	p, pl := g.put(200, "bytes")
	code, n = g.do("write", 1, p, pl)
	g.expect("write", code, n, 0, 5)
	if b.wrote.String() != "bytes" {
		t.Errorf("wrote %q", &b.wrote)
	}
	code, n = g.do("write", 2, p, pl)
	g.expectError("write fails", code, n, hostabi.ReasonQuota)
	code, n = g.do("read", 3, p, pl)
	g.expectError("read fails", code, n, hostabi.ReasonInternal)
	code, n = g.do("close", 2, closeRelease)
	g.expectError("close fails", code, n, hostabi.ReasonQuota)
	code, n = g.do("close", 1, closeHalf)
	g.expectError("half-close of a blob", code, n, hostabi.ReasonBadHandle)
	code, n = g.do("close", 1, closeRelease)
	g.expect("close", code, n, 0, 0)
	if !b.closed {
		t.Error("not closed")
	}
	for _, h := range []uint64{0, 9, streamBase, 0xffffffff} {
		for _, f := range []string{"read", "write", "send", "recv", "close"} {
			code, n = g.do(f, h, 100, 1)
			if f == "close" {
				code, n = g.do(f, h, 0)
			}
			g.expectError(f, code, n, hostabi.ReasonBadHandle)
		}
	}
	m, ml := g.put(0, "/stream")
	_, h := g.do("open", m, ml, 0, 0)
	code, n = g.do("read", uint64(h), 100, 1)
	g.expectError("read of a stream", code, n, hostabi.ReasonBadHandle)
	code, n = g.do("send", 1, 100, 1)
	g.expectError("send to a blob", code, n, hostabi.ReasonBadHandle)
}

func TestMessageLimit(t *testing.T) {
	g := newGuest(t, &fakeSession{})
	g.mem = wazerotest.NewFixedMemory(hostabi.MaxMessage + 2*pageSize)
	g.mod = wazerotest.NewModule(g.mem)
	m, ml := g.put(0, "/echo")
	code, n := g.do("call", m, ml, 100, hostabi.MaxMessage, 100, hostabi.MaxMessage)
	g.expect("largest", code, n, 0, hostabi.MaxMessage)
	code, n = g.do("call", m, ml, 100, hostabi.MaxMessage+1, 100, 10)
	g.expectError("one more", code, n, hostabi.ReasonTooLarge)
	m, ml = g.put(0, "/stream")
	code, n = g.do("open", m, ml, 100, hostabi.MaxMessage+1)
	g.expectError("open", code, n, hostabi.ReasonTooLarge)
	_, h := g.do("open", m, ml, 100, 0)
	code, n = g.do("send", uint64(h), 100, hostabi.MaxMessage+1)
	g.expectError("send", code, n, hostabi.ReasonTooLarge)
}

// TestPanicOfTheHost ends the guest and is remembered, and the next call works.
func TestPanicOfTheHost(t *testing.T) {
	g := newGuest(t, &fakeSession{})
	m, ml := g.put(0, "/panic")
	func() {
		defer func() {
			if _, ok := recover().(*sys.ExitError); !ok {
				t.Error("the guest is not ended")
			}
		}()
		g.do("call", m, ml, 0, 0, 0, 0)
	}()
	if g.in.panicked == nil || g.in.panicked.value != "planted" {
		t.Errorf("remembered %v", g.in.panicked)
	}
	if g.in.busy.Load() {
		t.Error("still busy")
	}
}

func TestMethodNamesAreBounded(t *testing.T) {
	g := newGuest(t, &fakeSession{})
	for i := range 2 * maxMethods {
		m, ml := g.put(0, "/x"+itoa(i))
		g.do("call", m, ml, 0, 0, 0, 0)
	}
	if len(g.in.methods) > maxMethods {
		t.Errorf("%d names", len(g.in.methods))
	}
}

// TestCallAllocates counts the carrier's own allocations.
func TestCallAllocates(t *testing.T) {
	g := newGuest(t, &fakeSession{})
	m, ml := g.put(0, "/echo")
	stack := make([]uint64, 6)
	f := imports["call"]
	if n := testing.AllocsPerRun(100, func() {
		copy(stack, []uint64{m, ml, 100, 64, 200, 64})
		f.Call(g.ctx, g.mod, stack)
	}); n > 0 {
		t.Errorf("%v allocations a call", n)
	}
}

// FuzzImports: any sequence of calls with any numbers ends without a panic of the host.
func FuzzImports(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0})
	f.Add(bytes.Repeat([]byte{2, 0, 0, 0, 7, 1, 0xff, 0xff, 0xff, 0xff}, 20))
	names := []string{"call", "take", "open", "send", "recv", "read", "write", "close", "poll"}
	f.Fuzz(func(t *testing.T, b []byte) {
		g := newGuest(t, &fakeSession{handles: map[uint32]io.ReadWriteCloser{1: &fakeBlob{}}})
		defer func() {
			for _, s := range g.in.streams {
				_ = s.Close()
			}
		}()
		g.put(0, "/echo/stream/big")
		g.put(100, "/stream")
		number := func() uint64 {
			if len(b) == 0 {
				return 0
			}
			kind := b[0]
			b = b[1:]
			switch kind % 8 {
			case 0:
				return streamBase + uint64(kind>>6)
			case 1:
				return pageSize - uint64(kind>>3)
			case 2:
				return 0xffffffff
			case 3:
				return 100
			case 4:
				return 7
			}
			return uint64(kind)
		}
		for range 64 {
			if len(b) == 0 {
				return
			}
			name := names[int(b[0])%len(names)]
			b = b[1:]
			args := make([]uint64, imports[name].arity)
			for i := range args {
				args[i] = number()
			}
			if st, ok := g.in.streams[uint32(args[0])]; ok && name == "recv" || name == "send" {
				fs, isFake := st.(*fakeStream)
				if isFake && (name == "recv" && len(fs.q) == 0 && !fs.half || name == "send" && len(fs.q) == cap(fs.q)) {
					continue // would wait
				}
			}
			if code, n := g.do(name, args...); code > codeEnd || code > 16 && code < codeTruncated || n > pageSize && n < streamBase {
				t.Fatalf("%s%v: code %d n %d", name, args, code, n)
			}
		}
	})
}
