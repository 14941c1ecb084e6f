package bustest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// Bus is what an engine offers: host.Events and its end.
type Bus interface {
	Publish(ctx context.Context, e hostabi.Event) (subscribers, dropped int, err error)
	Subscribe(ctx context.Context, topics []string) (hostabi.Subscription, error)
	Wanted(topic string) bool
	Close() error
}

// BusOpener opens the bus of one case, with rings of hostabi.DefaultRing. It ends with the test at the latest.
type BusOpener func(t *testing.T, clock func() time.Time) Bus

// busCase is one bus with a clock that gives every event a second of its own, so that no rate matters.
type busCase struct {
	*testing.T
	Bus
}

// RunEvents runs every case of the event suite.
func RunEvents(t *testing.T, open BusOpener) {
	for name, run := range map[string]func(c *busCase){
		"patterns":               patterns,
		"stamps":                 stamps,
		"own events":             ownEvents,
		"order":                  order,
		"ring 101":               ring101,
		"flood":                  flood,
		"close while publishing": closeWhilePublishing,
		"end of a subscription":  endOfSubscription,
		"bad input":              badInput,
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			now := time.Unix(1_700_000_000, 0)
			c := &busCase{T: t}
			c.Bus = open(t, func() time.Time {
				mu.Lock()
				defer mu.Unlock()
				now = now.Add(time.Second)
				return now
			})
			run(c)
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if err := c.Close(); err != nil {
				t.Errorf("closing twice: %v", err)
			}
		})
	}
}

// Event is an event of the plugin a about topic.
func Event(topic string) hostabi.Event { return hostabi.Event{Topic: topic, Source: "/plugins/a"} }

func patterns(c *busCase) {
	one, all, both := c.subscribe("a.*"), c.subscribe("a.**"), c.subscribe("a.b", "a.*", "a.c.d")
	for topic, want := range map[string]int{"a": 0, "a.b": 3, "a.x": 3, "a.c.d": 2, "a.b.c.d": 1} {
		if n, dropped, err := c.Publish(c.Context(), Event(topic)); n != want || dropped != 0 || err != nil {
			c.Errorf("%s reached %d subscribers and dropped %d, want %d: %v", topic, n, dropped, want, err)
		}
	}
	c.wantTopics(one, "a.b", "a.x")
	c.wantTopics(all, "a.b", "a.b.c.d", "a.c.d", "a.x")
	c.wantTopics(both, "a.b", "a.c.d", "a.x")
	if !c.Wanted("a.x") {
		c.Error("a topic with subscribers is not wanted")
	}
}

func stamps(c *busCase) {
	s := c.subscribe("a")
	ctx := hostabi.WithPublisher(c.Context(), hostabi.Publisher{TraceID: "0123456789abcdef0123456789abcdef", Hops: 3})
	in := hostabi.Event{Topic: "a", Source: "/plugins/a", Data: []byte(`{"k":1}`), Attributes: map[string]string{"k": "v"}}
	for range 2 {
		if _, _, err := c.Publish(ctx, in); err != nil {
			c.Fatal(err)
		}
	}
	got := c.read(s, 2)
	for _, e := range got {
		if e.ID == "" || e.Time.IsZero() || e.ContentType != "application/json" || e.Source != "/plugins/a" || e.TraceID != "0123456789abcdef0123456789abcdef" ||
			e.Hops != 3 || string(e.Data) != `{"k":1}` || e.Attributes["k"] != "v" || e.Dropped != 0 {
			c.Errorf("got %+v", e)
		}
	}
	if got[0].ID == got[1].ID {
		c.Errorf("two events have the id %s", got[0].ID)
	}
}

func ownEvents(c *busCase) {
	mine := hostabi.WithPublisher(c.Context(), hostabi.Publisher{Invocation: "1"})
	own, err := c.Subscribe(mine, []string{"a"})
	if err != nil {
		c.Fatal(err)
	}
	other := c.subscribe("a")
	if n, _, err := c.Publish(mine, Event("a")); n != 1 || err != nil {
		c.Errorf("reached %d subscribers, %v", n, err)
	}
	if n, _, err := c.Publish(c.Context(), Event("a")); n != 2 || err != nil {
		c.Errorf("reached %d subscribers, %v", n, err)
	}
	if got := c.read(other, 2); got[0].ID == c.read(own, 1)[0].ID {
		c.Error("an own event came back")
	}
}

