package sandbox

import (
	"slices"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/yamlfile"
	"github.com/delivery-station/ds/plugin"
)

const noSigner = "none"

// Key says whose a grant is: source and signer, not name or path, so that two installs share one grant and a
// re-homed or re-signed plugin inherits none.
type Key struct {
	Plugin string         // Installed.Repository: "host/repository", "oci-layout:/abs", "dir:/abs" or "file:/abs"
	Signer string         // "ed25519:<hex>" or "none"
	Index  hostabi.Digest // of an unsigned plugin from a registry or layout: its grant holds for one digest
}

// KeyOf is the key of an installed plugin's grant.
func KeyOf(p *plugin.Installed) Key {
	k := Key{Plugin: p.Repository, Signer: p.Signer}
	if k.Signer == "" {
		k.Signer = noSigner
	}
	if k.Signer == noSigner && !k.local() {
		k.Index = p.Index
	}
	return k
}

// local reports whether the plugin is a file or directory of this machine, known by its path.
func (k Key) local() bool {
	return strings.HasPrefix(k.Plugin, "dir:") || strings.HasPrefix(k.Plugin, "file:")
}

// Grant is one entry of grants.yaml: what the user agreed to.
type Grant struct {
	Key
	Granted       map[hostabi.Capability]Scopes
	Denied        map[hostabi.Capability][]string
	RequestDigest hostabi.Digest // of the request consented to
	At            time.Time
}

// clone is a deep copy of g.
func (g Grant) clone() Grant {
	out := g
	out.Granted = make(map[hostabi.Capability]Scopes, len(g.Granted))
	for c, s := range g.Granted {
		s.Scope = slices.Clone(s.Scope)
		out.Granted[c] = s
	}
	out.Denied = make(map[hostabi.Capability][]string, len(g.Denied))
	for c, s := range g.Denied {
		out.Denied[c] = slices.Clone(s)
	}
	return out
}

// parseGrants reads grants.yaml. Unknown keys are errors: a restriction must not be overlooked, and the file
// is rewritten.
func parseGrants(name string, data []byte) ([]Grant, error) {
	root, err := yamlfile.Parse(name, data, yamlfile.Limits{})
	if err != nil {
		return nil, err
	}
	if root.Kind == yamlfile.Null {
		return nil, nil
	}
	r := newReader(name)
	var out []Grant
	r.Object(root, "the grants file", map[string]func(*yamlfile.Node){
		"version": r.Version,
		"grants": func(n *yamlfile.Node) {
			if n.Kind != yamlfile.List && n.Kind != yamlfile.Null {
				r.Errorf(n, "grants must be a list, not a %s", n.Kind)
			}
			for _, item := range n.Items {
				out = append(out, r.grant(item))
			}
		},
	})
	if root.Kind == yamlfile.Map && root.Get("version") == nil {
		r.Errorf(root, "version is required")
	}
	if r.Err() != nil {
		return nil, r.Err()
	}
	return out, nil
}

func (r *reader) grant(n *yamlfile.Node) Grant {
	g := Grant{Granted: make(map[hostabi.Capability]Scopes), Denied: make(map[hostabi.Capability][]string)}
	if n.Kind != yamlfile.Map {
		r.Errorf(n, "a grant must be a map, not a %s", n.Kind)
		return g
	}
	r.Object(n, "a grant", map[string]func(*yamlfile.Node){
		"plugin": func(n *yamlfile.Node) { g.Plugin = r.Str(n, "plugin") },
		"signer": func(n *yamlfile.Node) { g.Signer = r.Str(n, "signer") },
		"index":  func(n *yamlfile.Node) { g.Index = r.digest(n, "index") },
		"granted": func(n *yamlfile.Node) {
			r.capabilities(n, "granted", func(c hostabi.Capability, n *yamlfile.Node) { g.Granted[c] = r.granted(c, n) })
		},
		"denied": func(n *yamlfile.Node) {
			r.capabilities(n, "denied", func(c hostabi.Capability, n *yamlfile.Node) { g.Denied[c] = r.Strings(n, string(c)) })
		},
		"request_digest": func(n *yamlfile.Node) { g.RequestDigest = r.digest(n, "request_digest") },
		"at": func(n *yamlfile.Node) {
			t, err := time.Parse(time.RFC3339, r.Str(n, "at"))
			if err != nil {
				r.Errorf(n, "at is not a time such as 2026-01-31T12:00:00Z")
			}
			g.At = t
		},
	})
	switch {
	case g.Plugin == "":
		r.Errorf(n, "plugin is required")
	case g.Signer == "":
		r.Errorf(n, "signer is required")
	case g.Signer == noSigner && g.Index == "" && !g.local():
		r.Errorf(n, "index is required without a signer")
	}
	return g
}

