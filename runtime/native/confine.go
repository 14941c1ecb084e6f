package native

import (
	"fmt"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// The words of Options.Confine, the key sandbox.native.
const (
	confineRequire = "require"
	confineOff     = "off"
)

// The Landlock ABI versions that brought what confinement is made of.
const (
	abiFiles   = 3 // also truncation: without it a file can be emptied that must not be written
	abiPorts   = 4
	abiDevices = 5
	abiSignals = 6
)

// Support says what the kernel can enforce on a native plugin here. The zero value is nothing.
type Support struct {
	Landlock int  // ABI version, 0 = none
	Seccomp  bool // filters can be loaded, and ds has one for this processor
}

// Confines reports whether native plugins can be confined here at all.
func (s Support) Confines() bool { return s.Landlock >= abiFiles && s.Seccomp }

// Enforcement is what holds one native plugin: Run obeys it and ds plugin info prints it.
type Enforcement struct {
	Confined bool
	Why      string // why it is not confined, "this kernel has no Landlock"
	Sockets  bool   // a confined plugin opens sockets of its own: any host, TCP and UDP
	Unix     bool   // a confined plugin can reach local unix sockets
	// Unlimited is what a confined plugin could use because this kernel cannot limit it, "device ioctls".
	Unlimited []string

	missing string // why require refuses, empty = everything that the plugin needs is there
}

// Enforce says what holds a plugin of mode m here; sockets says whether it was granted sockets of its own, and
// confine is sandbox.native.
func (s Support) Enforce(m plugin.Mode, sockets bool, confine string) Enforcement {
	var e Enforcement
	switch {
	case m == plugin.Protocol1:
		e.Why = "plugins of protocol 1 cannot be confined"
	case confine == confineOff:
		e.Why = "sandbox.native is off"
	case !s.Confines():
		e.Why = s.lacks()
	default:
		e.Confined, e.Sockets, e.Unix = true, sockets, m == plugin.GoPlugin
	}
	e.missing = e.Why
	if !e.Confined {
		return e
	}
	for _, r := range []struct {
		what  string
		abi   int
		needs bool
	}{
		{"TCP ports", abiPorts, sockets},
		{"device ioctls", abiDevices, true},
		{"signals to your other programs", abiSignals, true},
		{"abstract unix sockets", abiSignals, e.Unix},
	} {
		if !r.needs || s.Landlock >= r.abi {
			continue
		}
		e.Unlimited = append(e.Unlimited, r.what)
		if e.missing == "" {
			e.missing = fmt.Sprintf("this kernel cannot limit %s (Landlock ABI %d, needs %d)", r.what, s.Landlock, r.abi)
		}
	}
	return e
}

// lacks says why nothing can be confined here.
func (s Support) lacks() string {
	switch {
	case s == Support{}:
		return "this system has no Landlock and no seccomp filter of ds"
	case s.Landlock == 0:
		return "this kernel has no Landlock"
	case !s.Seccomp:
		return "this kernel loads no seccomp filters"
	}
	return fmt.Sprintf("this kernel cannot limit truncating files (Landlock ABI %d, needs %d)", s.Landlock, abiFiles)
}

// enforcement decides how this run is held. It fails closed where confinement is demanded: by sandbox.native,
// --require-sandbox or the admin's policy.
func (r *run) enforcement() (Enforcement, error) {
	confine := r.b.o.Confine
	if r.box.Confined() {
		confine = confineRequire
	}
	e := r.b.probe().Enforce(r.p.Program.Mode, r.box.Sockets(), confine)
	foreign := ""
	if len(r.b.o.Wrap) > 0 {
		foreign = "a program below a wrapper is not confined"
	}
	if _, attached := r.attached(); attached {
		foreign = "a server that ds did not start is not confined"
	}
	if foreign != "" {
		e = Enforcement{Why: foreign, missing: foreign}
	}
	if confine == confineRequire && e.missing != "" {
		return e, r.fail(hostabi.ReasonSandboxRequired, "%s", e.missing)
	}
	return e, nil
}
