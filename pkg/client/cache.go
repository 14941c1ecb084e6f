package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1lite"
)

// Cache is the host's content-addressed cache as far as the plugin may see it.
type Cache struct{ c *Client }

// Cache gives access to the host's cache.
func (c *Client) Cache() *Cache { return &Cache{c} }

type blobOptions struct {
	digest    Digest
	size      int64
	mediaType string
	source    string
	ttl       time.Duration
}

// BlobOption says what a blob will be.
type BlobOption func(*blobOptions)

// WithExpected makes Commit fail with ErrDigest for other content; an empty digest or a size of 0 is not
// checked.
func WithExpected(d Digest, size int64) BlobOption {
	return func(o *blobOptions) { o.digest, o.size = d, size }
}

// WithMediaType records the media type of a blob.
func WithMediaType(t string) BlobOption { return func(o *blobOptions) { o.mediaType = t } }

// WithRepository makes a blob count as pulled from a repository, "ghcr.io/acme/app"; it needs cache.write any.
func WithRepository(repo string) BlobOption { return func(o *blobOptions) { o.source = repo } }

type listOptions struct{ source string }

// ListOption narrows List.
type ListOption func(*listOptions)

// WithSource lists only blobs pulled from a repository, "ghcr.io/acme/app".
func WithSource(repo string) ListOption { return func(o *listOptions) { o.source = repo } }

// Stat says what the cache knows of a blob: ErrNotFound when it is absent or not the plugin's to see.
func (c *Cache) Stat(ctx context.Context, d Digest) (BlobInfo, error) {
	var info hostv1lite.BlobInfo
	if err := c.c.invoke(ctx, hostv1lite.CacheStat, &hostv1lite.BlobRef{Digest: string(d)}, &info); err != nil {
		return BlobInfo{}, err
	}
	return blobInfo(&info), nil
}

// List yields the blobs that the plugin may see; an error is the last pair.
func (c *Cache) List(ctx context.Context, opts ...ListOption) iter.Seq2[BlobInfo, error] {
	var o listOptions
	for _, opt := range opts {
		opt(&o)
	}
	return sequence(ctx, c.c, hostv1lite.CacheList, &hostv1lite.ListBlobsRequest{Source: o.source}, blobInfo)
}

// Pin keeps a blob from eviction for ttl; 0 takes the pin away.
func (c *Cache) Pin(ctx context.Context, d Digest, ttl time.Duration) error {
	return c.c.invoke(ctx, hostv1lite.CachePin, &hostv1lite.PinRequest{Digest: string(d), Ttl: millis(ttl)}, &hostv1lite.Empty{})
}

// Remove gives up the plugin's claim to a blob and its pin; the blob goes when nobody else claims, pins or uses it. Of
// blobs that the plugin does not claim it needs cache.write any.
func (c *Cache) Remove(ctx context.Context, d Digest) error {
	return c.c.invoke(ctx, hostv1lite.CacheRemove, &hostv1lite.BlobRef{Digest: string(d)}, &hostv1lite.Empty{})
}

// Usage is the size of the whole cache.
func (c *Cache) Usage(ctx context.Context) (CacheUsage, error) {
	var u hostv1lite.UsageReply
	if err := c.c.invoke(ctx, hostv1lite.CacheUsage, &hostv1lite.UsageRequest{}, &u); err != nil {
		return CacheUsage{}, err
	}
	return CacheUsage{Bytes: u.Bytes, Entries: u.Entries, MaxBytes: u.MaxBytes, PinnedBytes: u.PinnedBytes, DiskBytes: u.DiskBytes}, nil
}

// Evict removes blobs of everybody and yields what it removed; an error is the last pair. The zero options mean all that
// nobody pins or uses.
func (c *Cache) Evict(ctx context.Context, o EvictOptions) iter.Seq2[BlobInfo, error] {
	req := &hostv1lite.EvictRequest{
		OlderThan: millis(o.OlderThan), MaxBytes: o.MaxBytes, ExpiredOnly: o.ExpiredOnly, DryRun: o.DryRun, Policy: o.Policy,
	}
	if o.Policy {
		req.ExpiredOnly = true // for a host that does not know Policy
	}
	return sequence(ctx, c.c, hostv1lite.CacheEvict, req, blobInfo)
}

// Verify hashes blobs, all that the plugin may see if none are named, and yields a verdict for each in any order; an error
// is the last pair. With repair what is damaged goes into quarantine.
func (c *Cache) Verify(ctx context.Context, repair bool, ds ...Digest) iter.Seq2[Verdict, error] {
	req := &hostv1lite.VerifyRequest{Repair: repair}
	for _, d := range ds {
		req.Digests = append(req.Digests, string(d))
	}
	return sequence(ctx, c.c, hostv1lite.CacheVerify, req, func(v *hostv1lite.VerifyEvent) Verdict {
		return Verdict{Digest: Digest(v.Digest), OK: v.Ok, Problem: v.Problem}
	})
}

