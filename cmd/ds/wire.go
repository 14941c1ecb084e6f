package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/delivery-station/ds/cache"
	"github.com/delivery-station/ds/config"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/internal/egress"
	"github.com/delivery-station/ds/internal/events"
	"github.com/delivery-station/ds/internal/natsbus"
	"github.com/delivery-station/ds/internal/state"
	"github.com/delivery-station/ds/internal/trust"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/install"
	"github.com/delivery-station/ds/plugin/manager"
	"github.com/delivery-station/ds/plugin/store"
	"github.com/delivery-station/ds/registry"
	"github.com/delivery-station/ds/runtime/native"
	"github.com/delivery-station/ds/runtime/wasm"
	"github.com/delivery-station/ds/sandbox"
)

// What one package asks of another that does not import it.
var (
	_ manager.Host           = (*host.Registrar)(nil)
	_ manager.Plugins        = (*store.Store)(nil)
	_ manager.Grants         = (*sandbox.Store)(nil)
	_ manager.Backend        = (*native.Backend)(nil)
	_ manager.Backend        = (*wasm.Backend)(nil)
	_ manager.Events         = (*events.Bus)(nil)
	_ host.Plugins           = (*manager.Manager)(nil)
	_ pluginState            = (*state.Store)(nil)
	_ pluginState            = (*natsbus.State)(nil)
	_ host.Events            = (*events.Bus)(nil)
	_ host.Events            = (*natsbus.Bus)(nil)
	_ natsbus.Local          = (*events.Bus)(nil)
	_ host.Puller            = (*registry.Client)(nil)
	_ host.FreshResolver     = (*registry.Client)(nil)
	_ host.Pusher            = (*registry.Client)(nil)
	_ host.Cache             = (*cache.View)(nil)
	_ host.CacheAdmin        = (*cache.View)(nil)
	_ install.Checker        = (*wasm.Backend)(nil)
	_ install.Checker        = (*native.Backend)(nil)
	_ native.LegacyManifests = (*store.Store)(nil)
)

// parts makes each costly part when it is first asked for: ds version opens nothing, and a plugin that never
// pulls builds no registry client.
type parts struct {
	a *app

	cache     func() (*cache.Store, error)
	registry  func() (*registry.Client, error)
	grants    func() (*sandbox.Store, error)
	manager   func() (*manager.Manager, error)
	registrar func() *host.Registrar
	store     func() *store.Store
	pins      func() *trust.Pins
	bus       func() host.Events
	state     func() pluginState
	nats      func() *natsbus.Conn // used only where the configuration says so
	wasm      func() *wasm.Backend
	native    func() *native.Backend
	schemas   func() *schemas

	reattach map[string]native.Reattach // DS_REATTACH, read by newManager

	mu       sync.Mutex
	closers  []func() error
	handlers *manager.Handlers // made with the bus, nil without event handlers
}

func newParts(a *app) *parts {
	p := &parts{a: a}
	p.cache = sync.OnceValues(p.newCache)
	p.registry = sync.OnceValues(p.newRegistry)
	p.grants = sync.OnceValues(p.newGrants)
	p.manager = sync.OnceValues(p.newManager)
	p.registrar = sync.OnceValue(p.newRegistrar)
	p.store = sync.OnceValue(p.newStore)
	p.pins = sync.OnceValue(p.newPins)
	p.bus = sync.OnceValue(p.newBus)
	p.state = sync.OnceValue(p.newState)
	p.nats = sync.OnceValue(p.newNATS)
	p.wasm = sync.OnceValue(p.newWASM)
	p.native = sync.OnceValue(p.newNative)
	p.schemas = sync.OnceValue(p.newSchemas)
	return p
}

// atClose has f called when ds ends, in reverse order.
func (p *parts) atClose(f func() error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closers = append(p.closers, f)
}

