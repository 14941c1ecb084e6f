package egress

import (
	"net/http"
	"net/netip"
	"net/url"

	"github.com/delivery-station/ds/hostabi"
)

// crossOrigin are the headers that do not follow a redirect to another origin.
var crossOrigin = []string{"Authorization", "Cookie", "Proxy-Authorization"}

// Client makes requests on behalf of plugins (host.HTTP). There is no cookie jar, no credential of ds is ever
// added, and connections end with their answer, so that no plugin gets one that another opened. It is safe for
// concurrent use.
type Client struct{ t *Transport }

// NewClient makes a client; of o, what decides about connections being kept is set here.
func NewClient(o Options) *Client {
	o.DisableKeepAlives = true
	o.MaxResponseHeaderBytes = hostabi.MaxHTTPHeader
	return &Client{New(o)}
}

// Do sends r and follows at most maxRedirects redirects, 0 gives the redirect itself as the answer. Every hop
// is decided by allow before it connects; private opens addresses that are not public, those of metadata
// services only if the target names the address itself. The caller closes the body of the answer. Errors:
// what allow says, REDIRECT_DENIED with metadata "resource" for a refused or unsafe hop, ADDRESS_DENIED.
func (c *Client) Do(r *http.Request, maxRedirects int, allow func(target *url.URL) (private bool, err error)) (*http.Response, error) {
	for hop := 0; ; hop++ {
		private, err := allow(r.URL)
		if err != nil {
			return nil, hopError(r.URL, hop, err)
		}
		resp, err := c.t.RoundTrip(r.WithContext(WithRule(r.Context(), ruleFor(r.URL, private))))
		if err != nil {
			return nil, roundTripError(r.URL, err)
		}
		next, err := redirected(r, resp)
		if next == nil && err == nil || maxRedirects == 0 {
			return resp, nil
		}
		_ = resp.Body.Close() // nothing of a hop is returned
		if err != nil {
			return nil, err
		}
		if hop == maxRedirects {
			return nil, hostabi.Errorf(hostabi.ReasonRedirectDenied, "more than %d redirects from %s", maxRedirects, r.URL.Host)
		}
		r = next
	}
}

// ruleFor is what the addresses of target may be.
func ruleFor(target *url.URL, private bool) Rule {
	if !private {
		return Public
	}
	if _, err := netip.ParseAddr(target.Hostname()); err == nil {
		return Literal
	}
	return Private
}

// hopError says that a redirect led to where the plugin may not go; the first hop keeps its own error.
func hopError(target *url.URL, hop int, err error) error {
	if hop == 0 {
		return err
	}
	return hostabi.Errorf(hostabi.ReasonRedirectDenied, "redirect to %s: %w", target.Redacted(), err).
		WithMeta("capability", string(hostabi.NetHTTP)).WithMeta("resource", target.Scheme+"://"+target.Host)
}

func roundTripError(target *url.URL, err error) error {
	if hostabi.ReasonOf(err) != "" {
		return err
	}
	return hostabi.Errorf(hostabi.ReasonRegistryUnavailable, "%s: %w", target.Host, err)
}

// redirected is the request that resp asks for (RFC 9110 section 15.4), nil if resp is the answer. A body that
// was sent is not sent again: 307 and 308 of a request with a body are the answer.
func redirected(r *http.Request, resp *http.Response) (*http.Request, error) {
	location := resp.Header.Get("Location")
	method := r.Method
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther:
		if method != http.MethodGet && method != http.MethodHead {
			method = http.MethodGet
		}
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		if r.Body != nil && r.Body != http.NoBody && r.GetBody == nil && method != http.MethodGet && method != http.MethodHead {
			return nil, nil
		}
	default:
		return nil, nil
	}
	if location == "" {
		return nil, nil
	}
	to, err := r.URL.Parse(location)
	if err != nil || to.User != nil || to.Host == "" || to.Scheme != "http" && to.Scheme != "https" {
		return nil, hostabi.Errorf(hostabi.ReasonRedirectDenied, "redirect of %s leads to no http or https URL", r.URL.Host)
	}
	if r.URL.Scheme == "https" && to.Scheme == "http" {
		return nil, hostabi.Errorf(hostabi.ReasonRedirectDenied, "redirect of %s leads from https to http", r.URL.Host)
	}
	next, err := http.NewRequestWithContext(r.Context(), method, to.String(), nil) //nolint:gosec // the guard of this package checks the address when it is dialled
	if err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonRedirectDenied, "redirect of %s: %w", r.URL.Host, err)
	}
	next.Header = r.Header.Clone()
	next.Header.Del("Content-Type")
	next.Header.Del("Content-Length")
	if to.Scheme != r.URL.Scheme || to.Host != r.URL.Host {
		for _, h := range crossOrigin {
			next.Header.Del(h)
		}
	}
	return next, nil
}
