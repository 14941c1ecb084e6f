//go:build !unix

package state

import "io/fs"

// inodeOf has no inode to offer here; size and time of change decide alone.
func inodeOf(fs.FileInfo) any { return nil }
