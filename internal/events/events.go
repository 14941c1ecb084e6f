// Package events is the in-process event bus of one ds process (events-state.md section 2). A publisher
// never waits: each subscriber has a ring, and a full ring loses its oldest event, counted. It knows no
// policy; the gate has decided before. Start with New, Publish and Subscribe.
package events

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"maps"
	"slices"
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
	ID      string // first half of every event id, default NewID
	// Forward is given every accepted event in order, under a lock: it neither waits nor calls the bus. Events of
	// Deliver do not come here.
	Forward func(e hostabi.Event)
}

// NewID is the id of a bus: 16 hex, random.
func NewID() string {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	return hex.EncodeToString(id[:])
}

// Bus is one event bus. It is safe for concurrent use.
type Bus struct {
	o Options

	mu     sync.Mutex
	seq    uint64
	subs   []*subscription               // a slice: it is walked for every event
	lost   map[hostabi.PluginName]uint64 // dropped of subscriptions that have ended
	ids    ids
	rates  map[sender]*rate
	closed bool
	log    *logFile // nil without one; used with mu held

	interest atomic.Int32 // subscriptions and the log; lets Wanted answer without the lock when there is none
}

// sender is whose events are counted together: a source, and of host events the plugin that caused them, so that
// one that is denied without end hides nothing of the others.
type sender struct {
	source string
	cause  hostabi.PluginName
}

// rate limits one sender to hostabi.MaxEventRate a second, with a burst of one second.
type rate struct{ next time.Time }

