package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrTooLarge says that a file is longer than the caller's limit.
var ErrTooLarge = errors.New("file is too large")

// ReadFile is the content of name, at most limit bytes, otherwise the error is ErrTooLarge.
func ReadFile(f FS, name string, limit int64) ([]byte, error) {
	r, err := f.Open(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // read only
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: %w: over %d bytes", name, ErrTooLarge, limit)
	}
	return b, nil
}

// ReadHead reads the start of name into b and tells how many bytes there were. On the real file system it makes no
// File, which costs as much as the reading.
func ReadHead(f FS, name string, b []byte) (int, error) {
	if _, ok := f.(*osFS); ok {
		return readHead(name, b)
	}
	return headByFile(f, name, b)
}

func headByFile(f FS, name string, b []byte) (int, error) {
	r, err := f.Open(name, os.O_RDONLY, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = r.Close() }() // read only
	n, err := r.ReadAt(b, 0)
	if err == io.EOF {
		err = nil
	}
	return n, err
}

// MkdirAll makes dir and its missing parents. It is no error if dir exists, or if others make it meanwhile.
func MkdirAll(f FS, dir string, perm fs.FileMode) error {
	err := f.Mkdir(dir, perm)
	if err == nil {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		parent := filepath.Dir(dir)
		if parent == dir {
			return err
		}
		if err := MkdirAll(f, parent, perm); err != nil {
			return err
		}
		if err = f.Mkdir(dir, perm); err == nil {
			return nil
		}
	}
	// A parent may be a link, a root may be read-only: what counts is that a directory is there.
	if fi, serr := os.Stat(dir); serr == nil && fi.IsDir() {
		return nil
	}
	return err
}

// RemoveAll removes name and, if it is a directory, all below it; links are removed, not followed. It is no
// error if name does not exist. Only for trees that no stranger can write to: it works by path.
func RemoveAll(f FS, name string) error {
	fi, err := f.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.IsDir() {
		names, err := f.ReadDir(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, n := range names {
			if err := RemoveAll(f, filepath.Join(name, n)); err != nil {
				return err
			}
		}
	}
	if err := f.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
