// Command metadata is a stub plugin of the original DS, oldest generation: GetMetadata, raw words, no finalizers.
package main

import (
	"context"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/delivery-station/ds/testdata/legacy/metadata/wire"
	"github.com/delivery-station/ds/testdata/legacy/stub"
)

func main() {
	stub.Serve(func(b *plugin.GRPCBroker, s *grpc.Server) { wire.RegisterDSPluginServer(s, &server{broker: b}) })
}

type server struct {
	wire.UnimplementedDSPluginServer
	broker *plugin.GRPCBroker
}

// GetMetadata implements wire.DSPluginServer.
func (*server) GetMetadata(context.Context, *wire.GetMetadataRequest) (*wire.GetMetadataResponse, error) {
	return &wire.GetMetadataResponse{Name: stub.Name, Version: stub.Version, Description: "an old stub", Operations: []string{"echo", "config"}}, nil
}

// Execute implements wire.DSPluginServer.
func (s *server) Execute(ctx context.Context, req *wire.ExecuteRequest) (*wire.ExecuteResponse, error) {
	r, err := stub.Execute(ctx, req.GetOperation(), req.GetArgs(), func() ([]byte, error) {
		conn, err := s.broker.Dial(req.GetHostConfigBrokerId())
		if err != nil {
			return nil, err
		}
		defer func() { _ = conn.Close() }() // one call
		reply, err := wire.NewHostConfigClient(conn).GetEffectiveConfig(ctx, &wire.GetEffectiveConfigRequest{})
		return reply.GetConfigJson(), err
	})
	if err != nil {
		return nil, err
	}
	out := &wire.ExecuteResponse{Stdout: r.Stdout, Stderr: r.Stderr, ExitCode: r.Code, Error: r.Error}
	return out, nil
}
