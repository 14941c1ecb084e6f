package store

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

// stamp remembers the state of a file whose digest was seen: as long as inode, size and both times are the
// same, the file is the one that was hashed (ctime cannot be set back by a program).
type stamp struct {
	Ino    int64          `json:"ino"`
	Size   int64          `json:"size"`
	Mtime  int64          `json:"mtime_ns"`
	Ctime  int64          `json:"ctime_ns"`
	Digest hostabi.Digest `json:"sha256"`
	// Cookie says that a hand-placed program contains the handshake cookie of protocol 1.
	Cookie bool `json:"protocol1,omitempty"`
}

func (s stamp) matches(id atomicfile.ID) bool {
	return s.Ino == id.Ino && s.Size == id.Size && s.Mtime == id.Mtime && s.Ctime == id.Ctime
}

// openVerified opens path once and returns its state: from the stamp key if that matches (and full is off),
// else by hashing the open file and remembering it.
func (s *Store) openVerified(path, key string) (*os.File, stamp, error) {
	f, err := s.o.FS.Open(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, stamp{}, err
	}
	st, err := s.state(f, key)
	if err != nil {
		_ = f.Close() // read-only
		return nil, stamp{}, err
	}
	return f.OS(), st, nil
}

func (s *Store) state(f atomicfile.File, key string) (stamp, error) {
	info, err := f.Stat()
	if err != nil {
		return stamp{}, err
	}
	if !info.Mode().IsRegular() {
		return stamp{}, fmt.Errorf("is no regular file")
	}
	id, idErr := atomicfile.FileID(f)
	name := filepath.Join(s.o.Dir, "stamps", key+".json")
	if idErr == nil && !s.o.Full {
		var known stamp
		if b, err := atomicfile.ReadFile(s.o.FS, name, 4096); err == nil && json.Unmarshal(b, &known) == nil && known.matches(id) && known.Digest.Valid() {
			return known, nil
		}
	}
	digest, _, err := hashOf(f)
	if err != nil {
		return stamp{}, err
	}
	st := stamp{Ino: id.Ino, Size: id.Size, Mtime: id.Mtime, Ctime: id.Ctime, Digest: digest}
	if st.Cookie, err = hasCookie(f); err != nil {
		return stamp{}, err
	}
	if idErr == nil {
		s.remember(name, st)
	}
	return st, nil
}

// remember writes a stamp; where that is impossible the next start hashes again.
func (s *Store) remember(name string, st stamp) {
	b, err := json.Marshal(st)
	if err == nil {
		if err = atomicfile.MkdirAll(s.o.FS, filepath.Dir(name), 0o700); err == nil {
			err = atomicfile.Write(s.o.FS, name, b, 0o600)
		}
	}
	if err != nil {
		s.o.Log.Debug("stamp not written", "path", name, "err", err)
	}
}
