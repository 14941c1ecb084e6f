package cache

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

// touchAfter is how old the time of last use may get before a hit renews it.
const touchAfter = time.Hour

const maxTouched = 4096 // blobs of which a process remembers when it looks at that time again

// Stat describes a blob that is present and right: it is hashed first if its stamp does not prove that.
func (s *Store) Stat(ctx context.Context, d hostabi.Digest) (hostabi.BlobInfo, error) {
	if err := badDigest(d); err != nil {
		return hostabi.BlobInfo{}, err
	}
	f, err := s.look(ctx, d, false)
	if err != nil {
		return hostabi.BlobInfo{}, err
	}
	if f != nil {
		_ = f.Close() // read only
	}
	return s.describe(d)
}

// Open opens a blob for reading; the caller closes it. The descriptor stays good when the blob is evicted.
func (s *Store) Open(ctx context.Context, d hostabi.Digest) (*os.File, error) {
	if err := badDigest(d); err != nil {
		return nil, err
	}
	f, err := s.look(ctx, d, true)
	if err != nil {
		return nil, err
	}
	if f.OS() == nil {
		_ = f.Close()
		return nil, hostabi.Errorf(hostabi.ReasonInternal, "%s: blobs of a simulation have no file", d)
	}
	return f.OS(), nil
}

// get answers whether d is present and right, with its open file if keep.
func (s *Store) get(ctx context.Context, d hostabi.Digest, keep bool) (atomicfile.File, error) {
	for tries := 0; ; tries++ {
		h, err := s.readHead(d)
		if err != nil {
			return nil, s.missed(d, err)
		}
		if !h.expires.IsZero() && !s.now().Before(h.expires) {
			return nil, missFor(d, errExpired)
		}
		f, id, err := s.identify(d, keep)
		if err != nil {
			return nil, s.missed(d, err)
		}
		if (tries > 0 || s.o.Verify != VerifyAlways) && (s.stamped(h.stamp, d, id) || s.hashed(d, id)) {
			s.touch(d)
			return f, nil
		}
		if f != nil {
			_ = f.Close() // read only
		}
		if tries == 3 { // somebody writes to it all the time
			return nil, missFor(d, errCorrupt)
		}
		if err := s.rehash(ctx, d); err != nil {
			return nil, err
		}
	}
}

// look is get with the result counted.
func (s *Store) look(ctx context.Context, d hostabi.Digest, keep bool) (atomicfile.File, error) {
	f, err := s.get(ctx, d, keep)
	result := "hit"
	switch {
	case errors.Is(err, errExpired):
		result = "expired"
	case errors.Is(err, errCorrupt):
		result = "corrupt"
	case isMiss(err):
		result = "miss"
	case err != nil:
		return f, err
	}
	s.count("requests", "result", result, 1)
	return f, err
}

// present is get for those who want no file.
func (s *Store) present(ctx context.Context, d hostabi.Digest) error {
	f, err := s.get(ctx, d, false)
	if f != nil {
		_ = f.Close() // read only
	}
	return err
}

// missed answers a miss. An entry that is gone between two steps is one like an entry that never was; what
// else keeps it from being read is told.
func (s *Store) missed(d hostabi.Digest, err error) error {
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errHead) {
		s.log.Warn("cached blob cannot be read", "digest", d, "error", err)
	}
	return miss(d)
}

// readHead reads the fixed start of metadata.json with one pread.
func (s *Store) readHead(d hostabi.Digest) (head, error) {
	var b [headLen]byte
	n, err := atomicfile.ReadHead(s.fs, s.meta(d), b[:])
	if err != nil {
		return head{}, err
	}
	if h, err := parseHead(b[:n]); err == nil {
		return h, nil
	}
	return s.parseWhole(d)
}

// parseWhole is the head of a metadata.json in another form. A damaged file is quarantined with its blob.
func (s *Store) parseWhole(d hostabi.Digest) (head, error) {
	f, err := s.fs.Open(s.meta(d), os.O_RDONLY, 0)
	if err != nil {
		return head{}, err
	}
	defer func() { _ = f.Close() }() // read only
	all, err := io.ReadAll(io.NewSectionReader(f, 0, maxMeta))
	if err != nil {
		return head{}, err
	}
	m, h, err := parseMeta(all)
	if err != nil || m.Digest != d {
		if fi, serr := f.Stat(); serr == nil {
			s.quarantine(d, fi, "metadata.json", "is damaged")
		}
		return head{}, errHead
	}
	return h, nil
}

