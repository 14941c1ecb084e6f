package hosttest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/hostabi/hosttest"
)

// overGRPC serves the session as the broker does, and calls it with a plain client.
func overGRPC(t testing.TB, s hostabi.Session) hostabi.Session {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.(*host.Session).SetRunDir(t.TempDir(), false)
	srv := s.(*host.Session).GRPCServer(nil)
	go srv.Serve(l) // ends with Stop
	t.Cleanup(srv.Stop)
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{}), grpc.MaxCallRecvMsgSize(2*hostabi.MaxMessage), grpc.MaxCallSendMsgSize(2*hostabi.MaxMessage)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return grpcSession{conn}
}

// rawCodec carries bytes as they are.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (rawCodec) Unmarshal(b mem.BufferSlice, v any) error {
	*v.(*[]byte) = b.Materialize()
	return nil
}

type grpcSession struct{ conn *grpc.ClientConn }

func fromGRPC(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	b, merr := proto.Marshal(status.Convert(err).Proto())
	if merr != nil {
		return merr
	}
	return hostabi.ParseStatus(b)
}

func (g grpcSession) Invoke(ctx context.Context, c hostabi.Call) ([]byte, error) {
	var out []byte
	if err := g.conn.Invoke(ctx, c.Method, c.Req, &out); err != nil {
		return c.Dst, fromGRPC(err)
	}
	return append(c.Dst, out...), nil
}

func (g grpcSession) Stream(ctx context.Context, method string, _ hostabi.Encoding) (hostabi.Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	st, err := g.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		cancel()
		return nil, fromGRPC(err)
	}
	return &grpcClientStream{st, cancel}, nil
}

func (grpcSession) Handle(id uint32) (io.ReadWriteCloser, error) {
	return nil, hostabi.Errorf(hostabi.ReasonBadHandle, "gRPC passes no handles")
}

func (grpcSession) Close() error { return nil }

type grpcClientStream struct {
	grpc.ClientStream
	cancel context.CancelFunc
}

func (st *grpcClientStream) Send(b []byte) error { return fromGRPC(st.SendMsg(b)) }

func (st *grpcClientStream) Recv() ([]byte, error) {
	var b []byte
	err := st.RecvMsg(&b)
	return b, fromGRPC(err)
}

func (st *grpcClientStream) Close() error {
	st.cancel()
	return nil
}

func TestGRPC(t *testing.T) {
	t.Parallel()
	hosttest.Run(t, hosttest.Connected("gRPC", overGRPC), owners)
}
