package hosttest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

// Setup is what a world asks of the owners it is built from.
type Setup struct {
	Dir     string           // of this test, for caches and layouts
	Clock   func() time.Time // expiry follows it
	Offline bool             // no registry can be reached
	NoAPI   bool             // the registry has no referrers API
}

// Owners are the real parts behind the services.
type Owners struct {
	Cache  func(owner hostabi.PluginName, source string) (host.Cache, error)
	Puller func() (host.Puller, error)
	Pusher func() (host.Pusher, error)
	Events host.Events
	State  func() (host.State, error)
	HTTP   host.HTTP
	// Registry is a prefix of references that the registry client can read and write: "127.0.0.1:5000/kit".
	Registry string
	// Granted is that prefix in the form of repository scopes, if it differs.
	Granted string
}

// World is the host side of one case: a registrar over the owners, the plugin under test with its grants, and
// the plugins that it calls.
type World struct {
	Owners
	Registrar *host.Registrar
	Installed *plugin.Installed // the guest; its Program is the carrier's to set
	Log       *Log
	Terminal  *Terminal
	Stdout    *Buffer      // of the invocation
	Written   atomic.Int64 // lines that the plugin "yes" has written
	Ended     atomic.Int64 // runs of the plugin "sleep" that have ended
	Deadline  time.Time    // of invocations

	web     string                                // URL of a web server at 127.0.0.1
	granted map[hostabi.Capability]sandbox.Scopes // of this case, in place of what all are granted
	t       testing.TB
	mu      sync.Mutex
	ahead   time.Duration // of the clock
}

// Name is the plugin under test.
const Name hostabi.PluginName = "kit"

// NewWorld builds the host side of one case; directory and clock of s are its own.
func NewWorld(t testing.TB, build func(t testing.TB, s Setup) Owners, s Setup) *World {
	w := &World{t: t, Log: &Log{}, Terminal: &Terminal{}, Stdout: &Buffer{}}
	s.Dir, s.Clock = t.TempDir(), w.now
	w.Owners = build(t, s)
	if w.Granted == "" {
		w.Granted = w.Registry
	}
	w.Installed = installed(Name, nil)
	w.web = website(t)
	w.Registrar = host.New(host.Options{
		Version: "0.0.0-kit", Cache: w.Cache, Puller: w.Puller, Events: w.Events,
		Log: w.Log.Logger(), Clock: w.now,
	})
	reg := w.Registrar
	hostv1.RegisterMetaServer(reg, host.NewMeta())
	hostv1.RegisterConfigServer(reg, host.NewConfig(settings{"registry": w.Registry, "url": w.web}))
	hostv1.RegisterCacheServer(reg, host.NewCache())
	hostv1.RegisterRegistryServer(reg, host.NewRegistry(w.Pusher))
	hostv1.RegisterEventsServer(reg, host.NewEvents())
	hostv1.RegisterStateServer(reg, host.NewState(func() (host.State, error) {
		s, err := w.State()
		return holding{s}, err
	}))
	hostv1.RegisterPluginsServer(reg, host.NewPlugins(&callees{w}))
	hostv1.RegisterHttpServer(reg, host.NewHTTP(w.HTTP))
	hostv1.RegisterLogServer(reg, host.NewLog())
	hostv1.RegisterTermServer(reg, host.NewTerm(w.Terminal))
	return w
}

func (w *World) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.ahead)
}

func (w *World) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ahead += d
}

// Invocation is a new run of the plugin under test.
func (w *World) Invocation(args ...string) *plugin.Invocation {
	return &plugin.Invocation{
		ID: strings.Repeat("1", 32), Args: args, Kind: plugin.KindRun, TraceID: strings.Repeat("a", 32),
		TraceParent: "00-" + strings.Repeat("a", 32) + "-" + strings.Repeat("b", 16) + "-01",
		Stdout:      w.Stdout, Stderr: testWriter{w.t}, Dir: w.t.TempDir(),
		Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + w.t.TempDir()}, Deadline: w.Deadline,
	}
}

