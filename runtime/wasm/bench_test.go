package wasm

import (
	"testing"

	"github.com/delivery-station/ds/plugin"
)

// BenchmarkCall is one host call of a guest, H1a of the performance contract: what the carrier costs.
func BenchmarkCall(b *testing.B) {
	b.Run("carrier=imports/size=64", func(b *testing.B) {
		p := installed(b, probeWASM)
		if err := (&runOf{}).run(b.Context(), b, p, "bench", "/echo", "1"); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		b.ResetTimer()
		if err := (&runOf{}).run(b.Context(), b, p, "bench", "/echo", itoa(b.N)); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkStart is a run of the hello guest in C: with the engine there, with the entry on disk (S7 without
// the process), and with nothing.
func BenchmarkStart(b *testing.B) {
	p := installed(b, helloWASM)
	run := func(b *testing.B, on *Backend) {
		if err := (&runOf{b: on, inv: plugin.Invocation{}}).run(b.Context(), b, p); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("state=live", func(b *testing.B) {
		run(b, shared())
		b.ReportAllocs()
		for b.Loop() {
			run(b, shared())
		}
	})
	dir := b.TempDir()
	b.Run("state=warm", func(b *testing.B) {
		run(b, New(Options{CacheDir: dir}))
		b.ReportAllocs()
		for b.Loop() {
			be := New(Options{CacheDir: dir})
			run(b, be)
			_ = be.Close()
		}
	})
	b.Run("state=cold", func(b *testing.B) {
		for b.Loop() {
			be := New(Options{})
			run(b, be)
			_ = be.Close()
		}
	})
}
