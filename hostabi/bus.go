package hostabi

import (
	"context"
	"time"
)

// Event is one message on the bus. The host sets ID, Source, Time, TraceID, TraceParent, Hops and Dropped.
type Event struct {
	ID, Topic, Source string
	Time              time.Time
	TraceID           string // 32 hex
	TraceParent       string // W3C trace context of the span that published; not sent to plugins
	ContentType       string // default application/json
	Data              []byte
	Attributes        map[string]string
	Blobs             []Digest // names only, they grant nothing
	Hops              uint32
	Dropped           uint64 // events lost before this one
}

// Subscription is one subscriber's end of the bus: a bounded queue that loses its oldest event when it is full.
type Subscription interface {
	// Next waits until something is queued and moves as much as fits into buf, oldest first; the first event
	// after a loss has Dropped set. It is called by one goroutine at a time. When the subscription or the bus
	// was closed, what is queued still comes, and then io.EOF. Any other error is that of ctx.
	Next(ctx context.Context, buf []Event) (int, error)
	// Close ends the subscription: nothing more is queued. It is idempotent.
	Close() error
}

// Publisher is on whose behalf something is published or subscribed. Events of an invocation do not come back
// to it.
type Publisher struct {
	Name        PluginName // for people; empty = the host
	Invocation  string     // empty = nobody's: everybody gets the event
	TraceID     string
	TraceParent string
	Hops        uint32 // what its events carry
}

type publisherKey struct{}

// WithPublisher marks ctx with the one who publishes and subscribes under it.
func WithPublisher(ctx context.Context, p Publisher) context.Context {
	return context.WithValue(ctx, publisherKey{}, p)
}

// PublisherOf is what WithPublisher has set; the zero Publisher otherwise.
func PublisherOf(ctx context.Context) Publisher {
	p, _ := ctx.Value(publisherKey{}).(Publisher)
	return p
}