// granted reads a list of scopes, or {scope, quota, sockets}.
func (r *reader) granted(c hostabi.Capability, n *yamlfile.Node) Scopes {
	var s Scopes
	if n.Kind != yamlfile.Map {
		s.Scope = r.Strings(n, string(c))
		return s
	}
	r.Object(n, string(c), map[string]func(*yamlfile.Node){
		"scope":   func(n *yamlfile.Node) { s.Scope = r.Strings(n, "scope") },
		"quota":   func(n *yamlfile.Node) { s.Quota = r.size(n, "quota") },
		"sockets": func(n *yamlfile.Node) { s.Sockets = r.Bool(n, "sockets") },
	})
	return s
}

func (r *reader) digest(n *yamlfile.Node, what string) hostabi.Digest {
	d, err := hostabi.ParseDigest(r.Str(n, what))
	if err != nil {
		r.Errorf(n, "%s: %s", what, err)
	}
	return d
}

// formatGrants writes grants in one form, sorted by key.
func formatGrants(grants []Grant) ([]byte, error) {
	slices.SortFunc(grants, func(a, b Grant) int {
		for _, c := range []int{strings.Compare(a.Plugin, b.Plugin), strings.Compare(a.Signer, b.Signer), strings.Compare(string(a.Index), string(b.Index))} {
			if c != 0 {
				return c
			}
		}
		return 0
	})
	list := make([]any, 0, len(grants))
	for _, g := range grants {
		list = append(list, g.yaml())
	}
	return yamlfile.Marshal(yamlfile.Ordered{{Key: "version", Value: 1}, {Key: "grants", Value: list}})
}

func (g Grant) yaml() yamlfile.Ordered {
	out := yamlfile.Ordered{{Key: "plugin", Value: g.Plugin}, {Key: "signer", Value: g.Signer}}
	add := func(key string, value any) { out = append(out, yamlfile.Entry{Key: key, Value: value}) }
	if g.Index != "" {
		add("index", string(g.Index))
	}
	var granted, denied yamlfile.Ordered
	for _, c := range hostabi.Capabilities() {
		if s, ok := g.Granted[c]; ok && len(s.Scope) > 0 {
			granted = append(granted, yamlfile.Entry{Key: string(c), Value: s.yaml()})
		}
		if s := g.Denied[c]; len(s) > 0 {
			denied = append(denied, yamlfile.Entry{Key: string(c), Value: s})
		}
	}
	add("granted", granted)
	if len(denied) > 0 {
		add("denied", denied)
	}
	if g.RequestDigest != "" {
		add("request_digest", string(g.RequestDigest))
	}
	add("at", g.At.UTC().Format(time.RFC3339))
	return out
}

func (s Scopes) yaml() any {
	if s.Quota == 0 && !s.Sockets {
		return s.Scope
	}
	out := yamlfile.Ordered{{Key: "scope", Value: s.Scope}}
	if s.Quota != 0 {
		out = append(out, yamlfile.Entry{Key: "quota", Value: yamlfile.FormatSize(s.Quota)})
	}
	if s.Sockets {
		out = append(out, yamlfile.Entry{Key: "sockets", Value: true})
	}
	return out
}
