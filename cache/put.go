package cache

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

// Create opens a writer for the host's own work: no claim, no source. A known digest is staged where the next
// process can resume it; Create then waits while another process ingests the same digest and answers EXISTS
// when that one finished. The writer holds a lock until Commit or Abort: one at a time per goroutine.
func (s *Store) Create(ctx context.Context, want hostabi.Descriptor) (hostabi.BlobWriter, error) {
	return s.open(ctx, nil, want)
}

// open makes the writer of a view, nil for the host's own.
func (s *Store) open(ctx context.Context, v *View, want hostabi.Descriptor) (hostabi.BlobWriter, error) {
	if ctx.Err() != nil {
		return nil, ctxError(ctx)
	}
	if want.Digest != "" {
		if err := badDigest(want.Digest); err != nil {
			return nil, err
		}
	}
	if want.Digest == "" || v.isPlugin() {
		return s.private(ctx, v, want)
	}
	return s.shared(ctx, v, want)
}

// writer stages one blob. It is the BlobWriter of all callers.
type writer struct {
	s      *Store
	view   *View // nil for the host's own work
	want   hostabi.Descriptor
	ttl    time.Duration
	dir    string // staging: blob, then metadata.json, then renamed as a whole
	f      atomicfile.File
	hash   hash.Hash
	size   int64          // bytes that are staged, the prefix included
	offset int64          // length of the prefix
	quota  int64          // bytes that may still be written, -1 = no limit
	flown  hostabi.Digest // shared staging: the digest that is locked
	unlock func() error
	tier   bool  // all of it is there already
	err    error // sticky
	done   bool
}

// private stages in the run directory, without any lock.
func (s *Store) private(ctx context.Context, v *View, want hostabi.Descriptor) (hostabi.BlobWriter, error) {
	w := &writer{s: s, view: v, want: want, hash: sha256.New(), quota: -1}
	if err := v.admit(ctx, w); err != nil {
		return nil, err
	}
	err := s.withSpace(want.Size, func() error { return s.inRun(w.stage) })
	if err != nil {
		return nil, s.fail(err)
	}
	return w, nil
}

