//go:build unix

package goplugin

import (
	"fmt"
	"syscall"
)

// realStreams puts the descriptors "in,out,err" of ds's own streams in the place of 0, 1 and 2; it reports
// false when there are none. Descriptor 1 was the pipe of the handshake, which is over.
func realStreams(fds string) (bool, error) {
	if fds == "" {
		return false, nil
	}
	var from [3]int
	if _, err := fmt.Sscanf(fds, "%d,%d,%d", &from[0], &from[1], &from[2]); err != nil {
		return false, fmt.Errorf("DS_STDIO_FDS %q: %w", fds, err)
	}
	for to, fd := range from {
		if err := dup(fd, to); err != nil {
			return false, fmt.Errorf("DS_STDIO_FDS %q: %w", fds, err)
		}
	}
	for _, fd := range from {
		if fd > 2 {
			_ = syscall.Close(fd)
		}
	}
	return true, nil
}

func closeOnExec(fd uintptr) { syscall.CloseOnExec(int(fd)) }

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
