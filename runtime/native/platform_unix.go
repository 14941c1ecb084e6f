//go:build unix

package native

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// inheritsFiles: descriptors beyond 0, 1 and 2 can be given to a child.
const inheritsFiles = true

const (
	errTextBusy  = syscall.ETXTBSY
	errNoProcess = syscall.ESRCH
)

// socketpair makes a stream socket pair. Our end is non-blocking, so that closing it ends a waiting read; the
// guest's end blocks, as programs expect of an inherited descriptor.
func socketpair() (host, guest *os.File, err error) {
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, err
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		_, _ = unix.Close(fds[0]), unix.Close(fds[1])
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "host calls"), os.NewFile(uintptr(fds[1]), "DS_HOST_FD"), nil
}

// stamp identifies a file and its content; ctime cannot be set back by its owner.
type stamp struct {
	dev, ino           uint64
	size, mtime, ctime int64
}

func stampOf(f *os.File) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return stamp{}, os.NewSyscallError("fstat", err)
	}
	return newStamp(&st), nil
}

func stampAt(path string) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return stamp{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return newStamp(&st), nil
}

func newStamp(st *unix.Stat_t) stamp {
	//nolint:unconvert // the widths differ between systems
	return stamp{uint64(st.Dev), uint64(st.Ino), int64(st.Size), st.Mtim.Nano(), st.Ctim.Nano()}
}

// uid is the user that owns what we make.
func uid() int { return os.Getuid() }

// ownedPrivate reports whether info is a directory of ours that nobody else can enter.
func ownedPrivate(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.IsDir() && int(st.Uid) == uid() && info.Mode().Perm()&0o077 == 0
}

// lockDir takes an exclusive lock on a directory without waiting; it lasts until the file is closed.
func lockDir(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
