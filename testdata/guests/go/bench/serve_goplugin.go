//go:build goplugin

package main

import "github.com/delivery-station/ds/pkg/client/goplugin"

func main() { goplugin.Main(app()) }
