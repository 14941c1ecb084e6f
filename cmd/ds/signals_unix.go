//go:build unix

package main

import (
	"os"
	"syscall"
)

var caughtSignals = []os.Signal{
	os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2,
}

// signalText names a signal worth a line; INT, TERM, HUP and PIPE are everyday ends.
func signalText(n int) string {
	switch s := syscall.Signal(n); s {
	case 0, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE:
		return ""
	case syscall.SIGKILL:
		return "SIGKILL (out of memory?)"
	case syscall.SIGSEGV:
		return "SIGSEGV"
	case syscall.SIGABRT:
		return "SIGABRT"
	case syscall.SIGQUIT:
		return "SIGQUIT"
	default:
		return s.String()
	}
}