// identify tells the state of the blob file, with the open file if keep.
func (s *Store) identify(d hostabi.Digest, keep bool) (atomicfile.File, atomicfile.ID, error) {
	if !keep {
		fi, err := s.fs.Lstat(s.blob(d))
		if err != nil {
			return nil, atomicfile.ID{}, err
		}
		if !fi.Mode().IsRegular() {
			return nil, atomicfile.ID{}, fmt.Errorf("%s is no regular file", s.blob(d))
		}
		if id, ok := atomicfile.IDOf(fi); ok {
			return nil, id, nil
		}
	}
	f, err := s.fs.Open(s.blob(d), os.O_RDONLY, 0)
	if err != nil {
		return nil, atomicfile.ID{}, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", s.blob(d))
	}
	var id atomicfile.ID
	if err == nil {
		var ok bool
		if id, ok = atomicfile.IDOf(fi); !ok {
			id, err = atomicfile.FileID(f)
		}
	}
	if err != nil || !keep {
		_ = f.Close() // read only
		f = nil
	}
	return f, id, err
}

// touch notes the use of an entry for eviction, at most once an hour. A read-only cache stays as it is.
func (s *Store) touch(d hostabi.Digest) {
	now := s.now()
	s.mu.Lock()
	due := !now.Before(s.touched[d])
	s.mu.Unlock()
	if !due {
		return
	}
	fi, err := s.fs.Lstat(s.entry(d))
	if err != nil {
		return
	}
	last := fi.ModTime()
	switch age := now.Sub(last); {
	case age > touchAfter:
		_ = s.fs.Chtimes(s.entry(d), now)
		last = now
	case age < 0: // a clock jumped
		last = now
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.touched) >= maxTouched {
		clear(s.touched)
	}
	s.touched[d] = last.Add(touchAfter)
}

// describe reads what is known of a blob without looking at its bytes. The error is a miss for an entry that
// is not there, half or expired.
func (s *Store) describe(d hostabi.Digest) (hostabi.BlobInfo, error) {
	b, err := atomicfile.ReadFile(s.fs, s.meta(d), maxMeta)
	if err != nil {
		return hostabi.BlobInfo{}, miss(d)
	}
	m, h, err := parseMeta(b)
	if err != nil || m.Digest != d || !h.expires.IsZero() && !s.now().Before(h.expires) {
		return hostabi.BlobInfo{}, miss(d)
	}
	dir, err := s.fs.Lstat(s.entry(d))
	if err != nil {
		return hostabi.BlobInfo{}, miss(d)
	}
	if _, err := s.fs.Lstat(s.blob(d)); err != nil {
		return hostabi.BlobInfo{}, miss(d)
	}
	info := m.info(h)
	info.Used = dir.ModTime()
	info.Pinned = s.pinned(d)
	return info, nil
}

// hashing is one hash of a blob that several goroutines wait for.
type hashing struct {
	done chan struct{}
	err  error
}

// rehash hashes a blob once for all goroutines that ask, and notes its state or puts it into quarantine.
func (s *Store) rehash(ctx context.Context, d hostabi.Digest) error {
	for {
		s.mu.Lock()
		other := s.hashes[d]
		if other == nil {
			break
		}
		s.mu.Unlock()
		select {
		case <-other.done:
			if other.err == nil || isMiss(other.err) {
				return other.err
			} // else its ctx ended, ours not: hash it ourselves
		case <-ctx.Done():
			return ctxError(ctx)
		}
	}
	h := &hashing{done: make(chan struct{})}
	s.hashes[d] = h
	s.mu.Unlock()
	why := "stamp"
	if s.o.Verify == VerifyAlways {
		why = "always"
	}
	if s.o.Verify == VerifyAlways || !s.settled(d) {
		h.err = s.check(ctx, d, why)
	}
	s.mu.Lock()
	delete(s.hashes, d)
	s.mu.Unlock()
	close(h.done)
	return h.err
}

// settled reports whether somebody hashed the blob of d between our look at its stamp and our turn to hash.
func (s *Store) settled(d hostabi.Digest) bool {
	h, err := s.readHead(d)
	if err != nil {
		return false
	}
	_, id, err := s.identify(d, false)
	return err == nil && (s.stamped(h.stamp, d, id) || s.hashed(d, id))
}