// order is that of each publisher.
func order(c *busCase) {
	const publishers, each = 4, 20
	s := c.subscribe("a.**")
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := range each {
				if _, _, err := c.Publish(c.Context(), Event(fmt.Sprintf("a.%d.%d", p, i))); err != nil {
					c.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var next [publishers]int
	for _, e := range c.read(s, publishers*each) {
		var p, i int
		if _, err := fmt.Sscanf(e.Topic, "a.%d.%d", &p, &i); err != nil || i != next[p] {
			c.Fatalf("%s came when %d was next", e.Topic, next[p])
		}
		next[p]++
	}
}

// ring101 is 101 events unread: Dropped 1, then events 2 to 101.
func ring101(c *busCase) {
	s := c.subscribe("a.*")
	for i := range hostabi.DefaultRing + 1 {
		if _, dropped, err := c.Publish(c.Context(), Event(fmt.Sprintf("a.%d", i+1))); err != nil || dropped != i/hostabi.DefaultRing {
			c.Fatalf("event %d dropped %d: %v", i+1, dropped, err)
		}
	}
	for i, e := range c.read(s, hostabi.DefaultRing) {
		if e.Topic != fmt.Sprintf("a.%d", i+2) || i == 0 && e.Dropped != 1 || i > 0 && e.Dropped != 0 {
			c.Fatalf("event %d is %s with Dropped %d", i+2, e.Topic, e.Dropped)
		}
	}
}

// flood sends a million events to 8 subscribers of which one never reads. Nothing is lost uncounted.
func flood(c *busCase) {
	n := 1_000_000
	if testing.Short() {
		n = 20_000
	}
	const readers = 7
	stuck := c.subscribe("a")
	var sums [readers]uint64
	var wg sync.WaitGroup
	for r := range readers {
		s := c.subscribe("a")
		wg.Go(func() { sums[r] = c.drain(s) })
	}
	for range n {
		if _, _, err := c.Publish(c.Context(), Event("a")); err != nil {
			c.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		c.Error(err)
	}
	wg.Wait()
	for r, sum := range append(sums[:], c.drain(stuck)) {
		if sum != uint64(n) {
			c.Errorf("subscriber %d knows of %d events, of %d", r, sum, n)
		}
	}
}

func closeWhilePublishing(c *busCase) {
	s := c.subscribe("a")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				_, _, _ = c.Publish(c.Context(), Event("a")) // a closed bus may refuse
			}
		})
	}
	_ = c.read(s, 1)
	if err := c.Close(); err != nil {
		c.Error(err)
	}
	wg.Wait()
	_ = c.drain(s)
	if _, err := c.Subscribe(c.Context(), []string{"a"}); err == nil {
		c.Error("subscribed to a closed bus")
	}
}

func endOfSubscription(c *busCase) {
	s, stays := c.subscribe("a"), c.subscribe("a")
	if _, _, err := c.Publish(c.Context(), Event("a")); err != nil {
		c.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			c.Error(err)
		}
	}
	if n, _, err := c.Publish(c.Context(), Event("a")); n != 1 || err != nil {
		c.Errorf("reached %d subscribers after one left, %v", n, err)
	}
	if sum := c.drain(s); sum != 1 {
		c.Errorf("%d events came after the end, want the one that was queued", sum)
	}
	_ = c.read(stays, 2)
	ctx, cancel := context.WithCancel(c.Context())
	cancel()
	if _, err := stays.Next(ctx, make([]hostabi.Event, 1)); !errors.Is(err, context.Canceled) {
		c.Errorf("Next with an ended context: %v", err)
	}
}

func badInput(c *busCase) {
	s := c.subscribe("**")
	for name, err := range map[string]error{
		"topic": second(c.Publish(c.Context(), Event("A"))), "no pattern": errOf(c.Subscribe(c.Context(), nil)),
		"pattern": errOf(c.Subscribe(c.Context(), []string{"a.**.b"})),
	} {
		if got := hostabi.ReasonOf(err); got != hostabi.ReasonBadTopic {
			c.Errorf("%s: reason %q, want BAD_TOPIC (%v)", name, got, err)
		}
	}
	big := Event("a")
	big.Data = make([]byte, hostabi.MaxEventData+1)
	if err := second(c.Publish(c.Context(), big)); hostabi.ReasonOf(err) != hostabi.ReasonTooLarge {
		c.Errorf("too much data: %v", err)
	}
	if _, _, err := c.Publish(c.Context(), Event("a.good")); err != nil {
		c.Error(err)
	}
	c.wantTopics(s, "a.good")
}

func (c *busCase) subscribe(topics ...string) hostabi.Subscription {
	c.Helper()
	s, err := c.Subscribe(c.Context(), topics)
	if err != nil {
		c.Fatal(err)
	}
	return s
}

// read waits for the next n events.
func (c *busCase) read(s hostabi.Subscription, n int) []hostabi.Event {
	c.Helper()
	all, err := Read(c.Context(), s, n)
	if err != nil {
		c.Fatal(err)
	}
	return all
}

// Read waits for the next n events, for 20 s at most.
func Read(ctx context.Context, s hostabi.Subscription, n int) ([]hostabi.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	all := make([]hostabi.Event, n)
	for have := 0; have < n; {
		more, err := s.Next(ctx, all[have:])
		if err != nil {
			return all[:have], fmt.Errorf("after %d events of %d: %w", have, n, err)
		}
		have += more
	}
	return all, nil
}

// drain reads to the end and is the number of events that came or are known to be lost.
func (c *busCase) drain(s hostabi.Subscription) (sum uint64) {
	buf := make([]hostabi.Event, 64)
	for {
		n, err := s.Next(c.Context(), buf)
		for _, e := range buf[:n] {
			sum += 1 + e.Dropped
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				c.Errorf("Next: %v", err)
			}
			return sum
		}
	}
}

// wantTopics compares what is queued with want, in any order.
func (c *busCase) wantTopics(s hostabi.Subscription, want ...string) {
	c.Helper()
	var got []string
	for _, e := range c.read(s, len(want)) {
		got = append(got, e.Topic)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		c.Errorf("got %q, want %q", got, want)
	}
}

func second(_, _ int, err error) error { return err }
