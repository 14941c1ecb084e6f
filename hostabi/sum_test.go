package hostabi

import (
	"bytes"
	"crypto/sha256"
	"testing"
)

func TestSmallSum256(t *testing.T) {
	for n := range 300 {
		b := bytes.Repeat([]byte{byte(n)}, n)
		if got, want := smallSum256(b), sha256.Sum256(b); got != want {
			t.Errorf("%d bytes: %x, want %x", n, got, want)
		}
	}
}

func FuzzSmallSum256(f *testing.F) {
	f.Add([]byte("abc"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, want := smallSum256(b), sha256.Sum256(b); got != want {
			t.Errorf("%x, want %x", got, want)
		}
	})
}
