// Command kitgoplugin is the kit's guest as a stock go-plugin server: host calls are gRPC over the broker.
package main

import (
	"context"
	"fmt"

	"github.com/delivery-station/ds/hostabi/hosttest/cases"
	"github.com/delivery-station/ds/pkg/client"
	"github.com/delivery-station/ds/pkg/client/goplugin"
)

func main() {
	goplugin.Main(client.App{Name: "kit", Version: "1.2.3", Summary: "Run a case of the conformance kit", Commands: []client.Command{
		{Name: "case", Summary: "run one case and print its result", Args: []client.Arg{{Name: "name", Required: true}}, Run: run},
	}})
}

func run(ctx context.Context, in *client.Invocation) error {
	s, err := in.Session()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(in.Stdout, cases.Run(ctx, s, in.Args[0]))
	return err
}
