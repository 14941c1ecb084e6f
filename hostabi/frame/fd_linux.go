package frame

import (
	"syscall"
	"unsafe"
)

// recvmsg receives bytes and descriptors, which are closed on exec.
func recvmsg(fd int, p, oob []byte) (n, oobn int, err error) {
	n, oobn, _, _, err = syscall.Recvmsg(fd, p, oob, syscall.MSG_CMSG_CLOEXEC)
	return n, oobn, err
}

// moment is how long readableSoon waits at most: longer than an answer takes that needs no disk and no network, and so
// short that nobody misses the thread.
const moment = 200_000 // ns

// readableSoon waits until fd can be read, for a moment.
func readableSoon(fd uintptr) bool {
	p := struct {
		fd              int32
		events, revents int16
	}{int32(fd), 1, 0} // struct pollfd, POLLIN
	t := syscall.Timespec{Nsec: moment}
	n, _, _ := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&t)), 0, 0, 0) //nolint:gosec // the kernel takes addresses
	return n == 1
}
