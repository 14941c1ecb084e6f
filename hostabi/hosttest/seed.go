package hosttest

import (
	"context"
	"fmt"
	"testing"

	"github.com/delivery-station/ds/hostabi"
)

const (
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaEmpty    = "application/vnd.oci.empty.v1+json"
)

// seed puts a blob of another plugin into the cache and artifacts into the registry.
func (w *World) seed(t testing.TB) {
	view, err := w.Cache("other", "")
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close() // committed
	b, err := view.Create(t.Context(), hostabi.Descriptor{})
	if err == nil {
		_, err = b.Write([]byte("private blob of somebody else"))
	}
	if err == nil {
		_, err = b.Commit(t.Context())
	}
	if err != nil {
		t.Fatalf("seed the cache: %v", err)
	}
	if w.Registry == "" || w.Puller == nil {
		return
	}
	for _, ref := range []string{"app:v1", "secret:v1", "out:seed"} {
		if err := w.pushSeed(t.Context(), w.Registry+"/"+ref); err != nil && hostabi.ReasonOf(err) != hostabi.ReasonOffline {
			t.Fatalf("seed %s: %v", ref, err)
		}
	}
}

// pushSeed pushes an artifact of two layers.
func (w *World) pushSeed(ctx context.Context, ref string) error {
	p, err := w.Pusher()
	if err != nil {
		return err
	}
	blobs := make(map[hostabi.Digest][]byte)
	add := func(b string) string {
		d := hostabi.DigestOf([]byte(b))
		blobs[d] = []byte(b)
		return fmt.Sprintf(`"digest":%q,"size":%d`, d, len(b))
	}
	m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"text/kit","config":{"mediaType":%q,%s},"layers":[{"mediaType":"text/plain",%s},{"mediaType":"text/plain",%s}]}`,
		mediaManifest, mediaEmpty, add("{}"), add("layer one"), add("layer two"))
	add(m)
	root := hostabi.Descriptor{MediaType: mediaManifest, Digest: hostabi.DigestOf([]byte(m)), Size: int64(len(m)), ArtifactType: "text/kit"}
	return p.Push(ctx, ref, root, openFunc(blobs), func(hostabi.Progress) {})
}
