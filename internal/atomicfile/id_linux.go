package atomicfile

import (
	"io/fs"
	"syscall"
)

// IDOf is the ID in the result of a stat; false where the system has it from open files only.
func IDOf(fi fs.FileInfo) (ID, bool) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return ID{}, false
	}
	return ID{Ino: int64(st.Ino), Size: fi.Size(), Mtime: fi.ModTime().UnixNano(), Ctime: st.Ctim.Nano()}, true // bits matter, not the sign
}
