//go:build !unix

package host

import "os"

// openOwn opens a file that a plugin could have replaced; it must be a regular file and no link.
func openOwn(path string) (*os.File, error) {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return nil, notRegular(path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, notRegular(path)
	}
	if opened, err := f.Stat(); err != nil || !os.SameFile(info, opened) {
		_ = f.Close() // read-only
		return nil, notRegular(path)
	}
	return f, nil
}
