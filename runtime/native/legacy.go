package native

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/runtime/native/legacyv1"
)

// maxLegacyReply bounds one reply of a plugin of protocol 1, which holds all of its output.
const maxLegacyReply = 64 << 20

// noCommand is the exit code of a plugin of protocol 1 that was called without a command.
const noCommand = 2

// legacy runs a program of protocol 1 (host-abi.md section 13): one Execute, whose output comes with its result,
// then the finalizers that it asks for.
func (r *run) legacy(ctx context.Context) error {
	if len(r.inv.Args) == 0 || strings.TrimSpace(r.inv.Args[0]) == "" {
		r.say("plugin %q requires a command", r.p.Name)
		return &plugin.ExitError{Code: noCommand}
	}
	e := &execution{r: r, done: make(chan outcome, 1)}
	if err := r.goplugin(ctx, e.attach); err != nil {
		r.noteCredentials()
		return err
	}
	r.finalize(ctx, e.finalizers)
	return nil
}

// say writes one line of ds's own to the run's standard error.
func (r *run) say(format string, a ...any) {
	if r.inv.Stderr != nil {
		_, _ = fmt.Fprintf(r.inv.Stderr, format+"\n", a...)
	}
}

// execution is one Execute of a plugin of protocol 1.
type execution struct {
	r *run
	s *server

	ctx    context.Context // of the conversation
	end    context.CancelFunc
	cancel context.CancelFunc // of Execute alone
	done   chan outcome
	tasks  sync.WaitGroup

	finalizers []*legacyv1.Finalizer // set before done
}

// attach makes s a server of protocol 1: its standard error is a log, what it prints itself is no output, and
// the host serves it nothing but the configuration.
func (e *execution) attach(s *server) {
	e.s = s
	s.logs = newLogLines(s.err, e.r.b.o.Log.With("plugin", e.r.p.Name))
	s.stray, s.begin = s.err, e.begin
	s.serve = func(opts []grpc.ServerOption) *grpc.Server {
		g := grpc.NewServer(opts...)
		legacyv1.RegisterHostConfigServer(g, &hostConfig{r: e.r})
		return g
	}
}

// begin starts the conversation. Like a Run it ends with the process and not with ctx.
func (e *execution) begin(ctx context.Context, l *link) conversation {
	e.ctx, e.end = context.WithCancel(context.WithoutCancel(ctx))
	var execute context.Context
	execute, e.cancel = context.WithCancel(e.ctx)
	e.tasks.Go(func() {
		o := e.execute(execute, l)
		if execute.Err() != nil { // the plugin was told to stop: let it clean up
			select {
			case <-e.s.runner.exited:
			case <-e.ctx.Done():
			case <-time.After(grace):
			}
		}
		e.done <- o
	})
	return e
}

func (e *execution) ended() <-chan outcome { return e.done }

// interrupt cancels Execute: servers swallow the signal.
func (e *execution) interrupt() bool {
	e.cancel()
	return true
}

func (e *execution) stop() {
	e.end()
	e.tasks.Wait()
}

func (e *execution) execute(ctx context.Context, l *link) outcome {
	client := legacyv1.NewDSPluginClient(l.conn)
	m, err := e.manifest(ctx, client)
	if err != nil {
		return outcome{problem: legacyProblem(err)}
	}
	req := &legacyv1.ExecuteRequest{
		Operation: e.r.inv.Args[0], Args: e.r.inv.Args[1:], HostConfigBrokerId: l.hostID, OlderHostConfigBrokerId: l.hostID,
	}
	if !m.Metadata {
		req.Args = legacyArgs(req.Args)
	}
	reply, err := client.Execute(ctx, req)
	if err != nil && !saidByPlugin(err) {
		return outcome{problem: legacyProblem(err)}
	}
	if err != nil { // what the plugin's method returned beside its reply
		reply = &legacyv1.ExecuteResponse{Error: []byte(status.Convert(err).Message())}
	}
	return e.show(reply, l.conn)
}

