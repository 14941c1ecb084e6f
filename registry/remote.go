package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"

	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	orasregistry "oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/delivery-station/ds/hostabi"
)

const (
	maxManifest  = 4 << 20
	maxErrorBody = 64 << 10
	maxPages     = 1000
)

// remoteRepo is one repository of a registry. It is shared by all callers, so that what was learned about
// the registry (tokens, the referrers API) is learned once.
type remoteRepo struct {
	c     *Client
	h     *host
	ref   Reference // without tag and digest
	login *login
	repo  *remote.Repository

	mirrors []*mirror // where content by digest is asked first
}

// remote is the repository of ref and the mirrors of its host.
func (c *Client) remote(ref Reference) (*remoteRepo, error) {
	r, err := c.place(ref)
	if err != nil {
		return nil, err
	}
	return c.mirrored(r)
}

// place is the repository of ref without mirrors.
func (c *Client) place(ref Reference) (*remoteRepo, error) {
	h, err := c.host(ref)
	if err != nil {
		return nil, err
	}
	l := h.login(ref.Repository)
	c.mu.Lock()
	defer c.mu.Unlock()
	name := ref.Name()
	if r := c.repos[name]; r != nil {
		return r, nil
	}
	r := &remoteRepo{c: c, h: h, ref: Reference{Host: ref.Host, Repository: ref.Repository}, login: l}
	r.repo = &remote.Repository{
		Client: l.client, PlainHTTP: h.plain,
		Reference:       orasregistry.Reference{Registry: h.name, Repository: ref.Repository},
		TagListMaxPages: maxPages, ReferrerListMaxPages: maxPages, MaxMetadataBytes: maxManifest + 1, // the guard ends bodies before
		SkipReferrersGC: true, // deleting is often forbidden
	}
	switch h.opt.Referrers {
	case "api":
		_ = r.repo.SetReferrersCapability(true) // fails only when it is known already
	case "tag":
		_ = r.repo.SetReferrersCapability(false)
	}
	c.repos[name] = r
	return r, nil
}

func (r *remoteRepo) source() string { return r.login.used() }

// pushing widens the scope of every request under ctx at once, so that one token serves all of them.
func (r *remoteRepo) pushing(ctx context.Context) context.Context {
	return auth.AppendRepositoryScope(ctx, r.repo.Reference, auth.ActionPull, auth.ActionPush)
}

func (r *remoteRepo) resolve(ctx context.Context, tag string, d hostabi.Digest) (hostabi.Descriptor, error) {
	if d != "" {
		if found, ok := fromMirrors(ctx, r, func(ctx context.Context, m *remoteRepo) (hostabi.Descriptor, error) { return m.resolve(ctx, "", d) }); ok {
			return found, nil
		}
	}
	desc, err := r.ask(ctx, tag, d)
	if d == "" && r.unreachable(ctx, err) {
		if found, ok := r.tagFromMirror(ctx, tag); ok {
			return found, nil
		}
	}
	return desc, err
}

// ask resolves at this registry.
func (r *remoteRepo) ask(ctx context.Context, tag string, d hostabi.Digest) (hostabi.Descriptor, error) {
	name := tag
	if d != "" {
		name = string(d)
	}
	desc, err := r.repo.Resolve(ctx, name)
	if err != nil {
		return hostabi.Descriptor{}, err
	}
	return fromOCI(desc)
}

func (r *remoteRepo) manifest(ctx context.Context, d hostabi.Descriptor) ([]byte, error) {
	if d.Size > maxManifest {
		return nil, fmt.Errorf("manifest of %d bytes: %w", d.Size, errdef.ErrSizeExceedsLimit)
	}
	if b, ok := fromMirrors(ctx, r, func(ctx context.Context, m *remoteRepo) ([]byte, error) { return m.manifest(ctx, d) }); ok {
		return b, nil
	}
	b, err := content.FetchAll(ctx, r.repo.Manifests(), toOCI(d))
	if errors.Is(err, content.ErrMismatchedDigest) {
		b, err = content.FetchAll(ctx, r.repo.Manifests(), toOCI(d)) // a broken transfer is not a broken manifest
	}
	return b, err
}

func (r *remoteRepo) blob(ctx context.Context, d hostabi.Descriptor) io.ReadSeekCloser {
	return &blobReader{ctx: ctx, repo: r, desc: d}
}

