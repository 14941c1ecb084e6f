package registry

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"slices"

	"golang.org/x/sync/errgroup"
	"oras.land/oras-go/v2/errdef"

	"github.com/delivery-station/ds/hostabi"
)

// Push sends the graph below root from wherever from opens it, and then names it: blobs in parallel,
// manifests after what they list, the tag last. What the target has is not sent; a tag that points to root
// already ends it after one request. A reference without tag and digest means the tag latest; with a digest
// only, which must be root's, the content gets no tag. The media type of root may be empty if its bytes say
// it. Errors of from keep their reason.
func (c *Client) Push(ctx context.Context, ref string, root hostabi.Descriptor, from hostabi.OpenFunc, p func(hostabi.Progress)) error {
	r, t, err := c.open(ref)
	if err != nil {
		return err
	}
	if r.Digest != "" && r.Digest != root.Digest {
		e := hostabi.Errorf(hostabi.ReasonRef, "names another digest than the content to push, %s", root.Digest)
		e.Op = r.String()
		return e
	}
	r = r.orLatest()
	err = c.writing(ctx, t, func(t target) error { return c.push(pushing(ctx, t), r, t, root, &opened{from}, p) })
	return fail(ctx, "push", r, t, err)
}

// pushing asks for the scope of a push from the first request on.
func pushing(ctx context.Context, t target) context.Context {
	if r, ok := t.(*remoteRepo); ok {
		return r.pushing(ctx)
	}
	return ctx
}

func (c *Client) push(ctx context.Context, r Reference, t target, root hostabi.Descriptor, from *opened, p func(hostabi.Progress)) error {
	if r.Tag != "" {
		there, err := t.resolve(ctx, r.Tag, "")
		if err == nil && there.Digest == root.Digest {
			c.reporter(r, p).pushing().item(there).done(hostabi.AtTarget)
			return nil
		}
		if err != nil && !isNotFound(err) {
			return err
		}
	}
	root, err := from.complete(ctx, root)
	if err != nil {
		return err
	}
	g, err := expand(ctx, root, selection{}, from.manifest)
	if err != nil {
		return err
	}
	tr := &transfer{c: c, dst: t, to: r, rep: c.reporter(r, p).pushing(), blob: from.blob}
	defer c.mounts.save(ctx)
	if err := tr.graph(ctx, g); err != nil {
		return err
	}
	return tr.publish(ctx, g.root(), r)
}

func isNotFound(err error) bool {
	s, _ := status(err)
	return s == http.StatusNotFound || errors.Is(err, errdef.ErrNotFound) || hostabi.ReasonOf(err) == hostabi.ReasonRefNotFound
}

// opened reads a graph through an OpenFunc.
type opened struct{ open hostabi.OpenFunc }

func (o *opened) read(ctx context.Context, d hostabi.Digest) ([]byte, error) {
	f, err := o.open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	b, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxManifest {
		return nil, badGraph(d, "is larger than %d bytes", maxManifest)
	}
	if hostabi.DigestOf(b) != d {
		return nil, hostabi.Errorf(hostabi.ReasonDigestMismatch, "the content for %s has another digest", d)
	}
	return b, nil
}

func (o *opened) manifest(ctx context.Context, d hostabi.Descriptor) ([]byte, error) {
	b, err := o.read(ctx, d.Digest)
	if err == nil && int64(len(b)) != d.Size {
		return nil, hostabi.Errorf(hostabi.ReasonDigestMismatch, "%s has %d bytes, listed with %d", d.Digest, len(b), d.Size)
	}
	return b, err
}

// complete fills in what the bytes of root say: its size, and its type if that is unknown.
func (o *opened) complete(ctx context.Context, root hostabi.Descriptor) (hostabi.Descriptor, error) {
	b, err := o.read(ctx, root.Digest)
	if err != nil {
		return root, err
	}
	root.Size = int64(len(b))
	if !isManifest(root.MediaType) {
		if root.MediaType = sniffType(b); root.MediaType == "" {
			return root, hostabi.Errorf(hostabi.ReasonBadMessage, "%s is no OCI manifest or index", root.Digest)
		}
	}
	return root, nil
}

