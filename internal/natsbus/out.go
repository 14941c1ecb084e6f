package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/delivery-station/ds/hostabi"
)

const (
	outRing     = 1000                   // events that wait for the server
	batchSize   = 256                    // events on their way to it
	dedupWindow = 2 * time.Minute        // in which the server knows an event again
	flushTime   = 500 * time.Millisecond // for what waits at the end
)

// outbox is what goes to the server: a ring that loses its oldest event, counted, and one goroutine that takes
// batches out of it. A batch is done when the stream has acknowledged all of it; until then it is sent again, in
// order, and the server drops what it has already.
type outbox struct {
	c       *Conn
	connect func(context.Context) error

	mu          sync.Mutex
	ring        [outRing]hostabi.Event
	head, n     int
	missed      int // overwritten since the last batch
	first, last string
	lost        int // never sent
	closing     bool
	started     bool

	wake    chan struct{} // at most one token
	ending  chan struct{} // closed with closing
	running sync.WaitGroup
	ctx     context.Context
	cancel  context.CancelFunc // ends the goroutine whatever waits
}

func newOutbox(c *Conn, connect func(context.Context) error) *outbox {
	o := &outbox{c: c, connect: connect, wake: make(chan struct{}, 1), ending: make(chan struct{})}
	o.ctx, o.cancel = context.WithCancel(context.Background())
	return o
}

// add queues e. The goroutine starts with the first event; close waits for it.
func (o *outbox) add(e hostabi.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing {
		o.lost++
		return
	}
	if !o.started {
		o.started = true
		o.running.Go(o.run)
	}
	if o.n == outRing {
		if o.missed == 0 {
			o.first = o.ring[o.head].ID
		}
		o.last = o.ring[o.head].ID
		o.missed++
		o.lost++
		o.head, o.n = (o.head+1)%outRing, o.n-1
	}
	o.ring[(o.head+o.n)%outRing] = e
	o.n++
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// take moves up to batchSize events out of the ring, after one that tells of a gap. done: nothing will come.
func (o *outbox) take() (batch []hostabi.Event, done bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.missed > 0 {
		batch = append(batch, o.gap())
	}
	for o.n > 0 && len(batch) < batchSize {
		batch = append(batch, o.ring[o.head])
		o.ring[o.head] = hostabi.Event{}
		o.head, o.n = (o.head+1)%outRing, o.n-1
	}
	return batch, o.closing && len(batch) == 0
}

// gap is the event in the place of those that were lost; it has the id of the last one. o.mu is held.
func (o *outbox) gap() hostabi.Event {
	data, _ := json.Marshal(map[string]any{"missed": o.missed, "first": o.first, "last": o.last}) // strings and a number
	e := hostabi.Event{ID: o.last, Topic: "ds.gap", Source: "/ds", Time: o.c.o.Clock(), ContentType: "application/json", Data: data}
	o.missed = 0
	return e
}

func (o *outbox) run() {
	var batch []hostabi.Event
	defer func() { // what was not sent
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, e := range batch {
			if e.Topic != "ds.gap" {
				o.lost++
			}
		}
		o.lost += o.n
		o.n = 0
	}()
	for attempt := 1; ; {
		if len(batch) == 0 {
			var done bool
			if batch, done = o.take(); done {
				return
			}
		}
		if len(batch) == 0 {
			select {
			case <-o.wake:
			case <-o.ending:
			}
			continue
		}
		again := o.c.again()
		sent, err := o.send(o.ctx, batch)
		batch = batch[sent:]
		if err == nil {
			attempt = 1
			continue
		}
		o.c.o.Log.Debug("nats: events wait", "events", len(batch), "err", err)
		if !o.pause(again, delay(attempt)) {
			return
		}
		attempt++
	}
}

// pause waits before the next attempt; false = there is none.
func (o *outbox) pause(again <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-again:
	case <-o.ctx.Done():
	}
	return o.ctx.Err() == nil
}

// send publishes a batch and reports how many events from its start are in the stream.
func (o *outbox) send(ctx context.Context, batch []hostabi.Event) (sent int, err error) {
	if err := o.connect(ctx); err != nil {
		return 0, err
	}
	js, err := o.c.connected(ctx)
	if err != nil {
		return 0, err
	}
	acks := make([]jetstream.PubAckFuture, 0, len(batch))
	for i := range batch {
		msg, err := o.message(&batch[i])
		if err == nil {
			var ack jetstream.PubAckFuture
			if ack, err = js.PublishMsgAsync(msg); err == nil {
				acks = append(acks, ack)
				continue
			}
		}
		if msg != nil && !errors.Is(err, nats.ErrMaxPayload) {
			break // what was sent before counts
		}
		o.refused(&batch[i], err)
		acks = append(acks, nil)
	}
	for i, ack := range acks {
		if ack == nil {
			continue
		}
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			if api, ok := errors.AsType[*jetstream.APIError](err); !ok || api.Code != 400 {
				return i, err
			}
			o.refused(&batch[i], err)
		case <-ctx.Done():
			return i, ctx.Err()
		}
	}
	if len(acks) < len(batch) {
		return len(acks), nats.ErrConnectionReconnecting
	}
	return len(batch), nil
}

// refused counts an event that the stream will never take: sending it again would hold up all others.
func (o *outbox) refused(e *hostabi.Event, err error) {
	o.c.o.Log.Debug("nats: an event cannot be sent", "topic", e.Topic, "err", err)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lost++
}

func (o *outbox) message(e *hostabi.Event) (*nats.Msg, error) {
	data, err := e.Scrubbed(o.c.o.Scrub).CloudEvent()
	if err != nil {
		return nil, err
	}
	return &nats.Msg{Subject: subject(o.c.o.Prefix, e.Topic), Header: nats.Header{nats.MsgIdHdr: []string{e.ID}}, Data: data}, nil
}

// close gives what waits Options.FlushTime, ends the goroutine and tells what was lost.
func (o *outbox) close() {
	o.mu.Lock()
	if o.closing {
		o.mu.Unlock()
		return
	}
	o.closing = true
	close(o.ending)
	o.mu.Unlock()
	t := time.AfterFunc(o.c.o.FlushTime, o.cancel)
	defer t.Stop()
	o.running.Wait()
	o.cancel()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lost > 0 {
		o.c.o.Warn(fmt.Sprintf("%d events were not sent to the NATS server", o.lost))
	}
}

// subject is where events of a topic, or those that match a pattern, are on the server.
func subject(prefix, topic string) string {
	if rest, ok := strings.CutSuffix(topic, "**"); ok {
		topic = rest + ">"
	}
	return prefix + ".events." + topic
}
