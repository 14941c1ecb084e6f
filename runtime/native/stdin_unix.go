//go:build unix

package native

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// fileSource reads a file that may be a terminal: it polls for input and for the end of the run, so that no
// Read is left behind and not a byte is taken that the plugin does not get.
type fileSource struct {
	in         *os.File
	wake, hold *os.File
}

func openFileSource(f *os.File) source {
	r, w, err := os.Pipe()
	if err != nil {
		return nil
	}
	return &fileSource{in: f, wake: r, hold: w}
}

func (s *fileSource) Read(p []byte) (int, error) {
	fds := []unix.PollFd{
		{Fd: int32(s.in.Fd()), Events: unix.POLLIN},
		{Fd: int32(s.wake.Fd()), Events: unix.POLLIN},
	}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, os.NewSyscallError("poll", err)
		case fds[1].Revents != 0:
			return 0, io.EOF
		}
		return s.in.Read(p)
	}
}

func (s *fileSource) interrupt() { _, _ = s.hold.Write([]byte{0}) }

func (s *fileSource) close() { _, _ = s.wake.Close(), s.hold.Close() }
