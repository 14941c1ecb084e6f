package manager

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

// fakePlugins is an installed set of one.
type fakePlugins struct {
	t       *testing.T
	p       *plugin.Installed
	openErr error
}

func (f *fakePlugins) Lookup(_ context.Context, name plugin.Name) (*plugin.Installed, error) {
	if f.p == nil || f.p.Name != name {
		return nil, hostabi.Errorf(hostabi.ReasonPluginNotFound, "no plugin %q", string(name))
	}
	return f.p, nil
}

func (f *fakePlugins) All(context.Context) iter.Seq2[*plugin.Installed, error] {
	return func(yield func(*plugin.Installed, error) bool) { yield(f.p, nil) }
}

func (f *fakePlugins) Open(_ context.Context, p *plugin.Installed, k plugin.Kind) (*plugin.Program, error) {
	if f.openErr != nil {
		return nil, f.openErr
	}
	name := filepath.Join(f.t.TempDir(), "program")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		return nil, err
	}
	pr := *p.Find(k)
	var err error
	pr.File, err = os.Open(name)
	return &pr, err
}

// fakeBackend is told about runs and ends them as it is told.
type fakeBackend struct {
	kind     plugin.Kind
	ran      []plugin.Kind
	inv      *plugin.Invocation
	program  *plugin.Program
	deadline time.Time
	err      error
	ask      hostabi.Capability // checked in the Box during the run
}

func (f *fakeBackend) Run(ctx context.Context, p *plugin.Installed, b *sandbox.Box, inv *plugin.Invocation, _ hostabi.Session) error {
	f.ran, f.inv, f.program = append(f.ran, f.kind), inv, p.Program
	f.deadline, _ = ctx.Deadline()
	if f.ask != "" {
		_ = b.Check(f.ask, "ghcr.io/acme/app")
	}
	return f.err
}

type fakeSession struct {
	hostabi.Session
	closed int
}

func (s *fakeSession) Close() error { s.closed++; return nil }

type world struct {
	t       *testing.T
	plugins *fakePlugins
	session *fakeSession
	native  *fakeBackend
	wasm    *fakeBackend
	grant   error
	events  []hostabi.Event
	denied  []sandbox.Denial
	opts    Options
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, session: &fakeSession{}, native: &fakeBackend{kind: plugin.Native}, wasm: &fakeBackend{kind: plugin.WASM}}
	w.plugins = &fakePlugins{t: t, p: &plugin.Installed{
		Name: "s3", Version: "1.2.0", Requested: "ghcr.io/x/s3", Manifest: &plugin.Manifest{Name: "s3", ABI: hostabi.ABI},
		Programs: []plugin.Program{{Kind: plugin.Native}, {Kind: plugin.WASM}},
	}}
	w.opts = Options{
		Plugins: w.plugins, Grants: w, Host: w, Events: w, Methods: func() []string { return []string{"ds.host.v1.Config/Get"} },
		Backends: map[plugin.Kind]Backend{plugin.Native: w.native, plugin.WASM: w.wasm},
		Denied:   func(_ plugin.Name, d []sandbox.Denial) { w.denied = d },
	}
	return w
}

func (w *world) Box(_ context.Context, p *plugin.Installed, inv *plugin.Invocation) (*sandbox.Box, error) {
	if w.grant != nil {
		return nil, w.grant
	}
	return sandbox.NewBox(sandbox.BoxOptions{Plugin: p, Invocation: inv})
}

func (w *world) Open(*plugin.Installed, *sandbox.Box, *plugin.Invocation) (hostabi.Session, error) {
	return w.session, nil
}

func (w *world) Wanted(string) bool { return true }

func (w *world) Publish(_ context.Context, e hostabi.Event) (int, int, error) {
	w.events = append(w.events, e)
	return 0, 0, nil
}

func (w *world) run(inv plugin.Invocation) error {
	w.t.Helper()
	return New(w.opts).Run(w.t.Context(), "s3", &inv)
}

