package atomicfile

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// OS is the real file system. Goroutines that lock the same name wait for each other without polling if
// they share the value; without sharing it they still exclude each other.
func OS() FS { return &osFS{bootID: sync.OnceValue(bootID)} }

type osFS struct {
	locks  mutexes
	bootID func() string
}

type osFile struct{ *os.File }

func (f osFile) OS() *os.File { return f.File }

func (*osFS) Open(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := openFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (*osFS) Mkdir(name string, perm fs.FileMode) error { return os.Mkdir(name, perm) }

func (*osFS) Rename(from, to string) error { return rename(from, to) }

func (*osFS) Remove(name string) error { return remove(name) }

func (*osFS) Lstat(name string) (fs.FileInfo, error) { return os.Lstat(name) }

func (*osFS) ReadDir(name string) ([]string, error) {
	d, err := openFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	return names, errors.Join(err, d.Close())
}

func (*osFS) Chtimes(name string, mtime time.Time) error { return chtimes(name, mtime) }

func (*osFS) SyncDir(name string) error { return syncDir(name) }

func (o *osFS) Lock(ctx context.Context, name string) (func() error, error) {
	name = filepath.Clean(name)
	release, err := o.locks.lock(ctx, name)
	if err != nil {
		return nil, err
	}
	unlock, err := lockFile(ctx, name)
	if err != nil {
		release()
		return nil, err
	}
	return func() error {
		defer release()
		return unlock()
	}, nil
}

func (o *osFS) BootID() string { return o.bootID() }

// ID tells one state of one file from all others: a write, a chmod or a replacement changes it. Times are
// unix ns.
type ID struct{ Ino, Size, Mtime, Ctime int64 }

// FileID is the ID of an open file.
func FileID(f File) (ID, error) {
	fi, err := f.Stat()
	if err != nil {
		return ID{}, err
	}
	if id, ok := IDOf(fi); ok {
		return id, nil
	}
	return handleID(f, fi)
}
