package registry_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/registry"
)

// TestEverywhere runs the same cases over each kind of place.
func TestEverywhere(t *testing.T) {
	t.Parallel()
	everywhere(t, places(), places())
}

// everywhere runs the cases over places, and copies from each to each of targets.
func everywhere(t *testing.T, places, targets []place) {
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			t.Run("push and pull", func(t *testing.T) { testPushPull(t, p) })
			t.Run("platforms", func(t *testing.T) { testPlatforms(t, p) })
			t.Run("resolve", func(t *testing.T) { testResolve(t, p) })
			t.Run("tags", func(t *testing.T) { testTags(t, p) })
			t.Run("referrers", func(t *testing.T) { testReferrers(t, p) })
			t.Run("repository", func(t *testing.T) { testRepository(t, p) })
			t.Run("nothing there", func(t *testing.T) { testNothing(t, p) })
			for _, to := range targets {
				t.Run("copy to "+to.name, func(t *testing.T) { testCopy(t, p, to) })
			}
		})
	}
}

func testPushPull(t *testing.T, p place) {
	ref := p.ref(t)
	c := p.client(t)
	local := newSink(t)
	layers := [][]byte{noise(1, 3<<20), noise(2, 100), {}}
	root := local.artifact(t, layers...)
	sent := newTransfers(t)
	if err := c.Push(t.Context(), ref+":v1", root, local.OpenFunc, sent.report); err != nil {
		t.Fatal(err)
	}
	if got := sent.how[root.Digest]; got != hostabi.ByNetwork || len(sent.how) != 5 {
		t.Errorf("root went by %q, reports %v", got, sent.how)
	}

	cache := newSink(t)
	for run, want := range []string{hostabi.ByNetwork, hostabi.FromCache} {
		got := newTransfers(t)
		d, err := c.Pull(t.Context(), ref+":v1", hostabi.PullOptions{}, cache, got.report)
		if err != nil {
			t.Fatal(err)
		}
		if d.Digest != root.Digest || d.Size != root.Size || d.MediaType != typeManifest || !strings.HasSuffix(d.Ref, ":v1") {
			t.Errorf("run %d: root is %+v", run, d)
		}
		if len(got.how) != 5 {
			t.Errorf("run %d: %d last reports, want 5", run, len(got.how))
		}
		for digest, how := range got.how {
			if how != want {
				t.Errorf("run %d: %s came by %s, want %s", run, digest, how, want)
			}
		}
		if p := got.last[string(hostabi.DigestOf(layers[0]))]; p.Label != "layer-0" || p.Current != 3<<20 || p.Total != 3<<20 {
			t.Errorf("run %d: last report of a layer is %+v", run, p)
		}
	}
	for _, l := range layers {
		sameBytes(t, cache, hostabi.DigestOf(l), l)
	}

	again := newTransfers(t)
	if err := c.Push(t.Context(), ref+":v1", root, local.OpenFunc, again.report); err != nil {
		t.Fatal(err)
	}
	if again.how[root.Digest] != hostabi.AtTarget || len(again.how) != 1 {
		t.Errorf("a second push did %v", again.how)
	}
	second := newTransfers(t)
	root2 := local.artifact(t, layers[0], noise(3, 10))
	if err := c.Push(t.Context(), ref+":v2", root2, local.OpenFunc, second.report); err != nil {
		t.Fatal(err)
	}
	if got := second.how[hostabi.DigestOf(layers[0])]; got != hostabi.AtTarget {
		t.Errorf("a blob that is there went by %s", got)
	}
}

