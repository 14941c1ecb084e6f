package frame

import "syscall"

// recvmsg receives bytes and descriptors, which are closed on exec.
func recvmsg(fd int, p, oob []byte) (n, oobn int, err error) {
	n, oobn, _, _, err = syscall.Recvmsg(fd, p, oob, syscall.MSG_CMSG_CLOEXEC)
	return n, oobn, err
}
