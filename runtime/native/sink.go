package native

import (
	"io"
	"sync"
	"sync/atomic"
)

// sink is one output of ds in mode goplugin, where three sources write to it. It serialises them, counts
// their writes, and reports its first error once; after an error or shut it discards.
type sink struct {
	to     io.Writer
	broken chan<- error

	mu   sync.Mutex
	over bool

	writers atomic.Int32
	writes  atomic.Int64 // that have begun
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
	s.writes.Add(1)
	defer s.writers.Add(-1)
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

// busy reports whether a write is going on.
func (s *sink) busy() bool { return s.writers.Load() > 0 }

// shut waits for the write that is going on; later ones are discarded.
func (s *sink) shut() {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
}
