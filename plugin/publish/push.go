package publish

import (
	"context"

	"github.com/delivery-station/ds/hostabi"
)

// Pusher is registry.Client.
type Pusher interface {
	Push(ctx context.Context, ref string, root hostabi.Descriptor, from hostabi.OpenFunc, p func(hostabi.Progress)) error
	Tag(ctx context.Context, ref, tag string) error
}

// Attachment becomes a referrer of the index: a signature, an attestation, a list of parts.
type Attachment struct {
	Type        string // artifactType and media type of the blob
	Blob        []byte
	Annotations map[string]string
}

// Release is the order in which a version becomes visible: its graph by digest, what is attached to it, a look at
// what really is there, and only then its tags. Killed at any point, every tag is as it was, and a rerun skips
// what arrived.
type Release struct {
	Send   func(ctx context.Context) error
	Attach func(ctx context.Context, a Attachment) error
	Check  func(ctx context.Context) error // reads back and verifies; nil = nothing to verify
	Tag    func(ctx context.Context, tag string) error
}

// Publish runs the steps.
func (r Release) Publish(ctx context.Context, attached []Attachment, tags []string) error {
	if err := r.Send(ctx); err != nil {
		return err
	}
	for _, a := range attached {
		if err := r.Attach(ctx, a); err != nil {
			return err
		}
	}
	if r.Check != nil {
		if err := r.Check(ctx); err != nil {
			return err
		}
	}
	for _, t := range tags {
		if err := r.Tag(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// Push publishes the package without a signature.
func (p *Package) Push(ctx context.Context, to Pusher, repository string, tags []string, progress func(hostabi.Progress)) error {
	ref := repository + "@" + string(p.Root.Digest)
	r := Release{
		Send: func(ctx context.Context) error { return to.Push(ctx, ref, p.Root, p.Open, progress) },
		Tag:  func(ctx context.Context, tag string) error { return to.Tag(ctx, ref, tag) },
	}
	return r.Publish(ctx, nil, tags)
}
