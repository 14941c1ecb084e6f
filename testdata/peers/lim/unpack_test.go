package main

import (
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkUnpack unpacks what lim pack made; DS_BENCH_TMP says where.
func BenchmarkUnpack(b *testing.B) {
	big := filepath.Join(os.Getenv("DS_BENCH_TMP"), "big")
	sum, err := os.ReadFile(big + ".sum")
	if err != nil {
		b.Skip("dsbench makes what is unpacked")
	}
	out := filepath.Join(b.TempDir(), "out")
	for b.Loop() {
		if err := unpack(big+".zst", string(sum), out); err != nil {
			b.Fatal(err)
		}
		if err := os.Remove(out); err != nil {
			b.Fatal(err)
		}
	}
}
