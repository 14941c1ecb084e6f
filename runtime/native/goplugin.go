package native

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	hclog "github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// The handshake of mode goplugin (native.md section 2).
const (
	cookieKey   = "DS_PLUGIN_MAGIC_COOKIE"
	cookieValue = "delivery-station-plugin"
	pluginKey   = "ds-plugin"
	stdioMethod = "/plugin.GRPCStdio/StreamStdio"
)

// shutdownTime is how long a server may take to end by itself when it is asked to.
const shutdownTime = 250 * time.Millisecond

// outcome is how a conversation ended: with a result of the plugin, or without one and why.
type outcome struct {
	exited  bool
	code    int32
	problem string
}

// conversation is what ds and a connected plugin have to say to each other: one Run of ds.plugin.v1, or one
// Execute of protocol 1.
type conversation interface {
	ended() <-chan outcome
	interrupt() bool // tells the plugin that the user wants it to stop; false = it cannot be told
	stop()           // waits for its goroutines; the connection is closed
}

// goplugin runs a stock go-plugin gRPC server (native.md section 4). change, if not nil, makes it one of
// protocol 1.
func (r *run) goplugin(ctx context.Context, change func(*server)) error {
	for _, a := range r.inv.Args {
		if !utf8.ValidString(a) {
			return r.fail(hostabi.ReasonUsage, "argument %s is not UTF-8, which mode goplugin needs", clean(a))
		}
	}
	dir, err := r.openSockDir()
	if err != nil {
		return err
	}
	defer dir.remove()
	r.sockDir = dir.path
	s := newServer(r)
	if change != nil {
		change(s)
	}
	if err := s.open(); err != nil {
		return r.fail(hostabi.ReasonStartFailed, "%w", err)
	}
	defer s.std.close()
	s.prepare(dir.path)
	if at, yes := r.attached(); yes {
		if err := r.checkVersion(at.Version); err != nil {
			return err
		}
		if err := s.attach(at); err != nil {
			return r.fail(hostabi.ReasonStartFailed, "%w", err)
		}
	}
	s.client = goplugin.NewClient(s.config)
	result := s.run(ctx)
	s.teardown()
	return s.result(result)
}

// result is the result of the run once everything of it is gone.
func (s *server) result(result error) error {
	e, ok := errors.AsType[*plugin.ExitError](result)
	if !ok {
		return result
	}
	if err := s.refused(); err != nil {
		return err
	}
	if e.Code == 0 {
		return nil
	}
	return e
}

// server is one plugin process in mode goplugin: go-plugin's Client around our own runner.
type server struct {
	r      *run
	std    *streams
	out    *sink // ds's stdout: RunEvents, go-plugin's stdio stream and what is left of the handshake pipe
	err    *sink
	stray  io.Writer // where output goes that is not part of a result: out, in protocol 1 err
	logs   *logLines // protocol 1: reads the plugin's stderr; else nil
	begin  func(context.Context, *link) conversation
	serve  func([]grpc.ServerOption) *grpc.Server // the services that the plugin may call; nil = none
	runner *runner
	config *goplugin.ClientConfig
	client *goplugin.Client
	broken chan error // the first error of out or err

	running *attachedRunner // a server that was not started here; nil = started here

	connected sync.WaitGroup // the goroutine of connect
	talk      conversation
	host      *grpc.Server
	serving   sync.WaitGroup

	mu     sync.Mutex
	conn   *grpc.ClientConn
	closed bool
	silent atomic.Bool // the server has no stdio stream, or it has ended
}

func newServer(r *run) *server {
	s := &server{r: r, broken: make(chan error, 1)}
	s.out = newSink(r.inv.Stdout, s.broken)
	s.err = s.out
	if !same(r.inv.Stdout, r.inv.Stderr) {
		s.err = newSink(r.inv.Stderr, s.broken)
	}
	s.stray, s.begin = s.out, s.start
	if host, ok := r.session.(GRPCHost); ok {
		s.serve = host.GRPCServer
	}
	return s
}

// open makes the child's streams. A writer that is no file is written to through its sink only.
func (s *server) open() (err error) {
	var out, errw io.Writer = s.out, s.err
	if f, ok := s.r.inv.Stdout.(*os.File); ok {
		out = f
	}
	if f, ok := s.r.inv.Stderr.(*os.File); ok {
		errw = f
	}
	if s.logs != nil {
		out, errw = nil, s.logs
	}
	if s.std, err = openStreams(s.r.inv.Stdin, out, errw); err == nil {
		s.std.lazy = s.logs == nil // a plugin that does not read must not eat the caller's input; protocol 1 cannot say
	}
	return err
}

