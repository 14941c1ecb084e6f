//go:build !unix

package wasm

import "os"

const nonblock = 0

func pwrite(f *os.File, b []byte, off int64) (int, error) { return f.WriteAt(b, off) }

// renameBetween renames within the root: no system call here takes two open directories.
func renameBetween(root *os.Root, from, to string, _, _ place) error { return root.Rename(from, to) }
