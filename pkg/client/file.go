package client

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/delivery-station/ds/hostabi"
)

// FileError says in the user's words what the file system refused at name, the same on every system and for both kinds of
// plugin: DS1001, exit 2. Errors of ds pass.
func FileError(name string, err error) error {
	if hostabi.ReasonOf(err) != "" {
		return err
	}
	var text string
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.EBADF): // the latter of a module whose sandbox shows no such file
		text = "no such file or directory"
	case errors.Is(err, fs.ErrPermission):
		text = "permission denied"
	case errors.Is(err, fs.ErrExist):
		text = "a file is in the way"
	case errors.Is(err, syscall.EROFS): // the sandbox says so of a directory outside of what it opens
		text = "read-only here, or its parent directory does not exist"
	default:
		cause := err
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			cause = e.Err
		} else if e, ok := errors.AsType[*os.LinkError](err); ok {
			cause = e.Err
		}
		text = strings.ToLower(cause.Error())
	}
	return Usagef("%s: %s", name, text)
}
