package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

const (
	layoutLock = ".ds.lock"
	indexFile  = ocispec.ImageIndexFile
	maxIndex   = 4 << 20
	tagKey     = ocispec.AnnotationRefName
)

// layoutFiles are the files of a layout, in a directory or in a tar. Names use slashes.
type layoutFiles interface {
	open(name string) (io.ReadSeekCloser, int64, error) // regular files only; fs.ErrNotExist
}

// layout is an OCI image layout (image-spec 1.1, image-layout.md). A tar is written through a directory: see
// Client.writing.
type layout struct {
	path  string
	fs    atomicfile.FS
	files layoutFiles
	tar   bool
}

// layout opens the layout at path for reading; one that is not there yet is an empty one.
func (c *Client) layout(path string) (*layout, error) {
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if strings.HasSuffix(path, ".tar") {
			return &layout{path: path, fs: c.fs, files: &tarFiles{path: path}, tar: true}, nil
		}
		return &layout{path: path, fs: c.fs, files: dirFiles(path)}, nil
	}
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() {
		t, err := openTar(path)
		if err != nil {
			return nil, err
		}
		return &layout{path: path, fs: c.fs, files: t, tar: true}, nil
	}
	return &layout{path: path, fs: c.fs, files: dirFiles(path)}, nil
}

func badLayout(format string, a ...any) error {
	return hostabi.Errorf(hostabi.ReasonBadLayout, format, a...)
}

// dirFiles are the files below a directory. Links are not followed out of it.
type dirFiles string

func (d dirFiles) open(name string) (io.ReadSeekCloser, int64, error) {
	root, err := os.OpenRoot(string(d))
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = root.Close() }() // what was opened below it stays open
	f, err := root.Open(filepath.FromSlash(name))
	if err != nil {
		return nil, 0, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = badLayout("%s is no regular file", name)
	}
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return f, fi.Size(), nil
}

func (l *layout) read(name string, limit int64) ([]byte, error) {
	f, size, err := l.files.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	if size > limit {
		return nil, badLayout("%s has %d bytes, at most %d", name, size, limit)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, err
	}
	return b, nil
}

// index reads index.json; absent is nil.
func (l *layout) index() (*ocispec.Index, error) {
	head, err := l.read(ocispec.ImageLayoutFile, 4<<10)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := l.read(indexFile, maxIndex); err == nil {
			return nil, badLayout("there is no file oci-layout")
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var version ocispec.ImageLayout
	if json.Unmarshal(head, &version) != nil || version.Version != ocispec.ImageLayoutVersion {
		return nil, badLayout("oci-layout has the version %q, want %s", clip(version.Version, 20), ocispec.ImageLayoutVersion)
	}
	b, err := l.read(indexFile, maxIndex)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a first push was interrupted
	}
	if err != nil {
		return nil, err
	}
	return parseIndex(b)
}

func parseIndex(b []byte) (*ocispec.Index, error) {
	var index ocispec.Index
	if err := json.Unmarshal(b, &index); err != nil {
		return nil, badLayout("index.json is no JSON: %v", err)
	}
	for _, d := range index.Manifests {
		if _, err := fromOCI(d); err != nil {
			return nil, badLayout("index.json lists a bad descriptor: %v", err)
		}
	}
	return &index, nil
}

func blobName(d hostabi.Digest) string { return "blobs/sha256/" + d.Hex() }

func notFound(format string, a ...any) error {
	return hostabi.Errorf(hostabi.ReasonRefNotFound, format, a...)
}

func (l *layout) source() string { return "" }

// resolve finds a digest, or a tag. Without either it is the tag latest, else the only entry there is.
func (l *layout) resolve(_ context.Context, tag string, d hostabi.Digest) (hostabi.Descriptor, error) {
	index, err := l.index()
	if err != nil {
		return hostabi.Descriptor{}, err
	}
	if index == nil {
		return hostabi.Descriptor{}, notFound("there is no layout at %s", l.path)
	}
	if d != "" {
		return l.byDigest(index, d)
	}
	for _, e := range index.Manifests {
		if e.Annotations[tagKey] == tag {
			return untagged(e)
		}
	}
	if tag == defaultTag && len(index.Manifests) == 1 && index.Manifests[0].Annotations[tagKey] == "" {
		return untagged(index.Manifests[0])
	}
	return hostabi.Descriptor{}, notFound("there is no tag %s", tag)
}

