// Package client is the SDK for plugins in Go: one source builds as the native ds-NAME and, with
// GOOS=wasip1, as NAME.wasm. It calls the host of the run it is part of and links neither grpc nor
// protobuf-go nor net. Start with Main:
//
//	func main() {
//		client.Main(client.App{Name: "hello", Commands: []client.Command{{
//			Name: "greet", Args: []client.Arg{{Name: "who", Required: true}},
//			Run: func(ctx context.Context, in *client.Invocation) error {
//				_, err := fmt.Fprintln(in.Stdout, "Hello", in.Args[0])
//				return err
//			},
//		}}})
//	}
//
// Programs that parse their own arguments use NewClient.
package client

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1lite"
)

// Client calls the host. It is safe for concurrent use. On wasip1 a host call blocks the whole guest.
type Client struct {
	o options

	mu      sync.Mutex
	session hostabi.Session
	own     bool  // Close closes session
	failed  error // why there is no session
	name    string
	format  string // --format typed after the plugin's name
	closers []func() error
	logger  *slog.Logger
	rows    *rows
	bars    bars
}

type options struct {
	config      any
	logger      *slog.Logger
	session     hostabi.Session
	callTimeout time.Duration
}

// Option configures a Client.
type Option func(*options)

// WithConfig lays values, a map or a struct, over the host's answers to Config.
func WithConfig(values any) Option { return func(o *options) { o.config = values } }

// WithLogger makes Logger return l.
func WithLogger(l *slog.Logger) Option { return func(o *options) { o.logger = l } }

// WithSession uses s as the carrier of calls. The default is the ds_v1 imports on wasip1 and the frames of
// DS_HOST_FD elsewhere. Close does not close s.
func WithSession(s hostabi.Session) Option { return func(o *options) { o.session = s } }

// WithCallTimeout bounds calls whose context has no deadline; 0 = no bound. It does not bound streams.
func WithCallTimeout(d time.Duration) Option { return func(o *options) { o.callTimeout = d } }

// NewClient makes a Client. Nothing is connected before the first call, which answers ErrNoHost if the
// program was not started by ds.
func NewClient(opts ...Option) (*Client, error) {
	c := &Client{}
	for _, opt := range opts {
		opt(&c.o)
	}
	c.session, c.logger = c.o.session, c.o.logger
	return c, nil
}

// Session is the carrier that the client uses, for layers above this package. It is connected if need be.
func (c *Client) Session() (hostabi.Session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil && c.failed == nil {
		c.session, c.failed = connect()
		c.own = c.failed == nil
	}
	if c.failed != nil {
		return nil, c.failed
	}
	return c.session, nil
}

// Close sends what is batched, logs, progress and rows, and closes the connection that the client made. It
// is idempotent. The error is the first one of the batches: a bad --format shows up here.
func (c *Client) Close() error {
	err := c.flush()
	c.mu.Lock()
	s, own := c.session, c.own
	if c.o.session == nil {
		c.session, c.own, c.failed = nil, false, classify(hostabi.Errorf(hostabi.ReasonInterrupted, "the client is closed"))
	}
	c.mu.Unlock()
	if !own {
		return err
	}
	return errors.Join(err, s.Close())
}

// onClose registers what Close has to send. c.mu is held.
func (c *Client) onClose(f func() error) { c.closers = append(c.closers, f) }

// flush sends what is batched.
func (c *Client) flush() error {
	c.mu.Lock()
	closers := c.closers
	c.closers = nil
	c.mu.Unlock()
	var errs []error
	for _, f := range closers {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// message is a message of ds.host.v1.
type message = hostv1lite.Message

// invoke runs one unary call.
func (c *Client) invoke(ctx context.Context, method string, req, reply message) error {
	s, err := c.Session()
	if err != nil {
		return err
	}
	if _, ok := ctx.Deadline(); !ok && c.o.callTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.o.callTimeout)
		defer cancel()
	}
	b, err := s.Invoke(ctx, hostabi.Call{Method: method, Req: req.AppendProto(nil)})
	if err == nil {
		err = reply.ParseProto(b)
	}
	return classify(err)
}