// get asks for the bytes of a blob from offset on. The caller closes the body of every answer.
func (r *remoteRepo) get(ctx context.Context, d hostabi.Digest, offset int64) (*http.Response, error) {
	ctx = auth.AppendRepositoryScope(ctx, r.repo.Reference, auth.ActionPull)
	url := r.h.scheme() + "://" + r.h.name + "/v2/" + r.ref.Repository + "/blobs/" + string(d)
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if offset > 0 {
		q.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	return r.login.client.Do(q)
}

// answerError is the error that an answer other than expected stands for. It reads the body.
func answerError(resp *http.Response) error {
	e := &errcode.ErrorResponse{Method: resp.Request.Method, URL: resp.Request.URL, StatusCode: resp.StatusCode}
	var body struct {
		Errors errcode.Errors `json:"errors"`
	}
	if json.NewDecoder(io.LimitReader(resp.Body, maxErrorBody)).Decode(&body) == nil {
		e.Errors = body.Errors
	}
	return e
}

func (r *remoteRepo) tags(ctx context.Context, yield func(string) error) error {
	return r.repo.Tags(ctx, "", func(tags []string) error {
		for _, t := range tags {
			if err := yield(t); err != nil {
				return err
			}
		}
		return nil
	})
}

// referrers lists what may refer to subject; the caller looks at each. No list is an empty list.
func (r *remoteRepo) referrers(ctx context.Context, subject hostabi.Digest) (list []hostabi.Descriptor, err error) {
	desc := toOCI(hostabi.Descriptor{Digest: subject, MediaType: mediaIndex})
	err = r.repo.Referrers(ctx, desc, "", func(page []ociDescriptor) error {
		for _, d := range page {
			if h, err := fromOCI(d); err == nil {
				list = append(list, h)
			}
		}
		if len(list) > maxChildren {
			return fmt.Errorf("over %d referrers: %w", maxChildren, errdef.ErrTooManyPages)
		}
		return nil
	})
	if s, _ := status(err); s == http.StatusNotFound {
		return nil, nil
	}
	return list, err
}

func (r *remoteRepo) has(ctx context.Context, d hostabi.Descriptor) (bool, error) {
	return r.repo.Blobs().Exists(ctx, toOCI(d))
}

// errNotMounted says that a registry wants the bytes.
var errNotMounted = errors.New("not mounted")

// mount makes a blob of another repository of the same host available here.
func (r *remoteRepo) mount(ctx context.Context, d hostabi.Descriptor, from string) bool {
	m, ok := r.repo.Blobs().(orasregistry.Mounter)
	if !ok {
		return false
	}
	err := m.Mount(ctx, toOCI(d), from, func() (io.ReadCloser, error) { return nil, errNotMounted })
	return err == nil
}

// put uploads a blob in one piece. A failed attempt is repeated from the first byte: a new upload is the only
// state that every registry agrees on.
func (r *remoteRepo) put(ctx context.Context, d hostabi.Descriptor, src io.ReadSeeker, count func(int64)) error {
	for n := 0; ; n++ {
		if _, err := src.Seek(0, io.SeekStart); err != nil {
			return err
		}
		body := &uploadBody{src: src, count: count}
		err := r.repo.Blobs().Push(ctx, toOCI(d), body)
		begun, broken := body.end()
		if err == nil {
			return nil
		}
		if broken != nil { // the source failed, not the registry
			return broken
		}
		// A POST was repeated by the transport; a 401 or 404 here is a token or session that ended under way.
		lost, _ := status(err)
		again := begun && !isOnce(ctx) && (uploadTransient(ctx, err) || (n == 0 && (lost == 401 || lost == 404)))
		if !again || n >= r.c.o.Retry.Attempts {
			return err
		}
		if err := r.again(ctx, "push", n, err); err != nil {
			return err
		}
	}
}

// again pauses before repeat n (from 0) of what failed with err.
func (r *remoteRepo) again(ctx context.Context, op string, n int, err error) error {
	e := Event{Op: op, Phase: PhaseRetry, Ref: r.ref.Name(), Attempt: n + 1, Wait: backoff(n), Err: err}
	r.c.observe(e)
	return r.c.sleep(ctx, e.Wait)
}

// uploadTransient reports whether a new upload may succeed. 416 is a server that counted differently.
func uploadTransient(ctx context.Context, err error) bool {
	if s, ok := status(err); ok {
		return slices.Contains([]int{408, 416, 429, 500, 502, 503, 504, 522}, s)
	}
	if _, ok := errors.AsType[*errWait](err); ok {
		return false
	}
	return transient(ctx, nil, err)
}

// uploadBody is a source that net/http cannot close or recognise, and that remembers its own failure.
// net/http may go on reading after it gave an answer; end keeps it off the source from there on.
type uploadBody struct {
	mu    sync.Mutex
	src   io.Reader
	count func(int64)
	begun bool
	ended bool
	sent  int64
	err   error
}

var errUploadEnded = errors.New("upload ended")

func (b *uploadBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return 0, errUploadEnded
	}
	b.begun = true
	n, err := b.src.Read(p)
	b.sent += int64(n)
	if b.count != nil && n > 0 {
		b.count(b.sent)
	}
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// end waits for a Read in progress and reports whether there was any, and how the source failed.
func (b *uploadBody) end() (begun bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	return b.begun, b.err
}

func (r *remoteRepo) putManifest(ctx context.Context, d hostabi.Descriptor, body []byte) error {
	return r.repeat(ctx, func() error { return r.repo.Manifests().Push(ctx, toOCI(d), bytes.NewReader(body)) })
}

func (r *remoteRepo) tag(ctx context.Context, d hostabi.Descriptor, body []byte, tag string) error {
	if tag == "" {
		return r.putManifest(ctx, d, body)
	}
	return r.repeat(ctx, func() error { return r.repo.Manifests().PushReference(ctx, toOCI(d), bytes.NewReader(body), tag) })
}

// repeat does again what the transport cannot, because it does not know how to begin a body again.
func (r *remoteRepo) repeat(ctx context.Context, f func() error) error {
	for n := 0; ; n++ {
		err := f()
		if err == nil || isOnce(ctx) || n >= r.c.o.Retry.Attempts || !uploadTransient(ctx, err) {
			return err
		}
		if err := r.again(ctx, "tag", n, err); err != nil {
			return err
		}
	}
}