func (o *opened) blob(ctx context.Context, d hostabi.Descriptor) io.ReadSeekCloser {
	return &lazyReader{open: func() (io.ReadSeekCloser, error) { return o.open(ctx, d.Digest) }}
}

// transfer writes graphs to a target.
type transfer struct {
	c    *Client
	dst  target
	rep  *reporter
	blob func(ctx context.Context, d hostabi.Descriptor) io.ReadSeekCloser

	src   source // where blob reads from, for its gate; nil = local
	to    Reference
	mount string // repository of the same host to mount from first; empty = none
}

// graph writes everything but the root: blobs, then manifests after what they list.
func (t *transfer) graph(ctx context.Context, g *graph) error {
	eg, ctx2 := errgroup.WithContext(ctx)
	eg.SetLimit(t.c.o.Concurrency)
	for _, d := range g.blobs {
		eg.Go(func() error { return t.one(ctx2, d) })
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	for _, n := range g.manifests[:len(g.manifests)-1] {
		if err := t.dst.putManifest(ctx, n.desc, n.body); err != nil {
			return err
		}
		t.rep.item(n.desc).done(hostabi.ByNetwork)
	}
	return nil
}

// publish writes the root under the tag of to, or by its digest only.
func (t *transfer) publish(ctx context.Context, n node, to Reference) error {
	err := t.dst.tag(ctx, n.desc, n.body, to.Tag)
	if err == nil {
		t.c.remember(ctx, to, n.desc)
		t.rep.item(n.desc).done(hostabi.ByNetwork)
	}
	return err
}

func (t *transfer) one(ctx context.Context, d hostabi.Descriptor) (err error) {
	if t.rep.finished(d.Digest) {
		return nil
	}
	it := t.rep.item(d)
	defer func() {
		if err != nil {
			it.fail(err)
		}
	}()
	release, err := t.c.slots(ctx, t.dst, t.src)
	if err != nil {
		return err
	}
	defer func() { release(err == nil) }()
	there, err := t.dst.has(ctx, d)
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			t.c.mounts.note(t.to, d)
		}
	}()
	if there {
		it.done(hostabi.AtTarget)
		return nil
	}
	for _, from := range t.offers(ctx, d) {
		if t.dst.mount(ctx, d, from) {
			it.done(hostabi.ByMount)
			return nil
		}
	}
	err = t.put(ctx, d, it)
	if hostabi.ReasonOf(err) == hostabi.ReasonDigestMismatch && t.src != nil {
		err = t.put(ctx, d, it) // a broken transfer is not a broken blob
	}
	if err != nil {
		return fmt.Errorf("blob %s: %w", short(d.Digest), err)
	}
	it.done(hostabi.ByNetwork)
	return nil
}

// offers lists the repositories that d may be mounted from.
func (t *transfer) offers(ctx context.Context, d hostabi.Descriptor) []string {
	list := t.c.mounts.offers(ctx, t.to, d)
	if t.mount == "" {
		return list
	}
	return append([]string{t.mount}, slices.DeleteFunc(list, func(r string) bool { return r == t.mount })...)
}

// put is one attempt to send d. What comes from a registry is checked here, so that its faults are not taken
// for the target's.
func (t *transfer) put(ctx context.Context, d hostabi.Descriptor, it *item) error {
	r := t.blob(ctx, d)
	defer func() { _ = r.Close() }() // read only
	it.at(0)
	remote, ok := r.(*blobReader)
	if !ok {
		return t.dst.put(ctx, d, r, it.at)
	}
	err := t.dst.put(ctx, d, &checkedReader{r: r, want: d, sum: sha256.New()}, it.at)
	if hostabi.ReasonOf(err) == hostabi.ReasonDigestMismatch {
		remote.distrust()
	}
	return err
}

// checkedReader fails at the end of content that has another digest.
type checkedReader struct {
	r    io.ReadSeeker
	want hostabi.Descriptor
	sum  hash.Hash
	n    int64
}

func (c *checkedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	_, _ = c.sum.Write(p[:n]) // never fails
	c.n += int64(n)
	if c.n == c.want.Size && hostabi.DigestFromSum(c.sum.Sum(nil)) != c.want.Digest {
		return n, hostabi.Errorf(hostabi.ReasonDigestMismatch, "the content for %s has another digest", c.want.Digest)
	}
	return n, err
}

