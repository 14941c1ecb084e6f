package sandbox

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

func quota(r plugin.Request, n int64) plugin.Request { r.Quota = n; return r }

func TestCompare(t *testing.T) {
	m := &plugin.Manifest{APIVersion: plugin.APIVersion, Name: "s3", Version: "1.4.0", Capabilities: []plugin.Request{
		req("config.read", "own"), req("net.http", "https://**.amazonaws.com"), quota(req("cache.write", "own"), 1<<30), optional(req("registry.pull", "args")),
	}}
	d := Compare(m, Grant{})
	if !d.First || len(d.Added) != 4 || len(d.Required()) != 3 || !d.Wider() {
		t.Errorf("first: %+v", d)
	}
	if got := d.Command(d.Required()); got != "ds plugin grant s3 config.read=own 'net.http=https://**.amazonaws.com' cache.write@1GiB=own" {
		t.Errorf("command %s", got)
	}
	if got := Flags(d.Added); got != "--grant config.read=own --grant 'net.http=https://**.amazonaws.com' --grant cache.write@1GiB=own --grant registry.pull=args" {
		t.Errorf("flags %s", got)
	}
	g, err := Consent{Grant: []string{"manifest"}}.Apply(m, Grant{})
	if err != nil {
		t.Fatal(err)
	}
	if d := Compare(m, g); d.Wider() || d.First || len(d.Removed) > 0 {
		t.Errorf("after consent: %+v", d)
	}

	up := *m
	up.Version = "1.5.0"
	up.Capabilities = []plugin.Request{
		req("config.read", "settings.s3.bucket"), req("net.http", "https://s3.amazonaws.com", "https://telemetry.example"), quota(req("cache.write", "own"), 4<<30),
	}
	d = Compare(&up, g)
	if len(d.Added) != 1 || !reflect.DeepEqual(d.Added[0].Scope, []string{"https://telemetry.example"}) {
		t.Errorf("added %+v", d.Added)
	}
	if len(d.Widened) != 1 || d.Widened[0].Cap != "cache.write" || d.Widened[0].WasQuota != 1<<30 || d.Widened[0].Quota != 4<<30 {
		t.Errorf("widened %+v", d.Widened)
	}
	var removed []string
	for _, c := range d.Removed {
		removed = append(removed, string(c.Cap)+" "+strings.Join(c.Scope, " "))
	}
	if !reflect.DeepEqual(removed, []string{"config.read own", "net.http https://**.amazonaws.com", "registry.pull args"}) {
		t.Errorf("removed %q", removed)
	}
	if got := d.Command(d.Required()); got != "ds plugin grant s3 net.http=https://telemetry.example cache.write@4GiB=own" {
		t.Errorf("command %s", got)
	}
	// The printed command settles it.
	words := strings.Fields(strings.TrimPrefix(d.Command(d.Required()), "ds plugin grant s3 "))
	g2, err := Consent{Grant: words}.Apply(&up, g)
	if err != nil {
		t.Fatal(err)
	}
	if d := Compare(&up, g2); d.Wider() {
		t.Errorf("after the command: %+v", d)
	}

	sockets := *m
	sockets.Capabilities = []plugin.Request{{Cap: "net.http", Scope: []string{"https://s3.amazonaws.com"}, Sockets: true, Reason: "r"}}
	if d := Compare(&sockets, g); len(d.Widened) != 1 || !d.Widened[0].Sockets || Words(d.Widened)[0] != "net.http@sockets=https://s3.amazonaws.com" {
		t.Errorf("sockets: %+v", d)
	}
}

func TestUsersChoiceStays(t *testing.T) {
	m := &plugin.Manifest{APIVersion: plugin.APIVersion, Name: "s3", Capabilities: []plugin.Request{
		quota(req("cache.write", "own"), 1<<30), {Cap: "net.http", Scope: []string{"https://x.example"}, Sockets: true, Reason: "r"},
	}}
	g, err := Consent{Grant: []string{"cache.write@1MiB=own", "net.http=https://x.example"}}.Apply(m, Grant{})
	if err != nil {
		t.Fatal(err)
	}
	if g.Granted["cache.write"].Quota != 1<<20 || g.Granted["net.http"].Sockets {
		t.Errorf("granted %+v", g.Granted)
	}
	if d := Compare(m, g); d.Wider() {
		t.Errorf("a lower quota and refused sockets are asked for again: %+v", d)
	}
	m.Capabilities = append(m.Capabilities, req("term.prompt", "line"))
	if d := Compare(m, g); len(d.Widened) != 2 || len(d.Added) != 1 {
		t.Errorf("another request: %+v", d)
	}
}