// Box is the effective grants of the plugin under test.
func (w *World) Box(inv *plugin.Invocation) *sandbox.Box {
	granted := map[hostabi.Capability]sandbox.Scopes{
		hostabi.ConfigRead:      {Scope: []string{"own"}},
		hostabi.SecretRead:      {Scope: []string{"settings.kit.open.*"}},
		hostabi.CacheRead:       {Scope: []string{"own"}},
		hostabi.CacheWrite:      {Scope: []string{"own"}, Quota: 1 << 20},
		hostabi.RegistryPull:    {Scope: []string{w.Granted + "/app", w.Granted + "/out"}},
		hostabi.RegistryPush:    {Scope: []string{w.Granted + "/out"}},
		hostabi.EventsPublish:   {Scope: []string{"own"}},
		hostabi.EventsSubscribe: {Scope: []string{"flood.*", "flood.**", "kit.**"}},
		hostabi.StateRead:       {Scope: []string{"own"}},
		hostabi.StateWrite:      {Scope: []string{"own"}, Quota: 1 << 20},
		hostabi.PluginsCall: {Scope: []string{
			"exit/with", "fetch/*", "flood/*", "clock/*", "deadline/run", "evict/run", "read/*", "cat/run", "order/run", "sleep/run", "ring/run", "absent/run",
			"kit/run", "chain1/run",
		}},
		hostabi.NetHTTP:    {Scope: []string{"private:" + w.web, strings.Replace(w.web, "127.0.0.1", "localhost", 1)}},
		hostabi.TermPrompt: {Scope: []string{"confirm", "line"}},
	}
	maps.Copy(granted, w.granted)
	return w.Grant(w.Installed, inv, granted)
}

// Grant is the box of a run of p that requests and is granted the same.
func (w *World) Grant(p *plugin.Installed, inv *plugin.Invocation, granted map[hostabi.Capability]sandbox.Scopes) *sandbox.Box {
	return w.grantCallee(nil, p, inv, granted)
}

// grantCallee is Grant for a run that was called by the one that caller belongs to.
func (w *World) grantCallee(caller *sandbox.Box, p *plugin.Installed, inv *plugin.Invocation, granted map[hostabi.Capability]sandbox.Scopes) *sandbox.Box {
	own := *p
	m := *p.Manifest
	for _, c := range hostabi.Capabilities() {
		if g, ok := granted[c]; ok {
			m.Capabilities = append(m.Capabilities, plugin.Request{Cap: c, Scope: g.Scope, Quota: g.Quota, Reason: "kit"})
		}
	}
	own.Manifest = &m
	o := sandbox.BoxOptions{Plugin: &own, Invocation: inv, Granted: granted, Home: inv.Dir, Inherited: caller}
	if p, err := w.Puller(); err == nil {
		o.Canonical = p.Canonical
	}
	box, err := sandbox.NewBox(o)
	if err != nil {
		w.t.Fatalf("box of %s: %v", p.Name, err)
	}
	return box
}

// Open opens the session of inv.
func (w *World) Open(inv *plugin.Invocation) (*sandbox.Box, hostabi.Session) {
	box := w.Box(inv)
	s, err := w.Registrar.Open(w.Installed, box, inv)
	if err != nil {
		w.t.Fatalf("open session: %v", err)
	}
	return box, s
}

func installed(name hostabi.PluginName, commands []string) *plugin.Installed {
	m := &plugin.Manifest{APIVersion: plugin.APIVersion, Name: name, Version: "1.2.3", ABI: hostabi.ABI}
	for _, c := range commands {
		m.Commands = append(m.Commands, plugin.Command{Name: c})
	}
	return &plugin.Installed{Name: name, Version: "1.2.3", Manifest: m, Repository: "dir:/kit/" + string(name), Signer: "none"}
}

// holding is a state store whose listing of "hold/" has one entry and then waits: an open stream that costs
// nothing.
type holding struct{ host.State }

// List implements host.State.
func (h holding) List(ctx context.Context, owner hostabi.PluginName, prefix string) iter.Seq2[hostabi.StateEntry, error] {
	if prefix != "hold/" {
		return h.State.List(ctx, owner, prefix)
	}
	return func(yield func(hostabi.StateEntry, error) bool) {
		if yield(hostabi.StateEntry{Owner: owner, Key: "hold/1"}, nil) {
			<-ctx.Done()
			yield(hostabi.StateEntry{}, ctx.Err())
		}
	}
}

