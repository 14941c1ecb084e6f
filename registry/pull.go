package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/delivery-station/ds/hostabi"
)

const copyBuffer = 1 << 20

// opener is the extra ability of a sink to give back what it holds; without it manifests are fetched again.
type opener interface {
	Open(ctx context.Context, d hostabi.Digest) (*os.File, error)
}

// bringer is the extra ability of a sink to get a blob from a place that is nearer than the source; NOT_CACHED =
// it could not.
type bringer interface {
	Bring(ctx context.Context, d hostabi.Descriptor) error
}

// Pull brings what ref points to into a sink: the blobs first, then each manifest after what it lists, so
// that a manifest that is there is whole. What the sink holds is not fetched, cut bodies are continued, and
// a kept prefix of an earlier run is used. It returns the root, an index where there is one. A nil p is
// allowed; calls of p come one at a time and their last one per blob has a Transfer.
func (c *Client) Pull(ctx context.Context, ref string, o hostabi.PullOptions, into hostabi.Sink, p func(hostabi.Progress)) (hostabi.Descriptor, error) {
	r, t, err := c.open(ref)
	if err != nil {
		return hostabi.Descriptor{}, err
	}
	pl := c.puller(r, t, into, p)
	root, err := pl.resolve(ctx)
	if err != nil {
		return hostabi.Descriptor{}, err
	}
	defer c.mounts.save(ctx)
	if err := pl.graph(ctx, root, pullSelection(o)); err != nil {
		return hostabi.Descriptor{}, fail(ctx, "pull", r, t, err)
	}
	if o.Referrers {
		if err := pl.referrers(ctx, root, o); err != nil {
			return hostabi.Descriptor{}, fail(ctx, "referrers", r, t, err)
		}
	}
	return root, nil
}

// puller is one pull: from a place into a sink.
type puller struct {
	c    *Client
	ref  Reference
	src  source
	sink hostabi.Sink
	rep  *reporter

	mu     sync.Mutex
	cached map[hostabi.Digest]bool // manifests that the sink had
}

func (c *Client) puller(r Reference, src source, sink hostabi.Sink, p func(hostabi.Progress)) *puller {
	return &puller{c: c, ref: r, src: src, sink: sink, rep: c.reporter(r, p), cached: make(map[hostabi.Digest]bool)}
}

// resolve asks nobody when the digest is given and the sink holds it.
func (p *puller) resolve(ctx context.Context) (hostabi.Descriptor, error) {
	if p.ref.Digest != "" {
		if body, err := p.held(ctx, p.ref.Digest); err == nil {
			if mediaType := sniffType(body); mediaType != "" {
				return hostabi.Descriptor{MediaType: mediaType, Digest: p.ref.Digest, Size: int64(len(body)), Ref: p.ref.String()}, nil
			}
		}
	}
	return p.c.resolve(ctx, p.ref, p.src)
}

var errNotHeld = errors.New("not in the sink")

// held reads a manifest from the sink.
func (p *puller) held(ctx context.Context, d hostabi.Digest) ([]byte, error) {
	o, ok := p.sink.(opener)
	if !ok {
		return nil, errNotHeld
	}
	f, err := o.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	b, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxManifest || hostabi.DigestOf(b) != d {
		return nil, errNotHeld
	}
	return b, nil
}

// manifest is a fetchFunc: the sink first. What it brings from elsewhere is there before the blobs that it
// lists; the pull looks at each of them all the same.
func (p *puller) manifest(ctx context.Context, d hostabi.Descriptor) ([]byte, error) {
	b, err := p.held(ctx, d.Digest)
	if s, ok := p.sink.(bringer); err != nil && ok && s.Bring(ctx, d) == nil {
		b, err = p.held(ctx, d.Digest)
	}
	if err == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.cached[d.Digest] = true
		return b, nil
	}
	return p.src.manifest(ctx, d)
}

