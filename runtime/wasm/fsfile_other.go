//go:build !unix

package wasm

import "os"

const nonblock = 0

func pwrite(f *os.File, b []byte, off int64) (int, error) { return f.WriteAt(b, off) }
