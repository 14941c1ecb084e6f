package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/plugin"
)

const signerA = "ed25519:9f3c000000000000000000000000000000000000000000000000000000000000"

func testStore(t *testing.T) *Store {
	t.Helper()
	dir := t.TempDir()
	s, err := Open(StoreOptions{Path: filepath.Join(dir, "config", "grants.yaml"), PolicyPath: filepath.Join(dir, "policy.yaml"), Home: dir})
	if err != nil {
		t.Fatal(err)
	}
	s.adminOnly = func(string, *os.File) error { return nil }
	s.now = func() time.Time { return time.Date(2026, 11, 22, 9, 0, 0, 5, time.UTC) }
	return s
}

func installed(repository, signer string, reqs ...plugin.Request) *plugin.Installed {
	return &plugin.Installed{
		Name: "s3", Version: "1.4.0", Repository: repository, Signer: signer, Index: digestA,
		Manifest: &plugin.Manifest{APIVersion: plugin.APIVersion, Name: "s3", Version: "1.4.0", Capabilities: reqs},
	}
}

func optional(r plugin.Request) plugin.Request { r.Optional = true; return r }

func TestGrantsFile(t *testing.T) {
	s := testStore(t)
	g := Grant{
		Key: Key{Plugin: "ghcr.io/delivery-station/s3", Signer: signerA},
		Granted: map[hostabi.Capability]Scopes{
			"net.http": {Scope: []string{"https://**.amazonaws.com"}, Sockets: true}, "fs.read": {Scope: []string{"args"}},
			"cache.write": {Scope: []string{"own"}, Quota: 1 << 30},
		},
		Denied:        map[hostabi.Capability][]string{"registry.pull": {"**"}},
		RequestDigest: digestA,
	}
	unsigned := Grant{Key: Key{Plugin: "ghcr.io/a/b", Signer: "none", Index: digestA}, Granted: map[hostabi.Capability]Scopes{"term.prompt": {Scope: []string{"line"}}}}
	local := Grant{Key: Key{Plugin: "dir:/home/u/x", Signer: "none"}, Granted: map[hostabi.Capability]Scopes{"term.prompt": {Scope: []string{"line"}}}}
	for _, g := range []Grant{g, unsigned, local} {
		if err := s.Grant(t.Context(), g); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(s.o.Path)
	if err != nil {
		t.Fatal(err)
	}
	want := `version: 1
grants:
  - plugin: dir:/home/u/x
    signer: none
    granted:
      term.prompt:
        - line
    at: "2026-11-22T09:00:00Z"
  - plugin: ghcr.io/a/b
    signer: none
    index: ` + digestA + `
    granted:
      term.prompt:
        - line
    at: "2026-11-22T09:00:00Z"
  - plugin: ghcr.io/delivery-station/s3
    signer: ` + signerA + `
    granted:
      net.http:
        scope:
          - https://**.amazonaws.com
        sockets: true
      fs.read:
        - args
      cache.write:
        scope:
          - own
        quota: 1GiB
    denied:
      registry.pull:
        - "**"
    request_digest: ` + digestA + `
    at: "2026-11-22T09:00:00Z"
`
	if string(b) != want {
		t.Errorf("got:\n%s", b)
	}
	for name, mode := range map[string]os.FileMode{s.o.Path: 0o600, s.o.Path + ".bak": 0o600, filepath.Dir(s.o.Path): 0o700} {
		if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%s: %v %v, want mode %o", name, fi, err, mode)
		}
	}
	all, err := s.All()
	if err != nil || len(all) != 3 {
		t.Fatal(all, err)
	}
	g.At = s.now().Truncate(time.Second)
	if got, ok, err := s.LookupKey(g.Key); err != nil || !ok || !reflect.DeepEqual(got, g) {
		t.Errorf("got  %+v %v\nwant %+v", got, err, g)
	}
	if err := s.Purge(t.Context(), "ghcr.io/a/b"); err != nil {
		t.Fatal(err)
	}
	if all, _ := s.All(); len(all) != 2 {
		t.Errorf("after purge: %+v", all)
	}
	if bak, _ := os.ReadFile(s.o.Path + ".bak"); string(bak) != want {
		t.Error("grants.yaml.bak is not the previous file")
	}
	// The same grant once more changes nothing, neither its date nor the previous file.
	now, _ := os.ReadFile(s.o.Path)
	s.now = func() time.Time { return time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC) }
	if err := s.Grant(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(s.o.Path); string(again) != string(now) {
		t.Errorf("was\n%s\nis\n%s", now, again)
	}
	if bak, _ := os.ReadFile(s.o.Path + ".bak"); string(bak) != want {
		t.Error("grants.yaml.bak was written for nothing")
	}
}

