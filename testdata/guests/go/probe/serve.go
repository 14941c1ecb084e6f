//go:build !goplugin

package main

import (
	"os"

	"github.com/delivery-station/ds/pkg/client"
)

func main() {
	// What must reach a plugin untouched is not for the SDK's parser.
	if len(os.Args) > 1 {
		if f, ok := raw[os.Args[1]]; ok {
			os.Exit(f(os.Args[2:]))
		}
	}
	client.Main(app())
}
