package native

import (
	"errors"
	"io/fs"
	"os"

	"github.com/delivery-station/ds/hostabi"
)

// startError says why the system refused to start the program (native.md section 13).
func (r *run) startError(err error) error {
	path := r.p.Program.Path
	if e, ok := errors.AsType[*confineError](err); ok {
		return r.fail(hostabi.ReasonSandboxRequired, "the kernel refuses to confine it: %w", e.error)
	}
	switch {
	case errors.Is(err, errTextBusy):
		return r.fail(hostabi.ReasonStartFailed, "%s is being written", path)
	case errors.Is(err, fs.ErrNotExist):
		return r.missing(err)
	case errors.Is(err, fs.ErrPermission):
		return r.forbidden(err)
	}
	var pe *fs.PathError // the system's words, without the path by which we happened to start it
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return r.fail(hostabi.ReasonStartFailed, "%s: %w", path, err)
}

// missing finds out what was not there: the working directory, the program, its interpreter or its loader.
func (r *run) missing(cause error) error {
	if r.inv.Dir != "" && absent(r.inv.Dir) {
		return r.fail(hostabi.ReasonStartFailed, "working directory %s is not here", r.inv.Dir)
	}
	if r.image.script && r.image.interp != "" && absent(r.image.interp) {
		return r.fail(hostabi.ReasonStartFailed, "needs %s, which is not here", r.image.interp)
	}
	if loader := r.image.loader(); loader != "" && absent(loader) {
		return r.fail(hostabi.ReasonStartFailed, "needs %s, which is not here", loader)
	}
	if absent(r.p.Program.Path) {
		return r.modified("its program was removed")
	}
	return r.fail(hostabi.ReasonStartFailed, "%s: %w", r.p.Program.Path, cause)
}

// forbidden finds out what EACCES was about.
func (r *run) forbidden(cause error) error {
	path := r.p.Program.Path
	info, err := r.p.Program.File.Stat()
	switch {
	case err == nil && info.Mode()&0o111 == 0:
		return r.fail(hostabi.ReasonStartFailed, "%s is not executable (mode %04o)", path, info.Mode().Perm()).
			WithFix("chmod +x %s", path)
	case noexec(r.p.Program.File):
		return r.fail(hostabi.ReasonStartFailed, "%s is on a noexec mount", path)
	}
	return r.fail(hostabi.ReasonStartFailed, "%s: %w", path, cause)
}

func absent(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}
