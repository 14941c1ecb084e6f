package host

import (
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
)

// services registers all ten.
func services(r *Registrar) {
	hostv1.RegisterMetaServer(r, NewMeta())
	hostv1.RegisterConfigServer(r, NewConfig(nil))
	hostv1.RegisterCacheServer(r, NewCache())
	hostv1.RegisterRegistryServer(r, NewRegistry(nil))
	hostv1.RegisterEventsServer(r, NewEvents())
	hostv1.RegisterStateServer(r, NewState(nil))
	hostv1.RegisterPluginsServer(r, NewPlugins(nil))
	hostv1.RegisterHttpServer(r, NewHTTP(nil))
	hostv1.RegisterLogServer(r, NewLog())
	hostv1.RegisterTermServer(r, NewTerm(nil))
}

func TestEveryMethodHasARule(t *testing.T) {
	r := New(Options{})
	services(r)
	for name, m := range r.methods {
		if m.rule == nil {
			t.Errorf("method %s: no rule, so nobody may call it", name)
		}
		if (m.unary == nil) == (m.stream == nil) {
			t.Errorf("method %s: neither unary nor stream, or both", name)
		}
	}
	for name := range rules {
		if r.methods[name] == nil {
			t.Errorf("rule %s: no method", name)
		}
	}
	if got := len(r.Methods()); got != len(rules) {
		t.Errorf("%d methods, %d rules", got, len(rules))
	}
}

// TestSchemaIsServed compares with the generated descriptors: a service that is not registered is missed.
func TestSchemaIsServed(t *testing.T) {
	r := New(Options{})
	services(r)
	file := hostv1.File_host_proto
	for i := range file.Services().Len() {
		s := file.Services().Get(i)
		for j := range s.Methods().Len() {
			name := "/" + string(s.FullName()) + "/" + string(s.Methods().Get(j).Name())
			if r.methods[name] == nil {
				t.Errorf("method %s of host.proto is not served", name)
			}
		}
	}
}

func TestRegistrationEnds(t *testing.T) {
	panics := func(what string, f func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s: no panic", what)
			}
		}()
		f()
	}
	r := New(Options{})
	hostv1.RegisterMetaServer(r, NewMeta())
	panics("registered twice", func() { hostv1.RegisterMetaServer(r, NewMeta()) })
	r.sealed.Store(true)
	panics("registered after the first session", func() { hostv1.RegisterLogServer(r, NewLog()) })
	if _, err := r.Open(nil, nil, nil); err == nil {
		t.Error("a session of nobody was opened")
	}
}

// TestForeignServiceIsRefused: a method that is registered but has no rule is closed.
func TestForeignServiceIsRefused(t *testing.T) {
	c := &call{m: &method{name: "/x.Y/Z"}}
	if err := c.gate(nil); hostabi.ReasonOf(err) != hostabi.ReasonCapabilityDenied {
		t.Errorf("gate of a method without rule: %v", err)
	}
}

var _ grpc.ServiceRegistrar = (*Registrar)(nil)

func TestClean(t *testing.T) {
	for _, c := range []struct {
		name, in, want string
		limit          int
	}{
		{"plain", "plain text é", "plain text é", 100},
		{"escape", "a\x1b[2Jb", "a\uFFFD[2Jb", 100},
		{"breaks", "a\r\nb\tc", "a  b c", 100},
		{"bidi and zero width", "a\u202eb\u200bc", "a\uFFFDb\uFFFDc", 100},
		{"not UTF-8", "a\xffb", "a\uFFFDb", 100},
		{"cut", strings.Repeat("é", 10), "éé…", 4},
		{"cut and cleaned", "\x00\x00\x00", "\uFFFD…", 3},
	} {
		if got := clean(c.in, c.limit); got != c.want {
			t.Errorf("%s: clean(%q) = %q, want %q", c.name, c.in, got, c.want)
		}
	}
}

func TestURLs(t *testing.T) {
	for _, c := range []struct{ in, origin string }{
		{"https://Example.COM/a?b#c", "https://example.com:443"},
		{"http://example.com.:8080/", "http://example.com:8080"},
		{"http://[::1]:80/", "http://[::1]:80"},
		{"http://[FE80::1%25eth0]/", ""},
		{"http://a.example.", "http://a.example:80"},
		{"ftp://example.com/", ""},
		{"https://user:pw@example.com/", ""},
		{"https:///x", ""},
		{"//example.com", ""},
		{"http://ex%61mple.com/", ""},
		{"http://exämple.com/", ""},
		{"http://a b/", ""},
		{"http://", ""},
		{":", ""},
		{"http:opaque", ""},
	} {
		u, err := parseURL(c.in)
		if err != nil {
			if hostabi.ReasonOf(err) != hostabi.ReasonBadURL || c.origin != "" {
				t.Errorf("%s: %v", c.in, err)
			}
			continue
		}
		if got := origin(u); got != c.origin {
			t.Errorf("%s: origin %s, want %q", c.in, got, c.origin)
		}
	}
}

func TestKeys(t *testing.T) {
	for key, ok := range map[string]bool{
		"settings.s3.bucket": true, "a": true, "settings.s3.a-b_c": true,
		"": false, ".a": false, "a.": false, "a..b": false, "a b": false, "a.*": false, "a\x00": false, strings.Repeat("k", maxKey+1): false,
	} {
		if err := checkKey(key); (err == nil) != ok {
			t.Errorf("key %q: %v", key, err)
		}
	}
}

func TestTags(t *testing.T) {
	for tag, ok := range map[string]bool{
		"v1": true, "_x": true, "1.2.3-rc.1": true, "latest": true,
		"": false, "-x": false, ".x": false, "a/b": false, "a:b": false, "ä": false, strings.Repeat("a", 129): false,
	} {
		if err := checkTags([]string{tag}); (err == nil) != ok {
			t.Errorf("tag %q: %v", tag, err)
		}
	}
}
