// Package manager runs plugins: find, authorise, open a session, choose a backend, run. It owns the Backend
// interface and knows no backend, no carrier and no service. Start with New and Manager.Run.
package manager

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

// Options are the parts of a Manager. All but Events, Log, Denied and the limits are required.
type Options struct {
	Plugins  Plugins
	Grants   Grants
	Host     Host
	Backends map[plugin.Kind]Backend
	Methods  func() []string // "ds.host.v1.Config/Get" of every method this host serves, for requires
	// Claim is called before a run that may use what is kept under the plugin's name, state and cache claims.
	Claim  func(ctx context.Context, p *plugin.Installed) error
	Events Events // receives plugin.started, plugin.finished and plugin.failed

	Prefer   plugin.Kind   // plugins.backend; empty = the manifest's run.prefer
	Timeout  time.Duration // plugins.timeout, 0 = none
	MaxDepth int           // plugins.max_depth, default hostabi.MaxDepth

	// Denied is told once, after a run that failed, what the Box refused in it; with Develop after every run.
	Denied  func(name plugin.Name, d []sandbox.Denial)
	Develop bool
	Log     *slog.Logger
	Clock   func() time.Time
}

// Manager runs plugins. It is immutable and safe for concurrent use.
type Manager struct{ o Options }

// New makes a manager; it opens and starts nothing.
func New(o Options) *Manager {
	if o.MaxDepth <= 0 || o.MaxDepth > hostabi.MaxDepth {
		o.MaxDepth = hostabi.MaxDepth
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return &Manager{o: o}
}

// All lists what is installed, broken plugins as errors; it starts nothing.
func (m *Manager) All(ctx context.Context) iter.Seq2[*plugin.Installed, error] {
	return m.o.Plugins.All(ctx)
}

// Run runs the plugin. nil means exit 0, *plugin.ExitError that it ended otherwise, *plugin.RunError that ds
// could not run it or stopped it. inv is not changed.
func (m *Manager) Run(ctx context.Context, name plugin.Name, inv *plugin.Invocation) error {
	r := run{m: m, name: name, inv: *inv}
	err := r.find(ctx)
	if err == nil {
		err = r.authorise(ctx)
	}
	if err == nil {
		err = r.start(ctx)
	}
	return err
}

// run is one run on its way through the stages.
type run struct {
	m    *Manager
	name plugin.Name
	inv  plugin.Invocation
	p    *plugin.Installed
	box  *sandbox.Box
	kind plugin.Kind
}

func (r *run) fail(s plugin.Stage, err error) error {
	if err == nil {
		return nil
	}
	return &plugin.RunError{Name: r.name, Stage: s, Err: hostabi.AsError(err)}
}

// find checks the call chain, looks the plugin up, chooses its kind and completes the invocation.
func (r *run) find(ctx context.Context) error {
	if len(r.inv.Chain) >= r.m.o.MaxDepth {
		return r.fail(plugin.StageRun, hostabi.Errorf(hostabi.ReasonCallDepth, "call chain %s is longer than %d", chain(r.inv.Chain, r.name), r.m.o.MaxDepth))
	}
	if slices.Contains(r.inv.Chain, r.name) {
		return r.fail(plugin.StageRun, hostabi.Errorf(hostabi.ReasonCallCycle, "plugin calls itself: %s", chain(r.inv.Chain, r.name)))
	}
	p, err := r.m.o.Plugins.Lookup(ctx, r.name)
	if err != nil {
		return r.fail(plugin.StageFind, err)
	}
	own := *p
	r.p = &own
	if r.kind, err = r.choose(); err != nil {
		return r.fail(plugin.StagePrepare, err)
	}
	r.complete()
	return r.fail(plugin.StagePrepare, r.supported())
}

// choose picks the kind: what the invocation wants, what the user configured, what the manifest prefers,
// what there is (install-trust.md section 6). A kind that is not held is never fetched at run. The user's
// choice binds for the plugin that was named; a called one and a handler run as what there is.
func (r *run) choose() (plugin.Kind, error) {
	want := r.inv.Backend
	named := r.inv.Caller == "" && r.inv.Kind != plugin.KindEvent
	if want == "" && (named || r.p.Find(r.m.o.Prefer) != nil) {
		want = r.m.o.Prefer
	}
	if want != "" {
		if r.p.Find(want) == nil {
			e := hostabi.Errorf(hostabi.ReasonPlatformUnsupported, "%s %s is not installed as %s", r.name, r.p.Version, want)
			if r.p.Requested != "" && r.p.Index != "" { // a directory has what it has
				unsigned := ""
				if r.p.Level == "unsigned" {
					unsigned = " --allow-unsigned"
				}
				e = e.WithFix("ds plugin install %s --backend both%s", r.p.Requested, unsigned)
			}
			return "", e
		}
		return want, nil
	}
	for _, k := range []plugin.Kind{r.p.Manifest.Run.Prefer, plugin.WASM, plugin.Native} {
		if k != "" && r.p.Find(k) != nil {
			return k, nil
		}
	}
	return "", hostabi.Errorf(hostabi.ReasonPlatformUnsupported, "%s %s holds no program for this platform", r.name, r.p.Version)
}

// complete fills what the caller left open.
func (r *run) complete() {
	if r.inv.ID == "" {
		r.inv.ID = random(16)
	}
	if r.inv.Kind == "" {
		r.inv.Kind = plugin.KindRun
	}
	if r.inv.TraceID == "" {
		r.inv.TraceID = random(16)
	}
	if r.inv.TraceParent == "" {
		r.inv.TraceParent = "00-" + r.inv.TraceID + "-" + random(8) + "-01"
	}
	r.inv.Command, r.inv.Typed = r.p.Manifest.Parse(r.inv.Args)
}

// supported checks abi and requires of the manifest against this host; nothing has been started yet.
func (r *run) supported() error {
	if abi := r.p.Manifest.ABI; abi != "" && abi != hostabi.ABI {
		return hostabi.Errorf(hostabi.ReasonABIUnsupported, "%s %s is built for %s, this ds speaks %s", r.name, r.p.Version, abi, hostabi.ABI)
	}
	if len(r.p.Manifest.Requires) == 0 {
		return nil
	}
	have := r.m.o.Methods()
	for _, method := range r.p.Manifest.Requires {
		if !slices.Contains(have, method) {
			return hostabi.Errorf(hostabi.ReasonABIUnsupported, "%s %s needs %s; this ds lacks it", r.name, r.p.Version, method)
		}
	}
	return nil
}

func (r *run) authorise(ctx context.Context) error {
	box, err := r.m.o.Grants.Box(ctx, r.p, &r.inv)
	r.box = box
	return r.fail(plugin.StageGrant, err)
}

// start opens program and session and lets the backend run them.
func (r *run) start(ctx context.Context) error {
	backend := r.m.o.Backends[r.kind]
	if backend == nil {
		return r.fail(plugin.StagePrepare, hostabi.Errorf(hostabi.ReasonPlatformUnsupported, "this ds has no %s backend", r.kind))
	}
	if err := r.claim(ctx); err != nil {
		return r.fail(plugin.StagePrepare, err)
	}
	program, err := r.m.o.Plugins.Open(ctx, r.p, r.kind)
	if err != nil {
		return r.fail(plugin.StagePrepare, err)
	}
	defer func() { _ = program.File.Close() }() // read-only
	r.p.Program = program
	r.inv.Deadline = r.deadline()
	if !r.inv.Deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, r.inv.Deadline)
		defer cancel()
	}
	session, err := r.m.o.Host.Open(r.p, r.box, &r.inv)
	if err != nil {
		return r.fail(plugin.StagePrepare, err)
	}
	begin := r.m.o.Clock()
	r.publish(ctx, "plugin.started", nil)
	err = backend.Run(ctx, r.p, r.box, &r.inv, session)
	if cerr := session.Close(); err == nil {
		err = cerr
	}
	return r.finish(ctx, err, r.m.o.Clock().Sub(begin))
}

