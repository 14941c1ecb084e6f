package wasm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

const (
	demoWASM  = "../../testdata/guests/c/demo/demo.wasm"
	helloWASM = "../../testdata/guests/c/hello.wasm"
	probeWASM = "testdata/probe.wasm"
)

// fakeBox grants what a test says.
type fakeBox struct {
	mounts []sandbox.Mount
	limits plugin.Limits
	quota  int64
	env    []string
	args   []string
}

func (b fakeBox) Mounts() []sandbox.Mount { return b.mounts }
func (b fakeBox) Limits() plugin.Limits {
	if b.limits.Memory == 0 {
		b.limits.Memory = 64 << 20
	}
	return b.limits
}
func (b fakeBox) Quota(hostabi.Capability) int64              { return b.quota }
func (b fakeBox) Env([]string) []string                       { return b.env }
func (b fakeBox) Paths() (args []string, p []hostabi.PathArg) { return b.args, nil }

// fakeSession answers /echo with the request, /block when ctx ends, /panic never; streams echo, but /cut breaks.
type fakeSession struct {
	mu      sync.Mutex
	handles map[uint32]io.ReadWriteCloser
	calls   int
	entered chan struct{} // receives when /block waits
}

func (s *fakeSession) Invoke(ctx context.Context, c hostabi.Call) ([]byte, error) {
	s.mu.Lock()
	s.calls++
	s.mu.Unlock()
	switch c.Method {
	case "/echo":
		return append(c.Dst, c.Req...), nil
	case "/big":
		return append(c.Dst, bytes.Repeat([]byte("0123456789"), 100)...), nil
	case "/panic":
		panic("planted")
	case "/block":
		if s.entered != nil {
			s.entered <- struct{}{}
		}
		<-ctx.Done()
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, hostabi.Errorf(hostabi.ReasonTimeout, "deadline")
		}
		return nil, hostabi.Errorf(hostabi.ReasonInterrupted, "cancelled")
	}
	return nil, hostabi.Errorf(hostabi.ReasonUnknownMethod, "unknown method %s", c.Method)
}

func (s *fakeSession) Stream(ctx context.Context, method string, _ hostabi.Encoding) (hostabi.Stream, error) {
	if method == "/cut" {
		return cutStream{}, nil
	}
	if method != "/stream" {
		return nil, hostabi.Errorf(hostabi.ReasonUnknownMethod, "unknown method %s", method)
	}
	ctx, cancel := context.WithCancel(ctx)
	return &fakeStream{ctx: ctx, cancel: cancel, q: make(chan []byte, hostabi.MaxQueued)}, nil
}

func (s *fakeSession) Handle(id uint32) (io.ReadWriteCloser, error) {
	if h, ok := s.handles[id]; ok {
		return h, nil
	}
	return nil, hostabi.Errorf(hostabi.ReasonBadHandle, "no handle %d", id)
}

func (s *fakeSession) Close() error { return nil }

type fakeStream struct {
	ctx    context.Context
	cancel context.CancelFunc
	q      chan []byte
	half   bool
}

func (s *fakeStream) Send(msg []byte) error {
	if s.half {
		return io.EOF
	}
	select {
	case s.q <- msg:
		return nil
	case <-s.ctx.Done():
		return hostabi.Errorf(hostabi.ReasonInterrupted, "cancelled")
	}
}

func (s *fakeStream) CloseSend() error {
	if !s.half {
		s.half = true
		close(s.q)
	}
	return nil
}

func (s *fakeStream) Recv() ([]byte, error) {
	select {
	case m, ok := <-s.q:
		if !ok {
			return nil, io.EOF
		}
		return m, nil
	case <-s.ctx.Done():
		return nil, hostabi.Errorf(hostabi.ReasonInterrupted, "cancelled")
	}
}

func (s *fakeStream) Close() error { s.cancel(); return nil }

