package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

const (
	evidenceDir = "oci" // what a version was verified from
	maxEvidence = 16 << 20
)

// Changed lists the files of an installed version that are not as they were installed, sorted; also those that
// came or went since. Every file is read.
func (s *Store) Changed(r *Receipt) (changed []string) {
	for _, k := range r.Kinds {
		dir := filepath.Join(s.o.Dir, "store", k.Dir)
		list, err := readFiles(s.o.FS, dir, k.Files)
		if err != nil {
			changed = append(changed, k.Dir+"/"+filesName)
			continue
		}
		known := map[string]bool{filesName: true}
		for _, e := range list {
			known[e.Path] = true
			if !unchanged(s.o.FS, dir, []FileEntry{e}) {
				changed = append(changed, k.Dir+"/"+e.Path)
			}
		}
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error { // what cannot be read is changed already
			if rel, rerr := filepath.Rel(dir, path); err == nil && rerr == nil && !d.IsDir() && !known[filepath.ToSlash(rel)] {
				changed = append(changed, k.Dir+"/"+filepath.ToSlash(rel))
			}
			return nil
		})
	}
	slices.Sort(changed)
	return changed
}

// Evidence is what an installed version was verified from: its index and the bundles that were attached. A version
// that an older ds installed has none. The index is checked against the receipt; bundles prove themselves.
func (s *Store) Evidence(r *Receipt) (index []byte, bundles [][]byte, err error) {
	if len(r.Kinds) == 0 {
		return nil, nil, nil
	}
	dir := filepath.Join(s.o.Dir, "store", r.Kinds[0].Dir, evidenceDir)
	index, err = atomicfile.ReadFile(s.o.FS, filepath.Join(dir, "index.json"), maxEvidence)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err == nil && hostabi.DigestOf(index) != r.Index {
		err = errors.New("its index was changed")
	}
	names, rerr := s.o.FS.ReadDir(filepath.Join(dir, "bundles"))
	if rerr != nil && !errors.Is(rerr, os.ErrNotExist) && err == nil {
		err = rerr
	}
	slices.Sort(names)
	for _, name := range names {
		b, berr := atomicfile.ReadFile(s.o.FS, filepath.Join(dir, "bundles", name), maxEvidence)
		if err == nil {
			err = berr
		}
		bundles = append(bundles, b)
	}
	if err != nil {
		return nil, nil, hostabi.Errorf(hostabi.ReasonPluginModified, "%s %s: %w", r.Name, r.PluginVersion, err).WithFix("ds plugin install %s --force", r.Source.Requested)
	}
	return index, bundles, nil
}
