package sandbox

import (
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
)

func TestParseScope(t *testing.T) {
	long := strings.Repeat("a", MaxScope)
	for c, x := range map[hostabi.Capability]struct{ good, bad []string }{
		"config.read":      {[]string{"own", "a.*", "a.**", "**", "*", "a-b.c_D"}, []string{"", "a.**.b", "a..b", "a*", ".a", "a b", "***", long + "a"}},
		"secret.read":      {[]string{"own", "a.b", "registry:ghcr.io", "registry:localhost:5000", "registry:*"}, []string{"registry:", "registry:a/b", "registry:*.io"}},
		"env.read":         {[]string{"A", "AWS_*", "LC_*", "_x"}, []string{"*", "AB*", "A_*", "AWS*", "*_PROXY", "DS_X", "DS_*", "ds_x", "1A", "A-B", "A=B", "**"}},
		"net.http":         {[]string{"args", "https://x.example", "http://x:81", "https://*.x.example:*", "https://**.a.b", "https://1.2.3.4", "https://[::1]:5", "private:http://x", "${settings.s3.u}", "private:${settings.s3.u}", "https://${settings.s3.h}", "https://${settings.s3.h}:443"}, []string{"**", "*", "https://*", "https://**", "https://*.com", "https://**.com", "x.example", "ftp://x", "https://X.example", "https://x.example/", "https://x.example/p", "https://u@x", "https://x?q", "https://x:", "https://x:0", "https://x:65536", "https://x:080", "https://*.1.2.3.4", "https://1.2.3", "https://0x7f.1", "https://2130706433", "https://bücher.example", "https://x..y", "https://-x.y", "https://::1", "https://[::1", "https://[fe80::1%25eth0]", "https://a.*.b", "https://x.example.", "private:private:http://x", "${settings.s3.u", "${settings.s3}", "${env.X.y}", "${settings.s3.u}/x", "https://${settings.s3.h}/p", "x${settings.s3.h}", "https://%41.x"}},
		"fs.read":          {[]string{"args", "cwd:**", "cwd:a b/*.txt", "cwd:dist/**", "home:x", "home:.ssh/**", "abs:/usr/share/**", "abs:/a/b"}, []string{"**", "own", "cwd:", "cwd:/x", "cwd:../x", "cwd:a/../b", "cwd:./a", "cwd:a//b", "cwd:a\\b", "cwd:a\nb", "cwd:a**", "home:**", "home:*", "home:*/x", "abs:/", "abs:/**", "abs:/usr/**", "abs:/usr", "abs:usr/share", "/etc/x", "tmp:x", "cwd:x\x00"}},
		"cache.read":       {[]string{"own", "args", "any", "artifact:**", "artifact:ghcr.io/acme/*"}, []string{"**", "ghcr.io/x", "artifact:", "artifact:x"}},
		"cache.write":      {[]string{"own", "any"}, []string{"args", "artifact:**", "**"}},
		"registry.pull":    {[]string{"args", "**", "ghcr.io/**", "*.example.com/x/*", "localhost:5000/a", "[::1]:5000/a", "oci-layout:/srv/x/**"}, []string{"own", "ghcr.io", "*/x", "**/x", "*.io/x", "**.example.com/x", "ghcr.io/", "ghcr.io/A", "ghcr.io/a//b", "ghcr.io:/a", "ghcr.io:x/a", "https://ghcr.io/a", "ghcr.io/a:1", "ghcr.io/a@sha256:b", "ghcr.io/../a", "oci-layout:x/y", "oci-layout:/x", "oci-layout:/**"}},
		"events.publish":   {[]string{"own", "s3.*", "s3.a.**"}, []string{"**", "*", "porter.x", "artifact.pulled", "s3x.a", "S3.a"}},
		"events.subscribe": {[]string{"**", "*", "artifact.*", "a.b"}, []string{"a.**.b", "A", "a." + strings.Repeat("b", 33), strings.Repeat("abcdefgh.", 16) + "a"}},
		"state.write":      {[]string{"own", "s3:k", "porter:runs/**", "porter:a*b"}, []string{"k", "**", ":k", "porter:", "Porter:k", "porter:k k", "porter:k**"}},
		"plugins.call":     {[]string{"porter/pull", "porter/*", "porter/bundle create"}, []string{"**", "porter", "*/*", "*/pull", "porter/", "porter/p*", "porter/-x", "porter/a  b", "Porter/x"}},
		"term.prompt":      {[]string{"confirm", "line", "choose", "secret"}, []string{"**", "own", "Line"}},
	} {
		for _, s := range x.good {
			if _, err := ParseScope(c, "s3", s); err != nil {
				t.Errorf("%s %q is refused: %v", c, s, err)
			}
			if err := CheckScope("s3", c, s); (err != nil) != strings.HasPrefix(s, "registry:") {
				t.Errorf("CheckScope of %s %q: %v", c, s, err)
			}
		}
		for _, s := range x.bad {
			if got, err := ParseScope(c, "s3", s); hostabi.ReasonOf(err) != hostabi.ReasonUsage || got.form != nothing {
				t.Errorf("%s %q is accepted or failed otherwise: %v", c, s, err)
			}
		}
	}
	if _, err := ParseScope("gpu.use", "s3", "own"); err == nil {
		t.Error("an unknown capability has scopes")
	}
}

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		cap  hostabi.Capability
		a, b string
		want bool
	}{
		{"config.read", "own", "settings.s3.credentials.*", true},
		{"config.read", "settings.**", "own", true},
		{"config.read", "settings.s3.*", "own", false},
		{"config.read", "a.**", "a", false},
		{"config.read", "a.**", "a.**", true},
		{"config.read", "**", "a.**", true},
		{"config.read", "a.*", "a.**", false},
		{"config.read", "*.b", "a.b", true},
		{"env.read", "AWS_*", "AWS_X_*", true},
		{"env.read", "AWS_X_*", "AWS_*", false},
		{"net.http", "https://**.example.com", "https://*.example.com", true},
		{"net.http", "https://*.example.com", "https://**.example.com", false},
		{"net.http", "https://**.example.com", "https://**.a.example.com", true},
		{"net.http", "https://**.a.example.com", "https://**.example.com", false},
		{"net.http", "https://**.example.com", "https://example.com", false},
		{"net.http", "https://*.example.com", "https://*.xexample.com", false},
		{"net.http", "https://x.example:*", "https://x.example:99", true},
		{"net.http", "https://x.example", "https://x.example:*", false},
		{"net.http", "private:https://x.example", "https://x.example", true},
		{"net.http", "https://x.example", "private:https://x.example", false},
		{"net.http", "private:${settings.s3.u}", "${settings.s3.u}", true},
		{"net.http", "${settings.s3.u}", "private:${settings.s3.u}", false},
		{"net.http", "args", "https://x.example", false},
		{"fs.read", "cwd:**", "cwd:dist/**", true},
		{"fs.read", "cwd:dist/**", "cwd:dist", true},
		{"fs.read", "cwd:dist/*", "cwd:dist/**", false},
		{"fs.read", "cwd:**", "home:x/**", false},
		{"fs.read", "cwd:a*c", "cwd:ab*c", true},
		{"fs.read", "cwd:ab*c", "cwd:a*c", false},
		{"fs.read", "cwd:*", "cwd:a*", true},
		{"fs.read", "cwd:a*", "cwd:*", false},
		{"fs.read", "cwd:**/x", "cwd:a/b/x", true},
		{"fs.read", "args", "args", true},
		{"fs.read", "cwd:**", "args", false},
		{"cache.read", "any", "args", true},
		{"cache.read", "any", "own", true},
		{"cache.read", "own", "any", false},
		{"cache.read", "artifact:**", "artifact:ghcr.io/x", true},
		{"cache.write", "any", "own", true},
		{"registry.pull", "**", "ghcr.io/**", true},
		{"registry.pull", "ghcr.io/**", "**", false},
		{"registry.pull", "**", "args", false},
		{"registry.pull", "**", "oci-layout:/srv/x", false},
		{"registry.pull", "*.example.com/**", "a.example.com/x", true},
		{"registry.pull", "oci-layout:/srv/x/**", "oci-layout:/srv/x/y", true},
		{"events.publish", "own", "s3.upload.*", true},
		{"state.read", "own", "s3:a/**", true},
		{"state.read", "s3:a/**", "own", false},
		{"state.read", "own", "porter:a", false},
		{"plugins.call", "porter/*", "porter/pull", true},
		{"plugins.call", "porter/pull", "porter/*", false},
		{"term.prompt", "line", "line", true},
		{"term.prompt", "line", "secret", false},
		{"net.http", "bad", "bad", false},
	} {
		if got := Covers(c.cap, "s3", c.a, c.b); got != c.want {
			t.Errorf("%s: Covers(%s, %s) is %t", c.cap, c.a, c.b, got)
		}
	}
	x, _ := ParseScope("fs.read", "s3", "args")
	y, _ := ParseScope("fs.write", "s3", "args")
	if x.Covers(y) || x.Covers(Scope{}) || (Scope{}).Covers(x) || x.String() != "args" {
		t.Error("scopes of other capabilities, or none, are covered")
	}
}

