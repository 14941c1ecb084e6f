package main

import (
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/runtime/native"
	"github.com/delivery-station/ds/sandbox"
)

// held is what the kernel holds the native kind of p to, by the same function that its runs obey; sockets says
// whether it gets sockets of its own.
func (a *app) held(p *plugin.Installed, sockets bool) native.Enforcement {
	confine := a.cfg.String("sandbox.native")
	if grants, err := a.parts.grants(); err == nil {
		if policy, err := grants.Policy(); err == nil && policy.Confined() {
			confine = "require"
		}
	}
	return native.Probe().Enforce(p.Find(plugin.Native).Mode, sockets, confine)
}

// enforcement is the one sentence about what holds the plugin (capabilities.md section 9), and where true, what
// it reaches all the same. It never claims more.
func (a *app) enforcement(p *plugin.Installed, sockets bool) string {
	wasm := p.Find(plugin.WASM) != nil
	if p.Find(plugin.Native) == nil {
		if wasm {
			return "Runs in the WASM sandbox; all of the above is enforced."
		}
		return ""
	}
	e := a.held(p, sockets)
	s := "Native, not confined: runs with your full user permissions; the limits above apply only to DS services."
	if e.Confined {
		s = "Native, confined by the kernel: files and DS services are limited."
		if e.Sockets {
			s += " Opens its own sockets: any host, TCP and UDP."
		}
		if e.Unix {
			s += " Can reach local unix sockets."
		}
	}
	if wasm {
		s += " Its WASM kind (--backend wasm) is limited to all of the above."
	}
	return s
}

// limitsOf is what ds plugin info --capabilities adds: why a native plugin is not confined, or what it can use
// although it is.
func (a *app) limitsOf(p *plugin.Installed, sockets bool) []string {
	if p.Find(plugin.Native) == nil {
		return nil
	}
	e := a.held(p, sockets)
	if !e.Confined {
		return []string{"not confined: " + e.Why}
	}
	lines := []string{"can read the names and arguments of your programs (/proc)"}
	for _, u := range e.Unlimited {
		lines = append(lines, "not limited by this kernel: "+u)
	}
	return lines
}

// enforcedBy is what holds a capability for the kinds that are installed.
func (a *app) enforcedBy(p *plugin.Installed, c hostabi.Capability, sockets bool) string {
	switch c {
	case hostabi.EnvRead:
		return "environment built by ds"
	case hostabi.FSRead, hostabi.FSWrite, hostabi.NetHTTP:
	default:
		return "host services"
	}
	var by []string
	if p.Find(plugin.WASM) != nil {
		by = append(by, "sandbox")
	}
	if p.Find(plugin.Native) != nil {
		by = append(by, kernelHolds(a.held(p, sockets), c))
	}
	if len(by) == 2 && by[1] == "not enforced (native)" {
		return "sandbox (wasm only)"
	}
	return strings.Join(by, "; ")
}

func kernelHolds(e native.Enforcement, c hostabi.Capability) string {
	switch {
	case !e.Confined:
		return "not enforced (native)"
	case c != hostabi.NetHTTP:
		return "kernel, whole directories"
	case e.Sockets:
		return "not enforced: any host, TCP and UDP"
	}
	return "kernel, no sockets"
}

// asksSockets reports whether p asks for sockets of its own.
func asksSockets(p *plugin.Installed) bool {
	for _, r := range p.Manifest.Capabilities {
		if r.Cap == hostabi.NetHTTP && r.Sockets {
			return true
		}
	}
	return false
}

// hasSockets reports whether p asks for sockets of its own and g grants them.
func hasSockets(p *plugin.Installed, g sandbox.Grant) bool {
	return asksSockets(p) && g.Granted[hostabi.NetHTTP].Sockets
}

// grantedSockets is hasSockets with what is on record; when that cannot be read, what p asks for.
func (a *app) grantedSockets(p *plugin.Installed) bool {
	grants, err := a.parts.grants()
	if err != nil {
		return asksSockets(p)
	}
	g, _, err := grants.Lookup(p)
	if err != nil {
		return asksSockets(p)
	}
	return hasSockets(p, g)
}
