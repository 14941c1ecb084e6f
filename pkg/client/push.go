package client

import (
	"bytes"
	"context"
	"encoding/json"
	"io"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1lite"
)

// Media types and annotation of the OCI image specification 1.1.
const (
	mediaIndex   = "application/vnd.oci.image.index.v1+json"
	mediaImage   = "application/vnd.oci.image.manifest.v1+json"
	mediaEmpty   = "application/vnd.oci.empty.v1+json"
	mediaUnknown = "application/octet-stream"
	titleKey     = "org.opencontainers.image.title"
)

// Spec is one artifact to push, or an OCI index when Children is set.
type Spec struct {
	ArtifactType string
	Config       *Content
	Layers       []Content
	Annotations  map[string]string
	Subject      *Descriptor // makes it a referrer
	Platform     *Platform   // of a child
	Children     []Spec
}

// Content is one blob: a cached one by Digest, or what Open yields.
type Content struct {
	MediaType, Title string
	Digest           Digest
	Open             func() (io.ReadCloser, error)
	Annotations      map[string]string
}

type pushOptions struct{ tags []string }

// PushOption changes a push.
type PushOption func(*pushOptions)

// WithTags moves further tags to what was pushed, after everything else.
func WithTags(tags ...string) PushOption {
	return func(o *pushOptions) { o.tags = append(o.tags, tags...) }
}

// Push pushes what r yields as an artifact of one layer.
func (c *Client) Push(ctx context.Context, ref string, r io.Reader, mediaType string, opts ...PushOption) error {
	a := Spec{ArtifactType: mediaType, Layers: []Content{{
		MediaType: mediaType, Open: func() (io.ReadCloser, error) { return io.NopCloser(r), nil },
	}}}
	_, err := c.PushArtifact(ctx, ref, a, opts...)
	return err
}

// PushArtifact stores an artifact in the cache and lets the host push it, tags last.
func (c *Client) PushArtifact(ctx context.Context, ref string, a Spec, opts ...PushOption) (Descriptor, error) {
	root, err := c.build(ctx, &a)
	if err != nil {
		return Descriptor{}, err
	}
	return c.PushCached(ctx, ref, root.Digest, opts...)
}

// PushCached pushes what is in the cache under its own digest: a manifest with everything below it. A ref with that
// digest and no tag gives it no tag.
func (c *Client) PushCached(ctx context.Context, ref string, root Digest, opts ...PushOption) (Descriptor, error) {
	var o pushOptions
	for _, opt := range opts {
		opt(&o)
	}
	return c.push(ctx, ref, root, o.tags)
}

// push lets the host push a graph of the cache.
func (c *Client) push(ctx context.Context, ref string, root Digest, tags []string) (Descriptor, error) {
	var out Descriptor
	req := &hostv1lite.PushRequest{Ref: ref, Digest: string(root), Tags: tags}
	err := each(ctx, c, hostv1lite.RegistryPush, req, func(e *hostv1lite.PushEvent) bool {
		if e.Root != nil {
			out = descriptor(e.Root)
		}
		return true
	})
	if err == nil && out.Digest == "" {
		err = classify(hostabi.Errorf(hostabi.ReasonProtocol, "%s: the push ended without its root", ref))
	}
	return out, err
}

// build stores a and everything below it, and returns the descriptor of its manifest.
func (c *Client) build(ctx context.Context, a *Spec) (ociDescriptor, error) {
	m := ociManifest{SchemaVersion: 2, MediaType: mediaImage, ArtifactType: a.ArtifactType, Annotations: a.Annotations}
	if a.Subject != nil {
		m.Subject = new(fromWords(*a.Subject))
	}
	var err error
	if a.Children != nil {
		err = c.buildIndex(ctx, a, &m)
	} else {
		err = c.buildImage(ctx, a, &m)
	}
	if err != nil {
		return ociDescriptor{}, err
	}
	b, err := json.Marshal(&m)
	if err != nil {
		return ociDescriptor{}, Usagef("artifact: %v", err)
	}
	d, err := c.store(ctx, bytes.NewReader(b), m.MediaType)
	d.ArtifactType = m.ArtifactType
	return d, err
}

