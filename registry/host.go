package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/egress"
)

const maxRedirects = 5

// host is one registry host: its settings, its connections, its credentials and what it asked for. It is
// shared by all repositories of the host.
type host struct {
	c      *Client
	name   string // of the API, with port
	known  string // what users call it
	plain  bool
	opt    Host
	client *http.Client
	gate   *gate

	mu     sync.Mutex
	logins map[string]*login // by the credential key that fits
}

// login is one credential of a host with its tokens.
type login struct {
	client *auth.Client

	mu     sync.Mutex
	done   bool
	cred   auth.Credential
	source string // where cred is from; empty = there is none
	err    error
}

// host returns the host of ref, made at its first use.
func (c *Client) host(ref Reference) (*host, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := ref.apiHost()
	if h := c.hosts[name]; h != nil {
		return h, nil
	}
	opt := c.hostOptions(ref.Host)
	network, err := c.network(opt)
	if err != nil {
		return nil, err
	}
	limit := c.o.Concurrency
	if opt.Concurrency > 0 {
		limit = opt.Concurrency
	}
	c.warnUnsafe(ref.Host, opt)
	h := &host{c: c, name: name, known: ref.Host, opt: opt, plain: c.plainHTTP(ref.Host, opt), gate: newGate(limit), logins: make(map[string]*login)}
	h.client = &http.Client{Transport: &guard{h, &retrier{c: c, next: network, gate: h.gate}}, CheckRedirect: checkRedirect}
	c.hosts[name] = h
	return h, nil
}

// warnUnsafe is called once per host.
func (c *Client) warnUnsafe(name string, o Host) {
	switch {
	case loopback(name):
	case c.plainHTTP(name, o):
		c.o.Warn(name + " is reached by plain HTTP: others can read and change what is sent")
	case o.InsecureTLS:
		c.o.Warn("the certificate of " + name + " is not checked: others can read and change what is sent")
	}
}

// hostOptions is the first entry of Options.Hosts that fits.
func (c *Client) hostOptions(name string) Host {
	for _, o := range c.o.Hosts {
		suffix, wild := strings.CutPrefix(o.Host, "*")
		if o.Host == name || (wild && strings.HasPrefix(suffix, ".") && strings.HasSuffix(hostname(name), suffix)) {
			return o
		}
	}
	return Host{}
}

func (c *Client) plainHTTP(name string, o Host) bool {
	for _, insecure := range c.o.Insecure {
		if canonicalHost(insecure) == name || insecure == name {
			return true
		}
	}
	tlsWanted := o.InsecureTLS || o.CAFile != "" || o.CertFile != ""
	return o.PlainHTTP || (loopback(name) && !tlsWanted)
}

// network is what really sends: one egress.Transport per distinct TLS setting. c.mu is held.
func (c *Client) network(o Host) (http.RoundTripper, error) {
	if c.o.Transport != nil {
		return c.o.Transport, nil
	}
	key := [4]string{o.CAFile, o.CertFile, o.KeyFile}
	if o.InsecureTLS {
		key[3] = "insecure"
	}
	if t := c.networks[key]; t != nil {
		return t, nil
	}
	conf, err := tlsConfig(o)
	if err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonTLS, "TLS settings of %s: %w", o.Host, err)
	}
	t := egress.New(egress.Options{
		Proxy: egress.ProxyFunc(c.o.Proxy.HTTP, c.o.Proxy.HTTPS, c.o.Proxy.No), TLS: conf,
		DialTimeout: c.o.Timeouts.Dial, TLSTimeout: c.o.Timeouts.TLS, HeaderTimeout: c.o.Timeouts.Header,
		IdleConns: c.o.Concurrency + 2, // the default of 2 reconnects all the time
	})
	c.networks[key] = t
	return t, nil
}

func tlsConfig(o Host) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: o.InsecureTLS} //nolint:gosec // the user's word, warned about by the command
	if o.CAFile != "" {
		pem, err := readUpTo(o.CAFile, maxCAFile)
		if err != nil {
			return nil, err
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", o.CAFile)
		}
		conf.RootCAs = pool
	}
	if o.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, err
		}
		conf.Certificates = []tls.Certificate{cert}
	}
	return conf, nil
}

// login returns the credential and tokens for a repository of h.
func (h *host) login(repository string) *login {
	key := h.c.creds.key(h.known, repository)
	h.mu.Lock()
	defer h.mu.Unlock()
	if l := h.logins[key]; l != nil {
		return l
	}
	l := &login{}
	l.client = h.authClient(func(ctx context.Context) (auth.Credential, error) { return l.credential(ctx, h.c.creds, key) })
	h.logins[key] = l
	return l
}

