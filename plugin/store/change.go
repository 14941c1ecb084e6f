package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/plugin"
)

// Stage is a private directory on the file system of the store, where one kind of one version is unpacked.
type Stage struct {
	Dir     string
	Program string // path inside Dir that the program must have
	files   hostabi.Digest
	s       *Store
	unlock  func() error
}

// Stage makes an empty stage for one kind. Close removes what Publish did not move.
func (s *Store) Stage(ctx context.Context, name plugin.Name, k plugin.Kind) (*Stage, error) {
	base := filepath.Join(s.o.Dir, ".staging")
	if err := s.mkdirs(".staging", "store", "active", "prev", "locks"); err != nil {
		return nil, err
	}
	dir := filepath.Join(base, random())
	unlock, err := s.o.FS.Lock(ctx, dir+".lock")
	if err != nil {
		return nil, writeError(err)
	}
	if err := s.o.FS.Mkdir(dir, 0o700); err != nil {
		_ = unlock() // the lock ends with the descriptor
		return nil, writeError(err)
	}
	return &Stage{Dir: dir, Program: programName(name, k), s: s, unlock: unlock}, nil
}

// Create makes a file in the stage.
func (st *Stage) Create(name string) (atomicfile.File, error) {
	f, err := st.s.o.FS.Open(filepath.Join(st.Dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	return f, writeError(err)
}

// Seal makes what was unpacked read-only and durable; nothing is written to the stage after it.
func (st *Stage) Seal() (err error) {
	st.files, err = seal(st.s.o.FS, st.Dir, st.Program)
	return writeError(err)
}

// Publish moves a sealed stage to its place in the store; if the same version is there already it is kept. The
// result is what the receipt says of this kind. The caller holds the lock of the plugin, so that nothing that
// the next receipt names is collected.
func (st *Stage) Publish(index hostabi.Digest, k Kind) (Kind, error) {
	s, files := st.s, st.files
	k.Files, k.Dir = files, dirName(index, k.Kind)
	to := filepath.Join(s.o.Dir, "store", k.Dir)
	if list, err := readFiles(s.o.FS, to, files); err == nil && unchanged(s.o.FS, to, list) {
		return k, nil
	}
	if _, err := s.o.FS.Lstat(to); err == nil { // damaged, or made by a ds that packs otherwise
		if err := s.trash(to); err != nil {
			return k, writeError(err)
		}
	}
	if err := s.o.FS.Rename(st.Dir, to); err != nil {
		return k, writeError(err)
	}
	return k, writeError(s.o.FS.SyncDir(filepath.Dir(to)))
}

// Close removes the stage.
func (st *Stage) Close() error {
	err := removeTree(st.s.o.FS, st.Dir)
	if rerr := st.s.o.FS.Remove(st.Dir + ".lock"); err == nil {
		err = rerr
	}
	if uerr := st.unlock(); err == nil {
		err = uerr
	}
	return writeError(err)
}

// removeTree makes a sealed tree writable again and removes it.
func removeTree(f atomicfile.FS, dir string) error {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, 0o700) //nolint:gosec // our own directory
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return atomicfile.RemoveAll(f, dir)
}

// Lock serialises writers of one plugin; LOCK_HELD after 30 s.
func (s *Store) Lock(ctx context.Context, name plugin.Name) (unlock func() error, err error) {
	if err := s.mkdirs("locks"); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	unlock, err = s.o.FS.Lock(ctx, filepath.Join(s.o.Dir, "locks", string(name)+".lock"))
	if errors.Is(err, atomicfile.ErrLocked) {
		return nil, hostabi.Errorf(hostabi.ReasonLockHeld, "plugin %s is being changed by another ds", name)
	}
	return unlock, writeError(err)
}

// Remove forgets a plugin: its receipts go, its versions are swept. The removed receipt is returned, or nil
// with PLUGIN_NOT_FOUND; a damaged receipt can be removed too.
func (s *Store) Remove(ctx context.Context, name plugin.Name) (*Receipt, error) {
	if _, err := s.o.FS.Lstat(s.receiptPath("active", name)); err != nil {
		if p, _ := s.handPlaced(name); p != nil && len(p.Programs) > 0 {
			return nil, hostabi.Errorf(hostabi.ReasonUsage, "%s was placed by hand; nothing was removed", name).WithFix("rm %s", p.Programs[0].Path)
		}
		return nil, hostabi.Errorf(hostabi.ReasonPluginNotFound, "no plugin %q is installed", string(name))
	}
	unlock, err := s.Lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unlock() }() // the lock ends with the descriptor
	r, _ := s.Receipt(name)         // a damaged one has nothing to say
	for _, dir := range []string{"active", "pending", "prev"} {
		if err := s.o.FS.Remove(s.receiptPath(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, writeError(err)
		}
	}
	if err := s.forgetFile(filepath.Join(s.o.Dir, handlersDir, string(name))); err != nil {
		return nil, err
	}
	return r, writeError(s.o.FS.SyncDir(filepath.Join(s.o.Dir, "active")))
}

// trash renames a tree away, so that it is gone at once, and then deletes it.
func (s *Store) trash(path string) error {
	if err := s.mkdirs(".trash"); err != nil {
		return err
	}
	to := filepath.Join(s.o.Dir, ".trash", random())
	if err := s.o.FS.Rename(path, to); err != nil {
		return err
	}
	return removeTree(s.o.FS, to)
}

// mkdirs makes directories below the store; the store itself must be ours alone.
func (s *Store) mkdirs(names ...string) error {
	if err := s.safe("."); err != nil {
		return err
	}
	for _, n := range names {
		if err := atomicfile.MkdirAll(s.o.FS, filepath.Join(s.o.Dir, n), 0o700); err != nil {
			return writeError(err)
		}
	}
	return nil
}

// writeError gives a file error its reason; nil stays nil.
func writeError(err error) error {
	if err == nil || hostabi.ReasonOf(err) != "" {
		return err
	}
	reason := hostabi.ReasonInternal
	switch {
	case errors.Is(err, syscall.ENOSPC):
		reason = hostabi.ReasonNoSpace
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		reason = hostabi.ReasonReadOnly
	}
	return hostabi.Errorf(reason, "plugin directory: %w", err)
}
