package client

import (
	"context"
	"encoding/json"
	"io"
	"runtime"
	"sync"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1lite"
)

// pollSlice is how long one host call of Next may block a WASM guest, whose other goroutines wait meanwhile.
const pollSlice = 50 * time.Millisecond

type publishOptions struct {
	attributes map[string]string
}

// PublishOption adds to a published event.
type PublishOption func(*publishOptions)

// WithAttribute adds an attribute; its key is [a-z0-9]{1,20}.
func WithAttribute(key, value string) PublishOption {
	return func(o *publishOptions) {
		if o.attributes == nil {
			o.attributes = make(map[string]string)
		}
		o.attributes[key] = value
	}
}

// Publish sends an event to whoever listens: []byte as it is, anything else as JSON. It never waits for a
// subscriber. Data and attributes are at most 64 KiB.
func (c *Client) Publish(ctx context.Context, topic string, data any, opts ...PublishOption) error {
	var o publishOptions
	for _, opt := range opts {
		opt(&o)
	}
	e := &hostv1lite.Event{Topic: topic, Attributes: o.attributes, ContentType: "application/json"}
	switch data := data.(type) {
	case nil:
	case []byte:
		e.Data, e.ContentType = data, "application/octet-stream"
	case json.RawMessage:
		e.Data = data
	default:
		b, err := json.Marshal(data)
		if err != nil {
			return Usagef("event %s: %v", topic, err)
		}
		e.Data = b
	}
	return c.invoke(ctx, hostv1lite.EventsPublish, e, &hostv1lite.PublishAck{})
}

// Subscription receives events. Next is for one goroutine at a time; Close may be called from any.
type Subscription struct {
	c      *Client
	cancel context.CancelFunc
	closed chan struct{}
	once   sync.Once

	// On carriers that do not block: the stream, and the message that is being waited for.
	st      *stream
	pending chan received

	// On the others: the poll, and what it brought.
	poll   string
	events []Event
}

type received struct {
	event Event
	err   error
}

// Subscribe starts receiving events of the topics, 1 to 32 patterns such as "artifact.*" or "porter.**".
// The subscription ends with ctx.
func (c *Client) Subscribe(ctx context.Context, topics ...string) (*Subscription, error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &Subscription{c: c, cancel: cancel, closed: make(chan struct{})}
	var err error
	if hostBlocks {
		err = s.fetch(ctx, &hostv1lite.PollRequest{Topics: topics})
	} else {
		s.st, err = c.request(ctx, hostv1lite.EventsSubscribe, &hostv1lite.SubscribeRequest{Topics: topics})
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return s, nil
}

// Next waits for the next event. Event.Dropped counts what was lost before it. After Close it is io.EOF.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	select {
	case <-s.closed:
		return Event{}, io.EOF
	default:
	}
	if hostBlocks {
		return s.polled(ctx)
	}
	if s.pending == nil { // one message is taken ahead at most: the ring is at the host
		pending := make(chan received, 1)
		s.pending = pending
		go func() {
			var e hostv1lite.Event
			err := s.st.recv(&e)
			pending <- received{event(&e), err}
		}()
	}
	select {
	case r := <-s.pending:
		s.pending = nil
		return r.event, r.err
	case <-s.closed:
		return Event{}, io.EOF
	case <-ctx.Done():
		return Event{}, ended(ctx)
	}
}

func (s *Subscription) polled(ctx context.Context) (Event, error) {
	for len(s.events) == 0 {
		if ctx.Err() != nil {
			return Event{}, ended(ctx)
		}
		if err := s.fetch(ctx, &hostv1lite.PollRequest{Subscription: s.poll, Wait: pollSlice.Milliseconds()}); err != nil {
			return Event{}, err
		}
		runtime.Gosched()
	}
	e := s.events[0]
	s.events = s.events[1:]
	return e, nil
}

func (s *Subscription) fetch(ctx context.Context, req *hostv1lite.PollRequest) error {
	var r hostv1lite.PollReply
	if err := s.c.invoke(ctx, hostv1lite.EventsPoll, req, &r); err != nil {
		return err
	}
	s.poll = r.Subscription
	for i := range r.Events {
		s.events = append(s.events, event(&r.Events[i]))
	}
	return nil
}

// Close ends the subscription.
func (s *Subscription) Close() error {
	s.once.Do(func() {
		close(s.closed)
		s.cancel()
		if s.st != nil {
			s.st.close()
		}
	})
	return nil
}

// ended is the error of a context that has ended.
func ended(ctx context.Context) error {
	reason := hostabi.ReasonInterrupted
	if ctx.Err() == context.DeadlineExceeded {
		reason = hostabi.ReasonTimeout
	}
	return classify(hostabi.Errorf(reason, "%w", context.Cause(ctx)))
}
