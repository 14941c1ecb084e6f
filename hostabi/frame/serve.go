package frame

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

const (
	readSize = 32 << 10
	// maxBacklog bounds what the streams of one session may queue together, in bytes: credit counts
	// messages, and 64 streams of 16 messages of 4 MiB would be 4 GiB.
	maxBacklog = 64 << 20
	// farewell is how long the frame of a session error may wait for a guest that does not read.
	farewell = time.Second
)

// streamer is an ability of sessions: telling a streaming method from a unary one. Without it an opening
// frame with END is a unary call and one without END a stream.
type streamer interface {
	Streaming(method string) bool
}

// quickener is an ability of sessions: naming the unary methods that never wait, for a lock, a disk, the network, a
// person or another plugin. The reader answers these itself if nothing else is to be read: that saves waking another
// thread for each.
type quickener interface {
	Quick(method string) bool
}

// Serve answers the calls of one guest on conn with s until the guest closes its end, ctx ends or the guest
// breaks the protocol. It closes conn, not s, and returns only when every goroutine it started is gone; so a
// Read of conn must return when conn is closed (an *os.File made from a non-blocking descriptor does that).
//
// The error is nil when the guest closed its end, the cause of ctx when that ended, and a *hostabi.Error
// when the guest broke the protocol; it has been told so. errors.Is(err, ErrPreface) means that the guest
// speaks gRPC. Descriptors of opened blobs are passed if conn is a unix socket.
func Serve(ctx context.Context, conn io.ReadWriteCloser, s hostabi.Session) error {
	return ServeTraced(ctx, conn, s, nil)
}

// ServeTraced is Serve that tells each frame to trace: direction, id, method, size and result, never a body. trace may be
// called by several goroutines at once; nil traces nothing.
func ServeTraced(ctx context.Context, conn io.ReadWriteCloser, s hostabi.Session, trace func(line string)) error {
	serveCtx, cancel := context.WithCancelCause(ctx)
	sv := &server{
		ctx: serveCtx, session: s,
		w:     writer{w: conn, sock: newSender(conn), trace: trace},
		calls: make(chan struct{}, hostabi.MaxCalls),
		live:  make(map[uint32]*serving),
	}
	sv.streamer, _ = s.(streamer)
	sv.quickener, _ = s.(quickener)
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		conn.Close()
		close(closed)
	})
	err := sv.read(conn)
	if e, ok := errors.AsType[*hostabi.Error](err); ok && ctx.Err() == nil {
		guard := time.AfterFunc(farewell, func() { conn.Close() })
		_ = sv.w.end(0, hostabi.EncProto, e)
		guard.Stop()
	}
	cancel(hostabi.Errorf(hostabi.ReasonInterrupted, "the plugin closed its connection to the host"))
	if !stop() {
		<-closed
	}
	conn.Close() // ends writes that wait for a guest that does not read
	sv.wg.Wait()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return nil // the guest may end at any byte
	}
	return err
}

// server is one Serve in progress.
type server struct {
	ctx       context.Context
	session   hostabi.Session
	streamer  streamer // nil if the session has no such ability
	quickener quickener
	w         writer
	calls     chan struct{} // a token for each unary call in flight
	wg        sync.WaitGroup
	last      uint32    // largest id seen; only the reader uses it
	more      bool      // the guest has sent more than this frame; only the reader uses it
	in        *fdReader // nil if it is no unix socket; only the reader uses it

	mu      sync.Mutex
	live    map[uint32]*serving
	streams int
	backlog int // bytes queued by all streams
}

// serving is one id in progress.
type serving struct {
	id     uint32
	enc    hostabi.Encoding
	ctx    context.Context
	cancel context.CancelCauseFunc
	stream *inbound // nil for a unary call
}

// inbound is the guest's side of a stream. The reader fills queue; it never blocks on it, since what the
// guest may leave unacknowledged is less than its capacity.
type inbound struct {
	queue  chan []byte   // closed at the guest's END
	tokens chan struct{} // one for each message that the guest has not acknowledged

	// guarded by server.mu
	owed  int  // messages that we have not acknowledged
	ended bool // END has arrived
	gone  bool // nothing is queued any more
}

// read is the reader; its error ends the session.
func (sv *server) read(conn io.ReadWriteCloser) error {
	in, sock := newReader(conn, false)
	sv.in = sock
	r := bufio.NewReaderSize(in, readSize)
	for {
		f, err := Decode(r, nil)
		if err != nil && (hostabi.ReasonOf(err) != hostabi.ReasonTooLarge || f.ID == 0) {
			return err
		}
		sv.traceIn(&f, err)
		sv.more = r.Buffered() > 0
		if err := sv.frame(&f, err); err != nil {
			return err
		}
	}
}

