package natsbus

import (
	"context"
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/delivery-station/ds/hostabi"
)

const (
	inQueue  = 512  // messages between the connection and the local bus
	maxPeers = 1024 // buses whose last sequence is remembered, twice
)

// inbox is what comes from the server: one core subscription for each distinct local pattern, all into one queue,
// so that the order of a publisher stays. A message that matches several patterns comes several times and is
// delivered once.
type inbox struct {
	c       *Conn
	deliver func(e hostabi.Event) (subscribers, dropped int)

	mu     sync.Mutex
	users  map[string]int // by pattern
	subs   map[string]*nats.Subscription
	closed bool

	messages chan *nats.Msg
	done     chan struct{}
	start    sync.Once
	running  sync.WaitGroup

	last, older map[string]uint64 // sequence of the last event of each bus; used by run alone
}

func newInbox(c *Conn, deliver func(e hostabi.Event) (subscribers, dropped int)) *inbox {
	return &inbox{
		c: c, deliver: deliver, users: make(map[string]int), subs: make(map[string]*nats.Subscription),
		messages: make(chan *nats.Msg, inQueue), done: make(chan struct{}), last: make(map[string]uint64), older: make(map[string]uint64),
	}
}

// want adds one user of each pattern. When it returns the server knows the new ones, unless it cannot be reached;
// then it learns them when it is back.
func (in *inbox) want(ctx context.Context, patterns []string) error {
	js, err := in.c.open(ctx)
	if err != nil {
		return err
	}
	nc := js.Conn()
	if err := in.add(nc, patterns); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, in.c.o.CallTimeout)
	defer cancel()
	if nc.IsConnected() {
		if err := nc.FlushWithContext(ctx); err != nil {
			in.c.o.Log.Debug("nats: subscriptions wait", "err", err)
		}
	}
	return nil
}

func (in *inbox) add(nc *nats.Conn, patterns []string) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return unavailable("the event bus is closed")
	}
	for i, p := range patterns {
		if in.users[p] == 0 {
			s, err := nc.ChanSubscribe(subject(in.c.o.Prefix, p), in.messages)
			if err != nil {
				in.drop(patterns[:i])
				return callError("events", err)
			}
			in.subs[p] = s
			in.start.Do(func() { in.running.Go(in.run) }) // close waits for it
		}
		in.users[p]++
	}
	return nil
}

func (in *inbox) unwant(patterns []string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.drop(patterns)
}

// drop takes one user of each pattern away; in.mu is held.
func (in *inbox) drop(patterns []string) {
	for _, p := range patterns {
		if in.users[p]--; in.users[p] > 0 {
			continue
		}
		delete(in.users, p)
		if s := in.subs[p]; s != nil {
			_ = s.Unsubscribe() // a closed connection has no subscriptions
			delete(in.subs, p)
		}
	}
}

func (in *inbox) run() {
	for {
		select {
		case m := <-in.messages:
			in.receive(m.Subject, m.Data)
		case <-in.done:
			return
		}
	}
}

// receive delivers one message if it is an event that a ds process could have sent and that was not delivered yet.
func (in *inbox) receive(subject string, data []byte) {
	e, bus, sequence, ok := parse(in.c.o.Prefix, subject, data)
	if !ok {
		in.c.o.Log.Debug("nats: a message is no event of ds", "subject", subject, "bytes", len(data))
		return
	}
	if in.seen(bus, sequence) {
		return
	}
	in.deliver(e)
}

// parse reads a message of a stranger. Its source becomes one below /nodes, whatever it says; its blobs are names.
func parse(prefix, subjectOf string, data []byte) (e hostabi.Event, bus string, sequence uint64, ok bool) {
	if len(data) > maxPayload {
		return e, "", 0, false
	}
	e, err := hostabi.ParseCloudEvent(data)
	if err != nil || subjectOf != subject(prefix, e.Topic) || e.Hops >= hostabi.MaxHops {
		return e, "", 0, false
	}
	bus, number, _ := strings.Cut(e.ID, "-")
	sequence, err = strconv.ParseUint(number, 10, 64)
	if err != nil || len(bus) != 16 || strings.Trim(bus, "0123456789abcdef") != "" || len(number) > 20 {
		return e, "", 0, false
	}
	e.Hops++
	e.Dropped = 0 // losses of others are told by ds.gap
	if e.ContentType == "" {
		e.ContentType = "application/json"
	}
	name, plugin := strings.CutPrefix(e.Source, "/plugins/")
	first, _, _ := strings.Cut(e.Topic, ".")
	switch {
	case plugin && first == name && hostabi.PluginName(name).Valid() && !hostabi.ReservedTopic(e.Topic):
		e.Source = "/nodes/" + bus + "/plugins/" + name
	case e.Source == "/ds" && hostabi.ReservedTopic(e.Topic):
		e.Source = "/nodes/" + bus + "/ds"
	default:
		return e, "", 0, false
	}
	return e, bus, sequence, true
}

// seen remembers the last sequence of each bus; what is not above it came before, by another subscription or
// because it was sent again.
func (in *inbox) seen(bus string, sequence uint64) bool {
	have, ok := in.last[bus]
	if !ok {
		have = in.older[bus]
	}
	if sequence <= have {
		return true
	}
	if !ok && len(in.last) >= maxPeers {
		in.older, in.last = in.last, make(map[string]uint64)
	}
	in.last[bus] = sequence
	return false
}

// close ends all subscriptions and the goroutine.
func (in *inbox) close() {
	in.mu.Lock()
	if !in.closed {
		in.closed = true
		for p, s := range in.subs {
			_ = s.Unsubscribe() // a closed connection has no subscriptions
			delete(in.subs, p)
		}
		close(in.done)
	}
	in.mu.Unlock()
	in.running.Wait()
}
