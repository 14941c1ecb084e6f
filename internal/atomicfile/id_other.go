//go:build !linux && !darwin

package atomicfile

import "io/fs"

// IDOf is the ID in the result of a stat; false where the system has it from open files only.
func IDOf(fs.FileInfo) (ID, bool) { return ID{}, false }
