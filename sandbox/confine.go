package sandbox

import (
	"path/filepath"
	"slices"

	"github.com/delivery-station/ds/hostabi"
)

// Confined reports whether the admin's policy demands that native plugins are confined by the operating system.
func (b *Box) Confined() bool { return b.o.Policy.Confined() }

// Whole says whether m may be opened by a backend that can only open whole directories. The error is
// CAPABILITY_DENIED if m holds something that stays out of reach: a directory of ds, or what user or policy
// deny. target is where m.Host, or the file m.Name in it, really is, with all links followed.
func (b *Box) Whole(m Mount, target string) error {
	c := hostabi.FSRead
	if m.Write {
		c = hostabi.FSWrite
	}
	at := dirSegs(target)
	refuse := func(format, name string) error {
		e := hostabi.Errorf(hostabi.ReasonCapabilityDenied, format, name).
			WithMeta("capability", string(c)).WithMeta("resource", target).WithMeta("plugin", string(b.name))
		if m.Create { // a path that exists is opened by itself, not with what lies beside it
			e.Msg = m.Name + " does not exist yet, and " + b.tilde(m.Host) + " cannot be opened for it: " + e.Msg
			_ = e.WithFix("mkdir %s\nds --backend wasm, whose sandbox can leave a directory out", b.tilde(filepath.Join(m.Host, m.Name)))
		}
		return e
	}
	for _, h := range b.hidden {
		if coversPath(h.segs, at, foldCase()) {
			return refuse("plugins get no access to %s", h.name)
		}
		top := h.segs[:len(h.segs)-1] // without the final **
		if m.whole() && coversPath(append(slices.Clone(at), seg{kind: deep}), top, foldCase()) {
			return refuse("narrow the scope: it contains %s", h.name)
		}
	}
	if m.whole() && len(m.Deny) > 0 {
		return refuse("narrow the scope: it contains %s", b.tilde(filepath.Join(m.Host, filepath.FromSlash(m.Deny[0]))))
	}
	return nil
}

// whole reports whether everything below Host would be opened, not one file.
func (m *Mount) whole() bool { return m.Name == "" || m.Create }

// Ports are the TCP ports that net.http opens, sorted; all means every port.
func (b *Box) Ports() (ports []uint16, all bool) {
	r := b.rights[hostabi.NetHTTP]
	if r == nil {
		return nil, false
	}
	for _, x := range effectiveOrigins(r) {
		if x.origin.port == anyPort {
			return nil, true
		}
		if p := uint16(x.origin.port); !slices.Contains(ports, p) { // a parsed port
			ports = append(ports, p)
		}
	}
	slices.Sort(ports)
	return ports, false
}

// effectiveOrigins are the origins of the requests and grants that one of the other covers.
func effectiveOrigins(r *right) []bound {
	both := func(a, b []bound) (out []bound) {
		for _, x := range a {
			if x.form == originOf && slices.ContainsFunc(b, func(o bound) bool { return o.Covers(x.Scope) }) {
				out = append(out, x)
			}
		}
		return out
	}
	out := slices.Concat(both(r.request, r.grant), both(r.grant, r.request))
	if r.ceiling {
		out = slices.Concat(both(out, r.max), both(r.max, out))
	}
	return out
}

// Hides reports whether dir is, lies in or contains a directory of ds, and names it.
func (b *Box) Hides(dir string) (name string, hidden bool) {
	at := dirSegs(realPath(dir))
	for _, h := range b.hidden {
		if slices.Contains(kernelDirs(), h.name) {
			continue
		}
		top := h.segs[:len(h.segs)-1]
		if coversPath(h.segs, at, foldCase()) || coversPath(append(slices.Clone(at), seg{kind: deep}), top, foldCase()) {
			return h.name, true
		}
	}
	return "", false
}

// Home is the home directory of the user, empty if it is not known.
func (b *Box) Home() string { return b.o.Home }
