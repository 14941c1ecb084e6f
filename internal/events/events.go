// Package events is the in-process event bus of one ds process (events-state.md section 2). A publisher
// never waits: each subscriber has a ring, and a full ring loses its oldest event, counted. It knows no
// policy; the gate has decided before. Start with New, Publish and Subscribe.
package events

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// maxSubscribers bounds the subscriptions of one process.
const maxSubscribers = 256

// Options configure a Bus; the zero value is usable.
type Options struct {
	Buffer  int              // events queued per subscriber, default hostabi.DefaultRing
	Clock   func() time.Time // default time.Now
	Log     *Log             // where every accepted event is written, default nowhere
	Observe func(topic string, delivered, dropped int)
}

// Bus is one event bus. It is safe for concurrent use.
type Bus struct {
	o  Options
	id string // 16 hex, first half of every event id

	mu     sync.Mutex
	seq    uint64
	subs   []*subscription // a slice: it is walked for every event
	rates  map[string]*bucket
	closed bool
	log    *logFile // nil without one; used with mu held

	interest atomic.Int32 // subscriptions and the log; lets Wanted answer without the lock when there is none
	running  sync.WaitGroup
}

// bucket limits one source to hostabi.MaxEventRate a second, with a burst of one second.
type bucket struct {
	tokens float64
	at     time.Time
}

type publisherKey struct{}

type publisher struct {
	invocation string
	trace      string
	hops       uint32
}

// WithPublisher marks ctx with the invocation that publishes and subscribes under it: own events do not come
// back. Hops is that of the event which started it, trace its 32 hex.
func WithPublisher(ctx context.Context, invocation, trace string, hops uint32) context.Context {
	return context.WithValue(ctx, publisherKey{}, publisher{invocation, trace, hops})
}

// New makes a bus; it starts nothing.
func New(o Options) *Bus {
	if o.Buffer <= 0 {
		o.Buffer = hostabi.DefaultRing
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	b := &Bus{o: o, id: hex.EncodeToString(id[:]), rates: make(map[string]*bucket)}
	if o.Log != nil {
		b.log = newLog(*o.Log)
		b.interest.Add(1) // host events are built for the log too
	}
	return b
}

// Publish checks e, sets ID, Time, TraceID and Hops, and queues it for every subscriber whose pattern matches
// but those of the publishing invocation. It never waits. dropped counts older events that had to go. Errors:
// BAD_TOPIC, BAD_MESSAGE, TOO_LARGE, RATE; then nothing was delivered.
func (b *Bus) Publish(ctx context.Context, e hostabi.Event) (subscribers, dropped int, err error) {
	if err := hostabi.CheckEvent(&e); err != nil {
		return 0, 0, err
	}
	p, _ := ctx.Value(publisherKey{}).(publisher)
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.o.Clock()
	if !b.allow(e.Source, now) {
		return 0, 0, hostabi.Errorf(hostabi.ReasonRate, "%s publishes more than %d events a second", e.Source, hostabi.MaxEventRate)
	}
	b.seq++
	var stamped *hostabi.Event // one for all, built when the first one wants it
	if b.log != nil && !b.closed {
		stamped = b.stamp(e, p, now)
		b.log.add(stamped, now)
	}
	for _, s := range b.subs {
		if s.wants(e.Topic) && (p.invocation == "" || s.invocation != p.invocation) {
			if stamped == nil {
				stamped = b.stamp(e, p, now)
			}
			subscribers++
			if s.push(stamped) {
				dropped++
			}
		}
	}
	if b.o.Observe != nil {
		b.o.Observe(e.Topic, subscribers, dropped)
	}
	return subscribers, dropped, nil
}

// stamp is e as this bus accepted it at now, with the current sequence; b.mu is held.
func (b *Bus) stamp(e hostabi.Event, p publisher, now time.Time) *hostabi.Event {
	id := make([]byte, 0, 40)
	id = append(append(id, b.id...), '-')
	e.ID, e.Time, e.Dropped = string(strconv.AppendUint(id, b.seq, 10)), now, 0
	if e.TraceID == "" {
		e.TraceID = p.trace
	}
	if e.Hops == 0 {
		e.Hops = p.hops
	}
	if e.ContentType == "" {
		e.ContentType = "application/json"
	}
	return &e
}

// Wanted reports whether anybody listens to topic, so that nobody else builds the event.
func (b *Bus) Wanted(topic string) bool {
	if b.interest.Load() == 0 {
		return false
	}
	if b.log != nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.subs {
		if s.wants(topic) {
			return true
		}
	}
	return false
}

// Subscribe delivers matching events until ctx ends or the bus closes; then the channel closes. The first
// event after a loss has Dropped set. Errors: BAD_TOPIC, TOO_MANY.
func (b *Bus) Subscribe(ctx context.Context, topics []string) (<-chan hostabi.Event, error) {
	if len(topics) == 0 || len(topics) > hostabi.MaxPatterns {
		return nil, hostabi.Errorf(hostabi.ReasonBadTopic, "a subscription needs 1 to %d patterns, not %d", hostabi.MaxPatterns, len(topics))
	}
	for _, t := range topics {
		if err := hostabi.CheckPattern(t); err != nil {
			return nil, err
		}
	}
	p, _ := ctx.Value(publisherKey{}).(publisher)
	s := newSubscription(append([]string(nil), topics...), p.invocation, b.o.Buffer)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || len(b.subs) >= maxSubscribers {
		return nil, hostabi.Errorf(hostabi.ReasonTooMany, "the event bus is closed or has %d subscribers", maxSubscribers)
	}
	b.subs = append(b.subs, s)
	b.interest.Add(1)
	out := make(chan hostabi.Event)
	b.running.Go(func() {
		s.deliver(ctx, out)
		b.mu.Lock()
		b.subs = slices.DeleteFunc(b.subs, func(o *subscription) bool { return o == s })
		b.mu.Unlock()
		b.interest.Add(-1)
		close(out)
	})
	return out, nil
}

// Stats is what happened to the events of one subscriber so far: matched = Delivered + Dropped + Queued.
type Stats struct {
	Topics                     []string
	Delivered, Dropped, Queued uint64
}

// Stats lists the current subscribers.
func (b *Bus) Stats() (all []Stats) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.subs {
		all = append(all, s.stats())
	}
	return all
}

// Close ends every subscription and the log, and waits for the goroutines. It is idempotent.
func (b *Bus) Close() error {
	b.mu.Lock()
	b.closed = true
	for _, s := range b.subs {
		s.stop()
	}
	b.log.close()
	b.mu.Unlock()
	b.running.Wait()
	return nil
}

// allow takes one token from the bucket of source; b.mu is held.
func (b *Bus) allow(source string, now time.Time) bool {
	r, ok := b.rates[source]
	if !ok {
		r = &bucket{tokens: hostabi.MaxEventRate, at: now}
		b.rates[source] = r
	}
	if d := now.Sub(r.at); d > 0 {
		r.tokens = min(hostabi.MaxEventRate, r.tokens+d.Seconds()*hostabi.MaxEventRate)
	}
	r.at = now
	if r.tokens < 1 {
		return false
	}
	r.tokens--
	return true
}