func (p *puller) graph(ctx context.Context, root hostabi.Descriptor, sel selection) error {
	g, err := expand(ctx, root, sel, p.manifest)
	if err != nil {
		return err
	}
	eg, ctx2 := errgroup.WithContext(ctx)
	eg.SetLimit(p.c.o.Concurrency)
	for _, d := range g.blobs {
		eg.Go(func() error { return p.blob(ctx2, d) })
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	for _, n := range g.manifests {
		if err := p.putManifest(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// referrers pulls what refers to the root, and what refers to that, three deep.
func (p *puller) referrers(ctx context.Context, root hostabi.Descriptor, o hostabi.PullOptions) error {
	sel := selection{manifestsOnly: o.ManifestsOnly}
	return eachReferrer(ctx, p.src, root.Digest, func(d hostabi.Descriptor) error { return p.graph(ctx, d, sel) })
}

// blob brings one blob into the sink. Wrong bytes are fetched once more from the start.
func (p *puller) blob(ctx context.Context, d hostabi.Descriptor) (err error) {
	if p.rep.finished(d.Digest) {
		return nil
	}
	it := p.rep.item(d)
	defer func() {
		if err != nil {
			it.fail(err)
		}
	}()
	if info, err := p.sink.Stat(ctx, d.Digest); err == nil {
		if info.Size != d.Size {
			return hostabi.Errorf(hostabi.ReasonDigestMismatch, "%s has %d bytes, listed with %d", d.Digest, info.Size, d.Size)
		}
		p.c.mounts.guess(p.ref, d)
		it.done(hostabi.FromCache)
		return nil
	} else if hostabi.ReasonOf(err) != hostabi.ReasonNotCached {
		return err
	}
	release, err := p.c.slots(ctx, p.src)
	if err != nil {
		return err
	}
	defer func() { release(err == nil) }()
	how, err := p.fetch(ctx, d, it)
	if wrongBytes(err) {
		how, err = p.fetch(ctx, d, it)
	}
	if err != nil {
		return err
	}
	if how == hostabi.ByNetwork {
		p.c.mounts.note(p.ref, d)
	}
	it.done(how)
	return nil
}

// fetch is one attempt to ingest d.
func (p *puller) fetch(ctx context.Context, d hostabi.Descriptor, it *item) (how string, err error) {
	w, err := p.sink.Create(hostabi.WithArriving(ctx, it.at), d)
	if hostabi.ReasonOf(err) == hostabi.ReasonExists {
		return hostabi.FromCache, nil // brought meanwhile, by another process or by the sink
	}
	if err != nil {
		return "", err
	}
	r := p.src.blob(ctx, d)
	defer func() { _ = r.Close() }() // read only
	if err := ingest(w, r, d, it); err != nil {
		_ = w.Abort() // err says more
		return "", err
	}
	if b, ok := r.(*blobReader); ok {
		it.source = b.source()
	}
	if _, err := w.Commit(ctx); err != nil && hostabi.ReasonOf(err) != hostabi.ReasonExists {
		// Wrong bytes may have been in the prefix that an earlier process left.
		if b, ok := r.(*blobReader); ok && hostabi.ReasonOf(err) == hostabi.ReasonDigestMismatch && w.Offset() == 0 {
			b.distrust()
		}
		return "", err
	}
	return hostabi.ByNetwork, nil
}

// ingest copies what is missing of d from r to w.
func ingest(w hostabi.BlobWriter, r io.ReadSeeker, d hostabi.Descriptor, it *item) error {
	at := w.Offset()
	if at > d.Size {
		return fmt.Errorf("a prefix of %d bytes: %w", at, errSize)
	}
	if at > 0 {
		if _, err := r.Seek(at, io.SeekStart); err != nil {
			return err
		}
	}
	it.at(at)
	buf := it.r.buffers.Get().(*[]byte) //nolint:forcetypeassert // the pool holds nothing else
	defer it.r.buffers.Put(buf)
	for {
		n, err := r.Read(*buf)
		if n > 0 {
			if _, err := w.Write((*buf)[:n]); err != nil {
				return err
			}
			at += int64(n)
			it.at(at)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (p *puller) putManifest(ctx context.Context, n node) error {
	it := p.rep.item(n.desc)
	p.mu.Lock()
	cached := p.cached[n.desc.Digest]
	p.mu.Unlock()
	if cached {
		it.done(hostabi.FromCache)
		return nil
	}
	err := p.keepManifest(ctx, n, it)
	if wrongBytes(err) { // the prefix that an earlier process left
		err = p.keepManifest(ctx, n, it)
	}
	if err == nil {
		it.done(hostabi.ByNetwork)
	}
	return err
}

// keepManifest is one attempt to ingest a manifest.
func (p *puller) keepManifest(ctx context.Context, n node, it *item) error {
	w, err := p.sink.Create(ctx, n.desc)
	if hostabi.ReasonOf(err) == hostabi.ReasonExists {
		return nil // a sink that cannot open: it was fetched all the same
	}
	if err != nil {
		return err
	}
	if err := ingest(w, bytes.NewReader(n.body), n.desc, it); err != nil {
		_ = w.Abort() // err says more
		return err
	}
	if _, err := w.Commit(ctx); err != nil && hostabi.ReasonOf(err) != hostabi.ReasonExists {
		return err
	}
	return nil
}

// wrongBytes reports whether another attempt, which begins at the start, may bring the right ones.
func wrongBytes(err error) bool {
	return hostabi.ReasonOf(err) == hostabi.ReasonDigestMismatch || errors.Is(err, errSize)
}

// slots takes a place in the gate of each remote host among the places, in a fixed order so that two
// transfers never wait for each other.
func (c *Client) slots(ctx context.Context, places ...source) (release func(ok bool), err error) {
	var gates []*host
	for _, p := range places {
		r, ok := p.(*remoteRepo)
		if !ok {
			continue
		}
		switch {
		case len(gates) == 0 || gates[0].name < r.h.name:
			gates = append(gates, r.h)
		case gates[0].name > r.h.name:
			gates = append([]*host{r.h}, gates...)
		}
	}
	for i, h := range gates {
		if err := h.gate.acquire(ctx); err != nil {
			for _, held := range gates[:i] {
				held.gate.release(false)
			}
			return nil, err
		}
	}
	return func(ok bool) {
		for _, h := range gates {
			h.gate.release(ok)
		}
	}, nil
}
