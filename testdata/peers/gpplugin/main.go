// Command gpplugin is a stock go-plugin plugin that makes one brokered call, or as many as gphost asks for.
package main

import (
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"

	"github.com/delivery-station/ds/testdata/peers/stock"
)

func main() {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: stock.Handshake, Plugins: plugin.PluginSet{"peer": &stock.Plugin{}},
		GRPCServer: plugin.DefaultGRPCServer, Logger: hclog.NewNullLogger(),
	})
}
