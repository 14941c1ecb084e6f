package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1lite"
)

// Artifact is one artifact in the cache, of one platform if its reference names several.
type Artifact struct {
	Ref                       string
	Root, Manifest            Descriptor // what the reference names; the artifact's own OCI manifest
	Layers                    []Layer
	Annotations               map[string]string
	CachedBytes, FetchedBytes int64
}

// Layer is one layer; Title is its file name, if it has one.
type Layer struct {
	Descriptor
	Title string
}

type refOptions struct {
	platforms []string
	all       bool
	layer     string
	manifests bool
	fresh     bool
}

// RefOption narrows what is taken of a reference.
type RefOption func(*refOptions)

// WithPlatform takes a platform, "linux/arm64"; it may be repeated. The default is the host's.
func WithPlatform(p string) RefOption {
	return func(o *refOptions) { o.platforms = append(o.platforms, p) }
}

// AllPlatforms takes every platform.
func AllPlatforms() RefOption { return func(o *refOptions) { o.all = true } }

// WithLayer takes the layer of this title only.
func WithLayer(title string) RefOption { return func(o *refOptions) { o.layer = title } }

// ManifestsOnly makes Fetch leave the layers where they are: the artifacts are described, their blobs cannot
// be opened.
func ManifestsOnly() RefOption { return func(o *refOptions) { o.manifests = true } }

// Fresh makes Resolve ask the registry: without it the host answers for a tag that it saw in the last minutes.
func Fresh() RefOption { return func(o *refOptions) { o.fresh = true } }

