package publish

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/archive"
	"github.com/delivery-station/ds/plugin"
)

const (
	layoutFile = `{"imageLayoutVersion":"1.0.0"}`
	refName    = "org.opencontainers.image.ref.name"
)

// WriteTar writes the package as an OCI layout in a tar, under the tag of its version. The same package gives the
// same bytes: entries are sorted, and Options.Created is the only time.
func (p *Package) WriteTar(ctx context.Context, w io.Writer) error {
	root := plugin.OCIDescriptor{
		MediaType: p.Root.MediaType, Digest: string(p.Root.Digest), Size: p.Root.Size, ArtifactType: p.Root.ArtifactType,
		Annotations: map[string]string{refName: Tag(p.version)},
	}
	index, err := json.Marshal(plugin.OCIDocument{SchemaVersion: 2, MediaType: plugin.OCIIndex, Manifests: []plugin.OCIDescriptor{root}})
	if err != nil {
		return err
	}
	t := archive.NewTarWriter(w, p.created)
	for _, d := range slices.Sorted(maps.Keys(p.blobs())) {
		if err := p.writeBlob(ctx, t, d); err != nil {
			return err
		}
	}
	for _, f := range []struct{ name, text string }{{"index.json", string(index)}, {"oci-layout", layoutFile}} {
		if err := t.File(f.name, false, int64(len(f.text)), strings.NewReader(f.text)); err != nil {
			return err
		}
	}
	return t.Close()
}

// blobs are all blobs and documents.
func (p *Package) blobs() map[hostabi.Digest]bool {
	out := make(map[hostabi.Digest]bool, len(p.docs)+len(p.files))
	for d := range p.docs {
		out[d] = true
	}
	for d := range p.files {
		out[d] = true
	}
	return out
}

func (p *Package) writeBlob(ctx context.Context, t *archive.TarWriter, d hostabi.Digest) error {
	r, err := p.Open(ctx, d)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // read-only
	size, err := r.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = r.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	return t.File("blobs/sha256/"+d.Hex(), false, size, reader{ctx, r})
}

// Tag is the tag of a version: build metadata has another separator there.
func Tag(version string) string { return strings.ReplaceAll(version, "+", "_") }
