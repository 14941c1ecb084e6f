package natsbus

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/delivery-station/ds/hostabi"
)

// Local is the bus of this process: internal/events. Deliver takes events of other processes.
type Local interface {
	Publish(ctx context.Context, e hostabi.Event) (subscribers, dropped int, err error)
	Deliver(e hostabi.Event) (subscribers, dropped int)
	Subscribe(ctx context.Context, topics []string) (hostabi.Subscription, error)
	Wanted(topic string) bool
	Close() error
}

// Bus is the local bus and the events of all processes that share the server. It is safe for concurrent use.
type Bus struct {
	c     *Conn
	local Local
	out   *outbox
	in    *inbox

	up     atomic.Bool
	turn   chan struct{} // holds one token while the stream is looked up; guards what follows
	failed error
	until  time.Time // failed is the answer so long
}

// Bus wraps the bus that local makes, which gives every accepted event to forward, in order. Nothing is connected
// before the first use.
func (c *Conn) Bus(local func(forward func(e hostabi.Event)) Local) *Bus {
	b := &Bus{c: c, turn: make(chan struct{}, 1)}
	b.out = newOutbox(c, b.Connect)
	b.local = local(b.out.add)
	b.in = newInbox(c, b.local.Deliver)
	return b
}

// Connect makes the connection and, when it is missing, the stream. Every use does; this is for who wants to know
// before. When it fails, everybody gets the error for a while. Errors: NATS_UNAVAILABLE.
func (b *Bus) Connect(ctx context.Context) error {
	if b.up.Load() {
		return nil
	}
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if b.up.Load() {
		return nil
	}
	if b.failed != nil && b.c.o.Clock().Before(b.until) {
		return b.failed
	}
	limited, cancel := context.WithTimeout(ctx, b.c.o.ConnectTimeout)
	defer cancel()
	js, err := b.c.open(limited)
	if err != nil {
		return err
	}
	if err := b.stream(limited, js); err != nil {
		if ctx.Err() == nil { // not the end of this one caller
			b.failed, b.until = err, b.c.o.Clock().Add(failedFor)
		}
		return err
	}
	b.up.Store(true)
	return nil
}

// stream makes the stream of events if it is missing, and leaves a present one as it is.
func (b *Bus) stream(ctx context.Context, js jetstream.JetStream) error {
	o := &b.c.o
	want := jetstream.StreamConfig{
		Name: o.Prefix + "-events", Description: "events of ds and its plugins", Subjects: []string{subject(o.Prefix, "**")},
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld, Storage: jetstream.FileStorage, MaxAge: o.EventRetention,
		MaxMsgSize: maxPayload, Duplicates: dedupWindow, Replicas: o.Replicas,
	}
	s, err := js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if want.MaxAge > 0 && want.MaxAge < want.Duplicates {
			want.Duplicates = want.MaxAge
		}
		_, err = js.CreateStream(ctx, want)
		if err == nil {
			return nil
		}
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another process was faster
			s, err = js.Stream(ctx, want.Name)
		}
	}
	if err != nil {
		return callError("stream "+want.Name, err)
	}
	if have := s.CachedInfo().Config; have.MaxAge != want.MaxAge || have.Replicas != max(want.Replicas, 1) || have.MaxMsgSize != want.MaxMsgSize {
		o.Log.Debug("nats: the stream is not what ds would make", "stream", want.Name, "max_age", have.MaxAge, "replicas", have.Replicas, "max_msg_size", have.MaxMsgSize)
	}
	return nil
}

// Publish is the Publish of the local bus; what that accepts goes to the server later. It waits for nothing but the
// first connection.
func (b *Bus) Publish(ctx context.Context, e hostabi.Event) (subscribers, dropped int, err error) {
	if err := b.Connect(ctx); err != nil {
		return 0, 0, err
	}
	return b.local.Publish(ctx, e)
}

// Subscribe also receives matching events of other processes, with their Source below /nodes.
func (b *Bus) Subscribe(ctx context.Context, topics []string) (hostabi.Subscription, error) {
	s, err := b.local.Subscribe(ctx, topics)
	if err != nil {
		return nil, err
	}
	if err := b.Connect(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := b.in.want(ctx, topics); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &subscription{s, sync.OnceFunc(func() { b.in.unwant(topics) })}, nil
}

// Wanted is that of the local bus, which takes everything: somebody elsewhere may listen.
func (b *Bus) Wanted(topic string) bool { return b.local.Wanted(topic) }

// Close sends what is waiting, for half a second, tells how much was left, and closes the local bus. It is
// idempotent.
func (b *Bus) Close() error {
	b.out.close()
	b.in.close()
	return b.local.Close()
}

type subscription struct {
	hostabi.Subscription
	unwant func()
}

func (s *subscription) Close() error {
	s.unwant()
	return s.Subscription.Close()
}
