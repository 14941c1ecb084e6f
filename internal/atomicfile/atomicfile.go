// Package atomicfile writes everything that must survive a crash: files become visible by one rename, locks
// are a file lock and an in-process mutex together, and every system call goes through FS, so that tests can
// make any of them fail. It knows no format and no policy. Start with Write and Edit.
package atomicfile

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// FS is the file system as stores see it. Its ten methods are the system calls, so that a wrapper sees each
// one. Errors keep their errno (errors.Is(err, syscall.ENOSPC)). It is safe for concurrent use.
type FS interface {
	// Open opens a file; it is closed on exec and the last element of name is never followed if it is a link.
	Open(name string, flag int, perm fs.FileMode) (File, error)
	Mkdir(name string, perm fs.FileMode) error
	// Rename gives the kernel's answer: an empty directory may be replaced by a directory, a full one not.
	Rename(from, to string) error
	// Remove removes a file or an empty directory.
	Remove(name string) error
	Lstat(name string) (fs.FileInfo, error)
	// ReadDir gives the names in a directory in the order of the file system.
	ReadDir(name string) ([]string, error)
	// Chtimes sets the modification time, of a link itself if name is one.
	Chtimes(name string, mtime time.Time) error
	// SyncDir makes the names in a directory durable; no-op where the system does that itself.
	SyncDir(name string) error
	// Lock locks the file name, which it creates if needed, against other processes and goroutines and waits
	// until ctx ends; if ctx is done already it tries once. When the lock is held by another the error is
	// ErrLocked. A holder may Remove name before unlock.
	Lock(ctx context.Context, name string) (unlock func() error, err error)
	// BootID names this boot of the kernel; empty where the system has no such name.
	BootID() string
}

// File is an open file of an FS.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.WriterAt
	io.Closer
	Stat() (fs.FileInfo, error)
	Chmod(mode fs.FileMode) error
	Truncate(size int64) error
	Sync() error
	// OS is the file for handing out; nil in a simulation.
	OS() *os.File
}

// Problem is one finding of a store's Check. Fix says what repairs it, or is empty.
type Problem struct{ Path, What, Fix string }

// ErrLocked says that another process or goroutine held the lock until the context ended.
var ErrLocked = errors.New("lock is held")

// MaxFile bounds what Edit reads, in bytes.
const MaxFile = 64 << 20

// TempSuffix ends the names of temporary files: what a killed process leaves in a directory may be removed
// by whoever owns the directory.
const TempSuffix = ".tmp"

// Write replaces name by data: a temporary file in the same directory, fsync, rename, fsync of the directory.
// Readers see the old or the new content. The directory must exist; the umask may narrow perm.
func Write(f FS, name string, data []byte, perm fs.FileMode) error {
	return replace(f, tempName(name), name, data, perm)
}

// WriteLocked is Write for the holder of a lock that all writers of name take: there is one temporary file, so that
// what a killed process left of it goes with the next write.
func WriteLocked(f FS, name string, data []byte, perm fs.FileMode) error {
	dir, base := filepath.Split(name)
	tmp := filepath.Join(dir, "."+base+TempSuffix)
	err := replace(f, tmp, name, data, perm)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := f.Remove(tmp); err != nil {
		return err
	}
	return replace(f, tmp, name, data, perm)
}

// replace writes tmp and renames it to name. ErrExist: there is a tmp already.
func replace(f FS, tmp, name string, data []byte, perm fs.FileMode) error {
	if err := writeTemp(f, tmp, data, perm); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return err // not ours
		}
		_ = f.Remove(tmp) // swept later if this fails too
		return err
	}
	if err := f.Rename(tmp, name); err != nil {
		_ = f.Remove(tmp)
		return err
	}
	return f.SyncDir(filepath.Dir(name))
}

// Edit changes name under the lock name+".lock": fn gets the content, nil when there is no file, and returns
// the new one. A nil or equal result leaves the file untouched. The mode is kept, 0600 for a new file. The
// directory must exist; fn must not edit the same file.
func Edit(ctx context.Context, f FS, name string, fn func(old []byte) ([]byte, error)) (err error) {
	lock := name + ".lock"
	unlock, err := f.Lock(ctx, lock)
	if err != nil {
		return err
	}
	defer func() {
		_ = f.Remove(lock) // leaves no litter beside the user's files; impossible on Windows, harmless there
		err = errors.Join(err, unlock())
	}()
	perm := fs.FileMode(0o600)
	old, err := ReadFile(f, name, MaxFile)
	switch {
	case err == nil:
		fi, err := f.Lstat(name)
		if err != nil {
			return err
		}
		perm = fi.Mode().Perm()
	case errors.Is(err, fs.ErrNotExist):
		old = nil
	default:
		return err
	}
	data, err := fn(old)
	if err != nil || data == nil || (old != nil && bytes.Equal(old, data)) {
		return err
	}
	return WriteLocked(f, name, data, perm)
}

func writeTemp(f FS, tmp string, data []byte, perm fs.FileMode) error {
	w, err := f.Open(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		_ = w.Close()
		return err
	}
	if err := w.Sync(); err != nil {
		_ = w.Close()
		return err
	}
	return w.Close()
}

// tempName is hidden and unique, in the directory of name.
func tempName(name string) string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, crypto/rand
	dir, base := filepath.Split(name)
	return filepath.Join(dir, "."+base+"."+hex.EncodeToString(b[:])+TempSuffix)
}
