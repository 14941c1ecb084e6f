package events

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

func event(topic string) hostabi.Event { return hostabi.Event{Topic: topic, Source: "/plugins/a"} }

func TestPublishReachesMatchingSubscribersOnly(t *testing.T) {
	b := New(Options{})
	defer b.Close()
	one := subscribe(t, t.Context(), b, "a.*")
	two := subscribe(t, t.Context(), b, "a.b", "c.**")
	n, dropped, err := b.Publish(t.Context(), event("a.b"))
	if n != 2 || dropped != 0 || err != nil {
		t.Fatalf("Publish = %d, %d, %v", n, dropped, err)
	}
	if n, _, _ := b.Publish(t.Context(), event("c.d.e")); n != 1 {
		t.Errorf("c.d.e reached %d subscribers", n)
	}
	for _, c := range []hostabi.Subscription{one, two} {
		if e := next(t, c); e.Topic != "a.b" || e.ID == "" || e.Time.IsZero() || e.ContentType != "application/json" {
			t.Errorf("got %+v", e)
		}
	}
	if e := next(t, two); e.Topic != "c.d.e" {
		t.Errorf("got %+v", e)
	}
}

func TestOwnEventsDoNotComeBack(t *testing.T) {
	b := New(Options{})
	defer b.Close()
	ctx := hostabi.WithPublisher(t.Context(), hostabi.Publisher{Invocation: "inv1", TraceID: "trace", Hops: 3})
	subscribe(t, ctx, b, "a")
	other := subscribe(t, hostabi.WithPublisher(t.Context(), hostabi.Publisher{Invocation: "inv2"}), b, "a")
	if n, _, _ := b.Publish(ctx, event("a")); n != 1 {
		t.Errorf("reached %d subscribers, want the other one only", n)
	}
	if e := next(t, other); e.TraceID != "trace" || e.Hops != 3 {
		t.Errorf("got %+v", e)
	}
	if n := b.Stats()[0].Queued; n != 0 {
		t.Errorf("%d own events came back", n)
	}
}

// TestRing101 is the rule of events-state.md: 101 events unread, then Dropped 1 and events 2 to 101.
func TestRing101(t *testing.T) {
	b := New(Options{})
	defer b.Close()
	c := subscribe(t, t.Context(), b, "a.**")
	for i := range 101 {
		if _, _, err := b.Publish(t.Context(), event(fmt.Sprintf("a.%d", i+1))); err != nil {
			t.Fatal(err)
		}
	}
	first := next(t, c)
	if first.Topic != "a.2" || first.Dropped != 1 {
		t.Errorf("first is %s with Dropped %d", first.Topic, first.Dropped)
	}
	for i := 3; i <= 101; i++ {
		if e := next(t, c); e.Topic != fmt.Sprintf("a.%d", i) || e.Dropped != 0 {
			t.Fatalf("event %d is %s with Dropped %d", i, e.Topic, e.Dropped)
		}
	}
}