func TestConsent(t *testing.T) {
	m := &plugin.Manifest{APIVersion: plugin.APIVersion, Name: "s3", Capabilities: []plugin.Request{
		req("fs.read", "args", "cwd:dist/**"), req("fs.read", "home:.ssh/**"), optional(req("env.read", "AWS_*")), quota(req("state.write", "own"), 1<<20),
	}}
	pin := plugin.RequestDigest(m.Capabilities)
	for name, c := range map[string]struct {
		consent Consent
		reason  hostabi.Reason
		msg     string
		want    map[hostabi.Capability]Scopes
	}{
		"manifest":        {consent: Consent{Grant: []string{"manifest"}}, want: map[hostabi.Capability]Scopes{"fs.read": {Scope: []string{"args", "cwd:dist/**"}}, "env.read": {Scope: []string{"AWS_*"}}, "state.write": {Scope: []string{"own"}, Quota: 1 << 20}}},
		"named":           {consent: Consent{Grant: []string{"manifest", "fs.read=home:.ssh/**"}}, want: map[hostabi.Capability]Scopes{"fs.read": {Scope: []string{"args", "cwd:dist/**", "home:.ssh/**"}}, "env.read": {Scope: []string{"AWS_*"}}, "state.write": {Scope: []string{"own"}, Quota: 1 << 20}}},
		"lock":            {consent: Consent{Grant: []string{"lock"}, Lock: pin}, want: map[hostabi.Capability]Scopes{"fs.read": {Scope: []string{"args", "cwd:dist/**", "home:.ssh/**"}}, "env.read": {Scope: []string{"AWS_*"}}, "state.write": {Scope: []string{"own"}, Quota: 1 << 20}}},
		"other lock":      {consent: Consent{Grant: []string{"lock"}, Lock: digestA}, reason: hostabi.ReasonLockDrift, msg: "nothing granted"},
		"no lock":         {consent: Consent{Grant: []string{"lock"}}, reason: hostabi.ReasonLockDrift, msg: "nothing granted"},
		"narrower":        {consent: Consent{Grant: []string{"fs.read=cwd:dist/sub/*", "env.read=AWS_REGION"}}, want: map[hostabi.Capability]Scopes{"fs.read": {Scope: []string{"cwd:dist/sub/*"}}, "env.read": {Scope: []string{"AWS_REGION"}}}},
		"absorbed":        {consent: Consent{Grant: []string{"fs.read=cwd:dist/sub/*", "fs.read=cwd:dist/**"}}, want: map[hostabi.Capability]Scopes{"fs.read": {Scope: []string{"cwd:dist/**"}}}},
		"not asked":       {consent: Consent{Grant: []string{"fs.write=args"}}, reason: hostabi.ReasonUsage, msg: "s3 does not ask for fs.write; nothing granted"},
		"wider":           {consent: Consent{Grant: []string{"fs.read=cwd:**"}}, reason: hostabi.ReasonUsage, msg: "s3 does not ask for fs.read cwd:**; nothing granted"},
		"unknown":         {consent: Consent{Grant: []string{"fs.raed=args"}}, reason: hostabi.ReasonUsage, msg: `unknown capability "fs.raed"; did you mean fs.read?`},
		"no scope":        {consent: Consent{Grant: []string{"fs.read"}}, reason: hostabi.ReasonUsage, msg: "is not CAP=SCOPE"},
		"bad scope":       {consent: Consent{Grant: []string{"fs.read=x"}}, reason: hostabi.ReasonUsage, msg: `scope "x"`},
		"bad quota":       {consent: Consent{Grant: []string{"state.write@much=own"}}, reason: hostabi.ReasonUsage, msg: `"much" is not a quota`},
		"no quota here":   {consent: Consent{Grant: []string{"fs.read@1GiB=args"}}, reason: hostabi.ReasonUsage, msg: "fs.read takes no @1GiB"},
		"sockets":         {consent: Consent{Grant: []string{"fs.read@sockets=args"}}, reason: hostabi.ReasonUsage, msg: "takes no @sockets"},
		"quota is capped": {consent: Consent{Grant: []string{"state.write@1TiB=own"}}, want: map[hostabi.Capability]Scopes{"state.write": {Scope: []string{"own"}, Quota: 1 << 20}}},
		"deny special":    {consent: Consent{Deny: []string{"manifest"}}, reason: hostabi.ReasonUsage, msg: "cannot be denied"},
		"deny bad":        {consent: Consent{Deny: []string{"fs.read=x"}}, reason: hostabi.ReasonUsage, msg: `scope "x"`},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := c.consent.Apply(m, Grant{})
			if c.reason != "" {
				if hostabi.ReasonOf(err) != c.reason || !strings.Contains(err.Error(), c.msg) || len(g.Granted) != 0 {
					t.Errorf("got %v %+v", err, g)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(g.Granted, c.want) || g.RequestDigest != pin {
				t.Errorf("got %+v %v", g.Granted, err)
			}
		})
	}
	// A deny holds until the scope is granted by name.
	g, err := Consent{Grant: []string{"fs.read=args"}, Deny: []string{"env.read=AWS_*", "env.read=AWS_*", "net.http=**"}}.Apply(m, Grant{})
	if err != nil || !reflect.DeepEqual(g.Denied, map[hostabi.Capability][]string{"env.read": {"AWS_*"}, "net.http": {"**"}}) {
		t.Fatalf("got %+v %v", g.Denied, err)
	}
	again, err := Consent{Grant: []string{"env.read=AWS_*"}}.Apply(m, g)
	if err != nil || len(again.Denied["env.read"]) != 0 || len(g.Denied["env.read"]) != 1 {
		t.Errorf("got %+v %v; before %+v", again.Denied, err, g.Denied)
	}
	var refused Grant
	refused.Refuse(Compare(m, Grant{}).Added[2:3])
	refused.Refuse(Compare(m, Grant{}).Added[2:3])
	if !reflect.DeepEqual(refused.Denied, map[hostabi.Capability][]string{"env.read": {"AWS_*"}}) {
		t.Errorf("refused %+v", refused.Denied)
	}
}