// filer are handles and sessions' values that hold a file.
type filer interface{ File() *os.File }

// Open opens a blob for reading. While it is open it is not evicted.
func (c *Cache) Open(ctx context.Context, d Digest) (*Blob, error) {
	for again := false; ; again = true {
		var o hostv1lite.OpenedBlob
		req := &hostv1lite.OpenBlobRequest{Digest: string(d), WantFd: c.c.passesFiles()}
		if err := c.c.invoke(ctx, hostv1lite.CacheOpen, req, &o); err != nil {
			return nil, err
		}
		b := &Blob{c: c.c, handle: o.Handle, path: o.Path, info: BlobInfo{Digest: Digest(o.Digest), Size: o.Size}}
		err := b.open(&o)
		if err == nil {
			return b, nil
		}
		_ = b.Close()
		// An entry may be replaced between its lookup and our open: ask once more (cache.md section 6).
		if again || !errors.Is(err, os.ErrNotExist) {
			return nil, classify(hostabi.Errorf(hostabi.ReasonNotCached, "blob %s: %w", d, err))
		}
	}
}

// passesFiles reports whether the carrier can pass descriptors, which reach where paths do not.
func (c *Client) passesFiles() bool {
	s, err := c.Session()
	if err != nil {
		return false
	}
	p, ok := s.(interface{ PassesFiles() bool })
	return ok && p.PassesFiles()
}

// Blob is an open blob. Its methods but Close may be used concurrently as those of os.File.
type Blob struct {
	c      *Client
	handle uint32
	path   string
	info   BlobInfo
	f      *os.File
	own    bool  // Close closes f
	temp   bool  // and removes it
	read   int64 // bytes taken from h alone
	h      io.ReadWriteCloser
	closed bool
}

// open finds the bytes: a passed descriptor, else a path, else the handle itself.
func (b *Blob) open(o *hostv1lite.OpenedBlob) error {
	s, err := b.c.Session()
	if err != nil {
		return err
	}
	if o.HasFd {
		if b.h, err = s.Handle(o.Handle); err != nil {
			return err
		}
		if f, ok := b.h.(filer); ok {
			b.f = f.File()
		}
		return nil
	}
	if o.Path != "" {
		if b.f, err = os.Open(o.Path); err == nil {
			b.own = true
			return nil
		}
	}
	h, herr := s.Handle(o.Handle)
	if herr != nil {
		return errors.Join(err, herr)
	}
	b.h, b.path = h, ""
	return nil
}

