package host

import (
	"context"
	"io"
	"runtime/debug"

	"google.golang.org/grpc"

	"github.com/delivery-station/ds/hostabi"
)

// intercept is the one unary interceptor; ctx is or holds the call. In this order: recover, span, limits,
// gate, handler, error mapping.
func (r *Registrar) intercept(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (reply any, err error) {
	c := callOf(ctx)
	begin := c.s.begin()
	defer func() {
		if p := recover(); p != nil {
			err = c.panicked(p)
		}
		if err != nil {
			reply, err = nil, c.s.asError(c.m.name, err)
		}
		c.s.observe(ctx, c.m.name, begin, err)
	}()
	if err := c.s.enter(); err != nil {
		return nil, err
	}
	defer c.s.leave()
	if err := c.gate(req); err != nil {
		return nil, err
	}
	if c.public {
		ctx = hostabi.WithPublicOnly(ctx)
	}
	return next(ctx, req)
}

// interceptStream is the one stream interceptor, in the same order; limits were met when the stream opened.
func (r *Registrar) interceptStream(impl any, ss grpc.ServerStream, c *call, next grpc.StreamHandler) (err error) {
	begin := c.s.begin()
	defer func() {
		if p := recover(); p != nil {
			err = c.panicked(p)
		}
		if err == io.EOF { // of RecvMsg; one that is wrapped is a broken connection of the handler
			err = hostabi.Errorf(hostabi.ReasonBadMessage, "stream ended before its first message")
		}
		if err != nil {
			err = c.s.asError(c.m.name, err)
		}
		c.s.observe(c, c.m.name, begin, err)
	}()
	return next(impl, &gatedStream{ServerStream: ss, c: c, ctx: c})
}

// gatedStream gates at the first received message, which holds the resource. Receiving is for one goroutine
// at a time, sending too, as with every grpc.ServerStream.
type gatedStream struct {
	grpc.ServerStream
	c    *call
	ctx  context.Context
	open bool
}

// Context is the context of the handler.
func (g *gatedStream) Context() context.Context { return g.ctx }

// RecvMsg returns the gate's error instead of a first message that it refuses.
func (g *gatedStream) RecvMsg(m any) error {
	if err := g.ServerStream.RecvMsg(m); err != nil || g.open {
		return err
	}
	if err := g.c.gate(m); err != nil {
		return err
	}
	if g.c.public {
		g.ctx = hostabi.WithPublicOnly(g.ctx)
	}
	g.open = true
	return nil
}

// SendMsg fails before the gate has seen the first message.
func (g *gatedStream) SendMsg(m any) error {
	if !g.open {
		return hostabi.Errorf(hostabi.ReasonInternal, "answer before the request was checked")
	}
	return g.ServerStream.SendMsg(m)
}

// panicked turns a panic of a handler into an error; it never ends ds.
func (c *call) panicked(p any) error {
	c.s.r.o.Log.Error("host call panicked", "method", c.m.name, "plugin", c.s.p.Name, "trace_id", c.s.inv.TraceID,
		"panic", p, "stack", string(debug.Stack()))
	return hostabi.Errorf(hostabi.ReasonInternal, "internal error, trace %s", c.s.inv.TraceID)
}
