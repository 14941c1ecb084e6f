package sandbox

import (
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// Requests is what p asks for: the entries of its manifest, or for a protocol 1 plugin those that
// capabilities.md section 8 gives it.
func Requests(p *plugin.Installed) []plugin.Request { return requests(p) }

func requests(p *plugin.Installed) []plugin.Request {
	if !p.Legacy() {
		return p.Manifest.Capabilities
	}
	return []plugin.Request{
		{Cap: hostabi.ConfigRead, Scope: []string{"own", "registry.**", "proxy.**", "logging.**", "cache.max_size", "cache.ttl"}, Reason: "protocol 1"},
		{Cap: hostabi.SecretRead, Scope: []string{"own"}, Reason: "protocol 1"},
		{Cap: hostabi.SecretRead, Scope: []string{"registry:*"}, Reason: "protocol 1: registry credentials", Optional: true, Propose: ownRegistry(p)},
		{Cap: hostabi.EnvRead, Scope: []string{"*"}, Reason: "protocol 1", Optional: true, Propose: []string{"AWS_*", "*_PROXY", "DOCKER_CONFIG", "SSL_CERT_*"}},
		{Cap: hostabi.PluginsCall, Scope: []string{"*/*"}, Reason: "protocol 1", Optional: true, Propose: []string{}},
	}
}

// ownRegistry is the credential scope of the registry that p came from; a file of this machine came from none.
func ownRegistry(p *plugin.Installed) []string {
	host, _, ok := strings.Cut(p.Repository, "/")
	if !ok || !registryHost(host) {
		return []string{}
	}
	return []string{"registry:" + host}
}

// requestScopes parses one entry of the manifest of p.
func requestScopes(p *plugin.Installed, r plugin.Request) ([]Scope, error) {
	out := make([]Scope, 0, len(r.Scope))
	for _, text := range r.Scope {
		s, err := ParseScope(r.Cap, p.Name, text)
		if p.Legacy() {
			s, err = parseLoose(r.Cap, p.Name, text)
		} else if err == nil && s.form == registryOf {
			err = hostabi.Errorf(hostabi.ReasonUsage, "%s: scope %q: registry credentials go to protocol 1 plugins only", r.Cap, clip(text))
		}
		if err != nil {
			return nil, hostabi.Errorf(hostabi.ReasonManifest, "%s asks for %w", p.Name, err)
		}
		out = append(out, s)
	}
	return out, nil
}

// parseLoose reads, besides scopes, what only denies, ceilings and protocol 1 may say: ** for everything, any
// variable, any plugin's commands.
func parseLoose(c hostabi.Capability, name plugin.Name, text string) (Scope, error) {
	switch {
	case text == "**":
		return Scope{cap: c, text: text, form: everything}, nil
	case c == hostabi.EnvRead && strings.Contains(text, "*") && only(text, lower+upper+digit+"_*"):
		return Scope{cap: c, text: text, form: variable, segs: []seg{parseSeg(text)}}, nil
	case c == hostabi.PluginsCall && strings.HasPrefix(text, "*/"):
		command := strings.TrimPrefix(text, "*/")
		if command == "*" || validCommand(command) {
			return Scope{cap: c, text: text, form: callee, owner: "*", segs: []seg{parseSeg(command)}}, nil
		}
	case c == hostabi.EventsPublish:
		return ParseScope(c, "", text)
	}
	return ParseScope(c, name, text)
}

// CheckScope says what is wrong with one scope that a manifest of the plugin name asks for; the error has
// reason USAGE. It fits plugin.ParseManifestWith.
func CheckScope(name plugin.Name, c hostabi.Capability, scope string) error {
	s, err := ParseScope(c, name, scope)
	if err == nil && s.form == registryOf {
		return hostabi.Errorf(hostabi.ReasonUsage, "%s: scope %q: registry credentials go to protocol 1 plugins only", c, clip(scope))
	}
	return err
}

// CheckManifest checks the scopes of every request of m; the error has reason MANIFEST.
func CheckManifest(m *plugin.Manifest) error {
	p := &plugin.Installed{Name: m.Name, Manifest: m}
	for _, r := range m.Capabilities {
		if _, err := requestScopes(p, r); err != nil {
			return err
		}
	}
	return nil
}
