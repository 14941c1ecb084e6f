//go:build unix

package wasm

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ready reports whether reads and writes of f never wait for anyone: regular files, directories and the
// null device.
func ready(f *os.File) bool {
	fi, err := f.Stat()
	if err != nil {
		return true // every use fails at once
	}
	switch fi.Mode().Type() {
	case 0, os.ModeDir:
		return true
	case os.ModeDevice | os.ModeCharDevice:
		null, err := os.Stat(os.DevNull)
		return err == nil && null.Sys().(*syscall.Stat_t).Rdev == fi.Sys().(*syscall.Stat_t).Rdev
	}
	return false
}

// duplicate is a second descriptor of f, which is not 1 or 2; f itself if there is none left.
func duplicate(f *os.File) *os.File {
	d := f
	control(f, func(fd int) {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err == nil {
			d = os.NewFile(uintptr(n), f.Name())
		}
	})
	return d
}

// control calls do with the descriptor of f without changing its mode, as Fd would.
func control(f *os.File, do func(fd int)) {
	if c, err := f.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) { do(int(fd)) }) // fails only when f is closed
	}
}

func brokenPipe(err error) bool { return errors.Is(err, syscall.EPIPE) }
