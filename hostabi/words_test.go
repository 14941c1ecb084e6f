package hostabi

import (
	"context"
	"strings"
	"testing"
)

func TestParseDigest(t *testing.T) {
	hex := strings.Repeat("0123456789abcdef", 4)
	for s, ok := range map[string]bool{
		"sha256:" + hex:                  true,
		"sha256:" + strings.ToUpper(hex): false,
		"SHA256:" + hex:                  false,
		"sha256:" + hex[1:]:              false,
		"sha256:" + hex + "0":            false,
		"sha256:" + hex[1:] + "g":        false,
		"sha512:" + hex + hex:            false,
		hex:                              false,
		"sha256:../" + hex[3:]:           false,
		" sha256:" + hex:                 false,
		"":                               false,
		strings.Repeat("\xff", 500):      false,
	} {
		d, err := ParseDigest(s)
		switch {
		case ok && (err != nil || string(d) != s || d.Hex() != hex):
			t.Errorf("%q: %q, %v", s, d, err)
		case !ok && (ReasonOf(err) != ReasonBadDigest || d != ""):
			t.Errorf("%q: %q, %v", s, d, err)
		case !ok && len(err.Error()) > 400:
			t.Errorf("the message repeats %d bytes of a stranger", len(err.Error()))
		}
	}
}

func TestDigestOf(t *testing.T) {
	const empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if d := DigestOf(nil); d != empty || !d.Valid() {
		t.Errorf("got %s", d)
	}
}

func TestPluginName(t *testing.T) {
	for name, ok := range map[PluginName]bool{
		"s3": true, "a": true, "a-b-9": true, "a-": true, PluginName("a" + strings.Repeat("b", 31)): true,
		"": false, "3s": false, "-a": false, "A": false, "a_b": false, "a/b": false, "a.b": false, "..": false, "ä": false, "a\x00": false,
		PluginName("a" + strings.Repeat("b", 32)): false,
	} {
		if name.Valid() != ok {
			t.Errorf("%q: valid %v", name, !ok)
		}
	}
}

func TestPlatform(t *testing.T) {
	for s, want := range map[string]Platform{
		"linux/amd64":  {OS: "linux", Architecture: "amd64"},
		"linux/arm/v7": {OS: "linux", Architecture: "arm", Variant: "v7"},
	} {
		p, err := ParsePlatform(s)
		if err != nil || p != want || p.String() != s {
			t.Errorf("%q: %+v (%s), %v", s, p, p, err)
		}
	}
	for _, s := range []string{"", "linux", "/amd64", "linux/", "a/b/c/d", "//", "linux/arm/"} {
		if p, err := ParsePlatform(s); ReasonOf(err) != ReasonUsage {
			t.Errorf("%q: %+v, %v", s, p, err)
		}
	}
	if s := (Platform{}).String(); s != "" {
		t.Errorf("the zero platform prints %q", s)
	}
}

func TestCapabilities(t *testing.T) {
	all := Capabilities()
	seen := make(map[Capability]bool)
	for _, c := range all {
		seen[c] = true
		if noun, verb, ok := strings.Cut(string(c), "."); !ok || noun == "" || verb == "" {
			t.Errorf("%q is not noun.verb", c)
		}
	}
	if len(all) != 16 || len(seen) != 16 {
		t.Errorf("%d capabilities, %d of them different, want 16", len(all), len(seen))
	}
}

func TestPublicOnly(t *testing.T) {
	if ctx := t.Context(); PublicOnly(ctx) || !PublicOnly(WithPublicOnly(ctx)) {
		t.Error("only a marked context is marked")
	}
	ctx, cancel := context.WithCancel(WithPublicOnly(t.Context()))
	defer cancel()
	if !PublicOnly(ctx) {
		t.Error("the mark must be inherited")
	}
}

func TestMountable(t *testing.T) {
	ctx := WithMountable(t.Context(), func(r string) bool { return r == "h.example/a" })
	if Mountable(t.Context(), "h.example/a") || !Mountable(ctx, "h.example/a") || Mountable(ctx, "h.example/b") {
		t.Error("only what was allowed may be mounted")
	}
}

func TestClip(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    int
		want string
	}{{"abc", 3, "abc"}, {"abcd", 3, "abc…"}, {"aé", 2, "a…"}, {"", 0, ""}} {
		if got := clip(c.in, c.n); got != c.want {
			t.Errorf("clip(%q, %d) = %q, want %q", c.in, c.n, got, c.want)
		}
	}
}