// stream is a streaming call that sends and receives messages of ds.host.v1.
type stream struct {
	s    hostabi.Stream
	next func() bool // what recv has to send as the host takes it, until it is false
}

// open starts a streaming call with its first message.
func (c *Client) open(ctx context.Context, method string, first message) (*stream, error) {
	s, err := c.Session()
	if err != nil {
		return nil, err
	}
	st, err := s.Stream(ctx, method, hostabi.EncProto)
	if err != nil {
		return nil, classify(err)
	}
	out := &stream{s: st}
	if err := out.send(first); err != nil && err != io.EOF {
		_ = st.Close()
		return nil, err
	}
	return out, nil
}

// request starts a call whose only message is req.
func (c *Client) request(ctx context.Context, method string, req message) (*stream, error) {
	st, err := c.open(ctx, method, req)
	if err == nil {
		if err = st.closeSend(); err != nil {
			st.close()
		}
	}
	return st, err
}

// send answers io.EOF when the host has ended the call; recv then says why.
func (s *stream) send(m message) error {
	if err := s.s.Send(m.AppendProto(nil)); err != io.EOF {
		return classify(err)
	}
	return io.EOF
}

func (s *stream) closeSend() error {
	if err := s.s.CloseSend(); err != io.EOF {
		return classify(err)
	}
	return nil
}

// feed sends what next sends until it answers false, beside the receiving: either side may wait for the other. Where a
// host call stops all goroutines that is recv, which sends when there is room.
func (s *stream) feed(next func() bool) {
	if hostBlocks {
		s.next = next
		return
	}
	go func() {
		for next() {
		}
	}()
}

// pump sends until there is something to receive.
func (s *stream) pump() {
	p, ok := s.s.(hostabi.Poller)
	for recv, send := false, true; s.next != nil && !recv; {
		if ok {
			recv, send = p.Poll()
		}
		if send && !s.next() {
			s.next = nil
		}
	}
}

// recv answers io.EOF at a clean end.
func (s *stream) recv(m message) error {
	s.pump()
	b, err := s.s.Recv()
	if err == nil {
		err = m.ParseProto(b)
	}
	if err == io.EOF {
		return err
	}
	return classify(err)
}

func (s *stream) close() { _ = s.s.Close() }

// each calls f with every message of a call until it returns false. T is the message's type.
func each[T any, M interface {
	*T
	message
}](ctx context.Context, c *Client, method string, req message, f func(*T) bool) error {
	st, err := c.request(ctx, method, req)
	if err != nil {
		return err
	}
	defer st.close()
	for {
		var m T
		err := st.recv(M(&m))
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if !f(&m) {
			return nil
		}
	}
}

// sequence is the iterator form of each; an error is the last pair.
func sequence[T, V any, M interface {
	*T
	message
}](ctx context.Context, c *Client, method string, req message, value func(*T) V) func(yield func(V, error) bool) {
	return func(yield func(V, error) bool) {
		stopped := false
		err := each[T, M](ctx, c, method, req, func(m *T) bool {
			stopped = !yield(value(m), nil)
			return !stopped
		})
		if err != nil && !stopped {
			var zero V
			yield(zero, err)
		}
	}
}

// plugin is the name of the plugin that runs.
func (c *Client) plugin(ctx context.Context) (string, error) {
	c.mu.Lock()
	name, given := c.name, c.o.session != nil
	c.mu.Unlock()
	if name != "" {
		return name, nil
	}
	if !given {
		name = env("DS_PLUGIN")
	}
	if name == "" {
		d, err := c.Describe(ctx)
		if err != nil {
			return "", err
		}
		name = d.Invocation.Plugin
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.name = name
	return name, nil
}
