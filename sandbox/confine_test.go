package sandbox

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

func confineBox(t *testing.T, o BoxOptions, requests ...plugin.Request) *Box {
	t.Helper()
	o.Plugin = &plugin.Installed{Name: "s3", Manifest: &plugin.Manifest{Capabilities: requests}}
	o.Granted = make(map[hostabi.Capability]Scopes)
	for _, r := range requests {
		g := o.Granted[r.Cap]
		o.Granted[r.Cap] = Scopes{Scope: append(g.Scope, r.Scope...), Sockets: r.Sockets}
	}
	b, err := NewBox(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	conf := filepath.Join(dir, ".config", "ds")
	b := confineBox(t, BoxOptions{Home: dir, Protected: []string{conf}})
	for _, c := range []struct {
		name string
		m    Mount
		real string
		want string
	}{
		{"beside", Mount{}, filepath.Join(dir, "src"), ""},
		{"prefix of the name", Mount{}, filepath.Join(dir, ".config", "d"), ""},
		{"contains", Mount{}, dir, "narrow the scope: it contains ~/.config/ds"},
		{"root", Mount{}, "/", "narrow the scope: it contains"},
		{"is", Mount{}, conf, "plugins get no access to ~/.config/ds"},
		{"lies in", Mount{Write: true}, filepath.Join(conf, "plugins"), "plugins get no access to ~/.config/ds"},
		{"one file beside", Mount{Name: "x"}, filepath.Join(dir, "x"), ""},
		{"one file in it", Mount{Name: "grants.yaml"}, filepath.Join(conf, "grants.yaml"), "plugins get no access to ~/.config/ds"},
		{"to be made beside", Mount{Name: "x", Create: true}, dir, "narrow the scope: it contains ~/.config/ds"},
		{"something denied", Mount{Host: filepath.Join(dir, "src"), Deny: []string{"secret/**"}}, filepath.Join(dir, "src"), "narrow the scope: it contains ~/src/secret/**"},
		{"a kernel directory", Mount{}, "/proc/self", "plugins get no access to /proc"},
	} {
		err := b.Whole(c.m, c.real)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		if err != nil && hostabi.ReasonOf(err) != hostabi.ReasonCapabilityDenied {
			t.Errorf("%s: reason %s", c.name, hostabi.ReasonOf(err))
		}
	}
	for path, want := range map[string]bool{dir: true, conf: true, filepath.Join(conf, "x"): true, filepath.Join(dir, "src"): false, "/proc": false, "/": true} {
		if _, got := b.Hides(path); got != want {
			t.Errorf("Hides(%s) = %t", path, got)
		}
	}
}

func TestPorts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		scope []string
		want  []uint16
		all   bool
	}{
		{"none", nil, nil, false},
		{"defaults", []string{"https://a.example", "http://b.example", "https://c.example"}, []uint16{80, 443}, false},
		{"own", []string{"https://**.a.example:8443"}, []uint16{8443}, false},
		{"any", []string{"https://a.example", "http://b.example:*"}, nil, true},
	} {
		var requests []plugin.Request
		if c.scope != nil {
			requests = append(requests, plugin.Request{Cap: hostabi.NetHTTP, Scope: c.scope, Sockets: true})
		}
		b := confineBox(t, BoxOptions{}, requests...)
		if got, all := b.Ports(); !slices.Equal(got, c.want) || all != c.all {
			t.Errorf("%s: got %v, %t", c.name, got, all)
		}
	}
}

// TestOptionalMounts: a mount is optional if no entry that the plugin needs asks for it.
func TestOptionalMounts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	need := plugin.Request{Cap: hostabi.FSRead, Scope: []string{"cwd:a/**"}}
	spare := plugin.Request{Cap: hostabi.FSRead, Scope: []string{"cwd:**"}, Optional: true}
	b := confineBox(t, BoxOptions{Invocation: &plugin.Invocation{Dir: dir}}, need, spare)
	got := make(map[string]bool)
	for _, m := range b.Mounts() {
		got[m.Guest] = m.Optional
	}
	if len(got) != 2 || !got["/cwd"] || got["/cwd/a"] {
		t.Errorf("got %v", got)
	}
	if b.Confined() || !confineBox(t, BoxOptions{Policy: &Policy{Native: "confined"}}).Confined() {
		t.Error("the policy is not told")
	}
}