// kept are the capabilities that concern what is kept under a plugin's name from run to run.
var kept = []hostabi.Capability{hostabi.StateRead, hostabi.StateWrite, hostabi.CacheRead, hostabi.CacheWrite}

func (r *run) claim(ctx context.Context) error {
	if r.m.o.Claim == nil || !slices.ContainsFunc(kept, r.box.Has) {
		return nil
	}
	return r.m.o.Claim(ctx, r.p)
}

// deadline is the earliest of the invocation's, the configuration's and the manifest's.
func (r *run) deadline() time.Time {
	d, now := r.inv.Deadline, r.m.o.Clock()
	limits := []time.Duration{r.m.o.Timeout, r.box.Limits().Time}
	if r.p.Program.Mode == plugin.Protocol1 && r.m.o.Timeout <= 0 {
		limits = append(limits, hostabi.MaxProtocol1)
	}
	if r.inv.Caller != "" || r.inv.Kind == plugin.KindEvent {
		limits = append(limits, hostabi.MaxNestedTime)
	}
	for _, l := range limits {
		if t := now.Add(l); l > 0 && (d.IsZero() || t.Before(d)) {
			d = t
		}
	}
	return d
}

func (r *run) finish(ctx context.Context, err error, took time.Duration) error {
	exit, ran := 0, true
	if e, ok := errors.AsType[*plugin.ExitError](err); ok {
		exit = e.Code
	} else if err != nil {
		ran = false
	}
	r.m.o.Log.Debug("plugin ended", "plugin", r.name, "kind", r.kind, "exit", exit, "ms", took.Milliseconds(), "invocation", r.inv.ID)
	ctx = context.WithoutCancel(ctx)
	if (err != nil || r.m.o.Develop) && r.m.o.Denied != nil {
		if d := r.box.Denials(); len(d) > 0 {
			r.m.o.Denied(r.name, d)
		}
	}
	if ran {
		r.publish(ctx, "plugin.finished", map[string]any{"exit": exit, "ms": took.Milliseconds()})
		return err
	}
	e := hostabi.AsError(err)
	r.publish(ctx, "plugin.failed", map[string]any{"reason": e.Reason, "code": e.Code})
	return r.fail(plugin.StageRun, e)
}

// publish sends a host event about this run; a bus that refuses it is not the run's problem.
func (r *run) publish(ctx context.Context, topic string, more map[string]any) {
	if r.m.o.Events == nil || !r.m.o.Events.Wanted(topic) {
		return
	}
	data := map[string]any{
		"name": r.name, "version": r.p.Version, "kind": r.kind, "command": r.inv.Command, "invocation": r.inv.ID,
		"caller": r.inv.Caller, "depth": len(r.inv.Chain),
	}
	maps.Copy(data, more)
	e := hostabi.Event{Topic: topic, Source: "/ds", TraceID: r.inv.TraceID, TraceParent: r.inv.TraceParent}
	if r.inv.Hops != nil {
		e.Hops = r.inv.Hops()
	}
	var err error
	if e.Data, err = json.Marshal(data); err == nil {
		_, _, err = r.m.o.Events.Publish(ctx, e)
	}
	if err != nil {
		r.m.o.Log.Debug("host event lost", "topic", topic, "err", err)
	}
}

func chain(names []plugin.Name, last plugin.Name) string {
	var b strings.Builder
	for _, n := range names {
		b.WriteString(string(n) + " > ")
	}
	return b.String() + string(last)
}

// random is n random bytes in hex.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}
