//go:build !unix && !wasip1

package client

import (
	"io"
	"os"
)

// hostFile is DS_HOST_FD, on Windows an inherited pipe handle.
func hostFile(fd uintptr) (*os.File, error) { return os.NewFile(fd, "DS_HOST_FD"), nil }

// closeOnExec finds the handle in a variable; it is not inherited further.
func closeOnExec(variable string) *uintptr { return descriptorOf(variable) }

// waitEOF blocks until the pipe ends.
func waitEOF(fd uintptr) {
	_, _ = io.Copy(io.Discard, os.NewFile(fd, "DS_CTL_FD"))
}
