package cache

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

const (
	noticeAfter = time.Second      // of waiting for another ingester, then one log line
	stuckAfter  = 10 * time.Minute // without growth of its prefix, then LOCK_HELD
)

// shared stages in .ds/flight under the lock of the digest: one ingester at a time, over all processes, and
// the next one resumes what a dead one left. The remote tier comes before the caller, who then has to give
// what it did not.
func (s *Store) shared(ctx context.Context, v *View, want hostabi.Descriptor) (hostabi.BlobWriter, error) {
	w, err := s.staged(ctx, v, want)
	if err != nil {
		return nil, err
	}
	if !s.remote.serves(v, want) || w.size == want.Size {
		return w, nil
	}
	switch err := s.remote.fill(ctx, w); {
	case err == nil:
		return nil, exists(want.Digest)
	case errors.Is(err, errElsewhere):
		return w, nil
	case hostabi.ReasonOf(err) == hostabi.ReasonDigestMismatch:
		return s.shared(ctx, v, want) // from the first byte, and without the tier
	default:
		return nil, err
	}
}

// staged locks the digest and opens what is staged of it.
func (s *Store) staged(ctx context.Context, v *View, want hostabi.Descriptor) (*writer, error) {
	if err := s.absent(ctx, v, want.Digest); err != nil {
		return nil, err
	}
	unlock, err := s.takeOff(ctx, want.Digest)
	if err != nil {
		return nil, err
	}
	w := &writer{s: s, view: v, want: want, hash: sha256.New(), quota: -1, dir: s.flight(want.Digest), flown: want.Digest, unlock: unlock}
	if err := s.absent(ctx, v, want.Digest); err != nil { // the one we waited for has finished
		_ = w.end(false)
		return nil, err
	}
	if err := w.resume(ctx); err != nil {
		_ = w.end(ctx.Err() != nil)
		return nil, s.fail(err)
	}
	return w, nil
}

// absent is EXISTS when d is there, and nil when it is not.
func (s *Store) absent(ctx context.Context, v *View, d hostabi.Digest) error {
	switch err := v.leased(ctx, d, func() error { return s.present(ctx, d) }); {
	case err == nil:
		return exists(d)
	case isMiss(err):
		return nil
	default:
		return err
	}
}

// takeOff locks the digest: it waits as long as the holder's prefix grows.
func (s *Store) takeOff(ctx context.Context, d hostabi.Digest) (unlock func() error, err error) {
	var length int64 = -1
	grown := time.Now()
	for wait := noticeAfter; ; wait = 10 * time.Second {
		turn, cancel := context.WithTimeout(ctx, wait)
		err := s.inDir(s.internal("flight"), func() (err error) {
			return s.withSpace(0, func() error {
				unlock, err = s.fs.Lock(turn, s.flightLock(d))
				return err
			})
		})
		cancel()
		switch {
		case err == nil:
			return unlock, nil
		case !errors.Is(err, atomicfile.ErrLocked):
			return nil, s.fail(err)
		case ctx.Err() != nil:
			return nil, ctxError(ctx)
		}
		if length < 0 {
			s.count("requests", "result", "wait", 1)
			s.log.InfoContext(ctx, "another process fetches the same blob, waiting", "digest", d)
		}
		if fi, err := s.fs.Lstat(filepath.Join(s.flight(d), "blob")); err == nil && fi.Size() != length {
			length, grown = fi.Size(), time.Now()
		}
		length = max(length, 0)
		if time.Since(grown) > stuckAfter {
			return nil, hostabi.Errorf(hostabi.ReasonLockHeld, "%s is being fetched by a process that makes no progress", d)
		}
	}
}

// resume opens the staged blob and hashes what is there. A prefix longer than the blob is of no use.
func (w *writer) resume(ctx context.Context) error {
	s := w.s
	name := filepath.Join(w.dir, "blob")
	var err error
	err = s.withSpace(w.want.Size, func() error {
		w.f, err = s.openStaged(w.dir, name)
		return err
	})
	if err != nil {
		return err
	}
	fi, err := w.f.Stat()
	if err != nil {
		return err
	}
	if fi.Size() == 0 {
		return nil
	}
	if w.known() && fi.Size() > w.want.Size {
		return w.f.Truncate(0)
	}
	n, err := hashInto(ctx, w.hash, io.NewSectionReader(w.f, 0, fi.Size()))
	if err != nil {
		return err
	}
	w.size, w.offset = n, n
	return nil
}

// openStaged opens or makes the blob of a flight. One that was sealed before its process died is unsealed.
func (s *Store) openStaged(dir, name string) (atomicfile.File, error) {
	if err := s.mkdir(dir); err != nil {
		return nil, err
	}
	open := func() (atomicfile.File, error) { return s.fs.Open(name, os.O_RDWR|os.O_CREATE, 0o600) }
	f, err := open()
	if !errors.Is(err, fs.ErrPermission) {
		return f, err
	}
	r, rerr := s.fs.Open(name, os.O_RDONLY, 0)
	if rerr != nil {
		return nil, err
	}
	if cerr := errors.Join(r.Chmod(0o600), r.Close()); cerr != nil {
		return nil, err
	}
	return open()
}

// leave lets go of the digest. The lock file is removed first, so that none stays behind.
func (w *writer) leave() error {
	if w.unlock == nil {
		return nil
	}
	unlock := w.unlock
	w.unlock = nil
	_ = w.s.fs.Remove(w.s.flightLock(w.flown)) // on Windows it stays, swept by gc
	return unlock()
}

// addSource notes that a repository holds d too. The flight lock is needed; held says that we have it.
func (s *Store) addSource(ctx context.Context, d hostabi.Digest, source string, held bool) {
	if source == "" {
		return
	}
	if !held {
		unlock, err := s.takeOff(ctx, d)
		if err != nil {
			return // the next pull notes it
		}
		defer func() {
			_ = s.fs.Remove(s.flightLock(d))
			_ = unlock()
		}()
	}
	s.rewriteMeta(d, func(m *metadata) bool {
		if slices.Contains(m.Sources, source) {
			return false
		}
		m.Sources = append(m.Sources, source)
		return true
	})
}
