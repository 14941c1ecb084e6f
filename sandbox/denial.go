package sandbox

import (
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// Denial is one refused use.
type Denial struct {
	Cap      hostabi.Capability
	Resource string
	Why      string // "not granted", "NAME does not ask for it", "refused by /etc/ds/policy.yaml"
	Fix      string
	Count    int    // how often
	Scope    string // narrowest one that a manifest could ask for; empty if that would not help
}

type verdict uint8

const (
	allowed verdict = iota
	notGranted
	notAsked
	byPolicy
	protected
	completing
)

// decide is the rule of capabilities.md: a request matches, a grant matches, the ceiling has no list or one of
// it matches, and no deny matches. shown is the resource for people: of a URL only the origin.
func (b *Box) decide(c hostabi.Capability, text string) (why verdict, shown string, s Scope) {
	s, err := resource(c, text)
	shown = text
	if c == hostabi.NetHTTP {
		if shown = "a malformed URL"; err == nil {
			shown = s.origin.String()
		}
	}
	r := b.rights[c]
	switch {
	case b.completing(c):
		return completing, shown, s
	case r == nil || len(r.request) == 0 && len(r.allow) == 0:
		return notAsked, shown, s
	case err != nil: // own, */* and the like, which stand for the capability as a whole, or a malformed one
		return notGranted, shown, Scope{cap: c, text: text}
	case b.hides(s):
		return protected, shown, s
	}
	covers := func(x bound) bool { return x.Covers(s) }
	switch {
	case slices.ContainsFunc(r.adminDeny, covers), r.ceiling && !slices.ContainsFunc(r.max, covers):
		return byPolicy, shown, s
	case !slices.ContainsFunc(r.request, covers):
		return notAsked, shown, s
	case slices.ContainsFunc(r.userDeny, covers), !slices.ContainsFunc(r.grant, covers):
		return notGranted, shown, s
	}
	return allowed, shown, s
}

// covers reports whether this run may use everything that s matches; the answer no may be wrong.
func (b *Box) covers(s Scope) bool {
	if b.typedByUser(s) {
		return true
	}
	r := b.rights[s.cap]
	if r == nil || b.hides(s) {
		return false
	}
	covers := func(x bound) bool { return x.Covers(s) }
	touches := func(x bound) bool { return overlaps(x.Scope, s) }
	return slices.ContainsFunc(r.request, covers) && slices.ContainsFunc(r.grant, covers) &&
		(!r.ceiling || slices.ContainsFunc(r.max, covers)) &&
		!slices.ContainsFunc(r.userDeny, touches) && !slices.ContainsFunc(r.adminDeny, touches)
}

// typedByUser reports whether s lies in a path that the user typed for a plugin of protocol 1, which declares no
// arguments and has no rights to files: what it calls may use what the user named, and nothing else.
func (b *Box) typedByUser(s Scope) bool {
	if b.o.Plugin == nil || b.o.Invocation == nil || !b.o.Plugin.Legacy() || s.form != absolute || len(b.o.Invocation.Args) == 0 ||
		s.cap != hostabi.FSRead && s.cap != hostabi.FSWrite || b.hides(s) || b.o.Inherited != nil && !b.o.Inherited.covers(s) {
		return false
	}
	return slices.ContainsFunc(b.o.Invocation.Args[1:], func(word string) bool { // the first is its command
		if _, value, ok := strings.Cut(word, "="); ok {
			word = value
		}
		path, ok := absPath(b.o.Invocation.Dir, word)
		if word == "" || !ok {
			return false
		}
		parts, ok := absParts(path)
		return ok && coversPath(append(literalSegs(parts), seg{kind: deep}), s.segs, s.fold)
	})
}

// overlaps reports whether a deny may match part of what s matches; yes when unsure.
func overlaps(deny, s Scope) bool {
	if deny.Covers(s) || s.Covers(deny) {
		return true
	}
	if deny.form != absolute || s.form != absolute {
		return false // a typed value of the other forms is one resource
	}
	for i := 0; i < min(len(deny.segs), len(s.segs)); i++ {
		x, y := deny.segs[i], s.segs[i]
		if x.kind == literal && y.kind == literal {
			if !equal(x.text, y.text, s.fold) {
				return false
			}
			continue
		}
		return true
	}
	return len(deny.segs) == len(s.segs)
}

// duringCompletion are the rights that a plugin does not have while it completes words (host-abi.md section 9).
func (b *Box) completing(c hostabi.Capability) bool {
	if b.o.Invocation.Kind != plugin.KindComplete {
		return false
	}
	switch c {
	case hostabi.FSWrite, hostabi.CacheWrite, hostabi.RegistryPush, hostabi.StateWrite, hostabi.EventsPublish, hostabi.PluginsCall, hostabi.TermPrompt:
		return true
	}
	return false
}

func (b *Box) because(why verdict) string {
	switch why {
	case notAsked:
		return string(b.name) + " does not ask for it"
	case byPolicy:
		return "refused by " + b.o.Policy.file()
	case protected:
		return "a directory of ds or of the system"
	case completing:
		return "not allowed while completing"
	}
	return "not granted"
}

func (b *Box) denied(why verdict, d Denial) error {
	reason := hostabi.ReasonCapabilityDenied
	switch why {
	case byPolicy:
		reason = hostabi.ReasonPolicyDenied
	case completing:
		reason = hostabi.ReasonCompletion
	}
	e := hostabi.Errorf(reason, "%s may not use %s %s: %s", b.name, d.Cap, clip(d.Resource), d.Why)
	e.Fix = d.Fix
	return e.WithMeta("capability", string(d.Cap)).WithMeta("resource", d.Resource).WithMeta("plugin", string(b.name))
}

// suggest is the scope to grant so that s is allowed: own, args and the like as they are asked for, else the
// narrowest form of the resource that the request covers.
func (b *Box) suggest(c hostabi.Capability, s Scope) string {
	r := b.rights[c]
	narrow := b.narrowest(s)
	for _, x := range r.request {
		if s.form != nothing && !x.Covers(s) {
			continue
		}
		switch x.from {
		case "own", "args", "any":
			return x.from
		}
		if x.at == fromSetting {
			return x.from
		}
		if Covers(c, b.name, x.from, narrow) {
			return narrow
		}
		return x.from
	}
	if len(r.request) > 0 {
		return r.request[0].from
	}
	return narrow
}

// lacking is the narrowest scope of s that a manifest may ask for; empty for what it cannot name.
func (b *Box) lacking(c hostabi.Capability, s Scope) string {
	mine := false
	switch c {
	case hostabi.StateRead, hostabi.StateWrite:
		mine = s.owner == string(b.name)
	case hostabi.ConfigRead, hostabi.SecretRead:
		mine = strings.HasPrefix(s.text, "settings."+string(b.name)+".")
	case hostabi.EventsPublish:
		mine = strings.HasPrefix(s.text, string(b.name)+".")
	case hostabi.CacheRead, hostabi.CacheWrite:
		mine = s.form == blobOf || s.form == nothing
	}
	if mine {
		return "own"
	}
	if scope := b.narrowest(s); CheckScope(b.name, c, scope) == nil {
		return scope
	}
	return ""
}

// narrowest is the scope that matches one resource.
func (b *Box) narrowest(s Scope) string {
	switch s.form {
	case originOf:
		return s.origin.String()
	case absolute:
		return newBinder(&b.o).relative(s)
	}
	return s.text
}

// relative writes an absolute path as cwd:, home: or abs:, whichever is nearest.
func (b *binder) relative(s Scope) string {
	for _, c := range []struct {
		prefix string
		base   []string
	}{{"cwd:", b.cwd}, {"home:", b.home}} {
		if c.base != nil && len(s.segs) > len(c.base) && coversPath(append(literalSegs(c.base), seg{kind: deep}), s.segs, s.fold) {
			return c.prefix + pathText(s.segs[len(c.base):])
		}
	}
	return "abs:/" + pathText(s.segs)
}

func pathText(segs []seg) string {
	parts := make([]string, len(segs))
	for i, s := range segs {
		switch s.kind {
		case one:
			parts[i] = "*"
		case deep:
			parts[i] = "**"
		default:
			parts[i] = s.text
		}
	}
	return strings.Join(parts, "/")
}

func (b *Box) record(d *Denial) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := denialKey{d.Cap, d.Resource}
	if i, ok := b.refused[key]; ok {
		b.denials[i].Count++
		return
	}
	if len(b.denials) < maxDenials {
		b.refused[key] = len(b.denials)
		b.denials = append(b.denials, *d)
	}
}

// Denials lists what Check refused so far, each once, for the notes after a failed run.
func (b *Box) Denials() []Denial {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.denials)
}

// Quote quotes a word for a POSIX shell if it needs to be.
func Quote(s string) string {
	if s != "" && strings.Trim(s, lower+upper+digit+"@%+=:,./_-") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