func TestHiddenRequestIsNotCovered(t *testing.T) {
	// A scope that does not parse must never count as settled.
	m := &plugin.Manifest{APIVersion: plugin.APIVersion, Name: "s3", Capabilities: []plugin.Request{req("net.http", "https://*")}}
	if d := Compare(m, Grant{Granted: map[hostabi.Capability]Scopes{"net.http": {Scope: []string{"https://*"}}}}); !d.Wider() {
		t.Error("an unreadable request is covered by the same text")
	}
}

// TestLegacyProposals: what protocol 1 may be given is everything, what consent gives without a word is not.
func TestLegacyProposals(t *testing.T) {
	p := &plugin.Installed{
		Name: "old", Repository: "ghcr.io/acme/old", Manifest: &plugin.Manifest{Name: "old", Run: plugin.Run{Native: &plugin.RunNative{Mode: plugin.Protocol1}}},
	}
	g, err := Consent{Grant: []string{"manifest"}}.ApplyTo(p, Grant{})
	if err != nil {
		t.Fatal(err)
	}
	for c, want := range map[hostabi.Capability][]string{
		hostabi.SecretRead: {"own", "registry:ghcr.io"}, hostabi.EnvRead: {"AWS_*", "*_PROXY", "DOCKER_CONFIG", "SSL_CERT_*"}, hostabi.PluginsCall: nil,
	} {
		if got := g.Granted[c].Scope; !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", c, got, want)
		}
	}
	if d := CompareTo(p, g); d.Wider() || len(d.Removed) > 0 {
		t.Errorf("still open: %+v", d)
	}
	if g, err = (Consent{Grant: []string{"secret.read=registry:*", "env.read=HOME_DIR", "plugins.call=s3/upload"}}).ApplyTo(p, g); err != nil {
		t.Fatal(err)
	}
	if d := CompareTo(p, g); len(d.Removed) > 0 {
		t.Errorf("what was named counts as not asked for: %+v", d.Removed)
	}
	p.Repository = "file:/home/u/ds-old"
	if g, err = (Consent{Grant: []string{"manifest"}}).ApplyTo(p, Grant{}); err != nil || !slices.Equal(g.Granted[hostabi.SecretRead].Scope, []string{"own"}) {
		t.Errorf("a file of this machine gets %+v, %v", g.Granted, err)
	}
}
