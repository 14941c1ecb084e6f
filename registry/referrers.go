package registry

import (
	"context"
	"encoding/json"
	"iter"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/delivery-station/ds/hostabi"
)

const (
	referrerDepth = 3
	lostUpdates   = 3 // how often an update of the fallback index that another writer undid is repeated
)

// Referrers yields the manifests that name subject as theirs, of one artifact type if that is not empty. A
// registry's list is only a hint: each manifest is fetched and must say so itself. None is no error; that
// the question could not be answered is one, and the last pair.
func (c *Client) Referrers(ctx context.Context, repo string, subject hostabi.Digest, artifactType string) iter.Seq2[hostabi.Descriptor, error] {
	return func(yield func(hostabi.Descriptor, error) bool) {
		r, err := c.Repository(repo)
		if err != nil {
			yield(hostabi.Descriptor{}, err)
			return
		}
		r.Referrers(ctx, subject, artifactType)(yield)
	}
}

// referrers calls f with each manifest whose subject is subject.
func referrers(ctx context.Context, s source, subject hostabi.Digest, artifactType string, f func(hostabi.Descriptor) error) error {
	hints, err := s.referrers(ctx, subject)
	if err != nil {
		return err
	}
	for _, d := range hints {
		if d.Digest == subject || !isManifest(d.MediaType) || otherKind(d.ArtifactType, artifactType) {
			continue
		}
		body, err := s.manifest(ctx, d)
		if isGone(err) {
			continue // listed by a stale index
		}
		if err != nil {
			return err
		}
		m, err := parseManifest(d, body)
		if err != nil {
			return err
		}
		if m.Subject == nil || string(m.Subject.Digest) != string(subject) || (artifactType != "" && m.kind() != artifactType) {
			continue
		}
		d.ArtifactType, d.Annotations = m.kind(), m.Annotations
		if err := f(d); err != nil {
			return err
		}
	}
	return nil
}

// otherKind reports whether a list says that an entry has another type than the wanted one. Some registries
// give the type of the configuration, which says nothing when that is empty.
func otherKind(listed, wanted string) bool {
	return wanted != "" && listed != "" && listed != wanted && listed != ocispec.MediaTypeEmptyJSON
}

func isGone(err error) bool { return err != nil && isNotFound(err) }

// eachReferrer calls f with the referrers of subject, of those, and so on.
func eachReferrer(ctx context.Context, s source, subject hostabi.Digest, f func(hostabi.Descriptor) error) error {
	level := []hostabi.Digest{subject}
	seen := map[hostabi.Digest]bool{subject: true}
	for range referrerDepth {
		var next []hostabi.Digest
		for _, d := range level {
			err := referrers(ctx, s, d, "", func(r hostabi.Descriptor) error {
				if seen[r.Digest] {
					return nil
				}
				seen[r.Digest] = true
				next = append(next, r.Digest)
				return f(r)
			})
			if err != nil {
				return err
			}
		}
		level = next
	}
	return nil
}

// Attach adds a referrer to subject: one blob under a manifest that names subject. Registries without the
// referrers API get an entry in the fallback index, which is read back because two writers may undo each
// other.
func (c *Client) Attach(ctx context.Context, repo string, subject hostabi.Descriptor, r Referrer) (hostabi.Descriptor, error) {
	ref, t, err := c.open(repo)
	if err != nil {
		return hostabi.Descriptor{}, err
	}
	var d hostabi.Descriptor
	err = c.writing(ctx, t, func(t target) error {
		d, err = c.attach(pushing(ctx, t), ref, t, subject, r)
		return err
	})
	if err != nil {
		return hostabi.Descriptor{}, fail(ctx, "attach", ref, t, err)
	}
	d.Ref = Reference{Host: ref.Host, Repository: ref.Repository, Path: ref.Path, Digest: d.Digest}.String()
	return d, nil
}

func (c *Client) attach(ctx context.Context, ref Reference, t target, subject hostabi.Descriptor, r Referrer) (hostabi.Descriptor, error) {
	content := map[hostabi.Digest][]byte{}
	add := func(mediaType string, b []byte) hostabi.Descriptor {
		d := hostabi.Descriptor{MediaType: mediaType, Digest: hostabi.DigestOf(b), Size: int64(len(b))}
		content[d.Digest] = b
		return d
	}
	layer := add(r.MediaType, r.Blob)
	config := add(ocispec.MediaTypeEmptyJSON, []byte("{}"))
	subj := toOCI(hostabi.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size})
	body, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaManifest, ArtifactType: r.ArtifactType,
		Config: toOCI(config), Layers: []ociDescriptor{toOCI(layer)}, Subject: &subj, Annotations: r.Annotations,
	})
	if err != nil {
		return hostabi.Descriptor{}, err
	}
	root := add(mediaManifest, body)
	root.ArtifactType, root.Annotations = r.ArtifactType, r.Annotations
	tr := &transfer{c: c, dst: t, to: ref, rep: c.reporter(ref, nil).pushing(), blob: (&opened{fromMemory(content)}).blob}
	if err := tr.graph(ctx, &graph{manifests: []node{{root, body}}, blobs: []hostabi.Descriptor{config, layer}}); err != nil {
		return hostabi.Descriptor{}, err
	}
	for n := 0; ; n++ {
		if err := t.putManifest(ctx, root, body); err != nil {
			return hostabi.Descriptor{}, err
		}
		listed, err := isListed(ctx, t, subject.Digest, root.Digest)
		if listed || err != nil {
			return root, err
		}
		if n == lostUpdates {
			return hostabi.Descriptor{}, hostabi.Errorf(hostabi.ReasonFeatureMissing, "the registry does not list referrers: other writers undid the entry %d times", n)
		}
		if err := c.sleep(ctx, backoff(n)); err != nil {
			return hostabi.Descriptor{}, err
		}
	}
}

func isListed(ctx context.Context, s source, subject, d hostabi.Digest) (bool, error) {
	list, err := s.referrers(ctx, subject)
	for _, e := range list {
		if e.Digest == d {
			return true, nil
		}
	}
	return false, err
}