func testPlatforms(t *testing.T, p place) {
	ref := p.ref(t)
	c := p.client(t)
	local := newSink(t)
	linux, wasm, arm := local.artifact(t, noise(1, 10)), local.artifact(t, noise(2, 10)), local.artifact(t, noise(3, 10))
	meta := local.artifact(t, noise(4, 10))
	root := local.index(t, linux, "linux/amd64", wasm, "wasip1/wasm", arm, "linux/arm64/v8", meta, "")
	mustPush(t, c, ref+":v1", root, local)
	all := []hostabi.Descriptor{linux, wasm, arm, meta}
	for name, k := range map[string]struct {
		o    hostabi.PullOptions
		want []hostabi.Descriptor
	}{
		"one":           {hostabi.PullOptions{Platforms: []hostabi.Platform{{OS: "linux", Architecture: "amd64"}}}, []hostabi.Descriptor{linux, meta}},
		"default arm":   {hostabi.PullOptions{Platforms: []hostabi.Platform{{OS: "linux", Architecture: "arm64"}}}, []hostabi.Descriptor{arm, meta}},
		"wasm":          {hostabi.PullOptions{Platforms: []hostabi.Platform{{OS: "wasm"}}}, []hostabi.Descriptor{wasm, meta}},
		"two":           {hostabi.PullOptions{Platforms: []hostabi.Platform{{OS: "linux", Architecture: "amd64", Variant: "v3"}, {OS: "wasip1", Architecture: "wasm"}}}, []hostabi.Descriptor{linux, wasm, meta}},
		"all platforms": {hostabi.PullOptions{AllPlatforms: true}, all},
	} {
		cache := newSink(t)
		d, err := c.Pull(t.Context(), ref+":v1", k.o, cache, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if d.Digest != root.Digest || !cache.holds(root.Digest) {
			t.Errorf("%s: the index is %s", name, d.Digest)
		}
		for _, child := range all {
			if want := slices.ContainsFunc(k.want, func(w hostabi.Descriptor) bool { return w.Digest == child.Digest }); cache.holds(child.Digest) != want {
				t.Errorf("%s: child %s there = %v, want %v", name, child.Digest, !want, want)
			}
		}
	}
	_, err := c.Pull(t.Context(), ref+":v1", hostabi.PullOptions{Platforms: []hostabi.Platform{{OS: "plan9", Architecture: "mips"}}}, newSink(t), nil)
	wantReason(t, err, hostabi.ReasonRefNotFound)
	if !strings.Contains(err.Error(), "linux/amd64, wasip1/wasm, linux/arm64/v8") {
		t.Errorf("the error does not list the platforms: %v", err)
	}

	cache := newSink(t)
	if _, err := c.Pull(t.Context(), ref+":v1", hostabi.PullOptions{AllPlatforms: true, ManifestsOnly: true}, cache, nil); err != nil {
		t.Fatal(err)
	}
	if !cache.holds(wasm.Digest) || cache.holds(hostabi.DigestOf(noise(2, 10))) {
		t.Error("manifests only: want manifests and no blob")
	}
	cache = newSink(t)
	if _, err := c.Pull(t.Context(), ref+":v1", hostabi.PullOptions{AllPlatforms: true, MediaTypes: []string{"other"}}, cache, nil); err != nil {
		t.Fatal(err)
	}
	if cache.holds(hostabi.DigestOf(noise(2, 10))) || !cache.holds(hostabi.DigestOf([]byte("{}"))) {
		t.Error("media types: want configurations and no layer of another type")
	}
}

func testResolve(t *testing.T, p place) {
	ref := p.ref(t)
	c := p.client(t)
	local := newSink(t)
	child := local.artifact(t, noise(1, 10))
	root := local.index(t, child, "")
	if err := c.Push(t.Context(), ref, hostabi.Descriptor{Digest: root.Digest}, local.OpenFunc, nil); err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]struct {
		ref  string
		want hostabi.Descriptor
	}{
		"no tag is latest": {ref, root}, "latest": {ref + ":latest", root}, "digest": {ref + "@" + string(root.Digest), root},
		"tag and digest": {ref + ":other@" + string(child.Digest), child}, "child": {ref + "@" + string(child.Digest), child},
	} {
		d, err := c.Resolve(t.Context(), k.ref)
		if err != nil || d.Digest != k.want.Digest || d.Size != k.want.Size || d.MediaType != k.want.MediaType {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
	wantReason(t, c.Push(t.Context(), ref+"@"+string(child.Digest), root, local.OpenFunc, nil), hostabi.ReasonRef)
	if err := c.Push(t.Context(), ref+"@"+string(child.Digest), child, local.OpenFunc, nil); err != nil {
		t.Error(err)
	}
}

func testTags(t *testing.T, p place) {
	ref := p.ref(t)
	c := p.client(t)
	local := newSink(t)
	first, second := local.artifact(t, noise(1, 10)), local.artifact(t, noise(2, 10))
	mustPush(t, c, ref+":1.0.0", first, local)
	mustPush(t, c, ref+":2.0.0", second, local)
	if err := c.Tag(t.Context(), ref+":1.0.0", "stable"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Attach(t.Context(), ref, first, registry.Referrer{ArtifactType: "a/b", MediaType: "c/d", Blob: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	tags := collect(t, c.Tags(t.Context(), ref))
	slices.Sort(tags)
	if want := []string{"1.0.0", "2.0.0", "stable"}; !slices.Equal(tags, want) {
		t.Errorf("tags %v, want %v", tags, want)
	}
	for range c.Tags(t.Context(), ref) {
		break
	}
	// A tag moves, and what had it keeps its other names and its digest.
	if err := c.Tag(t.Context(), ref+":2.0.0", "stable"); err != nil {
		t.Fatal(err)
	}
	for tag, want := range map[string]hostabi.Digest{"stable": second.Digest, "1.0.0": first.Digest, "2.0.0": second.Digest} {
		if d, err := c.Resolve(t.Context(), ref+":"+tag); err != nil || d.Digest != want {
			t.Errorf("%s is %s, want %s (%v)", tag, d.Digest, want, err)
		}
	}
	wantReason(t, c.Tag(t.Context(), ref+":1.0.0", "no/tag"), hostabi.ReasonRef)
	wantReason(t, c.Tag(t.Context(), ref+":absent", "x"), hostabi.ReasonRefNotFound)
}

func testReferrers(t *testing.T, p place) {
	ref := p.ref(t)
	c := p.client(t)
	local := newSink(t)
	subject, other := local.artifact(t, noise(1, 10)), local.artifact(t, noise(2, 10))
	mustPush(t, c, ref+":v1", subject, local)
	mustPush(t, c, ref+":v2", other, local)
	if got := collect(t, c.Referrers(t.Context(), ref, subject.Digest, "")); len(got) != 0 {
		t.Fatalf("referrers before any: %v", got)
	}
	sig := registry.Referrer{ArtifactType: "application/vnd.example.sig", MediaType: "application/json", Blob: []byte(`{"sig":1}`), Annotations: map[string]string{"k": "v"}}
	a, err := c.Attach(t.Context(), ref, subject, sig)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.Attach(t.Context(), ref, subject, sig); err != nil || again.Digest != a.Digest {
		t.Errorf("attaching the same again gives %s, %v", again.Digest, err)
	}
	sig.ArtifactType = "application/vnd.example.sbom"
	if _, err := c.Attach(t.Context(), ref, subject, sig); err != nil {
		t.Fatal(err)
	}
	if got := collect(t, c.Referrers(t.Context(), ref, subject.Digest, "")); len(got) != 2 {
		t.Errorf("all referrers: %v", got)
	}
	if got := collect(t, c.Referrers(t.Context(), ref, other.Digest, "")); len(got) != 0 {
		t.Errorf("referrers of another: %v", got)
	}
	got := collect(t, c.Referrers(t.Context(), ref, subject.Digest, "application/vnd.example.sig"))
	if len(got) != 1 || got[0].Digest != a.Digest || got[0].ArtifactType != "application/vnd.example.sig" || got[0].Annotations["k"] != "v" {
		t.Fatalf("referrers of a type: %+v", got)
	}
	cache := newSink(t)
	if _, err := c.Pull(t.Context(), got[0].Ref, hostabi.PullOptions{}, cache, nil); err != nil {
		t.Fatal(err)
	}
	sameBytes(t, cache, hostabi.DigestOf(sig.Blob), sig.Blob)
	cache = newSink(t)
	if _, err := c.Pull(t.Context(), ref+":v1", hostabi.PullOptions{Referrers: true}, cache, nil); err != nil || !cache.holds(a.Digest) {
		t.Errorf("pull with referrers: %v", err)
	}
}

func testRepository(t *testing.T, p place) {
	ref := p.ref(t)
	c := p.client(t)
	local := newSink(t)
	layer := noise(1, 10)
	child := local.artifact(t, layer)
	root := local.index(t, child, "linux/amd64")
	mustPush(t, c, ref+":v1", root, local)
	r, err := c.Repository(ref)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"v1", string(root.Digest), ref + ":v1"} {
		if d, err := r.Resolve(t.Context(), name); err != nil || d.Digest != root.Digest {
			t.Errorf("resolve %s: %v", name, err)
		}
	}
	_, err = r.Resolve(t.Context(), "example.com/else:v1")
	wantReason(t, err, hostabi.ReasonRef)
	b, err := r.Manifest(t.Context(), root)
	if err != nil || hostabi.DigestOf(b) != root.Digest {
		t.Fatalf("manifest: %v", err)
	}
	_, err = r.Manifest(t.Context(), hostabi.Descriptor{MediaType: typeManifest, Digest: hostabi.DigestOf([]byte("absent")), Size: 6})
	wantReason(t, err, hostabi.ReasonRefNotFound)
	cache := newSink(t)
	if err := r.Fetch(t.Context(), hostabi.Descriptor{MediaType: typeLayer, Digest: hostabi.DigestOf(layer), Size: 10}, cache); err != nil || !cache.holds(hostabi.DigestOf(layer)) {
		t.Errorf("fetch of a blob: %v", err)
	}
	if err := r.Fetch(t.Context(), child, cache); err != nil || !cache.holds(child.Digest) || cache.holds(root.Digest) {
		t.Errorf("fetch of a child: %v", err)
	}
	wantReason(t, r.Fetch(t.Context(), hostabi.Descriptor{MediaType: typeLayer, Digest: hostabi.DigestOf([]byte("absent")), Size: 6}, cache), hostabi.ReasonRefNotFound)
}

func testNothing(t *testing.T, p place) {
	ref := p.ref(t)
	c := p.client(t)
	_, err := c.Resolve(t.Context(), ref+":v1")
	wantReason(t, err, hostabi.ReasonRefNotFound)
	_, err = c.Pull(t.Context(), ref+"@"+string(hostabi.DigestOf(nil)), hostabi.PullOptions{}, newSink(t), nil)
	wantReason(t, err, hostabi.ReasonRefNotFound)
	for _, err := range c.Tags(t.Context(), ref) {
		wantReason(t, err, hostabi.ReasonRefNotFound)
	}
	missing := newSink(t)
	root := missing.artifact(t, noise(1, 10))
	if err := os.Remove(missing.path(hostabi.DigestOf(noise(1, 10)))); err != nil {
		t.Fatal(err)
	}
	wantReason(t, c.Push(t.Context(), ref+":v1", root, missing.OpenFunc, nil), hostabi.ReasonNotCached)
	_, err = c.Resolve(t.Context(), ref+":v1")
	wantReason(t, err, hostabi.ReasonRefNotFound)
	notAManifest := missing.put(t, "", []byte("hello"))
	wantReason(t, c.Push(t.Context(), ref+":v1", notAManifest, missing.OpenFunc, nil), hostabi.ReasonBadMessage)
}

func testCopy(t *testing.T, source, target place) {
	from, to := source.ref(t), target.ref(t)
	c := source.client(t, target)
	local := newSink(t)
	child, wasm := local.artifact(t, noise(1, 1<<20), noise(2, 10)), local.artifact(t, noise(3, 10))
	root := local.index(t, child, "linux/amd64", wasm, "wasip1/wasm")
	mustPush(t, c, from+":v1", root, local)
	ofRoot, err := c.Attach(t.Context(), from, root, registry.Referrer{ArtifactType: "a/sig", MediaType: "c/d", Blob: []byte("sig")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Attach(t.Context(), from, ofRoot, registry.Referrer{ArtifactType: "a/countersig", MediaType: "c/d", Blob: []byte("more")}); err != nil {
		t.Fatal(err)
	}
	how := newTransfers(t)
	d, err := c.Copy(t.Context(), from+":v1", to, registry.CopyOptions{Referrers: true, Progress: how.report})
	if err != nil {
		t.Fatal(err)
	}
	want := hostabi.ByNetwork
	if host, _, _ := strings.Cut(from, "/"); !strings.Contains(host, "oci-layout") && strings.HasPrefix(to, host+"/") {
		want = hostabi.ByMount
	}
	if d.Digest != root.Digest || how.how[hostabi.DigestOf(noise(1, 1<<20))] != want {
		t.Errorf("copied %+v by %v", d, how.how)
	}
	cache := newSink(t)
	if d, err := c.Pull(t.Context(), to+":v1", hostabi.PullOptions{AllPlatforms: true}, cache, nil); err != nil || d.Digest != root.Digest {
		t.Fatalf("pull of the copy: %s, %v", d.Digest, err)
	}
	sameBytes(t, cache, hostabi.DigestOf(noise(1, 1<<20)), noise(1, 1<<20))
	if got := collect(t, c.Referrers(t.Context(), to, root.Digest, "a/sig")); len(got) != 1 || got[0].Digest != ofRoot.Digest {
		t.Errorf("referrers of the copy: %v", got)
	}
	if got := collect(t, c.Referrers(t.Context(), to, ofRoot.Digest, "")); len(got) != 1 {
		t.Errorf("referrers of the referrer: %v", got)
	}
	if d, err := c.Copy(t.Context(), from+":v1", to+":again", registry.CopyOptions{}); err != nil || d.Digest != root.Digest {
		t.Errorf("second copy: %v", err)
	}
	_, err = c.Copy(t.Context(), from+":absent", to, registry.CopyOptions{})
	wantReason(t, err, hostabi.ReasonRefNotFound)
}

// TestDefaultRegistry shows both forms of registry.default.
func TestDefaultRegistry(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, _ := newClient(t, registry.Options{DefaultRegistry: "oci-layout:" + dir})
	local := newSink(t)
	mustPush(t, c, "app:v1", local.artifact(t, noise(1, 10)), local)
	if _, err := os.Stat(filepath.Join(dir, "app", "index.json")); err != nil {
		t.Error(err)
	}
	if name, err := c.Canonical("app:v1"); err != nil || name != "oci-layout:"+filepath.Join(dir, "app") {
		t.Errorf("canonical %q, %v", name, err)
	}
	c, _ = newClient(t, registry.Options{DefaultRegistry: "ghcr.io/delivery-station"})
	if name, err := c.Canonical("app/x:v1"); err != nil || name != "ghcr.io/delivery-station/app/x" {
		t.Errorf("canonical %q, %v", name, err)
	}
	if _, err := registry.New(registry.Options{DefaultRegistry: "no host"}); hostabi.ReasonOf(err) != hostabi.ReasonConfigValue {
		t.Errorf("a bad default registry: %v", err)
	}
}
