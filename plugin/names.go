package plugin

import (
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
)

// Reserved lists the built-in commands and their aliases, sorted; no plugin of such a name can be installed
// (cli.md section 1).
func Reserved() []string {
	return []string{"completion", "config", "docs", "doctor", "env", "explain", "help", "index", "plugin", "registry", "trust", "version"}
}

// CheckName says whether a plugin may be called n: USAGE for a name of the wrong form, NAME_TAKEN for one of
// ds itself. A manifest of such a name still parses, because a later ds may have added the built-in.
func CheckName(n Name) error {
	if strings.HasPrefix(string(n), "_") || strings.HasPrefix(string(n), "-") || slices.Contains(Reserved(), string(n)) {
		return hostabi.Errorf(hostabi.ReasonNameTaken, "the name %s belongs to ds itself", clip(string(n), 40))
	}
	if !n.Valid() {
		return hostabi.Errorf(hostabi.ReasonUsage, "plugin name %q is not [a-z][a-z0-9-]{0,31}", clip(string(n), 40))
	}
	return nil
}

// Legacy reports whether p is a protocol 1 plugin: by its manifest, or by the cookie in a program without one.
func (p *Installed) Legacy() bool {
	if p.Manifest.APIVersion != "" {
		return false
	}
	native := p.Find(Native)
	return p.Manifest.Legacy() || native != nil && native.Mode == Protocol1
}

// Legacy reports whether m is the manifest of a protocol 1 plugin.
func (m *Manifest) Legacy() bool {
	return m != nil && m.Run.Native != nil && m.Run.Native.Mode == Protocol1
}
