//go:build !unix

package main

import (
	"os"
	"syscall"
)

var caughtSignals = []os.Signal{os.Interrupt, syscall.SIGTERM}

// signalText is empty: programs here do not die by signals.
func signalText(int) string { return "" }
