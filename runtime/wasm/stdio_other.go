//go:build !unix

package wasm

import (
	"errors"
	"os"
	"syscall"
)

// ready reports whether reads and writes of f never wait for anyone.
func ready(f *os.File) bool {
	fi, err := f.Stat()
	return err != nil || fi.Mode().IsRegular() || fi.IsDir()
}

// duplicate is f: a failed write to a standard stream ends nothing here.
func duplicate(f *os.File) *os.File { return f }

// errorNoData is ERROR_NO_DATA of Windows: the pipe is being closed.
const errorNoData = syscall.Errno(232)

func brokenPipe(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.Errno(109)) || errors.Is(err, errorNoData)
}
