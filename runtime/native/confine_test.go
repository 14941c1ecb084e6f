package native_test

import (
	"slices"
	"testing"

	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/runtime/native"
)

// TestEnforce: what is said about a plugin, for kernels of every kind.
func TestEnforce(t *testing.T) {
	t.Parallel()
	at := func(abi int) native.Support { return native.Support{Landlock: abi, Seccomp: true} }
	for _, c := range []struct {
		name      string
		support   native.Support
		mode      plugin.Mode
		sockets   bool
		confine   string
		confined  bool
		why       string
		unlimited []string
		missing   string
	}{
		{name: "nothing", why: "this system has no Landlock and no seccomp filter of ds", missing: "this system has no Landlock and no seccomp filter of ds"},
		{name: "ABI 0", support: at(0), why: "this kernel has no Landlock", missing: "this kernel has no Landlock"},
		{
			name: "ABI 2", support: at(2), why: "this kernel cannot limit truncating files (Landlock ABI 2, needs 3)",
			missing: "this kernel cannot limit truncating files (Landlock ABI 2, needs 3)",
		},
		{
			name: "no seccomp", support: native.Support{Landlock: 6}, why: "this kernel loads no seccomp filters",
			missing: "this kernel loads no seccomp filters",
		},
		{
			name: "ABI 3", support: at(3), confined: true, unlimited: []string{"device ioctls", "signals to your other programs"},
			missing: "this kernel cannot limit device ioctls (Landlock ABI 3, needs 5)",
		},
		{
			name: "ABI 3 with sockets", support: at(3), sockets: true, confined: true,
			unlimited: []string{"TCP ports", "device ioctls", "signals to your other programs"},
			missing:   "this kernel cannot limit TCP ports (Landlock ABI 3, needs 4)",
		},
		{
			name: "ABI 4 with sockets", support: at(4), sockets: true, confined: true,
			unlimited: []string{"device ioctls", "signals to your other programs"},
			missing:   "this kernel cannot limit device ioctls (Landlock ABI 4, needs 5)",
		},
		{
			name: "ABI 5 goplugin", support: at(5), mode: plugin.GoPlugin, confined: true,
			unlimited: []string{"signals to your other programs", "abstract unix sockets"},
			missing:   "this kernel cannot limit signals to your other programs (Landlock ABI 5, needs 6)",
		},
		{name: "ABI 6", support: at(6), sockets: true, confined: true},
		{name: "ABI 6 goplugin", support: at(6), mode: plugin.GoPlugin, confined: true},
		{name: "later", support: at(12), confined: true},
		{name: "off", support: at(6), confine: "off", why: "sandbox.native is off", missing: "sandbox.native is off"},
		{
			name: "protocol 1", support: at(6), mode: plugin.Protocol1, why: "plugins of protocol 1 cannot be confined",
			missing: "plugins of protocol 1 cannot be confined",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := c.support.Enforce(c.mode, c.sockets, c.confine)
			if e.Confined != c.confined || e.Why != c.why || !slices.Equal(e.Unlimited, c.unlimited) || e.Missing() != c.missing {
				t.Errorf("got %+v", e)
			}
			if e.Sockets != (c.confined && c.sockets) || e.Unix != (c.confined && c.mode == plugin.GoPlugin) {
				t.Errorf("got sockets %t, unix %t", e.Sockets, e.Unix)
			}
		})
	}
}
