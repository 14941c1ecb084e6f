package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/delivery-station/ds/hostabi"
)

// cacheEntryType is the artifact type of the manifest that keeps a blob of a tier: registries collect blobs
// that no manifest lists.
const cacheEntryType = "application/vnd.delivery-station.cache.entry.v1"

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

// Fetch opens d from offset on, or from an earlier one if the registry knows no ranges: at says which. That
// it is not there has the reason REF_NOT_FOUND. The caller closes the body.
func (u *Upstream) Fetch(ctx context.Context, d hostabi.Descriptor, offset int64) (body io.ReadCloser, at int64, err error) {
	resp, err := u.r.get(once(ctx), d.Digest, offset)
	if err != nil {
		return nil, 0, fail(ctx, "blob", u.ref, u.r, err)
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
		return nil, 0, fail(ctx, "blob", u.ref, u.r, err)
	}
	return resp.Body, at, nil
}

// Push stores d, which open gives, with a manifest and a tag of its own, unless it is there.
func (u *Upstream) Push(ctx context.Context, d hostabi.Descriptor, open func() (*os.File, error)) error {
	return fail(ctx, "push", u.ref, u.r, u.push(u.r.pushing(ctx), d, open))
}

func (u *Upstream) push(ctx context.Context, d hostabi.Descriptor, open func() (*os.File, error)) error {
	tag := "cas-" + d.Digest.Hex()
	if _, err := u.r.ask(ctx, tag, ""); err == nil || !isNotFound(err) {
		return err
	}
	f, err := open()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // read only
	empty := []byte("{}")
	config := hostabi.Descriptor{MediaType: ocispec.MediaTypeEmptyJSON, Digest: hostabi.DigestOf(empty), Size: 2}
	layer := hostabi.Descriptor{MediaType: "application/octet-stream", Digest: d.Digest, Size: d.Size}
	body, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaManifest, ArtifactType: cacheEntryType, Config: toOCI(config), Layers: []ociDescriptor{toOCI(layer)},
	})
	if err != nil {
		return err
	}
	for _, b := range []struct {
		hostabi.Descriptor
		io.ReadSeeker
	}{{layer, f}, {config, bytes.NewReader(empty)}} {
		there, err := u.r.has(ctx, b.Descriptor)
		if err != nil {
			return err
		}
		if there {
			continue
		}
		if err := u.r.put(ctx, b.Descriptor, b.ReadSeeker, nil); err != nil {
			return err
		}
	}
	root := hostabi.Descriptor{MediaType: mediaManifest, Digest: hostabi.DigestOf(body), Size: int64(len(body))}
	return u.r.tag(ctx, root, body, tag)
}
