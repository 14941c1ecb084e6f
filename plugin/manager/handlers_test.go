package manager_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/internal/events"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/manager"
	"github.com/delivery-station/ds/sandbox"
)

// set is an installed set; every plugin in it is granted what granted says.
type set struct {
	plugins map[plugin.Name]*plugin.Installed
	granted []string
}

func (s set) Lookup(_ context.Context, name plugin.Name) (*plugin.Installed, error) {
	if p := s.plugins[name]; p != nil {
		return p, nil
	}
	return nil, hostabi.Errorf(hostabi.ReasonDisabled, "%s is disabled", name)
}

func (s set) All(context.Context) iter.Seq2[*plugin.Installed, error] { panic("nobody lists") }

func (s set) Open(context.Context, *plugin.Installed, plugin.Kind) (*plugin.Program, error) {
	panic("nobody opens")
}

func (s set) Box(_ context.Context, p *plugin.Installed, inv *plugin.Invocation) (*sandbox.Box, error) {
	if p.Name == "inactive" {
		return nil, hostabi.Errorf(hostabi.ReasonGrantMissing, "not granted")
	}
	return sandbox.NewBox(sandbox.BoxOptions{Plugin: p, Invocation: inv, Granted: map[hostabi.Capability]sandbox.Scopes{
		hostabi.EventsSubscribe: {Scope: s.granted},
	}})
}

// process is what a handler does: it reads lines until it returns.
type process func(ctx context.Context, name plugin.Name, inv *plugin.Invocation, lines *bufio.Scanner) error

// place is where handlers run: a bus, and processes that are functions.
type place struct {
	t      *testing.T
	bus    *events.Bus
	set    set
	log    bytes.Buffer
	opts   manager.HandlerOptions
	h      *manager.Handlers
	mu     sync.Mutex
	heard  []string // "PLUGIN TOPIC", as processes read them
	warned []string
	runs   atomic.Int32
}

// newPlace has the handlers that are named "PLUGIN TOPIC…", each one the command on.
func newPlace(t *testing.T, handlers ...string) *place {
	p := &place{t: t, bus: events.New(events.Options{}), set: set{plugins: make(map[plugin.Name]*plugin.Installed), granted: []string{"**"}}}
	t.Cleanup(func() { _ = p.bus.Close() })
	p.opts = manager.HandlerOptions{
		Bus: p.bus, Log: slog.New(slog.NewTextHandler(&p.log, nil)), Base: plugin.Invocation{Dir: "/somewhere"},
		Warn: func(text string) { p.mu.Lock(); defer p.mu.Unlock(); p.warned = append(p.warned, text) },
	}
	for _, text := range handlers {
		words := strings.Fields(text)
		q := &plugin.Installed{Name: plugin.Name(words[0]), Manifest: &plugin.Manifest{Capabilities: []plugin.Request{{Cap: hostabi.EventsSubscribe, Scope: []string{"**"}}}}}
		for _, topic := range words[1:] {
			q.Manifest.Events.Subscribe = append(q.Manifest.Events.Subscribe, plugin.Subscription{Topic: topic, Handler: "on"})
		}
		p.set.plugins[q.Name] = q
		p.opts.Names = append(p.opts.Names, q.Name)
	}
	return p
}

func (p *place) start(f process) {
	p.opts.Plugins, p.opts.Grants = p.set, p.set
	p.opts.Run = func(ctx context.Context, name plugin.Name, inv *plugin.Invocation) error {
		p.runs.Add(1)
		return f(ctx, name, inv, bufio.NewScanner(inv.Stdin))
	}
	p.h = manager.StartHandlers(p.opts)
}

// read notes what comes until the end of the input, and gives each event to each.
func (p *place) read(name plugin.Name, lines *bufio.Scanner, each func(e *hostv1.Event)) error {
	for lines.Scan() {
		var e hostv1.Event
		if err := protojson.Unmarshal(lines.Bytes(), &e); err != nil {
			p.t.Errorf("line %q: %v", lines.Text(), err)
		}
		p.mu.Lock()
		p.heard = append(p.heard, string(name)+" "+e.GetTopic())
		p.mu.Unlock()
		if each != nil {
			each(&e)
		}
	}
	return lines.Err()
}

