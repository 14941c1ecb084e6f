package registry

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

// writing calls f with t, or with a directory in its place if t is a tar: what was collected there is packed
// with what the tar holds, and takes its place by one rename. Other writers of the tar wait.
func (c *Client) writing(ctx context.Context, t target, f func(t target) error) (err error) {
	l, ok := t.(*layout)
	if !ok || !l.tar {
		return f(t)
	}
	dir := filepath.Dir(l.path)
	if err := atomicfile.MkdirAll(l.fs, dir, 0o755); err != nil {
		return err
	}
	lock := l.path + ".lock"
	unlock, err := l.fs.Lock(ctx, lock)
	if errors.Is(err, atomicfile.ErrLocked) {
		return hostabi.Errorf(hostabi.ReasonLockHeld, "another process writes %s", l.path)
	}
	if err != nil {
		return err
	}
	defer func() {
		_ = l.fs.Remove(lock) // leaves no litter; impossible on Windows, harmless there
		err = errors.Join(err, unlock())
	}()
	if l, err = c.layout(l.path); err != nil { // as it is now
		return err
	}
	scratch, err := os.MkdirTemp(dir, "."+filepath.Base(l.path)+".*"+atomicfile.TempSuffix)
	if err != nil {
		return err
	}
	defer func() { _ = atomicfile.RemoveAll(l.fs, scratch) }() // the tar is whole without it
	p := &packer{old: l, dir: scratch, epoch: c.o.Epoch}
	if p.epoch.IsZero() {
		p.epoch = time.Unix(0, 0)
	}
	before, err := p.unpackIndex()
	if err != nil {
		return err
	}
	if err := f(&layout{path: scratch, fs: l.fs, files: overlay{dirFiles(scratch), l.files}}); err != nil {
		return err
	}
	after, err := os.ReadFile(filepath.Join(scratch, indexFile))
	if errors.Is(err, fs.ErrNotExist) || (err == nil && string(after) == string(before)) {
		return nil // nothing was added
	}
	if err != nil {
		return err
	}
	return p.pack(ctx)
}

// overlay reads from the first, then from the second.
type overlay [2]layoutFiles

func (o overlay) open(name string) (io.ReadSeekCloser, int64, error) {
	f, size, err := o[0].open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return o[1].open(name)
	}
	return f, size, err
}

// packer writes the tar of a layout: the files of a directory, and the blobs that an older tar has besides.
type packer struct {
	old   *layout
	dir   string
	epoch time.Time
}

// unpackIndex begins the directory with the index of the old tar, so that what it lists stays listed.
func (p *packer) unpackIndex() (index []byte, err error) {
	if old, err := p.old.index(); old == nil || err != nil { // checks it
		return nil, err
	}
	for _, name := range []string{ocispec.ImageLayoutFile, indexFile} {
		if index, err = p.old.read(name, maxIndex); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(p.dir, name), index, 0o600); err != nil {
			return nil, err
		}
	}
	return index, nil
}

// pack writes the tar beside its place and renames it.
func (p *packer) pack(ctx context.Context) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(p.old.path), "."+filepath.Base(p.old.path)+".*"+atomicfile.TempSuffix)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = tmp.Close()
			_ = os.Remove(tmp.Name()) // err says more
		}
	}()
	buf := bufio.NewWriterSize(tmp, 256<<10)
	w := tar.NewWriter(buf)
	blobs, err := p.blobs()
	if err != nil {
		return err
	}
	for _, name := range append([]string{ocispec.ImageLayoutFile, indexFile}, blobs...) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := p.entry(w, name); err != nil {
			return err
		}
	}
	if err := errors.Join(w.Close(), buf.Flush(), tmp.Chmod(0o644), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := p.old.fs.Rename(tmp.Name(), p.old.path); err != nil {
		return err
	}
	return p.old.fs.SyncDir(filepath.Dir(p.old.path))
}

// blobs are the names of all blobs, sorted: the same content gives the same bytes.
func (p *packer) blobs() ([]string, error) {
	const dir = "blobs/sha256/"
	var names []string
	found, err := os.ReadDir(filepath.Join(p.dir, filepath.FromSlash(dir)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range found {
		if hostabi.Digest("sha256:" + e.Name()).Valid() {
			names = append(names, dir+e.Name())
		}
	}
	if old, ok := p.old.files.(*tarFiles); ok {
		for name := range old.entries {
			if hex, ok := strings.CutPrefix(name, dir); ok && hostabi.Digest("sha256:"+hex).Valid() {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (p *packer) entry(w *tar.Writer, name string) error {
	f, size, err := overlay{dirFiles(p.dir), p.old.files}.open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // read only
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: p.epoch}); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}
