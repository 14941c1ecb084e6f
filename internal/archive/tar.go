package archive

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"
)

// TarWriter writes a tar stream in which nothing but names, modes, sizes and content counts: no owners, one
// time for all. Entries appear in the order of the calls; sorting is the caller's. Not safe for concurrent use.
type TarWriter struct {
	w     *tar.Writer
	mtime time.Time
	seen  map[string]bool
}

// NewTarWriter writes to w; every entry has mtime, cut to seconds.
func NewTarWriter(w io.Writer, mtime time.Time) *TarWriter {
	return &TarWriter{w: tar.NewWriter(w), mtime: mtime.UTC().Truncate(time.Second), seen: make(map[string]bool)}
}

// Dir adds a directory with mode 0755.
func (t *TarWriter) Dir(name string) error {
	return t.header(name, &tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755})
}

// File adds a file of exactly size bytes from r, with mode 0755 if executable, else 0644.
func (t *TarWriter) File(name string, executable bool, size int64, r io.Reader) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644}
	if executable {
		h.Mode = 0o755
	}
	if err := t.header(name, h); err != nil {
		return err
	}
	n, err := io.Copy(t.w, r)
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Close writes the end mark; it does not close the writer below.
func (t *TarWriter) Close() error { return t.w.Close() }

func (t *TarWriter) header(name string, h *tar.Header) error {
	if msg := checkName(name, Limits{}.withDefaults()); msg != "" {
		return &Error{Entry: name, Msg: msg}
	}
	key := fold(name)
	if t.seen[key] {
		return &Error{Entry: name, Msg: "name is there already"}
	}
	t.seen[key] = true
	h.ModTime = t.mtime
	return t.w.WriteHeader(h)
}

// PackTar writes the tree below root, sorted by name: the same tree gives the same bytes on every system. A
// link or device in it, or a name that UnpackTar would refuse, is an *Error.
func PackTar(ctx context.Context, w io.Writer, root *os.Root, mtime time.Time) error {
	t := NewTarWriter(w, mtime)
	if err := t.tree(ctx, root, "."); err != nil {
		return err
	}
	return t.Close()
}

func (t *TarWriter) tree(ctx context.Context, root *os.Root, dir string) error {
	names, err := readDir(root, dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := t.member(ctx, root, path.Join(dir, n)); err != nil {
			return err
		}
	}
	return nil
}

func (t *TarWriter) member(ctx context.Context, root *os.Root, name string) error {
	fi, err := root.Lstat(name)
	if err != nil {
		return err
	}
	switch fi.Mode().Type() {
	case fs.ModeDir:
		if err := t.Dir(name); err != nil {
			return err
		}
		return t.tree(ctx, root, name)
	case 0:
		f, err := root.Open(name)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // read only
		return t.File(name, fi.Mode()&0o111 != 0, fi.Size(), f)
	default:
		return &Error{Entry: name, Msg: "is no file or directory"}
	}
}

func readDir(root *os.Root, name string) ([]string, error) {
	d, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }() // read only
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}
