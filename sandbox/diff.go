package sandbox

import (
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/yamlfile"
	"github.com/delivery-station/ds/plugin"
)

// Diff is what a manifest asks for beyond a grant, and what it no longer asks for. It is what consent is about.
type Diff struct {
	Name    plugin.Name
	Version string
	First   bool     // nothing was granted or denied before
	Added   []Change // scopes that neither grant nor deny covers
	Widened []Change // covered scopes whose quota grew or that want sockets
	Removed []Change // granted scopes that are not asked for
}

// Change is one line of a Diff.
type Change struct {
	Cap             hostabi.Capability
	Scope           []string
	Reason          string
	Optional        bool
	Quota, WasQuota int64 // bytes, 0 = none
	Sockets         bool
}

// Compare compares the requests of m with g; the zero Grant is no grant.
func Compare(m *plugin.Manifest, g Grant) Diff {
	return CompareTo(&plugin.Installed{Name: m.Name, Version: m.Version, Manifest: m}, g)
}

// CompareTo is Compare for an installed plugin, whose requests may be implicit.
func CompareTo(p *plugin.Installed, g Grant) Diff {
	return compare(p, g)
}

func compare(p *plugin.Installed, g Grant) Diff {
	reqs := requests(p)
	d := Diff{Name: p.Name, Version: p.Version, First: len(g.Granted) == 0 && len(g.Denied) == 0}
	same := g.RequestDigest != "" && g.RequestDigest == plugin.RequestDigest(reqs)
	for _, r := range reqs {
		granted := loose(r.Cap, p.Name, g.Granted[r.Cap].Scope)
		denied := loose(r.Cap, p.Name, g.Denied[r.Cap])
		change := Change{Cap: r.Cap, Reason: r.Reason, Optional: r.Optional, Quota: r.Quota, WasQuota: g.Granted[r.Cap].Quota, Sockets: r.Sockets}
		added, covered := change, change
		for _, text := range r.Proposed() {
			s, err := parseLoose(r.Cap, p.Name, text)
			switch {
			case err == nil && s.coveredBy(denied):
			case err == nil && s.coveredBy(granted):
				covered.Scope = append(covered.Scope, text)
			default:
				added.Scope = append(added.Scope, text)
			}
		}
		if len(added.Scope) > 0 {
			d.Added = append(d.Added, added)
		}
		// Of the very request that was consented to, a lower quota and refused sockets are what the user chose.
		if len(covered.Scope) > 0 && !same && wider(r, g.Granted[r.Cap]) {
			d.Widened = append(d.Widened, covered)
		}
	}
	d.Removed = removed(p, reqs, g)
	return d
}

func wider(r plugin.Request, s Scopes) bool {
	return r.Sockets && !s.Sockets || s.Quota != 0 && (r.Quota == 0 || r.Quota > s.Quota)
}

// removed lists granted scopes that no request covers.
func removed(p *plugin.Installed, reqs []plugin.Request, g Grant) []Change {
	var out []Change
	for _, c := range hostabi.Capabilities() {
		var asked []Scope
		for _, r := range reqs {
			if r.Cap == c {
				asked = append(asked, loose(c, p.Name, r.Scope)...)
			}
		}
		change := Change{Cap: c, WasQuota: g.Granted[c].Quota}
		for _, s := range loose(c, p.Name, g.Granted[c].Scope) {
			if !s.coveredBy(asked) {
				change.Scope = append(change.Scope, s.text)
			}
		}
		if len(change.Scope) > 0 {
			out = append(out, change)
		}
	}
	return out
}

// loose parses what it can; a scope that does not parse covers nothing and is covered by nothing.
func loose(c hostabi.Capability, name plugin.Name, texts []string) []Scope {
	out := make([]Scope, 0, len(texts))
	for _, t := range texts {
		s, err := parseLoose(c, name, t)
		if err != nil {
			s = Scope{cap: c, text: t}
		}
		out = append(out, s)
	}
	return out
}

// Wider reports whether the manifest asks for anything that is not settled.
func (d Diff) Wider() bool { return len(d.Added)+len(d.Widened) > 0 }

// Required lists the changes without which the plugin does not start.
func (d Diff) Required() []Change {
	return slices.DeleteFunc(slices.Concat(d.Added, d.Widened), func(c Change) bool { return c.Optional })
}

// Words are the words that grant changes: "net.http=https://x.example", "cache.write@4GiB=own".
func Words(changes []Change) []string {
	var out []string
	for _, c := range changes {
		name := string(c.Cap)
		switch {
		case c.Sockets:
			name += "@sockets"
		case c.Quota != 0:
			name += "@" + yamlfile.FormatSize(c.Quota)
		}
		for _, s := range c.Scope {
			out = append(out, name+"="+s)
		}
	}
	return out
}

// Command is a command line that grants changes, quoted for a shell: "ds plugin grant s3 fs.read=args".
func (d Diff) Command(changes []Change) string {
	words := []string{"ds plugin grant", Quote(string(d.Name))}
	for _, w := range Words(changes) {
		words = append(words, Quote(w))
	}
	return strings.Join(words, " ")
}

// Flags are the --grant options that grant changes, quoted for a shell.
func Flags(changes []Change) string {
	var out []string
	for _, w := range Words(changes) {
		out = append(out, "--grant "+Quote(w))
	}
	return strings.Join(out, " ")
}
