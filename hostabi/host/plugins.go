package host

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

// outputChunk is the largest piece of a callee's output in one message.
const outputChunk = 64 << 10

type callStream = grpc.BidiStreamingServer[hostv1.CallRequest, hostv1.CallEvent]

type pluginsService struct {
	hostv1.UnimplementedPluginsServer
	owner Plugins
}

// NewPlugins serves Plugins from p, the plugin manager.
func NewPlugins(p Plugins) hostv1.PluginsServer { return &pluginsService{owner: p} }

// target is the resource of plugins.call.
func target(name, command string) string { return name + "/" + command }

// gateCall checks the right to call, the chain, and that the caller may read every blob that it hands on.
func gateCall(c *call, req any) error {
	start := req.(*hostv1.CallRequest).GetStart()
	if start == nil {
		return hostabi.Errorf(hostabi.ReasonBadMessage, "a plugin call begins with start")
	}
	name := hostabi.PluginName(start.GetPlugin())
	if !name.Valid() {
		return hostabi.Errorf(hostabi.ReasonPluginNotFound, "plugin %q: not a name", clean(start.GetPlugin(), 40))
	}
	if start.GetTimeout() < 0 {
		return hostabi.Errorf(hostabi.ReasonBadMessage, "timeout of a plugin call is negative")
	}
	if err := c.need(hostabi.PluginsCall, target(start.GetPlugin(), start.GetCommand())); err != nil {
		return err
	}
	chain := c.s.chain()
	if slices.Contains(chain, name) {
		return hostabi.Errorf(hostabi.ReasonCallCycle, "plugin %s: calls itself through %s", name, chainText(chain))
	}
	if len(chain) >= hostabi.MaxDepth {
		return hostabi.Errorf(hostabi.ReasonCallDepth, "plugin %s: call chain %s is %d plugins long", name, chainText(chain), hostabi.MaxDepth)
	}
	for _, text := range start.GetBlobs() {
		d, err := hostabi.ParseDigest(text)
		if err != nil {
			return err
		}
		if _, err := c.s.readable(c, d); err != nil {
			return err
		}
	}
	return nil
}

// chain is the plugins above and including this one, outermost first.
func (s *Session) chain() []hostabi.PluginName {
	return append(slices.Clone(s.inv.Chain), s.p.Name)
}

func chainText(chain []hostabi.PluginName) string {
	names := make([]string, len(chain))
	for i, n := range chain {
		names[i] = string(n)
	}
	return strings.Join(names, " > ")
}

// List implements hostv1.PluginsServer: what the caller may call.
func (ps *pluginsService) List(ctx context.Context, _ *hostv1.ListPluginsRequest) (*hostv1.PluginList, error) {
	s := sessionOf(ctx)
	out := &hostv1.PluginList{}
	for p, err := range ps.owner.All(ctx) {
		if err != nil { // one broken plugin hides no other
			s.ignored("list plugins", err)
			continue
		}
		if info := s.callable(p); info != nil {
			out.Plugins = append(out.Plugins, info)
		}
	}
	return out, nil
}

func (s *Session) callable(p *plugin.Installed) *hostv1.PluginInfo {
	if p.Disabled || p.Name == s.p.Name {
		return nil
	}
	info := &hostv1.PluginInfo{Name: string(p.Name), Version: p.Version, Description: p.Manifest.Description}
	for _, c := range p.Manifest.Commands {
		if !c.Hidden && s.allows(hostabi.PluginsCall, target(string(p.Name), c.Name)) {
			info.Commands = append(info.Commands, c.Name)
		}
	}
	if info.Commands == nil && (len(p.Manifest.Commands) > 0 || !s.allows(hostabi.PluginsCall, target(string(p.Name), ""))) {
		return nil
	}
	if len(p.Programs) > 0 {
		info.Backend = string(p.Programs[0].Kind)
	}
	return info
}

// Call implements hostv1.PluginsServer. An exit code other than 0 is a result, not an error.
func (ps *pluginsService) Call(stream callStream) error {
	req, err := stream.Recv()
	if err != nil {
		return err
	}
	s := sessionOf(stream.Context())
	if err := s.enterChild(); err != nil {
		return err
	}
	defer s.leaveChild()
	start := req.GetStart()
	pipe := &callPipe{stream: stream}
	inv := s.nested(start, pipe)
	ctx := sandbox.WithCaller(stream.Context(), s.box)
	err = ps.owner.Run(ctx, hostabi.PluginName(start.GetPlugin()), inv)
	exit := &hostv1.CallExit{}
	if e, ok := errors.AsType[*plugin.ExitError](err); ok {
		exit.Code, exit.Signal = int32(e.Code), int32(e.Signal)
	} else if err != nil {
		return runFailed(err)
	}
	return stream.Send(&hostv1.CallEvent{Event: &hostv1.CallEvent_Exit{Exit: exit}})
}

