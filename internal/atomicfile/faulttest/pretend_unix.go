//go:build unix

package faulttest

import (
	"io/fs"
	"syscall"
)

// pretend changes the answer of a stat in place, so that os.SameFile works on: inode and times are those of was.
func pretend(fi, was fs.FileInfo) {
	now, ok := fi.Sys().(*syscall.Stat_t)
	old, wasOK := was.Sys().(*syscall.Stat_t)
	if !ok || !wasOK {
		return
	}
	mode, size, blocks := now.Mode, now.Size, now.Blocks
	*now = *old
	now.Mode, now.Size, now.Blocks = mode, size, blocks
}
