package atomicfile

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

const (
	firstWait = time.Millisecond
	lastWait  = 20 * time.Millisecond // a holder that comes back at once leaves little room, and nobody may starve
)

// mutexes are the in-process half of file locks: goroutines of one process queue here and do not poll.
type mutexes struct {
	mu sync.Mutex
	m  map[string]*mutex
}

type mutex struct {
	held chan struct{} // capacity 1
	refs int
}

// lock waits for the mutex of name until ctx ends, but tries at least once.
func (s *mutexes) lock(ctx context.Context, name string) (unlock func(), err error) {
	s.mu.Lock()
	if s.m == nil {
		s.m = make(map[string]*mutex)
	}
	m := s.m[name]
	if m == nil {
		m = &mutex{held: make(chan struct{}, 1)}
		s.m[name] = m
	}
	m.refs++
	s.mu.Unlock()

	done := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if m.refs--; m.refs == 0 {
			delete(s.m, name)
		}
	}
	select {
	case m.held <- struct{}{}:
		return func() { <-m.held; done() }, nil
	default:
	}
	select {
	case m.held <- struct{}{}:
		return func() { <-m.held; done() }, nil
	case <-ctx.Done():
		done()
		return nil, lockedError(ctx, name)
	}
}

// lockFile takes the file lock of name until ctx ends, but tries at least once. The file may be removed by a
// holder; whoever waited then holds a lock on no name and has to begin again.
func lockFile(ctx context.Context, name string) (unlock func() error, err error) {
	for wait := firstWait; ; {
		l := flock.New(name, flock.SetFlag(lockFlags), flock.SetPermissions(0o600))
		ok, err := l.TryLock()
		if err != nil {
			return nil, &os.PathError{Op: "lock", Path: name, Err: cause(err)}
		}
		if ok {
			if current(l, name) {
				return l.Unlock, nil
			}
			if err := l.Unlock(); err != nil {
				return nil, &os.PathError{Op: "unlock", Path: name, Err: cause(err)}
			}
			continue
		}
		t := time.NewTimer(wait/2 + rand.N(wait/2)) //nolint:gosec // jitter, not a secret
		select {
		case <-t.C:
			wait = min(2*wait, lastWait)
		case <-ctx.Done():
			t.Stop()
			return nil, lockedError(ctx, name)
		}
	}
}

// current reports whether name still is the file that l locked.
func current(l *flock.Flock, name string) bool {
	held, err := l.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(name)
	return err == nil && os.SameFile(held, named)
}

func lockedError(ctx context.Context, name string) error {
	return fmt.Errorf("%s: %w: %w", filepath.Base(name), ErrLocked, context.Cause(ctx))
}

// cause is the innermost error, so that the path is named once.
func cause(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err
	}
	return err
}
