package cache

import (
	"path/filepath"

	"golang.org/x/sys/unix"
)

// isNetwork reports whether dir is on a file system whose locks, times and renames cannot be relied on. The
// numbers are those of statfs(2).
func isNetwork(dir string) bool {
	var st unix.Statfs_t
	for unix.Statfs(dir, &st) != nil {
		parent := filepath.Dir(dir)
		if parent == dir {
			return false
		}
		dir = parent // not there yet
	}
	switch uint32(st.Type) { // magic numbers are 32 bits
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.V9FS_MAGIC, unix.CEPH_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC:
		return true
	}
	return false
}