func (s *Session) enterChild() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.children >= hostabi.MaxChildren {
		return hostabi.Errorf(hostabi.ReasonTooMany, "%d plugin calls are in progress, no more at once", hostabi.MaxChildren)
	}
	s.children++
	return nil
}

func (s *Session) leaveChild() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.children--
}

// nested is the invocation of a callee. It inherits place, environment and trace, and nothing that would
// widen what it may do: its Box is its own.
func (s *Session) nested(start *hostv1.CallStart, pipe *callPipe) *plugin.Invocation {
	inv := &plugin.Invocation{
		Args: append(strings.Fields(start.GetCommand()), start.GetArgs()...), Kind: plugin.KindRun,
		Caller: s.p.Name, Chain: s.chain(), Hops: s.inv.Hops, TraceID: s.inv.TraceID,
		Stdin: &callStdin{pipe: pipe, closed: make(chan struct{})}, Stdout: pipe.writer(false), Stderr: pipe.writer(true),
		Dir: s.inv.Dir, Env: s.inv.Env, Terminal: s.inv.Terminal, NoInput: s.inv.NoInput, Offline: s.inv.Offline,
		LogLevel: s.inv.LogLevel, Deadline: s.inv.Deadline,
	}
	t := &inv.Terminal
	t.StdinTTY = false
	if start.GetInheritStdout() && s.inv.Stdout != nil {
		inv.Stdout = s.inv.Stdout
	} else {
		t.StdoutTTY = false
	}
	if start.GetInheritStderr() && s.inv.Stderr != nil {
		inv.Stderr = s.inv.Stderr
	} else {
		t.StderrTTY = false
	}
	if start.GetTimeout() > 0 {
		end := s.r.o.Clock().Add(time.Duration(start.GetTimeout()) * time.Millisecond)
		if inv.Deadline.IsZero() || end.Before(inv.Deadline) {
			inv.Deadline = end
		}
	}
	for _, d := range start.GetBlobs() {
		inv.Blobs = append(inv.Blobs, hostabi.Digest(d))
	}
	return inv
}

// callPipe carries a callee's output to the caller. Writers wait for the caller, so nothing is buffered here
// beyond the stream's own queue.
type callPipe struct {
	stream callStream
	mu     sync.Mutex // of Send: both writers use it
}

func (p *callPipe) writer(stderr bool) io.Writer { return &callWriter{p, stderr} }

type callWriter struct {
	pipe   *callPipe
	stderr bool
}

func (w *callWriter) Write(b []byte) (int, error) {
	w.pipe.mu.Lock()
	defer w.pipe.mu.Unlock()
	n := 0
	for piece := range slices.Chunk(b, outputChunk) {
		e := &hostv1.CallEvent{Event: &hostv1.CallEvent_Stdout{Stdout: piece}}
		if w.stderr {
			e.Event = &hostv1.CallEvent_Stderr{Stderr: piece}
		}
		if err := w.pipe.stream.Send(e); err != nil {
			return n, err
		}
		n += len(piece)
	}
	return n, nil
}

// callStdin is a callee's standard input: what the caller sends. Nothing is received before the first Read.
// Close, or the end of the call, ends a Read that waits.
type callStdin struct {
	pipe   *callPipe
	rest   []byte
	err    error
	once   sync.Once
	lines  chan []byte
	failed chan error

	closing sync.Once
	closed  chan struct{}
}

// Read implements io.Reader for one goroutine at a time.
func (r *callStdin) Read(p []byte) (int, error) {
	r.once.Do(r.start)
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		select {
		case r.rest = <-r.lines:
		case r.err = <-r.failed:
		case <-r.closed:
			return 0, io.ErrClosedPipe
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Close implements io.Closer.
func (r *callStdin) Close() error {
	r.closing.Do(func() { close(r.closed) })
	return nil
}

// start receives in a goroutine of its own, since a Recv cannot be given up. It ends with the stream: at the
// latest when the handler has returned.
func (r *callStdin) start() {
	r.lines, r.failed = make(chan []byte), make(chan error, 1)
	stream := r.pipe.stream
	ctx := stream.Context()
	go func() {
		for {
			req, err := stream.Recv()
			if err != nil {
				r.failed <- err
				return
			}
			select {
			case r.lines <- req.GetStdin():
			case <-r.closed:
				return
			case <-ctx.Done():
				return
			}
		}
	}()
}
