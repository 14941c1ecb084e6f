package registry

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/url"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/delivery-station/ds/hostabi"
)

// HostInfo is what Ping found out about a registry. An empty string was not asked or not answered.
type HostInfo struct {
	Host      string
	TLS       string // version, or "plain HTTP"
	Auth      string // none, Basic or Bearer
	Realm     string // host of the token server
	Login     string // where the credential is from that was accepted
	Referrers string // api, or tag: the fallback
	Ranges    string // yes or no: whether a cut blob can be continued
}

// Ping asks a host, HOST or a reference to a repository there, what it is like. Referrers and ranges are known
// for a repository only, ranges if it has the tag of the reference. Credentials that the host does not accept
// are an error.
func (c *Client) Ping(ctx context.Context, where string) (HostInfo, error) {
	ref, err := hostReference(where)
	if err != nil {
		if ref, err = c.Parse(where); err != nil {
			return HostInfo{}, err
		}
	}
	if ref.IsLayout() {
		return HostInfo{}, badRef(where, "is a layout and no registry")
	}
	h, err := c.host(ref)
	if err != nil {
		return HostInfo{}, failure("ping", ref, "", err)
	}
	info := HostInfo{Host: ref.Host}
	l := h.login(ref.Repository)
	err = h.greet(ctx, &info)
	if err == nil && info.Auth != "none" {
		err = h.recognised(ctx, l, ref.Repository, &info)
	}
	if err == nil && ref.Repository != "" {
		err = c.pingRepository(ctx, ref, &info)
	}
	return info, failure("ping", ref, l.used(), err)
}

// greet is a request without credentials.
func (h *host) greet(ctx context.Context, info *HostInfo) error {
	resp, err := h.get(ctx, h.client, "/v2/")
	if err != nil {
		return err
	}
	defer drain(resp)
	if info.TLS = "plain HTTP"; resp.TLS != nil {
		info.TLS = tls.VersionName(resp.TLS.Version)
	}
	switch resp.StatusCode {
	case http.StatusOK:
		info.Auth = "none"
		return nil
	case http.StatusUnauthorized:
	default:
		return answerError(resp)
	}
	scheme, params, _ := strings.Cut(resp.Header.Get("WWW-Authenticate"), " ")
	switch {
	case strings.EqualFold(scheme, "Basic"):
		info.Auth = "Basic"
	case strings.EqualFold(scheme, "Bearer"):
		info.Auth, info.Realm = "Bearer", realmHost(params)
	default:
		return hostabi.Errorf(hostabi.ReasonBadAnswer, "asks for the authentication scheme %q", clip(scheme, 40))
	}
	return nil
}

// realmHost is the host in the realm of a challenge.
func realmHost(params string) string {
	_, rest, ok := strings.Cut(params, `realm="`)
	if !ok {
		return ""
	}
	realm, _, _ := strings.Cut(rest, `"`)
	u, err := url.Parse(realm)
	if err != nil {
		return ""
	}
	return clip(clean(u.Host), 200)
}

// recognised asks with the credential there is, if there is one.
func (h *host) recognised(ctx context.Context, l *login, repository string, info *HostInfo) error {
	cred, err := l.credential(ctx, h.c.creds, h.c.creds.key(h.known, repository))
	if err != nil || cred == auth.EmptyCredential {
		return err
	}
	if err := h.probe(ctx, l.client); err != nil {
		return err
	}
	info.Login = l.used()
	return nil
}

func (c *Client) pingRepository(ctx context.Context, ref Reference, info *HostInfo) error {
	r, err := c.place(ref)
	if err != nil {
		return err
	}
	ctx = auth.AppendRepositoryScope(ctx, r.repo.Reference, auth.ActionPull)
	none := hostabi.DigestOf(nil)
	resp, err := r.h.get(ctx, r.login.client, "/v2/"+ref.Repository+"/referrers/"+string(none))
	if err != nil {
		return err
	}
	switch drain(resp); {
	case resp.StatusCode == http.StatusOK && strings.HasPrefix(resp.Header.Get("Content-Type"), mediaIndex):
		info.Referrers = "api"
	case resp.StatusCode == http.StatusNotFound:
		info.Referrers = "tag"
	}
	ref = ref.orLatest()
	d, err := r.ask(ctx, ref.Tag, ref.Digest)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	info.Ranges, err = r.ranges(ctx, d)
	return err
}

// ranges asks for a part of the manifest's first blob.
func (r *remoteRepo) ranges(ctx context.Context, d hostabi.Descriptor) (string, error) {
	for range maxNesting {
		body, err := r.manifest(ctx, d)
		if err != nil {
			return "", err
		}
		m, err := parseManifest(d, body)
		if err != nil {
			return "", err
		}
		if len(m.Manifests) > 0 {
			if d, err = fromOCI(m.Manifests[0]); err != nil {
				return "", err
			}
			continue
		}
		for _, o := range (selection{}).blobs(m) {
			if b, err := fromOCI(o); err == nil && b.Size > 1 {
				return r.rangeOf(ctx, b)
			}
		}
		return "", nil
	}
	return "", nil
}

func (r *remoteRepo) rangeOf(ctx context.Context, d hostabi.Descriptor) (string, error) {
	resp, err := r.get(ctx, d.Digest, d.Size-1)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }() // unread: it may be the whole blob
	switch resp.StatusCode {
	case http.StatusPartialContent:
		return "yes", nil
	case http.StatusOK:
		return "no", nil
	}
	return "", answerError(resp)
}