// show prints the output that came with the reply, and what the plugin printed itself.
func (e *execution) show(reply *legacyv1.ExecuteResponse, conn *grpc.ClientConn) outcome {
	e.s.drain(e.ctx, conn)
	line(e.s.out, reply.GetStdout())
	line(e.s.err, reply.GetStderr())
	code := reply.GetExitCode()
	if text := reply.GetError(); len(text) > 0 {
		line(e.s.err, append([]byte(string(e.r.p.Name)+": "), text...))
		if code == 0 {
			code = 1
		}
	}
	e.finalizers = reply.GetFinalizers()
	return outcome{exited: true, code: code}
}

// line writes text, if there is any, and ends its line.
func line(w io.Writer, text []byte) {
	if len(text) > 0 {
		_, _ = w.Write(append(text, '\n'))
	}
}

// manifest is what the program says about itself: kept from an earlier run, else asked for now and kept.
func (e *execution) manifest(ctx context.Context, client legacyv1.DSPluginClient) (*plugin.LegacyManifest, error) {
	kept, digest := e.r.b.o.Legacy, e.r.p.Program.Digest
	if kept == nil || digest == "" {
		return askManifest(ctx, client)
	}
	if m := kept.LegacyManifest(digest); m != nil {
		return m, nil
	}
	m, err := askManifest(ctx, client)
	if err != nil {
		return nil, err
	}
	if err := kept.KeepLegacyManifest(digest, m); err != nil {
		e.r.b.o.Log.Warn("what the plugin says about itself was not kept", "plugin", e.r.p.Name, "err", err)
	}
	return m, nil
}

func askManifest(ctx context.Context, client legacyv1.DSPluginClient) (*plugin.LegacyManifest, error) {
	m := &plugin.LegacyManifest{}
	reply, err := client.GetManifest(ctx, &legacyv1.GetManifestRequest{})
	if err == nil {
		m.Version, m.Description = reply.GetVersion(), reply.GetDescription()
		for _, c := range reply.GetCommands() {
			m.Commands = append(m.Commands, plugin.Command{Name: c.GetName(), Summary: c.GetDescription()})
		}
		return m.Clean(), nil
	}
	if status.Code(err) != codes.Unimplemented {
		return nil, err
	}
	old, err := client.GetMetadata(ctx, &legacyv1.GetMetadataRequest{}) // the oldest releases
	if err != nil {
		return nil, err
	}
	m.Metadata, m.Version, m.Description = true, old.GetVersion(), old.GetDescription()
	for _, name := range old.GetOperations() {
		m.Commands = append(m.Commands, plugin.Command{Name: name})
	}
	return m.Clean(), nil
}

// saidByPlugin tells an error that the plugin's own method returned from one of the connection.
func saidByPlugin(err error) bool {
	switch status.Code(err) {
	case codes.Canceled, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Unimplemented, codes.Internal, codes.Unavailable:
		return false
	}
	return true
}

// legacyProblem words the error of a call whose process lives on.
func legacyProblem(err error) string {
	switch status.Code(err) {
	case codes.Unimplemented:
		return "does not serve plugin.DSPlugin"
	case codes.ResourceExhausted:
		return fmt.Sprintf("sent a reply over %d bytes, or another limit: %s", maxLegacyReply, clean(status.Convert(err).Message()))
	}
	return "broke its run: " + clean(status.Convert(err).Message())
}

// callHost makes one unary call of this run's session: the gate decides as for every plugin.
func (r *run) callHost(ctx context.Context, method string, req, reply proto.Message) error {
	b, err := proto.Marshal(req)
	if err != nil {
		return err
	}
	out, err := r.session.Invoke(ctx, hostabi.Call{Method: method, Enc: hostabi.EncProto, Req: b})
	if err != nil {
		return err
	}
	return proto.Unmarshal(out, reply)
}