func (l *layout) byDigest(index *ocispec.Index, d hostabi.Digest) (hostabi.Descriptor, error) {
	for _, e := range index.Manifests {
		if string(e.Digest) == string(d) {
			return untagged(e)
		}
	}
	body, err := l.read(blobName(d), maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return hostabi.Descriptor{}, notFound("there is no %s", d)
	}
	if err != nil {
		return hostabi.Descriptor{}, err
	}
	mediaType := sniffType(body)
	if mediaType == "" {
		return hostabi.Descriptor{}, notFound("%s is no manifest", d)
	}
	return hostabi.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(body))}, nil
}

// untagged is an entry without what the index adds to it.
func untagged(e ociDescriptor) (hostabi.Descriptor, error) {
	d, err := fromOCI(e)
	delete(d.Annotations, tagKey)
	if len(d.Annotations) == 0 {
		d.Annotations = nil
	}
	return d, err
}

func (l *layout) manifest(_ context.Context, d hostabi.Descriptor) ([]byte, error) {
	b, err := l.read(blobName(d.Digest), maxManifest)
	if err != nil {
		return nil, missing(d, err)
	}
	if int64(len(b)) != d.Size || hostabi.DigestOf(b) != d.Digest {
		return nil, hostabi.Errorf(hostabi.ReasonDigestMismatch, "the file of %s has other content", d.Digest)
	}
	return b, nil
}

func missing(d hostabi.Descriptor, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return notFound("there is no blob %s", d.Digest)
	}
	return err
}

func (l *layout) blob(_ context.Context, d hostabi.Descriptor) io.ReadSeekCloser {
	return &lazyReader{open: func() (io.ReadSeekCloser, error) {
		f, size, err := l.files.open(blobName(d.Digest))
		if err != nil {
			return nil, missing(d, err)
		}
		if size != d.Size {
			_ = f.Close()
			return nil, hostabi.Errorf(hostabi.ReasonDigestMismatch, "the file of %s has %d bytes, want %d", d.Digest, size, d.Size)
		}
		return f, nil
	}}
}

// lazyReader opens at the first use.
type lazyReader struct {
	open func() (io.ReadSeekCloser, error)
	r    io.ReadSeekCloser
}

func (l *lazyReader) begin() (err error) {
	if l.r == nil {
		l.r, err = l.open()
	}
	return err
}

func (l *lazyReader) Read(p []byte) (int, error) {
	if err := l.begin(); err != nil {
		return 0, err
	}
	return l.r.Read(p)
}

func (l *lazyReader) Seek(offset int64, whence int) (int64, error) {
	if err := l.begin(); err != nil {
		return 0, err
	}
	return l.r.Seek(offset, whence)
}

func (l *lazyReader) Close() error {
	if l.r == nil {
		return nil
	}
	return l.r.Close()
}

func (l *layout) tags(_ context.Context, yield func(string) error) error {
	index, err := l.index()
	if err != nil {
		return err
	}
	if index == nil {
		return notFound("there is no layout at %s", l.path)
	}
	for _, e := range index.Manifests {
		if t := e.Annotations[tagKey]; t != "" {
			if err := yield(t); err != nil {
				return err
			}
		}
	}
	return nil
}

// referrers are all entries without a tag: the caller looks at the subject of each.
func (l *layout) referrers(context.Context, hostabi.Digest) (list []hostabi.Descriptor, err error) {
	index, err := l.index()
	if index == nil || err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	for _, e := range index.Manifests {
		if seen[string(e.Digest)] || !isManifest(e.MediaType) {
			continue
		}
		seen[string(e.Digest)] = true
		d, err := untagged(e)
		if err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	return list, nil
}

func (l *layout) has(_ context.Context, d hostabi.Descriptor) (bool, error) {
	f, size, err := l.files.open(blobName(d.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return size == d.Size, f.Close()
}

func (l *layout) mount(context.Context, hostabi.Descriptor, string) bool { return false }

// writable makes the directories and the file oci-layout.
func (l *layout) writable() error {
	if err := atomicfile.MkdirAll(l.fs, filepath.Join(l.path, "blobs", "sha256"), 0o755); err != nil {
		return err
	}
	name := filepath.Join(l.path, ocispec.ImageLayoutFile)
	if _, err := l.fs.Lstat(name); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return atomicfile.Write(l.fs, name, []byte(`{"imageLayoutVersion":"`+ocispec.ImageLayoutVersion+`"}`), 0o644)
}

// put writes a blob: hashed on the way, visible by one rename.
func (l *layout) put(_ context.Context, d hostabi.Descriptor, src io.ReadSeeker, count func(int64)) (err error) {
	if err := l.writable(); err != nil {
		return err
	}
	dir := filepath.Join(l.path, "blobs", "sha256")
	tmp, err := os.CreateTemp(dir, "."+d.Digest.Hex()[:12]+".*"+atomicfile.TempSuffix)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = tmp.Close()
			_ = os.Remove(tmp.Name()) // swept with the layout otherwise
		}
	}()
	if _, err := src.Seek(0, io.SeekStart); err != nil {
		return err
	}
	h := sha256.New()
	body := &uploadBody{src: io.LimitReader(src, d.Size+1), count: count}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(tmp, h)}, body, make([]byte, 256<<10))
	if err != nil {
		return err
	}
	if n != d.Size || hostabi.DigestFromSum(h.Sum(nil)) != d.Digest {
		return hostabi.Errorf(hostabi.ReasonDigestMismatch, "the content for %s has another digest or size", d.Digest)
	}
	if err := tmp.Chmod(0o444); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if err := errors.Join(tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return l.fs.Rename(tmp.Name(), filepath.Join(l.path, filepath.FromSlash(blobName(d.Digest))))
}

