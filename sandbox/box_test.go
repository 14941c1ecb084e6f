package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// world is a run of plugin s3 in a directory of its own.
type world struct {
	home, cwd string
	o         BoxOptions
}

func newWorld(t *testing.T, reqs ...plugin.Request) *world {
	t.Helper()
	home := realPath(t.TempDir())
	w := &world{home: home, cwd: filepath.Join(home, "proj")}
	for _, f := range []string{"proj/dist/a.txt", "proj/dist/sub/b.txt", "proj/top.txt", "data/x/1", ".config/ds/config.yaml", ".config/other/f", "out/old"} {
		w.write(t, f)
	}
	w.o = BoxOptions{
		Plugin:     &plugin.Installed{Name: "s3", Version: "1.4.0", Manifest: &plugin.Manifest{APIVersion: plugin.APIVersion, Name: "s3", Capabilities: reqs}},
		Invocation: &plugin.Invocation{Dir: w.cwd},
		Granted:    make(map[hostabi.Capability]Scopes), Denied: make(map[hostabi.Capability][]string),
		Home: home, Protected: []string{filepath.Join(home, ".config/ds")},
		Canonical: func(ref string) (string, error) {
			name, _, _ := strings.Cut(ref, "@")
			if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') && !strings.HasPrefix(name, "oci-layout:") {
				name = name[:i]
			}
			return name, nil
		},
	}
	for _, r := range reqs {
		g := w.o.Granted[r.Cap]
		w.o.Granted[r.Cap] = Scopes{Scope: append(g.Scope, r.Scope...), Quota: r.Quota, Sockets: r.Sockets}
	}
	return w
}

