package sandbox

import (
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/yamlfile"
	"github.com/delivery-station/ds/plugin"
)

// Word is one value of --grant, --deny or DS_GRANT.
type Word struct {
	Special string // "manifest" or "lock"; then nothing else is set
	Cap     hostabi.Capability
	Scope   string
	Quota   int64
	Sockets bool
}

// ParseWord reads CAP=SCOPE, CAP@QUOTA=SCOPE, net.http@sockets=SCOPE, manifest or lock. The scope is not
// looked at. The error has reason USAGE.
func ParseWord(s string) (Word, error) {
	if s == "manifest" || s == "lock" {
		return Word{Special: s}, nil
	}
	name, scope, ok := strings.Cut(s, "=")
	if !ok || scope == "" {
		return Word{}, hostabi.Errorf(hostabi.ReasonUsage, "%q is not CAP=SCOPE, such as fs.read=args", clip(s))
	}
	name, extra, hasExtra := strings.Cut(name, "@")
	w := Word{Cap: hostabi.Capability(name), Scope: scope}
	if !slices.Contains(hostabi.Capabilities(), w.Cap) {
		known := make([]string, 0, 16)
		for _, c := range hostabi.Capabilities() {
			known = append(known, string(c))
		}
		hint := ""
		if near := plugin.Suggest(name, known); len(near) > 0 {
			hint = "; did you mean " + near[0] + "?"
		}
		return Word{}, hostabi.Errorf(hostabi.ReasonUsage, "unknown capability %q%s", clip(name), hint)
	}
	switch {
	case !hasExtra:
	case extra == "sockets" && w.Cap == hostabi.NetHTTP:
		w.Sockets = true
	case w.Cap == hostabi.FSWrite || w.Cap == hostabi.CacheWrite || w.Cap == hostabi.StateWrite:
		var err error
		if w.Quota, err = yamlfile.ParseSize(extra); err != nil || w.Quota == 0 {
			return Word{}, hostabi.Errorf(hostabi.ReasonUsage, "%q: %q is not a quota such as 1GiB", clip(s), clip(extra))
		}
	default:
		return Word{}, hostabi.Errorf(hostabi.ReasonUsage, "%q: %s takes no @%s", clip(s), w.Cap, clip(extra))
	}
	return w, nil
}

// Consent is what the user said about a manifest in words.
type Consent struct {
	Grant, Deny []string       // words
	Lock        hostabi.Digest // request digest that ds.lock pins for the plugin; empty = none
}

// Apply adds the words to a copy of g, the grant so far. Nothing is granted that m does not ask for: USAGE.
// "manifest" accepts all requests but their sensitive scopes, which must be named; "lock" accepts them all if
// the lock pins this very request, else LOCK_DRIFT.
func (c Consent) Apply(m *plugin.Manifest, g Grant) (Grant, error) {
	return c.ApplyTo(&plugin.Installed{Name: m.Name, Version: m.Version, Manifest: m}, g)
}

// ApplyTo is Apply for an installed plugin, whose requests may be implicit.
func (c Consent) ApplyTo(p *plugin.Installed, g Grant) (Grant, error) {
	out := g.clone()
	reqs := requests(p)
	for _, text := range c.Grant {
		w, err := ParseWord(text)
		if err != nil {
			return g, err
		}
		switch w.Special {
		case "manifest":
			for _, r := range reqs {
				out.add(p.Name, r, slices.DeleteFunc(slices.Clone(r.Proposed()), func(s string) bool { return Sensitive(r.Cap, s) }))
			}
		case "lock":
			if c.Lock != plugin.RequestDigest(reqs) {
				return g, hostabi.Errorf(hostabi.ReasonLockDrift, "%s: the lock file does not pin what this version asks for; nothing granted", p.Name)
			}
			for _, r := range reqs {
				out.add(p.Name, r, r.Proposed())
			}
		default:
			if err := out.addWord(p, reqs, w); err != nil {
				return g, err
			}
		}
	}
	for _, text := range c.Deny {
		w, err := ParseWord(text)
		if err != nil || w.Special != "" {
			return g, hostabi.Errorf(hostabi.ReasonUsage, "%q cannot be denied; want CAP=SCOPE", clip(text))
		}
		if _, err := parseLoose(w.Cap, p.Name, w.Scope); err != nil {
			return g, err
		}
		if !slices.Contains(out.Denied[w.Cap], w.Scope) {
			out.Denied[w.Cap] = append(out.Denied[w.Cap], w.Scope)
		}
	}
	out.RequestDigest = plugin.RequestDigest(reqs)
	return out, nil
}

