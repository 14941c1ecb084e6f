// Package faulttest tries to break what stores promise about a crash (rows R1 to R4 of the scoreboard): Fault
// makes one operation of an atomicfile.FS fail or kills the process there, Loop does that at every operation of a
// Scenario, Record and Cut rebuild what a power cut may leave, Cuts does that at many moments. It is for tests
// only. Start with Scenario and Loop.
package faulttest

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/delivery-station/ds/internal/atomicfile"
)

// Kind is what goes wrong at one operation.
type Kind string

// The kinds. The first seven answer an error, the last three end the process.
const (
	EIO        Kind = "eio"
	ENOSPC     Kind = "enospc" // sticky: the disk stays full, as long as nothing else is said
	EDQUOT     Kind = "edquot"
	EMFILE     Kind = "emfile" // what takes a descriptor
	EACCES     Kind = "eacces"
	EROFS      Kind = "erofs" // sticky: a disk with errors is remounted read-only
	Short      Kind = "short" // half of a write, then ENOSPC
	KillBefore Kind = "killbefore"
	KillAfter  Kind = "killafter"
	Torn       Kind = "torn" // half of a write, then death
)

// Kinds are all kinds.
func Kinds() []Kind {
	return []Kind{EIO, ENOSPC, EDQUOT, EMFILE, EACCES, EROFS, Short, KillBefore, KillAfter, Torn}
}

// Kills reports whether the process dies of k.
func (k Kind) Kills() bool { return k == KillBefore || k == KillAfter || k == Torn }

func (k Kind) errno() syscall.Errno {
	switch k {
	case ENOSPC, Short:
		return syscall.ENOSPC
	case EDQUOT:
		return syscall.EDQUOT
	case EMFILE:
		return syscall.EMFILE
	case EACCES:
		return syscall.EACCES
	case EROFS:
		return syscall.EROFS
	default:
		return syscall.EIO
	}
}

// Op is one operation: what it was called, on which file, and whether it changes anything.
type Op struct {
	Name, Path string
	Mutates    bool
}

func (o Op) String() string { return o.Name + " " + filepath.Base(o.Path) }

// hits reports whether k can happen to o.
func (o Op) hits(k Kind) bool {
	write := o.Name == "write"
	switch k {
	case Short, Torn:
		return write
	case EMFILE:
		return o.takesDescriptor()
	case EIO:
		return true
	case ENOSPC, EDQUOT:
		return write || o.Name == "create" || o.Name == "mkdir" || o.Name == "rename" || o.Name == "sync" || o.Name == "lock" || o.Name == "close"
	case EACCES:
		return o.Mutates && !write && o.Name != "sync" && o.Name != "close" || o.Name == "open"
	case EROFS:
		return o.Mutates && o.Name != "close"
	}
	return o.Mutates // deaths between two reads are deaths before the next change
}

func (o Op) takesDescriptor() bool {
	switch o.Name {
	case "create", "open", "readdir", "syncdir", "lock":
		return true
	}
	return false
}

// Plan says which operation goes wrong: the N-th, from 1 on; 0 = none. Sticky: and all later ones that Kind can hit.
type Plan struct {
	N      int
	Kind   Kind
	Sticky bool
}

// FaultFS is a file system in which one operation goes wrong. It counts all operations.
type FaultFS struct {
	fs    atomicfile.FS
	plan  Plan
	mu    sync.Mutex
	ops   []Op
	fired bool
}

// Fault makes the operation of p go wrong on f.
func Fault(f atomicfile.FS, p Plan) *FaultFS { return &FaultFS{fs: f, plan: p} }

// Ops lists the operations so far, in order.
func (f *FaultFS) Ops() []Op {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Op(nil), f.ops...)
}

// Fired reports whether the operation of the plan came.
func (f *FaultFS) Fired() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fired
}

// at notes an operation and answers what happens to it.
func (f *FaultFS) at(o Op) (Kind, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ops = append(f.ops, o)
	n := len(f.ops)
	if f.plan.N == 0 || n < f.plan.N || n > f.plan.N && !f.plan.Sticky || !o.hits(f.plan.Kind) {
		return "", false
	}
	f.fired = true
	return f.plan.Kind, true
}

// do runs one operation with what the plan has for it.
func (f *FaultFS) do(name, path string, mutates bool, call func() error) error {
	k, hit := f.at(Op{name, path, mutates})
	switch {
	case !hit:
		return call()
	case k == KillBefore:
		die()
	case k == KillAfter:
		_ = call() // whatever it was, it was the last
		die()
	}
	return &fs.PathError{Op: name, Path: path, Err: k.errno()}
}

// die ends the process as kill -9 does.
func die() {
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		_ = p.Kill()
	}
	select {}
}

