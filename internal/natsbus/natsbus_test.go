package natsbus_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/bustest"
	"github.com/delivery-station/ds/internal/dstest/natstest"
	"github.com/delivery-station/ds/internal/events"
	"github.com/delivery-station/ds/internal/natsbus"
)

// startServer is a server for one test.
func startServer(t *testing.T, o natstest.Options) *natstest.Server {
	t.Helper()
	s, err := natstest.New(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// node is what one ds process has.
type node struct {
	*natsbus.Bus
	state *natsbus.State
	conn  *natsbus.Conn
	id    string
	mu    sync.Mutex
	warns []string
}

// patience is the limit of what succeeds: a busy machine fails no test.
const patience = 30 * time.Second

// options are those of a connection to srv.
func options(srv *natstest.Server) natsbus.Options {
	return natsbus.Options{
		Servers: []string{"nats://" + srv.Addr()}, Prefix: "ds", EventRetention: time.Hour,
		ConnectTimeout: patience, CallTimeout: patience, FlushTime: patience,
	}
}

// start makes a node that ends with the test.
func start(t *testing.T, o natsbus.Options) *node {
	t.Helper()
	n := &node{id: events.NewID()}
	o.ID = n.id
	o.Warn = func(text string) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.warns = append(n.warns, text)
	}
	c := natsbus.New(o)
	n.conn, n.state = c, c.State(0)
	n.Bus = c.Bus(func(forward func(hostabi.Event)) natsbus.Local {
		return events.New(events.Options{ID: n.id, Forward: forward, Clock: o.Clock})
	})
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// Close ends the node as ds does.
func (n *node) Close() error {
	if err := n.Bus.Close(); err != nil {
		return err
	}
	return n.conn.Close()
}

func (n *node) warnings() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.warns
}

func (n *node) publish(t *testing.T, topics ...string) {
	t.Helper()
	for _, topic := range topics {
		if _, _, err := n.Publish(t.Context(), bustest.Event(topic)); err != nil {
			t.Fatal(err)
		}
	}
}

func (n *node) subscribe(t *testing.T, topics ...string) hostabi.Subscription {
	t.Helper()
	s, err := n.Subscribe(t.Context(), topics)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func read(t *testing.T, s hostabi.Subscription, n int) []hostabi.Event {
	t.Helper()
	all, err := bustest.Read(t.Context(), s, n)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// wantNone fails if something is queued.
func wantNone(t *testing.T, s hostabi.Subscription) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	buf := make([]hostabi.Event, 1)
	if n, err := s.Next(ctx, buf); n > 0 || err == nil {
		t.Errorf("%+v came", buf[0])
	}
}

func wantReason(t *testing.T, err error, want hostabi.Reason) {
	t.Helper()
	if got := hostabi.ReasonOf(err); got != want {
		t.Errorf("reason %q, want %q (%v)", got, want, err)
	}
}

func TestStateSuite(t *testing.T) {
	srv, cases := startServer(t, natstest.Options{}), 0
	bustest.RunState(t, func(t *testing.T) func(bustest.StateOptions) bustest.State {
		cases++
		prefix := fmt.Sprintf("t%d", cases)
		return func(o bustest.StateOptions) bustest.State {
			no := options(srv)
			no.Clock, no.Prefix = o.Clock, prefix
			return start(t, no).conn.State(o.DefaultTTL)
		}
	})
}

func TestEventSuite(t *testing.T) {
	srv, cases := startServer(t, natstest.Options{}), 0
	bustest.RunEvents(t, func(t *testing.T, clock func() time.Time) bustest.Bus {
		cases++
		o := options(srv)
		o.Clock, o.Prefix = clock, fmt.Sprintf("t%d", cases)
		return start(t, o)
	})
}

func TestNodesExchangeEvents(t *testing.T) {
	srv := startServer(t, natstest.Options{})
	a, b := start(t, options(srv)), start(t, options(srv))
	one, two := b.subscribe(t, "a.*"), b.subscribe(t, "a.**", "a.x", "a.*")
	own := a.subscribe(t, "a.**")
	e := bustest.Event("a.x")
	e.Data, e.Attributes, e.Hops = []byte(`{"k":"v"}`), map[string]string{"k": "v"}, 2
	e.Blobs = []hostabi.Digest{hostabi.DigestOf([]byte("blob"))}
	if _, _, err := a.Publish(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	a.publish(t, "a.y.z", "a.end")
	for _, s := range []hostabi.Subscription{one, two} {
		got := read(t, s, 1)[0]
		if got.Topic != "a.x" || got.Source != "/nodes/"+a.id+"/plugins/a" || got.Hops != 3 || string(got.Data) != `{"k":"v"}` || got.Attributes["k"] != "v" ||
			len(got.Blobs) != 1 || got.Time.IsZero() || got.ID != a.id+"-1" || got.Dropped != 0 {
			t.Errorf("got %+v", got)
		}
	}
	if got := read(t, one, 1)[0]; got.Topic != "a.end" {
		t.Errorf("got %+v", got)
	}
	if got := read(t, two, 2); got[0].Topic != "a.y.z" || got[1].Topic != "a.end" {
		t.Errorf("got %+v", got)
	}
	if got := read(t, own, 3); got[0].Source != "/plugins/a" || got[0].Hops != 2 {
		t.Errorf("the publisher's process got %+v", got[0])
	}
	wantNone(t, own) // nothing comes back
	wantNone(t, two) // three subscriptions match, it came once
	// A subscription ends on the server with its last user.
	for _, s := range []hostabi.Subscription{one, two} {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	again := b.subscribe(t, "a.new")
	a.publish(t, "a.other", "a.new")
	if got := read(t, again, 1)[0]; got.Topic != "a.new" {
		t.Errorf("got %+v", got)
	}
}

// TestHostEventsOfOthers: they come, and say whose they are.
func TestHostEventsOfOthers(t *testing.T) {
	srv := startServer(t, natstest.Options{})
	a, b := start(t, options(srv)), start(t, options(srv))
	s := b.subscribe(t, "state.changed")
	if !a.Wanted("state.changed") {
		t.Error("nobody here listens, but others may")
	}
	if _, _, err := a.Publish(t.Context(), hostabi.Event{Topic: "state.changed", Source: "/ds", Data: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, 1)[0]; got.Source != "/nodes/"+a.id+"/ds" {
		t.Errorf("got %+v", got)
	}
}
