package store

import (
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/plugin"
)

// Sweep removes version directories that no receipt names, that are older than a day and that no program runs
// from, stages whose process is gone, and what an interrupted deletion left. It returns the digests of the
// modules that went, for the compile cache. A crash leaves work for the next sweep and nothing else.
func (s *Store) Sweep(_ context.Context) (gone []hostabi.Digest, err error) {
	used, ok := s.used()
	if !ok {
		return nil, nil
	}
	entries, _ := s.o.FS.ReadDir(filepath.Join(s.o.Dir, "store")) // not there = nothing to sweep
	for _, e := range entries {
		path := filepath.Join(s.o.Dir, "store", e)
		info, ierr := s.o.FS.Lstat(path)
		if used[e] || ierr != nil || s.o.Clock().Sub(info.ModTime()) < sweepAge {
			continue
		}
		digests, err := s.collect(path)
		if gone = append(gone, digests...); err != nil {
			return gone, writeError(err)
		}
	}
	if err := s.sweepStages(); err != nil {
		return gone, err
	}
	s.sweepTemps()
	return gone, s.emptyTrash()
}

// sweepTemps removes temporary files of killed processes.
func (s *Store) sweepTemps() {
	for _, dir := range storeDirs {
		names, _ := s.o.FS.ReadDir(filepath.Join(s.o.Dir, dir)) // not there = nothing to sweep
		for _, n := range names {
			path := filepath.Join(s.o.Dir, dir, n)
			if !strings.HasSuffix(n, atomicfile.TempSuffix) {
				continue
			}
			if info, err := s.o.FS.Lstat(path); err == nil && s.o.Clock().Sub(info.ModTime()) >= sweepAge {
				_ = s.o.FS.Remove(path) // the next sweep tries again
			}
		}
	}
}

// used names the version directories that receipts name; ok is false if a receipt is damaged: it may name any.
func (s *Store) used() (used map[string]bool, ok bool) {
	used = make(map[string]bool)
	for _, dir := range []string{"active", "prev", "pending"} {
		names, _ := s.o.FS.ReadDir(filepath.Join(s.o.Dir, dir)) // not there = nothing used
		for _, n := range names {
			name, isReceipt := strings.CutSuffix(n, ".json")
			if !isReceipt || strings.HasPrefix(n, ".") {
				continue
			}
			r, err := s.receipt(dir, plugin.Name(name), "%s")
			if hostabi.ReasonOf(err) == hostabi.ReasonPluginNotFound { // gone meanwhile
				continue
			}
			if err != nil {
				return nil, false
			}
			for _, k := range r.Kinds {
				used[k.Dir] = true
			}
		}
	}
	return used, true
}

// collect removes one version, unless it is in use or its plugin is being changed: whoever installs it again
// holds that lock until the receipt names it.
func (s *Store) collect(path string) ([]hostabi.Digest, error) {
	done, cancel := context.WithCancel(context.Background())
	cancel() // one try
	unlock, err := s.o.FS.Lock(done, filepath.Join(s.o.Dir, "locks", string(s.nameIn(path))+".lock"))
	if err != nil {
		return nil, nil // the next sweep tries again
	}
	defer func() { _ = unlock() }() // the lock ends with the descriptor
	base := filepath.Base(path)
	if used, ok := s.used(); !ok || used[base] || s.running(path) {
		return nil, nil
	}
	gone := programsIn(s.o.FS, path)
	_ = s.o.FS.Remove(filepath.Join(s.o.Dir, "stamps", base+".json")) // it means nothing without the version
	return gone, s.trash(path)
}

// nameIn is the plugin that a version directory holds.
func (s *Store) nameIn(dir string) plugin.Name {
	var m struct{ Name plugin.Name }
	b, err := atomicfile.ReadFile(s.o.FS, filepath.Join(dir, manifestName), maxManifest)
	if err != nil || json.Unmarshal(b, &m) != nil || !m.Name.Valid() {
		return "unknown"
	}
	return m.Name
}

// running reports whether a program of the version runs.
func (s *Store) running(dir string) bool {
	names, _ := s.o.FS.ReadDir(dir) // a directory that cannot be read cannot be run from
	return slices.ContainsFunc(names, func(n string) bool {
		return (n == "module.wasm" || strings.HasPrefix(n, "ds-")) && atomicfile.InUse(filepath.Join(dir, n))
	})
}

// emptyTrash deletes what others renamed away and did not live to delete.
func (s *Store) emptyTrash() error {
	trash := filepath.Join(s.o.Dir, ".trash")
	entries, _ := s.o.FS.ReadDir(trash) // not there = empty
	for _, e := range entries {
		if err := removeTree(s.o.FS, filepath.Join(trash, e)); err != nil {
			return writeError(err)
		}
	}
	return nil
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