// prepare sets up go-plugin's Client with its sockets below dir.
func (s *server) prepare(dir string) {
	s.runner = newRunner(s.r, dir, s.std, s.stray)
	set := goplugin.PluginSet{pluginKey: &dispenser{}}
	versions, limit := map[int]goplugin.PluginSet{1: set, 2: set}, hostabi.MaxMessage // 1 is told apart at the handshake
	if s.r.p.Program.Mode == plugin.Protocol1 {
		versions, limit = map[int]goplugin.PluginSet{1: set}, maxLegacyReply
	}
	s.config = &goplugin.ClientConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{MagicCookieKey: cookieKey, MagicCookieValue: cookieValue},
		VersionedPlugins: versions,
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		RunnerFunc:       s.runner.create,
		SkipHostEnv:      true,
		StartTimeout:     s.r.b.handshake + time.Second, // ours ends first and knows why
		Logger:           hclog.NewNullLogger(),
		SyncStdout:       s.stray,
		SyncStderr:       s.syncStderr(),
		AutoMTLS:         runtime.GOOS == "windows", // loopback TCP; elsewhere the 0700 directory is the credential
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: dir},
		GRPCDialOptions: []grpc.DialOption{ // appended last by go-plugin and so override its MaxInt32
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(limit), grpc.MaxCallSendMsgSize(limit)),
			grpc.WithChainStreamInterceptor(s.capture),
		},
	}
}

// syncStderr is where go-plugin's stdio stream puts what the server's own process wrote to os.Stderr.
func (s *server) syncStderr() io.Writer {
	if s.logs != nil {
		return s.logs.fork()
	}
	return s.err
}

// capture remembers the connection at its first stream, which go-plugin opens while it connects: closing it is
// the only way to end an attempt that hangs, and go-plugin forgets it when connecting fails.
func (s *server) capture(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
	s.mu.Lock()
	s.conn = cc
	closed := s.closed
	s.mu.Unlock()
	if closed {
		_ = cc.Close()
	}
	stream, err := next(ctx, d, cc, method, o...)
	if method == stdioMethod {
		if err != nil {
			s.silent.Store(true)
			return nil, err
		}
		stream = &stdioStream{stream, &s.silent}
	}
	return stream, err
}

// stdioStream notes when go-plugin's stdio stream ends, at once where a server has none.
type stdioStream struct {
	grpc.ClientStream
	ended *atomic.Bool
}

// RecvMsg implements grpc.ClientStream.
func (s *stdioStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil {
		s.ended.Store(true)
	}
	return err
}

// closeConn ends the connection, also one that is made later.
func (s *server) closeConn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.conn != nil {
		_ = s.conn.Close()
	}
}

// run connects, talks and returns how the run ended. It leaves the process alone; teardown ends it.
func (s *server) run(ctx context.Context) error {
	ready := make(chan error, 1)
	var link *link
	s.connected.Go(func() {
		var err error
		link, err = s.connect()
		ready <- err
	})
	var outcome <-chan outcome
	var late <-chan time.Time
	interrupted := false
	exited, signals := s.runner.exited, s.r.inv.Signals
	hang := time.After(2 * s.r.b.handshake)
	for {
		select {
		case err := <-ready:
			if err != nil {
				return s.connectError(ctx, err)
			}
			hang = nil
			s.talk = s.begin(ctx, link)
			outcome = s.talk.ended()
		case o := <-outcome:
			if !o.exited {
				return s.unfinished(interrupted, o.problem)
			}
			return &plugin.ExitError{Code: exitCode(o.code)}
		case <-exited:
			exited, late = nil, time.After(silence)
		case <-late:
			if s.talk != nil {
				return s.unfinished(interrupted, "ended its run without a result")
			}
		case err := <-s.broken:
			return s.outputError(err)
		case <-hang:
			return s.r.fail(hostabi.ReasonProtocol, "answered the handshake, but does not serve its socket")
		case <-ctx.Done():
			return s.r.stopped(ctx)
		case sig, ok := <-signals:
			switch {
			case !ok:
				signals = nil
			case sig != os.Interrupt:
				s.runner.forward(sig)
			case interrupted || s.talk == nil || !s.talk.interrupt():
				return s.r.fail(hostabi.ReasonInterrupted, "interrupted")
			default:
				interrupted = true
			}
		}
	}
}

// link is a connected plugin and the id by which it reaches the host, 0 = it cannot.
type link struct {
	conn   *grpc.ClientConn
	hostID uint32
}

// dispenser is go-plugin's idea of a client.
type dispenser struct {
	goplugin.NetRPCUnsupportedPlugin
}

type dispensed struct {
	broker *goplugin.GRPCBroker
	conn   *grpc.ClientConn
}

// GRPCServer is never called: ds serves no plugins.
func (*dispenser) GRPCServer(*goplugin.GRPCBroker, *grpc.Server) error {
	return errors.ErrUnsupported
}

// GRPCClient hands the broker and the connection on.
func (*dispenser) GRPCClient(_ context.Context, b *goplugin.GRPCBroker, cc *grpc.ClientConn) (any, error) {
	return dispensed{b, cc}, nil
}

