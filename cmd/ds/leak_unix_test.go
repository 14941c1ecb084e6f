//go:build unix

package main

import (
	"syscall"
	"testing"
)

// started changes with every process that this one has started and waited for.
func started(t *testing.T) int64 {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u); err != nil {
		t.Fatal(err)
	}
	return u.Minflt
}