// authClient sends requests to h with the credential that get answers, and to no other host with any.
func (h *host) authClient(get func(ctx context.Context) (auth.Credential, error)) *auth.Client {
	c := &auth.Client{
		Client: h.client, Cache: auth.NewCache(), ClientID: "ds",
		// Token servers are judged by the guard, on the address that is dialled and not on one more lookup.
		BlockedRealmPrefixes: []netip.Prefix{},
		Credential: func(ctx context.Context, hostport string) (auth.Credential, error) {
			if hostport != h.name {
				return auth.EmptyCredential, nil
			}
			cred, err := get(ctx)
			h.c.learn(cred)
			return cred, err
		},
	}
	if h.c.o.UserAgent != "" {
		c.SetUserAgent(h.c.o.UserAgent)
	}
	return c
}

// credential looks key up once; a failed lookup is tried again.
func (l *login) credential(ctx context.Context, creds *credentialSources, key string) (auth.Credential, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.done {
		l.cred, l.source, l.err = creds.lookup(ctx, key)
		l.done = l.err == nil
	}
	return l.cred, l.err
}

// used names the source of the credential that was sent, or is empty.
func (l *login) used() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.source
}

// guard is the outermost round tripper of a host: what may be asked, and of which address.
type guard struct {
	h    *host
	next http.RoundTripper
}

// RoundTrip refuses everything when offline, and API requests to hosts that a server named (a Link header).
func (g *guard) RoundTrip(q *http.Request) (*http.Response, error) {
	refuse := func(err error) (*http.Response, error) {
		if q.Body != nil {
			_ = q.Body.Close() // a RoundTripper always closes it
		}
		return nil, err
	}
	if g.h.c.o.Offline {
		return refuse(hostabi.Errorf(hostabi.ReasonOffline, "not asked: offline"))
	}
	if q.Response == nil && strings.HasPrefix(q.URL.Path, "/v2/") && !strings.EqualFold(q.URL.Host, g.h.name) {
		return refuse(hostabi.Errorf(hostabi.ReasonAddressDenied, "%s names the foreign host %s", g.h.known, clip(q.URL.Host, 100)))
	}
	g.h.c.keepSecret(q.Header)
	resp, err := g.next.RoundTrip(q.WithContext(egress.WithRule(q.Context(), g.h.rule(q))))
	if err != nil {
		return nil, err
	}
	if isWebPage(q, resp) {
		drain(resp)
		return nil, hostabi.Errorf(hostabi.ReasonBadAnswer, "%s answers with a web page and not as a registry", g.h.known)
	}
	if resp.StatusCode < 400 && !strings.Contains(q.URL.Path, "/blobs/") && q.Response == nil && resp.Body != nil {
		resp.Body = &metadataBody{ReadCloser: resp.Body}
	}
	return g.h.c.scrubError(resp)
}

// isWebPage reports whether a login page or the like stands where a manifest or list of tags should: somebody
// between may answer everything so, and nothing would look like an index without referrers.
func isWebPage(q *http.Request, resp *http.Response) bool {
	asked := strings.Contains(q.URL.Path, "/manifests/") || strings.HasSuffix(q.URL.Path, "/tags/list")
	return asked && resp.StatusCode == http.StatusOK && strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html")
}

// metadataBody ends an answer that is no blob and too long, and says so: a decoder would take it for a cut.
type metadataBody struct {
	io.ReadCloser
	n int64
}

func (b *metadataBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.n += int64(n); b.n > maxManifest {
		return n, fmt.Errorf("an answer of more than %d bytes: %w", maxManifest, errdef.ErrSizeExceedsLimit)
	}
	return n, err
}

// rule is what a request may reach: hosts that the user named may be private, others are a server's word.
func (h *host) rule(q *http.Request) egress.Rule {
	name := q.URL.Hostname()
	if strings.EqualFold(name, hostname(h.name)) {
		return egress.Private
	}
	for _, r := range slices.Concat(h.opt.RedirectHosts, h.opt.TokenHosts) {
		if strings.EqualFold(name, hostname(r)) {
			return egress.Private
		}
	}
	return egress.Public
}

func checkRedirect(q *http.Request, via []*http.Request) error {
	from := via[len(via)-1].URL
	switch {
	case len(via) > maxRedirects:
		return hostabi.Errorf(hostabi.ReasonRedirectDenied, "more than %d redirects", maxRedirects)
	case q.URL.Scheme != "http" && q.URL.Scheme != "https":
		return hostabi.Errorf(hostabi.ReasonRedirectDenied, "redirect to the scheme %s", clip(q.URL.Scheme, 20))
	case from.Scheme == "https" && q.URL.Scheme == "http":
		return hostabi.Errorf(hostabi.ReasonRedirectDenied, "redirect from https to http")
	}
	return nil
}
