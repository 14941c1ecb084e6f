package host

import (
	"context"
	"encoding/json"
	"io"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
)

// Limits of Poll (events-state.md section 2).
const (
	maxPolls   = 16
	maxPollMax = 100
	pollIdle   = 5 * time.Minute
)

type eventsService struct {
	hostv1.UnimplementedEventsServer
}

// NewEvents serves Events from Options.Events.
func NewEvents() hostv1.EventsServer { return eventsService{} }

func gatePublish(c *call, req any) error {
	topic := req.(*hostv1.Event).GetTopic()
	if err := hostabi.CheckTopic(topic); err != nil {
		return err
	}
	if hostabi.ReservedTopic(topic) {
		return hostabi.Errorf(hostabi.ReasonBadTopic, "topic %s: belongs to the host", topic).WithMeta("topic", topic)
	}
	return c.need(hostabi.EventsPublish, topic)
}

func gateSubscribe(c *call, req any) error {
	return c.needTopics(req.(*hostv1.SubscribeRequest).GetTopics())
}

// gatePoll checks the topics of a first poll; later ones name a subscription of this session.
func gatePoll(c *call, req any) error {
	r := req.(*hostv1.PollRequest)
	if r.GetSubscription() != "" {
		return nil
	}
	return c.needTopics(r.GetTopics())
}

func (c *call) needTopics(topics []string) error {
	if len(topics) == 0 || len(topics) > hostabi.MaxPatterns {
		return hostabi.Errorf(hostabi.ReasonBadTopic, "a subscription has 1 to %d topics, not %d", hostabi.MaxPatterns, len(topics))
	}
	for _, t := range topics {
		if err := hostabi.CheckPattern(t); err != nil {
			return err
		}
		if err := c.need(hostabi.EventsSubscribe, t); err != nil {
			return err
		}
	}
	return nil
}

// bus is the event bus and a context marked with this session as publisher and subscriber.
func (s *Session) bus(ctx context.Context) (Events, context.Context, error) {
	if s.r.o.Events == nil {
		return nil, nil, missing("event bus")
	}
	return s.r.o.Events, hostabi.WithPublisher(ctx, hostabi.Publisher{
		Name: s.p.Name, Invocation: s.inv.ID, TraceID: s.inv.TraceID, TraceParent: s.inv.TraceParent, Hops: s.hops(),
	}), nil
}

// hops is what events of this run carry.
func (s *Session) hops() uint32 {
	if s.inv.Hops == nil {
		return 0
	}
	return s.inv.Hops()
}

func (s *Session) source() string { return "/plugins/" + string(s.p.Name) }

// publishHost publishes a host event. It belongs to no invocation, so that this session receives it too.
func (s *Session) publishHost(ctx context.Context, bus Events, topic string, data map[string]any) error {
	b, err := json.Marshal(data)
	if err != nil {
		return err
	}
	ctx = hostabi.WithPublisher(ctx, hostabi.Publisher{Name: s.p.Name})
	_, _, err = bus.Publish(ctx, hostabi.Event{Topic: topic, Source: "/ds", TraceID: s.inv.TraceID, TraceParent: s.inv.TraceParent, Hops: s.hops(), Data: b})
	return err
}

// Publish implements hostv1.EventsServer.
func (eventsService) Publish(ctx context.Context, req *hostv1.Event) (*hostv1.PublishAck, error) {
	s := sessionOf(ctx)
	bus, ctx, err := s.bus(ctx)
	if err != nil {
		return nil, err
	}
	e := hostabi.Event{
		Topic: req.GetTopic(), Source: s.source(), ContentType: req.GetContentType(),
		Data: req.GetData(), Attributes: req.GetAttributes(), Hops: s.hops(),
	}
	for _, text := range req.GetBlobs() {
		d, err := hostabi.ParseDigest(text)
		if err != nil {
			return nil, err
		}
		e.Blobs = append(e.Blobs, d)
	}
	if err := hostabi.CheckEvent(&e); err != nil {
		return nil, err
	}
	subscribers, dropped, err := bus.Publish(ctx, e)
	if err != nil {
		return nil, err
	}
	return &hostv1.PublishAck{Subscribers: uint32(subscribers), Dropped: uint32(dropped)}, nil
}

// subscribeBatch is how many events a stream takes from the bus at once. They have left the ring: a plugin that does
// not read has this many, and those queued on its stream, and then the bus drops.
const subscribeBatch = hostabi.MaxQueued

// Subscribe implements hostv1.EventsServer.
func (eventsService) Subscribe(req *hostv1.SubscribeRequest, out grpc.ServerStreamingServer[hostv1.Event]) error {
	s := sessionOf(out.Context())
	sub, err := s.subscribe(out.Context(), req.GetTopics())
	if err != nil {
		return err
	}
	defer sub.end()
	buf := make([]hostabi.Event, subscribeBatch)
	for {
		n, err := sub.Next(out.Context(), buf)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for i := range buf[:n] {
			if err := out.Send(event(&buf[i])); err != nil {
				return err
			}
		}
	}
}