func TestRunCompletesTheInvocation(t *testing.T) {
	w := newWorld(t)
	if err := w.run(plugin.Invocation{Args: []string{"upload"}}); err != nil {
		t.Fatal(err)
	}
	inv := w.wasm.inv
	if len(inv.ID) != 32 || len(inv.TraceID) != 32 || inv.Kind != plugin.KindRun || !strings.Contains(inv.TraceParent, inv.TraceID) {
		t.Errorf("invocation %+v", inv)
	}
	if w.session.closed == 0 || w.wasm.program == nil || w.wasm.program.File == nil {
		t.Error("the session was not closed, or the program not opened")
	}
	if _, err := w.wasm.program.File.Stat(); err == nil {
		t.Error("the program is still open after the run")
	}
	if !w.wasm.deadline.IsZero() {
		t.Error("a top-level run has a deadline that nobody asked for")
	}
	if len(w.events) != 2 || w.events[0].Topic != "plugin.started" || w.events[1].Topic != "plugin.finished" {
		t.Errorf("events %+v", w.events)
	}
	var data struct {
		Name, Version string
		Exit          int
	}
	if err := json.Unmarshal(w.events[1].Data, &data); err != nil || data.Name != "s3" || data.Version != "1.2.0" {
		t.Errorf("event data %s, %v", w.events[1].Data, err)
	}
}

func TestChooseKind(t *testing.T) {
	both := []plugin.Program{{Kind: plugin.Native}, {Kind: plugin.WASM}}
	for name, c := range map[string]struct {
		programs []plugin.Program
		manifest plugin.Kind
		config   plugin.Kind
		flag     plugin.Kind
		caller   plugin.Name
		want     plugin.Kind
	}{
		"default":                 {both, "", "", "", "", plugin.WASM},
		"manifest prefers":        {both, plugin.Native, "", "", "", plugin.Native},
		"config wins":             {both, plugin.Native, plugin.WASM, "", "", plugin.WASM},
		"flag wins":               {both, plugin.WASM, plugin.WASM, plugin.Native, "", plugin.Native},
		"what there is":           {both[:1], "", "", "", "", plugin.Native},
		"wanted kind is not held": {both[:1], "", plugin.WASM, "", "", ""},
		"called plugin":           {both[:1], "", plugin.WASM, "", "porter", plugin.Native},
		"event handler":           {both[:1], "", plugin.WASM, "", "event", plugin.Native},
		"nothing held":            {nil, "", "", "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.plugins.p.Programs, w.plugins.p.Manifest.Run.Prefer, w.opts.Prefer = c.programs, c.manifest, c.config
			inv := plugin.Invocation{Backend: c.flag, Caller: c.caller}
			if c.caller == "event" {
				inv.Caller, inv.Kind = "", plugin.KindEvent
			}
			err := w.run(inv)
			ran := append(w.native.ran, w.wasm.ran...)
			if c.want == "" {
				wantRunError(t, err, plugin.StagePrepare, hostabi.ReasonPlatformUnsupported)
				return
			}
			if err != nil || len(ran) != 1 || ran[0] != c.want {
				t.Errorf("ran %v, %v; want %s", ran, err, c.want)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w *world)
		inv    plugin.Invocation
		stage  plugin.Stage
		reason hostabi.Reason
	}{
		"unknown":      {func(w *world) { w.plugins.p = nil }, plugin.Invocation{}, plugin.StageFind, hostabi.ReasonPluginNotFound},
		"cycle":        {func(*world) {}, plugin.Invocation{Chain: []plugin.Name{"a", "s3"}}, plugin.StageRun, hostabi.ReasonCallCycle},
		"depth":        {func(w *world) { w.opts.MaxDepth = 2 }, plugin.Invocation{Chain: []plugin.Name{"a", "b"}}, plugin.StageRun, hostabi.ReasonCallDepth},
		"abi":          {func(w *world) { w.plugins.p.Manifest.ABI = "ds.host/v9" }, plugin.Invocation{}, plugin.StagePrepare, hostabi.ReasonABIUnsupported},
		"requires":     {func(w *world) { w.plugins.p.Manifest.Requires = []string{"ds.host.v1.X/Y"} }, plugin.Invocation{}, plugin.StagePrepare, hostabi.ReasonABIUnsupported},
		"no grant":     {func(w *world) { w.grant = hostabi.Errorf(hostabi.ReasonGrantMissing, "x") }, plugin.Invocation{}, plugin.StageGrant, hostabi.ReasonGrantMissing},
		"modified":     {func(w *world) { w.plugins.openErr = hostabi.Errorf(hostabi.ReasonPluginModified, "x") }, plugin.Invocation{}, plugin.StagePrepare, hostabi.ReasonPluginModified},
		"backend says": {func(w *world) { w.wasm.err = errors.New("boom") }, plugin.Invocation{}, plugin.StageRun, hostabi.ReasonInternal},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.change(w)
			wantRunError(t, w.run(c.inv), c.stage, c.reason)
			if c.stage != plugin.StageRun && len(w.wasm.ran)+len(w.native.ran) > 0 {
				t.Error("it was started all the same")
			}
		})
	}
}

