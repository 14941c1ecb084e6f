//go:build !unix

package host

import "os"

// openOwn opens a file that a plugin could have replaced; it is a regular one.
func openOwn(root *os.Root, name string) (*os.File, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, notRegular(name)
	}
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		return f, nil
	}
	_ = f.Close() // read-only
	return nil, notRegular(name)
}
