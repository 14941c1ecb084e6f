// Package egress holds the one address guard: HTTP connections of the host on behalf of others are decided
// here, on the address that is really dialled, because checks of names are bypassed by DNS. It knows neither
// registries nor plugins: callers say by a Rule what a request may reach. Start with New and WithRule.
package egress

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/delivery-station/ds/hostabi"
)

// Rule says which addresses a connection may go to.
type Rule uint8

// The rules, narrowest first. Public is what a request without a rule gets.
const (
	Public  Rule = iota // addresses of the public Internet
	Private             // also loopback and private networks, but not link-local ones, where metadata services are
	Literal             // any: an address that somebody in charge wrote down as such
)

type ruleKey struct{}

// WithRule says what requests under ctx may reach. hostabi.WithPublicOnly is stronger.
func WithRule(ctx context.Context, r Rule) context.Context {
	return context.WithValue(ctx, ruleKey{}, r)
}

// RuleOf is the rule that holds under ctx.
func RuleOf(ctx context.Context) Rule {
	if hostabi.PublicOnly(ctx) {
		return Public
	}
	r, _ := ctx.Value(ruleKey{}).(Rule)
	return r
}

// metadata are addresses of cloud metadata services outside the link-local ranges.
func metadata(a netip.Addr) bool {
	switch a {
	case netip.AddrFrom4([4]byte{100, 100, 100, 200}), netip.MustParseAddr("fd00:ec2::254"), netip.AddrFrom4([4]byte{168, 63, 129, 16}):
		return true
	}
	return false
}

// Check reports why r refuses a as *hostabi.Error with reason ADDRESS_DENIED, or nil. IPv4 addresses inside
// IPv6 ones (mapped, NAT64, 6to4) are judged as what they are.
func (r Rule) Check(a netip.Addr) error {
	a = embedded(a.Unmap().WithZone(""))
	if what := r.refuses(a); what != "" {
		return hostabi.Errorf(hostabi.ReasonAddressDenied, "address %s is %s", a, what)
	}
	return nil
}

func (r Rule) refuses(a netip.Addr) string {
	switch {
	case !a.IsValid():
		return "no address"
	case r == Literal:
		return ""
	case a.IsLinkLocalUnicast():
		return "link-local"
	case metadata(a):
		return "a metadata service"
	case r == Private:
		return ""
	case a.IsLoopback():
		return "loopback"
	case a.IsPrivate():
		return "private"
	case a.IsUnspecified(), a.IsMulticast(), reserved(a):
		return "not public"
	}
	return ""
}

// reserved reports whether a lies in a range that is never routed to a host of the public Internet.
func reserved(a netip.Addr) bool {
	if !a.Is4() {
		return false
	}
	b := a.As4()
	return b[0] == 0 || b[0] >= 240 || // this network; future use and broadcast
		(b[0] == 100 && b[1]&0xc0 == 64) || // carrier-grade NAT, RFC 6598
		(b[0] == 198 && b[1]&0xfe == 18) || // benchmarks, RFC 2544
		(b[0] == 192 && b[1] == 0 && b[2] == 0) // protocol assignments, RFC 6890
}

// embedded is the IPv4 address inside a NAT64 (64:ff9b::/96, RFC 6052), IPv4-compatible or 6to4 address.
func embedded(a netip.Addr) netip.Addr {
	if !a.Is6() {
		return a
	}
	b := a.As16()
	switch {
	case [12]byte(b[:12]) == [12]byte{0, 0x64, 0xff, 0x9b}:
		return netip.AddrFrom4([4]byte(b[12:]))
	case b[0] == 0x20 && b[1] == 0x02:
		return netip.AddrFrom4([4]byte(b[2:6]))
	case [12]byte(b[:12]) == [12]byte{} && !a.IsLoopback() && !a.IsUnspecified():
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return a
}

// control is a net.Dialer.ControlContext: address is the resolved one that is about to be connected.
func (r Rule) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return hostabi.Errorf(hostabi.ReasonAddressDenied, "address %q: %w", address, err)
	}
	return r.Check(ap.Addr())
}

