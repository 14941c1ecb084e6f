//go:build !unix && !windows

package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"time"
)

const lockFlags = os.O_CREATE | os.O_RDONLY

func openFile(name string, flag int, perm fs.FileMode) (*os.File, error) {
	return os.OpenFile(name, flag, perm)
}

func readHead(name string, b []byte) (int, error) { return headByFile(&osFS{}, name, b) }

func rename(from, to string) error { return os.Rename(from, to) }

func remove(name string) error { return os.Remove(name) }

func chtimes(name string, mtime time.Time) error { return os.Chtimes(name, time.Time{}, mtime) }

func syncDir(string) error { return nil }

// OwnerUID is the numeric owner of a file; -1 where the system has none.
func OwnerUID(fs.FileInfo) int { return -1 }

// DiskBytes is the space that a file takes on disk; here its length.
func DiskBytes(fi fs.FileInfo) int64 { return fi.Size() }

// Unsafe says why others could change what is in a directory, or is empty. Nothing is known here.
func Unsafe(fs.FileInfo) string { return "" }

// Foreign is Unsafe for a directory that the user works in and named.
func Foreign(fs.FileInfo) string { return "" }

func handleID(File, fs.FileInfo) (ID, error) { return ID{}, errors.ErrUnsupported }
