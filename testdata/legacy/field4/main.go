// Command field4 is a stub plugin of the original DS, middle generation: field 3 is a map, the broker id is field 4.
package main

import (
	"context"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/delivery-station/ds/testdata/legacy/field4/wire"
	"github.com/delivery-station/ds/testdata/legacy/stub"
)

func main() {
	stub.Serve(func(b *plugin.GRPCBroker, s *grpc.Server) { wire.RegisterDSPluginServer(s, &server{broker: b}) })
}

type server struct {
	wire.UnimplementedDSPluginServer
	broker *plugin.GRPCBroker
}

// GetManifest implements wire.DSPluginServer.
func (*server) GetManifest(context.Context, *wire.GetManifestRequest) (*wire.GetManifestResponse, error) {
	m := &wire.GetManifestResponse{Name: stub.Name, Version: stub.Version, Description: "a stub"}
	for name, text := range stub.Commands {
		m.Commands = append(m.Commands, &wire.PluginCommand{Name: name, Description: text})
	}
	return m, nil
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
	for _, f := range r.Finalizers {
		out.Finalizers = append(out.Finalizers, &wire.FinalizerRequest{Name: f.Name, Operation: f.Operation, Args: f.Args})
	}
	return out, nil
}