// Options are the settings of a Transport; zero durations mean no limit.
type Options struct {
	Proxy                      func(*http.Request) (*url.URL, error) // nil = none; see ProxyFunc
	TLS                        *tls.Config
	DialTimeout                time.Duration
	TLSTimeout                 time.Duration
	HeaderTimeout              time.Duration
	IdleConns                  int // kept per host; 0 = 8
	DisableKeepAlives          bool
	MaxResponseHeaderBytes     int64
	AllowTransparentGunzipping bool
}

// Transport is an http.RoundTripper that obeys the rule of each request's context. Connections made under
// one rule are never used under another. It is safe for concurrent use.
type Transport struct {
	o       Options
	mu      sync.Mutex
	direct  map[Rule]*http.Transport
	proxied *http.Transport
}

// New makes a Transport; nothing is dialled before the first request.
func New(o Options) *Transport { return &Transport{o: o, direct: make(map[Rule]*http.Transport)} }

// RoundTrip implements http.RoundTripper. A refused address gives *hostabi.Error ADDRESS_DENIED, possibly
// wrapped. Behind a proxy the proxy resolves names, so that only literal addresses and localhost are judged.
func (t *Transport) RoundTrip(q *http.Request) (*http.Response, error) {
	rule := RuleOf(q.Context())
	if t.o.Proxy != nil {
		via, err := t.o.Proxy(q)
		if err != nil {
			closeBody(q)
			return nil, fmt.Errorf("proxy: %w", err)
		}
		if via != nil {
			if err := rule.checkHost(q.URL.Hostname()); err != nil {
				closeBody(q)
				return nil, err
			}
			return t.viaProxy().RoundTrip(q)
		}
	}
	return t.under(rule).RoundTrip(q)
}

// CloseIdleConnections closes connections that no request uses.
func (t *Transport) CloseIdleConnections() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, d := range t.direct {
		d.CloseIdleConnections()
	}
	if t.proxied != nil {
		t.proxied.CloseIdleConnections()
	}
}

func (t *Transport) under(r Rule) *http.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.direct[r] == nil {
		t.direct[r] = t.transport(r)
	}
	return t.direct[r]
}

// viaProxy dials the proxy, which the user chose, so that it may be anywhere but at a metadata service.
func (t *Transport) viaProxy() *http.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.proxied == nil {
		t.proxied = t.transport(Private)
		t.proxied.Proxy = t.o.Proxy
	}
	return t.proxied
}

func (t *Transport) transport(r Rule) *http.Transport {
	idle := t.o.IdleConns
	if idle == 0 {
		idle = 8
	}
	d := &net.Dialer{Timeout: t.o.DialTimeout, KeepAlive: 30 * time.Second, ControlContext: r.control}
	return &http.Transport{
		DialContext:            d.DialContext,
		ForceAttemptHTTP2:      true,
		TLSClientConfig:        t.o.TLS.Clone(),
		TLSHandshakeTimeout:    t.o.TLSTimeout,
		ResponseHeaderTimeout:  t.o.HeaderTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxIdleConnsPerHost:    idle,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: t.o.MaxResponseHeaderBytes,
		DisableKeepAlives:      t.o.DisableKeepAlives,
		DisableCompression:     !t.o.AllowTransparentGunzipping, // a length must be the length of what is hashed
		ReadBufferSize:         64 << 10,
		WriteBufferSize:        64 << 10,
	}
}

// checkHost judges a host that somebody else will resolve.
func (r Rule) checkHost(host string) error {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return r.Check(netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return r.Check(a)
	}
	return nil
}

// ProxyFunc chooses a proxy by the rules of httpproxy: suffixes and CIDR in no, never for loopback. All
// empty gives nil.
func ProxyFunc(httpProxy, https, no string) func(*http.Request) (*url.URL, error) {
	if httpProxy == "" && https == "" {
		return nil
	}
	f := (&httpproxy.Config{HTTPProxy: httpProxy, HTTPSProxy: https, NoProxy: no}).ProxyFunc()
	return func(q *http.Request) (*url.URL, error) { return f(q.URL) }
}

func closeBody(q *http.Request) {
	if q.Body != nil {
		_ = q.Body.Close() // a RoundTripper always closes it
	}
}
