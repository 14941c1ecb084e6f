//go:build unix

package main_test

import (
	"context"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/frame"
	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

// BenchmarkCall is row H7: one call over frames with everything that the host does around a handler, and the same call
// whose handler is all there is.
func BenchmarkCall(b *testing.B) {
	s, entry := stateSession(b)
	b.Run("gate", func(b *testing.B) { callLoop(b, s) })
	b.Run("plain", func(b *testing.B) { callLoop(b, plainSession{s, entry}) })
}

// stateSession is a session that may read its state, which is entry.
func stateSession(b *testing.B) (hostabi.Session, oneEntry) {
	b.Helper()
	entry := oneEntry{e: &hostv1.StateEntry{Owner: "guest", Key: "v64", Value: []byte(strings.Repeat("x", 64))}}
	r := host.New(host.Options{})
	hostv1.RegisterStateServer(r, entry)
	p := &plugin.Installed{
		Name: "guest", Version: "0.1.0", Signer: "none",
		Manifest: &plugin.Manifest{
			APIVersion: plugin.APIVersion, Name: "guest", Version: "0.1.0", ABI: hostabi.ABI,
			Capabilities: []plugin.Request{{Cap: hostabi.StateRead, Scope: []string{"own"}, Reason: "the value to read"}},
		},
		Program: &plugin.Program{Kind: plugin.Native, Mode: plugin.Direct},
	}
	inv := &plugin.Invocation{ID: strings.Repeat("1", 32), Kind: plugin.KindRun, Dir: b.TempDir()}
	box, err := sandbox.NewBox(sandbox.BoxOptions{
		Plugin: p, Invocation: inv, Home: inv.Dir, Granted: map[hostabi.Capability]sandbox.Scopes{hostabi.StateRead: {Scope: []string{"own"}}},
	})
	if err != nil {
		b.Fatal(err)
	}
	s, err := r.Open(p, box, inv)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s, entry
}

func callLoop(b *testing.B, s hostabi.Session) {
	b.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		b.Fatal(err)
	}
	var ends [2]*os.File
	for i, fd := range fds {
		if err := syscall.SetNonblock(fd, true); err != nil {
			b.Fatal(err)
		}
		ends[i] = os.NewFile(uintptr(fd), "socket")
	}
	served := make(chan error, 1)
	go func() { served <- frame.Serve(b.Context(), ends[0], s) }()
	c := frame.NewConn(ends[1])
	defer func() {
		_ = c.Close()
		if err := <-served; err != nil {
			b.Error(err)
		}
	}()
	req, err := proto.Marshal(&hostv1.StateKey{Key: "v64"})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		reply, err := c.Invoke(b.Context(), hostabi.Call{Method: hostv1.State_Get_FullMethodName, Req: req})
		if err != nil || len(reply) < 64 {
			b.Fatalf("%d bytes, %v", len(reply), err)
		}
	}
}

// oneEntry is a state with one entry.
type oneEntry struct {
	hostv1.UnimplementedStateServer
	e *hostv1.StateEntry
}

func (o oneEntry) Get(context.Context, *hostv1.StateKey) (*hostv1.StateEntry, error) { return o.e, nil }

// plainSession decodes, calls the handler, encodes.
type plainSession struct {
	hostabi.Session
	state oneEntry
}

func (p plainSession) Invoke(ctx context.Context, c hostabi.Call) ([]byte, error) {
	if c.Method != hostv1.State_Get_FullMethodName {
		return c.Dst, io.ErrUnexpectedEOF
	}
	var key hostv1.StateKey
	if err := proto.Unmarshal(c.Req, &key); err != nil {
		return c.Dst, err
	}
	e, err := p.state.Get(ctx, &key)
	if err != nil {
		return c.Dst, err
	}
	return proto.MarshalOptions{}.MarshalAppend(c.Dst, e)
}
