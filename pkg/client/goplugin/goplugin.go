// Package goplugin serves a client.App as a stock hashicorp/go-plugin gRPC server: the launch mode goplugin
// of native plugins (native.md section 4). It owns the server side of ds.plugin.v1 and the carrier of host
// calls over the broker; what calls mean stays in pkg/client. A program needs one line:
//
//	func main() { goplugin.Main(app) }
package goplugin

import (
	"context"
	"os"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/pkg/client"
)

// The handshake with ds (host-abi.md sections 4 and 13).
const (
	cookieKey   = "DS_PLUGIN_MAGIC_COOKIE"
	cookieValue = "delivery-station-plugin"
	protocol    = 2
	pluginKey   = "ds-plugin"
)

// Main serves app to the ds that started this process and exits. Without the handshake of go-plugin it is
// client.Main, so that the same program runs in mode direct and answers the build tool.
func Main(app client.App) {
	if os.Getenv(cookieKey) != cookieValue {
		client.Main(app)
		return
	}
	ctx, stop := watch(context.Background())
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{ProtocolVersion: protocol, MagicCookieKey: cookieKey, MagicCookieValue: cookieValue},
		VersionedPlugins: map[int]goplugin.PluginSet{protocol: {pluginKey: &served{app: app, ctx: ctx}}},
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(hostabi.MaxMessage), grpc.MaxSendMsgSize(hostabi.MaxMessage))...)
		},
		Logger: hclog.NewNullLogger(),
	})
	stop()
	os.Exit(0) // the exit code travelled in RunExit
}

// served is what go-plugin serves.
type served struct {
	goplugin.NetRPCUnsupportedPlugin
	hostv1.UnimplementedPluginServer
	app    client.App
	ctx    context.Context // ends with a signal or with ds
	broker *goplugin.GRPCBroker
	ran    atomic.Bool
}

var _ goplugin.GRPCPlugin = (*served)(nil)

// GRPCServer implements goplugin.GRPCPlugin.
func (p *served) GRPCServer(b *goplugin.GRPCBroker, s *grpc.Server) error {
	p.broker = b
	hostv1.RegisterPluginServer(s, p)
	return nil
}

// GRPCClient implements goplugin.GRPCPlugin for the host, which has its own.
func (p *served) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, hostabi.Errorf(hostabi.ReasonInternal, "the plugin serves only")
}
