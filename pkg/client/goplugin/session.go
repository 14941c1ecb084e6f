package goplugin

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/delivery-station/ds/hostabi"
)

// session carries host calls as gRPC over the broker's connection. Messages pass as bytes: it knows no method.
type session struct {
	dial func() (*grpc.ClientConn, error)

	mu     sync.Mutex
	cc     *grpc.ClientConn
	closed bool
}

var _ hostabi.Session = (*session)(nil)

// newSession dials at the first call.
func newSession(dial func() (*grpc.ClientConn, error)) *session { return &session{dial: dial} }

func (s *session) conn() (*grpc.ClientConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, hostabi.Errorf(hostabi.ReasonInterrupted, "the connection to the host is closed")
	}
	if s.cc == nil {
		cc, err := s.dial()
		if err != nil {
			return nil, hostabi.Errorf(hostabi.ReasonInterrupted, "no connection to the host: %w", err)
		}
		s.cc = cc
	}
	return s.cc, nil
}

func protoOnly(method string, enc hostabi.Encoding) error {
	if enc != hostabi.EncProto {
		return hostabi.Errorf(hostabi.ReasonUnknownMethod, "method %s: gRPC carries protobuf only", method)
	}
	return nil
}

// Invoke implements hostabi.Session.
func (s *session) Invoke(ctx context.Context, c hostabi.Call) ([]byte, error) {
	if err := protoOnly(c.Method, c.Enc); err != nil {
		return c.Dst, err
	}
	if len(c.Req) > hostabi.MaxMessage {
		return c.Dst, tooLarge(len(c.Req))
	}
	cc, err := s.conn()
	if err != nil {
		return c.Dst, err
	}
	var reply []byte
	if err := cc.Invoke(ctx, c.Method, &c.Req, &reply, grpc.ForceCodecV2(raw{})); err != nil {
		return c.Dst, hostError(err)
	}
	return append(c.Dst, reply...), nil
}

// Stream implements hostabi.Session.
func (s *session) Stream(ctx context.Context, method string, enc hostabi.Encoding) (hostabi.Stream, error) {
	if err := protoOnly(method, enc); err != nil {
		return nil, err
	}
	cc, err := s.conn()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	st, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method, grpc.ForceCodecV2(raw{}))
	if err != nil {
		cancel()
		return nil, hostError(err)
	}
	return &stream{st: st, cancel: cancel}, nil
}

// Handle implements hostabi.Session: over gRPC blobs have paths.
func (s *session) Handle(id uint32) (io.ReadWriteCloser, error) {
	return nil, hostabi.Errorf(hostabi.ReasonBadHandle, "handle %d: gRPC passes no descriptors, use the path", id)
}

// Close implements hostabi.Session.
func (s *session) Close() error {
	s.mu.Lock()
	cc := s.cc
	s.cc, s.closed = nil, true
	s.mu.Unlock()
	if cc == nil {
		return nil
	}
	return cc.Close()
}

type stream struct {
	st     grpc.ClientStream
	cancel context.CancelFunc
}

// Send implements hostabi.Stream.
func (s *stream) Send(msg []byte) error {
	if len(msg) > hostabi.MaxMessage {
		return tooLarge(len(msg))
	}
	if err := s.st.SendMsg(&msg); err != nil {
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		return hostError(err)
	}
	return nil
}

// CloseSend implements hostabi.Stream.
func (s *stream) CloseSend() error {
	if err := s.st.CloseSend(); err != nil {
		return hostError(err)
	}
	return nil
}

// Recv implements hostabi.Stream.
func (s *stream) Recv() ([]byte, error) {
	var msg []byte
	if err := s.st.RecvMsg(&msg); err != nil {
		s.cancel() // the stream has ended
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		return nil, hostError(err)
	}
	return msg, nil
}

// Close implements hostabi.Stream.
func (s *stream) Close() error {
	s.cancel()
	return nil
}

func tooLarge(n int) *hostabi.Error {
	return hostabi.Errorf(hostabi.ReasonTooLarge, "message of %d bytes, at most %d", n, hostabi.MaxMessage)
}

// hostError turns a gRPC error back into the host's. gRPC's own refusal of a large reply has no reason.
func hostError(err error) error {
	b, merr := proto.Marshal(status.Convert(err).Proto())
	if merr != nil {
		return hostabi.AsError(err)
	}
	e := hostabi.ParseStatus(b)
	if e.Code == hostabi.ResourceExhausted && e.Reason == hostabi.ReasonInternal {
		e.Reason = hostabi.ReasonTooLarge
	}
	e.Err = err
	return e
}

// raw is the codec of messages that are encoded already. Its values are *[]byte.
type raw struct{}

// Name is that of protobuf, which the bytes are.
func (raw) Name() string { return "proto" }

// Marshal implements encoding.CodecV2. gRPC may keep the bytes until they are sent, so they are copied.
func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(append([]byte(nil), *v.(*[]byte)...))}, nil
}

// Unmarshal implements encoding.CodecV2.
func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}
