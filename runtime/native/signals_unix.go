//go:build unix

package native

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// terminate asks the process to end. The error is not nil if it has ended already.
func (p *process) terminate() error { return p.proc.Signal(syscall.SIGTERM) }

// forwards reports whether a signal that ds got is passed on. INT and QUIT from the keyboard have reached the
// plugin too, which is in our process group; only those sent to ds alone are forwarded.
func forwards(s syscall.Signal) bool {
	switch s {
	case syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2:
		return true
	case syscall.SIGINT, syscall.SIGQUIT:
		return !foreground()
	}
	return false
}

// foreground reports whether our process group is the one that the controlling terminal talks to.
func foreground() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return false // no terminal
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// exitStatus is the code that a shell would show, and the signal if one ended the process.
func exitStatus(s *os.ProcessState) (code, signal int) {
	if s == nil {
		return 255, 0 // it was waited for by somebody else
	}
	if ws, ok := s.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		n := int(ws.Signal())
		return 128 + n, n
	}
	return s.ExitCode(), 0
}
