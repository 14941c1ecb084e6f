package events

import (
	"context"
	"io"
	"runtime"
	"sync"

	"github.com/delivery-station/ds/hostabi"
)

// subscription is the ring of one subscriber. Nothing runs for it: the publisher puts events in, the reader takes
// them out in batches, and is woken only when it sleeps. The publisher holds the bus lock first, then mu; the
// reader takes mu only.
type subscription struct {
	bus    *Bus
	topics []string
	by     hostabi.Publisher

	mu      sync.Mutex
	ring    []hostabi.Event // nil until the first event
	head, n int
	missed  uint64 // lost since the last delivery
	counts  Stats  // but Queued, which is n
	asleep  bool   // Next waits and was not woken yet
	ended   bool   // nothing is queued any more

	ready chan struct{} // wakes Next: at most one token
}

func newSubscription(b *Bus, topics []string, by hostabi.Publisher) *subscription {
	return &subscription{
		bus: b, topics: topics, by: by, counts: Stats{Name: by.Name, Topics: topics},
		ready: make(chan struct{}, 1),
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

// push queues e and reports whether the oldest event had to go. A reader that is behind costs the publisher no
// wakeup.
func (s *subscription) push(e *hostabi.Event) (dropped bool) {
	s.mu.Lock()
	if s.ring == nil {
		s.ring = make([]hostabi.Event, s.bus.o.Buffer)
	}
	if s.n == len(s.ring) {
		s.ring[s.head] = *e // the oldest goes, and its place is the newest one's
		s.head = s.at(1)
		s.missed++
		s.counts.Dropped++
		dropped = true
	} else {
		s.ring[s.at(s.n)] = *e
		s.n++
	}
	wake := s.asleep
	s.asleep = false
	s.mu.Unlock()
	if wake {
		s.wake()
	}
	return dropped
}

// at is the index of the i-th queued event; s.mu is held.
func (s *subscription) at(i int) int {
	if i += s.head; i >= len(s.ring) {
		i -= len(s.ring)
	}
	return i
}

func (s *subscription) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// Next implements hostabi.Subscription.
func (s *subscription) Next(ctx context.Context, buf []hostabi.Event) (int, error) {
	for i := 0; len(buf) > 0; i++ {
		n, ended := s.take(buf, i > 0)
		if n > 0 {
			return n, nil
		}
		if ended {
			return 0, io.EOF
		}
		if i == 0 {
			runtime.Gosched() // a publisher in full swing queues more meanwhile, and has nobody to wake
			continue
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return 0, nil
}

// take moves events from the ring to buf. If there are none it notes whether the reader is going to sleep.
func (s *subscription) take(buf []hostabi.Event, sleep bool) (n int, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = min(s.n, len(buf))
	if n == 0 {
		s.asleep = sleep
		return 0, s.ended
	}
	first := s.ring[s.head:min(s.head+n, len(s.ring))]
	rest := s.ring[:n-len(first)]
	copy(buf[copy(buf, first):], rest)
	clear(first)
	clear(rest)
	s.head = s.at(n)
	s.n -= n
	s.counts.Delivered += uint64(n)
	buf[0].Dropped += s.missed // of another bus, and of this one
	s.missed = 0
	return n, false
}

// Close implements hostabi.Subscription. What is queued stays counted as that.
func (s *subscription) Close() error {
	s.bus.remove(s)
	s.end()
	return nil
}

// end lets Next return what is queued, then io.EOF.
func (s *subscription) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.wake()
}

func (s *subscription) stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counts
	c.Queued = uint64(s.n)
	return c
}
