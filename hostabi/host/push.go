package host

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
)

// Limits of a graph that is pushed (security.md section 8).
const (
	maxNesting   = 3
	maxChildren  = 1000
	maxLayers    = 10_000
	maxManifest  = hostabi.MaxMessage
	mediaIndex   = "application/vnd.oci.image.index.v1+json"
	mediaImage   = "application/vnd.oci.image.manifest.v1+json"
	dockerList   = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerImage  = "application/vnd.docker.distribution.manifest.v2+json"
	defaultBytes = "application/octet-stream"
)

// Push implements hostv1.RegistryServer: the graph below digest goes from the cache to the registry, tags last.
func (r *registryService) Push(req *hostv1.PushRequest, out grpc.ServerStreamingServer[hostv1.PushEvent]) error {
	ctx := out.Context()
	s := sessionOf(ctx)
	pusher, err := r.push()
	if err != nil {
		return err
	}
	repo, err := s.canonical(req.GetRef())
	if err != nil {
		return err
	}
	g := graph{s: s, blobs: make(map[hostabi.Digest]bool)}
	root, err := g.walk(ctx, hostabi.Descriptor{Digest: hostabi.Digest(req.GetDigest())}, 1)
	if err != nil {
		return err
	}
	mountable := func(repository string) bool { return s.allows(hostabi.RegistryPull, repository) }
	err = conflate(hostabi.WithMountable(ctx, mountable), func(ctx context.Context, report func(hostabi.Progress)) error {
		if err := pusher.Push(ctx, req.GetRef(), root, g.open, report); err != nil {
			return err
		}
		for _, tag := range req.GetTags() {
			if err := pusher.Tag(ctx, repo+"@"+string(root.Digest), tag); err != nil {
				return err
			}
		}
		return nil
	}, func(p *hostabi.Progress) error {
		if p.Transfer == nil {
			return out.Send(&hostv1.PushEvent{Event: &hostv1.PushEvent_Progress{Progress: progress(*p)}})
		}
		return out.Send(&hostv1.PushEvent{Event: &hostv1.PushEvent_Blob{Blob: transfer(*p.Transfer)}})
	})
	if err != nil {
		return err
	}
	root.Ref = req.GetRef()
	s.hostEvent(ctx, "artifact.pushed", map[string]any{"ref": req.GetRef(), "digest": root.Digest, "tags": append([]string{}, req.GetTags()...)})
	return out.Send(&hostv1.PushEvent{Event: &hostv1.PushEvent_Root{Root: descriptor(root)}})
}

// graph is what one push may send: every blob of it was checked against the session's right to read.
type graph struct {
	s     *Session
	blobs map[hostabi.Digest]bool
}

// manifest is what the walk needs of an OCI manifest or index.
type manifest struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType"`
	Annotations  map[string]string `json:"annotations"`
	Config       *child            `json:"config"`
	Layers       []child           `json:"layers"`
	Manifests    []child           `json:"manifests"`
}

type child struct {
	MediaType string         `json:"mediaType"`
	Digest    hostabi.Digest `json:"digest"`
}

func (c *child) isManifest() bool {
	switch c.MediaType {
	case "", mediaIndex, mediaImage, dockerList, dockerImage:
		return true
	}
	return false
}

// walk reads the manifest d and everything below it. It returns d completed. The subject of a referrer is no
// part of the graph: it is at the target already.
func (g *graph) walk(ctx context.Context, d hostabi.Descriptor, depth int) (hostabi.Descriptor, error) {
	if depth > maxNesting {
		return d, hostabi.Errorf(hostabi.ReasonBadMessage, "artifact %s: nested deeper than %d", d.Digest, maxNesting)
	}
	info, err := g.has(ctx, d.Digest)
	if err != nil {
		return d, err
	}
	d.Size = info.Size
	m, err := g.read(ctx, d)
	if err != nil {
		return d, err
	}
	if d.MediaType == "" {
		d.MediaType, d.ArtifactType, d.Annotations = m.kind(info.MediaType), m.ArtifactType, m.Annotations
	}
	if len(m.Manifests) > maxChildren || len(m.Layers) > maxLayers {
		return d, hostabi.Errorf(hostabi.ReasonTooLarge, "artifact %s: more than %d manifests or %d layers", d.Digest, maxChildren, maxLayers)
	}
	leaves := m.Layers
	if m.Config != nil {
		leaves = append(leaves, *m.Config)
	}
	for _, c := range m.Manifests {
		if !c.isManifest() {
			leaves = append(leaves, c)
		} else if !g.blobs[c.Digest] {
			if _, err := g.walk(ctx, hostabi.Descriptor{Digest: c.Digest, MediaType: c.MediaType}, depth+1); err != nil {
				return d, err
			}
		}
	}
	for _, c := range leaves {
		if _, err := g.has(ctx, c.Digest); err != nil {
			return d, err
		}
	}
	return d, nil
}

// has is the blob of a digest named in the graph; what the session may not read is missing.
func (g *graph) has(ctx context.Context, d hostabi.Digest) (hostabi.BlobInfo, error) {
	if !d.Valid() {
		return hostabi.BlobInfo{}, hostabi.Errorf(hostabi.ReasonBadDigest, "artifact names the digest %q", clean(string(d), 80))
	}
	info, err := g.s.readable(ctx, d)
	if errors.Is(err, notCached(d)) {
		return info, hostabi.Errorf(hostabi.ReasonGraphIncomplete, "blob %s of the artifact: not in the cache", d)
	}
	if err == nil {
		g.blobs[d] = true
	}
	return info, err
}

func (g *graph) read(ctx context.Context, d hostabi.Descriptor) (*manifest, error) {
	if d.Size > maxManifest {
		return nil, hostabi.Errorf(hostabi.ReasonTooLarge, "manifest %s has %d bytes, at most %d", d.Digest, d.Size, maxManifest)
	}
	f, err := g.s.openBlob(ctx, d.Digest)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		e := hostabi.Errorf(hostabi.ReasonBadMessage, "artifact %s: no manifest", d.Digest)
		e.Err = err
		return nil, e
	}
	return &m, nil
}

// kind is the media type of a manifest: what it says, what the cache was told, what its members mean.
func (m *manifest) kind(cached string) string {
	switch {
	case m.MediaType != "":
		return m.MediaType
	case cached != "" && cached != defaultBytes && (strings.HasPrefix(cached, "application/vnd.oci.") || cached == dockerImage || cached == dockerList):
		return cached
	case m.Manifests != nil:
		return mediaIndex
	}
	return mediaImage
}

// open is the hostabi.OpenFunc of the push.
func (g *graph) open(ctx context.Context, d hostabi.Digest) (io.ReadSeekCloser, error) {
	if !g.blobs[d] {
		return nil, notCached(d)
	}
	return g.s.openBlob(ctx, d)
}
