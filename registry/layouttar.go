package registry

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/delivery-station/ds/hostabi"
)

const maxTarEntries = 10_000

// tarFiles are the files of a layout in a plain tar, found once and read where they lie.
type tarFiles struct {
	path    string
	entries map[string]section
}

type section struct{ at, size int64 }

// openTar reads the headers of the tar at path.
func openTar(path string) (*tarFiles, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	if err := refuseCompressed(f, path); err != nil {
		return nil, err
	}
	t := &tarFiles{path: path, entries: make(map[string]section)}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, badLayout("%s is no tar: %v", path, err)
		}
		if err := t.add(f, h); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *tarFiles) add(f *os.File, h *tar.Header) error {
	if h.Typeflag == tar.TypeDir || h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name := path.Clean(h.Name)
	if h.Typeflag != tar.TypeReg {
		return badLayout("entry %q is no regular file", clip(name, 100))
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if _, twice := t.entries[name]; twice {
		return badLayout("entry %q is there twice", clip(name, 100))
	}
	if len(t.entries) == maxTarEntries {
		return badLayout("more than %d entries", maxTarEntries)
	}
	t.entries[name] = section{at, h.Size}
	return nil
}

func refuseCompressed(f *os.File, path string) error {
	var magic [4]byte
	n, err := io.ReadFull(f, magic[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	switch {
	case n >= 2 && magic[0] == 0x1f && magic[1] == 0x8b:
		return hostabi.Errorf(hostabi.ReasonBadLayout, "%s is compressed", path).WithFix("gunzip %s", path)
	case n == 4 && magic == [4]byte{0x28, 0xb5, 0x2f, 0xfd}:
		return hostabi.Errorf(hostabi.ReasonBadLayout, "%s is compressed", path).WithFix("zstd -d %s", path)
	}
	return nil
}

func (t *tarFiles) open(name string) (io.ReadSeekCloser, int64, error) {
	s, ok := t.entries[name]
	if !ok {
		return nil, 0, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	f, err := os.Open(t.path)
	if err != nil {
		return nil, 0, err
	}
	return struct {
		io.ReadSeeker
		io.Closer
	}{io.NewSectionReader(f, s.at, s.size), f}, s.size, nil
}
