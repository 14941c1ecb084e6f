package native

import (
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// sink is one output of ds in mode goplugin, where three sources write to it. It serialises them, knows how
// long it has been idle, and reports its first error once; after an error or shut it discards.
type sink struct {
	to     io.Writer
	broken chan<- error

	mu   sync.Mutex
	over bool

	writers atomic.Int32
	last    atomic.Int64 // Unix ns of the end of the last write
}

func newSink(to io.Writer, broken chan<- error) *sink {
	if to == nil {
		to = io.Discard
	}
	return &sink{to: to, broken: broken}
}

// Write never fails: the sources have nobody to tell.
func (s *sink) Write(p []byte) (int, error) {
	s.writers.Add(1)
	defer func() {
		s.last.Store(time.Now().UnixNano())
		s.writers.Add(-1)
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return len(p), nil
	}
	if _, err := s.to.Write(p); err != nil {
		s.over = true
		select {
		case s.broken <- err:
		default:
		}
	}
	return len(p), nil
}

// idle is how long ago the last write ended, and whether one is going on.
func (s *sink) idle(now time.Time) (time.Duration, bool) {
	return now.Sub(time.Unix(0, s.last.Load())), s.writers.Load() > 0
}

// shut waits for the write that is going on; later ones are discarded.
func (s *sink) shut() {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
}
