//go:build unix

package host

import (
	"os"
	"syscall"
)

// openOwn opens a file that a plugin could have replaced: no link is followed, nothing is waited for, and it
// must be a regular file of our own user.
func openOwn(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, notRegular(path)
	}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() {
		if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) == os.Getuid() {
			return f, nil
		}
	}
	_ = f.Close() // read-only
	return nil, notRegular(path)
}
