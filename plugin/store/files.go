package store

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

// FileEntry is one file of an installed version, as files.json lists it.
type FileEntry struct {
	Path   string         `json:"path"` // slash separated, relative
	Size   int64          `json:"size"`
	SHA256 hostabi.Digest `json:"sha256"`
	Mode   fs.FileMode    `json:"mode"`
}

const (
	filesName    = "files.json"
	manifestName = "plugin.json"
)

// seal makes dir read-only, lists its files in files.json and syncs everything; the result is the digest of
// files.json. Programs (exec) get mode 0555.
func seal(f atomicfile.FS, dir string, exec string) (hostabi.Digest, error) {
	var list []FileEntry
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		if d.IsDir() {
			return f.SyncDir(path)
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		e, err := sealFile(f, path, filepath.ToSlash(rel), exec)
		list = append(list, e)
		return err
	})
	if err != nil {
		return "", err
	}
	slices.SortFunc(list, func(a, b FileEntry) int { return compare(a.Path, b.Path) })
	b, err := json.Marshal(list)
	if err != nil {
		return "", err
	}
	if err := atomicfile.Write(f, filepath.Join(dir, filesName), b, 0o444); err != nil {
		return "", err
	}
	return hostabi.DigestOf(b), nil
}

func sealFile(f atomicfile.FS, path, rel, exec string) (e FileEntry, err error) {
	file, err := f.Open(path, os.O_RDONLY, 0)
	if err != nil {
		return e, err
	}
	defer func() {
		if cerr := file.Close(); err == nil {
			err = cerr
		}
	}()
	e = FileEntry{Path: rel, Mode: 0o444}
	if rel == exec {
		e.Mode = 0o555
	}
	if err := file.Chmod(e.Mode); err != nil {
		return e, err
	}
	e.SHA256, e.Size, err = hashOf(file)
	if err != nil {
		return e, err
	}
	return e, file.Sync()
}

func hashOf(r io.ReaderAt) (hostabi.Digest, int64, error) {
	h := sha256.New()
	n, err := io.Copy(h, io.NewSectionReader(r, 0, 1<<62))
	if err != nil {
		return "", n, err
	}
	return hostabi.DigestFromSum(h.Sum(nil)), n, nil
}

// readFiles reads and checks files.json of an installed version.
func readFiles(f atomicfile.FS, dir string, want hostabi.Digest) ([]FileEntry, error) {
	b, err := atomicfile.ReadFile(f, filepath.Join(dir, filesName), 16<<20)
	if err != nil {
		return nil, err
	}
	if hostabi.DigestOf(b) != want {
		return nil, fmt.Errorf("%s was changed", filesName)
	}
	var list []FileEntry
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", filesName, err)
	}
	return list, nil
}

// unchanged reports whether every file of list is below dir with its size, mode and hash: a version that is
// there already may have been damaged since.
func unchanged(f atomicfile.FS, dir string, list []FileEntry) bool {
	return !slices.ContainsFunc(list, func(e FileEntry) bool {
		file, err := f.Open(filepath.Join(dir, filepath.FromSlash(e.Path)), os.O_RDONLY, 0)
		if err != nil {
			return true
		}
		defer func() { _ = file.Close() }() // read-only
		info, err := file.Stat()
		if err != nil || info.Size() != e.Size || info.Mode().Perm() != e.Mode {
			return true
		}
		digest, _, err := hashOf(file)
		return err != nil || digest != e.SHA256
	})
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