// close ends everything that was made.
func (a *app) close() {
	if a.parts == nil {
		return
	}
	a.parts.mu.Lock()
	closers := a.parts.closers
	a.parts.closers = nil
	a.parts.mu.Unlock()
	for i := len(closers) - 1; i >= 0; i-- {
		if err := closers[i](); err != nil {
			a.log.Warn("at exit", "err", err)
		}
	}
}

func (p *parts) newCache() (*cache.Store, error) {
	c := p.a.cfg
	remote, err := p.newRemote()
	if err != nil {
		return nil, err
	}
	s, err := cache.Open(context.Background(), cache.Options{
		Dir: c.String("cache.dir"), MaxSize: c.Int("cache.max_size"), TTL: c.Duration("cache.ttl"), Threshold: c.Float("cache.clean_threshold"),
		AutoClean: c.Bool("cache.auto_clean"), Durable: c.String("cache.durability") == "fsync", Verify: cache.Verify(c.String("cache.verify")), Log: p.a.log,
		Remote: remote, Publish: p.hostEvents(),
	})
	if err != nil {
		return nil, err
	}
	p.atClose(s.Close)
	return s, nil
}

func (p *parts) newRegistry() (_ *registry.Client, err error) {
	c := p.a.cfg
	o := registry.Options{
		DefaultRegistry: c.String("registry.default"), Insecure: c.List("registry.insecure_registries"), Concurrency: int(c.Int("registry.concurrency")),
		Timeouts: registry.Timeouts{
			Dial: c.Duration("registry.timeouts.dial"), TLS: c.Duration("registry.timeouts.tls"),
			Header: c.Duration("registry.timeouts.header"), Idle: c.Duration("registry.timeouts.idle"),
		},
		Retry:           registry.Retry{Attempts: cmp.Or(int(c.Int("registry.retry.attempts")), -1), MaxWait: c.Duration("registry.retry.max_wait")},
		CredentialFiles: p.credentialFiles(), AuthFile: filepath.Join(p.a.paths.Config, "auth.json"),
		Proxy:   registry.Proxy{HTTP: p.proxy("http"), HTTPS: p.proxy("https"), No: p.noProxy()},
		Offline: c.Bool("registry.offline"), Home: p.a.paths.Home, Dir: p.a.wd, UserAgent: "ds/" + version,
		Refs: refs{p.cache}, Secrets: &p.a.secrets, Mirrors: c.List("registry.mirrors"), Warn: func(text string) { p.a.warn(text, "") },
		Observer: p.a.observeRegistry, MountDir: filepath.Join(c.String("cache.dir"), "registry", "blobinfo"),
	}
	if o.Epoch, err = p.a.epoch(); err != nil {
		return nil, err
	}
	var hosts []struct {
		Host        string
		PlainHTTP   bool   `json:"plain_http"`
		InsecureTLS bool   `json:"insecure_tls"`
		CAFile      string `json:"ca_file"`
		CertFile    string `json:"cert_file"`
		KeyFile     string `json:"key_file"`
		Concurrency int
		Referrers   string

		Mirrors       []string
		TokenHosts    []string `json:"token_hosts"`
		RedirectHosts []string `json:"redirect_hosts"`
	}
	if err = c.Objects("registry.hosts", &hosts); err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonConfigValue, "registry.hosts: %w", err)
	}
	file := func(path string) string { return p.a.fileOf("registry.hosts", path) }
	for _, h := range hosts {
		o.Hosts = append(o.Hosts, registry.Host{
			Host: h.Host, PlainHTTP: h.PlainHTTP, InsecureTLS: h.InsecureTLS, CAFile: file(h.CAFile), CertFile: file(h.CertFile), KeyFile: file(h.KeyFile),
			Concurrency: h.Concurrency, Referrers: h.Referrers, Mirrors: h.Mirrors, TokenHosts: h.TokenHosts, RedirectHosts: h.RedirectHosts,
		})
	}
	var creds []struct{ Registry, Username, Password, Token string }
	if err := c.Objects("auth.credentials", &creds); err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonConfigValue, "auth.credentials has fields of the wrong type")
	}
	for _, cr := range creds {
		o.Credentials = append(o.Credentials, registry.Credential(cr))
	}
	return registry.New(o)
}

