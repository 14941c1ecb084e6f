package frame

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// Conn is the guest end of a connection: a hostabi.Session whose calls travel as frames. It has one locked
// writer; who reads, see incoming. Nothing is read or written before the first call. At most hostabi.MaxCalls
// unary calls are in flight, further ones wait. Conn is safe for concurrent use.
type Conn struct {
	rw    io.ReadWriteCloser
	w     writer
	in    incoming
	slots chan struct{}
	wg    sync.WaitGroup // the reader of the background, and writers of CANCEL

	mu       sync.Mutex
	last     uint32
	calls    map[uint32]chan answer
	streams  map[uint32]*outbound
	given    map[uint32]struct{} // up, before the host has ended them
	watching bool                // the reader of the background runs
	files    map[uint32]*os.File // by handle
	err      *hostabi.Error      // why the connection has ended
	over     chan struct{}       // closed when err is set
}

var _ hostabi.Session = (*Conn)(nil)

// answer is the reply of a unary call. file is the descriptor that came with it.
type answer struct {
	code uint16
	enc  hostabi.Encoding
	body []byte
	err  *hostabi.Error // set instead of all others
	file *os.File
}

// NewConn makes the guest end of conn. It writes and reads nothing before the first call. Close ends only if
// closing conn ends a Read of it.
func NewConn(conn io.ReadWriteCloser) *Conn {
	return &Conn{
		rw: conn, w: writer{w: conn}, in: newIncoming(conn),
		slots: make(chan struct{}, hostabi.MaxCalls),
		calls: make(map[uint32]chan answer), streams: make(map[uint32]*outbound),
		given: make(map[uint32]struct{}), files: make(map[uint32]*os.File),
		over: make(chan struct{}),
	}
}

// Invoke implements hostabi.Session.
func (c *Conn) Invoke(ctx context.Context, call hostabi.Call) ([]byte, error) {
	if err := checkRequest(call.Method, call.Req); err != nil {
		return call.Dst, err
	}
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return call.Dst, ctxError(ctx)
	case <-c.over:
		return call.Dst, c.err
	}
	if ctx.Err() != nil {
		return call.Dst, ctxError(ctx)
	}
	done := make(chan answer, 1)
	id, err := c.open(&Frame{Enc: call.Enc, Flags: FlagEnd, Method: call.Method, Body: call.Req}, done, nil)
	if err != nil {
		return call.Dst, err
	}
	if a, ok := c.await(ctx, done); ok {
		return c.reply(call, a)
	}
	if !c.giveUp(id, call.Enc) { // it was answered meanwhile
		return c.reply(call, <-done)
	}
	return call.Dst, ctxError(ctx)
}

// reply turns the answer into the result of call.
func (c *Conn) reply(call hostabi.Call, a answer) ([]byte, error) {
	if a.err != nil {
		return call.Dst, a.err
	}
	if a.code != 0 {
		return call.Dst, status(a.body, a.enc)
	}
	if a.file != nil {
		c.keep(a)
	}
	if call.Dst == nil {
		return a.body, nil
	}
	return append(call.Dst, a.body...), nil
}

// keep remembers the descriptor of an opened blob until Handle fetches or Close drops it.
func (c *Conn) keep(a answer) {
	id, ok := openedHandle(a.body, a.enc)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !ok || c.err != nil {
		a.file.Close()
		return
	}
	if old := c.files[id]; old != nil {
		old.Close()
	}
	c.files[id] = a.file
}

// Stream implements hostabi.Session. The call starts with its first message.
func (c *Conn) Stream(ctx context.Context, method string, e hostabi.Encoding) (hostabi.Stream, error) {
	if err := checkRequest(method, nil); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, ctxError(ctx)
	}
	return newOutbound(ctx, c, method, e), nil
}

// Handle implements hostabi.Session for blobs whose descriptor was passed; other blobs have a path. Closing
// the result closes the descriptor here, not the handle of the host.
func (c *Conn) Handle(id uint32) (io.ReadWriteCloser, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.files[id]
	if f == nil {
		return nil, hostabi.Errorf(hostabi.ReasonBadHandle, "handle %d: no descriptor came with it", id)
	}
	return &passed{f: f, c: c, id: id}, nil
}

// passed is a descriptor that the host has passed.
type passed struct {
	f  *os.File
	c  *Conn
	id uint32
}

func (p *passed) Read(b []byte) (int, error)  { return p.f.Read(b) }
func (p *passed) Write(b []byte) (int, error) { return p.f.Write(b) }

// File gives access to ReadAt, Seek and Stat.
func (p *passed) File() *os.File { return p.f }

func (p *passed) Close() error {
	p.c.mu.Lock()
	if p.c.files[p.id] == p.f {
		delete(p.c.files, p.id)
	}
	p.c.mu.Unlock()
	return p.f.Close()
}