// file makes b a file if it is only a handle, which can be read in order and no other way: a second handle
// is copied to a temporary file.
func (b *Blob) file() (*os.File, error) {
	if b.closed {
		return nil, os.ErrClosed
	}
	if b.f != nil {
		return b.f, nil
	}
	f, err := os.CreateTemp("", "blob-*")
	if err != nil {
		return nil, classify(hostabi.Errorf(hostabi.ReasonReadOnly, "blob: neither its file nor a temporary one can be opened: %w", err))
	}
	if err = b.copyTo(f); err == nil {
		_, err = f.Seek(b.read, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	b.f, b.own, b.temp = f, true, true
	return f, nil
}

func (b *Blob) copyTo(f *os.File) error {
	var o hostv1lite.OpenedBlob
	req := &hostv1lite.OpenBlobRequest{Digest: string(b.info.Digest)}
	if err := b.c.invoke(context.Background(), hostv1lite.CacheOpen, req, &o); err != nil {
		return err
	}
	s, err := b.c.Session()
	if err != nil {
		return err
	}
	h, err := s.Handle(o.Handle)
	if err == nil {
		_, err = io.CopyBuffer(onlyWriter{f}, onlyReader{h}, make([]byte, chunk))
	}
	return errors.Join(err, b.c.release(o.Handle))
}

// Read implements io.Reader.
func (b *Blob) Read(p []byte) (int, error) {
	switch {
	case b.closed:
		return 0, os.ErrClosed
	case b.f != nil:
		return b.f.Read(p)
	}
	n, err := b.h.Read(p)
	b.read += int64(n)
	return n, err
}

// WriteTo implements io.WriterTo, so that copies between files can stay in the kernel.
func (b *Blob) WriteTo(w io.Writer) (int64, error) {
	switch {
	case b.closed:
		return 0, os.ErrClosed
	case b.f != nil:
		return io.Copy(w, b.f)
	}
	n, err := io.CopyBuffer(onlyWriter{w}, onlyReader{b.h}, make([]byte, chunk))
	b.read += n
	return n, err
}

type onlyReader struct{ io.Reader }

// ReadAt implements io.ReaderAt.
func (b *Blob) ReadAt(p []byte, off int64) (int, error) {
	f, err := b.file()
	if err != nil {
		return 0, err
	}
	return f.ReadAt(p, off)
}

// Seek implements io.Seeker.
func (b *Blob) Seek(offset int64, whence int) (int64, error) {
	f, err := b.file()
	if err != nil {
		return 0, err
	}
	return f.Seek(offset, whence)
}

// Path is where other programs and libraries can read the blob until Close; it may be empty when the host
// passed a descriptor only.
func (b *Blob) Path() string { return b.path }

// Info is digest and size; Cache.Stat knows more.
func (b *Blob) Info() BlobInfo { return b.info }

// Close releases the blob. It is idempotent.
func (b *Blob) Close() error {
	if b.closed {
		return nil
	}
	b.closed = true
	var errs []error
	if b.own {
		errs = append(errs, b.f.Close())
	}
	if b.temp {
		errs = append(errs, os.Remove(b.f.Name()))
	}
	if b.h != nil {
		errs = append(errs, b.h.Close())
	}
	return errors.Join(append(errs, b.c.release(b.handle))...)
}

// release closes a handle at the host. The carrier may have done so already.
func (c *Client) release(handle uint32) error {
	err := c.invoke(context.Background(), hostv1lite.CacheClose, &hostv1lite.HandleRef{Handle: handle}, &hostv1lite.Empty{})
	if hostabi.ReasonOf(err) == hostabi.ReasonBadHandle {
		return nil
	}
	return err
}

// Put stores what r yields.
func (c *Cache) Put(ctx context.Context, r io.Reader, opts ...BlobOption) (BlobInfo, error) {
	w, err := c.Create(ctx, opts...)
	if err != nil {
		return BlobInfo{}, err
	}
	defer func() { _ = w.Close() }() // after Commit it does nothing
	if _, err := io.CopyBuffer(onlyWriter{w}, r, make([]byte, chunk)); err != nil {
		return BlobInfo{}, err
	}
	return w.Commit(ctx)
}

type onlyWriter struct{ io.Writer }

// Create opens a writer for a blob. Nothing is in the cache before Commit.
func (c *Cache) Create(ctx context.Context, opts ...BlobOption) (*BlobWriter, error) {
	var o blobOptions
	for _, opt := range opts {
		opt(&o)
	}
	var opened hostv1lite.OpenedBlob
	req := &hostv1lite.CreateBlobRequest{Digest: string(o.digest), Size: o.size, MediaType: o.mediaType, Ttl: millis(o.ttl), Source: o.source}
	if err := c.c.invoke(ctx, hostv1lite.CacheCreate, req, &opened); err != nil {
		return nil, err
	}
	w := &BlobWriter{c: c.c, handle: opened.Handle, path: opened.Path, digest: o.digest}
	if err := w.open(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// BlobWriter receives the bytes of one blob.
type BlobWriter struct {
	c      *Client
	handle uint32
	path   string
	digest Digest
	w      io.WriteCloser
	done   bool
}

// open prefers the path of a native plugin; in WASM the handle is written to directly.
func (w *BlobWriter) open() error {
	if w.path != "" && !hostBlocks {
		f, err := os.OpenFile(w.path, os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			return classify(hostabi.Errorf(hostabi.ReasonReadOnly, "sink: %w", err))
		}
		w.w = f
		return nil
	}
	s, err := w.c.Session()
	if err != nil {
		return err
	}
	h, err := s.Handle(w.handle)
	if err != nil {
		return classify(err)
	}
	w.w = h
	return nil
}

// Write implements io.Writer.
func (w *BlobWriter) Write(p []byte) (int, error) {
	if w.done {
		return 0, os.ErrClosed
	}
	n, err := w.w.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return n, err
}

// Path is where other programs can write the content, until Commit.
func (w *BlobWriter) Path() string { return w.path }

// Commit checks the content and publishes it: ErrDigest if it is not what WithExpected said. The writer is
// done afterwards.
func (w *BlobWriter) Commit(ctx context.Context) (BlobInfo, error) {
	if w.done {
		return BlobInfo{}, os.ErrClosed
	}
	w.done = true
	if f, ok := w.w.(*os.File); ok {
		if err := f.Close(); err != nil {
			return BlobInfo{}, errors.Join(classify(hostabi.Errorf(hostabi.ReasonReadOnly, "sink: %w", err)), w.c.release(w.handle))
		}
	}
	var info hostv1lite.BlobInfo
	if err := w.c.invoke(ctx, hostv1lite.CacheCommit, &hostv1lite.CommitRequest{Handle: w.handle, Digest: string(w.digest)}, &info); err != nil {
		return BlobInfo{}, err
	}
	return blobInfo(&info), nil
}

// Close discards what was not committed. It is idempotent.
func (w *BlobWriter) Close() error {
	if w.done {
		return nil
	}
	w.done = true
	if f, ok := w.w.(*os.File); ok {
		f.Close()
	}
	return w.c.release(w.handle)
}