// Seek goes to the beginning only.
func (c *checkedReader) Seek(offset int64, whence int) (int64, error) {
	at, err := c.r.Seek(offset, whence)
	if err == nil && at != 0 {
		err = errSize
	}
	c.sum.Reset()
	c.n = 0
	return at, err
}

// Tag gives the content that ref points to one more tag in its repository.
func (c *Client) Tag(ctx context.Context, ref, tag string) error {
	if !ValidTag(tag) {
		return badRef(tag, "is no tag")
	}
	r, t, err := c.open(ref)
	if err != nil {
		return err
	}
	d, err := c.resolve(ctx, r, t)
	if err != nil {
		return err
	}
	ctx = pushing(ctx, t)
	err = c.writing(ctx, t, func(t target) error {
		body, err := t.manifest(ctx, d)
		if err != nil {
			return err
		}
		return t.tag(ctx, d, body, tag)
	})
	if err != nil {
		return fail(ctx, "tag", r, t, err)
	}
	r.Tag = tag
	c.remember(ctx, r, d)
	return nil
}

// Copy copies what src points to, with everything below it, to the place dst; digests stay. Any pair of
// remote repository and layout works; a layout whose name ends in .tar is a tar. dst without tag and digest takes
// the tag of src, else latest. It returns the root.
func (c *Client) Copy(ctx context.Context, src, dst string, o CopyOptions) (hostabi.Descriptor, error) {
	from, s, err := c.open(src)
	if err != nil {
		return hostabi.Descriptor{}, err
	}
	to, t, err := c.open(dst)
	if err != nil {
		return hostabi.Descriptor{}, err
	}
	root, err := c.resolve(ctx, from, s)
	if err != nil {
		return hostabi.Descriptor{}, err
	}
	if to.Tag == "" && to.Digest == "" {
		if to.Tag = from.Tag; to.Tag == "" {
			to.Tag = defaultTag
		}
	}
	tr := &transfer{c: c, to: to, rep: c.reporter(to, o.Progress).pushing(), blob: s.blob, src: s}
	defer c.mounts.save(ctx)
	if from.Host == to.Host && !from.IsLayout() {
		tr.mount = from.Repository
	}
	err = c.writing(ctx, t, func(t target) error {
		tr.dst = t
		return tr.copy(pushing(ctx, t), s, root, to, o)
	})
	if err != nil {
		// The failing side is not always known; the target is named because it is what is incomplete.
		return hostabi.Descriptor{}, fail(ctx, "copy", to, t, err)
	}
	root.Ref = to.String()
	return root, nil
}

func (t *transfer) copy(ctx context.Context, s source, root hostabi.Descriptor, to Reference, o CopyOptions) error {
	if to.Digest != "" && to.Digest != root.Digest {
		return hostabi.Errorf(hostabi.ReasonRef, "names another digest than the content to copy, %s", root.Digest)
	}
	g, err := expand(ctx, root, selection{platforms: o.Platforms}, s.manifest)
	if err != nil {
		return err
	}
	if err := t.graph(ctx, g); err != nil {
		return err
	}
	if o.Referrers {
		if err := t.dst.putManifest(ctx, g.root().desc, g.root().body); err != nil {
			return err
		}
		for _, n := range g.manifests {
			if err := t.referrers(ctx, s, n.desc.Digest); err != nil {
				return err
			}
		}
	}
	return t.publish(ctx, g.root(), to)
}

func (t *transfer) referrers(ctx context.Context, s source, subject hostabi.Digest) error {
	return eachReferrer(ctx, s, subject, func(d hostabi.Descriptor) error {
		g, err := expand(ctx, d, selection{}, s.manifest)
		if err != nil {
			return err
		}
		if err := t.graph(ctx, g); err != nil {
			return err
		}
		n := g.root()
		if err := t.dst.putManifest(ctx, n.desc, n.body); err != nil {
			return err
		}
		t.rep.item(n.desc).done(hostabi.ByNetwork)
		return nil
	})
}

// errStop ends a walk whose consumer has enough.
var errStop = errors.New("stop")