// connect starts the process, shakes hands and offers the host services on a fresh broker id.
func (s *server) connect() (*link, error) {
	protocol, err := s.client.Client()
	if err != nil {
		return nil, err
	}
	raw, err := protocol.Dispense(pluginKey)
	if err != nil {
		return nil, err
	}
	d, ok := raw.(dispensed)
	if !ok {
		return nil, errors.New("unexpected client")
	}
	return &link{conn: d.conn, hostID: s.offer(d.broker)}, nil
}

// offer serves the host services to the plugin and returns the broker id, 0 if the session or the plugin's
// language does not support it. AcceptAndServe would write to the standard logger.
func (s *server) offer(broker *goplugin.GRPCBroker) uint32 {
	if s.serve == nil {
		return 0
	}
	id := broker.NextId()
	if s.running != nil { // which ids other hosts of the server have used is not known
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails (crypto/rand)
		id = binary.BigEndian.Uint32(b[:])>>1 + 1
	}
	listener, err := broker.Accept(id)
	if err != nil { // go-plugin leaves its listener to the garbage collector then
		s.r.b.o.Log.Debug("no host services", "plugin", s.r.p.Name, "err", err)
		return 0
	}
	opts := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(hostabi.MaxMessage), grpc.MaxSendMsgSize(hostabi.MaxMessage), grpc.WaitForHandlers(true),
	}
	if t := s.tls(); t != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(t)))
	}
	s.host = s.serve(opts)
	s.serving.Go(func() { _ = s.host.Serve(listener) })
	return id
}

// tls is what go-plugin made for AutoMTLS, nil without it.
func (s *server) tls() *tls.Config { return s.config.TLSConfig }

// connectError says why there is no connection. The runner knows best: go-plugin's words are about its own
// line protocol.
func (s *server) connectError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return s.r.stopped(ctx)
	}
	if known := s.runner.failure(); known != nil {
		return known
	}
	select {
	case <-s.runner.exited:
		return s.runner.endedEarly()
	default:
		return s.r.fail(hostabi.ReasonProtocol, "did not connect: %s", clean(err.Error()))
	}
}

// unfinished is the result of a run without RunExit.
func (s *server) unfinished(interrupted bool, problem string) error {
	if interrupted {
		return s.r.fail(hostabi.ReasonInterrupted, "interrupted")
	}
	select {
	case <-s.runner.exited:
		if result := s.runner.proc.result(); result != nil {
			return result
		}
		return s.r.fail(hostabi.ReasonProtocol, "ended without a result")
	case <-time.After(silence):
		return s.r.fail(hostabi.ReasonProtocol, "%s", problem)
	}
}

// outputError is the result of a run whose output nobody takes any more: as if it had met the closed pipe
// itself.
func (s *server) outputError(err error) error {
	if e, ok := errors.AsType[*hostabi.Error](err); ok {
		return e
	}
	if errors.Is(err, syscall.EPIPE) {
		return &plugin.ExitError{Code: 128 + int(syscall.SIGPIPE), Signal: int(syscall.SIGPIPE)}
	}
	return s.r.fail(hostabi.ReasonInternal, "its output: %w", err)
}

// refused is the error of a writer that refuses more output, QUOTA for example.
func (s *server) refused() error {
	select {
	case err := <-s.broken:
		if e, ok := errors.AsType[*hostabi.Error](err); ok {
			return e
		}
	default:
	}
	return nil
}

// exitCode keeps 0-255; everything else becomes 255.
func exitCode(code int32) int {
	if code < 0 || code > math.MaxUint8 {
		return math.MaxUint8
	}
	return int(code)
}

// teardown ends the process, politely first, and then everything of this run.
func (s *server) teardown() {
	if p := s.runner.stop(); p != nil {
		s.end(p)
	}
	s.closeConn()
	s.connected.Wait()
	if s.host != nil {
		s.host.Stop()
	}
	s.serving.Wait()
	if s.talk != nil {
		s.talk.stop()
	}
	s.client.Kill() // finds the process gone
	if s.running != nil {
		close(s.running.done)
	}
	s.runner.wait()
	s.std.finish()
	if s.logs != nil {
		s.logs.flush()
	}
	s.out.shut()
	s.err.shut()
}

// end asks the server to shut down, then sends TERM, then KILL. Stock servers answer the first at once.
func (s *server) end(p *process) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	if s.talk != nil {
		s.mu.Lock()
		conn := s.conn
		s.mu.Unlock()
		err := conn.Invoke(ctx, "/plugin.GRPCController/Shutdown", &emptypb.Empty{}, &emptypb.Empty{})
		if status.Code(err) == codes.Unimplemented { // another language
			cancel()
		}
		select {
		case <-p.done:
			return
		case <-ctx.Done():
		}
	}
	if p.terminate() == nil {
		select {
		case <-p.done:
			return
		case <-time.After(grace):
		}
	}
	p.kill()
	<-p.done
}