// stage makes private staging in r.
func (w *writer) stage(r *run) (err error) {
	f := w.s.fs
	w.dir = r.path("s")
	if err = f.Mkdir(w.dir, 0o700); err != nil {
		return err
	}
	// A writable descriptor of a read-only file saves the chmod at the end.
	w.f, err = f.Open(filepath.Join(w.dir, "blob"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		_ = f.Remove(w.dir) // else goes with the run directory
	}
	return err
}

// Offset is the length of the prefix that is staged already.
func (w *writer) Offset() int64 { return w.offset }

// Expect states what is known only at Commit; empty members keep what Create was given. A ttl is an absolute
// expiry.
func (w *writer) Expect(want hostabi.Descriptor, ttl time.Duration) {
	if want.Digest != "" {
		if w.want.Digest != "" && w.want.Digest != want.Digest {
			w.err = mismatch("blob was created as %s and is committed as %s", w.want.Digest, want.Digest)
		}
		w.want.Digest = want.Digest
	}
	if want.Size > 0 {
		w.want.Size = want.Size
	}
	if want.MediaType != "" {
		w.want.MediaType = want.MediaType
	}
	if want.Annotations != nil {
		w.want.Annotations = want.Annotations
	}
	if ttl > 0 {
		w.ttl = ttl
	}
}

// Write stages p after what is there. After an error the writer takes nothing more.
func (w *writer) Write(p []byte) (int, error) {
	switch {
	case w.done:
		return 0, fs.ErrClosed
	case w.err != nil:
		return 0, w.err
	case w.known() && w.size+int64(len(p)) > w.want.Size:
		w.err = mismatch("%s is longer than its %d bytes", w.name(), w.want.Size)
		return 0, w.err
	case w.quota >= 0 && w.size-w.offset+int64(len(p)) > w.quota:
		w.err = overQuota(w.view.owner, w.view.quota)
		return 0, w.err
	}
	n, err := w.writeAt(p)
	_, _ = w.hash.Write(p[:n]) // a hash does not fail
	w.size += int64(n)
	w.s.count("bytes", "dir", "in", int64(n))
	if err != nil {
		w.err = w.s.fail(err)
		return n, w.err
	}
	return n, nil
}

// writeAt repeats once after freeing space when the disk is full.
func (w *writer) writeAt(p []byte) (int, error) {
	n, err := w.f.WriteAt(p, w.size)
	if err == nil || !isFull(err) {
		return n, err
	}
	w.s.freeSpace(max(int64(len(p)), w.want.Size-w.size))
	more, err := w.f.WriteAt(p[n:], w.size+int64(n))
	return n + more, err
}

// known reports whether the size is: a zero is one for the empty blob only.
func (w *writer) known() bool {
	return w.want.Size > 0 || w.want.Size == 0 && w.want.Digest == hostabi.DigestOf(nil)
}

func (w *writer) name() string {
	if w.want.Digest != "" {
		return string(w.want.Digest)
	}
	return "blob"
}

// Commit checks size and digest and publishes the blob by one rename. Whatever happens, the writer is done.
func (w *writer) Commit(ctx context.Context) (hostabi.BlobInfo, error) {
	if w.done {
		return hostabi.BlobInfo{}, hostabi.Errorf(hostabi.ReasonInternal, "blob writer is closed")
	}
	if w.err == nil && ctx.Err() != nil {
		w.err = ctxError(ctx)
		_ = w.Abort() // keeps the prefix if it can
		return hostabi.BlobInfo{}, w.err
	}
	info, err := w.commit(ctx)
	if err != nil {
		_ = w.end(false) // staging that cannot be removed is swept later
		return hostabi.BlobInfo{}, err
	}
	return info, w.s.fail(w.end(false))
}

func (w *writer) commit(ctx context.Context) (hostabi.BlobInfo, error) {
	none := hostabi.BlobInfo{}
	got := hostabi.DigestFromSum(w.hash.Sum(nil))
	switch {
	case w.err != nil:
		return none, w.err
	case w.known() && w.size != w.want.Size:
		return none, mismatch("%s has %d bytes, want %d", w.name(), w.size, w.want.Size)
	case w.want.Digest != "" && w.want.Digest != got:
		return none, mismatch("content is %s, want %s", got, w.want.Digest)
	}
	meta, disk, err := w.seal(got)
	if err != nil {
		return none, w.s.fail(err)
	}
	undo, err := w.view.committing(got, w.size)
	if err != nil {
		return none, err
	}
	published, err := w.publish(ctx, got)
	now := w.s.now()
	h := head{expires: w.expires(now)}
	if published { // also when it could not be made durable
		w.s.logged(putRecord(got, w.size, disk, now.UnixNano(), unixSeconds(h.expires)))
	}
	if err != nil {
		undo()
		return none, w.s.fail(err)
	}
	if !published {
		w.s.addSource(ctx, got, w.view.repository(), w.unlock != nil)
		if info, err := w.s.describe(got); err == nil {
			return info, nil
		}
		return meta.info(head{}), nil // evicted just now, like a blob that was committed before
	}
	w.s.count("hashed_bytes", "why", "put", w.size)
	if w.flown != "" && !w.tier {
		w.s.remote.offer(w.view, hostabi.Descriptor{Digest: got, Size: w.size})
	}
	info := meta.info(h)
	info.Used = now
	return info, nil
}

func (w *writer) expires(now time.Time) time.Time {
	if w.ttl <= 0 {
		return time.Time{}
	}
	return now.Add(w.ttl).UTC().Truncate(time.Second)
}

// seal makes the staged directory what readers will see: the blob read-only and closed, metadata.json with
// its stamp.
func (w *writer) seal(d hostabi.Digest) (*metadata, int64, error) {
	s := w.s
	if w.unlock != nil { // shared staging is writable until here
		if err := w.f.Chmod(0o400); err != nil {
			return nil, 0, err
		}
	}
	if s.durable {
		if err := w.f.Sync(); err != nil {
			return nil, 0, err
		}
	}
	fi, err := w.f.Stat()
	if err != nil {
		return nil, 0, err
	}
	id, err := atomicfile.FileID(w.f)
	if err != nil {
		return nil, 0, err
	}
	f := w.f
	w.f = nil
	if err := f.Close(); err != nil {
		return nil, 0, err
	}
	boot := s.boot
	if s.durable {
		boot = durableBoot
	}
	now := s.now()
	meta := &metadata{
		Stamp: stampOf(boot, d, id), Expires: formatExpires(w.expires(now)), Digest: d, Size: w.size, MediaType: w.want.MediaType,
		Created: now.UTC().Format(timeLayout), Durable: s.durable, Annotations: w.want.Annotations,
	}
	if src := w.view.repository(); src != "" {
		meta.Sources = []string{src}
	}
	b, err := meta.encode()
	if err != nil {
		return nil, 0, err
	}
	var n int64
	err = s.withSpace(int64(len(b)), func() (err error) {
		n, err = s.writeMeta(filepath.Join(w.dir, "metadata.json"), b)
		return err
	})
	if err == nil && s.durable {
		err = s.fs.SyncDir(w.dir)
	}
	return meta, n + atomicfile.DiskBytes(fi), err
}

// writeMeta writes metadata.json of a staged entry and tells the disk bytes that it takes.
func (s *Store) writeMeta(name string, b []byte) (int64, error) {
	f, err := s.fs.Open(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	_, err = f.Write(b)
	if err == nil && s.durable {
		err = f.Sync()
	}
	var disk int64
	fi, serr := f.Stat()
	if serr == nil {
		disk = atomicfile.DiskBytes(fi)
	}
	return disk, errors.Join(err, serr, f.Close())
}

// publish renames the staged directory to its place. published is false if a valid blob is there already:
// then ours is of no use.
func (w *writer) publish(ctx context.Context, d hostabi.Digest) (published bool, err error) {
	s := w.s
	_, _ = s.theRun() // from here on gc notices that we were killed before the record; without it the record is lost
	for range 3 {
		err = s.inDir(s.artifacts(), func() error { return s.withSpace(0, func() error { return s.fs.Rename(w.dir, s.entry(d)) }) })
		if err == nil {
			w.dir = ""
			if s.durable {
				err = s.fs.SyncDir(s.artifacts())
			}
			return true, err
		}
		if _, lerr := s.fs.Lstat(s.entry(d)); lerr != nil {
			return false, err
		}
		switch gerr := s.present(ctx, d); {
		case gerr == nil:
			return false, nil
		case !isMiss(gerr):
			return false, gerr
		}
		// Corrupt is in quarantine by now; what is left is expired or lacks a file.
		if derr := s.discard(s.entry(d)); derr != nil {
			return false, derr
		}
	}
	return false, err
}

// Abort gives up. A staged prefix of a known digest is kept for the next one that wants it, unless it is
// known to be wrong.
func (w *writer) Abort() error {
	if w.done {
		return nil
	}
	return w.s.fail(w.end(w.unlock != nil && w.size > 0 && !w.wrong()))
}

// wrong reports whether the staged bytes are of no use: they do not fit, or the disk is full.
func (w *writer) wrong() bool {
	switch hostabi.ReasonOf(w.err) {
	case "", hostabi.ReasonInterrupted, hostabi.ReasonTimeout:
		return false
	default:
		return true
	}
}

// end releases what the writer holds. Staging is removed unless it became the entry or is kept.
func (w *writer) end(keep bool) error {
	w.done = true
	var err error
	if w.f != nil {
		err = w.f.Close()
		w.f = nil
	}
	if w.dir != "" && !keep {
		err = errors.Join(err, atomicfile.RemoveAll(w.s.fs, w.dir))
	}
	return errors.Join(err, w.leave())
}
