package store

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/plugin"
)

// handlersDir has an empty file for each installed plugin whose manifest may name event handlers, so that a
// command reads nothing of all the others. One too many costs a look at that plugin; there is never one too few.
const handlersDir = "handlers"

// Handlers lists the installed plugins that may have event handlers, sorted.
func (s *Store) Handlers() []plugin.Name {
	entries, err := s.o.FS.ReadDir(filepath.Join(s.o.Dir, handlersDir))
	if err != nil || s.safe(".", handlersDir) != nil {
		return nil
	}
	var out []plugin.Name
	for _, e := range entries { // sorted
		if name := plugin.Name(e); name.Valid() {
			out = append(out, name)
		}
	}
	return out
}

// switchTo writes the active receipt of r, which is encoded in b.
func (s *Store) switchTo(r *Receipt, b []byte) error {
	handles := s.handles(r)
	path := filepath.Join(s.o.Dir, handlersDir, string(r.Name))
	if handles { // before the switch
		if err := s.mkdirs(handlersDir); err != nil {
			return err
		}
		if err := atomicfile.WriteLocked(s.o.FS, path, nil, 0o600); err != nil {
			return writeError(err)
		}
	}
	if err := atomicfile.WriteLocked(s.o.FS, s.receiptPath("active", r.Name), b, 0o600); err != nil {
		return writeError(err)
	}
	if handles {
		return nil
	}
	return s.forgetFile(path)
}

// handles reports whether the version that r names may have handlers. One that is run from its source directory
// may get them any time.
func (s *Store) handles(r *Receipt) bool {
	if r.Dev != "" {
		return true
	}
	p, err := s.Installed(r)
	return err != nil || len(p.Manifest.Handlers()) > 0
}

func (s *Store) forgetFile(path string) error {
	if err := s.o.FS.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return writeError(err)
	}
	return nil
}
