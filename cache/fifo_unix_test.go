//go:build unix

package cache_test

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/delivery-station/ds/cache"
)

// What is no regular file is a miss, and reading it does not hang.
func TestBlobThatIsNoFile(t *testing.T) {
	for name, put := range map[string]func(string) error{
		"fifo":      func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
		"link":      func(p string) error { return os.Symlink("/dev/zero", p) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newStore(t, cache.Options{})
			d := h.simple("x")
			h.must(errors.Join(os.Remove(h.blob(d)), put(h.blob(d))))
			h.lacks(d)
			_, err := h.s.Stat(t.Context(), d)
			h.want(err, "NOT_CACHED")
			h.put(h.s, []byte("x"), true, 0)
			h.has(d, []byte("x"))
		})
	}
}
