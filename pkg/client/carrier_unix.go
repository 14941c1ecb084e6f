//go:build unix

package client

import (
	"os"
	"syscall"
)

// hostFile is DS_HOST_FD. It does not block threads, is closed in programs that the plugin starts, and Close
// ends its reads.
func hostFile(fd uintptr) (*os.File, error) {
	syscall.CloseOnExec(int(fd))
	if err := syscall.SetNonblock(int(fd), true); err != nil {
		return nil, err
	}
	return os.NewFile(fd, "DS_HOST_FD"), nil
}

// closeOnExec keeps the descriptor in a variable from programs that the plugin starts.
func closeOnExec(variable string) *uintptr {
	fd := descriptorOf(variable)
	if fd != nil {
		syscall.CloseOnExec(int(*fd))
	}
	return fd
}

// waitEOF blocks a thread until fd ends.
func waitEOF(fd uintptr) {
	var b [16]byte
	for {
		n, err := syscall.Read(int(fd), b[:])
		if err != syscall.EINTR && n <= 0 {
			return
		}
	}
}
