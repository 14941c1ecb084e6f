package plugin

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/schema"
	"github.com/delivery-station/ds/internal/yamlfile"
)

// MaxManifest bounds a manifest in bytes (security.md section 8).
const MaxManifest = 64 << 10

// ParseManifest reads a plugin.yaml, or the JSON of a package; name is its file name for messages. Errors have
// reason MANIFEST with file:line:col and Problems as cause, or ABI_UNSUPPORTED for what only another ds
// offers. Unknown fields are warnings, except inside capabilities. A manifest without apiVersion is only
// recognised: its APIVersion is empty and its mode Protocol1. Scopes are not looked at; see
// ParseManifestWith and sandbox.CheckManifest.
func ParseManifest(name string, data []byte) (*Manifest, []Warning, error) {
	return ParseManifestWith(name, data, nil)
}

// ParseManifestWith is ParseManifest that also calls check for every scope, so that its errors come with their
// place; sandbox.CheckScope is such a check.
func ParseManifestWith(name string, data []byte, check func(name Name, c hostabi.Capability, scope string) error) (*Manifest, []Warning, error) {
	d := &decoder{file: name, check: check}
	root, err := yamlfile.Parse(name, data, yamlfile.Limits{Bytes: MaxManifest, NoAliases: true})
	if err != nil {
		d.add(err)
		return nil, nil, d.err()
	}
	if root.Kind != yamlfile.Map {
		d.errorf(root, "a plugin manifest is a map, not a %s", root.Kind)
		return nil, nil, d.err()
	}
	if root.Get("apiVersion") == nil {
		return d.legacy(root)
	}
	m := d.manifest(root)
	if err := d.err(); err != nil {
		return nil, d.warnings, err
	}
	return m, d.warnings, nil
}

func (d *decoder) manifest(root *yamlfile.Node) *Manifest {
	m := new(Manifest)
	d.identity(root, m) // first, because messages name the plugin
	ignore := func(*yamlfile.Node) {}
	d.object(root, "the manifest", false,
		field{"apiVersion", ignore}, field{"name", ignore}, field{"version", ignore},
		d.text("description", 120, &m.Description),
		d.text("license", 100, &m.License),
		d.link("homepage", &m.Homepage), d.link("source", &m.Source),
		d.words("keywords", 16, &m.Keywords),
		field{"abi", ignore},
		d.words("requires", 64, &m.Requires),
		field{"commands", func(n *yamlfile.Node) { d.commandsOrGenerated(n, m) }},
		field{"events", func(n *yamlfile.Node) { d.events(n, &m.Events) }},
		field{"config_schema", func(n *yamlfile.Node) { d.settings(n, m) }},
		d.path("assets", &m.Assets),
		field{"capabilities", func(n *yamlfile.Node) {
			d.list(n, "capabilities", 64, func(n *yamlfile.Node) { d.request(n, m) })
		}},
		field{"limits", func(n *yamlfile.Node) { d.limits(n, &m.Limits) }},
		field{"run", func(n *yamlfile.Node) { d.run(n, &m.Run) }},
		field{"build", ignore}, // read by ds plugin build only, not packaged
	)
	d.required(root, "run")
	d.checkRequires(root, m)
	d.checkHandlers(root, m)
	return m
}

// identity reads what messages about the rest need.
func (d *decoder) identity(root *yamlfile.Node, m *Manifest) {
	var name string
	for _, f := range []field{
		word(d, "apiVersion", &m.APIVersion, APIVersion),
		d.text("name", 100, &name),
		d.text("version", 100, &m.Version),
		d.text("abi", 100, &m.ABI),
	} {
		if n := root.Get(f.key); d.required(root, f.key) {
			f.set(n)
		}
	}
	m.Name = Name(name)
	if name != "" && !m.Name.Valid() {
		d.errorf(root.Get("name"), "name %q is not [a-z][a-z0-9-]{0,31}", clip(name, 40))
	}
	if m.Version != "" {
		if _, err := semver.StrictNewVersion(m.Version); err != nil {
			d.errorf(root.Get("version"), "version %q is not a semantic version such as 1.4.0", clip(m.Version, 40))
		}
	}
	if m.ABI != "" && m.ABI != hostabi.ABI {
		d.newer(root.Get("abi"), hostabi.Errorf(hostabi.ReasonABIUnsupported, "%s %s needs the host ABI %s; this ds has %s", m.Name, m.Version, clip(m.ABI, 40), hostabi.ABI))
	}
}

func (d *decoder) required(n *yamlfile.Node, key string) bool {
	if v := n.Get(key); v != nil && v.Kind != yamlfile.Null {
		return true
	}
	d.errorf(n, "%s is required", key)
	return false
}