func TestCheckManifest(t *testing.T) {
	w := newWorld(t, req("net.http", "https://x.example"))
	if err := CheckManifest(w.o.Plugin.Manifest); err != nil {
		t.Error(err)
	}
	w.o.Plugin.Manifest.Capabilities[0].Scope[0] = "https://*"
	if err := CheckManifest(w.o.Plugin.Manifest); hostabi.ReasonOf(err) != hostabi.ReasonManifest || !strings.Contains(err.Error(), `s3 asks for net.http: scope "https://*"`) {
		t.Errorf("got %v", err)
	}
}

func TestSensitive(t *testing.T) {
	for scope, want := range map[string]bool{
		"home:.ssh": true, "home:.ssh/**": true, "home:.ssh/id_*": true, "home:.aws/credentials": true, "home:.config/**": true, "home:.config/gcloud/x": true, "home:.netrc": true,
		"home:.bashrc": true, "home:data/**": false, "home:.sshx": false, "home:.config/other/**": false, "cwd:.ssh/**": false, "args": false, "bad": false,
	} {
		if Sensitive("fs.read", scope) != want {
			t.Errorf("%s: not %t", scope, want)
		}
	}
	if Sensitive("net.http", "https://x.example") {
		t.Error("an origin is sensitive")
	}
}

