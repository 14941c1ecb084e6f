// Command gphost is a stock go-plugin host: it starts the plugin that it is given, has it make its calls over
// the broker and prints what it answers.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"

	"github.com/delivery-station/ds/testdata/peers/stock"
)

func main() {
	calls := flag.Int("calls", 0, "calls to measure, 0 = one and not measured")
	size := flag.Int("size", 64, "bytes of the reply")
	mtls := flag.Bool("automtls", false, "certificates for one run")
	flag.Parse()
	text, err := run(context.Background(), flag.Arg(0), *calls, *size, *mtls)
	if err == nil {
		_, err = fmt.Print(text)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gphost:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, path string, calls, size int, mtls bool) (string, error) {
	c := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig: stock.Handshake, Plugins: plugin.PluginSet{"peer": &stock.Plugin{Config: stock.Value(size)}},
		Cmd: exec.Command(path), AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC}, Logger: hclog.NewNullLogger(), AutoMTLS: mtls,
	})
	defer c.Kill()
	conn, err := c.Client()
	if err != nil {
		return "", err
	}
	raw, err := conn.Dispense("peer")
	if err != nil {
		return "", err
	}
	return raw.(*stock.Client).Run(ctx, calls)
}
