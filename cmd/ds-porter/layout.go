package main

import (
	"encoding/json"
	"os"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/pkg/client"
	"github.com/delivery-station/ds/pkg/client/ocilayout"
)

// layout is an OCI layout in a tar and the manifests in it.
type layout struct {
	*ocilayout.Layout
	f    *os.File
	name string // as the user typed it
}

func badLayout(format string, a ...any) *hostabi.Error {
	return hostabi.Errorf(hostabi.ReasonBadLayout, format, a...)
}

func openLayout(file, name string) (*layout, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, hostError(name, err)
	}
	l, err := ocilayout.Open(f, name)
	if err != nil {
		_ = f.Close() // read only
		return nil, hostError(name, err)
	}
	return &layout{l, f, name}, nil
}

func (l *layout) close() { _ = l.f.Close() } // read only

// has reports whether the tar holds d; its bytes may still be others.
func (l *layout) has(d client.Digest) bool {
	_, ok := l.Size(d)
	return ok
}

func (l *layout) manifest(d client.Digest) (*ociManifest, error) {
	b, err := l.Content(d, hostabi.MaxMessage)
	if err != nil {
		return nil, err
	}
	m := new(ociManifest)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, badLayout("%s: manifest %s is no JSON: %w", l.name, d, err)
	}
	return m, nil
}

// node is one manifest of a graph.
type node struct {
	ociDescriptor
	*ociManifest
}

// graph is root and every manifest below it, what is listed before what lists it. Manifests below it that the tar
// does not hold are left out: whether it must hold them is for the caller to say.
func (l *layout) graph(root ocilayout.Entry) (nodes []node, err error) {
	seen := make(map[client.Digest]bool)
	var walk func(d ociDescriptor, depth int) error
	walk = func(d ociDescriptor, depth int) error {
		if seen[d.Digest] {
			return nil
		}
		seen[d.Digest] = true
		switch {
		case len(seen) > maxManifests:
			return hostabi.Errorf(hostabi.ReasonTooLarge, "%s lists more than %d manifests", root.Digest, maxManifests)
		case depth == 0:
			return badLayout("%s: indexes are nested deeper than %d", l.name, maxDepth)
		}
		m, err := l.manifest(d.Digest)
		if err != nil {
			return err
		}
		for _, c := range m.Manifests {
			if isManifest(c.MediaType) && l.has(c.Digest) {
				if err := walk(c, depth-1); err != nil {
					return err
				}
			}
		}
		nodes = append(nodes, node{d, m})
		return nil
	}
	err = walk(ociDescriptor{MediaType: root.MediaType, Digest: root.Digest, Size: root.Size}, maxDepth+1)
	return nodes, err
}

// blobs are the contents of a manifest that are no manifests themselves.
func (m *ociManifest) blobs() []ociDescriptor {
	out := m.Layers
	if m.Config != nil {
		out = append([]ociDescriptor{*m.Config}, out...)
	}
	for _, c := range m.Manifests {
		if !isManifest(c.MediaType) {
			out = append(out, c)
		}
	}
	return out
}

// platform is that of an entry of an index, empty if it is for all.
func (d *ociDescriptor) platform() string {
	if p := d.Platform; p != nil {
		return client.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}.String()
	}
	if a := d.Annotations; a["os"] != "" && a["architecture"] != "" {
		return client.Platform{OS: a["os"], Architecture: a["architecture"], Variant: a["variant"]}.String()
	}
	return ""
}

const layoutPrefix = "oci-layout:"

// cutRef is the repository and the tag of a reference.
func cutRef(ref string) (repository, tag string) {
	prefix := ""
	if rest, ok := strings.CutPrefix(ref, layoutPrefix); ok {
		prefix, ref = layoutPrefix, rest
	}
	repository, _, _ = strings.Cut(ref, "@")
	if i := strings.LastIndexByte(repository, ':'); i > strings.LastIndexAny(repository, `/\`) && i > 1 {
		return prefix + repository[:i], repository[i+1:]
	}
	return prefix + repository, ""
}