// FuzzCovers checks that Covers(a, b) and match(b, x) imply match(a, x), in every capability.
func FuzzCovers(f *testing.F) {
	for _, s := range [][3]string{
		{"a.**", "a.*", "a.b"},
		{"https://**.example.com", "https://*.example.com:*", "https://a.example.com"},
		{"cwd:a*c/**", "cwd:abc/*/d", "/w/abc/x/d"},
		{"s3:a/**", "s3:a/*b", "s3:a/xb"},
		{"ghcr.io/**", "*.example.com/a*", "a.example.com/ab"},
		{"AWS_*", "AWS_X_*", "AWS_X_Y"},
		{"**", "own", "s3:k"},
		{"artifact:**", "any", "own"},
		{"porter/*", "porter/a", "porter/a b"},
		{"abs:/w/**", "cwd:**", "/w/x"},
		{"home:a/**/b*", "home:a/b*", "/h/a/bb"},
	} {
		for i := range hostabi.Capabilities() {
			f.Add(uint8(i), s[0], s[1], s[2])
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, a, b, x string) {
		c := hostabi.Capabilities()[int(which)%16]
		pa, errA := parseLoose(c, "s3", a)
		pb, errB := parseLoose(c, "s3", b)
		rx, errX := resource(c, x)
		if errA != nil || errB != nil || errX != nil {
			return
		}
		if !pa.Covers(pa) {
			t.Fatalf("%s: %q does not cover itself", c, a)
		}
		bind := &binder{cwd: []string{"w"}, home: []string{"h"}, o: &BoxOptions{Settings: func(string) (string, bool) { return "https://set.example", true }}}
		bind.cache = map[hostabi.Capability][]bound{c: nil}
		ba, errA := bind.bind([]Scope{pa})
		bb, errB := bind.bind([]Scope{pb})
		if errA != nil || errB != nil {
			return
		}
		match := func(list []bound) bool { return len(list) > 0 && list[0].Covers(rx) }
		if pa.Covers(pb) && match(bb) && !match(ba) {
			t.Fatalf("%s: %q covers %q, which matches %q, but it does not", c, a, b, x)
		}
	})
}

func FuzzParseScope(f *testing.F) {
	for _, s := range []string{"own", "args", "https://**.x.example:*", "private:${settings.a.b}", "cwd:a/**", "abs:/a/b", "registry:x", "artifact:**", "[::1]:5/a", "a:b/c"} {
		for i := range hostabi.Capabilities() {
			f.Add(uint8(i), s)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, text string) {
		c := hostabi.Capabilities()[int(which)%16]
		s, err := ParseScope(c, "s3", text)
		if err != nil {
			return
		}
		if s.String() != text || s.form == nothing {
			t.Fatalf("%s %q is parsed as %+v", c, text, s)
		}
		if _, _, err := canonicalURL(text); err == nil && c == hostabi.NetHTTP && s.form == originOf {
			r, err := resource(c, text)
			if err != nil || !s.Covers(r) {
				t.Fatalf("%q does not match itself", text)
			}
		}
	})
}