// observeRegistry says why nothing moves, and logs the rest.
func (a *app) observeRegistry(e registry.Event) {
	switch e.Phase {
	case registry.PhaseProgress:
		return
	case registry.PhaseWait:
		if e.Wait >= time.Second && !a.g.quiet {
			fmt.Fprintf(a.stderr(), "note: %s asks to wait %s\n", e.Ref, e.Wait)
		}
	}
	a.log.Debug("registry", "op", e.Op, "phase", e.Phase, "ref", e.Ref, "digest", string(e.Digest), "offset", e.Offset, "source", e.Source, "attempt", e.Attempt, "wait", e.Wait, "err", e.Err)
}

// fileOf is an optional path in the value of key: relative to the directory of the configuration file that it stands in,
// so that it means the same wherever ds is started.
func (a *app) fileOf(key, path string) string {
	if path == "" {
		return ""
	}
	v, ok := a.cfg.Get(key)
	if ok && v.Origin.Layer == config.File && !filepath.IsAbs(path) && !strings.HasPrefix(path, "~/") {
		path = filepath.Join(filepath.Dir(v.Origin.Name), path)
	}
	return a.absolute(path)
}

// credentialFiles lists the files of docker's format, in the order of registry.md section 3.
func (p *parts) credentialFiles() (files []string) {
	a := p.a
	add := func(dir string, below ...string) {
		if dir != "" {
			files = append(files, filepath.Join(append([]string{dir}, below...)...))
		}
	}
	add(a.paths.Config, "auth.json")
	add(a.env("REGISTRY_AUTH_FILE"))
	add(a.cfg.String("auth.docker_config"))
	add(a.env("XDG_RUNTIME_DIR"), "containers", "auth.json")
	add(a.paths.Home, ".config", "containers", "auth.json")
	return files
}

func (p *parts) proxy(scheme string) string {
	if v := p.a.cfg.String("proxy." + scheme + "_proxy"); v != "" {
		return v
	}
	v := p.a.env(strings.ToLower(scheme) + "_proxy")
	if v == "" {
		v = p.a.env(strings.ToUpper(scheme) + "_PROXY")
	}
	p.a.secrets.Add(config.URLPasswords(v)...)
	return v
}

func (p *parts) noProxy() string {
	if l := p.a.cfg.List("proxy.no_proxy"); len(l) > 0 {
		return strings.Join(l, ",")
	}
	if v := p.a.env("no_proxy"); v != "" {
		return v
	}
	return p.a.env("NO_PROXY")
}

// refs is the tag memory of the cache, opened only when a tag is resolved.
type refs struct {
	cache func() (*cache.Store, error)
}

func (r refs) SetRef(ctx context.Context, name string, d hostabi.Descriptor) error {
	c, err := r.cache()
	if err != nil {
		return err
	}
	return c.SetRef(ctx, name, d)
}

func (r refs) Ref(ctx context.Context, name string) (hostabi.Descriptor, time.Time, error) {
	c, err := r.cache()
	if err != nil {
		return hostabi.Descriptor{}, time.Time{}, err
	}
	return c.Ref(ctx, name)
}

func (p *parts) newStore() *store.Store {
	c := p.a.cfg
	return store.New(store.Options{
		Dir: c.String("plugins.dir"), ExtraDirs: c.List("plugins.extra_dirs"), Full: c.String("sandbox.verify") == "full", DS: version, Log: p.a.log,
	})
}

func (p *parts) newGrants() (*sandbox.Store, error) {
	a := p.a
	return sandbox.Open(sandbox.StoreOptions{
		Path: filepath.Join(a.paths.Config, "grants.yaml"), PolicyPath: a.policy, Home: a.paths.Home,
		Protected: []string{a.paths.Config, a.paths.Data, a.cfg.String("plugins.dir"), a.cfg.String("cache.dir"), a.cfg.String("state.dir")},
		Settings:  p.userSetting, Canonical: p.canonical, MemoryDefault: a.cfg.Int("sandbox.memory_default"), MemoryMax: a.cfg.Int("sandbox.memory_max"),
		TimeMax: int64(a.cfg.Duration("sandbox.time_max")),
	})
}