// Close ends all calls, closes the connection and waits for who reads. It is idempotent.
func (c *Conn) Close() error {
	c.fail(hostabi.Errorf(hostabi.ReasonInterrupted, "the connection to the host is closed"))
	err := c.rw.Close()
	c.in.turn <- struct{}{}
	c.in.drop()
	<-c.in.turn
	c.wg.Wait()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// open registers the owner of an id and writes its opening frame. Ids must reach the host in order, so both
// happen under the writer's lock.
func (c *Conn) open(f *Frame, done chan answer, st *outbound) (uint32, error) {
	buf := getBuffer()
	defer putBuffer(buf)
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return 0, c.err
	}
	if c.last == 1<<31-1 {
		c.mu.Unlock()
		return 0, hostabi.Errorf(hostabi.ReasonTooMany, "all ids of the connection are used")
	}
	c.last++
	f.ID = c.last
	if st != nil {
		st.id = f.ID
		c.streams[f.ID] = st
	} else {
		c.calls[f.ID] = done
	}
	if st != nil || c.in.timed == nil {
		c.watch()
	}
	c.mu.Unlock()
	*buf = Append((*buf)[:0], f)
	if c.w.writeLocked(*buf) != nil {
		// What is to be read says more: a session error, or that the host is gone.
		guard := time.AfterFunc(farewell, func() { c.rw.Close() })
		c.readToEnd()
		guard.Stop()
		c.mu.Lock()
		defer c.mu.Unlock()
		return 0, c.err
	}
	return f.ID, nil
}

// giveUp ends id here and tells the host that nobody waits for it; it reports false if the host has ended id before.
// It does not wait for a host that does not read.
func (c *Conn) giveUp(id uint32, enc hostabi.Encoding) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls[id] == nil && c.streams[id] == nil {
		return false
	}
	delete(c.calls, id)
	delete(c.streams, id)
	c.giveUpLocked(id, enc)
	return true
}

func (c *Conn) giveUpLocked(id uint32, enc hostabi.Encoding) {
	c.given[id] = struct{}{}
	c.watch()
	c.wg.Go(func() { _ = c.w.frame(&Frame{Enc: enc, ID: id, Flags: FlagCancel}) })
}

// frame takes one frame or the error instead of it; the result ends the reading, after everybody was told.
func (c *Conn) frame(f *Frame, file *os.File, err error) error {
	var refused *hostabi.Error
	switch {
	case err == nil:
	case hostabi.ReasonOf(err) == hostabi.ReasonTooLarge && f.ID != 0:
		refused = hostabi.AsError(err)
	default:
		c.fail(lost(err))
		return err
	}
	if f.ID == 0 {
		e := status(f.Body, f.Enc)
		c.fail(e)
		return e
	}
	c.mu.Lock()
	done, st := c.calls[f.ID], c.streams[f.ID]
	delete(c.calls, f.ID)
	switch {
	case f.Flags&FlagEnd != 0:
		delete(c.streams, f.ID)
		delete(c.given, f.ID)
	case done != nil: // a stream that was called as if it were none
		c.giveUpLocked(f.ID, f.Enc)
	}
	c.mu.Unlock()
	switch {
	case done != nil:
		done <- answer{code: f.Code, enc: f.Enc, body: f.Body, err: refused, file: file}
		return nil
	case file != nil:
		file.Close()
	}
	if st == nil {
		return nil // given up here; the host did not know yet
	}
	if err := st.frame(f, refused); err != nil {
		c.fail(err)
		return err
	}
	return nil
}

// fail ends the connection for everybody who waits; the first reason counts.
func (c *Conn) fail(e *hostabi.Error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = e
	calls, streams, files := c.calls, c.streams, c.files
	c.calls, c.streams, c.files = nil, nil, nil
	close(c.over)
	c.mu.Unlock()
	for _, done := range calls {
		done <- answer{err: e}
	}
	for _, st := range streams {
		st.finish(e)
	}
	for _, f := range files {
		f.Close()
	}
}

func checkRequest(method string, req []byte) *hostabi.Error {
	switch {
	case method == "" || len(method) > hostabi.MaxMethod:
		return hostabi.Errorf(hostabi.ReasonTooLarge, "method name has %d bytes, not 1 to %d", len(method), hostabi.MaxMethod)
	case len(req) > hostabi.MaxMessage:
		return tooLarge(int64(len(req)))
	}
	return nil
}

func status(body []byte, enc hostabi.Encoding) *hostabi.Error {
	if enc == hostabi.EncJSON {
		return hostabi.ParseStatusJSON(body)
	}
	return hostabi.ParseStatus(body)
}

// lost is what a broken connection means to a caller.
func lost(err error) *hostabi.Error {
	if e, ok := errors.AsType[*hostabi.Error](err); ok {
		return &hostabi.Error{Code: hostabi.Internal, Reason: hostabi.ReasonProtocol, Msg: "host: " + e.Msg, Err: err}
	}
	return &hostabi.Error{Code: hostabi.Cancelled, Reason: hostabi.ReasonInterrupted, Msg: "the host closed the connection", Err: err}
}

func ctxError(ctx context.Context) *hostabi.Error {
	cause := context.Cause(ctx)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return hostabi.Errorf(hostabi.ReasonTimeout, "deadline exceeded: %w", cause)
	}
	return hostabi.Errorf(hostabi.ReasonInterrupted, "cancelled: %w", cause)
}

// PassesFiles reports whether the host can pass the descriptor of an opened blob over this connection.
func (c *Conn) PassesFiles() bool { return canPass(c.rw) }