// putManifest writes a manifest. One with a subject is listed at once: that is how referrers are found.
func (l *layout) putManifest(ctx context.Context, d hostabi.Descriptor, body []byte) error {
	if ok, err := l.has(ctx, d); err != nil || !ok {
		if err != nil {
			return err
		}
		if err := l.put(ctx, d, bytes.NewReader(body), nil); err != nil {
			return err
		}
	}
	m, err := parseManifest(d, body)
	if err != nil || m.Subject == nil {
		return err
	}
	d.ArtifactType, d.Annotations = m.kind(), m.Annotations
	return l.list(ctx, d, "")
}

// tag lists d in index.json under a tag, or without one.
func (l *layout) tag(ctx context.Context, d hostabi.Descriptor, body []byte, tag string) error {
	if err := l.putManifest(ctx, d, body); err != nil {
		return err
	}
	if m, err := parseManifest(d, body); err == nil {
		d.ArtifactType = m.ArtifactType
	}
	return l.list(ctx, d, tag)
}

// list adds an entry to index.json under the lock. The blobs are durable before it.
func (l *layout) list(ctx context.Context, d hostabi.Descriptor, tag string) (err error) {
	if err := l.writable(); err != nil {
		return err
	}
	if err := l.fs.SyncDir(filepath.Join(l.path, "blobs", "sha256")); err != nil {
		return err
	}
	unlock, err := l.fs.Lock(ctx, filepath.Join(l.path, layoutLock))
	if err != nil {
		if errors.Is(err, atomicfile.ErrLocked) {
			return hostabi.Errorf(hostabi.ReasonLockHeld, "another process holds %s", layoutLock)
		}
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	index, err := l.index()
	if err != nil {
		return err
	}
	if index == nil {
		index = &ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaIndex}
	}
	if !enlist(index, d, tag) {
		return nil
	}
	b, err := json.Marshal(index)
	if err != nil {
		return err
	}
	if len(b) > maxIndex {
		return badLayout("index.json would have %d bytes, at most %d", len(b), maxIndex)
	}
	return atomicfile.Write(l.fs, filepath.Join(l.path, indexFile), b, 0o644)
}

// enlist puts d under tag and reports whether the index changed. What had the tag stays listed without it.
func enlist(index *ocispec.Index, d hostabi.Descriptor, tag string) bool {
	same := func(e ociDescriptor) bool { return string(e.Digest) == string(d.Digest) }
	for _, e := range index.Manifests {
		if same(e) && (tag == "" || e.Annotations[tagKey] == tag) {
			return false
		}
	}
	entry := toOCI(d)
	entry.Platform = nil
	if tag != "" {
		entry.Annotations = maps.Clone(entry.Annotations)
		if entry.Annotations == nil {
			entry.Annotations = make(map[string]string)
		}
		entry.Annotations[tagKey] = tag
		index.Manifests = slices.DeleteFunc(index.Manifests, func(e ociDescriptor) bool {
			return same(e) && e.Annotations[tagKey] == "" // listed with a tag from here on
		})
		for i, e := range index.Manifests {
			if e.Annotations[tagKey] == tag {
				untag(index, i)
				break
			}
		}
	}
	index.Manifests = append(index.Manifests, entry)
	return true
}

// untag takes the tag from entry i, or the entry away if its digest is listed elsewhere too.
func untag(index *ocispec.Index, i int) {
	old := index.Manifests[i]
	for j, e := range index.Manifests {
		if j != i && e.Digest == old.Digest {
			index.Manifests = slices.Delete(index.Manifests, i, i+1)
			return
		}
	}
	old.Annotations = maps.Clone(old.Annotations)
	delete(old.Annotations, tagKey)
	index.Manifests[i] = old
}
