//go:build unix

package state

import (
	"io/fs"
	"syscall"
)

// inodeOf tells one version of a file from the next: every write is a new inode.
func inodeOf(info fs.FileInfo) any {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return [2]uint64{uint64(st.Dev), st.Ino} //nolint:unconvert // the type of Dev differs between systems
	}
	return nil
}
