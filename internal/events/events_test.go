package events

import (
	"context"
	"fmt"
	"sync"
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
	for _, c := range []<-chan hostabi.Event{one, two} {
		if e := <-c; e.Topic != "a.b" || e.ID == "" || e.Time.IsZero() || e.ContentType != "application/json" {
			t.Errorf("got %+v", e)
		}
	}
	if e := <-two; e.Topic != "c.d.e" {
		t.Errorf("got %+v", e)
	}
}

func TestOwnEventsDoNotComeBack(t *testing.T) {
	b := New(Options{})
	defer b.Close()
	ctx := WithPublisher(t.Context(), "inv1", "trace", 3)
	own := subscribe(t, ctx, b, "a")
	other := subscribe(t, WithPublisher(t.Context(), "inv2", "", 0), b, "a")
	if n, _, _ := b.Publish(ctx, event("a")); n != 1 {
		t.Errorf("reached %d subscribers, want the other one only", n)
	}
	if e := <-other; e.TraceID != "trace" || e.Hops != 3 {
		t.Errorf("got %+v", e)
	}
	select {
	case e := <-own:
		t.Errorf("own event came back: %+v", e)
	default:
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
	first := <-c
	if first.Topic != "a.2" || first.Dropped != 1 {
		t.Errorf("first is %s with Dropped %d", first.Topic, first.Dropped)
	}
	for i := 3; i <= 101; i++ {
		if e := <-c; e.Topic != fmt.Sprintf("a.%d", i) || e.Dropped != 0 {
			t.Fatalf("event %d is %s with Dropped %d", i, e.Topic, e.Dropped)
		}
	}
}

// TestNothingIsLostUncounted floods subscribers of which one never reads and one reads slowly: the publisher
// never waits and matched = delivered + dropped + queued for each.
func TestNothingIsLostUncounted(t *testing.T) {
	const publishers, each = 4, 5000
	b := New(Options{Buffer: 8})
	subscribe(t, t.Context(), b, "a")
	reader := subscribe(t, t.Context(), b, "a")
	var got, gaps uint64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range reader {
			got++
			gaps += e.Dropped
		}
	}()
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for range each {
				e := event("a")
				e.Source = fmt.Sprintf("/plugins/p%d", p)
				if _, _, err := b.Publish(t.Context(), e); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	stats := b.Stats()
	if len(stats) != 2 {
		t.Fatalf("%d subscribers", len(stats))
	}
	for _, s := range stats {
		if sum := s.Delivered + s.Dropped + s.Queued; sum != publishers*each {
			t.Errorf("%d delivered + %d dropped + %d queued is not %d", s.Delivered, s.Dropped, s.Queued, publishers*each)
		}
	}
	b.Close()
	<-done
	if got == 0 || got+gaps > publishers*each {
		t.Errorf("received %d and heard of %d lost, of %d", got, gaps, publishers*each)
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
}

func TestWanted(t *testing.T) {
	b := New(Options{})
	defer b.Close()
	if b.Wanted("a") {
		t.Error("wanted without subscribers")
	}
	ctx, cancel := context.WithCancel(t.Context())
	c := subscribe(t, ctx, b, "a")
	if !b.Wanted("a") || b.Wanted("b") {
		t.Error("Wanted follows the patterns")
	}
	cancel()
	for range c {
	}
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

func BenchmarkPublish(b *testing.B) {
	for _, subs := range []int{0, 1, 8, 64} {
		b.Run(fmt.Sprintf("subscribers=%d", subs), func(b *testing.B) {
			now := time.Unix(0, 0)
			bus := New(Options{Clock: func() time.Time { now = now.Add(time.Second); return now }})
			defer bus.Close()
			for range subs {
				c, err := bus.Subscribe(b.Context(), []string{"a"})
				if err != nil {
					b.Fatal(err)
				}
				go func() { // ends with the bus
					for range c {
					}
				}()
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := bus.Publish(b.Context(), event("a")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func subscribe(t testing.TB, ctx context.Context, b *Bus, topics ...string) <-chan hostabi.Event {
	t.Helper()
	c, err := b.Subscribe(ctx, topics)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func second(_, _ int, err error) error { return err }

func errOf[T any](_ T, err error) error { return err }
