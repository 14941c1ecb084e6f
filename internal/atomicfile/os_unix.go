//go:build unix

package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const lockFlags = os.O_CREATE | os.O_RDONLY | syscall.O_NOFOLLOW

func openFile(name string, flag int, perm fs.FileMode) (*os.File, error) {
	if flag&(os.O_WRONLY|os.O_RDWR) == 0 {
		flag |= syscall.O_NONBLOCK // a FIFO in the place of a file must not hang us; files do not care
	}
	return os.OpenFile(name, flag|syscall.O_NOFOLLOW, perm)
}

// readHead is four system calls less than making an os.File that the poller refuses.
func readHead(name string, b []byte) (int, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	for err == unix.EINTR {
		fd, err = unix.Open(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: name, Err: err}
	}
	n, err := unix.Pread(fd, b, 0)
	for err == unix.EINTR {
		n, err = unix.Pread(fd, b, 0)
	}
	_ = unix.Close(fd) // read only
	if err != nil {
		return 0, &os.PathError{Op: "read", Path: name, Err: err}
	}
	return n, nil
}

// rename is the bare system call: os.Rename looks at the target first and so answers for an older moment.
func rename(from, to string) error {
	if err := again(func() error { return syscall.Rename(from, to) }); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

func remove(name string) error { return os.Remove(name) }

func chtimes(name string, mtime time.Time) error {
	t := unix.NsecToTimespec(mtime.UnixNano())
	ts := []unix.Timespec{t, t} // the access time means nothing here
	if err := again(func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, name, ts, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		return &os.PathError{Op: "chtimes", Path: name, Err: err}
	}
	return nil
}

func syncDir(name string) error {
	d, err := openFile(name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil // file systems without fsync of directories
	}
	return errors.Join(err, d.Close())
}

// OwnerUID is the numeric owner of a file; -1 where the system has none.
func OwnerUID(fi fs.FileInfo) int {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

// DiskBytes is the space that a file takes on disk.
func DiskBytes(fi fs.FileInfo) int64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return fi.Size()
}

// Unsafe says why others could change what is in a directory, or is empty: it is not ours, or its group or
// others may write.
func Unsafe(fi fs.FileInfo) string {
	if why := Foreign(fi); why != "" {
		return why
	}
	if fi.Mode().Perm()&0o020 != 0 {
		return "is writable by group or others"
	}
	return ""
}

// Foreign is Unsafe for a directory that the user works in and named: there the group is the user's choice,
// and with a umask of 002 each checkout is writable by the user's own group.
func Foreign(fi fs.FileInfo) string {
	if uid := OwnerUID(fi); uid >= 0 && uid != os.Geteuid() {
		return "belongs to another user"
	}
	if fi.Mode().Perm()&0o002 != 0 {
		return "is writable by others"
	}
	return ""
}

func handleID(File, fs.FileInfo) (ID, error) { return ID{}, errors.ErrUnsupported }

func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