func (w *world) write(t *testing.T, name string) {
	t.Helper()
	name = filepath.Join(w.home, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(name), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (w *world) box(t *testing.T) *Box {
	t.Helper()
	b, err := NewBox(w.o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func req(c hostabi.Capability, scopes ...string) plugin.Request {
	return plugin.Request{Cap: c, Scope: scopes, Reason: "test"}
}

const digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// TestCheck drives Check for all sixteen capabilities.
func TestCheck(t *testing.T) {
	typed := []plugin.Typed{
		{Type: "ref", Value: "ghcr.io/acme/app:1"},
		{Type: "url", Value: "http://Files.Example:8080/x?y"},
		{Type: "digest", Value: digestA},
		{Type: "path", Mode: "read", Value: "top.txt"},
		{Type: "path", Mode: "readwrite", Value: "dist"},
		{Type: "path", Mode: "write", Value: "new"},
		{Type: "ref", Value: "oci-layout:/srv/layout"},
	}
	for _, c := range []struct {
		cap     hostabi.Capability
		scope   string
		yes, no string // resources, separated by spaces; ~ is the home directory
	}{
		{"config.read", "own", "settings.s3.bucket settings.s3.a.b.0 settings.s3.hooks.a/b:1", "settings.s3 settings.s4.bucket cache.dir settings.s3. settings.s3..x own settings.s3.*"},
		{"config.read", "registry.*", "registry.default", "registry registry.a.b registry. REGISTRY.default"},
		{"config.read", "**", "a a.b.c", "a..b"},
		{"secret.read", "settings.s3.credentials.*", "settings.s3.credentials.key", "settings.s3.credentials settings.s3.credentials.a.b registry:ghcr.io"},
		{"env.read", "AWS_REGION", "AWS_REGION", "AWS_PROFILE aws_region AWS_REGIONX"},
		{"env.read", "AWS_*", "AWS_REGION AWS_", "AWS XAWS_REGION DS_X"},
		{"net.http", "https://api.example.com", "https://api.example.com https://api.example.com/p?q https://API.example.com.:443/ https://api.example.com:443", "http://api.example.com https://api.example.com:8443 https://x.api.example.com https://example.com ftp://api.example.com https://u@api.example.com https://%61pi.example.com https://api.example.com%2f"},
		{"net.http", "https://*.example.com:*", "https://a.example.com https://a.example.com:81", "https://example.com https://a.b.example.com https://aexample.com http://a.example.com"},
		{"net.http", "https://**.example.com", "https://a.example.com https://a.b.example.com", "https://example.com https://evil-example.com https://example.com.evil.net"},
		{"net.http", "http://127.0.0.1:8080", "http://127.0.0.1:8080/x", "http://127.0.0.1 http://127.1:8080 http://0x7f.1:8080 http://2130706433:8080 http://localhost:8080"},
		{"net.http", "http://[::1]:80", "http://[::1]/ http://[0:0:0:0:0:0:0:1]", "http://[::2]"},
		{"net.http", "https://xn--bcher-kva.example", "https://bücher.example/ https://xn--bcher-kva.example", "https://bucher.example"},
		{"net.http", "private:https://nas.corp.example", "https://nas.corp.example", "https://x.corp.example"},
		{"net.http", "args", "http://files.example:8080/other", "http://files.example https://files.example:8080 http://files.example:8081"},
		{"fs.read", "cwd:dist/**", "~/proj/dist ~/proj/dist/a.txt ~/proj/dist/sub/b.txt", "~/proj/top.txt ~/proj/distx ~/proj ~/proj/dist/../top.txt proj/dist /etc/passwd"},
		{"fs.read", "cwd:*.txt", "~/proj/top.txt", "~/proj/dist/a.txt ~/proj/top.txtx"},
		{"fs.read", "cwd:**/b*.txt", "~/proj/dist/sub/b.txt ~/proj/b.txt", "~/proj/dist/a.txt"},
		{"fs.read", "home:data/**", "~/data/x/1", "~/datax/1 ~/out/old"},
		{"fs.read", "home:.config/**", "~/.config/other/f", "~/.config/ds/config.yaml ~/.config/ds"},
		{"fs.read", "abs:/usr/share/**", "/usr/share/doc /usr/share", "/usr /usr/sharex /usr/share/"},
		{"fs.read", "abs:/etc/ssl/certs", "/etc/ssl/certs", "/etc/ssl/certs/x"},
		{"fs.read", "args", "~/proj/top.txt ~/proj/dist ~/proj/dist/sub/b.txt", "~/proj ~/proj/new ~/out/old"},
		{"fs.write", "args", "~/proj/dist/a.txt ~/proj/new ~/proj/new/below", "~/proj/top.txt ~/proj/newer"},
		{"fs.write", "cwd:out/*", "~/proj/out/x", "~/proj/out/x/y ~/proj/out"},
		{"cache.read", "own", "own", "any artifact:ghcr.io/acme/app " + digestA},
		{"cache.read", "artifact:ghcr.io/acme/**", "artifact:ghcr.io/acme/app artifact:ghcr.io/acme/a/b", "artifact:ghcr.io/other/app artifact:ghcr.io own any"},
		{"cache.read", "args", digestA + " artifact:ghcr.io/acme/app", "own any artifact:ghcr.io/acme/other sha256:bbbb"},
		{"cache.read", "any", "any own artifact:ghcr.io/acme/app " + digestA, "nothing"},
		{"cache.write", "own", "own", "any"},
		{"cache.write", "any", "own any", "artifact:ghcr.io"},
		{"registry.pull", "ghcr.io/acme/**", "ghcr.io/acme/app ghcr.io/acme", "ghcr.io/acmex/app ghcr.io:443/acme/app GHCR.io/acme/app ghcr.io/acme/* oci-layout:/srv/acme"},
		{"registry.pull", "*.example.com/tools/*", "a.example.com/tools/x", "example.com/tools/x a.b.example.com/tools/x a.example.com/tools/x/y"},
		{"registry.pull", "**", "ghcr.io/a localhost:5000/b/c", "oci-layout:/srv/layout ghcr.io"},
		{"registry.pull", "localhost:5000/*", "localhost:5000/app", "localhost/app localhost:5001/app"},
		{"registry.pull", "args", "ghcr.io/acme/app oci-layout:/srv/layout", "ghcr.io/acme/app2 oci-layout:/srv oci-layout:/srv/layout/x"},
		{"registry.pull", "oci-layout:/srv/layouts/**", "oci-layout:/srv/layouts/x", "oci-layout:/srv/other oci-layout:/srv/layouts/../x"},
		{"registry.push", "ghcr.io/acme/app", "ghcr.io/acme/app", "ghcr.io/acme/app/x ghcr.io/acme"},
		{"events.publish", "own", "s3.done s3.a.b", "s3 porter.done s3. S3.x s3.*"},
		{"events.publish", "s3.upload.*", "s3.upload.done", "s3.upload s3.upload.a.b"},
		{"events.subscribe", "artifact.*", "artifact.pulled artifact.*", "artifact artifact.a.b artifact.** plugin.started **"},
		{"events.subscribe", "**", "a a.b a.* ** *", "A"},
		{"state.read", "own", "s3:k s3:a/b", "porter:k s3: k"},
		{"state.read", "porter:runs/**", "porter:runs/1 porter:runs/1/x", "porter:other s3:runs/1"},
		{"state.write", "own", "s3:k", "porter:k s3:../x"},
		{"plugins.call", "porter/pull", "porter/pull", "porter/push porter/ porter/pull\x00 other/pull"},
		{"plugins.call", "porter/*", "porter/pull porter/", "porterx/pull */*"},
		{"term.prompt", "confirm", "confirm", "line secret x"},
	} {
		t.Run(string(c.cap)+" "+c.scope, func(t *testing.T) {
			w := newWorld(t, req(c.cap, c.scope))
			w.o.Invocation.Typed = typed
			b := w.box(t)
			for _, r := range strings.Fields(c.yes) {
				if err := b.Check(c.cap, strings.Replace(r, "~", w.home, 1)); err != nil {
					t.Errorf("%s is refused: %v", r, err)
				}
			}
			for _, r := range strings.Fields(c.no) {
				r = strings.Replace(r, "~", w.home, 1)
				err := b.Check(c.cap, r)
				if hostabi.ReasonOf(err) != hostabi.ReasonCapabilityDenied {
					t.Errorf("%s is allowed or failed otherwise: %v", r, err)
				}
				if b.Allowed(c.cap, r) {
					t.Errorf("Allowed says yes to %s", r)
				}
			}
			for _, other := range hostabi.Capabilities() {
				if r := strings.Replace(strings.Fields(c.yes)[0], "~", w.home, 1); other != c.cap && (b.Check(other, r) == nil || b.Has(other)) {
					t.Errorf("a scope of %s opens %s", c.cap, other)
				}
			}
			if !b.Has(c.cap) {
				t.Error("Has is false")
			}
			delete(w.o.Granted, c.cap)
			b = w.box(t)
			if r := strings.Replace(strings.Fields(c.yes)[0], "~", w.home, 1); b.Check(c.cap, r) == nil || b.Has(c.cap) {
				t.Errorf("%s is allowed without a grant", r)
			}
		})
	}
}

func TestAllSixteenAreDriven(t *testing.T) {
	b, err := os.ReadFile("box_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range hostabi.Capabilities() {
		if !strings.Contains(string(b), fmt.Sprintf("\t\t{%q, ", c)) {
			t.Errorf("TestCheck has no row for %s", c)
		}
	}
}

func TestDenialsAndFixes(t *testing.T) {
	w := newWorld(t, req("net.http", "https://**.example.com", "https://old.example"), req("fs.read", "args", "cwd:**"), req("registry.pull", "args"),
		req("state.read", "own"), req("config.read", "own"), req("plugins.call", "porter/*"))
	w.o.Granted = map[hostabi.Capability]Scopes{"net.http": {Scope: []string{"https://a.example.com", "https://old.example"}}}
	w.o.Denied["net.http"] = []string{"https://old.example"}
	w.o.Policy = &Policy{File: "/etc/ds/policy.yaml", Deny: map[hostabi.Capability][]string{"config.read": {"**"}}}
	w.o.Invocation.Typed = []plugin.Typed{{Type: "ref", Value: "ghcr.io/acme/app:1"}}
	b := w.box(t)
	for _, c := range []struct {
		cap           hostabi.Capability
		resource      string
		reason        hostabi.Reason
		msg, fix, sub string // sub: the resource in the metadata
	}{
		{"net.http", "https://b.example.com/secret?token=x", hostabi.ReasonCapabilityDenied, "s3 may not use net.http https://b.example.com: not granted", "ds plugin grant s3 net.http=https://b.example.com", "https://b.example.com"},
		{"net.http", "https://old.example/", hostabi.ReasonCapabilityDenied, "not granted", "ds plugin grant s3 net.http=https://old.example", "https://old.example"},
		{"net.http", "https://c.example/", hostabi.ReasonCapabilityDenied, "s3 does not ask for it", "", "https://c.example"},
		{"net.http", "https://u:p@a.example.com/", hostabi.ReasonCapabilityDenied, "a malformed URL", "ds plugin grant s3 'net.http=https://**.example.com'", "a malformed URL"},
		{"fs.read", filepath.Join(w.cwd, "dist/a.txt"), hostabi.ReasonCapabilityDenied, "not granted", "ds plugin grant s3 fs.read=cwd:dist/a.txt", filepath.Join(w.cwd, "dist/a.txt")},
		{"fs.read", filepath.Join(w.home, ".config/ds/x"), hostabi.ReasonCapabilityDenied, "a directory of ds or of the system", "", filepath.Join(w.home, ".config/ds/x")},
		{"fs.write", "/tmp/x", hostabi.ReasonCapabilityDenied, "s3 does not ask for it", "", "/tmp/x"},
		{"registry.pull", "ghcr.io/acme/app", hostabi.ReasonCapabilityDenied, "not granted", "ds plugin grant s3 registry.pull=args", "ghcr.io/acme/app"},
		{"state.read", "s3:k", hostabi.ReasonCapabilityDenied, "not granted", "ds plugin grant s3 state.read=own", "s3:k"},
		{"state.read", "own", hostabi.ReasonCapabilityDenied, "not granted", "ds plugin grant s3 state.read=own", "own"},
		{"plugins.call", "*/*", hostabi.ReasonCapabilityDenied, "not granted", "ds plugin grant s3 'plugins.call=porter/*'", "*/*"},
		{"config.read", "settings.s3.a", hostabi.ReasonPolicyDenied, "refused by /etc/ds/policy.yaml", "", "settings.s3.a"},
	} {
		err := b.Check(c.cap, c.resource)
		e := hostabi.AsError(err)
		if err == nil || e.Reason != c.reason || !strings.Contains(e.Msg, c.msg) || e.Fix != c.fix {
			t.Errorf("%s %s: got %q (%s) fix %q", c.cap, c.resource, err, e.Reason, e.Fix)
			continue
		}
		if e.Meta["capability"] != string(c.cap) || e.Meta["resource"] != c.sub || e.Meta["plugin"] != "s3" {
			t.Errorf("%s: metadata %v", c.resource, e.Meta)
		}
	}
	_ = b.Check("net.http", "https://b.example.com/again")
	d := b.Denials()
	if len(d) != 12 || d[0] != (Denial{"net.http", "https://b.example.com", "not granted", "ds plugin grant s3 net.http=https://b.example.com", 2, "https://b.example.com"}) {
		t.Errorf("denials: %+v", d)
	}
}

// TestFixAllows pastes each fix and checks that the same use passes then.
func TestFixAllows(t *testing.T) {
	w := newWorld(t, req("net.http", "https://**.example.com:*"), req("fs.read", "args", "cwd:**", "home:data/**"), req("registry.pull", "**"), req("registry.push", "args"),
		req("state.read", "own", "porter:x/*"), req("config.read", "own", "cache.*"), req("plugins.call", "porter/*"), req("events.subscribe", "artifact.**"),
		req("cache.read", "artifact:ghcr.io/**", "own"), req("term.prompt", "line"), req("events.publish", "own"), req("env.read", "AWS_*"))
	w.o.Granted = nil
	w.o.Invocation.Typed = []plugin.Typed{{Type: "ref", Value: "ghcr.io/acme/app:1"}}
	g := Grant{}
	b := w.box(t)
	uses := map[hostabi.Capability][]string{
		"net.http": {"https://b.example.com:8443/x"}, "fs.read": {filepath.Join(w.cwd, "top.txt"), filepath.Join(w.home, "data/x/1")},
		"registry.pull": {"localhost:5000/x"}, "registry.push": {"ghcr.io/acme/app"}, "state.read": {"s3:k", "porter:x/y"}, "config.read": {"settings.s3.a", "cache.dir"},
		"plugins.call": {"porter/bundle create"}, "events.subscribe": {"artifact.pulled"}, "cache.read": {"artifact:ghcr.io/acme/x", "own"},
		"term.prompt": {"line"}, "events.publish": {"s3.done"}, "env.read": {"AWS_REGION"},
	}
	for c, list := range uses {
		for _, r := range list {
			e := hostabi.AsError(b.Check(c, r))
			if e == nil {
				t.Fatalf("%s %s is allowed at once", c, r)
			}
			word := strings.Trim(strings.TrimPrefix(e.Fix, "ds plugin grant s3 "), "'")
			var err error
			if g, err = (Consent{Grant: []string{word}}).Apply(w.o.Plugin.Manifest, g); err != nil {
				t.Fatalf("%s %s: fix %q: %v", c, r, e.Fix, err)
			}
			if strings.Contains(word, "*") {
				t.Errorf("%s %s: fix %q is wider than the use", c, r, e.Fix)
			}
		}
	}
	w.o.Granted = g.Granted
	b = w.box(t)
	for c, list := range uses {
		for _, r := range list {
			if err := b.Check(c, r); err != nil {
				t.Errorf("after its fix: %v", err)
			}
		}
	}
}

func TestPolicyCeiling(t *testing.T) {
	w := newWorld(t, req("net.http", "https://**.example.com"), req("registry.pull", "**"), req("plugins.call", "porter/pull"), req("fs.read", "cwd:**", "args"))
	w.o.Policy = &Policy{
		Max:  map[hostabi.Capability][]string{"net.http": {"https://a.example.com"}, "plugins.call": {}, "fs.read": {"cwd:dist/**"}},
		Deny: map[hostabi.Capability][]string{"registry.pull": {"ghcr.io/secret/**"}}, Memory: 64 << 20, Time: time.Minute,
	}
	w.o.Invocation.Typed = []plugin.Typed{{Index: 0, Type: "path", Mode: "read", Value: "top.txt"}, {Index: 1, Type: "path", Mode: "read", Value: "dist/a.txt"}}
	w.o.Invocation.Args = []string{"top.txt", "dist/a.txt"}
	b := w.box(t)
	for _, c := range []struct {
		cap      hostabi.Capability
		resource string
		want     hostabi.Reason
	}{
		{"net.http", "https://a.example.com", ""},
		{"net.http", "https://b.example.com", hostabi.ReasonPolicyDenied},
		{"registry.pull", "ghcr.io/acme/x", ""},
		{"registry.pull", "ghcr.io/secret/x", hostabi.ReasonPolicyDenied},
		{"plugins.call", "porter/pull", hostabi.ReasonPolicyDenied},
		{"fs.read", filepath.Join(w.cwd, "dist/a.txt"), ""},
		{"fs.read", filepath.Join(w.cwd, "top.txt"), hostabi.ReasonPolicyDenied},
	} {
		if got := hostabi.ReasonOf(b.Check(c.cap, c.resource)); got != c.want {
			t.Errorf("%s %s: %q, want %q", c.cap, c.resource, got, c.want)
		}
	}
	if b.Has("plugins.call") || !b.Has("net.http") {
		t.Error("Has ignores the ceiling")
	}
	if l := b.Limits(); l.Memory != 64<<20 || l.Time != time.Minute {
		t.Errorf("limits %+v", l)
	}
	for _, m := range b.Mounts() {
		if !strings.HasPrefix(m.Host, filepath.Join(w.cwd, "dist")) {
			t.Errorf("mount beyond the ceiling: %+v", m)
		}
	}
	if len(b.Mounts()) == 0 {
		t.Error("no mount within the ceiling")
	}
	w.o.Policy.Grants, w.o.Granted = "policy", nil
	b = w.box(t)
	if err := b.Check("net.http", "https://a.example.com"); err != nil {
		t.Errorf("the policy grants: %v", err)
	}
	if err := b.Check("registry.pull", "ghcr.io/acme/x"); hostabi.ReasonOf(err) != hostabi.ReasonPolicyDenied {
		t.Errorf("only max counts: %v", err)
	}
}

func TestWildcard(t *testing.T) {
	w := newWorld(t, req("registry.pull", "**", "args"), req("net.http", "https://**.example.com", "private:https://nas.example.com", "http://10.0.0.1", "https://lit.example.com", "args"))
	w.o.Granted["registry.pull"] = Scopes{Scope: []string{"**", "localhost:5000/**", "args"}}
	w.o.Invocation.Typed = []plugin.Typed{{Type: "ref", Value: "127.0.0.1:5001/x:1"}, {Type: "url", Value: "http://192.168.0.1/"}, {Type: "url", Value: "http://intra.example/"}}
	b := w.box(t)
	for _, c := range []struct {
		cap      hostabi.Capability
		resource string
		want     bool
	}{
		{"registry.pull", "ghcr.io/x", true},
		{"registry.pull", "localhost:5000/x", false},
		{"registry.pull", "127.0.0.1:5001/x", false},
		{"registry.push", "x.io/x", true},
		{"net.http", "https://a.example.com", true},
		{"net.http", "https://lit.example.com", true},
		{"net.http", "https://nas.example.com/x", false},
		{"net.http", "http://10.0.0.1", false},
		{"net.http", "http://192.168.0.1/x", false},
		{"net.http", "http://intra.example/", true},
		{"net.http", "https://other.example", true},
	} {
		if got := b.Wildcard(c.cap, c.resource); got != c.want {
			t.Errorf("%s %s: %t", c.cap, c.resource, got)
		}
	}
	w.o.Granted["net.http"] = Scopes{Scope: []string{"https://**.example.com"}}
	if !w.box(t).Wildcard("net.http", "https://nas.example.com") {
		t.Error("private: of the manifest alone opens private addresses")
	}
}

func TestSettingsInScopes(t *testing.T) {
	for _, c := range []struct {
		scope, value string
		yes, no      string
		private      bool
		bad          bool
	}{
		{scope: "private:${settings.s3.endpoint}", value: "http://minio.corp:9000", yes: "http://minio.corp:9000/b", no: "https://minio.corp:9000", private: true},
		{scope: "private:${settings.s3.endpoint}", value: "http://10.1.2.3:9000/", yes: "http://10.1.2.3:9000", no: "http://10.1.2.4:9000", private: true},
		{scope: "${settings.s3.endpoint}", value: "s3.example.com", yes: "https://s3.example.com", no: "http://s3.example.com"},
		{scope: "https://${settings.s3.host}:9443", value: "s3.example.com", yes: "https://s3.example.com:9443", no: "https://s3.example.com"},
		{scope: "${settings.s3.endpoint}", value: "", no: "https://s3.example.com"},
		{scope: "${settings.s3.endpoint}", value: "https://*.example.com", bad: true},
		{scope: "${settings.s3.endpoint}", value: "https://x.example.com/path", bad: true},
		{scope: "${settings.s3.endpoint}", value: "https://u@x.example.com", bad: true},
		{scope: "https://${settings.s3.host}", value: "evil.example/..", bad: true},
		{scope: "https://${settings.s3.host}", value: "a.example:1@b.example", bad: true},
		{scope: "${settings.s3.endpoint}", value: "private:http://x.example", bad: true},
	} {
		w := newWorld(t, req("net.http", c.scope))
		w.o.Settings = func(key string) (string, bool) {
			return c.value, strings.HasPrefix(key, "settings.s3.") && c.value != ""
		}
		b, err := NewBox(w.o)
		if c.bad {
			if hostabi.ReasonOf(err) != hostabi.ReasonConfigValue {
				t.Errorf("%s = %s: %v", c.scope, c.value, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s = %s: %v", c.scope, c.value, err)
			continue
		}
		if c.yes != "" && (b.Check("net.http", c.yes) != nil || b.Wildcard("net.http", c.yes) == c.private) {
			t.Errorf("%s = %s: %s is refused, or private is not %t", c.scope, c.value, c.yes, c.private)
		}
		if b.Check("net.http", c.no) == nil {
			t.Errorf("%s = %s: %s is allowed", c.scope, c.value, c.no)
		}
	}
}

func TestEnv(t *testing.T) {
	host := []string{"AWS_REGION=eu", "AWS_SECRET_ACCESS_KEY=canary", "SECRET_TOKEN=canary", "DS_SIGNING_KEY=canary", "PATH=/bin", "=C:=x", "novalue", "AWS_X\x00=1", "HOME=/h"}
	w := newWorld(t, req("env.read", "AWS_*", "HOME"))
	w.o.Denied["env.read"] = []string{"AWS_SECRET_*"}
	b := w.box(t)
	if got := b.Env(host); !reflect.DeepEqual(got, []string{"AWS_REGION=eu", "HOME=/h"}) {
		t.Errorf("got %q", got)
	}
	if len(b.Denials()) != 0 {
		t.Error("picking is recorded as denials")
	}
	w.o.Granted = nil
	if got := w.box(t).Env(host); got != nil {
		t.Errorf("without a grant: %q", got)
	}
}

func TestLimitsQuotasGrants(t *testing.T) {
	w := newWorld(t)
	if l := w.box(t).Limits(); l != (plugin.Limits{Memory: 256 << 20, Tmp: 1 << 30, HTTPConcurrency: 8}) {
		t.Errorf("defaults %+v", l)
	}
	w.o.Plugin.Manifest.Limits = plugin.Limits{Memory: 4 << 30, Time: time.Hour, Tmp: 5, HTTPConcurrency: 2}
	w.o.MemoryMax, w.o.TimeMax = 1<<30, int64(time.Minute)
	if l := w.box(t).Limits(); l != (plugin.Limits{Memory: 1 << 30, Time: time.Minute, Tmp: 5, HTTPConcurrency: 2}) {
		t.Errorf("capped %+v", l)
	}

	cw := plugin.Request{Cap: "cache.write", Scope: []string{"own"}, Quota: 1 << 30, Reason: "r"}
	net := plugin.Request{Cap: "net.http", Scope: []string{"https://**.example.com"}, Sockets: true, Reason: "r"}
	w = newWorld(t, cw, net, req("state.write", "own"), req("fs.write", "cwd:**"), req("fs.read", "args"))
	w.o.Granted["cache.write"] = Scopes{Scope: []string{"own"}, Quota: 1 << 20}
	w.o.Granted["net.http"] = Scopes{Scope: []string{"https://a.example.com"}}
	w.o.Denied["fs.write"] = []string{"**"}
	b := w.box(t)
	for c, want := range map[hostabi.Capability]int64{"cache.write": 1 << 20, "state.write": 1 << 20, "fs.write": 4 << 30, "fs.read": 0, "registry.push": 0} {
		if got := b.Quota(c); got != want {
			t.Errorf("quota of %s is %d, want %d", c, got, want)
		}
	}
	if b.Sockets() {
		t.Error("sockets without a grant of them")
	}
	want := []hostabi.Grant{
		{Cap: "net.http", Allow: []string{"https://a.example.com"}},
		{Cap: "fs.read", Allow: []string{"args"}},
		{Cap: "cache.write", Allow: []string{"own"}, Quota: 1 << 20},
		{Cap: "state.write", Allow: []string{"own"}, Quota: 1 << 20},
	}
	if got := b.Grants(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	w.o.Granted["net.http"] = Scopes{Scope: []string{"https://a.example.com"}, Sockets: true}
	if !w.box(t).Sockets() {
		t.Error("no sockets with a grant of them")
	}
}

func TestCompletion(t *testing.T) {
	w := newWorld(t, req("state.write", "own"), req("state.read", "own"), req("fs.write", "cwd:**"))
	w.o.Invocation.Kind = plugin.KindComplete
	b := w.box(t)
	if got := hostabi.ReasonOf(b.Check("state.write", "s3:k")); got != hostabi.ReasonCompletion {
		t.Errorf("state.write: %q", got)
	}
	if b.Check("state.read", "s3:k") != nil || b.Has("fs.write") || len(b.Mounts()) != 0 {
		t.Error("completion reads, and does not write")
	}
}

func TestInherited(t *testing.T) {
	caller := newWorld(t, req("fs.read", "cwd:dist/**"), req("registry.pull", "ghcr.io/acme/**"), req("cache.read", "any"))
	caller.o.Denied["fs.read"] = []string{"cwd:dist/secret/**"}
	callee := newWorld(t, req("fs.read", "args"), req("fs.write", "args"), req("registry.pull", "args"), req("net.http", "args"), req("cache.read", "args"))
	callee.home, callee.cwd, callee.o.Home, callee.o.Invocation.Dir = caller.home, caller.cwd, caller.home, caller.cwd
	callee.o.Invocation.Caller = "porter"
	callee.o.Invocation.Args = []string{"dist/a.txt", "top.txt", "dist", "dist/sub", "ghcr.io/acme/app:1", "ghcr.io/other/app:1", "https://x.example", digestA}
	callee.o.Invocation.Typed = []plugin.Typed{
		{Index: 0, Type: "path", Mode: "readwrite", Value: "dist/a.txt"},
		{Index: 1, Type: "path", Mode: "read", Value: "top.txt"},
		{Index: 2, Type: "path", Mode: "read", Value: "dist"},
		{Index: 3, Type: "path", Mode: "read", Value: "dist/sub"},
		{Index: 4, Type: "ref", Value: "ghcr.io/acme/app:1"},
		{Index: 5, Type: "ref", Value: "ghcr.io/other/app:1"},
		{Index: 6, Type: "url", Value: "https://x.example"},
		{Index: 7, Type: "digest", Value: digestA},
	}
	callee.o.Inherited = caller.box(t)
	b := callee.box(t)
	for _, c := range []struct {
		cap      hostabi.Capability
		resource string
		want     bool
	}{
		{"fs.read", "dist/a.txt", true},
		{"fs.read", "dist/sub/b.txt", true},
		{"fs.read", "top.txt", false},
		{"fs.read", "dist/other", false}, // the caller may not use all of dist
		{"fs.write", "dist/a.txt", false},
		{"registry.pull", "ghcr.io/acme/app", true},
		{"registry.pull", "ghcr.io/other/app", false},
		{"net.http", "https://x.example", false},
		{"cache.read", digestA, true},
	} {
		r := c.resource
		if strings.HasPrefix(string(c.cap), "fs.") {
			r = filepath.Join(caller.cwd, r)
		}
		if got := b.Allowed(c.cap, r); got != c.want {
			t.Errorf("%s %s: %t, want %t", c.cap, c.resource, got, c.want)
		}
	}
	if len(callee.o.Inherited.Denials()) != 0 {
		t.Error("the caller's box records denials of the callee")
	}
}

func TestLegacyRequests(t *testing.T) {
	w := newWorld(t)
	w.o.Plugin.Manifest = &plugin.Manifest{Name: "s3", Run: plugin.Run{Native: &plugin.RunNative{Mode: plugin.Protocol1}}}
	w.o.Granted = map[hostabi.Capability]Scopes{
		"config.read": {Scope: []string{"own", "registry.**"}}, "secret.read": {Scope: []string{"registry:ghcr.io"}}, "env.read": {Scope: []string{"*_PROXY", "AWS_*"}}, "plugins.call": {Scope: []string{"*/*"}},
	}
	b := w.box(t)
	for _, c := range []struct {
		cap      hostabi.Capability
		resource string
		want     bool
	}{
		{"config.read", "settings.s3.x", true},
		{"config.read", "registry.default", true},
		{"config.read", "proxy.no_proxy", false},
		{"config.read", "nats.token", false},
		{"secret.read", "registry:ghcr.io", true},
		{"secret.read", "registry:docker.io", false},
		{"env.read", "HTTPS_PROXY", true},
		{"env.read", "HOME", false},
		{"plugins.call", "porter/pull", true},
		{"fs.read", "/etc/passwd", false},
	} {
		if got := b.Allowed(c.cap, c.resource); got != c.want {
			t.Errorf("%s %s: %t", c.cap, c.resource, got)
		}
	}
	// A program that contains the cookie, without a manifest, is one too.
	p := &plugin.Installed{Name: "old", Manifest: &plugin.Manifest{Name: "old"}, Programs: []plugin.Program{{Kind: plugin.Native, Mode: plugin.Protocol1}}}
	if len(Requests(p)) == 0 {
		t.Error("a protocol 1 program has no requests")
	}
	p.Programs[0].Mode = plugin.Direct
	if len(Requests(p)) != 0 {
		t.Error("a hand-placed file without a manifest asks for something")
	}
}

// TestCalledByLegacy: what a plugin of protocol 1 calls may use the paths that the user typed, and no others.
func TestCalledByLegacy(t *testing.T) {
	caller := newWorld(t)
	caller.o.Plugin.Manifest = &plugin.Manifest{Name: "porter", Run: plugin.Run{Native: &plugin.RunNative{Mode: plugin.Protocol1}}}
	caller.o.Invocation.Args = []string{"pull", "--out=./dist", "a/b.txt"}
	called := func(typed string) *Box {
		w := newWorld(t, req("fs.read", "args"))
		w.o.Granted = map[hostabi.Capability]Scopes{"fs.read": {Scope: []string{"args"}}}
		w.cwd, w.o.Invocation.Dir = caller.cwd, caller.cwd
		w.o.Invocation.Caller, w.o.Inherited = "porter", caller.box(t)
		w.o.Invocation.Typed = []plugin.Typed{{Type: "path", Mode: "read", Value: typed}}
		return w.box(t)
	}
	for typed, want := range map[string]bool{"dist/x/y": true, "dist": true, "a/b.txt": true, "a": false, "distant": false, "pull": false, "../dist": false, "/etc/passwd": false} {
		path := typed
		if !filepath.IsAbs(path) {
			path = filepath.Join(caller.cwd, typed)
		}
		if got := called(typed).Allowed(hostabi.FSRead, path); got != want {
			t.Errorf("%s: %t, want %t", typed, got, want)
		}
	}
}

func TestNewBoxRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w *world)
		want   hostabi.Reason
	}{
		"bad request": {func(w *world) { w.o.Plugin.Manifest.Capabilities = []plugin.Request{req("net.http", "**")} }, hostabi.ReasonManifest},
		"legacy scope": {func(w *world) {
			w.o.Plugin.Manifest.Capabilities = []plugin.Request{req("secret.read", "registry:x.io")}
		}, hostabi.ReasonManifest},
		"bad grant":       {func(w *world) { w.o.Granted["fs.read"] = Scopes{Scope: []string{"abs:/"}} }, hostabi.ReasonUsage},
		"bad deny":        {func(w *world) { w.o.Denied["fs.read"] = []string{"x"} }, hostabi.ReasonUsage},
		"bad ceiling":     {func(w *world) { w.o.Policy = &Policy{Max: map[hostabi.Capability][]string{"fs.read": {"x"}}} }, hostabi.ReasonPolicyFile},
		"bad policy deny": {func(w *world) { w.o.Policy = &Policy{Deny: map[hostabi.Capability][]string{"fs.read": {"x"}}} }, hostabi.ReasonPolicyFile},
		"typed ds": {func(w *world) {
			w.o.Invocation.Typed = []plugin.Typed{{Type: "path", Value: "../.config/ds/config.yaml"}}
		}, hostabi.ReasonCapabilityDenied},
		"typed ds by link": {func(w *world) {
			_ = os.Symlink(filepath.Join(w.home, ".config/ds"), filepath.Join(w.cwd, "link"))
			w.o.Invocation.Typed = []plugin.Typed{{Type: "path", Value: "link"}}
		}, hostabi.ReasonCapabilityDenied},
		"typed proc": {func(w *world) { w.o.Invocation.Typed = []plugin.Typed{{Type: "path", Value: "/proc/self/environ"}} }, hostabi.ReasonCapabilityDenied},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, req("fs.read", "args", "cwd:**"))
			c.change(w)
			_, err := NewBox(w.o)
			if got := hostabi.ReasonOf(err); got != c.want {
				t.Fatalf("got %q, want %q: %v", got, c.want, err)
			}
			if name == "typed ds" && !strings.Contains(err.Error(), "plugins get no access to ~/.config/ds") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestConcurrentUse(t *testing.T) {
	w := newWorld(t, req("state.read", "own"))
	b := w.box(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 400 {
				if b.Check("state.read", "s3:k") != nil || b.Check("state.read", fmt.Sprintf("x%d:k%d", i, n)) == nil {
					t.Error("wrong decision")
					return
				}
				_, _ = b.Denials(), b.Grants()
			}
		})
	}
	wg.Wait()
	if n := len(b.Denials()); n != maxDenials {
		t.Errorf("%d denials are kept, want at most %d", n, maxDenials)
	}
}

func TestQuoteWord(t *testing.T) {
	for in, want := range map[string]string{"a=b": "a=b", "a*": "'a*'", "it's": `'it'\''s'`, "": "''", "${x}": "'${x}'"} {
		if got := Quote(in); got != want {
			t.Errorf("%q: got %s", in, got)
		}
	}
}

func TestInWords(t *testing.T) {
	got := []string{
		InWords("config.read", []string{"own"}), InWords("fs.read", []string{"args", "cwd:dist/**"}), InWords("fs.read", []string{"cwd:**", "home:x/*.txt", "abs:/usr/share/**"}),
		InWords("net.http", []string{"private:https://x.y", "https://a.b", "args"}), InWords("registry.pull", []string{"**", "args"}), InWords("cache.read", []string{"any", "artifact:ghcr.io/**", "args"}),
	}
	want := []string{
		"its own settings", "files you name, ./dist", "the whole working directory, ~/x/*.txt, /usr/share",
		"https://x.y (also private addresses), https://a.b, URLs you name", "any registry, references you name", "everything in the cache, pulled from ghcr.io/**, digests and references you name",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
