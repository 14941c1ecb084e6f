//go:build unix

package native_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/runtime/native"
	"github.com/delivery-station/ds/sandbox"
)

// call is one run of a program through the backend.
type call struct {
	mode, name     string
	args           []string
	path           string // of the program; empty = this test binary
	stdin          io.Reader
	stdout, stderr io.Writer
	env            []string
	dir            string
	rundir         string
	signals        chan os.Signal
	inv            func(*plugin.Invocation)
	options        native.Options
	handshake      time.Duration
	session        hostabi.Session
	afterOpen      func() // called when the program file is open
	support        *native.Support
	box            func(*sandbox.BoxOptions)
	ran            func(*sandbox.Box) // called after the run
}

// hold sets how c is confined. words are NAME=VALUE: confine (sandbox.native), abi (of the kernel), sockets (an
// origin), read and write (directories), denied (a directory that is protected).
func (c *call) hold(words string) {
	for w := range strings.FieldsSeq(words) {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case "confine":
			c.options.Confine = value
		case "abi":
			n, _ := strconv.Atoi(value)
			c.support = &native.Support{Landlock: n, Seccomp: true}
		case "sockets":
			c.ask(plugin.Request{Cap: hostabi.NetHTTP, Scope: []string{value}, Sockets: true})
		case "read":
			c.ask(plugin.Request{Cap: hostabi.FSRead, Scope: []string{"abs:" + value}})
		case "write":
			c.ask(plugin.Request{Cap: hostabi.FSWrite, Scope: []string{"abs:" + value}})
		case "denied":
			c.change(func(o *sandbox.BoxOptions) { o.Protected = append(o.Protected, value) })
		}
	}
}

// change adds f to what c does to its Box.
func (c *call) change(f func(*sandbox.BoxOptions)) {
	before := c.box
	c.box = func(o *sandbox.BoxOptions) {
		if before != nil {
			before(o)
		}
		f(o)
	}
}

// ask has the plugin request r and the user grant it.
func (c *call) ask(r plugin.Request) {
	c.change(func(o *sandbox.BoxOptions) {
		o.Plugin.Manifest.Capabilities = append(o.Plugin.Manifest.Capabilities, r)
		if o.Granted == nil {
			o.Granted = make(map[hostabi.Capability]sandbox.Scopes)
		}
		g := o.Granted[r.Cap]
		o.Granted[r.Cap] = sandbox.Scopes{Scope: append(g.Scope, r.Scope...), Sockets: g.Sockets || r.Sockets}
	})
}

// do runs c. err is anything but an exit.
func (c call) do(ctx context.Context) (code, signal int, err error) {
	err = c.run(ctx)
	var exit *plugin.ExitError
	if errors.As(err, &exit) {
		return exit.Code, exit.Signal, nil
	}
	return 0, 0, err
}

func (c call) run(ctx context.Context) error {
	path := c.path
	if path == "" {
		path, _ = os.Executable()
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if c.afterOpen != nil {
		c.afterOpen()
	}
	p := &plugin.Installed{
		Name: plugin.Name(c.name), Version: "1.4.0", Manifest: &plugin.Manifest{},
		Program: &plugin.Program{Kind: plugin.Native, Mode: plugin.Mode(c.mode), Path: path, File: file},
	}
	inv := &plugin.Invocation{
		ID: strings.Repeat("0a", 16), Kind: plugin.KindRun, Args: c.args, Env: c.env, Dir: c.dir,
		Stdin: c.stdin, Stdout: c.stdout, Stderr: c.stderr, Signals: c.signals,
	}
	if c.inv != nil {
		c.inv(inv)
	}
	o := sandbox.BoxOptions{Plugin: p, Invocation: inv}
	if underRace {
		p.Manifest.Limits.Memory = 1 << 60
	}
	if c.box != nil {
		c.box(&o)
	}
	box, err := sandbox.NewBox(o)
	if err != nil {
		return err
	}
	if c.rundir != "" {
		c.options.RunDir = func() (string, error) { return c.rundir, nil }
	}
	session := c.session
	if session == nil {
		session = &fakeSession{}
	}
	b := native.New(c.options)
	if c.support != nil {
		b.SetSupport(*c.support)
	}
	if c.handshake > 0 {
		b.SetHandshake(c.handshake)
	}
	err = b.Run(ctx, p, box, inv, session)
	if c.ran != nil {
		c.ran(box)
	}
	return err
}

// output runs c and returns its stdout and exit code.
func (c call) output(t *testing.T) (stdout string, code int) {
	t.Helper()
	var out, errs syncBuffer
	c.stdout = &out
	if c.stderr == nil {
		c.stderr = &errs
	}
	code, _, err := c.do(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	if s := errs.String(); s != "" {
		t.Logf("%s stderr: %s", c.name, s)
	}
	return out.String(), code
}

// refused runs c, which must not run, and returns the error.
func (c call) refused(t *testing.T) *hostabi.Error {
	t.Helper()
	if c.stdout == nil {
		c.stdout = io.Discard
	}
	err := c.run(t.Context())
	e, ok := errors.AsType[*hostabi.Error](err)
	if !ok {
		t.Fatalf("%s: got %v, want *hostabi.Error", c.name, err)
	}
	return e
}

func wantError(t *testing.T, e *hostabi.Error, reason hostabi.Reason, text string) {
	t.Helper()
	if e.Reason != reason || !strings.Contains(e.Error(), text) {
		t.Errorf("got %s %q, want %s with %q", e.Reason, e, reason, text)
	}
}

// fakeSession answers Echo with its request and serves Meta over gRPC.
type fakeSession struct {
	mu       sync.Mutex
	dir      string
	confined bool
}

func (s *fakeSession) Invoke(_ context.Context, c hostabi.Call) ([]byte, error) {
	return append(c.Dst, c.Req...), nil
}

func (s *fakeSession) Stream(context.Context, string, hostabi.Encoding) (hostabi.Stream, error) {
	return nil, hostabi.Errorf(hostabi.ReasonUnknownMethod, "no streams")
}

func (s *fakeSession) Handle(uint32) (io.ReadWriteCloser, error) {
	return nil, hostabi.Errorf(hostabi.ReasonBadHandle, "no handles")
}

func (s *fakeSession) Close() error { return nil }

func (s *fakeSession) SetRunDir(dir string, confined bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dir, s.confined = dir, confined
}

func (s *fakeSession) GRPCServer(opts []grpc.ServerOption) *grpc.Server {
	g := grpc.NewServer(opts...)
	hostv1.RegisterMetaServer(g, metaServer{})
	return g
}

type metaServer struct{ hostv1.UnimplementedMetaServer }

func (metaServer) Describe(context.Context, *hostv1.DescribeRequest) (*hostv1.DescribeResponse, error) {
	return &hostv1.DescribeResponse{Abi: hostabi.ABI}, nil
}

// syncBuffer is a buffer that many may write to, whose lines can be waited for.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
	hit chan struct{} // closed at the first line
}

func newSyncBuffer() *syncBuffer { return &syncBuffer{hit: make(chan struct{})} }

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, err := b.buf.Write(p)
	if b.hit != nil && bytes.IndexByte(b.buf.Bytes(), '\n') >= 0 {
		select {
		case <-b.hit:
		default:
			close(b.hit)
		}
	}
	return n, err
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// eventually polls until ok, without sleeping.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("never: %s", what)
		}
	}
}

// shortDir is a directory that leaves room for socket names.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ds")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func uid() string { return strconv.Itoa(os.Getuid()) }