// publish publishes topics in the name of the plugin by.
func (p *place) publish(by string, topics ...string) {
	p.t.Helper()
	for _, topic := range topics {
		if _, _, err := p.bus.Publish(p.t.Context(), hostabi.Event{Topic: topic, Source: "/plugins/" + by, TraceID: strings.Repeat("a", 32)}); err != nil {
			p.t.Error(err)
		}
	}
}

func (p *place) wantHeard(want ...string) {
	p.t.Helper()
	if got, want := strings.Join(p.heard, ", "), strings.Join(want, ", "); got != want {
		p.t.Errorf("heard %s, want %s", got, want)
	}
}

func (p *place) wantWarnings(want ...string) {
	p.t.Helper()
	if got, want := strings.Join(p.warned, "\n"), strings.Join(want, "\n"); got != want {
		p.t.Errorf("warned\n%s\nwant\n%s", got, want)
	}
}

func TestHandlerIsStartedOnceAndFed(t *testing.T) {
	p := newPlace(t, "notify a.* b", "other x")
	started := make(chan struct{})
	p.start(func(_ context.Context, name plugin.Name, inv *plugin.Invocation, lines *bufio.Scanner) error {
		close(started)
		if strings.Join(inv.Args, " ") != "on" || inv.Kind != plugin.KindEvent || inv.Caller != "" || !inv.NoInput || inv.Dir != "/somewhere" || inv.Hops() != 1 {
			t.Errorf("invocation %+v", inv)
		}
		if inv.TraceID != strings.Repeat("a", 32) || inv.TraceParent != "" {
			t.Errorf("trace %s, %s: want that of the event, and a span of its own", inv.TraceID, inv.TraceParent)
		}
		return p.read(name, lines, nil)
	})
	if p.runs.Load() != 0 {
		t.Error("started without an event")
	}
	p.publish("porter", "nothing", "a.b")
	<-started
	p.publish("porter", "b", "a.c", "a.b.c")
	p.h.Close(t.Context())
	p.wantHeard("notify a.b", "notify b", "notify a.c")
	p.wantWarnings()
	if n := p.runs.Load(); n != 1 {
		t.Errorf("%d processes", n)
	}
}