// newer keeps the first error about something that a newer ds may know.
func (d *decoder) newer(n *yamlfile.Node, e *hostabi.Error) {
	if d.unknown != nil {
		return
	}
	e.Err = Problems{{d.file, n.Line, n.Col, e.Msg}}
	d.unknown = e.WithFix("upgrade ds")
}

func (d *decoder) link(key string, to *string) field {
	return field{key, func(n *yamlfile.Node) {
		s, ok := d.str(n, key, 500)
		if !ok {
			return
		}
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
			d.errorf(n, "%s: %q is not an https URL", key, clip(s, 80))
			return
		}
		*to = s
	}}
}

func (d *decoder) settings(n *yamlfile.Node, m *Manifest) {
	if n.Kind != yamlfile.Map {
		d.path("config_schema", &m.ConfigSchema).set(n)
		return
	}
	text, err := json.Marshal(n.Value())
	if err != nil {
		d.errorf(n, "config_schema: %s", err)
		return
	}
	if _, err := schema.Compile("config_schema", text); err != nil {
		d.errorf(n, "%s", err)
		return
	}
	m.Settings = text
}

func (d *decoder) events(n *yamlfile.Node, e *Events) {
	d.object(n, "events", false, field{"subscribe", func(n *yamlfile.Node) {
		d.list(n, "events.subscribe", hostabi.MaxPatterns, func(n *yamlfile.Node) {
			var s Subscription
			if !d.object(n, "an entry of events.subscribe", false, d.text("topic", 200, &s.Topic), d.text("handler", 100, &s.Handler)) {
				return
			}
			if !d.required(n, "topic") {
				return
			}
			if err := hostabi.CheckPattern(s.Topic); err != nil {
				d.errorf(n.Get("topic"), "%s", err)
			}
			e.Subscribe = append(e.Subscribe, s)
		})
	}})
}

func (d *decoder) request(n *yamlfile.Node, m *Manifest) {
	var r Request
	var name string
	ok := d.object(n, "a capability entry", true,
		d.text("cap", 64, &name),
		d.words("scope", 64, &r.Scope),
		d.text("reason", 120, &r.Reason),
		d.boolean("optional", &r.Optional),
		d.size("quota", &r.Quota),
		d.boolean("sockets", &r.Sockets),
	)
	if !ok {
		if n.Kind == yamlfile.Null {
			d.errorf(n, "a capability entry must be a map, not null")
		}
		return
	}
	if !d.required(n, "cap") {
		return
	}
	r.Cap = hostabi.Capability(name)
	if !slices.Contains(hostabi.Capabilities(), r.Cap) {
		known := make([]string, 0, 16)
		for _, c := range hostabi.Capabilities() {
			known = append(known, string(c))
		}
		d.newer(n.Get("cap"), hostabi.Errorf(hostabi.ReasonABIUnsupported, "%s %s asks for %s, which this ds does not know%s", m.Name, m.Version, clip(name, 40), didYouMean(name, known)))
		return
	}
	if len(r.Scope) == 0 {
		d.errorf(n, "%s needs a scope", r.Cap)
	}
	for i, scope := range r.Scope {
		if d.check == nil {
			break
		}
		if err := d.check(m.Name, r.Cap, scope); err != nil {
			at := n.Get("scope")
			if i < len(at.Items) {
				at = at.Items[i]
			}
			d.errorf(at, "%s", err)
		}
	}
	if strings.TrimSpace(r.Reason) == "" {
		d.errorf(n, "%s needs a reason", r.Cap)
	}
	if q := n.Get("quota"); q != nil && !slices.Contains([]hostabi.Capability{hostabi.FSWrite, hostabi.CacheWrite, hostabi.StateWrite}, r.Cap) {
		d.errorf(q, "%s takes no quota", r.Cap)
	}
	if s := n.Get("sockets"); s != nil && r.Cap != hostabi.NetHTTP {
		d.errorf(s, "%s takes no sockets", r.Cap)
	}
	m.Capabilities = append(m.Capabilities, r)
}

func (d *decoder) limits(n *yamlfile.Node, l *Limits) {
	d.object(n, "limits", false,
		d.size("memory", &l.Memory),
		field{"time", func(n *yamlfile.Node) {
			s, ok := d.str(n, "time", 40)
			if !ok {
				return
			}
			v, err := hostabi.ParseDuration(s)
			if err != nil || v == 0 {
				d.errorf(n, "time: %q is not a duration above 0 such as 10m", clip(s, 40))
				return
			}
			l.Time = v
		}},
		d.size("tmp", &l.Tmp),
		field{"http_concurrency", func(n *yamlfile.Node) {
			v, err := n.Int(d.file, "http_concurrency")
			if err != nil {
				d.add(err)
				return
			}
			if v < 1 || v > 64 {
				d.errorf(n, "http_concurrency is %d, want 1 to 64", v)
				return
			}
			l.HTTPConcurrency = int(v)
		}},
	)
}