// New makes a bus; it starts nothing.
func New(o Options) *Bus {
	if o.Buffer <= 0 {
		o.Buffer = hostabi.DefaultRing
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.ID == "" {
		o.ID = NewID()
	}
	b := &Bus{o: o, ids: ids{prefix: o.ID}, rates: make(map[sender]*rate), lost: make(map[hostabi.PluginName]uint64)}
	if o.Log != nil {
		b.log = newLog(*o.Log)
	}
	if b.takesAll() {
		b.interest.Add(1) // host events are built for the log too
	}
	return b
}

// Publish checks e, sets ID and Time, and TraceID, TraceParent and Hops from the Publisher of ctx, and queues it
// for every subscriber whose pattern matches but those of the same invocation. It never waits. dropped counts
// older events that had to go; an event of hostabi.MaxHops, from handlers that set each other off, goes nowhere and
// counts as one. Errors: BAD_TOPIC, BAD_MESSAGE, TOO_LARGE, RATE; then nothing was delivered.
func (b *Bus) Publish(ctx context.Context, e hostabi.Event) (subscribers, dropped int, err error) {
	if err := hostabi.CheckEvent(&e); err != nil {
		return 0, 0, err
	}
	p := hostabi.PublisherOf(ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.o.Clock()
	if !b.allow(sender{e.Source, p.Name}, now) {
		return 0, 0, hostabi.Errorf(hostabi.ReasonRate, "%s publishes more than %d events a second", e.Source, hostabi.MaxEventRate)
	}
	if max(e.Hops, p.Hops) >= hostabi.MaxHops {
		b.observe(e.Topic, 0, 1)
		return 0, 1, nil
	}
	b.seq++
	if !b.takesAll() && !b.wanted(e.Topic) {
		b.observe(e.Topic, 0, 0)
		return 0, 0, nil
	}
	b.stamp(&e, &p, now)
	if b.log != nil && !b.closed {
		logged := e
		b.log.add(&logged, now)
	}
	if b.o.Forward != nil && !b.closed {
		b.o.Forward(e)
	}
	subscribers, dropped = b.fanOut(&e, p.Invocation)
	return subscribers, dropped, nil
}

// Deliver queues an event that has ID, Source, Time and Hops already: one from another bus. It is neither checked
// nor counted against a rate, and not in the log.
func (b *Bus) Deliver(e hostabi.Event) (subscribers, dropped int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fanOut(&e, "")
}

// fanOut queues e for everybody who wants it but invocation; b.mu is held.
func (b *Bus) fanOut(e *hostabi.Event, invocation string) (subscribers, dropped int) {
	for _, s := range b.subs {
		if invocation != "" && s.by.Invocation == invocation || !s.wants(e.Topic) {
			continue
		}
		subscribers++
		if s.push(e) {
			dropped++
		}
	}
	b.observe(e.Topic, subscribers, dropped)
	return subscribers, dropped
}

func (b *Bus) observe(topic string, delivered, dropped int) {
	if b.o.Observe != nil {
		b.o.Observe(topic, delivered, dropped)
	}
}

// stamp makes e what this bus accepted at now, with the current sequence; b.mu is held.
func (b *Bus) stamp(e *hostabi.Event, p *hostabi.Publisher, now time.Time) {
	e.ID, e.Time, e.Dropped = b.ids.of(b.seq), now, 0
	if e.TraceID == "" {
		e.TraceID, e.TraceParent = p.TraceID, p.TraceParent
	}
	if e.Hops == 0 {
		e.Hops = p.Hops
	}
	if e.ContentType == "" {
		e.ContentType = "application/json"
	}
}

// Wanted reports whether anybody listens to topic, so that nobody else builds the event.
func (b *Bus) Wanted(topic string) bool {
	if b.interest.Load() == 0 {
		return false
	}
	if b.takesAll() {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.wanted(topic)
}

// takesAll reports whether every event goes somewhere, whoever subscribes.
func (b *Bus) takesAll() bool { return b.log != nil || b.o.Forward != nil }

// wanted reports whether a subscriber wants topic; b.mu is held.
func (b *Bus) wanted(topic string) bool {
	return slices.ContainsFunc(b.subs, func(s *subscription) bool { return s.wants(topic) })
}

// Subscribe queues matching events for the Publisher of ctx until the subscription or the bus is closed. Errors:
// BAD_TOPIC, TOO_MANY.
func (b *Bus) Subscribe(ctx context.Context, topics []string) (hostabi.Subscription, error) {
	if len(topics) == 0 || len(topics) > hostabi.MaxPatterns {
		return nil, hostabi.Errorf(hostabi.ReasonBadTopic, "a subscription needs 1 to %d patterns, not %d", hostabi.MaxPatterns, len(topics))
	}
	for _, t := range topics {
		if err := hostabi.CheckPattern(t); err != nil {
			return nil, err
		}
	}
	s := newSubscription(b, slices.Clone(topics), hostabi.PublisherOf(ctx))
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || len(b.subs) >= maxSubscribers {
		return nil, hostabi.Errorf(hostabi.ReasonTooMany, "the event bus is closed or has %d subscribers", maxSubscribers)
	}
	b.subs = append(b.subs, s)
	b.interest.Add(1)
	return s, nil
}

// remove takes s out; then nothing is pushed to it any more. What it lost is remembered.
func (b *Bus) remove(s *subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.subs, s)
	if i < 0 {
		return
	}
	b.subs = slices.Delete(b.subs, i, i+1)
	b.interest.Add(-1)
	if d := s.stats().Dropped; d > 0 {
		b.lost[s.by.Name] += d
	}
}

// Stats is what happened to the events of one subscriber so far: matched = Delivered + Dropped + Queued, exactly
// and at any time.
type Stats struct {
	Name                       hostabi.PluginName
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

// Lost is how many events were dropped for each subscriber that was too slow, also for those that have ended.
func (b *Bus) Lost() map[hostabi.PluginName]uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	lost := maps.Clone(b.lost)
	for _, s := range b.subs {
		if d := s.stats().Dropped; d > 0 {
			lost[s.by.Name] += d
		}
	}
	return lost
}

// Close ends every subscription and the log. It is idempotent.
func (b *Bus) Close() error {
	b.mu.Lock()
	b.closed = true
	open := slices.Clone(b.subs)
	b.log.close()
	b.mu.Unlock()
	for _, s := range open {
		_ = s.Close() // always nil
	}
	return nil
}

// allow counts one event of from; b.mu is held. Each event takes its place of one interval on the time line of
// its sender, which may run ahead of now by one second.
func (b *Bus) allow(from sender, now time.Time) bool {
	const interval = time.Second / hostabi.MaxEventRate
	r, ok := b.rates[from]
	if !ok {
		r = &rate{}
		b.rates[from] = r
	}
	if r.next.Before(now) {
		r.next = now
	}
	if r.next.Sub(now) > time.Second-interval {
		return false
	}
	r.next = r.next.Add(interval)
	return true
}