func TestExitCodePassesUnchanged(t *testing.T) {
	w := newWorld(t)
	w.wasm.err = &plugin.ExitError{Code: 7}
	err := w.run(plugin.Invocation{})
	if e, ok := errors.AsType[*plugin.ExitError](err); !ok || e.Code != 7 {
		t.Errorf("got %v", err)
	}
	if w.events[1].Topic != "plugin.finished" || !strings.Contains(string(w.events[1].Data), `"exit":7`) {
		t.Errorf("event %s %s", w.events[1].Topic, w.events[1].Data)
	}
}

func TestDeadlineIsTheEarliest(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		inv     plugin.Invocation
		timeout time.Duration
		limit   time.Duration
		want    time.Duration
	}{
		"configured":     {plugin.Invocation{}, time.Hour, 0, time.Hour},
		"manifest":       {plugin.Invocation{}, time.Hour, time.Minute, time.Minute},
		"invocation":     {plugin.Invocation{Deadline: now.Add(time.Second)}, time.Hour, time.Minute, time.Second},
		"nested":         {plugin.Invocation{Caller: "porter"}, 0, 0, hostabi.MaxNestedTime},
		"event handlers": {plugin.Invocation{Kind: plugin.KindEvent}, 0, 0, hostabi.MaxNestedTime},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.opts.Clock = func() time.Time { return now }
			w.opts.Timeout = c.timeout
			w.plugins.p.Manifest.Limits.Time = c.limit
			if err := w.run(c.inv); err != nil {
				t.Fatal(err)
			}
			if got := w.wasm.deadline.Sub(now); got != c.want {
				t.Errorf("deadline in %v, want %v", got, c.want)
			}
		})
	}
}

func TestProtocol1RunsFiveMinutes(t *testing.T) {
	now := time.Now()
	for timeout, want := range map[time.Duration]time.Duration{0: hostabi.MaxProtocol1, time.Hour: time.Hour} {
		w := newWorld(t)
		w.opts.Clock = func() time.Time { return now }
		w.opts.Timeout = timeout
		w.plugins.p.Programs = []plugin.Program{{Kind: plugin.Native, Mode: plugin.Protocol1}}
		if err := w.run(plugin.Invocation{}); err != nil {
			t.Fatal(err)
		}
		if got := w.native.deadline.Sub(now); got != want {
			t.Errorf("plugins.timeout %v: deadline in %v, want %v", timeout, got, want)
		}
	}
}

func TestDenialsAreToldAfterAFailedRun(t *testing.T) {
	w := newWorld(t)
	w.wasm.ask = hostabi.RegistryPull
	if err := w.run(plugin.Invocation{}); err != nil || w.denied != nil {
		t.Fatalf("a run that succeeded told %v, %v", w.denied, err)
	}
	w.wasm.err = &plugin.ExitError{Code: 1}
	_ = w.run(plugin.Invocation{})
	if len(w.denied) != 1 || w.denied[0].Cap != hostabi.RegistryPull {
		t.Errorf("told %+v", w.denied)
	}
}

func TestAll(t *testing.T) {
	w := newWorld(t)
	for p, err := range New(w.opts).All(t.Context()) {
		if err != nil || p.Name != "s3" {
			t.Errorf("%v, %v", p, err)
		}
	}
}

func wantRunError(t *testing.T, err error, stage plugin.Stage, reason hostabi.Reason) {
	t.Helper()
	e, ok := errors.AsType[*plugin.RunError](err)
	if !ok || e.Stage != stage || hostabi.ReasonOf(err) != reason {
		t.Errorf("got %v (stage %v, reason %s), want stage %s, reason %s", err, e, hostabi.ReasonOf(err), stage, reason)
	}
}