// frame takes one frame; refused is the error of a message that was passed over. The result ends the session.
func (sv *server) frame(f *Frame, refused error) error {
	switch {
	case f.ID == 0 || f.ID > 1<<31-1:
		return badFrame("id " + strconv.FormatUint(uint64(f.ID), 10))
	case f.Flags&FlagFD != 0:
		return badFrame("descriptor from the guest")
	case f.Method != "":
		return sv.open(f, refused)
	}
	sv.mu.Lock()
	c := sv.live[f.ID]
	sv.mu.Unlock()
	switch {
	case c == nil && f.ID > sv.last:
		return badFrame("id " + strconv.FormatUint(uint64(f.ID), 10) + " without a method")
	case c == nil:
		return nil // it has ended here; the guest did not know yet
	case f.Flags&FlagCancel != 0:
		c.cancel(hostabi.Errorf(hostabi.ReasonInterrupted, "cancelled by the plugin"))
		return nil
	case f.Flags&FlagAck != 0:
		return c.acked(int(f.Code))
	case c.stream == nil:
		return badFrame("second request of a unary call")
	case refused != nil:
		c.cancel(refused)
		return nil
	}
	return sv.queue(c, f)
}

// open starts a call or stream.
func (sv *server) open(f *Frame, refused error) error {
	if f.ID <= sv.last {
		return badFrame("id " + strconv.FormatUint(uint64(f.ID), 10) + " used again")
	}
	if f.Flags&^FlagEnd != 0 {
		return badFrame("opening frame with flags " + strconv.Itoa(int(f.Flags)))
	}
	sv.last = f.ID
	if refused != nil {
		return sv.refuse(f, refused)
	}
	end := f.Flags&FlagEnd != 0
	if !end || sv.streamer != nil && sv.streamer.Streaming(f.Method) {
		return sv.openStream(f, end)
	}
	if !sv.more && sv.quickener != nil && sv.w.sock != nil && sv.quickener.Quick(f.Method) {
		return sv.quick(f)
	}
	c := sv.register(f, nil)
	return sv.begin(func() { sv.unary(c, f.Method, f.Body) })
}

// begin runs work of a unary call beside the reader; calls at the limit wait.
func (sv *server) begin(work func()) error {
	select {
	case sv.calls <- struct{}{}:
	case <-sv.ctx.Done():
		return context.Cause(sv.ctx)
	}
	sv.wg.Go(func() {
		defer func() { <-sv.calls }()
		work()
	})
	return nil
}

func (sv *server) openStream(f *Frame, end bool) error {
	sv.mu.Lock()
	full := sv.streams >= hostabi.MaxStreams
	sv.mu.Unlock()
	if full {
		return sv.refuse(f, hostabi.Errorf(hostabi.ReasonTooMany, "%d streams are open, no more at once", hostabi.MaxStreams))
	}
	in := &inbound{
		queue:  make(chan []byte, hostabi.MaxQueued+1),
		tokens: make(chan struct{}, hostabi.MaxQueued),
		owed:   1, ended: end,
	}
	in.queue <- f.Body
	if end {
		close(in.queue)
	}
	c := sv.register(f, in)
	sv.mu.Lock()
	sv.backlog += len(f.Body)
	sv.mu.Unlock()
	sv.wg.Go(func() { sv.serveStream(c, f.Method) })
	return nil
}

// refuse answers f without a handler. A guest that does not read its answers blocks only itself.
func (sv *server) refuse(f *Frame, err error) error {
	_ = sv.w.end(f.ID, f.Enc, err)
	return nil
}

func (sv *server) register(f *Frame, in *inbound) *serving {
	c := &serving{id: f.ID, enc: f.Enc, stream: in}
	c.ctx, c.cancel = context.WithCancelCause(sv.ctx)
	sv.mu.Lock()
	defer sv.mu.Unlock()
	sv.live[c.id] = c
	if in != nil {
		sv.streams++
	}
	return c
}

// forget ends c: later frames of its id are ignored.
func (sv *server) forget(c *serving) {
	c.cancel(nil)
	sv.mu.Lock()
	defer sv.mu.Unlock()
	delete(sv.live, c.id)
	if c.stream != nil {
		c.stream.gone = true
		sv.streams--
	}
}

// unary runs one call and writes its reply behind room for the header, so that it is never copied.
func (sv *server) unary(c *serving, method string, req []byte) {
	buf := getBuffer()
	defer putBuffer(buf)
	var file *os.File
	*buf, file = sv.answer(c, method, req, (*buf)[:0])
	sv.forget(c)
	if file != nil {
		_ = sv.w.writeFD(*buf, file)
		return
	}
	_ = sv.w.write(*buf)
}

// quick is unary for the reader, which does not wait for the guest to take the reply: the guest may wait for the
// reader. Nothing can cancel it meanwhile.
func (sv *server) quick(f *Frame) error {
	buf := getBuffer()
	*buf, _ = sv.answer(&serving{id: f.ID, enc: f.Enc, ctx: sv.ctx}, f.Method, f.Body, (*buf)[:0])
	rest, begun := sv.w.writeNow(*buf)
	if rest == nil {
		putBuffer(buf)
		sv.in.soon() // the guest's next call often comes at once
		return nil
	}
	work := func() {
		defer putBuffer(buf)
		rest()
	}
	if begun { // it holds the writer, so there is one of it, and those in the slots may wait for it
		sv.wg.Go(work)
		return nil
	}
	err := sv.begin(work)
	if err != nil {
		sv.wg.Go(work) // still the answer to a call that was made
	}
	return err
}

