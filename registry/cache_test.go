package registry_test

import (
	"os"
	"testing"

	"github.com/delivery-station/ds/cache"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/registry"
)

// TestIntoTheCache pulls into the real sink, cut on the way, and pushes from it.
func TestIntoTheCache(t *testing.T) {
	t.Parallel()
	layers := [][]byte{noise(1, 3<<20), noise(2, 100)}
	srv, ref, root := pushed(t, dstest.RegistryOptions{}, layers...)
	srv.Inject(dstest.Fault{Path: "/blobs/", Times: 1, EachPath: true, CutAt: 1 << 20})
	store, err := cache.Open(t.Context(), cache.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	c, _ := newClient(t, registry.Options{Refs: store})
	view := store.View("porter", srv.Host+"/team/app")
	defer func() { _ = view.Close() }()
	for run, want := range []string{hostabi.ByNetwork, hostabi.FromCache} {
		how := newTransfers(t)
		d, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, view, how.report)
		if err != nil || d.Digest != root.Digest {
			t.Fatalf("run %d: %+v, %v", run, d, err)
		}
		for digest, h := range how.how {
			if h != want {
				t.Errorf("run %d: %s came by %s, want %s", run, digest, h, want)
			}
		}
	}
	offline, _ := newClient(t, registry.Options{Refs: store, Offline: true})
	if d, err := offline.Pull(t.Context(), ref, hostabi.PullOptions{}, view, nil); err != nil || d.Digest != root.Digest {
		t.Errorf("offline: %+v, %v", d, err)
	}
	open := func(d hostabi.Digest) (*os.File, error) { return view.Open(t.Context(), d) }
	f, err := open(hostabi.DigestOf(layers[0]))
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
}
