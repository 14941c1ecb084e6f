package main

import (
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkSpawn is from spawn to exit of gpplugin in one warm host, with one call. DS_BENCH_PEERS is the directory
// of the contenders; dsbench sets it.
func BenchmarkSpawn(b *testing.B) {
	peers := os.Getenv("DS_BENCH_PEERS")
	if peers == "" {
		b.Skip("run by dsbench: DS_BENCH_PEERS is not set")
	}
	for name, mtls := range map[string]bool{"plain": false, "automtls": true} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				text, err := run(b.Context(), filepath.Join(peers, "gpplugin"), 0, 64, mtls)
				if err != nil || text != "hello\n" {
					b.Fatal(text, err)
				}
			}
		})
	}
}