// subscription is one of a session; its patterns count against the session's limit until end.
type subscription struct {
	hostabi.Subscription
	s        *Session
	patterns int
}

func (s *Session) subscribe(ctx context.Context, topics []string) (*subscription, error) {
	bus, ctx, err := s.bus(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.countPatterns(len(topics)); err != nil {
		return nil, err
	}
	sub, err := bus.Subscribe(ctx, topics)
	if err != nil {
		_ = s.countPatterns(-len(topics)) // fewer are never too many
		return nil, err
	}
	return &subscription{sub, s, len(topics)}, nil
}

func (sub *subscription) end() {
	_ = sub.Close() // it only ends; nothing is kept
	_ = sub.s.countPatterns(-sub.patterns)
}

func (s *Session) countPatterns(n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.patterns+n > hostabi.MaxPatterns {
		return hostabi.Errorf(hostabi.ReasonTooMany, "%d topics are subscribed, no more at once", hostabi.MaxPatterns)
	}
	s.patterns += n
	return nil
}

// polls are the subscriptions of Poll. They end with the session, or when nobody polls them.
type polls struct {
	mu   sync.Mutex
	last int
	open map[string]*poll
}

type poll struct {
	*subscription
	idle *time.Timer
	busy chan struct{} // holds a token while a Poll reads
}

// Poll implements hostv1.EventsServer.
func (eventsService) Poll(ctx context.Context, req *hostv1.PollRequest) (*hostv1.PollReply, error) {
	s := sessionOf(ctx)
	limit := int(req.GetMax())
	if limit == 0 {
		limit = maxPollMax
	}
	if limit > maxPollMax || req.GetWait() < 0 {
		return nil, hostabi.Errorf(hostabi.ReasonBadMessage, "a poll takes 1 to %d events and waits 0 ms or more", maxPollMax)
	}
	id, p, err := s.pollOf(req)
	if err != nil {
		return nil, err
	}
	select {
	case p.busy <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { p.idle.Reset(pollIdle); <-p.busy }()
	p.idle.Stop()
	reply := &hostv1.PollReply{Subscription: id}
	buf := make([]hostabi.Event, limit)
	n, err := p.read(ctx, min(time.Duration(req.GetWait())*time.Millisecond, hostabi.MaxPollWait), buf)
	for i := range buf[:n] {
		reply.Dropped += buf[i].Dropped
		reply.Events = append(reply.Events, event(&buf[i]))
	}
	return reply, err
}

// read takes what is there. Only the first event is waited for.
func (p *poll) read(ctx context.Context, wait time.Duration, buf []hostabi.Event) (int, error) {
	until, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	n, err := p.Next(until, buf)
	if err != nil && err != io.EOF && until.Err() != nil {
		err = ctx.Err()
	}
	if err == io.EOF {
		err = nil
	}
	return n, err
}

// pollOf finds the subscription of a poll or makes one.
func (s *Session) pollOf(req *hostv1.PollRequest) (string, *poll, error) {
	s.polls.mu.Lock()
	defer s.polls.mu.Unlock()
	if id := req.GetSubscription(); id != "" {
		if p := s.polls.open[id]; p != nil {
			return id, p, nil
		}
		return "", nil, hostabi.Errorf(hostabi.ReasonKeyNotFound, "subscription %s: unknown or not polled for %v", clean(id, 40), pollIdle)
	}
	if len(s.polls.open) >= maxPolls {
		return "", nil, hostabi.Errorf(hostabi.ReasonTooMany, "%d subscriptions are polled, no more at once", maxPolls)
	}
	sub, err := s.subscribe(s.ctx, req.GetTopics())
	if err != nil {
		return "", nil, err
	}
	s.polls.last++
	id := strconv.Itoa(s.polls.last)
	p := &poll{subscription: sub, busy: make(chan struct{}, 1)}
	p.idle = time.AfterFunc(pollIdle, func() { s.polls.drop(id) })
	if s.polls.open == nil {
		s.polls.open = make(map[string]*poll)
	}
	s.polls.open[id] = p
	return id, p, nil
}

func (ps *polls) drop(id string) {
	ps.mu.Lock()
	p := ps.open[id]
	delete(ps.open, id)
	ps.mu.Unlock()
	if p != nil {
		p.stop()
	}
}

// close ends all subscriptions; no Poll is running then.
func (ps *polls) close() {
	ps.mu.Lock()
	open := ps.open
	ps.open = nil
	ps.mu.Unlock()
	for _, p := range open {
		p.stop()
	}
}

func (p *poll) stop() {
	p.idle.Stop()
	p.end()
}

func event(e *hostabi.Event) *hostv1.Event {
	out := &hostv1.Event{
		Id: e.ID, Topic: e.Topic, Source: e.Source, Time: millis(e.Time), TraceId: e.TraceID, ContentType: e.ContentType,
		Data: e.Data, Attributes: e.Attributes, Hops: e.Hops, Dropped: e.Dropped,
	}
	for _, d := range e.Blobs {
		out.Blobs = append(out.Blobs, string(d))
	}
	return out
}
