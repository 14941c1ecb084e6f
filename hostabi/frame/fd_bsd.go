//go:build unix && !linux

package frame

import "syscall"

// recvmsg receives bytes and descriptors. There is no flag that closes them on exec at once, and holding
// syscall.ForkLock over a read would stop every fork meanwhile.
func recvmsg(fd int, p, oob []byte) (n, oobn int, err error) {
	n, oobn, _, _, err = syscall.Recvmsg(fd, p, oob, 0)
	if err != nil || oobn == 0 {
		return n, oobn, err
	}
	msgs, _ := syscall.ParseSocketControlMessage(oob[:oobn])
	for i := range msgs {
		fds, _ := syscall.ParseUnixRights(&msgs[i])
		for _, fd := range fds {
			syscall.CloseOnExec(fd)
		}
	}
	return n, oobn, err
}

// readableSoon does not wait: there is no such system call here without a C library.
func readableSoon(uintptr) bool { return false }