// check hashes the blob of d: right = its state is noted, wrong = quarantined and a miss.
func (s *Store) check(ctx context.Context, d hostabi.Digest, why string) error {
	f, id, err := s.identify(d, true) // the state before hashing: a change meanwhile leaves a wrong stamp
	if err != nil {
		return s.missed(d, err)
	}
	defer func() { _ = f.Close() }() // read only
	right, err := s.right(ctx, f, d, why)
	if err != nil {
		return err
	}
	if !right {
		if fi, err := f.Stat(); err == nil {
			s.quarantine(d, fi, "blob", "does not have its digest")
		}
		return missFor(d, errCorrupt)
	}
	s.restamp(f, d, id)
	s.mu.Lock()
	s.known[d] = id // also where no stamp can be written: in a read-only cache
	s.mu.Unlock()
	return nil
}

// hashed reports whether this process hashed the file in this state.
func (s *Store) hashed(d hostabi.Digest, id atomicfile.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.known[d]
	return ok && known == id
}

// right reads f to its end and compares. A failing read is a miss.
func (s *Store) right(ctx context.Context, f io.ReaderAt, d hostabi.Digest, why string) (bool, error) {
	h := sha256.New()
	n, err := hashInto(ctx, h, io.NewSectionReader(f, 0, 1<<62))
	s.count("hashed_bytes", "why", why, n)
	if ctx.Err() != nil {
		return false, ctxError(ctx)
	}
	if err != nil {
		return false, s.missed(d, err)
	}
	return hostabi.DigestFromSum(h.Sum(nil)) == d, nil
}

// hashInto copies r to w until ctx ends.
func hashInto(ctx context.Context, w io.Writer, r io.Reader) (n int64, err error) {
	buf := make([]byte, 256<<10)
	for ctx.Err() == nil {
		k, err := r.Read(buf)
		_, _ = w.Write(buf[:k]) // a hash does not fail
		n += int64(k)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
	return n, ctx.Err()
}

// restamp notes that the file in state id was hashed. It may fail, that costs one more hash. Without a boot
// id the bytes are synced first, since nothing would show that a power cut came between.
func (s *Store) restamp(f atomicfile.File, d hostabi.Digest, id atomicfile.ID) {
	boot := s.boot
	if boot == "" {
		if f.Sync() != nil {
			return
		}
		boot = durableBoot
	}
	m, err := s.fs.Open(s.meta(d), os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer func() { _ = m.Close() }() // a lost stamp costs one more hash
	var b [headLen]byte
	if n, _ := m.ReadAt(b[:], 0); n == headLen {
		if _, err := parseHead(b[:]); err == nil {
			_, _ = m.WriteAt([]byte(stampOf(boot, d, id)), stampAt)
			return
		}
	}
	s.rewriteMeta(d, func(meta *metadata) bool {
		meta.Stamp = stampOf(boot, d, id)
		return true
	})
}

// rewriteMeta changes metadata.json by replacing it. Failing costs what the change would have gained.
func (s *Store) rewriteMeta(d hostabi.Digest, change func(*metadata) bool) {
	b, err := atomicfile.ReadFile(s.fs, s.meta(d), maxMeta)
	if err != nil {
		return
	}
	m, h, err := parseMeta(b)
	if err != nil || m.Digest != d {
		return
	}
	m.Stamp, m.Expires = h.stamp, formatExpires(h.expires)
	if !change(m) {
		return
	}
	if b, err = m.encode(); err == nil {
		_ = s.writeFile(s.meta(d), b)
	}
}

// quarantine takes an entry out of the way if its file still is the one that was found wrong.
func (s *Store) quarantine(d hostabi.Digest, bad fs.FileInfo, file, what string) {
	named, err := s.fs.Lstat(filepath.Join(s.entry(d), file))
	if err != nil || !os.SameFile(named, bad) {
		return
	}
	var size int64 // as it was put, for the sums
	if b, err := atomicfile.ReadFile(s.fs, s.meta(d), maxMeta); err == nil {
		if m, _, err := parseMeta(b); err == nil {
			size = m.Size
		}
	}
	now := s.now()
	to := filepath.Join(s.quarantined(), fmt.Sprintf("%s-%d", d.Hex(), now.UnixMilli()))
	if err := s.inDir(s.quarantined(), func() error { return s.fs.Rename(s.entry(d), to) }); err != nil {
		s.log.Warn("DS2103: damaged blob cannot be moved away", "digest", d, "file", file, "error", err)
		return
	}
	s.log.Warn("DS2103: cached blob is damaged and counts as a miss", "digest", d, "what", file+" "+what, "quarantine", to)
	s.logged(&record{kind: recordDelete, digest: sumOf(d), size: size, time: now.UnixNano()})
	s.publish("cache.corrupt", map[string]any{"digest": d})
}

func (s *Store) publish(topic string, data map[string]any) {
	if s.o.Publish != nil {
		s.o.Publish(topic, data)
	}
}
