package egress_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/egress"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	const public, private, never = 0, 1, 2 // the narrowest rule that allows it; never = Literal only
	for addr, want := range map[string]int{
		"8.8.8.8": public, "2606:4700::1111": public, "::ffff:8.8.8.8": public, "64:ff9b::808:808": public, "2002:808:808::1": public, "198.17.0.1": public,
		"127.0.0.1": private, "127.255.255.254": private, "::1": private, "10.0.0.1": private, "172.16.0.1": private, "192.168.1.1": private, "100.64.0.1": private,
		"fc00::1": private, "fd12::1": private, "0.0.0.0": private, "::": private, "224.0.0.1": private, "ff02::1": private, "255.255.255.255": private, "198.18.0.1": private,
		"0.1.2.3": private, "240.0.0.1": private, "192.0.0.8": private,
		"::ffff:10.0.0.1": private, "::ffff:127.0.0.1": private, "64:ff9b::a00:1": private, "2002:7f00:1::": private, "::7f00:1": private,
		"169.254.169.254": never, "169.254.0.1": never, "fe80::1": never, "fe80::1%lo": never, "100.100.100.200": never, "fd00:ec2::254": never, "168.63.129.16": never,
		"::ffff:169.254.169.254": never, "64:ff9b::a9fe:a9fe": never, "2002:a9fe:a9fe::": never,
	} {
		a := netip.MustParseAddr(addr)
		for rule := egress.Public; rule <= egress.Literal; rule++ {
			err := rule.Check(a)
			if allowed := int(rule) >= want; (err == nil) != allowed {
				t.Errorf("%s under rule %d: %v", addr, rule, err)
			}
			if err != nil && hostabi.ReasonOf(err) != hostabi.ReasonAddressDenied {
				t.Errorf("%s: reason %s", addr, hostabi.ReasonOf(err))
			}
		}
	}
	if egress.Literal.Check(netip.Addr{}) == nil {
		t.Error("no address is allowed")
	}
}

func FuzzCheck(f *testing.F) {
	f.Add([]byte{127, 0, 0, 1})
	f.Add([]byte("0123456789abcdef"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := netip.AddrFromSlice(b)
		if !ok {
			return
		}
		// A wider rule never refuses what a narrower one allows, and no spelling changes the answer.
		for r := egress.Public; r < egress.Literal; r++ {
			if r.Check(a) == nil && (r+1).Check(a) != nil {
				t.Fatalf("%s: rule %d allows, %d refuses", a, r, r+1)
			}
			if a.Is4() && (r.Check(a) == nil) != (r.Check(netip.AddrFrom16(a.As16())) == nil) {
				t.Fatalf("%s: the mapped form is judged otherwise", a)
			}
		}
	})
}

func get(t *testing.T, tr http.RoundTripper, rule *egress.Rule, publicOnly bool, target string) (string, error) {
	t.Helper()
	ctx := t.Context()
	if rule != nil {
		ctx = egress.WithRule(ctx, *rule)
	}
	if publicOnly {
		ctx = hostabi.WithPublicOnly(ctx)
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: tr}).Do(q)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func TestTransport(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	defer srv.Close()
	tr := egress.New(egress.Options{DialTimeout: time.Second, HeaderTimeout: time.Second})
	defer tr.CloseIdleConnections()
	private := egress.Private
	byName := strings.Replace(srv.URL, "127.0.0.1", "localhost", 1)
	// In this order: an open connection of the first must not serve the others.
	for _, k := range []struct {
		name       string
		rule       *egress.Rule
		publicOnly bool
		target     string
		denied     bool
	}{
		{"private", &private, false, srv.URL, false},
		{"private by name", &private, false, byName, false},
		{"no rule", nil, false, srv.URL, true},
		{"no rule by name", nil, false, byName, true},
		{"public only is stronger", &private, true, srv.URL, true},
		{"metadata", &private, false, "http://169.254.169.254/", true},
		{"decimal spelling", nil, false, "http://[::ffff:127.0.0.1]" + srv.URL[strings.LastIndexByte(srv.URL, ':'):], true},
	} {
		body, err := get(t, tr, k.rule, k.publicOnly, k.target)
		if denied := hostabi.ReasonOf(err) == hostabi.ReasonAddressDenied; denied != k.denied || (!denied && body != "hello") {
			t.Errorf("%s: %q, %v", k.name, body, err)
		}
	}
}

// TestProxy: the proxy may be private, what is asked of it may not.
func TestProxy(t *testing.T) {
	t.Parallel()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { _, _ = io.WriteString(w, "via proxy "+q.URL.String()) }))
	defer proxy.Close()
	to, _ := url.Parse(proxy.URL)
	tr := egress.New(egress.Options{Proxy: func(*http.Request) (*url.URL, error) { return to, nil }})
	defer tr.CloseIdleConnections()
	if body, err := get(t, tr, nil, false, "http://example.com/x"); err != nil || body != "via proxy http://example.com/x" {
		t.Errorf("%q, %v", body, err)
	}
	for _, target := range []string{"http://localhost/", "http://LOCALHOST./", "http://a.localhost/", "http://127.0.0.1/", "http://10.1.2.3/", "http://[::1]/", "http://169.254.169.254/"} {
		if body, err := get(t, tr, nil, false, target); hostabi.ReasonOf(err) != hostabi.ReasonAddressDenied {
			t.Errorf("%s: %q, %v", target, body, err)
		}
	}
	broken := egress.New(egress.Options{Proxy: func(*http.Request) (*url.URL, error) { return nil, errors.New("no") }})
	if _, err := get(t, broken, nil, false, "http://example.com/"); err == nil {
		t.Error("a broken proxy rule is ignored")
	}
}

func TestProxyFunc(t *testing.T) {
	t.Parallel()
	if egress.ProxyFunc("", "", "x") != nil {
		t.Error("a proxy out of nothing")
	}
	f := egress.ProxyFunc("http://p:1", "http://p:2", "internal.example,10.0.0.0/8")
	for target, want := range map[string]string{
		"http://a.com": "http://p:1", "https://a.com": "http://p:2", "https://x.internal.example": "", "http://10.2.3.4": "", "http://127.0.0.1": "", "http://localhost": "",
	} {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if u, err := f(q); err != nil {
			t.Error(err)
		} else if u != nil {
			got = u.String()
		}
		if got != want {
			t.Errorf("%s goes via %q, want %q", target, got, want)
		}
	}
}