func (s *fakeStream) Poll() (recv, send bool) {
	return len(s.q) > 0 || s.half, !s.half && len(s.q) < cap(s.q)
}

// cutStream fails because a connection of the host ended.
type cutStream struct{}

func (cutStream) err() error {
	return hostabi.Errorf(hostabi.ReasonRegistryUnavailable, "cut: %w", io.EOF)
}

func (cutStream) Send([]byte) error       { return nil }
func (s cutStream) CloseSend() error      { return s.err() }
func (s cutStream) Recv() ([]byte, error) { return nil, s.err() }
func (cutStream) Close() error            { return nil }

// installed is a plugin whose module is the file.
func installed(t testing.TB, file string) *plugin.Installed {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	name := plugin.Name(strings.TrimSuffix(filepath.Base(file), ".wasm"))
	prog := plugin.Program{Kind: plugin.WASM, Path: file, Digest: hostabi.DigestOf(b), Size: int64(len(b)), File: f}
	return &plugin.Installed{Name: name, Version: "1.0.0", Manifest: &plugin.Manifest{}, Programs: []plugin.Program{prog}, Program: &prog}
}

// installedBytes is a plugin whose module is b.
func installedBytes(t testing.TB, b []byte) *plugin.Installed {
	t.Helper()
	file := filepath.Join(t.TempDir(), "x.wasm")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return installed(t, file)
}

// shared is one backend for tests that do not look at the cache.
var shared = sync.OnceValue(func() *Backend {
	dir, err := os.MkdirTemp("", "ds-wasm-test-")
	if err != nil {
		panic(err)
	}
	sharedDir = dir
	return New(Options{CacheDir: dir})
})

var sharedDir string

func TestMain(m *testing.M) {
	code := m.Run()
	if sharedDir != "" {
		_ = shared().Close()
		_ = os.RemoveAll(sharedDir)
	}
	os.Exit(code)
}

// runOf is one run and what it printed.
type runOf struct {
	b       *Backend
	box     fakeBox
	session hostabi.Session
	inv     plugin.Invocation
	out     bytes.Buffer
	err     bytes.Buffer
}

func (r *runOf) run(ctx context.Context, t testing.TB, p *plugin.Installed, words ...string) error {
	t.Helper()
	if r.b == nil {
		r.b = shared()
	}
	if r.session == nil {
		r.session = &fakeSession{}
	}
	r.inv.Args = words
	if r.inv.Stdout == nil {
		r.inv.Stdout = &r.out
	}
	if r.inv.Stderr == nil {
		r.inv.Stderr = &r.err
	}
	return r.b.run(ctx, p, r.box, &r.inv, r.session)
}

// result is an error in one line: "exit N", "REASON: message" or "".
func resultOf(err error) string {
	if err == nil {
		return ""
	}
	if e, ok := err.(*plugin.ExitError); ok { //nolint:errorlint // the bare one
		return "exit " + itoa(e.Code)
	}
	re, ok := errors.AsType[*plugin.RunError](err)
	if !ok {
		return "not a RunError: " + err.Error()
	}
	s := string(hostabi.ReasonOf(err)) + ": " + re.Error()
	if e, ok := errors.AsType[*plugin.ExitError](err); ok {
		s += " [exit " + itoa(e.Code) + "]"
	}
	return s
}

func itoa(n int) string { return strconv.Itoa(n) }

// logTo collects warnings.
func logTo(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// slack is what a loaded machine may add to the promised 100 ms. A stop that does not work takes much longer:
// the guests of these tests wait for an hour or for ever.
const slack = 2 * time.Second

// within fails the test if do takes longer than limit.
func within(t *testing.T, limit time.Duration, do func()) time.Duration {
	t.Helper()
	begin := time.Now()
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	select {
	case <-done:
	case <-time.After(limit + 20*time.Second):
		t.Fatal("does not end")
	}
	took := time.Since(begin)
	if took > limit {
		t.Errorf("took %v, limit %v", took, limit)
	}
	return took
}
