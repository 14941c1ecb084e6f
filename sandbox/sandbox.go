// Package sandbox turns what a plugin requested, what the user granted and the admin's ceiling into the Box
// of one run (capabilities.md). Box.Check is the one function that decides; nothing here enforces anything
// itself: host gates calls with it, runtime/wasm builds mounts from it and runtime/native kernel rules from it.
package sandbox

import (
	"slices"
	"strings"
	"sync"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// Box is the effective set of capabilities of one run: requested and granted and within the ceiling and not
// denied. It is safe for concurrent use; only its list of denials changes.
type Box struct {
	o      BoxOptions
	name   plugin.Name
	rights map[hostabi.Capability]*right
	limits plugin.Limits
	mounts []Mount
	hidden []hidden // protected directories

	mu      sync.Mutex
	denials []Denial
	refused map[denialKey]int // index into denials
}

// right is everything that decides about one capability.
type right struct {
	request, grant, userDeny []bound
	max, adminDeny           []bound
	ceiling                  bool // max counts, even if it is empty
	quota                    int64
	sockets                  bool
	allow, deny              []string // as Describe reports it
}

type denialKey struct {
	cap      hostabi.Capability
	resource string
}

// Scopes is what is granted for one capability.
type Scopes struct {
	Scope   []string
	Quota   int64 // bytes, 0 = none
	Sockets bool
}

// BoxOptions is everything a Box is made of.
type BoxOptions struct {
	Plugin     *plugin.Installed  // its Manifest holds the requests
	Invocation *plugin.Invocation // typed values, working directory, environment
	Granted    map[hostabi.Capability]Scopes
	Denied     map[hostabi.Capability][]string
	Policy     *Policy                         // nil = no ceiling
	Settings   func(key string) (string, bool) // values set by the user, for ${settings.NAME.key}
	// Canonical is the host/repository of a reference, as registry.Client gives it; nil = references that the
	// user types open nothing.
	Canonical func(ref string) (repository string, err error)
	Home      string
	Protected []string // directories of ds that are never mounted: config, data, state, cache
	// Inherited, when not nil, bounds scope args in a nested call: only what it allows counts.
	Inherited *Box

	MemoryDefault, MemoryMax int64
	TimeMax                  int64 // ns, 0 = none
}

// Defaults of security.md section 9 for what neither manifest nor configuration says.
const (
	defaultMemory = 256 << 20
	defaultTmp    = 1 << 30
	defaultHTTP   = 8
	defaultState  = 1 << 20
	defaultWrite  = 4 << 30
)

// maxDenials bounds the list of a plugin that asks for ever new things.
const maxDenials = 1000

// NewBox computes the effective set. It fails with MANIFEST for a request that cannot be used, USAGE for a
// grant, CONFIG_VALUE for a setting that should be an origin, POLICY_FILE for a ceiling, and CAPABILITY_DENIED
// for a path into a directory of ds.
func NewBox(o BoxOptions) (*Box, error) {
	if o.Invocation == nil {
		o.Invocation = new(plugin.Invocation)
	}
	b := &Box{o: o, name: o.Plugin.Name, rights: make(map[hostabi.Capability]*right), refused: make(map[denialKey]int)}
	b.limits = b.effectiveLimits()
	bind := newBinder(&o)
	for _, r := range requests(o.Plugin) {
		if err := b.request(bind, r); err != nil {
			return nil, err
		}
	}
	for c, r := range b.rights {
		if err := b.grant(bind, c, r); err != nil {
			return nil, err
		}
	}
	b.protect()
	return b, b.mount()
}

// request adds one entry of the manifest.
func (b *Box) request(bind *binder, r plugin.Request) error {
	scopes, err := requestScopes(b.o.Plugin, r)
	if err != nil {
		return err
	}
	bounds, err := bind.bind(scopes)
	if err != nil {
		return err
	}
	x := b.rights[r.Cap]
	if x == nil {
		x = new(right)
		b.rights[r.Cap] = x
	}
	for i := range bounds {
		bounds[i].optional = r.Optional
	}
	x.request = append(x.request, bounds...)
	x.quota = max(x.quota, r.Quota)
	x.sockets = x.sockets || r.Sockets
	for _, s := range scopes {
		x.allow = append(x.allow, s.text)
	}
	return nil
}

// grant adds what user and admin say about a requested capability.
func (b *Box) grant(bind *binder, c hostabi.Capability, x *right) (err error) {
	granted := b.o.Granted[c]
	if b.o.Policy.Decides() {
		granted = Scopes{Scope: b.o.Policy.Max[c], Sockets: true}
	}
	scopes, err := parseAll(c, b.name, granted.Scope, b.o.Policy.Decides() || b.o.Plugin.Legacy())
	if err != nil {
		return err
	}
	if x.grant, err = bind.bind(scopes); err != nil {
		return err
	}
	asked, err := parseAll(c, b.name, x.allow, true)
	if err != nil {
		return err
	}
	effective := narrow(asked, scopes)
	denied, err := parseAll(c, b.name, b.o.Denied[c], true)
	if err != nil {
		return err
	}
	if x.userDeny, err = bind.bind(denied); err != nil {
		return err
	}
	x.quota = least(x.quota, granted.Quota)
	x.sockets = x.sockets && granted.Sockets
	x.deny = append([]string(nil), b.o.Denied[c]...)
	if p := b.o.Policy; p != nil {
		most, ok := p.Max[c]
		x.ceiling = ok || p.Decides()
		ceiling, err := p.scopes(c, b.name, most)
		if err != nil {
			return err
		}
		if x.max, err = bind.bind(ceiling); err != nil {
			return err
		}
		deny, err := p.scopes(c, b.name, p.Deny[c])
		if err != nil {
			return err
		}
		if x.adminDeny, err = bind.bind(deny); err != nil {
			return err
		}
		if x.ceiling {
			effective = within(effective, ceiling)
		}
		x.deny = append(x.deny, p.Deny[c]...)
	}
	x.allow = x.allow[:0]
	if !slices.Contains(x.deny, "**") {
		for _, s := range effective {
			x.allow = append(x.allow, s.text)
		}
	}
	return nil
}

func parseAll(c hostabi.Capability, name plugin.Name, texts []string, bounds bool) ([]Scope, error) {
	out := make([]Scope, 0, len(texts))
	for _, t := range texts {
		s, err := ParseScope(c, name, t)
		if err != nil && bounds {
			s, err = parseLoose(c, name, t)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// narrow is what both lists allow: the scopes of each that one of the other covers. Parts of scopes that only
// overlap are left out.
func narrow(a, b []Scope) []Scope {
	var out []Scope
	add := func(s Scope) {
		if !slices.ContainsFunc(out, func(o Scope) bool { return o.text == s.text }) {
			out = append(out, s)
		}
	}
	for _, s := range a {
		if s.coveredBy(b) {
			add(s)
		}
	}
	for _, s := range b {
		if s.form != everything && s.coveredBy(a) {
			add(s)
		}
	}
	return out
}

// within is narrow for a ceiling; what the user types is looked at value by value, so args stays.
func within(list, most []Scope) []Scope {
	if len(most) == 0 {
		return nil
	}
	out := narrow(list, most)
	for _, s := range list {
		if s.form == args && !slices.ContainsFunc(out, func(o Scope) bool { return o.form == args }) {
			out = append(out, s)
		}
	}
	return out
}

func least(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// Check decides whether the run may use resource under c. The resource is canonical: a key, a
// "host/repository", an origin with path, an absolute clean path, a topic, "owner:key", "name/command", a
// prompt kind, "registry:host", or for blobs a digest that the user may have typed, "own", "any" or
// "artifact:host/repository". The error is CAPABILITY_DENIED, POLICY_DENIED or COMPLETION with metadata
// capability, resource, plugin and, where granting would help, a Fix that, pasted, allows it.
func (b *Box) Check(c hostabi.Capability, resource string) error {
	why, shown, r := b.decide(c, resource)
	if why == allowed {
		return nil
	}
	d := Denial{Cap: c, Resource: shown, Why: b.because(why), Count: 1}
	if why == notGranted || why == notAsked {
		d.Scope = b.lacking(c, r)
	}
	if why == notGranted {
		d.Fix = "ds plugin grant " + string(b.name) + " " + Quote(string(c)+"="+b.suggest(c, r))
	}
	b.record(&d)
	return b.denied(why, d)
}

// Allowed is Check for the items of a listing: nothing is recorded and no error is made.
func (b *Box) Allowed(c hostabi.Capability, resource string) bool {
	why, _, _ := b.decide(c, resource)
	return why == allowed
}

// Has reports whether c has any effective scope.
func (b *Box) Has(c hostabi.Capability) bool {
	r := b.rights[c]
	return r != nil && len(r.allow) > 0 && !b.completing(c)
}

// Wildcard reports whether connections for resource are limited to public addresses (hostabi.WithPublicOnly).
// For registries that is so if it is granted only through patterns whose host is a wildcard. For net.http it
// is so unless both a request and a grant that match are private: or an IP literal. What is not allowed at
// all counts as wildcard.
func (b *Box) Wildcard(c hostabi.Capability, resource string) bool {
	why, _, s := b.decide(c, resource)
	if why != allowed {
		return true
	}
	r := b.rights[c]
	if c == hostabi.NetHTTP {
		private := func(x bound) bool { return (x.origin.private || x.origin.host.ip.IsValid()) && x.Covers(s) }
		return !slices.ContainsFunc(r.request, private) || !slices.ContainsFunc(r.grant, private)
	}
	return !slices.ContainsFunc(r.grant, func(x bound) bool {
		return x.form == repoOf && !x.repo.all && x.repo.host.depth == literal && x.Covers(s)
	})
}

// Grants is the effective set as Describe reports it, in the order of hostabi.Capabilities.
func (b *Box) Grants() []hostabi.Grant {
	var out []hostabi.Grant
	for _, c := range hostabi.Capabilities() {
		if !b.Has(c) {
			continue
		}
		r := b.rights[c]
		out = append(out, hostabi.Grant{Cap: c, Allow: slices.Clone(r.allow), Deny: slices.Clone(r.deny), Quota: b.Quota(c), Sockets: b.Sockets() && c == hostabi.NetHTTP})
	}
	return out
}

// Quota is the effective byte quota of c, 0 = none.
func (b *Box) Quota(c hostabi.Capability) int64 {
	r := b.rights[c]
	switch {
	case r == nil:
		return 0
	case r.quota != 0:
		return r.quota
	case c == hostabi.StateWrite:
		return defaultState
	case c == hostabi.FSWrite:
		return defaultWrite
	}
	return 0
}

// Sockets reports whether net.http was granted with sockets.
func (b *Box) Sockets() bool {
	r := b.rights[hostabi.NetHTTP]
	return r != nil && r.sockets && len(r.allow) > 0
}

// Env picks from the host's environment ("K=V") what env.read grants.
func (b *Box) Env(host []string) []string {
	if !b.Has(hostabi.EnvRead) {
		return nil
	}
	var out []string
	for _, kv := range host {
		name, _, ok := strings.Cut(kv, "=")
		if ok && only(name, lower+upper+digit+"_()") && !strings.HasPrefix(strings.ToUpper(name), "DS_") && b.Allowed(hostabi.EnvRead, name) {
			out = append(out, kv)
		}
	}
	return out
}

// Limits is the effective memory (never 0), time (0 = none), tmp and HTTP limits.
func (b *Box) Limits() plugin.Limits { return b.limits }

func (b *Box) effectiveLimits() plugin.Limits {
	l := b.o.Plugin.Manifest.Limits
	if l.Memory == 0 {
		l.Memory = b.o.MemoryDefault
	}
	if l.Memory == 0 {
		l.Memory = defaultMemory
	}
	if l.Tmp == 0 {
		l.Tmp = defaultTmp
	}
	if l.HTTPConcurrency == 0 {
		l.HTTPConcurrency = defaultHTTP
	}
	l.Memory = least(l.Memory, b.o.MemoryMax)
	l.Time = durationLeast(l.Time, b.o.TimeMax)
	if p := b.o.Policy; p != nil {
		l.Memory = least(l.Memory, p.Memory)
		l.Time = durationLeast(l.Time, int64(p.Time))
	}
	return l
}
