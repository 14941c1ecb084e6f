//go:build unix

package wasm

import (
	"os"

	"golang.org/x/sys/unix"
)

// nonblock keeps an open from waiting for the other end of a pipe that took the place of a file.
const nonblock = unix.O_NONBLOCK

// pwrite is pwrite(2): Go refuses WriteAt on files opened for appending.
func pwrite(f *os.File, b []byte, off int64) (int, error) {
	c, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	total := 0
	cerr := c.Control(func(fd uintptr) {
		for total < len(b) {
			var n int
			if n, err = unix.Pwrite(int(fd), b[total:], off+int64(total)); err == unix.EINTR { //nolint:errorlint // a bare errno
				err = nil
				continue
			}
			if err != nil {
				return
			}
			total += n
		}
	})
	if err == nil {
		err = cerr
	}
	return total, err
}

// renameBetween renames a name in one open directory to a name in another, for which os.Root has no call.
func renameBetween(_ *os.Root, _, _ string, from, to place) error {
	a, err := from.dir.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = a.Close() }() // read only
	b, err := to.dir.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }() // read only
	return unix.Renameat(int(a.Fd()), from.name, int(b.Fd()), to.name)
}