func refOpts(opts []RefOption) (o refOptions) {
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

func (o *refOptions) parse() ([]hostv1lite.Platform, error) {
	out := make([]hostv1lite.Platform, 0, len(o.platforms))
	for _, s := range o.platforms {
		p, err := hostabi.ParsePlatform(s)
		if err != nil {
			return nil, classify(err)
		}
		out = append(out, platform(p))
	}
	return out, nil
}

// Resolve finds the descriptor that a reference names; with one WithPlatform the manifest of that platform.
func (c *Client) Resolve(ctx context.Context, ref string, opts ...RefOption) (Descriptor, error) {
	o := refOpts(opts)
	platforms, err := o.parse()
	if err != nil {
		return Descriptor{}, err
	}
	req := &hostv1lite.RefRequest{Ref: ref, Fresh: o.fresh}
	if len(platforms) == 1 {
		req.Platform = &platforms[0]
	}
	var d hostv1lite.Descriptor
	if err := c.invoke(ctx, hostv1lite.RegistryResolve, req, &d); err != nil {
		return Descriptor{}, err
	}
	return descriptor(&d), nil
}

// List lists the tags of a repository.
func (c *Client) List(ctx context.Context, repository string) ([]string, error) {
	var tags []string
	err := each(ctx, c, hostv1lite.RegistryListTags, &hostv1lite.ListTagsRequest{Repository: repository}, func(t *hostv1lite.TagName) bool {
		tags = append(tags, t.Name)
		return true
	})
	return tags, err
}

// Tag gives what ref names another tag in the same repository.
func (c *Client) Tag(ctx context.Context, ref, tag string) error {
	return c.invoke(ctx, hostv1lite.RegistryTag, &hostv1lite.TagRequest{Ref: ref, Tag: tag}, &hostv1lite.Descriptor{})
}

// Referrers yields the artifacts whose subject is ref, of one artifact type if that is not empty; an error is
// the last pair.
func (c *Client) Referrers(ctx context.Context, ref, artifactType string) iter.Seq2[Descriptor, error] {
	return sequence(ctx, c, hostv1lite.RegistryReferrers, &hostv1lite.ReferrersRequest{Ref: ref, ArtifactType: artifactType}, descriptor)
}

// pulled is what a pull brought into the cache.
type pulled struct {
	root  Descriptor
	blobs map[Digest]hostv1lite.Transfer
}

// pull lets the host move a reference's graph into the cache.
func (c *Client) pull(ctx context.Context, ref string, o *refOptions) (*pulled, error) {
	platforms, err := o.parse()
	if err != nil {
		return nil, err
	}
	out := &pulled{blobs: make(map[Digest]hostv1lite.Transfer)}
	req := &hostv1lite.PullRequest{Ref: ref, Platforms: platforms, AllPlatforms: o.all, ManifestsOnly: o.manifests}
	err = each(ctx, c, hostv1lite.RegistryPull, req, func(e *hostv1lite.PullEvent) bool {
		switch {
		case e.Blob != nil && e.Blob.Descriptor != nil:
			out.blobs[Digest(e.Blob.Descriptor.Digest)] = *e.Blob
		case e.Root != nil:
			out.root = descriptor(e.Root)
		}
		return true
	})
	if err == nil && out.root.Digest == "" {
		err = classify(hostabi.Errorf(hostabi.ReasonProtocol, "%s: the pull ended without its root", ref))
	}
	return out, err
}

// Fetch brings a reference into the cache and describes what came: one artifact for each platform taken. The
// host does the transfer with its credentials; what the cache has is not fetched.
func (c *Client) Fetch(ctx context.Context, ref string, opts ...RefOption) ([]Artifact, error) {
	o := refOpts(opts)
	p, err := c.pull(ctx, ref, &o)
	if err != nil {
		return nil, err
	}
	var out []Artifact
	if err := c.artifacts(ctx, ref, p, p.root, &out); err != nil {
		return nil, err
	}
	for i := range out {
		if o.layer == "" {
			continue
		}
		out[i].Layers = titled(out[i].Layers, o.layer)
		if len(out[i].Layers) == 0 {
			return nil, classify(hostabi.Errorf(hostabi.ReasonRefNotFound, "%s has no layer %q", ref, o.layer))
		}
	}
	return out, nil
}

func titled(layers []Layer, title string) []Layer {
	var out []Layer
	for _, l := range layers {
		if l.Title == title {
			out = append(out, l)
		}
	}
	return out
}

// artifacts reads the manifest d and what is below it, as far as it was pulled.
func (c *Client) artifacts(ctx context.Context, ref string, p *pulled, d Descriptor, out *[]Artifact) error {
	m, err := c.manifest(ctx, d)
	if err != nil {
		return err
	}
	for _, child := range m.Manifests {
		cd := child.words()
		if _, here := p.blobs[cd.Digest]; !here {
			continue // of another platform
		}
		if err := c.artifacts(ctx, ref, p, cd, out); err != nil {
			return err
		}
	}
	if m.Manifests != nil {
		return nil
	}
	a := Artifact{Ref: ref, Root: p.root, Manifest: d, Annotations: m.Annotations}
	if a.Manifest.ArtifactType == "" {
		a.Manifest.ArtifactType = m.ArtifactType
	}
	p.count(&a, d)
	if m.Config != nil {
		p.count(&a, m.Config.words())
	}
	for _, l := range m.Layers {
		d := l.words()
		a.Layers = append(a.Layers, Layer{Descriptor: d, Title: d.Annotations[titleKey]})
		p.count(&a, d)
	}
	*out = append(*out, a)
	return nil
}

func (p *pulled) count(a *Artifact, d Descriptor) {
	t, ok := p.blobs[d.Digest]
	switch {
	case !ok:
	case t.How == hostabi.ByNetwork:
		a.FetchedBytes += d.Size
	default:
		a.CachedBytes += d.Size
	}
}

// Pull writes the bytes of the one layer of an artifact to w. If there are several, ErrInvalid lists their
// titles: choose with WithLayer, WithPlatform or use Fetch.
func (c *Client) Pull(ctx context.Context, ref string, w io.Writer, opts ...RefOption) error {
	artifacts, err := c.Fetch(ctx, ref, opts...)
	if err != nil {
		return err
	}
	var layers []Layer
	for _, a := range artifacts {
		layers = append(layers, a.Layers...)
	}
	if len(layers) != 1 {
		titles := make([]string, len(layers))
		for i, l := range layers {
			if titles[i] = l.Title; l.Title == "" {
				titles[i] = string(l.Digest)
			}
		}
		return Usagef("%s has %d layers, not one: %s", ref, len(layers), strings.Join(titles, ", "))
	}
	b, err := c.Cache().Open(ctx, layers[0].Digest)
	if err != nil {
		return err
	}
	_, err = b.WriteTo(w)
	return errors.Join(err, b.Close())
}

// Copy brings src, by default with all its platforms, to dst through the host's cache. With one WithPlatform
// it copies the manifest of that platform.
func (c *Client) Copy(ctx context.Context, src, dst string, opts ...RefOption) (Descriptor, error) {
	o := refOpts(opts)
	o.all = o.all || len(o.platforms) == 0
	p, err := c.pull(ctx, src, &o)
	if err != nil {
		return Descriptor{}, err
	}
	root := p.root.Digest
	if !o.all {
		var found []Artifact
		if err := c.artifacts(ctx, src, p, p.root, &found); err != nil {
			return Descriptor{}, err
		}
		if len(found) != 1 {
			return Descriptor{}, Usagef("%s: %d platforms were taken; copy one or all", src, len(found))
		}
		root = found[0].Manifest.Digest
	}
	return c.push(ctx, dst, root, nil)
}
