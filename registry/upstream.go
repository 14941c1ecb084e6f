package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/delivery-station/ds/hostabi"
)

const (
	// cacheEntryType is the artifact type of the manifest that keeps a blob of a tier: registries collect blobs
	// that no manifest lists.
	cacheEntryType = "application/vnd.delivery-station.cache.entry.v1"
	// entrySources is its annotation with the repositories that the blob was fetched from, separated by spaces.
	entrySources = "delivery-station.io/cache.sources"
	entryPrefix  = "cas-" // of its tag, the hex digits of the blob follow

	maxEntry        = 64 << 10
	maxEntrySources = 100
)

// Upstream is a repository that holds blobs of many artifacts for a team: the remote tier of a cache. What
// comes from it is to be hashed like anything else. It asks once and repeats nothing, because there is always
// the origin. It is safe for concurrent use.
type Upstream struct {
	c   *Client
	ref Reference
	r   *remoteRepo
}

// Upstream binds the repository that ref names; tag and digest of ref are left out. A layout is none.
func (c *Client) Upstream(ref string) (*Upstream, error) {
	r, err := c.Parse(ref)
	if err != nil {
		return nil, err
	}
	if r.IsLayout() {
		return nil, badRef(ref, "is a layout; a remote tier is a repository of a registry")
	}
	r.Tag, r.Digest = "", ""
	at, err := c.place(r)
	if err != nil {
		return nil, failure("open", r, "", err)
	}
	return &Upstream{c, r, at}, nil
}

// Name is the identity of the repository: Reference.Name.
func (u *Upstream) Name() string { return u.ref.Name() }

// Fetch opens d from offset on, or from an earlier one if the registry knows no ranges: at says which. That
// it is not there, or nobody fetched it from the repository source, has the reason REF_NOT_FOUND. The caller
// closes the body.
func (u *Upstream) Fetch(ctx context.Context, source string, d hostabi.Descriptor, offset int64) (body io.ReadCloser, at int64, err error) {
	ctx = once(ctx)
	e, err := u.entry(ctx, d.Digest)
	if err == nil && !slices.Contains(e.sources(), source) {
		err = notFound("nobody put it there from %s", source)
	}
	if err == nil {
		body, at, err = u.open(ctx, d, offset)
	}
	return body, at, fail(ctx, "blob", u.ref, u.r, err)
}

func (u *Upstream) open(ctx context.Context, d hostabi.Descriptor, offset int64) (body io.ReadCloser, at int64, err error) {
	resp, err := u.r.get(ctx, d.Digest, offset)
	if err != nil {
		return nil, 0, err
	}
	left := d.Size
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusPartialContent:
		from, size, ok := parseContentRange(resp.Header.Get("Content-Range"))
		if !ok || from != offset || (size >= 0 && size != d.Size) {
			err = errOtherRange
		}
		at, left = offset, d.Size-offset
	default:
		err = answerError(resp)
	}
	if err == nil && resp.ContentLength >= 0 && resp.ContentLength != left {
		err = errSize
	}
	if err != nil {
		_ = resp.Body.Close() // unread
		return nil, 0, err
	}
	return resp.Body, at, nil
}

// entry is the manifest of a blob in a tier.
type entry struct{ ocispec.Manifest }

func (e *entry) sources() []string { return strings.Fields(e.Annotations[entrySources]) }

// entry reads the manifest that is tagged for d.
func (u *Upstream) entry(ctx context.Context, d hostabi.Digest) (*entry, error) {
	_, body, err := u.r.repo.Manifests().FetchReference(ctx, entryPrefix+d.Hex())
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }() // read only
	text, err := io.ReadAll(io.LimitReader(body, maxEntry+1))
	if err != nil {
		return nil, err
	}
	if e := parseEntry(text, d); e != nil {
		return e, nil
	}
	return nil, notFound("the tag %s%s is no entry of a cache", entryPrefix, d.Hex())
}

// parseEntry is nil if text is not the entry of d.
func parseEntry(text []byte, d hostabi.Digest) *entry {
	var e entry
	if len(text) > maxEntry || json.Unmarshal(text, &e) != nil || e.ArtifactType != cacheEntryType || len(e.Layers) != 1 || string(e.Layers[0].Digest) != string(d) {
		return nil
	}
	return &e
}

// Push stores d, which open gives and which came from the repository source, with a manifest and a tag of its
// own, unless it is there.
func (u *Upstream) Push(ctx context.Context, source string, d hostabi.Descriptor, open func() (*os.File, error)) error {
	ctx = once(u.r.pushing(ctx))
	return fail(ctx, "push", u.ref, u.r, u.push(ctx, source, d, open))
}

func (u *Upstream) push(ctx context.Context, source string, d hostabi.Descriptor, open func() (*os.File, error)) error {
	var sources []string
	switch e, err := u.entry(ctx, d.Digest); {
	case err == nil:
		sources = e.sources()
	case !isNotFound(err):
		return err
	}
	empty := []byte("{}")
	config := hostabi.Descriptor{MediaType: ocispec.MediaTypeEmptyJSON, Digest: hostabi.DigestOf(empty), Size: 2}
	layer := hostabi.Descriptor{MediaType: "application/octet-stream", Digest: d.Digest, Size: d.Size}
	if err := u.blobs(ctx, config, empty, layer, open); err != nil || slices.Contains(sources, source) {
		return err
	}
	sources = append(sources, source)
	sources = sources[max(0, len(sources)-maxEntrySources):] // the oldest goes: a miss more
	body, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaManifest, ArtifactType: cacheEntryType, Config: toOCI(config), Layers: []ociDescriptor{toOCI(layer)},
		Annotations: map[string]string{entrySources: strings.Join(sources, " ")},
	})
	if err != nil {
		return err
	}
	root := hostabi.Descriptor{MediaType: mediaManifest, Digest: hostabi.DigestOf(body), Size: int64(len(body))}
	return u.r.tag(ctx, root, body, entryPrefix+d.Digest.Hex())
}

// blobs uploads what the manifest of an entry lists and is not there.
func (u *Upstream) blobs(ctx context.Context, config hostabi.Descriptor, empty []byte, layer hostabi.Descriptor, open func() (*os.File, error)) error {
	put := func(d hostabi.Descriptor, content func() (io.ReadSeeker, error)) error {
		there, err := u.r.has(ctx, d)
		if err != nil || there {
			return err
		}
		src, err := content()
		if err != nil {
			return err
		}
		if c, ok := src.(io.Closer); ok {
			defer func() { _ = c.Close() }() // read only
		}
		return u.r.put(ctx, d, src, nil)
	}
	if err := put(layer, func() (io.ReadSeeker, error) { return open() }); err != nil {
		return err
	}
	return put(config, func() (io.ReadSeeker, error) { return bytes.NewReader(empty), nil })
}