// TestEventLine: a line is the event in protobuf-JSON, whatever is in it.
func TestEventLine(t *testing.T) {
	p := newPlace(t, "notify **")
	p.opts.Bus = bufferOf(t, p, 1)
	var got []*hostv1.Event
	p.start(func(_ context.Context, name plugin.Name, inv *plugin.Invocation, lines *bufio.Scanner) error {
		return p.read(name, lines, func(e *hostv1.Event) { got = append(got, e) })
	})
	want := &hostv1.Event{
		Topic: "a", Source: "/ds", ContentType: "text/plain", Data: []byte("\x00\xff\"<"), Attributes: map[string]string{"k": "v \u2028"},
		Blobs: []string{string(hostabi.DigestOf(nil))}, Hops: 2, TraceId: strings.Repeat("b", 32),
	}
	_, _, err := p.bus.Publish(t.Context(), hostabi.Event{
		Topic: want.GetTopic(), Source: want.GetSource(), ContentType: want.GetContentType(), Data: want.GetData(), Attributes: want.GetAttributes(),
		Blobs: []hostabi.Digest{hostabi.DigestOf(nil)}, Hops: 2, TraceID: want.GetTraceId(),
	})
	if err != nil {
		t.Fatal(err)
	}
	p.h.Close(t.Context())
	if len(got) != 1 {
		t.Fatalf("%d events", len(got))
	}
	if got[0].GetId() == "" || got[0].GetTime() == 0 {
		t.Errorf("got %v", got[0])
	}
	want.Id, want.Time = got[0].GetId(), got[0].GetTime()
	if got, want := protojson.Format(got[0]), protojson.Format(want); strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// bufferOf makes the bus of p one with rings of n.
func bufferOf(t *testing.T, p *place, n int) *events.Bus {
	p.bus = events.New(events.Options{Buffer: n})
	t.Cleanup(func() { _ = p.bus.Close() })
	return p.bus
}

func TestWhatStartsNoHandler(t *testing.T) {
	p := newPlace(t, "notify a", "inactive a")
	p.set.plugins["partly"] = &plugin.Installed{Name: "partly", Manifest: &plugin.Manifest{
		Capabilities: []plugin.Request{{Cap: hostabi.EventsSubscribe, Scope: []string{"b"}}},
		Events:       plugin.Events{Subscribe: []plugin.Subscription{{Topic: "a", Handler: "on"}, {Topic: "b", Handler: "on"}, {Topic: "a"}}},
	}}
	p.opts.Names = append(p.opts.Names, "partly", "disabled")
	p.start(func(_ context.Context, name plugin.Name, _ *plugin.Invocation, lines *bufio.Scanner) error {
		return p.read(name, lines, nil)
	})
	p.publish("notify", "a")
	p.bus.Deliver(hostabi.Event{Topic: "a", Source: "/nodes/0123456789abcdef/plugins/porter"})
	p.h.Close(t.Context())
	p.wantHeard()
	if n := p.runs.Load(); n != 0 {
		t.Errorf("%d processes", n)
	}
}

func TestHandlerThatEnds(t *testing.T) {
	boom := &plugin.RunError{Name: "notify", Stage: plugin.StageRun, Err: hostabi.Errorf(hostabi.ReasonWASMTrap, "notify trapped")}
	for name, c := range map[string]struct {
		err      error
		runs     int32
		warnings []string
	}{
		"well":        {nil, 5, nil},
		"with a code": {&plugin.ExitError{Code: 3}, 3, []string{"event handler notify on failed: exit status 3", "event handler notify on failed: exit status 3", "event handler notify on failed: exit status 3; it is off for the rest of this command"}},
		"in a trap":   {boom, 3, []string{"event handler notify on failed: notify trapped", "event handler notify on failed: notify trapped", "event handler notify on failed: notify trapped; it is off for the rest of this command"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, "notify a")
			p.start(func(_ context.Context, _ plugin.Name, _ *plugin.Invocation, lines *bufio.Scanner) error {
				lines.Scan()
				return c.err
			})
			for p.runs.Load() < c.runs { // an event that a process does not read any more is lost with it
				p.publish("porter", "a")
				<-time.After(time.Millisecond)
			}
			if c.err != nil {
				p.publish("porter", "a")
			}
			p.h.Close(t.Context())
			p.wantWarnings(c.warnings...)
			if n := p.runs.Load(); c.err != nil && n != c.runs {
				t.Errorf("%d processes, want %d", n, c.runs)
			}
		})
	}
}

func TestAtMostFourHandlersRun(t *testing.T) {
	var names []string
	for i := range 10 {
		names = append(names, fmt.Sprintf("p%d a", i))
	}
	p := newPlace(t, names...)
	var now, most atomic.Int32
	p.start(func(_ context.Context, name plugin.Name, _ *plugin.Invocation, lines *bufio.Scanner) error {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		return p.read(name, lines, nil)
	})
	p.publish("porter", "a", "a")
	p.h.Close(t.Context())
	if len(p.heard) != 20 {
		t.Errorf("%d events were handled, want 20: %s", len(p.heard), p.heard)
	}
	if n := most.Load(); n > 4 {
		t.Errorf("%d processes at once", n)
	}
}

// TestHandlersHearEachOtherAtTheEnd: what a handler publishes after the command ended still reaches the others.
func TestHandlersHearEachOtherAtTheEnd(t *testing.T) {
	p := newPlace(t, "a1 start", "a2 said.a1", "a3 said.a2")
	p.start(func(_ context.Context, name plugin.Name, inv *plugin.Invocation, lines *bufio.Scanner) error {
		return p.read(name, lines, func(*hostv1.Event) {
			_, _, err := p.bus.Publish(context.Background(), hostabi.Event{Topic: "said." + string(name), Source: "/plugins/" + string(name), Hops: inv.Hops()})
			if err != nil {
				t.Error(err)
			}
		})
	})
	p.publish("porter", "start")
	p.h.Close(t.Context())
	p.wantHeard("a1 start", "a2 said.a1", "a3 said.a2")
}