// answer is the last frame of one call, appended to dst, and the descriptor that goes with it.
func (sv *server) answer(c *serving, method string, req, dst []byte) ([]byte, *os.File) {
	var room [HeaderSize]byte
	head := append(dst, room[:]...)
	reply, err := sv.session.Invoke(c.ctx, hostabi.Call{Method: method, Enc: c.enc, Req: req, Dst: head})
	if err == nil && len(reply)-HeaderSize > hostabi.MaxMessage {
		err = tooLarge(int64(len(reply) - HeaderSize))
	}
	if err != nil {
		return appendEnd(head[:0], c.id, c.enc, err), nil
	}
	f := Frame{Enc: c.enc, ID: c.id, Flags: FlagEnd}
	file := sv.descriptor(c, method, req, &reply)
	if file != nil {
		f.Flags |= FlagFD
	}
	seal(reply, &f)
	return reply, file
}

// acked takes credit back.
func (c *serving) acked(n int) error {
	if c.stream == nil {
		return nil
	}
	for range n {
		select {
		case <-c.stream.tokens:
		default:
			return badFrame("more messages acknowledged than sent")
		}
	}
	return nil
}

// queue hands one message of the guest to its stream.
func (sv *server) queue(c *serving, f *Frame) error {
	in, end := c.stream, f.Flags&FlagEnd != 0
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if in.gone {
		return nil
	}
	if in.ended {
		return badFrame("message after the end of id " + strconv.FormatUint(uint64(f.ID), 10))
	}
	in.ended = end
	if !end || len(f.Body) > 0 {
		in.owed++
		if in.owed > hostabi.MaxQueued || sv.backlog+len(f.Body) > maxBacklog {
			in.gone = true
			c.cancel(hostabi.Errorf(hostabi.ReasonCredit, "stream: more than %d messages without acknowledgement", hostabi.MaxQueued))
			return nil
		}
		sv.backlog += len(f.Body)
		in.queue <- f.Body
	}
	if end {
		close(in.queue)
	}
	return nil
}

// serveStream runs one stream: this goroutine takes the host's messages, another one gives it the guest's.
func (sv *server) serveStream(c *serving, method string) {
	err := sv.runStream(c, method)
	if cause, ok := errors.AsType[*hostabi.Error](context.Cause(c.ctx)); ok && err != nil {
		err = cause // why it was ended here says more than what the handler made of it
	}
	sv.forget(c)
	for msg := range drain(c.stream.queue) {
		sv.consumed(c, msg, false)
	}
	_ = sv.w.end(c.id, c.enc, err)
}

func (sv *server) runStream(c *serving, method string) error {
	st, err := sv.session.Stream(c.ctx, method, c.enc)
	if err != nil {
		return err
	}
	var feed sync.WaitGroup
	feed.Go(func() { sv.feed(c, st) })
	err = sv.deliver(c, st)
	c.cancel(nil)
	_ = st.Close()
	feed.Wait()
	return err
}

// feed gives the guest's messages to the host, each one acknowledged when the host has taken it.
func (sv *server) feed(c *serving, st hostabi.Stream) {
	for {
		select {
		case <-c.ctx.Done():
			return
		case msg, ok := <-c.stream.queue:
			if !ok {
				_ = st.CloseSend()
				return
			}
			if err := st.Send(msg); err != nil {
				return // Recv knows why
			}
			sv.consumed(c, msg, true)
		}
	}
}

// consumed books one message out. After the guest's END nothing can be sent any more, so nothing is
// acknowledged: simple guests that send one request with END never see an ACK.
func (sv *server) consumed(c *serving, msg []byte, ack bool) {
	sv.mu.Lock()
	c.stream.owed--
	sv.backlog -= len(msg)
	ack = ack && !c.stream.ended
	sv.mu.Unlock()
	if ack {
		_ = sv.w.ack(c.id, c.enc, 1)
	}
}

// deliver gives the host's messages to the guest as far as its credit goes.
func (sv *server) deliver(c *serving, st hostabi.Stream) error {
	for {
		msg, err := st.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if len(msg) > hostabi.MaxMessage {
			return tooLarge(int64(len(msg)))
		}
		select {
		case c.stream.tokens <- struct{}{}:
		case <-c.ctx.Done():
			return context.Cause(c.ctx)
		}
		if err := sv.w.frame(&Frame{Enc: c.enc, ID: c.id, Body: msg}); err != nil {
			return err
		}
	}
}

// drain yields what is left in a queue that nobody fills any more.
func drain(queue chan []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for {
			select {
			case msg, ok := <-queue:
				if !ok || !yield(msg) {
					return
				}
			default:
				return
			}
		}
	}
}
