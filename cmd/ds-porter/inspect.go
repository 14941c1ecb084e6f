package main

import (
	"context"
	"encoding/json"
	"maps"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/pkg/client"
	"github.com/delivery-station/ds/pkg/client/ocilayout"
)

const titleKey = "org.opencontainers.image.title"

func inspectCommand() client.Command {
	return client.Command{
		Name:    "inspect",
		Summary: "Show the manifest of an artifact without fetching its layers",
		Args:    []client.Arg{{Name: "ref", Summary: "what to look at", Type: "ref", Required: true}},
		Run:     inspect,
	}
}

// inspection is a manifest with what it lists.
type inspection struct {
	Reference    string            `json:"reference,omitempty" ds:"REFERENCE"`
	Platform     string            `json:"platform,omitempty"`
	Digest       client.Digest     `json:"digest" ds:"DIGEST"`
	MediaType    string            `json:"media_type" ds:"MEDIA TYPE"`
	ArtifactType string            `json:"artifact_type,omitempty" ds:"ARTIFACT TYPE"`
	Size         int64             `json:"size" ds:"SIZE"` // bytes of all layers, each counted once
	Annotations  map[string]string `json:"annotations,omitempty"`
	Subject      client.Digest     `json:"subject,omitempty"`
	Config       *blob             `json:"config,omitempty"`
	Layers       []blob            `json:"layers,omitempty"`
	Manifests    []inspection      `json:"manifests,omitempty"` // of an index
}

// blob is a descriptor.
type blob struct {
	Title       string            `json:"title,omitempty"`
	MediaType   string            `json:"media_type"`
	Digest      client.Digest     `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func inspect(ctx context.Context, in *client.Invocation) error {
	ref := in.Args[0]
	artifacts, err := in.Fetch(ctx, ref, client.AllPlatforms(), client.ManifestsOnly())
	if err != nil {
		return err
	}
	var root client.Descriptor
	if len(artifacts) > 0 {
		root = artifacts[0].Root
	} else if root, err = in.Resolve(ctx, ref); err != nil { // an empty index
		return err
	}
	x, err := look(ctx, in, root)
	if err != nil {
		return err
	}
	if x.Reference = root.Ref; x.Reference == "" {
		x.Reference = ref
	}
	return printRows(ctx, in, x)
}

// ociManifest is what is shown of an image manifest or index.
type ociManifest struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType"`
	Config       *ociDescriptor    `json:"config"`
	Layers       []ociDescriptor   `json:"layers"`
	Manifests    []ociDescriptor   `json:"manifests"`
	Subject      *ociDescriptor    `json:"subject"`
	Annotations  map[string]string `json:"annotations"`
}

type ociDescriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       client.Digest     `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType"`
	Annotations  map[string]string `json:"annotations"`
	Platform     *struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
		Variant      string `json:"variant"`
	} `json:"platform"`
}

// Limits of what is looked at: indexes are nested no deeper by a pull, and one that lists the same manifest
// over and over must not keep us busy.
const (
	maxDepth     = 3
	maxManifests = 4096
)

// look reads the manifest d, which the cache has, and those below it.
func look(ctx context.Context, in *client.Invocation, d client.Descriptor) (inspection, error) {
	l := looker{in: in, left: maxManifests}
	x, err := l.look(ctx, d, 1)
	if err == nil {
		x.Size = x.total(make(map[client.Digest]bool))
	}
	return x, err
}

type looker struct {
	in   *client.Invocation
	left int // manifests that may still be read
}

func (l *looker) look(ctx context.Context, d client.Descriptor, depth int) (inspection, error) {
	x := inspection{Digest: d.Digest, MediaType: d.MediaType, ArtifactType: d.ArtifactType}
	if l.left--; l.left < 0 {
		return x, hostabi.Errorf(hostabi.ReasonTooLarge, "the artifact lists more than %d manifests", maxManifests)
	}
	b, err := readBlob(ctx, l.in, d.Digest)
	if err != nil {
		return x, err
	}
	var m ociManifest
	if err := json.Unmarshal(b, &m); err != nil {
		return x, hostabi.Errorf(hostabi.ReasonBadAnswer, "manifest %s is no JSON: %w", d.Digest, err)
	}
	x.fill(&m)
	for _, c := range m.Manifests {
		child := inspection{Digest: c.Digest, MediaType: c.MediaType, ArtifactType: c.ArtifactType}
		// What is listed but is no manifest, or nested deeper than a pull goes, is shown by its descriptor.
		if isManifest(c.MediaType) && depth < maxDepth {
			desc := client.Descriptor{Digest: c.Digest, MediaType: c.MediaType, ArtifactType: c.ArtifactType}
			if child, err = l.look(ctx, desc, depth+1); err != nil {
				return x, err
			}
		}
		if p := c.Platform; p != nil {
			child.Platform = client.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}.String()
		}
		child.Size = child.total(make(map[client.Digest]bool))
		x.Manifests = append(x.Manifests, child)
	}
	return x, nil
}

func isManifest(mediaType string) bool { return ocilayout.IsManifest(mediaType) }

func (x *inspection) fill(m *ociManifest) {
	if m.MediaType != "" {
		x.MediaType = m.MediaType
	}
	if m.ArtifactType != "" {
		x.ArtifactType = m.ArtifactType
	}
	x.Annotations = m.Annotations
	if m.Subject != nil {
		x.Subject = m.Subject.Digest
	}
	if m.Config != nil {
		x.Config = new(m.Config.blob())
	}
	for _, l := range m.Layers {
		x.Layers = append(x.Layers, l.blob())
	}
}

func (d *ociDescriptor) blob() blob {
	b := blob{Title: d.Annotations[titleKey], MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
	if rest := maps.Clone(d.Annotations); len(rest) > 0 {
		delete(rest, titleKey)
		b.Annotations = rest
	}
	return b
}

// total is the size of the layers at and below x that are not in seen.
func (x *inspection) total(seen map[client.Digest]bool) (n int64) {
	for _, l := range x.Layers {
		if !seen[l.Digest] {
			seen[l.Digest] = true
			n += l.Size
		}
	}
	for i := range x.Manifests {
		n += x.Manifests[i].total(seen)
	}
	return n
}

// storedDocument describes an artifact that this run pushed, and remembers it.
func storedDocument(ctx context.Context, in *client.Invocation, root client.Descriptor, ref string) (document, error) {
	x, err := look(ctx, in, root)
	if err != nil {
		return document{}, err
	}
	if root.Ref != "" {
		ref = root.Ref
	}
	doc := newDocument(ref, root.Digest)
	doc.Size, doc.Metadata, doc.Cached = x.Size, x.Annotations, true
	remember(ctx, in, &doc, true)
	doc.stamp(ctx, in)
	return doc, nil
}
