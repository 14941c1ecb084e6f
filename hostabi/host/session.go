package host

import (
	"context"
	"io"
	"maps"
	"sync"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

// Session is one run's bound view of the host. Who calls, with which grants, is fixed at Open and never read
// from a message or metadata. It implements hostabi.Session and is safe for concurrent use.
type Session struct {
	r   *Registrar
	p   *plugin.Installed
	box *sandbox.Box
	inv *plugin.Invocation

	ctx    context.Context // ends with the session
	cancel context.CancelCauseFunc

	mu       sync.Mutex
	closed   bool
	calls    int                // unary calls in flight
	streams  map[*call]struct{} // open streams
	running  int                // handlers in progress
	children int                // plugin calls in progress
	patterns int                // subscription patterns in use
	idle     chan struct{}      // closed when closed and running is 0
	done     chan struct{}      // closed when Close has finished

	runDir   string // of a native run, set by its backend
	confined bool

	granted  granted
	blobs    blobs
	polls    polls
	log      logState
	progress progressState
	rows     rowState
	http     chan struct{} // tokens of Http.Do at once
}

var _ hostabi.Session = (*Session)(nil)

// errClosed is the cause of every context of a closed session.
var errClosed = hostabi.Errorf(hostabi.ReasonInterrupted, "the plugin's session has ended")

func newSession(r *Registrar, p *plugin.Installed, box *sandbox.Box, inv *plugin.Invocation) *Session {
	ctx, cancel := context.WithCancelCause(context.Background())
	if !inv.Deadline.IsZero() {
		var stop context.CancelFunc
		ctx, stop = context.WithDeadline(ctx, inv.Deadline)
		plain := cancel
		cancel = func(cause error) { plain(cause); stop() }
	}
	s := &Session{
		r: r, p: p, box: box, inv: inv, ctx: ctx, cancel: cancel,
		streams: make(map[*call]struct{}), idle: make(chan struct{}), done: make(chan struct{}),
	}
	s.blobs.init(inv.Blobs)
	return s
}

// SetRunDir tells the session where this run may exchange files with the host: dir is DS_RUN_DIR. confined says that the plugin cannot read the cache itself. The backend calls it before
// the plugin starts; without it blobs have no path for a native plugin to write to.
func (s *Session) SetRunDir(dir string, confined bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runDir, s.confined = dir, confined
}

func (s *Session) dirs() (runDir string, confined bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runDir, s.confined
}

// Streaming reports whether method is served and is a streaming one, for carriers whose calls do not say.
func (s *Session) Streaming(method string) bool {
	m := s.r.methods[method]
	return m != nil && m.stream != nil
}

// Quick reports whether method never waits, so that a carrier may call it where it reads.
func (s *Session) Quick(method string) bool { return quick[method] }

// NextID is the next number of the space that blob handles come from; a carrier that numbers its streams
// from it never has a stream and a handle with the same number.
func (s *Session) NextID() (uint32, error) { return s.blobs.nextID() }

// Handle implements hostabi.Session.
func (s *Session) Handle(id uint32) (io.ReadWriteCloser, error) {
	h, err := s.blobs.get(id)
	if err != nil {
		return nil, err
	}
	return h, nil
}

// Invoke implements hostabi.Session.
func (s *Session) Invoke(ctx context.Context, c hostabi.Call) ([]byte, error) {
	begin := s.begin()
	m, err := s.r.lookup(c.Method)
	if err == nil && m.unary == nil {
		err = hostabi.Errorf(hostabi.ReasonBadMessage, "method %s: is a stream", c.Method)
	}
	if err == nil && len(c.Req) > hostabi.MaxMessage {
		err = tooLarge("request", len(c.Req))
	}
	if err != nil {
		s.observe(ctx, c.Method, begin, err)
		return c.Dst, err
	}
	d := s.r.decoders.Get().(*decoder)
	d.body, d.enc, d.err = c.Req, c.Enc, nil
	cc := &call{Context: ctx, s: s, m: m}
	reply, err := m.unary.Handler(m.impl, cc, d.fn, s.r.unary)
	cc.end()
	if d.err != nil { // the interceptor never ran
		s.observe(ctx, c.Method, begin, d.err)
		err = d.err
	}
	d.body = nil
	s.r.decoders.Put(d)
	if err != nil {
		return c.Dst, s.asError(m.name, err)
	}
	n := len(c.Dst)
	out, err := encode(c.Dst, reply, c.Enc)
	if err != nil {
		return c.Dst, s.traced(m.name, err)
	}
	if len(out)-n > hostabi.MaxMessage {
		return c.Dst, tooLarge("reply", len(out)-n)
	}
	return out, nil
}

// Close implements hostabi.Session: it cancels, waits for handlers, then closes what they left open.
// Rows that were not ended are drawn, sinks that were not committed discarded.
func (s *Session) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		<-s.done
		return nil
	}
	s.closed = true
	if s.running == 0 {
		close(s.idle)
	}
	s.mu.Unlock()
	s.cancel(errClosed)
	<-s.idle
	s.polls.close()
	err := s.flushRows()
	s.flushProgress()
	s.flushLog()
	s.blobs.close(s)
	close(s.done)
	return err
}

// maxRunning bounds handlers that are still ending after their callers have gone.
const maxRunning = 4 * (hostabi.MaxStreams + hostabi.MaxCalls)

// enter admits a unary call; leave undoes it.
func (s *Session) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.admit(); err != nil {
		return err
	}
	if s.calls >= hostabi.MaxCalls {
		return hostabi.Errorf(hostabi.ReasonTooMany, "%d calls are in flight, no more at once", hostabi.MaxCalls)
	}
	s.calls++
	s.running++
	return nil
}

func (s *Session) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls--
	s.ended()
}

// enterStream admits a stream. leaveStream is called when its handler has returned; the stream counts until
// free, or until its caller has gone, even while the handler is still ending.
func (s *Session) enterStream(c *call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.admit(); err != nil {
		return err
	}
	if len(s.streams) >= hostabi.MaxStreams {
		maps.DeleteFunc(s.streams, func(c *call, _ struct{}) bool { return c.Context.Err() != nil })
	}
	if len(s.streams) >= hostabi.MaxStreams {
		return hostabi.Errorf(hostabi.ReasonTooMany, "%d streams are open, no more at once", hostabi.MaxStreams)
	}
	s.streams[c] = struct{}{}
	s.running++
	return nil
}

func (s *Session) leaveStream() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended()
}

func (s *Session) free(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, c)
}

// admit and ended want s.mu held.
func (s *Session) admit() error {
	if s.closed {
		return errClosed
	}
	if s.running >= maxRunning {
		return hostabi.Errorf(hostabi.ReasonTooMany, "%d calls have not ended yet, no more at once", maxRunning)
	}
	return nil
}

func (s *Session) ended() {
	s.running--
	if s.closed && s.running == 0 {
		close(s.idle)
	}
}

func (s *Session) begin() time.Time {
	if s.r.o.Observe == nil {
		return time.Time{}
	}
	return s.r.o.Clock()
}

func (s *Session) observe(ctx context.Context, method string, begin time.Time, err error) {
	if s.r.o.Observe == nil {
		return
	}
	o := Observation{Plugin: s.p.Name, Invocation: s.inv.ID, Method: method, Took: s.r.o.Clock().Sub(begin)}
	if err != nil {
		o.Code = hostabi.AsError(err).Code
	}
	s.r.o.Observe(ctx, o)
}

// kind is the kind of program of this run.
func (s *Session) kind() plugin.Kind {
	if s.p.Program != nil {
		return s.p.Program.Kind
	}
	return s.inv.Backend
}
