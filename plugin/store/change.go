package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/plugin"
)

// Stage is a private directory on the file system of the store, where one kind of one version is unpacked.
type Stage struct {
	Dir     string
	Program string // path inside Dir that the program must have
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

// Publish seals the stage and moves it to its place in the store; if the same version is there already it is
// kept. The result is what the receipt says of this kind.
func (st *Stage) Publish(index hostabi.Digest, k Kind) (Kind, error) {
	s := st.s
	files, err := seal(s.o.FS, st.Dir, st.Program)
	if err != nil {
		return k, writeError(err)
	}
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
	return err
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

// Record makes r the active receipt: the previous one is copied to prev/ and the rename of the new one is the
// only switch. The caller holds Lock(r.Name).
func (s *Store) Record(r *Receipt) error {
	if err := s.mkdirs("active", "prev"); err != nil {
		return err
	}
	r.Version, r.DS = receiptVersion, s.o.DS
	if r.InstalledAt.IsZero() {
		r.InstalledAt = s.o.Clock().UTC().Truncate(time.Second)
	}
	if len(r.Kinds) > 0 {
		var err error
		if r.Manifest, err = s.manifestDigest(r); err != nil {
			return writeError(err)
		}
	}
	b, err := r.encode()
	if err != nil {
		return err
	}
	active := s.receiptPath("active", r.Name)
	if old, err := atomicfile.ReadFile(s.o.FS, active, maxReceipt); err == nil && !sameVersion(old, r) {
		if err := atomicfile.Write(s.o.FS, s.receiptPath("prev", r.Name), old, 0o600); err != nil {
			return writeError(err)
		}
	}
	return writeError(atomicfile.Write(s.o.FS, active, b, 0o600))
}

// sameVersion reports whether a receipt is of the version that r records again: then the previous version stays
// what it was.
func sameVersion(old []byte, r *Receipt) bool {
	var o Receipt
	return r.Index != "" && o.UnmarshalJSON(old) == nil && o.Index == r.Index && o.Source.Repository == r.Source.Repository
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
	return r, writeError(s.o.FS.SyncDir(filepath.Join(s.o.Dir, "active")))
}

// Sweep removes version directories that no receipt names and that are older than a day, and stages whose
// process is gone. It returns the digests of the programs that went, for the compile cache.
func (s *Store) Sweep(_ context.Context) (gone []hostabi.Digest, err error) {
	used := make(map[string]bool)
	for _, dir := range []string{"active", "prev", "pending"} {
		names, _ := s.o.FS.ReadDir(filepath.Join(s.o.Dir, dir)) // not there = nothing used
		for _, n := range names {
			r, err := s.receiptIn(dir, n)
			if err != nil {
				return nil, nil //nolint:nilerr // a damaged receipt may name anything: sweep nothing
			}
			for _, k := range r.Kinds {
				used[k.Dir] = true
			}
		}
	}
	entries, _ := s.o.FS.ReadDir(filepath.Join(s.o.Dir, "store")) // as above
	for _, e := range entries {
		path := filepath.Join(s.o.Dir, "store", e)
		info, ierr := s.o.FS.Lstat(path)
		if used[e] || ierr != nil || s.o.Clock().Sub(info.ModTime()) < sweepAge {
			continue
		}
		gone = append(gone, programsIn(s.o.FS, path)...)
		if err = s.trash(path); err != nil {
			return gone, writeError(err)
		}
	}
	return gone, s.sweepStages()
}

func (s *Store) receiptIn(dir, base string) (*Receipt, error) {
	name, ok := strings.CutSuffix(base, ".json")
	if !ok {
		return new(Receipt), nil
	}
	if dir == "active" {
		return s.Receipt(plugin.Name(name))
	}
	b, err := atomicfile.ReadFile(s.o.FS, filepath.Join(s.o.Dir, dir, base), maxReceipt)
	if err != nil {
		return nil, err
	}
	r := new(Receipt)
	return r, r.UnmarshalJSON(b)
}

func programsIn(f atomicfile.FS, dir string) (out []hostabi.Digest) {
	b, err := atomicfile.ReadFile(f, filepath.Join(dir, filesName), 16<<20)
	if err != nil {
		return nil
	}
	list, err := readFiles(f, dir, hostabi.DigestOf(b))
	if err != nil {
		return nil
	}
	for _, e := range list {
		if e.Path == "module.wasm" {
			out = append(out, e.SHA256)
		}
	}
	return out
}

// sweepStages removes stages whose lock is free: their process died.
func (s *Store) sweepStages() error {
	base := filepath.Join(s.o.Dir, ".staging")
	entries, _ := s.o.FS.ReadDir(base) // not there = nothing to sweep
	done, cancel := context.WithCancel(context.Background())
	cancel() // one try a lock
	for _, e := range entries {
		if strings.HasSuffix(e, ".lock") && slices.Contains(entries, strings.TrimSuffix(e, ".lock")) {
			continue // with its directory
		}
		unlock, err := s.o.FS.Lock(done, filepath.Join(base, strings.TrimSuffix(e, ".lock")+".lock"))
		if err != nil {
			continue
		}
		err = removeTree(s.o.FS, filepath.Join(base, strings.TrimSuffix(e, ".lock")))
		_ = s.o.FS.Remove(filepath.Join(base, strings.TrimSuffix(e, ".lock")+".lock")) // swept next time
		if uerr := unlock(); err == nil {
			err = uerr
		}
		if err != nil {
			return writeError(err)
		}
	}
	return nil
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
