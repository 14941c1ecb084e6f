package host

import (
	"context"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
)

// grpcMessage is what a gRPC carrier reads before it cuts: messages between MaxMessage and this get the error
// of every other carrier, TOO_LARGE, larger ones gRPC's own.
const grpcMessage = 2 * hostabi.MaxMessage

// GRPCServer is a gRPC server with all services, bound to this session. opts come first; codec, limits and
// interceptors are the session's. The caller serves and stops it.
func (s *Session) GRPCServer(opts []grpc.ServerOption) *grpc.Server {
	codec := grpcCodec{bad: new(sync.Map)}
	srv := grpc.NewServer(append(opts[:len(opts):len(opts)],
		grpc.ForceServerCodecV2(codec),
		grpc.MaxRecvMsgSize(grpcMessage),
		grpc.MaxSendMsgSize(grpcMessage),
		// Room above our own limits, so that the one too many gets an error instead of waiting.
		grpc.MaxConcurrentStreams(4*(hostabi.MaxStreams+hostabi.MaxCalls)),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			return s.grpcUnary(ctx, codec, req, info, next)
		}),
		grpc.StreamInterceptor(func(impl any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			return s.grpcStream(impl, &grpcStream{ss, codec}, info.FullMethod, next)
		}),
		grpc.UnknownServiceHandler(func(_ any, ss grpc.ServerStream) error {
			name, _ := grpc.MethodFromServerStream(ss)
			return grpcError(unknownMethod(name))
		}),
	)...)
	for _, d := range s.r.descs {
		srv.RegisterService(d.desc, d.impl)
	}
	return srv
}

func (s *Session) grpcUnary(ctx context.Context, codec grpcCodec, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	c := &call{Context: ctx, s: s, m: s.r.methods[info.FullMethod]}
	defer c.end()
	if err := codec.refused(req); err != nil {
		s.observe(ctx, c.m.name, s.begin(), err)
		return nil, grpcError(s.asError(c.m.name, err))
	}
	if r, ok := req.(*hostv1.OpenBlobRequest); ok {
		r.WantFd = false // gRPC passes no descriptors; a confined plugin gets its copy
	}
	reply, err := s.r.intercept(c, req, info, next)
	if err == nil {
		err = fits(reply)
	}
	if err != nil {
		return nil, grpcError(s.asError(c.m.name, err))
	}
	return reply, nil
}

func (s *Session) grpcStream(impl any, ss grpc.ServerStream, name string, next grpc.StreamHandler) error {
	m, err := s.r.lookup(name)
	if err != nil { // gRPC's handler for unknown methods passes here too
		return next(impl, ss)
	}
	c := &call{Context: ss.Context(), s: s, m: m}
	defer c.end()
	if err := s.enterStream(c); err != nil {
		s.observe(c, name, s.begin(), err)
		return grpcError(s.asError(name, err))
	}
	defer s.free(c)
	defer s.leaveStream()
	if err := s.r.interceptStream(impl, ss, c, next); err != nil {
		return grpcError(s.asError(name, err))
	}
	return nil
}

// grpcStream adds the errors that the codec kept back and the limit of a message.
type grpcStream struct {
	grpc.ServerStream
	codec grpcCodec
}

// RecvMsg implements grpc.ServerStream.
func (g *grpcStream) RecvMsg(m any) error {
	if err := g.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return g.codec.refused(m)
}

// SendMsg implements grpc.ServerStream.
func (g *grpcStream) SendMsg(m any) error {
	if err := fits(m); err != nil {
		return err
	}
	return g.ServerStream.SendMsg(m)
}

func fits(m any) error {
	if pm, ok := m.(proto.Message); ok {
		if n := proto.Size(pm); n > hostabi.MaxMessage {
			return tooLarge("reply", n)
		}
	}
	return nil
}
