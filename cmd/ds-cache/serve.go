//go:build !goplugin

package main

import "github.com/delivery-station/ds/pkg/client"

func main() { client.Main(app()) }
