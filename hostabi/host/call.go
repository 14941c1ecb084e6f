package host

import (
	"context"
	"sync"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// call is one host call in progress and the context of its handler. It ends with the carrier's context or
// with the session, whichever is first. It is a context of its own because the usual way to join two
// contexts costs four allocations and most handlers never wait: the joined one is made at the first Done.
type call struct {
	context.Context // the carrier's
	s               *Session
	m               *method
	config          config // what the gate of Config.Get read
	public          bool   // connections of this call may go to public addresses only

	mu     sync.Mutex
	joined context.Context
	cancel context.CancelFunc
	ended  bool
}

type config struct {
	value hostabi.ConfigValue
	err   error
	ok    bool
}

type callKey struct{}

// callOf is the call whose handler was given ctx.
func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// sessionOf is the session whose handler was given ctx. It panics for a foreign context: a handler that is
// reached around the interceptors is a wiring error.
func sessionOf(ctx context.Context) *Session { return callOf(ctx).s }

// Value finds the call itself, then what the carrier knows.
func (c *call) Value(key any) any {
	if key == (callKey{}) {
		return c
	}
	return c.current().Value(key)
}

// Done is closed when carrier, session or call have ended.
func (c *call) Done() <-chan struct{} { return c.join().Done() }

// Err says why Done is closed.
func (c *call) Err() error {
	c.mu.Lock()
	j, ended := c.joined, c.ended
	c.mu.Unlock()
	switch {
	case j != nil:
		return j.Err()
	case ended:
		return context.Canceled
	}
	if err := c.s.ctx.Err(); err != nil {
		return err
	}
	return c.Context.Err()
}

// Deadline is the earlier of the carrier's and the session's.
func (c *call) Deadline() (time.Time, bool) {
	d, ok := c.Context.Deadline()
	if sd, sok := c.s.ctx.Deadline(); sok && (!ok || sd.Before(d)) {
		return sd, true
	}
	return d, ok
}

func (c *call) current() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.joined != nil {
		return c.joined
	}
	return c.Context
}

func (c *call) join() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.joined == nil {
		ctx, cancel := context.WithCancelCause(c.Context)
		stop := context.AfterFunc(c.s.ctx, func() { cancel(context.Cause(c.s.ctx)) })
		c.joined, c.cancel = ctx, func() { stop(); cancel(nil) }
		if c.ended {
			c.cancel()
		}
	}
	return c.joined
}

// end releases what Done made; contexts derived from c are cancelled.
func (c *call) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.cancel != nil {
		c.cancel()
	}
}
