package wasm

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"
)

// errno maps err for the guest. Errors of os.Root that are no errno mean that the path leaves the mount:
// EACCES. What wazero has no number for becomes EIO, and true is returned: the user is told the cause.
func errno(err error) (n experimentalsys.Errno, lost bool) {
	if err == nil {
		return 0, false
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return experimentalsys.ENOENT, false
	case errors.Is(err, fs.ErrExist) && !errors.Is(err, syscall.ENOTEMPTY):
		return experimentalsys.EEXIST, false
	case errors.Is(err, fs.ErrClosed):
		return experimentalsys.EBADF, false
	}
	e, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return experimentalsys.EACCES, false
	}
	switch n := experimentalsys.UnwrapOSError(e); n {
	case experimentalsys.EPERM:
		return experimentalsys.EACCES, false
	case experimentalsys.EIO, experimentalsys.ENOSYS, experimentalsys.EAGAIN, experimentalsys.EINTR:
		return experimentalsys.EIO, true
	default:
		return n, false
	}
}

// fail is the errno of err; a cause that the guest cannot see is printed once for the user.
func (f *mountFS) fail(path string, err error) experimentalsys.Errno {
	n, lost := errno(err)
	if lost {
		f.files.cause(f.guest+"/"+path, reasonOf(err))
	}
	return n
}

// reasonOf is err without the host path.
func reasonOf(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		return e.Err
	}
	return err
}
