package wasm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// treeSession answers in JSON. Each method of methods gets its request; a stream is one whose requests are all read
// before it answers, or one that never ends.
type treeSession struct {
	fakeSession
	methods map[string]func(req string) (string, error)
	asked   []string     // methods that were called
	open    atomic.Int32 // streams
}

func (s *treeSession) Invoke(ctx context.Context, c hostabi.Call) ([]byte, error) {
	s.asked = append(s.asked, c.Method)
	name, own := strings.CutPrefix(c.Method, servicePrefix)
	if f := s.methods[name]; own && f != nil {
		if c.Enc != hostabi.EncJSON {
			return nil, errors.New("the tree speaks JSON")
		}
		if len(c.Req) > hostabi.MaxMessage {
			return nil, errTooLarge
		}
		out, err := f(string(c.Req))
		return []byte(out), err
	}
	c.Method = strings.TrimPrefix(c.Method, "/fake/x")
	return s.fakeSession.Invoke(ctx, c)
}

func (*treeSession) Streaming(method string) bool {
	return strings.HasPrefix(method, servicePrefix+"Stream/")
}

func (s *treeSession) Stream(ctx context.Context, method string, _ hostabi.Encoding) (hostabi.Stream, error) {
	s.asked = append(s.asked, method)
	ctx, cancel := context.WithCancel(ctx)
	st := &treeStream{s: s, ctx: ctx, cancel: cancel, in: make(chan string, 1), half: make(chan struct{})}
	switch strings.TrimPrefix(method, servicePrefix+"Stream/") {
	case "Echo":
	case "Endless":
		st.endless = true
	case "Fails":
		st.end = hostabi.Errorf(hostabi.ReasonCapabilityDenied, "no")
	case "Refused":
		cancel()
		return nil, hostabi.Errorf(hostabi.ReasonTooMany, "no more streams")
	}
	s.open.Add(1)
	return st, nil
}

type treeStream struct {
	s       *treeSession
	ctx     context.Context
	cancel  context.CancelFunc
	in      chan string
	half    chan struct{}
	endless bool
	end     error
	closed  bool
}

func (st *treeStream) Send(msg []byte) error {
	select {
	case st.in <- string(msg):
		return nil
	case <-st.ctx.Done():
		return io.EOF
	}
}

func (st *treeStream) CloseSend() error {
	close(st.half)
	return nil
}

// Recv answers each message with itself, and more than a whole queue of them.
func (st *treeStream) Recv() ([]byte, error) {
	if st.endless && st.ctx.Err() == nil {
		return bytes.Repeat([]byte("y"), 1<<16), nil
	}
	select {
	case m := <-st.in:
		return []byte("<" + m + ">"), nil
	case <-st.ctx.Done():
		return nil, hostabi.Errorf(hostabi.ReasonInterrupted, "cancelled")
	case <-st.half:
	}
	select {
	case m := <-st.in:
		return []byte("<" + m + ">"), nil
	default:
	}
	if st.end != nil {
		return nil, st.end
	}
	return nil, io.EOF
}

func (st *treeStream) Close() error {
	if !st.closed {
		st.closed = true
		st.s.open.Add(-1)
	}
	st.cancel()
	return nil
}

// newTree is a tree as an instance has it, and what its session does.
func newTree(t testing.TB, inv *plugin.Invocation) (*dsTree, *treeSession) {
	t.Helper()
	s := &treeSession{methods: map[string]func(string) (string, error){
		"Echo/Say":  func(req string) (string, error) { return "said " + req, nil },
		"Echo/Fail": func(string) (string, error) { return "", hostabi.Errorf(hostabi.ReasonCapabilityDenied, "no") },
		"Echo/Big":  func(string) (string, error) { return strings.Repeat("b", hostabi.MaxMessage), nil },
		"Meta/Describe": func(req string) (string, error) {
			if req != "{}" {
				return "", hostabi.Errorf(hostabi.ReasonBadMessage, "asked %s", req)
			}
			return `{"methods":["ds.host.v1.Meta/Describe","ds.host.v1.Echo/Say","ds.host.v1.Echo/Fail"],"grants":[{"cap":"state.read"}],` +
				`"invocation":{"plugin":"demo","paths":[{"index":1,"typed":"/x"}]}}`, nil
		},
		"Config/List": func(req string) (string, error) {
			if req != `{"prefix":"settings.demo."}` {
				return "", hostabi.Errorf(hostabi.ReasonConfigKey, "asked %s", req)
			}
			return `{"values":[{"key":"settings.demo.a.b","json":"[1]"},{"key":"settings.demo.a.c","json":"\"x\""},` +
				`{"key":"settings.demo.password","json":"\"p\"","secret":true},{"key":"settings.demo.z","json":""}]}`, nil
		},
	}}
	stop := newStopper(t.Context(), inv)
	t.Cleanup(stop.end)
	in := &instance{session: s, stop: stop, files: &fileTable{note: func(string) {}}}
	in.tree = newDSTree(in)
	t.Cleanup(in.tree.close)
	return in.tree, s
}

func mustOpen(t testing.TB, d *dsTree, name string, flag experimentalsys.Oflag) experimentalsys.File {
	t.Helper()
	f, e := d.OpenFile(name, flag, 0)
	if e != 0 {
		t.Fatalf("open %s: %v, %s", name, e, d.last)
	}
	return f
}

// ask writes a request and closes the file, which runs it.
func ask(t testing.TB, d *dsTree, name, req string) {
	t.Helper()
	f := mustOpen(t, d, name, forWrite)
	for piece := range slices.Chunk([]byte(req), 5000) {
		if n, e := f.Write(piece); e != 0 || n != len(piece) {
			t.Fatalf("write %s: %d, %v", name, n, e)
		}
	}
	if e := f.Close(); e != 0 {
		t.Errorf("close %s: %v; wazero keeps such a descriptor", name, e)
	}
}

// readFile is all that a file holds, and the errno that ended it.
func readFile(f experimentalsys.File) (string, experimentalsys.Errno) {
	var all bytes.Buffer
	b := make([]byte, 3000)
	for {
		n, e := f.Read(b)
		all.Write(b[:n])
		if n == 0 || e != 0 {
			return all.String(), e
		}
	}
}

// slurp opens, reads and closes.
func slurp(d *dsTree, name string) (string, experimentalsys.Errno) {
	f, e := d.OpenFile(name, forRead, 0)
	if e != 0 {
		return "", e
	}
	text, e := readFile(f)
	f.Close()
	return text, e
}

func lastReason(t testing.TB, d *dsTree) hostabi.Reason {
	t.Helper()
	text, e := slurp(d, "last_error.json")
	if e != 0 {
		t.Fatal(e)
	}
	return hostabi.ParseStatusJSON([]byte(text)).Reason
}