func TestDesignExampleParses(t *testing.T) {
	all, err := parseGrants("grants.yaml", []byte(`version: 1
grants:
  - plugin: ghcr.io/delivery-station/s3
    signer: ed25519:9f3c
    granted: {net.http: ["https://**.amazonaws.com"], fs.read: [args], cache.write: {scope: [own], quota: 1GiB}}
    denied:  {registry.pull: ["**"]}
    request_digest: `+digestA+`
    at: 2026-11-22T09:00:00Z
`))
	if err != nil || len(all) != 1 || all[0].Granted["cache.write"].Quota != 1<<30 || all[0].Denied["registry.pull"][0] != "**" || all[0].At.Year() != 2026 {
		t.Errorf("got %+v %v", all, err)
	}
}

func TestDamagedGrantsAreNeverRewritten(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"syntax":        {"version: 1\ngrants: [", "grants.yaml:3:1"},
		"version":       {"version: 2\n", "grants.yaml:1:10: version is 2, this ds reads 1"},
		"no version":    {"grants: []\n", "grants.yaml:1:1: version is required"},
		"unknown":       {"version: 1\ngrant: []\n", "grants.yaml:2:1: unknown key \"grant\" in the grants file; did you mean grants?"},
		"unknown cap":   {"version: 1\ngrants: [{plugin: a, signer: b, granted: {gpu: []}}]\n", "grants.yaml:2:43: unknown key \"gpu\""},
		"no plugin":     {"version: 1\ngrants: [{signer: b}]\n", "grants.yaml:2:10: plugin is required"},
		"no signer":     {"version: 1\ngrants: [{plugin: b}]\n", "signer is required"},
		"no index":      {"version: 1\ngrants: [{plugin: b, signer: none}]\n", "index is required without a signer"},
		"bad digest":    {"version: 1\ngrants: [{plugin: b, signer: none, index: x}]\n", "grants.yaml:2:43: index: digest"},
		"bad time":      {"version: 1\ngrants: [{plugin: b, signer: x, at: today}]\n", "grants.yaml:2:37: at is not a time"},
		"bad quota":     {"version: 1\ngrants: [{plugin: b, signer: x, granted: {fs.write: {quota: x}}}]\n", "quota: \"x\" is not a size"},
		"bad sockets":   {"version: 1\ngrants: [{plugin: b, signer: x, granted: {net.http: {sockets: x}}}]\n", "sockets is \"x\""},
		"bad scope":     {"version: 1\ngrants: [{plugin: b, signer: x, granted: {net.http: [{}]}}]\n", "want a string"},
		"a list":        {"- a\n", "grants.yaml:1:1: the grants file must be a map"},
		"grants no map": {"version: 1\ngrants: [x]\n", "grants.yaml:2:10: a grant must be a map"},
		"grants a map":  {"version: 1\ngrants: {}\n", "grants must be a list"},
	} {
		t.Run(name, func(t *testing.T) {
			s := testStore(t)
			if err := os.MkdirAll(filepath.Dir(s.o.Path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(s.o.Path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			p := installed("ghcr.io/a/s3", signerA, req("fs.read", "args"))
			_, boxErr := s.Box(t.Context(), p, nil)
			for what, err := range map[string]error{"Box": boxErr, "Grant": s.Grant(t.Context(), Grant{Key: KeyOf(p)}), "Revoke": s.Revoke(t.Context(), p), "Purge": s.Purge(t.Context(), "x")} {
				if hostabi.ReasonOf(err) != hostabi.ReasonConfigSyntax || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s: got %v, want %s", what, err, c.want)
				}
			}
			if b, _ := os.ReadFile(s.o.Path); string(b) != c.text {
				t.Errorf("the file was rewritten: %q", b)
			}
			if _, err := os.Stat(s.o.Path + ".bak"); err == nil {
				t.Error("a .bak was written")
			}
			if _, err := s.Box(t.Context(), installed("ghcr.io/a/s3", signerA), nil); err != nil {
				t.Errorf("a plugin that asks for nothing does not run: %v", err)
			}
		})
	}
}

func TestConcurrentEdits(t *testing.T) {
	s := testStore(t)
	other, err := Open(s.o) // as another process would
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 4 {
		for _, st := range []*Store{s, other} {
			wg.Go(func() {
				k := Key{Plugin: fmt.Sprintf("dir:/p%d", i), Signer: "none"}
				for n := range 5 {
					err := st.Edit(t.Context(), k, func(g *Grant) error {
						if g.Granted == nil {
							g.Granted = make(map[hostabi.Capability]Scopes)
						}
						old := g.Granted["config.read"]
						g.Granted["config.read"] = Scopes{Scope: append(old.Scope, fmt.Sprintf("k%d", n))}
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	all, err := s.All()
	if err != nil || len(all) != 4 {
		t.Fatal(len(all), err)
	}
	for _, g := range all {
		if n := len(g.Granted["config.read"].Scope); n != 10 {
			t.Errorf("%s has %d edits, want 10", g.Plugin, n)
		}
	}
}

func TestEditFailures(t *testing.T) {
	s := testStore(t)
	k := Key{Plugin: "dir:/x", Signer: "none"}
	boom := errors.New("boom")
	if err := s.Edit(t.Context(), k, func(*Grant) error { return hostabi.Errorf(hostabi.ReasonUsage, "%w", boom) }); !errors.Is(err, boom) || hostabi.ReasonOf(err) != hostabi.ReasonUsage {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(s.o.Path); err == nil {
		t.Error("a failed edit leaves a file")
	}
	for _, k := range []Key{{}, {Plugin: "x"}, {Plugin: "ghcr.io/x", Signer: "none"}} {
		if err := s.Grant(t.Context(), Grant{Key: k}); hostabi.ReasonOf(err) != hostabi.ReasonInternal {
			t.Errorf("%+v: %v", k, err)
		}
	}
	unlock, err := atomicfile.OS().Lock(t.Context(), s.o.Path+".lock")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Purge(ctx, "x"); hostabi.ReasonOf(err) != hostabi.ReasonLockHeld {
		t.Errorf("locked: %v", err)
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
	if _, err := Open(StoreOptions{Path: "grants.yaml"}); hostabi.ReasonOf(err) != hostabi.ReasonUsage {
		t.Errorf("relative path: %v", err)
	}
	s.o.Path = filepath.Join(s.o.Home, "file", "grants.yaml")
	if err := os.WriteFile(filepath.Join(s.o.Home, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context(), "x"); hostabi.ReasonOf(err) != hostabi.ReasonConfigFile {
		t.Errorf("no directory: %v", err)
	}
	if _, err := s.All(); hostabi.ReasonOf(err) != hostabi.ReasonConfigFile {
		t.Errorf("unreadable: %v", err)
	}
}

func TestStoreBox(t *testing.T) {
	s := testStore(t)
	inv := &plugin.Invocation{Dir: s.o.Home}
	p := installed("ghcr.io/a/s3", signerA, req("fs.read", "args"), req("net.http", "https://**.x.example", "https://b.example"), optional(req("env.read", "AWS_*")))
	_, err := s.Box(t.Context(), p, inv)
	e := hostabi.AsError(err)
	if e == nil || e.Reason != hostabi.ReasonGrantMissing || e.Msg != "s3 1.4.0 asks for fs.read, net.http, not granted" ||
		e.Fix != "ds plugin grant s3 fs.read=args 'net.http=https://**.x.example' net.http=https://b.example" {
		t.Fatalf("got %v fix %q", err, e.Fix)
	}

	g, err := Consent{Grant: []string{"fs.read=args", "net.http=https://**.x.example"}, Deny: []string{"net.http=https://b.example"}}.Apply(p.Manifest, Grant{Key: KeyOf(p)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Grant(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	b, err := s.Box(t.Context(), p, inv)
	if err != nil {
		t.Fatal(err)
	}
	if b.Check("net.http", "https://a.x.example") != nil || b.Check("net.http", "https://b.example") == nil || b.Has("env.read") {
		t.Error("the box is not what was granted")
	}

	for name, other := range map[string]*plugin.Installed{
		"other source":    installed("evil.io/a/s3", signerA, p.Manifest.Capabilities...),
		"other signer":    installed("ghcr.io/a/s3", "ed25519:1111", p.Manifest.Capabilities...),
		"unsigned":        installed("ghcr.io/a/s3", "none", p.Manifest.Capabilities...),
		"a wider upgrade": installed("ghcr.io/a/s3", signerA, append(p.Manifest.Capabilities[:3:3], req("registry.push", "args"))...),
	} {
		if _, err := s.Box(t.Context(), other, inv); hostabi.ReasonOf(err) != hostabi.ReasonGrantMissing {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Box(t.Context(), installed("ghcr.io/a/s3", signerA, append(p.Manifest.Capabilities[:3:3], optional(req("registry.push", "args")))...), inv); err != nil {
		t.Errorf("an upgrade with a new optional entry: %v", err)
	}
	if _, err := s.Box(t.Context(), &plugin.Installed{Name: "hello", HandPlaced: true, Repository: "file:/x/ds-hello", Manifest: &plugin.Manifest{Name: "hello"}}, inv); err != nil {
		t.Errorf("a hand-placed file without a manifest: %v", err)
	}
	hand := installed("file:/x/ds-s3", "", req("fs.read", "args"))
	hand.HandPlaced = true
	if _, err := s.Box(t.Context(), hand, inv); hostabi.ReasonOf(err) != hostabi.ReasonGrantMissing {
		t.Errorf("a hand-placed plugin that asks for something: %v", err)
	}

	if err := s.Revoke(t.Context(), p, "net.http=https://**.x.example"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Box(t.Context(), p, inv); hostabi.ReasonOf(err) != hostabi.ReasonGrantMissing {
		t.Errorf("after revoke: %v", err)
	}
	for _, words := range [][]string{{"net.http=https://**.x.example"}, {"manifest"}, {"x"}, {"fs.read=bad"}} {
		if err := s.Revoke(t.Context(), p, words...); hostabi.ReasonOf(err) != hostabi.ReasonUsage {
			t.Errorf("revoke %q: %v", words, err)
		}
	}
	if err := s.Revoke(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.Lookup(p); ok || err != nil {
		t.Errorf("after revoking all: %t %v", ok, err)
	}
}

func TestStoreBoxNested(t *testing.T) {
	s := testStore(t)
	p := installed("dir:/x", "none", req("registry.pull", "args"))
	s.o.Canonical = func(string) (string, error) { return "ghcr.io/acme/app", nil }
	if err := s.Grant(t.Context(), Grant{Key: KeyOf(p), Granted: map[hostabi.Capability]Scopes{"registry.pull": {Scope: []string{"args"}}}}); err != nil {
		t.Fatal(err)
	}
	inv := &plugin.Invocation{Dir: "/", Args: []string{"x"}, Typed: []plugin.Typed{{Type: "ref", Value: "x"}}}
	allowed := func(ctx context.Context) bool {
		b, err := s.Box(ctx, p, inv)
		if err != nil {
			t.Fatal(err)
		}
		return b.Allowed("registry.pull", "ghcr.io/acme/app")
	}
	if !allowed(t.Context()) {
		t.Error("typed at top level")
	}
	inv.Caller = "porter"
	if allowed(t.Context()) {
		t.Error("a caller that is not known passes its words on")
	}
	w := newWorld(t, req("registry.pull", "ghcr.io/acme/**"))
	if !allowed(WithCaller(t.Context(), w.box(t))) {
		t.Error("the caller may pull it")
	}
	if allowed(WithCaller(t.Context(), newWorld(t).box(t))) {
		t.Error("the caller may not pull it")
	}
}

func TestPolicyFile(t *testing.T) {
	s := testStore(t)
	p := installed("ghcr.io/acme/s3", signerA, req("net.http", "https://x.example"))
	write := func(text string) {
		if err := os.WriteFile(s.o.PolicyPath, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, text string
		change     func(p *plugin.Installed)
		want       string // in the POLICY_FILE error; empty = allowed
	}{
		{"source", "version: 1\nsources: {allow: [\"ghcr.io/acme/**\"]}", nil, ""},
		{"other source", "version: 1\nsources: {allow: [\"ghcr.io/other/**\"]}", nil, "plugins from ghcr.io/acme/s3 are refused by"},
		{"denied source", "version: 1\nsources: {deny: [\"ghcr.io/**\"]}", nil, "plugins from ghcr.io/acme/s3 are refused"},
		{"local under allow", "version: 1\nsources: {allow: [\"ghcr.io/acme/**\"]}", func(p *plugin.Installed) { p.Repository = "dir:/home/u/x" }, "plugins from dir:/home/u/x are refused"},
		{"local allowed", "version: 1\nsources: {allow: [\"dir:/home/**\"]}", func(p *plugin.Installed) { p.Repository = "dir:/home/u/x" }, ""},
		{"file denied", "version: 1\nsources: {deny: [\"file:/tmp/**\"]}", func(p *plugin.Installed) { p.Repository = "file:/tmp/x/ds-s3" }, "are refused"},
		{"all denied", "version: 1\nsources: {deny: [\"**\"]}", nil, "are refused"},
		{"signer", "version: 1\nsigners: [\"" + signerA + "\"]", nil, ""},
		{"other signer", "version: 1\nsigners: [\"ed25519:1\"]", nil, "plugins signed by ed25519:9f3c"},
		{"unsigned", "version: 1\nrequire_signed: true", func(p *plugin.Installed) { p.Signer = "none" }, "unsigned plugins are refused"},
		{"legacy", "version: 1\nlegacy: deny", func(p *plugin.Installed) {
			p.Manifest = &plugin.Manifest{Run: plugin.Run{Native: &plugin.RunNative{Mode: plugin.Protocol1}}}
		}, "protocol 1 plugins are refused"},
		{"native", "version: 1\nnative: deny", func(p *plugin.Installed) { p.Program = &plugin.Program{Kind: plugin.Native} }, "native plugins are refused"},
		{"wasm", "version: 1\nnative: deny", func(p *plugin.Installed) { p.Program = &plugin.Program{Kind: plugin.WASM} }, ""},
		{"syntax", "version: 1\nsources: [", nil, "policy.yaml:3:1"},
		{"unknown", "version: 1\nlegcy: deny", nil, "policy.yaml:2:1: unknown key \"legcy\" in the policy; did you mean legacy?"},
		{"no version", "legacy: deny", nil, "version is required; no plugin was started"},
		{"bad word", "version: 1\nnative: never", nil, "native is \"never\", want one of allow, confined, deny"},
		{"bad scope", "version: 1\ncapabilities: {max: {net.http: [x]}}", nil, "net.http: scope \"x\""},
		{"bad source", "version: 1\nsources: {allow: [x]}", nil, "source \"x\""},
		{"bad limit", "version: 1\nlimits: {time: x}", nil, "time: \"x\" is not a duration"},
		{"bad memory", "version: 1\nlimits: {memory: x}", nil, "memory: \"x\" is not a size"},
		{"bad cap", "version: 1\ncapabilities: {deny: {gpu.use: []}}", nil, "unknown key \"gpu.use\""},
		{"policy grants", "version: 1\ngrants: policy\ncapabilities: {max: {net.http: [\"https://x.example\"], plugins.call: []}}\nlimits: {memory: 1MiB, time: 1m}", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := *p
			if c.change != nil {
				c.change(&p)
			}
			if err := s.Grant(t.Context(), Grant{Key: KeyOf(&p), Granted: map[hostabi.Capability]Scopes{"net.http": {Scope: []string{"https://x.example"}}}}); err != nil {
				t.Fatal(err)
			}
			write(c.text)
			b, err := s.Box(t.Context(), &p, nil)
			if c.want == "" {
				if err != nil || b.Check("net.http", "https://x.example") != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if hostabi.ReasonOf(err) != hostabi.ReasonPolicyFile || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
	write("version: 1\nnative: confined")
	if pol, err := s.Policy(); err != nil || !pol.Confined() || pol.AllowKind(plugin.Native) != nil {
		t.Errorf("confined: %+v %v", pol, err)
	}
	if err := os.Remove(s.o.PolicyPath); err != nil {
		t.Fatal(err)
	}
	if pol, err := s.Policy(); pol != nil || err != nil || pol.Confined() || pol.AllowSource("x") != nil || pol.AllowSigner("") != nil {
		t.Errorf("no file: %v %v", pol, err)
	}
	if err := os.Mkdir(s.o.PolicyPath, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Policy(); hostabi.ReasonOf(err) != hostabi.ReasonPolicyFile {
		t.Errorf("unreadable: %v", err)
	}
	s.o.PolicyPath = ""
	if pol, err := s.Policy(); pol != nil || err != nil {
		t.Errorf("no path: %v %v", pol, err)
	}
}

func FuzzParseGrants(f *testing.F) {
	f.Add([]byte("version: 1\ngrants:\n  - {plugin: a/b, signer: x, granted: {net.http: {scope: [a], sockets: true}, fs.write: {quota: 1KiB, scope: [x]}}, denied: {fs.read: [y]}, at: 2020-01-01T00:00:00Z}\n"))
	f.Add([]byte("version: 1\ngrants: [{plugin: 'dir:/x', signer: none}]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := parseGrants("g", b)
		if err != nil {
			return
		}
		out, err := formatGrants(all)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseGrants("g", out)
		if err != nil || len(again) != len(all) {
			t.Fatalf("%q is written as %q: %v", b, out, err)
		}
		if twice, _ := formatGrants(again); string(twice) != string(out) {
			t.Fatalf("not canonical: %q %q", out, twice)
		}
	})
}

// TestSucceed: a signer that was named by the one before has what that one had, unless it has something of its own.
func TestSucceed(t *testing.T) {
	s := testStore(t)
	const signerB = "ed25519:" + "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	key := func(signer string) Key { return Key{Plugin: "ghcr.io/a/b", Signer: signer} }
	granted := func(scope string) map[hostabi.Capability]Scopes {
		return map[hostabi.Capability]Scopes{hostabi.ConfigRead: {Scope: []string{scope}}}
	}
	if err := s.Succeed(t.Context(), "ghcr.io/a/b", signerA, signerB); err != nil {
		t.Fatal(err)
	}
	if all, err := s.All(); err != nil || len(all) != 0 {
		t.Fatalf("%+v %v", all, err)
	}
	if err := s.Grant(t.Context(), Grant{Key: key(signerA), Granted: granted("own")}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Succeed(t.Context(), "ghcr.io/a/b", signerA, signerB); err != nil {
			t.Fatal(err)
		}
		for _, signer := range []string{signerA, signerB} {
			if g, ok, err := s.LookupKey(key(signer)); err != nil || !ok || !reflect.DeepEqual(g.Granted, granted("own")) {
				t.Errorf("%s: %+v %v", signer, g, err)
			}
		}
	}
	if err := s.Grant(t.Context(), Grant{Key: key(signerB), Granted: granted("settings.b.x")}); err != nil {
		t.Fatal(err)
	}
	if err := s.Succeed(t.Context(), "ghcr.io/a/b", signerA, signerB); err != nil {
		t.Fatal(err)
	}
	if g, _, _ := s.LookupKey(key(signerB)); !reflect.DeepEqual(g.Granted, granted("settings.b.x")) {
		t.Errorf("its own grant was replaced: %+v", g)
	}
}
