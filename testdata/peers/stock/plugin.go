package stock

import (
	"context"
	"fmt"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Plugin is one brokered go-plugin: the host passes the number of a broker stream, the plugin calls Config on it
// and answers with text.
type Plugin struct {
	plugin.NetRPCUnsupportedPlugin
	Config Config // of the host
}

var _ plugin.GRPCPlugin = (*Plugin)(nil)

// GRPCServer implements plugin.GRPCPlugin in the plugin.
func (p *Plugin) GRPCServer(b *plugin.GRPCBroker, s *grpc.Server) error {
	s.RegisterService(&runService, runner(&server{b}))
	return nil
}

// GRPCClient implements plugin.GRPCPlugin in the host.
func (p *Plugin) GRPCClient(_ context.Context, b *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return &Client{broker: b, conn: conn, config: p.Config}, nil
}

// Client is the host's side of a running plugin.
type Client struct {
	broker *plugin.GRPCBroker
	conn   *grpc.ClientConn
	config Config
}

// Run serves Config on a broker stream and has the plugin make n calls, 0 = one that is not measured.
func (c *Client) Run(ctx context.Context, n int) (string, error) {
	id := c.broker.NextId()
	started := make(chan *grpc.Server, 1)
	go c.broker.AcceptAndServe(id, func(opts []grpc.ServerOption) *grpc.Server {
		s := grpc.NewServer(opts...)
		Register(s, c.config)
		started <- s
		return s
	})
	in, err := structpb.NewList([]any{float64(id), float64(n)})
	if err != nil {
		return "", err
	}
	out := new(wrapperspb.StringValue)
	err = c.conn.Invoke(ctx, "/peers.Plugin/Run", in, out)
	select {
	case s := <-started:
		s.Stop()
	default:
	}
	return out.GetValue(), err
}

type runner interface {
	run(ctx context.Context, in *structpb.ListValue) (*wrapperspb.StringValue, error)
}

type server struct{ broker *plugin.GRPCBroker }

func (s *server) run(ctx context.Context, in *structpb.ListValue) (*wrapperspb.StringValue, error) {
	if len(in.GetValues()) != 2 {
		return nil, fmt.Errorf("want two numbers")
	}
	id, n := uint32(in.Values[0].GetNumberValue()), int(in.Values[1].GetNumberValue())
	conn, err := s.broker.Dial(id)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if n > 0 {
		text, err := Measure(n, func() (string, error) { return Get(ctx, conn) })
		return wrapperspb.String(text), err
	}
	if _, err := Get(ctx, conn); err != nil {
		return nil, err
	}
	return wrapperspb.String("hello\n"), nil
}

var runService = grpc.ServiceDesc{ServiceName: "peers.Plugin", HandlerType: (*runner)(nil), Methods: []grpc.MethodDesc{{
	MethodName: "Run",
	Handler: func(srv any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := new(structpb.ListValue)
		if err := dec(in); err != nil {
			return nil, err
		}
		return srv.(runner).run(ctx, in)
	},
}}}
