package native

import (
	"os"
	"syscall"
)

// inheritsFiles: a child gets its three standard handles only, so a plugin has no host calls in mode direct.
const inheritsFiles = false

// errTextBusy is ERROR_SHARING_VIOLATION.
const (
	errTextBusy  = syscall.Errno(32)
	errNoProcess = syscall.ESRCH
)

func socketpair() (host, guest *os.File, err error) { return nil, nil, syscall.EWINDOWS }

// stamp identifies a file and its content.
type stamp struct{ size, mtime int64 }

func stampOf(f *os.File) (stamp, error) { return newStamp(f.Stat()) }

func stampAt(path string) (stamp, error) { return newStamp(os.Stat(path)) }

func newStamp(info os.FileInfo, err error) (stamp, error) {
	if err != nil {
		return stamp{}, err
	}
	return stamp{info.Size(), info.ModTime().UnixNano()}, nil
}

func uid() int { return 0 }

func ownedPrivate(info os.FileInfo) bool { return info.IsDir() }

func lockDir(path string) (*os.File, error) { return os.Open(path) }

// terminate ends the process: there is no polite way for one without a console of its own.
func (p *process) terminate() error { return p.proc.Kill() }

// forwards: the console delivers Ctrl-C to every process attached to it.
func forwards(syscall.Signal) bool { return false }

func exitStatus(s *os.ProcessState) (code, signal int) {
	if s == nil {
		return 255, 0
	}
	return int(uint32(s.ExitCode()) & 0xff), 0
}
