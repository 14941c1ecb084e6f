//go:build !unix

package goplugin

import (
	"io"
	"os"
)

// realStreams is for Unix: elsewhere output comes in messages.
func realStreams(string) (bool, error) { return false, nil }

func closeOnExec(uintptr) {}

// waitEOF blocks until the pipe ends.
func waitEOF(fd uintptr) {
	_, _ = io.Copy(io.Discard, os.NewFile(fd, "DS_CTL_FD"))
}