// settings are the world's configuration: fixed values, and a key that panics.
type settings map[string]string

func (s settings) all() []hostabi.ConfigValue {
	quoted := func(v string) string { return `"` + v + `"` }
	return []hostabi.ConfigValue{
		{Key: "settings.kit.greeting", JSON: quoted("hello")},
		{Key: "settings.kit.huge", JSON: quoted(strings.Repeat("x", hostabi.MaxMessage))},
		{Key: "settings.kit.list.a", JSON: "1"},
		{Key: "settings.kit.list.b", JSON: "[2]"},
		{Key: "settings.kit.locked.password", JSON: quoted("no"), Secret: true},
		{Key: "settings.kit.open.name", JSON: quoted("n")},
		{Key: "settings.kit.open.token", JSON: quoted("s3cret"), Secret: true},
		{Key: "settings.kit.registry", JSON: quoted(s["registry"])},
		{Key: "settings.kit.url", JSON: quoted(s["url"])},
		{Key: "settings.other.greeting", JSON: quoted("private")},
	}
}

// Get implements host.Config.
func (s settings) Get(_ context.Context, _ hostabi.PluginName, key string) (hostabi.ConfigValue, error) {
	if key == "settings.kit.panic" {
		panic("a defect of the owner")
	}
	for _, v := range s.all() {
		if v.Key == key {
			return v, nil
		}
	}
	return hostabi.ConfigValue{}, hostabi.Errorf(hostabi.ReasonKeyNotFound, "configuration key %s: not set", key)
}

// List implements host.Config.
func (s settings) List(_ context.Context, _ hostabi.PluginName, prefix string) (out []hostabi.ConfigValue, err error) {
	for _, v := range s.all() {
		if strings.HasPrefix(v.Key, prefix) {
			out = append(out, v)
		}
	}
	return out, nil
}

// Terminal is a terminal on which somebody answers "yes" to "yes or no", never comes back from "block", and
// answers nothing else.
type Terminal struct {
	mu      sync.Mutex
	Reports []hostabi.Progress
	blocked chan struct{}
}

// Blocked receives once for each prompt that blocks.
func (t *Terminal) Blocked() chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.blocked == nil {
		t.blocked = make(chan struct{})
	}
	return t.blocked
}

// Report implements host.Terminal.
func (t *Terminal) Report(p hostabi.Progress) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Reports = append(t.Reports, p)
}

// Prompt implements host.Terminal.
func (t *Terminal) Prompt(ctx context.Context, p hostabi.Prompt) (string, bool, error) {
	switch {
	case p.Text == "block":
		t.Blocked() <- struct{}{}
		<-ctx.Done()
		return "", false, ctx.Err()
	case p.Text == "yes or no":
		return "yes", false, nil
	case p.Fallback != "":
		return p.Fallback, true, nil
	}
	return "", false, hostabi.Errorf(hostabi.ReasonNoTerminal, "nobody to ask")
}

// Rows implements host.Terminal.
func (t *Terminal) Rows(w io.Writer, format string, r hostabi.Rows) error {
	_, err := fmt.Fprintf(w, "rows %q %v %s\n", format, r.Columns, strings.Join(r.JSON, " "))
	return err
}

// Buffer is a writer that several goroutines may use; it is no *os.File, so carriers have to copy.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String is what was written.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Log keeps the records of plugins, as "LEVEL message key=value".
type Log struct {
	mu    sync.Mutex
	lines []string
}

// Enabled implements slog.Handler.
func (l *Log) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (l *Log) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	return nil
}

// WithAttrs implements slog.Handler.
func (l *Log) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup implements slog.Handler.
func (l *Log) WithGroup(string) slog.Handler { return l }

// Logger is a logger that writes here.
func (l *Log) Logger() *slog.Logger { return slog.New(l) }

// String is all lines.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

// Plugin is the lines that the plugin under test logged itself.
func (l *Log) Plugin() (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.HasSuffix(line, "plugin="+string(Name)) || strings.Contains(line, "plugin="+string(Name)+" attr=") {
			out = append(out, line)
		}
	}
	return out
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("stderr: %s", bytes.TrimRight(p, "\n"))
	return len(p), nil
}
