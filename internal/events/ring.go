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
	ring       []hostabi.Event
	head, n    int
	generation uint64 // counts pops and overwrites of the head, so that an offered head is known to be current
	missed     uint64 // lost since the last delivery
	delivered  uint64
	dropped    uint64

	ready  chan struct{} // something changed: at most one token
	done   chan struct{}
	closed sync.Once
}

func newSubscription(topics []string, invocation string, size int) *subscription {
	return &subscription{
		topics: topics, invocation: invocation, ring: make([]hostabi.Event, size),
		ready: make(chan struct{}, 1), done: make(chan struct{}),
	}
}

func (s *subscription) wants(topic string) bool {
	for _, p := range s.topics {
		if hostabi.MatchTopic(p, topic) {
			return true
		}
	}
	return false
}

// push queues e and reports whether the oldest event had to go.
func (s *subscription) push(e hostabi.Event) (dropped bool) {
	s.mu.Lock()
	if s.n == len(s.ring) {
		s.head = (s.head + 1) % len(s.ring)
		s.n--
		s.generation++
		s.missed++
		s.dropped++
		dropped = true
	}
	s.ring[(s.head+s.n)%len(s.ring)] = e
	s.n++
	s.mu.Unlock()
	select {
	case s.ready <- struct{}{}:
	default:
	}
	return dropped
}

// peek is the head with the losses before it; ok is false when the ring is empty.
func (s *subscription) peek() (e hostabi.Event, generation uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == 0 {
		return e, 0, false
	}
	e = s.ring[s.head]
	e.Dropped = s.missed
	return e, s.generation, true
}

// took removes the head that peek gave with generation, after somebody received it. If a full ring overwrote
// that head in the same instant it was received all the same, so it does not count as lost.
func (s *subscription) took(generation, told uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delivered++
	s.missed -= told
	if s.generation != generation {
		s.missed--
		s.dropped--
		return
	}
	s.ring[s.head] = hostabi.Event{}
	s.head = (s.head + 1) % len(s.ring)
	s.n--
	s.generation++
}

// deliver offers the head to out until ctx or the subscription ends. A head that is overwritten while it is
// offered is replaced by the one that is the oldest then.
func (s *subscription) deliver(ctx context.Context, out chan<- hostabi.Event) {
	for {
		e, generation, ok := s.peek()
		to := out
		if !ok {
			to = nil
		}
		select {
		case to <- e:
			s.took(generation, e.Dropped)
		case <-s.ready:
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