func value[T any](f *FaultFS, name, path string, mutates bool, call func() (T, error)) (v T, err error) {
	err = f.do(name, path, mutates, func() (err error) {
		v, err = call()
		return err
	})
	return v, err
}

const writing = os.O_WRONLY | os.O_RDWR

// Open counts as create if it may change something.
func (f *FaultFS) Open(name string, flag int, perm fs.FileMode) (atomicfile.File, error) {
	op, mutates := "open", flag&(os.O_CREATE|os.O_TRUNC) != 0
	if mutates {
		op = "create"
	}
	file, err := value(f, op, name, mutates, func() (atomicfile.File, error) { return f.fs.Open(name, flag, perm) })
	if err != nil {
		return nil, err
	}
	return &faultFile{file, f, name, flag&writing != 0}, nil
}

// Mkdir is an operation.
func (f *FaultFS) Mkdir(name string, perm fs.FileMode) error {
	return f.do("mkdir", name, true, func() error { return f.fs.Mkdir(name, perm) })
}

// Rename is an operation; its path is the new one.
func (f *FaultFS) Rename(from, to string) error {
	return f.do("rename", to, true, func() error { return f.fs.Rename(from, to) })
}

// Remove is an operation.
func (f *FaultFS) Remove(name string) error {
	return f.do("remove", name, true, func() error { return f.fs.Remove(name) })
}

// Lstat is an operation that reads.
func (f *FaultFS) Lstat(name string) (fs.FileInfo, error) {
	return value(f, "lstat", name, false, func() (fs.FileInfo, error) { return f.fs.Lstat(name) })
}

// ReadDir is an operation that reads.
func (f *FaultFS) ReadDir(name string) ([]string, error) {
	return value(f, "readdir", name, false, func() ([]string, error) { return f.fs.ReadDir(name) })
}

// Chtimes is an operation.
func (f *FaultFS) Chtimes(name string, mtime time.Time) error {
	return f.do("chtimes", name, true, func() error { return f.fs.Chtimes(name, mtime) })
}

// SyncDir is an operation.
func (f *FaultFS) SyncDir(name string) error {
	return f.do("syncdir", name, true, func() error { return f.fs.SyncDir(name) })
}

// Lock is an operation; letting go never fails.
func (f *FaultFS) Lock(ctx context.Context, name string) (func() error, error) {
	return value(f, "lock", name, true, func() (func() error, error) { return f.fs.Lock(ctx, name) })
}

// BootID is no operation.
func (f *FaultFS) BootID() string { return f.fs.BootID() }

type faultFile struct {
	atomicfile.File
	fs     *FaultFS
	name   string
	writes bool
}

// write is one write, of which half may happen.
func (f *faultFile) write(p []byte, call func(p []byte) (int, error)) (int, error) {
	k, hit := f.fs.at(Op{"write", f.name, true})
	if !hit {
		return call(p)
	}
	n := 0
	switch k {
	case KillBefore:
		die()
	case KillAfter:
		_, _ = call(p) // the last one
		die()
	case Short, Torn:
		n, _ = call(p[:len(p)/2])
		if k == Torn {
			die()
		}
	}
	return n, &fs.PathError{Op: "write", Path: f.name, Err: k.errno()}
}

func (f *faultFile) Write(p []byte) (int, error) { return f.write(p, f.File.Write) }

func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	return f.write(p, func(p []byte) (int, error) { return f.File.WriteAt(p, off) })
}

func (f *faultFile) Read(p []byte) (int, error) {
	return value(f.fs, "read", f.name, false, func() (int, error) { return f.File.Read(p) })
}

func (f *faultFile) ReadAt(p []byte, off int64) (int, error) {
	return value(f.fs, "read", f.name, false, func() (int, error) { return f.File.ReadAt(p, off) })
}

func (f *faultFile) Stat() (fs.FileInfo, error) {
	return value(f.fs, "stat", f.name, false, f.File.Stat)
}

func (f *faultFile) Chmod(mode fs.FileMode) error {
	return f.fs.do("chmod", f.name, true, func() error { return f.File.Chmod(mode) })
}

func (f *faultFile) Truncate(size int64) error {
	return f.fs.do("truncate", f.name, true, func() error { return f.File.Truncate(size) })
}

func (f *faultFile) Sync() error { return f.fs.do("sync", f.name, true, f.File.Sync) }

// Close always closes; for a file that was open for writing it may fail then.
func (f *faultFile) Close() error {
	if !f.writes {
		return f.File.Close()
	}
	closed := false
	err := f.fs.do("close", f.name, true, func() error { closed = true; return f.File.Close() })
	if !closed {
		_ = f.File.Close() // the error is the plan's
	}
	return err
}