// canonical is the repository of a reference that the user typed, by the one grammar of the registry client.
func (p *parts) canonical(ref string) (string, error) {
	c, err := p.registry()
	if err != nil {
		return "", err
	}
	return c.Canonical(ref)
}

// userSetting is a value that the user set, never a default: only such a value counts in a scope.
func (p *parts) userSetting(key string) (string, bool) {
	v, ok := p.a.cfg.Get("plugins." + key)
	if !ok || v.Origin.Layer == config.Default {
		return "", false
	}
	s, ok := v.Effective.(string)
	return s, ok
}

// hostEvents publishes what a part of this process tells about itself, if somebody listens. The bus is made here,
// so that it ends after the part.
func (p *parts) hostEvents() func(topic string, data map[string]any) {
	bus := p.bus()
	return func(topic string, data map[string]any) {
		if !bus.Wanted(topic) {
			return
		}
		b, err := json.Marshal(data)
		if err == nil {
			_, _, err = bus.Publish(context.Background(), hostabi.Event{Topic: topic, Source: "/ds", Data: b})
		}
		if err != nil {
			p.a.log.Debug("host event lost", "topic", topic, "err", err)
		}
	}
}

// tell publishes a host event about an installed plugin.
func (a *app) tell(topic string, name plugin.Name, version string, index hostabi.Digest) {
	a.parts.hostEvents()(topic, map[string]any{"name": name, "version": version, "index": index})
}

