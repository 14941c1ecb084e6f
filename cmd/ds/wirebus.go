package main

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/internal/events"
	"github.com/delivery-station/ds/internal/natsbus"
	"github.com/delivery-station/ds/internal/state"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/manager"
	"github.com/delivery-station/ds/sandbox"
)

// natsBackend is the value of events.backend and state.backend that leaves this machine.
const natsBackend = "nats"

// logsKept is how many rotated files of events.log stay.
const logsKept = 4

// pluginState is the state of plugins: what they do with it, and what ds does with the state of one.
type pluginState interface {
	host.State
	Retire(ctx context.Context, owner hostabi.PluginName) error
	Remove(ctx context.Context, owner hostabi.PluginName) error
}

func (p *parts) newBus() host.Events {
	if p.a.cfg.String("events.backend") != natsBackend {
		b := p.newLocalBus("", nil)
		p.atClose(func() error { return p.closeLocalBus(b, b.Close) })
		p.startHandlers(b)
		return b
	}
	var local *events.Bus
	c := p.nats()
	b := c.Bus(func(forward func(e hostabi.Event)) natsbus.Local {
		local = p.newLocalBus(c.ID(), forward)
		return local
	})
	p.atClose(func() error { return p.closeLocalBus(local, b.Close) })
	p.startHandlers(local) // events of other processes start nothing
	return b
}

// newLocalBus is the bus of this process. forward, if set, is given everything that is accepted.
func (p *parts) newLocalBus(id string, forward func(e hostabi.Event)) *events.Bus {
	o := events.Options{Buffer: int(p.a.cfg.Int("events.buffer")), ID: id, Forward: forward}
	if path := p.a.cfg.String("events.log"); path != "" {
		o.Log = &events.Log{Path: path, Keep: logsKept, Scrub: p.a.secrets.Bytes, Warn: p.a.log}
	}
	return events.New(o)
}

func (p *parts) closeLocalBus(b *events.Bus, end func() error) error {
	lost := b.Lost()
	for _, name := range slices.Sorted(maps.Keys(lost)) {
		p.a.warn(fmt.Sprintf("%d events dropped for %s (slow subscriber)", lost[name], name), "")
	}
	return end()
}

func (p *parts) newState() pluginState {
	ttl := p.a.cfg.Duration("state.default_ttl")
	if p.a.cfg.String("state.backend") == natsBackend {
		return p.nats().State(ttl)
	}
	return state.Open(state.Options{Dir: p.a.cfg.String("state.dir"), DefaultTTL: ttl, Log: p.a.log})
}

// newNATS makes the one connection of this process, which connects at its first use.
func (p *parts) newNATS() *natsbus.Conn {
	c, a := p.a.cfg, p.a
	n := natsbus.New(natsbus.Options{
		Servers: c.List("nats.servers"), CredsFile: c.String("nats.creds_file"), User: c.String("nats.user"), Password: c.String("nats.password"),
		Token: c.String("nats.token"), CAFile: c.String("nats.ca_file"), CertFile: c.String("nats.cert_file"), KeyFile: c.String("nats.key_file"),
		Prefix: c.String("nats.prefix"), ConnectTimeout: c.Duration("nats.connect_timeout"), Replicas: int(c.Int("nats.replicas")),
		EventRetention: c.Duration("nats.event_retention"), ID: events.NewID(), Scrub: a.secrets.Bytes, Warn: func(text string) { a.warn(text, "") }, Log: a.log,
	})
	p.atClose(n.Close)
	return n
}

// lazyBackend makes its backend at the first run. A run whose events cannot go where they should does not begin.
type lazyBackend struct {
	p    *parts
	open func() manager.Backend
}

func (l lazyBackend) Run(ctx context.Context, q *plugin.Installed, b *sandbox.Box, inv *plugin.Invocation, s hostabi.Session) error {
	if bus, ok := l.p.bus().(*natsbus.Bus); ok {
		if err := bus.Connect(ctx); err != nil {
			return err
		}
	}
	return l.open().Run(ctx, q, b, inv, s)
}
