//go:build unix

package wasm

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// socketpair is two connected sockets, which cannot be opened anew.
func socketpair(t *testing.T) (a, b *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, b = os.NewFile(uintptr(fds[0]), "a"), os.NewFile(uintptr(fds[1]), "b")
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

func mkfifo(name string) error { return unix.Mkfifo(name, 0o600) }