func (d *decoder) run(n *yamlfile.Node, r *Run) {
	d.object(n, "run", false,
		word(d, "prefer", &r.Prefer, Native, WASM),
		field{"wasm", func(n *yamlfile.Node) {
			w := new(RunWASM)
			if d.object(n, "run.wasm", false, d.path("artifact", &w.Artifact), d.words("argv", 64, &w.Argv)) && d.required(n, "artifact") {
				r.WASM = w
			}
		}},
		field{"native", func(n *yamlfile.Node) { d.native(n, r) }},
	)
	if n.Kind == yamlfile.Map && n.Get("wasm") == nil && n.Get("native") == nil {
		d.errorf(n, "run needs wasm or native")
	}
}

func (d *decoder) native(n *yamlfile.Node, r *Run) {
	if n.Kind != yamlfile.Map {
		d.errorf(n, "run.native must be a map, not a %s", n.Kind)
		return
	}
	run := &RunNative{Mode: Direct, Platforms: make(map[string]string)}
	for _, p := range n.Pairs {
		key := p.Key.Text
		if !strings.Contains(key, "/") {
			if key == "mode" {
				word(d, "mode", &run.Mode, Direct, GoPlugin).set(p.Value)
				continue
			}
			d.warnf(p.Key, "unknown key %q in run.native%s", clip(key, 40), didYouMean(key, []string{"mode"}))
			continue
		}
		platform, err := hostabi.ParsePlatform(key)
		if err != nil || platform.String() != key {
			d.errorf(p.Key, "%q is not OS/ARCH", clip(key, 40))
			continue
		}
		var file string
		d.path(key, &file).set(p.Value)
		run.Platforms[key] = file
	}
	if len(run.Platforms) == 0 {
		d.errorf(n, "run.native names no platform such as linux/amd64")
	}
	r.Native = run
}

func (d *decoder) checkRequires(root *yamlfile.Node, m *Manifest) {
	for _, r := range m.Requires {
		service, method, ok := strings.Cut(r, "/")
		if !ok || method == "" || !strings.HasPrefix(service, "ds.host.v1.") || len(r) > hostabi.MaxMethod {
			d.errorf(root.Get("requires"), "requires: %q is not a method such as ds.host.v1.Registry/Referrers", clip(r, 80))
		}
	}
}

func (d *decoder) checkHandlers(root *yamlfile.Node, m *Manifest) {
	if m.Generated {
		return
	}
	for _, s := range m.Events.Subscribe {
		if s.Handler == "" {
			continue
		}
		if c := find(m.Commands, s.Handler); c == nil || c.Name != s.Handler {
			d.errorf(root.Get("events"), "events.subscribe: handler %q is not a command%s", clip(s.Handler, 40), didYouMean(s.Handler, names(m.Commands)))
		}
	}
}

// legacy recognises the manifest of a protocol 1 plugin. Nothing but its name, version and description is
// read; what it is asked for comes from the plugin itself.
func (d *decoder) legacy(root *yamlfile.Node) (*Manifest, []Warning, error) {
	for _, p := range root.Pairs {
		if strings.EqualFold(strings.ReplaceAll(p.Key.Text, "_", ""), "apiVersion") {
			d.errorf(p.Key, "unknown key %q; did you mean apiVersion?", clip(p.Key.Text, 40))
			return nil, nil, d.err()
		}
	}
	for _, key := range []string{"abi", "capabilities"} {
		if n := root.Get(key); n != nil {
			d.warnf(n, "%s has no meaning without apiVersion: %s", key, APIVersion)
		}
	}
	m := &Manifest{Run: Run{Native: &RunNative{Mode: Protocol1}}}
	var name string
	for _, f := range []field{d.text("name", 100, &name), d.text("version", 100, &m.Version), d.text("description", 4096, &m.Description)} {
		if n := root.Get(f.key); n != nil && n.Kind != yamlfile.Null {
			f.set(n)
		}
	}
	m.Name = Name(name)
	d.required(root, "name")
	if name != "" && !m.Name.Valid() {
		d.errorf(root.Get("name"), "name %q is not [a-z][a-z0-9-]{0,31}", clip(name, 40))
	}
	if err := d.err(); err != nil {
		return nil, d.warnings, err
	}
	return m, d.warnings, nil
}
