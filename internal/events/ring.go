package events

import (
	"context"
	"sync"

	"github.com/delivery-station/ds/hostabi"
)

// subscription is the ring of one subscriber. The publisher side holds the bus lock first, then mu; the
// delivering goroutine takes mu only.
type subscription struct {
	topics     []string
	invocation string

	mu         sync.Mutex
	ring       []*hostabi.Event // shared by all rings that hold the event, never changed
	head, n    int
	generation uint64 // counts pops and overwrites of the head, so that an offered head is known to be current
	missed     uint64 // lost since the last delivery
	delivered  uint64
	dropped    uint64
	parked     bool // deliver waits and was not woken yet

	ready  chan struct{} // something changed: at most one token
	done   chan struct{}
	closed sync.Once
}

func newSubscription(topics []string, invocation string, size int) *subscription {
	return &subscription{
		topics: topics, invocation: invocation, ring: make([]*hostabi.Event, size),
		ready: make(chan struct{}, 1), done: make(chan struct{}),
	}
}

func (s *subscription) wants(topic string) bool {
	for _, p := range s.topics {
		if p == topic || hostabi.MatchTopic(p, topic) {
			return true
		}
	}
	return false
}

// push queues e and reports whether the oldest event had to go. It wakes deliver only if that has something
// new to offer, and once: a reader that is behind costs the publisher no wakeup.
func (s *subscription) push(e *hostabi.Event) (dropped bool) {
	s.mu.Lock()
	if s.n == len(s.ring) {
		s.pop()
		s.missed++
		s.dropped++
		dropped = true
	}
	wake := s.parked && (dropped || s.n == 0)
	if wake {
		s.parked = false
	}
	i := s.head + s.n
	if i >= len(s.ring) {
		i -= len(s.ring)
	}
	s.ring[i] = e
	s.n++
	s.mu.Unlock()
	if !wake {
		return dropped
	}
	select {
	case s.ready <- struct{}{}:
	default:
	}
	return dropped
}

// pop takes the head out of the ring; s.mu is held.
func (s *subscription) pop() {
	s.ring[s.head] = nil
	if s.head++; s.head == len(s.ring) {
		s.head = 0
	}
	s.n--
	s.generation++
}

// peek is the head with the losses before it; ok is false when the ring is empty.
func (s *subscription) peek() (e hostabi.Event, generation uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.look()
}

// look is peek with s.mu held.
func (s *subscription) look() (e hostabi.Event, generation uint64, ok bool) {
	s.parked = true
	if s.n == 0 {
		return e, 0, false
	}
	e = *s.ring[s.head]
	e.Dropped = s.missed
	return e, s.generation, true
}

// took removes the head that peek gave with generation, after somebody received it, and is the next peek. If
// a full ring overwrote that head in the same instant it was received all the same, so it does not count as
// lost.
func (s *subscription) took(generation, told uint64) (e hostabi.Event, next uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delivered++
	s.missed -= told
	if s.generation == generation {
		s.pop()
	} else {
		s.missed--
		s.dropped--
	}
	return s.look()
}

// deliver offers the head to out until ctx or the subscription ends. A head that is overwritten while it is
// offered is replaced by the one that is the oldest then.
func (s *subscription) deliver(ctx context.Context, out chan<- hostabi.Event) {
	e, generation, ok := s.peek()
	for {
		to := out
		if !ok {
			to = nil
		}
		select {
		case to <- e:
			e, generation, ok = s.took(generation, e.Dropped)
		case <-s.ready:
			e, generation, ok = s.peek()
		case <-ctx.Done():
			return
		case <-s.done:
			return
		}
	}
}

func (s *subscription) stop() { s.closed.Do(func() { close(s.done) }) }

func (s *subscription) stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Topics: s.topics, Delivered: s.delivered, Dropped: s.dropped, Queued: uint64(s.n)}
}
