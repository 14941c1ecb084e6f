package manager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// Bounds of handlers (events-state.md section 3).
const (
	handlersAtOnce  = 4
	handlerFailures = 3 // the first one and two restarts
	handlerFinish   = 10 * time.Second
	handlerBatch    = 16 // events taken from the ring at once
)

// HandlerOptions are the parts of Handlers. All but Finish, Log and Warn are required.
type HandlerOptions struct {
	Bus     Subscriber
	Plugins Plugins
	Grants  Grants
	Names   []plugin.Name // of the plugins that may have handlers; nobody else is looked at
	Run     func(ctx context.Context, name plugin.Name, inv *plugin.Invocation) error
	Base    plugin.Invocation // what every handler gets: Dir, Env, Offline, LogLevel
	Finish  time.Duration     // what they get after the end of the command, default 10 s
	Log     *slog.Logger
	Warn    func(text string)
}

// Subscriber is the bus that handlers listen to: internal/events.
type Subscriber interface {
	Subscribe(ctx context.Context, topics []string) (hostabi.Subscription, error)
}

// Handlers starts plugins that are not running for the events that their manifests name and that they are
// granted. Nothing of it changes how the command ends: a handler that fails is a warning.
type Handlers struct {
	o    HandlerOptions
	all  []*handler
	slot chan struct{} // tokens of processes at once

	ctx     context.Context // of runs
	stop    context.CancelFunc
	feeding context.Context // ends with the command: what is queued is still given out
	end     context.CancelFunc
	running sync.WaitGroup
}

// StartHandlers subscribes for the handlers of o.Names. Close must be called.
func StartHandlers(o HandlerOptions) *Handlers {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	if o.Finish <= 0 {
		o.Finish = handlerFinish
	}
	h := &Handlers{o: o, slot: make(chan struct{}, handlersAtOnce)}
	h.ctx, h.stop = context.WithCancel(context.Background())
	h.feeding, h.end = context.WithCancel(h.ctx)
	for _, name := range o.Names {
		if err := h.add(name); err != nil { // disabled, damaged, not granted: whoever runs it is told
			o.Log.Debug("no event handlers", "plugin", name, "err", err)
		}
	}
	for _, one := range h.all {
		h.running.Go(func() { one.serve() })
	}
	return h
}

// add subscribes each handler of a plugin to the topics that it is granted.
func (h *Handlers) add(name plugin.Name) error {
	p, err := h.o.Plugins.Lookup(h.ctx, name)
	if err != nil {
		return err
	}
	handlers := p.Manifest.Handlers()
	if len(handlers) == 0 {
		return nil
	}
	inv := plugin.Invocation{Kind: plugin.KindEvent}
	box, err := h.o.Grants.Box(h.ctx, p, &inv)
	if err != nil {
		return err
	}
	for _, command := range slices.Sorted(maps.Keys(handlers)) {
		topics := slices.DeleteFunc(handlers[command], func(t string) bool { return !box.Allowed(hostabi.EventsSubscribe, t) })
		if len(topics) == 0 {
			continue
		}
		sub, err := h.o.Bus.Subscribe(hostabi.WithPublisher(h.ctx, hostabi.Publisher{Name: name}), topics)
		if err != nil {
			return err
		}
		h.all = append(h.all, &handler{h: h, name: name, command: command, sub: sub})
	}
	return nil
}

// Close ends the handlers: they get what is queued, also what they themselves still publish for each other, then
// the end of their input, and Finish in all. ctx ends them at once.
func (h *Handlers) Close(ctx context.Context) {
	if len(h.all) == 0 {
		h.stop()
		return
	}
	ctx, cancel := context.WithTimeout(ctx, h.o.Finish)
	defer cancel()
	defer context.AfterFunc(ctx, h.stop)()
	h.end()
	h.running.Wait()
	for again := true; again && ctx.Err() == nil; {
		var ran atomic.Bool
		for _, one := range h.all {
			h.running.Go(func() {
				if one.serve() {
					ran.Store(true)
				}
			})
		}
		h.running.Wait()
		again = ran.Load()
	}
	for _, one := range h.all {
		_ = one.sub.Close() // it only ends
	}
	h.stop()
}

