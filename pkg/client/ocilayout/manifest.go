package ocilayout

import (
	"encoding/json"

	"github.com/delivery-station/ds/hostabi"
)

// MaxManifest is how large a manifest may be.
const MaxManifest = 4 << 20

// IsManifest reports whether content of a media type is a manifest or an index.
func IsManifest(mediaType string) bool {
	switch mediaType {
	case MediaIndex, MediaManifest,
		"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json":
		return true
	}
	return false
}

// Manifest is what an image manifest or an index lists.
type Manifest struct {
	ArtifactType string  `json:"artifactType"`
	Config       *Entry  `json:"config"`
	Layers       []Entry `json:"layers"`
	Manifests    []Entry `json:"manifests"`
}

// ParseManifest reads an image manifest or an index. What its descriptors say is not checked.
func ParseManifest(b []byte) (*Manifest, error) {
	m := new(Manifest)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, badLayout("manifest is no JSON: %w", err)
	}
	return m, nil
}

// Children are all descriptors of m.
func (m *Manifest) Children() (all []Entry) {
	if m.Config != nil {
		all = append(all, *m.Config)
	}
	return append(append(all, m.Layers...), m.Manifests...)
}

// Graph is every blob in the tar that is one of entries or below one, with its media type as what lists it says. A manifest
// that does not have its digest is DIGEST_MISMATCH.
func (l *Layout) Graph(entries []Entry) (map[hostabi.Digest]string, error) {
	types := make(map[hostabi.Digest]string)
	var todo []hostabi.Digest // manifests to look into, each once
	note := func(es []Entry) {
		for _, e := range es {
			_, here := l.blobs[e.Digest]
			if _, done := types[e.Digest]; done || !here {
				continue
			}
			types[e.Digest] = e.MediaType
			if IsManifest(e.MediaType) {
				todo = append(todo, e.Digest)
			}
		}
	}
	for note(entries); len(todo) > 0; {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		b, err := l.Content(d, MaxManifest)
		if err != nil {
			return nil, err
		}
		if m, err := ParseManifest(b); err == nil { // else a blob like any other
			note(m.Children())
		}
	}
	return types, nil
}
