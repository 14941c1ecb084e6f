package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"

	"github.com/delivery-station/ds/hostabi"
)

// Repository is one repository or layout, for callers that look at manifests before they fetch: it never
// goes anywhere else. It is safe for concurrent use.
type Repository struct {
	c   *Client
	ref Reference
	t   target
}

// Repository binds the place that ref names; tag and digest of ref are left out.
func (c *Client) Repository(ref string) (*Repository, error) {
	r, t, err := c.open(ref)
	if err != nil {
		return nil, err
	}
	r.Tag, r.Digest = "", ""
	return &Repository{c, r, t}, nil
}

// Name is the identity of the repository: Reference.Name.
func (r *Repository) Name() string { return r.ref.Name() }

// Resolve finds what ref points to: a tag, a digest, or a whole reference into this repository.
func (r *Repository) Resolve(ctx context.Context, ref string) (hostabi.Descriptor, error) {
	at := r.ref
	switch {
	case ValidTag(ref):
		at.Tag = ref
	case hostabi.Digest(ref).Valid():
		at.Digest = hostabi.Digest(ref)
	default:
		full, err := r.c.Parse(ref)
		if err != nil {
			return hostabi.Descriptor{}, err
		}
		if full.Name() != r.ref.Name() {
			return hostabi.Descriptor{}, badRef(ref, "is not in %s", r.ref.Name())
		}
		at = full
	}
	return r.c.resolve(ctx, at, r.t)
}

// Manifest is the bytes of a manifest or index: at most 4 MiB, digest checked.
func (r *Repository) Manifest(ctx context.Context, d hostabi.Descriptor) ([]byte, error) {
	b, err := r.t.manifest(ctx, d)
	return b, fail(ctx, "manifest", r.at(d), r.t, err)
}

// Fetch brings d into a sink: a blob alone, a manifest with everything below it.
func (r *Repository) Fetch(ctx context.Context, d hostabi.Descriptor, into hostabi.Sink) error {
	p := r.c.puller(r.at(d), r.t, into, nil)
	if isManifest(d.MediaType) {
		return fail(ctx, "pull", r.at(d), r.t, p.graph(ctx, d, selection{}))
	}
	return fail(ctx, "pull", r.at(d), r.t, p.blob(ctx, d))
}

// Referrers yields the manifests of this repository that name subject as theirs, as Client.Referrers.
func (r *Repository) Referrers(ctx context.Context, subject hostabi.Digest, artifactType string) iter.Seq2[hostabi.Descriptor, error] {
	return func(yield func(hostabi.Descriptor, error) bool) {
		err := referrers(ctx, r.t, subject, artifactType, func(d hostabi.Descriptor) error {
			d.Ref = r.at(d).String()
			if !yield(d, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(hostabi.Descriptor{}, fail(ctx, "referrers", r.ref, r.t, err))
		}
	}
}

func (r *Repository) at(d hostabi.Descriptor) Reference {
	at := r.ref
	at.Digest = d.Digest
	return at
}

// fromMemory is an OpenFunc over content in memory.
func fromMemory(content map[hostabi.Digest][]byte) hostabi.OpenFunc {
	return func(_ context.Context, d hostabi.Digest) (io.ReadSeekCloser, error) {
		b, ok := content[d]
		if !ok {
			return nil, hostabi.Errorf(hostabi.ReasonNotCached, "no blob %s", d)
		}
		return struct {
			io.ReadSeeker
			io.Closer
		}{bytes.NewReader(b), io.NopCloser(nil)}, nil
	}
}

// Has reports whether the repository itself holds a blob.
func (r *Repository) Has(ctx context.Context, d hostabi.Descriptor) (bool, error) {
	ok, err := r.t.has(ctx, d)
	return ok, fail(ctx, "blob", r.at(d), r.t, err)
}

// Listed is what the index.json of a layout lists, in its order; Ref is the name under which it does so, as it
// stands there. USAGE for a repository of a registry.
func (r *Repository) Listed(ctx context.Context) ([]hostabi.Descriptor, error) {
	l, ok := r.t.(*layout)
	if !ok {
		return nil, hostabi.Errorf(hostabi.ReasonUsage, "%s is no layout", r.ref.Name())
	}
	index, err := l.index()
	if err == nil && index == nil {
		err = notFound("there is no layout at %s", l.path)
	}
	if err != nil {
		return nil, fail(ctx, "layout", r.ref, r.t, err)
	}
	out := make([]hostabi.Descriptor, 0, len(index.Manifests))
	for _, e := range index.Manifests {
		d, err := untagged(e)
		if err != nil {
			return nil, fail(ctx, "layout", r.ref, r.t, err)
		}
		d.Ref = e.Annotations[tagKey]
		out = append(out, d)
	}
	return out, nil
}

// Small reads a blob of at most 4 MiB into memory, digest checked.
func (r *Repository) Small(ctx context.Context, d hostabi.Descriptor) ([]byte, error) {
	b, err := r.small(ctx, d)
	return b, fail(ctx, "blob", r.at(d), r.t, err)
}

func (r *Repository) small(ctx context.Context, d hostabi.Descriptor) ([]byte, error) {
	if d.Size < 0 || d.Size > maxManifest {
		return nil, hostabi.Errorf(hostabi.ReasonTooLarge, "%s has %d bytes, at most %d", d.Digest, d.Size, int64(maxManifest))
	}
	body := r.t.blob(ctx, d)
	defer func() { _ = body.Close() }() // read only
	b, err := io.ReadAll(io.LimitReader(body, d.Size+1))
	if err == nil && (int64(len(b)) != d.Size || hostabi.DigestOf(b) != d.Digest) {
		err = hostabi.Errorf(hostabi.ReasonDigestMismatch, "%s has other content", d.Digest)
	}
	return b, err
}
