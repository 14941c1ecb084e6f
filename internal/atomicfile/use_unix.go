//go:build unix

package atomicfile

import (
	"os"

	"golang.org/x/sys/unix"
)

// share takes a shared lock without waiting.
func share(f *os.File) error {
	c, err := f.SyscallConn() // unlike Fd it leaves the mode of the descriptor alone
	if err != nil {
		return err
	}
	var lerr error
	if err := c.Control(func(fd uintptr) {
		lerr = again(func() error { return unix.Flock(int(fd), unix.LOCK_SH|unix.LOCK_NB) })
	}); err != nil {
		return err
	}
	return lerr
}
