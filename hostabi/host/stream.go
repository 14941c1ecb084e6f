package host

import (
	"bytes"
	"context"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/delivery-station/ds/hostabi"
)

// Stream implements hostabi.Session. A unary method is a stream of one message each way.
func (s *Session) Stream(ctx context.Context, name string, enc hostabi.Encoding) (hostabi.Stream, error) {
	begin := s.begin()
	m, err := s.r.lookup(name)
	if err != nil {
		s.observe(ctx, name, begin, err)
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	c := &call{Context: ctx, s: s, m: m}
	if err := s.enterStream(c); err != nil {
		cancel()
		s.observe(ctx, name, begin, err)
		return nil, err
	}
	st := &stream{
		c: c, cancel: cancel, enc: enc,
		in: make(chan []byte, hostabi.MaxQueued), half: make(chan struct{}),
		out: make(chan []byte, hostabi.MaxQueued), done: make(chan struct{}), moved: make(chan struct{}, 1),
	}
	go st.run(m)
	return st, nil
}

// stream is a streaming call in memory: hostabi.Stream to the carrier, grpc.ServerStream (as serverStream) to
// the handler. Both queues are bounded, so each side waits for the other.
type stream struct {
	c      *call
	cancel context.CancelFunc
	enc    hostabi.Encoding

	in      chan []byte
	half    chan struct{} // closed by CloseSend
	halfone sync.Once
	out     chan []byte
	moved   chan struct{} // has something when the handler took or gave a message since the last Poll
	done    chan struct{} // closed when the handler has returned
	err     error         // its result, valid after done
}

var _ hostabi.Poller = (*stream)(nil)

func (st *stream) run(m *method) {
	s := st.c.s
	defer s.leaveStream()
	if m.stream != nil {
		st.err = s.r.interceptStream(m.impl, &serverStream{st}, st.c, m.stream.Handler)
	} else {
		st.err = st.unary(m)
	}
	st.c.end()
	close(st.done)
}

// unary serves a unary method to a carrier that only has streams.
func (st *stream) unary(m *method) error {
	req, err := st.next()
	if err == nil {
		var reply []byte
		if reply, err = st.c.s.Invoke(st.c, hostabi.Call{Method: m.name, Enc: st.enc, Req: req}); err == nil {
			return st.push(reply)
		}
	}
	if err == io.EOF {
		err = hostabi.Errorf(hostabi.ReasonBadMessage, "stream ended before its first message")
	}
	return st.c.s.asError(m.name, err)
}

// Send implements hostabi.Stream; io.EOF means that the host has ended the stream and Recv has the result.
func (st *stream) Send(msg []byte) error {
	if len(msg) > hostabi.MaxMessage {
		return tooLarge("message", len(msg))
	}
	select {
	case <-st.half:
		return hostabi.Errorf(hostabi.ReasonBadMessage, "message after the end of the stream")
	case <-st.done:
		return io.EOF
	default:
	}
	select {
	case st.in <- bytes.Clone(msg):
		return nil
	case <-st.done:
		return io.EOF
	case <-st.c.Done():
		return st.c.s.asError(st.c.m.name, st.c.Err())
	}
}

// CloseSend implements hostabi.Stream.
func (st *stream) CloseSend() error {
	st.halfone.Do(func() { close(st.half) })
	return nil
}

// Recv implements hostabi.Stream.
func (st *stream) Recv() ([]byte, error) {
	select {
	case b := <-st.out:
		return b, nil
	case <-st.done:
	}
	select {
	case b := <-st.out:
		return b, nil
	default:
	}
	st.drop()
	if st.err != nil {
		return nil, st.err
	}
	return nil, io.EOF
}

// Poll implements hostabi.Poller. The carrier is the only one to fill in and to empty out, so what it says stays true.
func (st *stream) Poll() (recv, send bool) {
	for {
		select {
		case <-st.done:
			return true, false
		case <-st.half:
		default:
			send = len(st.in) < cap(st.in)
		}
		if recv = len(st.out) > 0; recv || send {
			return recv, send
		}
		select {
		case <-st.moved:
		case <-st.done:
			return true, false
		}
	}
}

// note wakes a Poll that waits.
func (st *stream) note() {
	select {
	case st.moved <- struct{}{}:
	default:
	}
}

// Close implements hostabi.Stream. It does not wait for the handler; the session does.
func (st *stream) Close() error {
	st.drop()
	return nil
}

// drop ends the carrier's interest: it has the result or does not want it.
func (st *stream) drop() {
	st.cancel()
	st.c.s.free(st.c)
}

// next is the next message of the guest, io.EOF after its last.
func (st *stream) next() ([]byte, error) {
	defer st.note()
	select {
	case b := <-st.in:
		return b, nil
	default:
	}
	select {
	case b := <-st.in:
		return b, nil
	case <-st.half:
	case <-st.c.Done():
		return nil, st.c.Err()
	}
	select {
	case b := <-st.in:
		return b, nil
	default:
		return nil, io.EOF
	}
}

func (st *stream) push(b []byte) error {
	if len(b) > hostabi.MaxMessage {
		return tooLarge("reply", len(b))
	}
	select {
	case st.out <- b:
		st.note()
		return nil
	case <-st.c.Done():
		return st.c.Err()
	}
}

// serverStream is the handler's side of a stream. Metadata has no meaning in the host ABI.
type serverStream struct{ *stream }

var _ grpc.ServerStream = (*serverStream)(nil)

func (*serverStream) SetHeader(metadata.MD) error  { return nil }
func (*serverStream) SendHeader(metadata.MD) error { return nil }
func (*serverStream) SetTrailer(metadata.MD)       {}

// Context implements grpc.ServerStream.
func (ss *serverStream) Context() context.Context { return ss.c }

// RecvMsg implements grpc.ServerStream.
func (ss *serverStream) RecvMsg(m any) error {
	b, err := ss.next()
	if err != nil {
		return err
	}
	return decode(b, m, ss.enc)
}

// SendMsg implements grpc.ServerStream.
func (ss *serverStream) SendMsg(m any) error {
	b, err := encode(nil, m, ss.enc)
	if err != nil {
		return err
	}
	return ss.push(b)
}
