package install

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/archive"
)

// BenchmarkUnpack is what install does with a compressed program that the cache holds: decode under the limits of a
// package, hash, write. DS_BENCH_TMP says where dsbench put it.
func BenchmarkUnpack(b *testing.B) {
	big := filepath.Join(os.Getenv("DS_BENCH_TMP"), "big")
	sum, err := os.ReadFile(big + ".sum")
	if err != nil {
		b.Skip("dsbench makes what is unpacked")
	}
	want := hostabi.Digest("sha256:" + string(sum))
	out := filepath.Join(b.TempDir(), "out")
	for b.Loop() {
		if err := unpackOnce(big+".zst", out, want); err != nil {
			b.Fatal(err)
		}
		if err := os.Remove(out); err != nil {
			b.Fatal(err)
		}
	}
}

func unpackOnce(in, out string, want hostabi.Digest) error {
	file, err := os.Open(in)
	if err != nil {
		return err
	}
	z, err := archive.ZstdReader(file, 0)
	if err != nil {
		return err
	}
	r := both{z, file}
	defer func() { _ = r.Close() }() // read only
	w, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	got, size, err := copyHashed(w, r)
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err == nil && got != want {
		err = invalid("%d bytes of %s, want %s", size, got, want)
	}
	return err
}