func (c *Client) buildIndex(ctx context.Context, a *Spec, m *ociManifest) error {
	if len(a.Layers) > 0 || a.Config != nil {
		return Usagef("artifact: an index has children, no layers or config")
	}
	m.MediaType, m.Manifests = mediaIndex, []ociDescriptor{}
	for i := range a.Children {
		d, err := c.build(ctx, &a.Children[i])
		if err != nil {
			return err
		}
		if p := a.Children[i].Platform; p != nil {
			d.Platform = &ociPlatform{p.Architecture, p.OS, p.OSVersion, p.Variant}
		}
		m.Manifests = append(m.Manifests, d)
	}
	return nil
}

func (c *Client) buildImage(ctx context.Context, a *Spec, m *ociManifest) error {
	empty := Content{MediaType: mediaEmpty, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader([]byte("{}"))), nil
	}}
	config, layers := a.Config, a.Layers
	if config == nil {
		config = &empty
		if m.ArtifactType == "" { // required beside an empty config
			m.ArtifactType = mediaUnknown
		}
	}
	if len(layers) == 0 {
		layers = []Content{empty}
	}
	d, err := c.content(ctx, config)
	if err != nil {
		return err
	}
	m.Config = &d
	for i := range layers {
		d, err := c.content(ctx, &layers[i])
		if err != nil {
			return err
		}
		m.Layers = append(m.Layers, d)
	}
	return nil
}

// content stores one blob, unless it is cached, and describes it.
func (c *Client) content(ctx context.Context, x *Content) (d ociDescriptor, err error) {
	mediaType := x.MediaType
	if mediaType == "" {
		mediaType = mediaUnknown
	}
	switch {
	case x.Open != nil:
		r, err := x.Open()
		if err != nil {
			return d, err
		}
		defer r.Close()
		if d, err = c.store(ctx, r, mediaType, WithExpected(x.Digest, 0)); err != nil {
			return d, err
		}
	case x.Digest != "":
		info, err := c.Cache().Stat(ctx, x.Digest)
		if err != nil {
			return d, err
		}
		d = ociDescriptor{MediaType: mediaType, Digest: info.Digest, Size: info.Size}
	default:
		return d, Usagef("artifact: a content needs Digest or Open")
	}
	d.Annotations = x.Annotations
	if x.Title != "" {
		d.Annotations = map[string]string{titleKey: x.Title}
		for k, v := range x.Annotations {
			d.Annotations[k] = v
		}
	}
	return d, nil
}

func (c *Client) store(ctx context.Context, r io.Reader, mediaType string, opts ...BlobOption) (ociDescriptor, error) {
	info, err := c.Cache().Put(ctx, r, append(opts, WithMediaType(mediaType))...)
	return ociDescriptor{MediaType: mediaType, Digest: info.Digest, Size: info.Size}, err
}

// ociManifest is an image manifest or, with Manifests, an index. The order of its fields is the order of
// their JSON, so equal artifacts have equal digests.
type ociManifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        *ociDescriptor    `json:"config,omitempty"`
	Layers        []ociDescriptor   `json:"layers,omitempty"`
	Manifests     []ociDescriptor   `json:"manifests,omitzero"`
	Subject       *ociDescriptor    `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

type ociDescriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       Digest            `json:"digest"`
	Size         int64             `json:"size"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Platform     *ociPlatform      `json:"platform,omitempty"`
}

type ociPlatform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	OSVersion    string `json:"os.version,omitempty"`
	Variant      string `json:"variant,omitempty"`
}

func (d *ociDescriptor) words() Descriptor {
	out := Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: d.ArtifactType, Annotations: d.Annotations}
	if p := d.Platform; p != nil {
		out.Platform = &Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion}
	}
	return out
}

func fromWords(d Descriptor) ociDescriptor {
	return ociDescriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: d.ArtifactType}
}

// manifest reads a manifest or index from the cache.
func (c *Client) manifest(ctx context.Context, d Descriptor) (*ociManifest, error) {
	b, err := c.Cache().Open(ctx, d.Digest)
	if err != nil {
		return nil, err
	}
	defer func() { _ = b.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(b, hostabi.MaxMessage+1))
	if err == nil && len(text) > hostabi.MaxMessage {
		err = classify(hostabi.Errorf(hostabi.ReasonTooLarge, "manifest %s has more than 4 MiB", d.Digest))
	}
	if err != nil {
		return nil, err
	}
	m := &ociManifest{}
	if err := json.Unmarshal(text, m); err != nil {
		return nil, classify(hostabi.Errorf(hostabi.ReasonBadMessage, "manifest %s: %w", d.Digest, err))
	}
	return m, nil
}
