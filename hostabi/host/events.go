package host

import (
	"context"
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/plugin"
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
	return s.r.o.Events, s.r.o.Publisher(ctx, s.inv.ID, s.inv.TraceID, s.hops()), nil
}

// hops is what events of this run carry: one more than the event that started it.
func (s *Session) hops() uint32 {
	if s.inv.Kind == plugin.KindEvent {
		return s.inv.Hops + 1
	}
	return s.inv.Hops
}

func (s *Session) source() string { return "/plugins/" + string(s.p.Name) }

// publishHost publishes a host event. It is marked as nobody's, so that this session receives it too.
func (s *Session) publishHost(ctx context.Context, bus Events, topic string, data map[string]any) error {
	b, err := json.Marshal(data)
	if err != nil {
		return err
	}
	_, _, err = bus.Publish(ctx, hostabi.Event{Topic: topic, Source: "/ds", TraceID: s.inv.TraceID, Hops: s.hops(), Data: b})
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
		Topic: req.GetTopic(), Source: s.source(), TraceID: s.inv.TraceID, ContentType: req.GetContentType(),
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
	if e.Hops >= hostabi.MaxHops { // a loop of handlers
		return &hostv1.PublishAck{Dropped: 1}, nil
	}
	subscribers, dropped, err := bus.Publish(ctx, e)
	if err != nil {
		return nil, err
	}
	return &hostv1.PublishAck{Subscribers: uint32(subscribers), Dropped: uint32(dropped)}, nil
}

// Subscribe implements hostv1.EventsServer.
func (eventsService) Subscribe(req *hostv1.SubscribeRequest, out grpc.ServerStreamingServer[hostv1.Event]) error {
	s := sessionOf(out.Context())
	ctx, cancel := context.WithCancel(out.Context())
	defer cancel()
	events, release, err := s.subscribe(ctx, req.GetTopics())
	if err != nil {
		return err
	}
	defer release()
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return ctx.Err()
			}
			if err := out.Send(event(e)); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// subscribe counts the patterns against the session's limit until release.
func (s *Session) subscribe(ctx context.Context, topics []string) (events <-chan hostabi.Event, release func(), err error) {
	bus, ctx, err := s.bus(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := s.countPatterns(len(topics)); err != nil {
		return nil, nil, err
	}
	release = func() { _ = s.countPatterns(-len(topics)) }
	if events, err = bus.Subscribe(ctx, topics); err != nil {
		release()
		return nil, nil, err
	}
	return events, release, nil
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
	events  <-chan hostabi.Event
	release func()
	cancel  context.CancelFunc
	idle    *time.Timer
	busy    chan struct{} // holds a token while a Poll reads
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
	wait := min(time.Duration(req.GetWait())*time.Millisecond, hostabi.MaxPollWait)
	err = p.read(ctx, wait, limit, func(e hostabi.Event) {
		reply.Dropped += e.Dropped
		reply.Events = append(reply.Events, event(e))
	})
	return reply, err
}

// settle is how long a poll looks for a further event that is on its way through the bus.
const settle = 5 * time.Millisecond

// read takes what is there, up to limit; only the first event is waited for.
func (p *poll) read(ctx context.Context, wait time.Duration, limit int, take func(hostabi.Event)) error {
	timer := time.NewTimer(max(wait, settle))
	defer timer.Stop()
	for n := 0; n < limit; n++ {
		select {
		case e, ok := <-p.events:
			if !ok {
				return ctx.Err()
			}
			take(e)
			timer.Reset(settle)
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
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
	ctx, cancel := context.WithCancel(s.ctx)
	events, release, err := s.subscribe(ctx, req.GetTopics())
	if err != nil {
		cancel()
		return "", nil, err
	}
	s.polls.last++
	id := strconv.Itoa(s.polls.last)
	p := &poll{events: events, release: release, cancel: cancel, busy: make(chan struct{}, 1)}
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
		p.end()
	}
}

// close ends all subscriptions; no Poll is running then.
func (ps *polls) close() {
	ps.mu.Lock()
	open := ps.open
	ps.open = nil
	ps.mu.Unlock()
	for _, p := range open {
		p.end()
	}
}

// end waits until the bus has let go of the subscription.
func (p *poll) end() {
	p.idle.Stop()
	p.cancel()
	for range p.events {
	}
	p.release()
}

func event(e hostabi.Event) *hostv1.Event {
	out := &hostv1.Event{
		Id: e.ID, Topic: e.Topic, Source: e.Source, Time: millis(e.Time), TraceId: e.TraceID, ContentType: e.ContentType,
		Data: e.Data, Attributes: e.Attributes, Hops: e.Hops, Dropped: e.Dropped,
	}
	for _, d := range e.Blobs {
		out.Blobs = append(out.Blobs, string(d))
	}
	return out
}