// TestNothingIsLostUncounted floods subscribers of which one never reads and others read: the publisher never
// waits, matched = delivered + dropped + queued at any time, and what readers got and heard of is all there was.
func TestNothingIsLostUncounted(t *testing.T) {
	const publishers, each, readers = 4, 5000, 6
	b := New(Options{Buffer: 8})
	subscribe(t, t.Context(), b, "a")
	var reading, writing, watching sync.WaitGroup
	for r := range readers {
		s := subscribe(t, t.Context(), b, "a")
		reading.Go(func() {
			var got, gaps uint64
			buf := make([]hostabi.Event, 1+3*r) // less, and more than the ring holds
			for {
				n, err := s.Next(t.Context(), buf)
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Error(err)
					return
				}
				for _, e := range buf[:n] {
					got++
					gaps += e.Dropped
				}
			}
			if got == 0 || got+gaps != publishers*each {
				t.Errorf("reader %d received %d and heard of %d lost, of %d", r, got, gaps, publishers*each)
			}
		})
	}
	var begun, done atomic.Uint64
	for p := range publishers {
		writing.Go(func() {
			for range each {
				begun.Add(1)
				e := event("a")
				e.Source = fmt.Sprintf("/plugins/p%d", p)
				if _, _, err := b.Publish(t.Context(), e); err != nil {
					t.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	watching.Go(func() {
		for done.Load() < publishers*each && !t.Failed() {
			least := done.Load()
			all := b.Stats()
			most := begun.Load()
			for _, s := range all {
				if sum := s.Delivered + s.Dropped + s.Queued; sum < least || sum > most {
					t.Errorf("%d delivered + %d dropped + %d queued is not between %d and %d", s.Delivered, s.Dropped, s.Queued, least, most)
				}
			}
		}
	})
	writing.Wait()
	watching.Wait()
	stats := b.Stats()
	if len(stats) != readers+1 {
		t.Fatalf("%d subscribers", len(stats))
	}
	for _, s := range stats {
		if sum := s.Delivered + s.Dropped + s.Queued; sum != publishers*each {
			t.Errorf("%d delivered + %d dropped + %d queued is not %d", s.Delivered, s.Dropped, s.Queued, publishers*each)
		}
	}
	b.Close()
	reading.Wait()
}

// TestEnd: a subscription and a bus that are closed still give what is queued, then io.EOF, and a Next that waits
// returns.
func TestEnd(t *testing.T) {
	for name, end := range map[string]func(*Bus, hostabi.Subscription) error{
		"subscription": func(_ *Bus, s hostabi.Subscription) error { return s.Close() },
		"bus":          func(b *Bus, _ hostabi.Subscription) error { return b.Close() },
	} {
		b := New(Options{})
		s := subscribe(t, t.Context(), b, "a")
		_, _, _ = b.Publish(t.Context(), event("a"))
		if err := errors.Join(end(b, s), end(b, s)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n, _, _ := b.Publish(t.Context(), event("a")); n != 0 {
			t.Errorf("%s: reached after its end", name)
		}
		buf := make([]hostabi.Event, 5)
		if n, err := s.Next(t.Context(), buf); n != 1 || err != nil {
			t.Errorf("%s: Next = %d, %v", name, n, err)
		}
		if n, err := s.Next(t.Context(), buf); n != 0 || err != io.EOF {
			t.Errorf("%s: Next at the end = %d, %v", name, n, err)
		}
		_ = b.Close()

		b = New(Options{})
		s = subscribe(t, t.Context(), b, "a")
		waiting := make(chan error)
		go func() {
			_, err := s.Next(t.Context(), buf)
			waiting <- err
		}()
		_ = end(b, s)
		if err := <-waiting; err != io.EOF {
			t.Errorf("%s: a waiting Next = %v", name, err)
		}
		_ = b.Close()
	}
}

func TestNextObeysItsContext(t *testing.T) {
	b := New(Options{})
	defer b.Close()
	s := subscribe(t, t.Context(), b, "a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var buf [1]hostabi.Event
	if _, err := s.Next(ctx, buf[:]); !errors.Is(err, context.Canceled) {
		t.Errorf("Next = %v", err)
	}
	_, _, _ = b.Publish(t.Context(), event("a"))
	if n, err := s.Next(ctx, buf[:]); n != 1 || err != nil {
		t.Errorf("what is queued needs no waiting: %d, %v", n, err)
	}
	if n, err := s.Next(ctx, nil); n != 0 || err != nil {
		t.Errorf("an empty buffer: %d, %v", n, err)
	}
}

// TestLost remembers who was too slow, also after the subscription ended.
func TestLost(t *testing.T) {
	b := New(Options{Buffer: 2})
	defer b.Close()
	ended := subscribe(t, hostabi.WithPublisher(t.Context(), hostabi.Publisher{Name: "slow"}), b, "a")
	subscribe(t, hostabi.WithPublisher(t.Context(), hostabi.Publisher{Name: "slow"}), b, "b")
	subscribe(t, hostabi.WithPublisher(t.Context(), hostabi.Publisher{Name: "quick"}), b, "c")
	for _, topic := range []string{"a", "a", "a", "a", "b", "b", "b", "c"} {
		_, _, _ = b.Publish(t.Context(), event(topic))
	}
	_ = ended.Close()
	if lost := b.Lost(); len(lost) != 1 || lost["slow"] != 3 {
		t.Errorf("lost %v", lost)
	}
}

// TestDeliver passes on what another bus has stamped and lost.
func TestDeliver(t *testing.T) {
	b := New(Options{})
	defer b.Close()
	s := subscribe(t, t.Context(), b, "a")
	e := event("a")
	e.ID, e.Dropped, e.Hops = "other-1", 7, 2
	if n, dropped := b.Deliver(e); n != 1 || dropped != 0 {
		t.Errorf("Deliver = %d, %d", n, dropped)
	}
	if got := next(t, s); got.ID != "other-1" || got.Dropped != 7 || got.Hops != 2 {
		t.Errorf("got %+v", got)
	}
}

// TestIDs are made in blocks, and nobody sees that.
func TestIDs(t *testing.T) {
	b := New(Options{})
	defer b.Close()
	s := subscribe(t, t.Context(), b, "a")
	for i := range 200 {
		_, _, _ = b.Publish(t.Context(), event("nobody"))
		_, _, _ = b.Publish(t.Context(), event("a"))
		bus, n, _ := strings.Cut(next(t, s).ID, "-")
		if len(bus) != 16 || n != strconv.Itoa(2*i+2) {
			t.Fatalf("event %d has the id %s-%s", 2*i+2, bus, n)
		}
	}
}

func TestRateIsPerSource(t *testing.T) {
	now := time.Unix(0, 0)
	b := New(Options{Clock: func() time.Time { return now }})
	defer b.Close()
	for range hostabi.MaxEventRate {
		if _, _, err := b.Publish(t.Context(), event("a")); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := b.Publish(t.Context(), event("a")); hostabi.ReasonOf(err) != hostabi.ReasonRate {
		t.Errorf("over the rate: %v", err)
	}
	other := event("a")
	other.Source = "/plugins/b"
	if _, _, err := b.Publish(t.Context(), other); err != nil {
		t.Errorf("another source pays for the flood: %v", err)
	}
	now = now.Add(time.Second)
	if _, _, err := b.Publish(t.Context(), event("a")); err != nil {
		t.Errorf("a second later: %v", err)
	}
	host := event("capability.denied")
	host.Source = "/ds"
	flooder := hostabi.WithPublisher(t.Context(), hostabi.Publisher{Name: "flooder"})
	for range hostabi.MaxEventRate {
		if _, _, err := b.Publish(flooder, host); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := b.Publish(flooder, host); hostabi.ReasonOf(err) != hostabi.ReasonRate {
		t.Errorf("host events over the rate: %v", err)
	}
	if _, _, err := b.Publish(hostabi.WithPublisher(t.Context(), hostabi.Publisher{Name: "other"}), host); err != nil {
		t.Errorf("another plugin pays for the flood of host events: %v", err)
	}
}

func TestWanted(t *testing.T) {
	b := New(Options{})
	defer b.Close()
	if b.Wanted("a") {
		t.Error("wanted without subscribers")
	}
	s := subscribe(t, t.Context(), b, "a")
	if !b.Wanted("a") || b.Wanted("b") {
		t.Error("Wanted follows the patterns")
	}
	_ = s.Close()
	if b.Wanted("a") {
		t.Error("wanted after the last subscriber left")
	}
}

func TestBadInput(t *testing.T) {
	b := New(Options{})
	for name, c := range map[string]struct {
		err  error
		want hostabi.Reason
	}{
		"topic":       {second(b.Publish(t.Context(), event("A"))), hostabi.ReasonBadTopic},
		"no pattern":  {errOf(b.Subscribe(t.Context(), nil)), hostabi.ReasonBadTopic},
		"bad pattern": {errOf(b.Subscribe(t.Context(), []string{"a.**.b"})), hostabi.ReasonBadTopic},
	} {
		if got := hostabi.ReasonOf(c.err); got != c.want {
			t.Errorf("%s: reason %q, want %q", name, got, c.want)
		}
	}
	for range maxSubscribers {
		subscribe(t, t.Context(), b, "a")
	}
	if _, err := b.Subscribe(t.Context(), []string{"a"}); hostabi.ReasonOf(err) != hostabi.ReasonTooMany {
		t.Errorf("one subscriber too many: %v", err)
	}
	b.Close()
	if _, err := b.Subscribe(t.Context(), []string{"a"}); err == nil {
		t.Error("subscribed to a closed bus")
	}
}

// next is one event of s.
func next(t testing.TB, s hostabi.Subscription) hostabi.Event {
	t.Helper()
	var buf [1]hostabi.Event
	if n, err := s.Next(t.Context(), buf[:]); n != 1 || err != nil {
		t.Fatalf("Next = %d, %v", n, err)
	}
	return buf[0]
}

func subscribe(t testing.TB, ctx context.Context, b *Bus, topics ...string) hostabi.Subscription {
	t.Helper()
	c, err := b.Subscribe(ctx, topics)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func second(_, _ int, err error) error { return err }

func errOf[T any](_ T, err error) error { return err }