// addWord grants one scope, which must be part of a request.
func (g *Grant) addWord(p *plugin.Installed, reqs []plugin.Request, w Word) error {
	s, err := parseLoose(w.Cap, p.Name, w.Scope)
	if err != nil {
		return err
	}
	asked := false
	for _, r := range reqs {
		if r.Cap != w.Cap {
			continue
		}
		asked = true
		if s.coveredBy(loose(r.Cap, p.Name, r.Scope)) {
			r.Sockets = r.Sockets && w.Sockets
			if w.Quota != 0 {
				r.Quota = least(r.Quota, w.Quota)
			}
			g.add(p.Name, r, []string{w.Scope})
			return nil
		}
	}
	if asked {
		return hostabi.Errorf(hostabi.ReasonUsage, "%s does not ask for %s %s; nothing granted", p.Name, w.Cap, clip(w.Scope))
	}
	return hostabi.Errorf(hostabi.ReasonUsage, "%s does not ask for %s; nothing granted", p.Name, w.Cap)
}

// add grants scopes of one request and drops denies that they cover, and grants that they make needless.
func (g *Grant) add(name plugin.Name, r plugin.Request, scopes []string) {
	if len(scopes) == 0 {
		return
	}
	old := g.Granted[r.Cap]
	added := loose(r.Cap, name, scopes)
	keep := make([]string, 0, len(old.Scope)+len(scopes))
	for _, s := range loose(r.Cap, name, old.Scope) {
		if !s.coveredBy(added) {
			keep = append(keep, s.text)
		}
	}
	for _, s := range scopes {
		if !slices.Contains(keep, s) {
			keep = append(keep, s)
		}
	}
	g.Granted[r.Cap] = Scopes{Scope: keep, Quota: max(old.Quota, r.Quota), Sockets: old.Sockets || r.Sockets}
	denied := slices.DeleteFunc(g.Denied[r.Cap], func(d string) bool {
		s, err := parseLoose(r.Cap, name, d)
		return err == nil && s.coveredBy(added)
	})
	if g.Denied[r.Cap] = denied; len(denied) == 0 {
		delete(g.Denied, r.Cap)
	}
}

// Refuse records a deny for what changes ask for: the answer no to optional entries.
func (g *Grant) Refuse(changes []Change) {
	if g.Denied == nil {
		g.Denied = make(map[hostabi.Capability][]string)
	}
	for _, c := range changes {
		for _, s := range c.Scope {
			if !slices.Contains(g.Denied[c.Cap], s) {
				g.Denied[c.Cap] = append(g.Denied[c.Cap], s)
			}
		}
	}
}

// sensitive are the places of capabilities.md section 6, rule 6.
func sensitivePlaces() []string {
	return []string{
		".ssh", ".gnupg", ".aws", ".azure", ".config/gcloud", ".docker", ".kube", ".netrc", ".git-credentials",
		".profile", ".bashrc", ".bash_profile", ".bash_login", ".bash_logout", ".zshrc", ".zshenv", ".zprofile", ".zlogin", ".config/fish",
	}
}

// Sensitive reports whether a scope may reach a sensitive place below the home directory: it is marked in the
// prompt, is not part of --grant manifest and must be named.
func Sensitive(c hostabi.Capability, scope string) bool {
	if c != hostabi.FSRead && c != hostabi.FSWrite {
		return false
	}
	s, err := ParseScope(c, "", scope)
	if err != nil || s.form != inHome {
		return false
	}
	for _, place := range sensitivePlaces() {
		segs := literalSegs(strings.Split(place, "/"))
		prefix, _ := split(s.segs)
		below := coversPath(append(slices.Clip(segs), seg{kind: deep}), prefix, s.fold)
		if below || coversPath(s.segs, segs, s.fold) || coversPath(s.segs, append(slices.Clip(segs), seg{literal, "x"}), s.fold) {
			return true
		}
	}
	return false
}