// TestHopsEndALoop: two handlers answer each other, and a process that got an event of hops n publishes n + 1.
func TestHopsEndALoop(t *testing.T) {
	p := newPlace(t, "ping start said.pong", "pong said.ping")
	p.start(func(_ context.Context, name plugin.Name, inv *plugin.Invocation, lines *bufio.Scanner) error {
		return p.read(name, lines, func(e *hostv1.Event) {
			if inv.Hops() <= e.GetHops() {
				t.Errorf("hops %d after an event of %d", inv.Hops(), e.GetHops())
			}
			_, _, err := p.bus.Publish(context.Background(), hostabi.Event{Topic: "said." + string(name), Source: "/plugins/" + string(name), Hops: inv.Hops()})
			if err != nil {
				t.Error(err)
			}
		})
	})
	p.publish("porter", "start")
	p.h.Close(t.Context())
	if n := len(p.heard); n == 0 || n > hostabi.MaxHops {
		t.Errorf("heard %s", p.heard)
	}
	p.wantWarnings()
}

// TestHandlerThatHangs neither reads nor ends: publishing goes on, and the end of the command comes.
func TestHandlerThatHangs(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, p *place){
		"time is up": func(t *testing.T, p *place) { p.h.Close(t.Context()) },
		"interrupted": func(t *testing.T, p *place) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			p.h.Close(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, "notify a")
			p.opts.Finish = time.Hour
			if name == "time is up" {
				p.opts.Finish = 50 * time.Millisecond
			}
			started := make(chan struct{})
			p.start(func(ctx context.Context, _ plugin.Name, _ *plugin.Invocation, _ *bufio.Scanner) error {
				close(started)
				<-ctx.Done()
				return ctx.Err()
			})
			p.publish("porter", "a")
			<-started
			for range 500 { // more than pipe and ring hold
				e := hostabi.Event{Topic: "a", Source: "/plugins/porter", Data: []byte(strings.Repeat("x", 4096))}
				if _, _, err := p.bus.Publish(t.Context(), e); err != nil {
					t.Fatal(err)
				}
			}
			end(t, p)
			p.wantWarnings("event handler notify on had not finished and was stopped")
			if p.bus.Lost()["notify"] == 0 {
				t.Error("nothing was dropped for it")
			}
		})
	}
}

func TestHandlerOutputGoesToTheLog(t *testing.T) {
	p := newPlace(t, "notify a")
	p.start(func(_ context.Context, _ plugin.Name, inv *plugin.Invocation, _ *bufio.Scanner) error {
		_, err := io.WriteString(inv.Stdout, "one\n\ntw")
		_, err2 := io.WriteString(inv.Stderr, "problem")
		_, err3 := io.WriteString(inv.Stdout, "o\n"+strings.Repeat("x", hostabi.MaxLogRecord+1)+"\n"+strings.Repeat(strings.Repeat("long", 250)+"\n", 5000))
		return errors.Join(err, err2, err3)
	})
	p.publish("porter", "a")
	p.h.Close(t.Context())
	text := p.log.String()
	for _, want := range []string{
		"plugin=notify handler=on stream=stdout text=one\n", `stream=stdout text=""` + "\n", "stream=stdout text=two\n", "stream=stderr text=problem\n",
		"text=" + strings.Repeat("x", hostabi.MaxLogRecord) + "\n", "stream=stdout text=x\n", "stream=stdout text=longlong", "bytes_lost=39",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the log lacks %.60q", want)
		}
	}
	if n := strings.Count(text, "text=long"); n > 1<<20/1000 {
		t.Errorf("%d lines of the flood", n)
	}
}
