package frame

import (
	"context"
	"io"
	"sync"

	"github.com/delivery-station/ds/hostabi"
)

// outbound is a stream of the guest end.
type outbound struct {
	c      *Conn
	ctx    context.Context
	method string
	enc    hostabi.Encoding
	stop   func() bool // of the watch on ctx

	id         uint32        // 0 until the first message; set under Conn.mu
	sendClosed bool          // only the sender uses it
	tokens     chan struct{} // one for each message that the host has not acknowledged
	in         chan []byte   // the host's messages; credit keeps it from filling

	mu    sync.Mutex
	ended chan struct{}
	err   *hostabi.Error // valid once ended is closed; nil = clean end
}

func newOutbound(ctx context.Context, c *Conn, method string, e hostabi.Encoding) *outbound {
	st := &outbound{
		c: c, ctx: ctx, method: method, enc: e,
		tokens: make(chan struct{}, hostabi.MaxQueued),
		in:     make(chan []byte, hostabi.MaxQueued),
		ended:  make(chan struct{}),
	}
	st.mu.Lock() // AfterFunc may run at once, and uses stop
	defer st.mu.Unlock()
	st.stop = context.AfterFunc(ctx, func() { st.abort(ctxError(ctx)) })
	return st
}

// Send implements hostabi.Stream. It waits for credit. io.EOF means that the host ended the stream: Recv has
// the result.
func (st *outbound) Send(msg []byte) error {
	if len(msg) > hostabi.MaxMessage {
		return tooLarge(int64(len(msg)))
	}
	if st.sendClosed {
		return hostabi.Errorf(hostabi.ReasonBadMessage, "message after CloseSend")
	}
	select {
	case <-st.ended:
		return io.EOF
	default:
	}
	select {
	case st.tokens <- struct{}{}:
	case <-st.ended:
		return io.EOF
	}
	return st.write(msg, 0)
}

// CloseSend implements hostabi.Stream.
func (st *outbound) CloseSend() error {
	if st.sendClosed {
		return nil
	}
	st.sendClosed = true
	select {
	case <-st.ended:
		return nil
	default:
	}
	if err := st.write(nil, FlagEnd); err != io.EOF {
		return err
	}
	return nil
}

// write sends one frame, with the method if it is the first.
func (st *outbound) write(msg []byte, flags Flags) error {
	f := Frame{Enc: st.enc, ID: st.id, Flags: flags, Body: msg}
	if st.id == 0 {
		f.Method = st.method
		_, err := st.c.open(&f, nil, st)
		if err != nil {
			st.finish(hostabi.AsError(err))
			return err
		}
		st.given()
		return nil
	}
	if err := st.c.w.frame(&f); err != nil {
		return io.EOF // whoever reads finds out why
	}
	return nil
}

// given cancels a call that was opened while the stream was ended, unseen by whoever ended it.
func (st *outbound) given() {
	select {
	case <-st.ended:
		st.c.giveUp(st.id, st.enc)
	default:
	}
}

// Recv implements hostabi.Stream. Each message taken is acknowledged.
func (st *outbound) Recv() ([]byte, error) {
	select {
	case msg := <-st.in:
		return st.taken(msg), nil
	default:
	}
	select {
	case msg := <-st.in:
		return st.taken(msg), nil
	case <-st.ended:
	}
	select {
	case msg := <-st.in: // it came before the end
		return msg, nil
	default:
	}
	if st.err == nil {
		return nil, io.EOF
	}
	return nil, st.err
}

func (st *outbound) taken(msg []byte) []byte {
	select {
	case <-st.ended:
	default:
		_ = st.c.w.ack(st.id, st.enc, 1)
	}
	return msg
}

// Close implements hostabi.Stream.
func (st *outbound) Close() error {
	st.abort(hostabi.Errorf(hostabi.ReasonInterrupted, "stream closed"))
	return nil
}

// abort gives the stream up unless it has ended.
func (st *outbound) abort(e *hostabi.Error) {
	if !st.finish(e) {
		return
	}
	st.c.mu.Lock()
	id := st.id
	st.c.mu.Unlock()
	st.c.giveUp(id, st.enc) // 0: not opened yet, see given
}

// finish ends the stream with e and reports whether it had not ended before.
func (st *outbound) finish(e *hostabi.Error) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	select {
	case <-st.ended:
		return false
	default:
	}
	st.stop()
	st.err = e
	close(st.ended) // before the id is looked at: see write
	return true
}

// frame takes one frame of the host; an error ends the connection.
func (st *outbound) frame(f *Frame, refused *hostabi.Error) *hostabi.Error {
	switch {
	case refused != nil:
		st.abort(refused)
	case f.Flags&FlagAck != 0:
		for range f.Code {
			select {
			case <-st.tokens:
			default:
				return lost(badFrame("more messages acknowledged than sent"))
			}
		}
	case f.Flags&FlagEnd != 0 && f.Code != 0:
		st.finish(status(f.Body, f.Enc))
	case f.Flags&FlagEnd != 0:
		st.finish(nil)
	default:
		select {
		case st.in <- f.Body:
		default:
			return lost(badFrame("more messages than credit"))
		}
	}
	return nil
}
