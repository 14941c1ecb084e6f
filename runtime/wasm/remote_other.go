//go:build unix && !linux

package wasm

// remote names the kind of network file system that dir is on; only Linux tells.
func remote(string) string { return "" }
