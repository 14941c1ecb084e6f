//go:build goplugin

package main

import "github.com/delivery-station/ds/pkg/client/goplugin"

// main serves cache as a stock go-plugin server, launch mode goplugin (docs: run.native.mode).
func main() { goplugin.Main(app()) }
