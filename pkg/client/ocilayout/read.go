package ocilayout

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
)

// Limits of a layout.
const (
	maxIndex = 4 << 20
	maxBlobs = 100_000
	maxFiles = maxBlobs + 100 // with what other tools add
)

// File is a tar as os.Open gives it.
type File interface {
	io.ReadSeeker
	io.ReaderAt
}

// Layout is an OCI image layout in a tar that stays open. It is safe for concurrent use.
type Layout struct {
	name    string
	f       File
	blobs   map[hostabi.Digest]section
	entries []Entry
}

type section struct{ at, size int64 }

func badLayout(format string, a ...any) error {
	return hostabi.Errorf(hostabi.ReasonBadLayout, format, a...)
}

// Open reads the headers and the index of the tar f, which errors call name. Links, sparse and special files, paths
// that leave the tar, files that are there twice and blobs without a digest for a name are refused with reason
// BAD_LAYOUT; other files that tools add are left alone.
func Open(f File, name string) (*Layout, error) {
	l := &Layout{name: name, f: f, blobs: make(map[hostabi.Digest]section)}
	if err := l.refuseCompressed(); err != nil {
		return nil, err
	}
	own, err := l.scan()
	if err != nil {
		return nil, err
	}
	var v struct {
		Version string `json:"imageLayoutVersion"`
	}
	var index struct {
		Manifests []Entry `json:"manifests"`
	}
	for _, file := range []struct {
		name string
		into any
	}{{versionFile, &v}, {indexFile, &index}} {
		s, ok := own[file.name]
		if !ok {
			return nil, badLayout("%s is no OCI layout: it holds no %s", name, file.name)
		}
		b, err := l.small(file.name, s, maxIndex)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(b, file.into); err != nil {
			return nil, badLayout("%s: %s is no JSON: %w", name, file.name, err)
		}
	}
	if v.Version != version {
		return nil, badLayout("%s is an OCI layout of version %.20q, want %s", name, v.Version, version)
	}
	for _, e := range index.Manifests {
		if !e.Digest.Valid() || e.Size < 0 {
			return nil, badLayout("%s: index.json lists %.100q with %d bytes", name, e.Digest, e.Size)
		}
	}
	l.entries = index.Manifests
	return l, nil
}

func (l *Layout) refuseCompressed() error {
	var magic [4]byte
	n, err := l.f.ReadAt(magic[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch {
	case n >= 2 && magic[0] == 0x1f && magic[1] == 0x8b:
		return hostabi.Errorf(hostabi.ReasonBadLayout, "%s is compressed", l.name).WithFix("gunzip %s", l.name)
	case n == 4 && magic == [4]byte{0x28, 0xb5, 0x2f, 0xfd}:
		return hostabi.Errorf(hostabi.ReasonBadLayout, "%s is compressed", l.name).WithFix("zstd -d %s", l.name)
	}
	return nil
}

// scan finds the blobs and the files of the layout itself.
func (l *Layout) scan() (own map[string]section, err error) {
	end, err := l.f.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = l.f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, err
	}
	own = make(map[string]section)
	files := 0
	for r := tar.NewReader(l.f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return own, nil
		}
		if err != nil {
			return nil, badLayout("%s is no plain tar: %w", l.name, err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if files++; files > maxFiles {
			return nil, badLayout("%s has more than %d entries", l.name, maxFiles)
		}
		name, err := l.checked(h)
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		at, err := l.f.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		if h.Size > end-at {
			return nil, badLayout("%s ends within entry %.100q", l.name, name)
		}
		if err := l.note(own, name, section{at, h.Size}); err != nil {
			return nil, err
		}
	}
}

// checked is the name of an entry, without the ./ that some tools begin it with.
func (l *Layout) checked(h *tar.Header) (string, error) {
	name := h.Name
	if h.Typeflag == tar.TypeDir {
		name = strings.TrimSuffix(name, "/")
	}
	if name != "." {
		name = strings.TrimPrefix(name, "./")
	}
	if !fs.ValidPath(name) || strings.Contains(name, `\`) {
		return "", badLayout("%s: entry %.100q has a name that leads elsewhere", l.name, h.Name)
	}
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir {
		return "", badLayout("%s: entry %.100q is no regular file", l.name, h.Name)
	}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") { // its bytes do not lie where they are
			return "", badLayout("%s: entry %.100q is a sparse file", l.name, h.Name)
		}
	}
	return name, nil
}

func (l *Layout) note(own map[string]section, name string, s section) error {
	if name == versionFile || name == indexFile {
		if _, twice := own[name]; twice {
			return badLayout("%s: entry %q is there twice", l.name, name)
		}
		own[name] = s
		return nil
	}
	if dir, _, _ := strings.Cut(name, "/"); dir != "blobs" {
		return nil
	}
	d := hostabi.Digest("sha256:" + path.Base(name))
	if name != blobDir+path.Base(name) || !d.Valid() {
		return badLayout("%s: entry %.100q is named after no sha256 digest", l.name, name)
	}
	if _, twice := l.blobs[d]; twice {
		return badLayout("%s: entry %q is there twice", l.name, name)
	}
	l.blobs[d] = s
	return nil
}

// Entries are the manifests that index.json lists. Whether the tar holds them is not checked.
func (l *Layout) Entries() []Entry { return l.entries }

// Digests are those of the blobs in the tar, sorted.
func (l *Layout) Digests() []hostabi.Digest { return slices.Sorted(maps.Keys(l.blobs)) }

// Size is the size of the blob that lies under d; ok is false if there is none.
func (l *Layout) Size(d hostabi.Digest) (size int64, ok bool) {
	s, ok := l.blobs[d]
	return s.size, ok
}

// Blob reads what lies under d; whether it has that digest is for the caller to find out.
func (l *Layout) Blob(d hostabi.Digest) (*io.SectionReader, error) {
	s, ok := l.blobs[d]
	if !ok {
		return nil, badLayout("%s holds no blob %.100s", l.name, d)
	}
	return io.NewSectionReader(l.f, s.at, s.size), nil
}

// Check hashes what lies under d: DIGEST_MISMATCH if it is something else.
func (l *Layout) Check(ctx context.Context, d hostabi.Digest) error {
	r, err := l.Blob(d)
	if err != nil {
		return err
	}
	h := sha256.New()
	if _, err := io.CopyBuffer(h, Until(ctx, r), make([]byte, 64<<10)); err != nil {
		return err
	}
	return l.same(d, hostabi.DigestFromSum(h.Sum(nil)))
}

func (l *Layout) same(want, got hostabi.Digest) error {
	if got != want {
		return hostabi.Errorf(hostabi.ReasonDigestMismatch, "%s: what lies under %s has another digest", l.name, want)
	}
	return nil
}

// Content reads a blob of at most limit bytes into memory and compares it with its digest.
func (l *Layout) Content(d hostabi.Digest, limit int64) ([]byte, error) {
	s, ok := l.blobs[d]
	if !ok {
		return nil, badLayout("%s holds no blob %.100s", l.name, d)
	}
	b, err := l.small(string(d), s, limit)
	if err == nil {
		err = l.same(d, hostabi.DigestOf(b))
	}
	return b, err
}

func (l *Layout) small(what string, s section, limit int64) ([]byte, error) {
	if s.size > limit {
		return nil, badLayout("%s: %s has %d bytes, at most %d", l.name, what, s.size, limit)
	}
	b := make([]byte, s.size)
	if _, err := io.ReadFull(io.NewSectionReader(l.f, s.at, s.size), b); err != nil {
		return nil, badLayout("%s: %s: %w", l.name, what, err)
	}
	return b, nil
}
