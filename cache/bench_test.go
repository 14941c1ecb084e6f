package cache_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/delivery-station/ds/cache"
	"github.com/delivery-station/ds/hostabi"
)

func benchStore(b *testing.B) *cache.Store {
	b.Helper()
	s, err := cache.Open(b.Context(), cache.Options{Dir: filepath.Join(b.TempDir(), "cache")})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}

func BenchmarkPut4KiB(b *testing.B) {
	data := content(1, 4096)
	for _, known := range []bool{false, true} {
		name := "private"
		if known {
			name = "shared"
		}
		b.Run(name, func(b *testing.B) {
			s := benchStore(b)
			b.SetBytes(4096)
			for i := 0; b.Loop(); i++ {
				binary.LittleEndian.PutUint64(data, uint64(i))
				var want hostabi.Descriptor
				if known {
					want = hostabi.Descriptor{Digest: hostabi.DigestOf(data), Size: 4096}
				}
				w, err := s.Create(b.Context(), want)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := w.Write(data); err != nil {
					b.Fatal(err)
				}
				if _, err := w.Commit(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("os.WriteFile", func(b *testing.B) {
		dir := b.TempDir()
		b.SetBytes(4096)
		for i := 0; b.Loop(); i++ {
			binary.LittleEndian.PutUint64(data, uint64(i))
			if err := os.WriteFile(filepath.Join(dir, hostabi.DigestOf(data).Hex()), data, 0o400); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkOpenHit(b *testing.B) {
	s := benchStore(b)
	data := content(1, 4096)
	if _, err := fetch(b.Context(), s, data, 4096); err != nil {
		b.Fatal(err)
	}
	d := hostabi.DigestOf(data)
	b.Run("Open", func(b *testing.B) {
		for b.Loop() {
			f, err := s.Open(b.Context(), d)
			if err != nil {
				b.Fatal(err)
			}
			_ = f.Close()
		}
	})
	v := s.View("porter", "")
	path, err := v.Path(b.Context(), d)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Path", func(b *testing.B) {
		for b.Loop() {
			if _, err := v.Path(b.Context(), d); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("open+fstat+close", func(b *testing.B) {
		for b.Loop() {
			f, err := os.Open(path)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := f.Stat(); err != nil {
				b.Fatal(err)
			}
			_ = f.Close()
		}
	})
}
