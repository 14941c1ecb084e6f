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

const (
	// pollSlice is how long one host call of Next may block a WASM guest, whose other goroutines wait meanwhile.
	pollSlice = 50 * time.Millisecond
	// pollTime is how long one may take where it blocks nobody; the host bounds it.
	pollTime = 20 * time.Second
)

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
	ctx    context.Context // of the subscription
	cancel context.CancelFunc
	closed chan struct{}
	once   sync.Once

	id     string  // of the poll at the host
	events []Event // what a poll brought and Next has not taken
	// pending is the poll in flight where one does not stop the program: it outlives a Next that gives up, so
	// that no event goes with it.
	pending chan polled
}

type polled struct {
	events []Event
	err    error
}

// Subscribe starts receiving events of the topics, 1 to 32 patterns such as "artifact.*" or "porter.**". When
// it returns the host collects them: what is published from then on is not missed. The subscription ends with
// ctx, or when nobody calls Next for five minutes.
func (c *Client) Subscribe(ctx context.Context, topics ...string) (*Subscription, error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &Subscription{c: c, ctx: ctx, cancel: cancel, closed: make(chan struct{})}
	r, err := s.poll(ctx, &hostv1lite.PollRequest{Topics: topics})
	if err != nil {
		cancel()
		return nil, err
	}
	s.events = r
	return s, nil
}

// Next waits for the next event. Event.Dropped counts what was lost before it. After Close it is io.EOF.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	select {
	case <-s.closed:
		return Event{}, io.EOF
	default:
	}
	for len(s.events) == 0 {
		if ctx.Err() != nil {
			return Event{}, ended(ctx)
		}
		var err error
		if hostBlocks {
			s.events, err = s.poll(ctx, &hostv1lite.PollRequest{Subscription: s.id, Wait: pollSlice.Milliseconds()})
			runtime.Gosched()
		} else {
			s.events, err = s.wait(ctx)
		}
		if err != nil {
			return Event{}, err
		}
	}
	e := s.events[0]
	s.events = s.events[1:]
	return e, nil
}

// wait waits for the poll in flight, or starts one.
func (s *Subscription) wait(ctx context.Context) ([]Event, error) {
	if s.pending == nil {
		pending := make(chan polled, 1)
		s.pending = pending
		go func() {
			ctx, cancel := context.WithTimeout(s.ctx, 2*pollTime) // its own: a shorter WithCallTimeout is for other calls
			defer cancel()
			events, err := s.poll(ctx, &hostv1lite.PollRequest{Subscription: s.id, Wait: pollTime.Milliseconds()})
			pending <- polled{events, err}
		}()
	}
	select {
	case r := <-s.pending:
		s.pending = nil
		return r.events, r.err
	case <-s.closed:
		return nil, io.EOF
	case <-ctx.Done():
		return nil, ended(ctx)
	}
}

// poll polls once; the first poll makes the subscription.
func (s *Subscription) poll(ctx context.Context, req *hostv1lite.PollRequest) ([]Event, error) {
	var r hostv1lite.PollReply
	if err := s.c.invoke(ctx, hostv1lite.EventsPoll, req, &r); err != nil {
		return nil, err
	}
	if req.Subscription == "" {
		s.id = r.Subscription
	}
	events := make([]Event, len(r.Events))
	for i := range r.Events {
		events[i] = event(&r.Events[i])
	}
	return events, nil
}

// Close ends the subscription.
func (s *Subscription) Close() error {
	s.once.Do(func() {
		close(s.closed)
		s.cancel()
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