// startHandlers subscribes for the event handlers of installed plugins. Nothing is read if there are none.
func (p *parts) startHandlers(b *events.Bus) {
	a := p.a
	if a.g.noPlugins || len(a.words) > 0 && strings.HasPrefix(a.words[0], "__complete") {
		return
	}
	names := p.store().Handlers()
	if len(names) == 0 {
		return
	}
	grants, err := p.grants()
	if err != nil {
		a.log.Debug("no event handlers", "err", err)
		return
	}
	h := manager.StartHandlers(manager.HandlerOptions{
		Bus: b, Plugins: p.store(), Grants: grants, Names: names, Run: lazyPlugins{p}.Run, Log: a.log, Warn: func(text string) { a.warn(text, "") },
		Base: plugin.Invocation{Dir: a.wd, Env: a.environ, Offline: a.cfg.Bool("registry.offline"), LogLevel: a.cfg.String("logging.level")},
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handlers = h
}

// endHandlers gives event handlers their time to finish, unless the user wants the command to end.
func (a *app) endHandlers(ctx context.Context) {
	if a.parts == nil {
		return
	}
	a.parts.mu.Lock()
	h := a.parts.handlers
	a.parts.mu.Unlock()
	if h == nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if a.signalled.Load() != 0 {
		cancel()
	}
	h.Close(ctx)
}

// safeState is the state store, unless another user could write to it.
func (p *parts) safeState() (host.State, error) {
	if p.a.cfg.String("state.backend") == natsBackend {
		return p.state(), nil
	}
	dir := p.a.cfg.String("state.dir")
	for _, d := range []string{dir, filepath.Join(dir, "kv")} {
		info, err := os.Stat(d)
		if err != nil {
			continue // it is made, or the error is told
		}
		if !info.IsDir() {
			return nil, hostabi.Errorf(hostabi.ReasonUnsafeDir, "%s is not a directory", d)
		}
		if why := atomicfile.Unsafe(info); why != "" {
			return nil, hostabi.Errorf(hostabi.ReasonUnsafeDir, "%s %s", d, why).WithFix("chmod go-w %s", d)
		}
	}
	return p.state(), nil
}

func (p *parts) newWASM() *wasm.Backend {
	b := wasm.New(wasm.Options{
		CacheDir: filepath.Join(p.a.cfg.String("cache.dir"), "wasm"), MemoryMax: 2 * p.a.cfg.Int("sandbox.memory_max"),
		Compile: func(ctx context.Context, argv []string, stdin io.Reader, lim wasm.CompileLimits) ([]byte, error) {
			lim.CPU, lim.Wall, lim.Memory = slack*lim.CPU, slack*lim.Wall, slack*lim.Memory
			return p.native().Worker(ctx, argv, stdin, native.WorkerLimits(lim))
		},
		CompileTime: p.a.cfg.Duration("sandbox.compile_timeout"), Log: p.a.log,
	})
	p.atClose(b.Close)
	return b
}

func (p *parts) newNative() *native.Backend {
	return native.New(native.Options{
		RunDir: func() (string, error) {
			c, err := p.cache()
			if err != nil {
				return "", err
			}
			return c.RunDir()
		},
		Confine: p.a.cfg.String("sandbox.native"), Wrap: strings.Fields(p.a.env("DS_PLUGIN_WRAP")), Log: p.a.log,
		Legacy: p.store(), LegacyCache: p.legacyCache, Reattach: p.reattach, Wire: slices.Contains(strings.Split(p.a.env("DS_DEBUG"), ","), "wire"),
	})
}

// legacyCache is where a plugin of the original DS keeps what it pulls: below the cache, but none of its blobs.
func (p *parts) legacyCache(name plugin.Name) (string, error) {
	dir := filepath.Join(p.a.cfg.String("cache.dir"), "legacy", string(name))
	return dir, os.MkdirAll(dir, 0o700)
}

// newRegistrar registers every service once; a new method touches the schema, its service and the SDK.
func (p *parts) newRegistrar() *host.Registrar {
	a := p.a
	r := host.New(host.Options{
		Version: version,
		Cache: func(owner hostabi.PluginName, source string) (host.Cache, error) {
			return p.view(owner, source, false)
		},
		Puller: func() (host.Puller, error) { return p.registry() },
		Events: p.bus(), Log: a.log,
		Notice: func(text string) { fmt.Fprintln(a.stderr(), text) },
	})
	hostv1.RegisterMetaServer(r, host.NewMeta())
	hostv1.RegisterConfigServer(r, host.NewConfig(&settings{schemas: p.schemas(), view: a.cfg.HostView(), a: a}))
	hostv1.RegisterCacheServer(r, host.NewCache())
	hostv1.RegisterRegistryServer(r, host.NewRegistry(func() (host.Pusher, error) { return p.registry() }))
	hostv1.RegisterEventsServer(r, host.NewEvents())
	hostv1.RegisterStateServer(r, host.NewState(p.safeState))
	hostv1.RegisterHttpServer(r, host.NewHTTP(lazyHTTP(sync.OnceValue(p.newHTTP))))
	hostv1.RegisterLogServer(r, host.NewLog())
	hostv1.RegisterTermServer(r, host.NewTerm(a.term))
	hostv1.RegisterPluginsServer(r, host.NewPlugins(lazyPlugins{p}))
	return r
}

// lazyHTTP makes the client of plugins at the first request.
type lazyHTTP func() *egress.Client

func (l lazyHTTP) Do(r *http.Request, maxRedirects int, allow func(*url.URL) (bool, error)) (*http.Response, error) {
	return l().Do(r, maxRedirects, allow)
}

func (p *parts) newHTTP() *egress.Client {
	c := p.a.cfg
	return egress.NewClient(egress.Options{
		Proxy: egress.ProxyFunc(p.proxy("http"), p.proxy("https"), p.noProxy()), DialTimeout: c.Duration("registry.timeouts.dial"),
		TLSTimeout: c.Duration("registry.timeouts.tls"), HeaderTimeout: c.Duration("registry.timeouts.header"),
	})
}

// lazyPlugins closes the circle between registrar and manager without a setter.
type lazyPlugins struct{ p *parts }

func (l lazyPlugins) Run(ctx context.Context, name plugin.Name, inv *plugin.Invocation) error {
	m, err := l.p.manager()
	if err != nil {
		return err
	}
	return m.Run(ctx, name, inv)
}

func (l lazyPlugins) All(ctx context.Context) hostabi.Seq2[*plugin.Installed] {
	return l.p.store().All(ctx)
}

func (p *parts) newManager() (*manager.Manager, error) {
	a := p.a
	grants, err := p.grants()
	if err != nil {
		return nil, err
	}
	if p.reattach, err = native.ParseReattach(a.env("DS_REATTACH")); err != nil {
		return nil, err
	}
	return manager.New(manager.Options{
		Plugins: p.plugins(), Develop: a.dev != nil, Grants: grants, Host: p.registrar(), Claim: p.claim, Events: p.bus(), Methods: p.methods,
		Backends: map[plugin.Kind]manager.Backend{plugin.Native: lazyBackend{p, func() manager.Backend { return p.native() }}, plugin.WASM: lazyBackend{p, func() manager.Backend { return p.wasm() }}},
		Prefer:   p.prefer(), Timeout: a.cfg.Duration("plugins.timeout"), MaxDepth: int(a.cfg.Int("plugins.max_depth")),
		Denied: a.denied, Log: a.log,
	}), nil
}

// plugins is the installed set, and with ds plugin run the plugin of a directory before it.
func (p *parts) plugins() manager.Plugins {
	if p.a.dev != nil {
		return developed{p.store(), p.a.dev}
	}
	return p.store()
}

// claim keeps a plugin from what another one left under its name.
func (p *parts) claim(ctx context.Context, q *plugin.Installed) error {
	return p.store().Claim(ctx, q, func(ctx context.Context) error {
		c, err := p.cache()
		if err != nil {
			return err
		}
		p.a.log.Info("another plugin had this name; its state is put aside", "plugin", q.Name)
		return errors.Join(p.state().Retire(ctx, q.Name), c.Retire(q.Name))
	})
}

// methods lists what this host serves as manifests name it: without the leading slash.
func (p *parts) methods() []string {
	all := p.registrar().Methods()
	for i, m := range all {
		all[i] = strings.TrimPrefix(m, "/")
	}
	return all
}

// prefer is plugins.backend; auto leaves the choice to the manifest.
func (p *parts) prefer() plugin.Kind {
	if v := p.a.cfg.String("plugins.backend"); v != "auto" {
		return plugin.Kind(v)
	}
	return ""
}

func (p *parts) newInstaller(consent install.Consent) *install.Installer {
	return p.installerFrom(nil, consent)
}

// installerFrom installs from a bundle; nil = from registries and layouts.
func (p *parts) installerFrom(b *bundle, consent install.Consent) *install.Installer {
	var from install.Sources = sources{p.registry}
	if b != nil {
		from = b
	}
	return install.New(install.Options{
		Store: p.store(), Sources: from, Verifier: verifier{p.a}, Consent: consent, Methods: p.methods, Prefer: p.prefer(), Progress: p.a.term.Report,
		Cache: func(source string) (install.Cache, error) {
			return p.view("", source, b != nil)
		},
		Checkers: map[plugin.Kind]install.Checker{
			plugin.WASM:   lazyChecker(func() install.Checker { return p.wasm() }),
			plugin.Native: lazyChecker(func() install.Checker { return p.native() }),
		},
	})
}

type lazyChecker func() install.Checker

func (l lazyChecker) Check(ctx context.Context, p *plugin.Installed) error { return l().Check(ctx, p) }

// policyPath is the admin's ceiling; no flag or variable moves it.
func policyPath(env func(string) string) string {
	if os.PathSeparator == '\\' {
		return filepath.Join(env("ProgramData"), "ds", "policy.yaml")
	}
	return "/etc/ds/policy.yaml"
}