// handler is one command of one plugin that handles events. One goroutine at a time serves it.
type handler struct {
	h       *Handlers
	name    plugin.Name
	command string
	sub     hostabi.Subscription

	queue  []hostabi.Event // taken from the ring and given to no process yet
	buf    [handlerBatch]hostabi.Event
	failed int
	hops   atomic.Uint32 // most of the events given to the process that runs
}

// serve runs a process whenever there are events and none runs, until the command has ended and nothing is queued
// any more. It reports whether one ran.
func (a *handler) serve() (ran bool) {
	for a.failed < handlerFailures && a.next(a.h.feeding) {
		select {
		case a.h.slot <- struct{}{}:
		case <-a.h.ctx.Done():
			return ran
		}
		ran = true
		a.ended(a.run())
		<-a.h.slot
	}
	return ran
}

// next waits for an event and reports whether there is one at the head of the queue. When ctx has ended it only
// looks.
func (a *handler) next(ctx context.Context) bool {
	for len(a.queue) == 0 {
		n, err := a.sub.Next(ctx, a.buf[:])
		if err != nil {
			return false
		}
		for _, e := range a.buf[:n] {
			if a.handles(&e) {
				a.queue = append(a.queue, e)
			}
		}
		clear(a.buf[:n])
	}
	return true
}

// handles leaves out what the plugin itself published, and what comes from other machines: whoever can publish
// there must not start programs here.
func (a *handler) handles(e *hostabi.Event) bool {
	return e.Source == "/ds" || localSource(e.Source) && e.Source != "/plugins/"+string(a.name)
}

// run starts the process, feeds it and returns how it ended.
func (a *handler) run() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	out := newOutput(a.h.o.Log, a.name, a.command)
	first := &a.queue[0]
	a.hops.Store(first.Hops)
	inv := a.h.o.Base
	inv.Args, inv.Kind = []string{a.command}, plugin.KindEvent
	inv.Stdin, inv.Stdout, inv.Stderr = r, out.stream("stdout"), out.stream("stderr")
	inv.TraceID, inv.NoInput = first.TraceID, true
	inv.Hops = func() uint32 { return a.hops.Load() + 1 }

	feeding, stop := context.WithCancel(a.h.feeding)
	fed := make(chan bool, 1)
	go func() {
		whole := a.feed(feeding, w)
		_ = w.Close() // the end of its input
		fed <- !whole
	}()
	err = a.h.o.Run(a.h.ctx, a.name, &inv)
	stop()
	_ = r.Close()
	_ = w.SetWriteDeadline(time.Unix(1, 0)) // what the process left behind may hold the other end, and reads nothing
	if unread := <-fed; err == nil && unread {
		err = errors.New("ended without reading an event that does not fit into its standard input")
	}
	out.close()
	return err
}

// feed writes events until the process has gone, or the command has and nothing is queued. It is not whole if the
// process took not even the first one; then that is dropped, for the next process would do the same.
func (a *handler) feed(ctx context.Context, w *os.File) (whole bool) {
	for n := 0; a.next(ctx); n++ {
		e := &a.queue[0]
		line, err := eventLine(e)
		if err != nil { // no such event passes the bus
			a.queue = a.queue[1:]
			continue
		}
		if e.Hops > a.hops.Load() {
			a.hops.Store(e.Hops)
		}
		if _, err := w.Write(line); err != nil {
			if n > 0 {
				return true // it stays in the queue for the next process
			}
			a.queue = a.queue[1:]
			return false
		}
		a.queue = a.queue[1:]
	}
	return true
}

// ended tells of a process that did not end well, and of the last one there will be.
func (a *handler) ended(err error) {
	if err == nil {
		return
	}
	what := fmt.Sprintf("event handler %s %s", a.name, a.command)
	if a.h.ctx.Err() != nil {
		a.failed = handlerFailures
		a.h.o.Warn(what + " had not finished and was stopped")
		return
	}
	if run, ok := errors.AsType[*plugin.RunError](err); ok {
		err = run.Err // its text begins with the name
	}
	a.failed++
	text := fmt.Sprintf("%s failed: %v", what, err)
	if a.failed == handlerFailures {
		text += "; it is off for the rest of this command"
		_ = a.sub.Close() // it only ends
	}
	a.h.o.Warn(text)
}
