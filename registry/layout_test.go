package registry_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/registry"
)

// layoutWith is a new layout that holds one artifact under v1.
func layoutWith(t *testing.T, c *registry.Client, layers ...[]byte) (string, hostabi.Descriptor) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	local := newSink(t)
	root := local.artifact(t, layers...)
	mustPush(t, c, "oci-layout:"+dir+":v1", root, local)
	return dir, root
}

// TestLayoutForm checks the files against the image layout specification.
func TestLayoutForm(t *testing.T) {
	t.Parallel()
	c, _ := newClient(t, registry.Options{})
	dir, root := layoutWith(t, c, noise(1, 100))
	b, err := os.ReadFile(filepath.Join(dir, "oci-layout"))
	if err != nil || string(b) != `{"imageLayoutVersion":"1.0.0"}` {
		t.Errorf("oci-layout is %s, %v", b, err)
	}
	b, err = os.ReadFile(filepath.Join(dir, "index.json"))
	want := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"annotations":{"org.opencontainers.image.ref.name":"v1"},"artifactType":"application/vnd.example.v1"}]}`,
		typeIndex, typeManifest, root.Digest, root.Size)
	if err != nil || string(b) != want {
		t.Errorf("index.json is\n%s, want\n%s (%v)", b, want, err)
	}
	err = filepath.WalkDir(filepath.Join(dir, "blobs"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || filepath.Base(path) != hostabi.DigestOf(b).Hex() {
			t.Errorf("%s is not its digest: %v", path, err)
		}
		if fi, err := e.Info(); err == nil && runtime.GOOS != "windows" && fi.Mode().Perm() != 0o444 {
			t.Errorf("%s has mode %s", path, fi.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestLayoutManyWriters: no tag is lost when goroutines and clients (as processes would) push at once.
func TestLayoutManyWriters(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "layout")
	const n = 16
	shared, _ := newClient(t, registry.Options{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			c := shared
			if i%2 == 0 {
				c, _ = newClient(t, registry.Options{})
			}
			local := newSink(t)
			root := local.artifact(t, noise(uint64(i), 1000), noise(99, 1000))
			if err := c.Push(t.Context(), fmt.Sprintf("oci-layout:%s:v%d", dir, i), root, local.OpenFunc, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if tags := collect(t, shared.Tags(t.Context(), "oci-layout:"+dir)); len(tags) != n {
		t.Errorf("%d tags of %d: %v", len(tags), n, tags)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*", "*", ".*"))
	if err != nil || len(left) != 0 {
		t.Errorf("temporary files: %v", left)
	}
}

// TestLayoutInterrupted: a push that fails leaves the layout as readers knew it.
func TestLayoutInterrupted(t *testing.T) {
	t.Parallel()
	c, _ := newClient(t, registry.Options{})
	dir, _ := layoutWith(t, c, noise(1, 100))
	before, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	local := newSink(t)
	root := local.artifact(t, noise(2, 1<<20), noise(3, 100))
	broken := func(ctx context.Context, d hostabi.Digest) (io.ReadSeekCloser, error) {
		f, err := local.Open(ctx, d)
		if err != nil || d != hostabi.DigestOf(noise(2, 1<<20)) {
			return f, err
		}
		return &tornFile{f, 1000}, nil
	}
	if err := c.Push(t.Context(), "oci-layout:"+dir+":v1", root, broken, nil); err == nil {
		t.Fatal("a torn source was pushed")
	}
	after, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("index.json changed: %s, %v", after, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "blobs", "sha256", ".*")); len(left) != 0 {
		t.Errorf("temporary files: %v", left)
	}
	wrong := func(ctx context.Context, d hostabi.Digest) (io.ReadSeekCloser, error) {
		f, err := local.Open(ctx, d)
		if err != nil || d != hostabi.DigestOf(noise(2, 1<<20)) {
			return f, err
		}
		return os.Open(local.path(root.Digest))
	}
	wantReason(t, c.Push(t.Context(), "oci-layout:"+dir+":v1", root, wrong, nil), hostabi.ReasonDigestMismatch)
	// A first push that died after the blobs: the next one completes it.
	if err := os.Remove(filepath.Join(dir, "index.json")); err != nil {
		t.Fatal(err)
	}
	_, err = c.Resolve(t.Context(), "oci-layout:"+dir+":v1")
	wantReason(t, err, hostabi.ReasonRefNotFound)
	mustPush(t, c, "oci-layout:"+dir+":v1", root, local)
}

// tornFile fails after some bytes.
type tornFile struct {
	*os.File
	left int
}

func (f *tornFile) Read(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, fs.ErrInvalid
	}
	return f.File.Read(p)
}

// TestLayoutDamaged: what strangers may put into a layout, and the error that says so.
func TestLayoutDamaged(t *testing.T) {
	t.Parallel()
	c, _ := newClient(t, registry.Options{})
	layer := noise(1, 1000)
	write := func(name, content string) func(*testing.T, string, hostabi.Descriptor) {
		return func(t *testing.T, dir string, _ hostabi.Descriptor) {
			t.Helper()
			path := filepath.Join(dir, name)
			_ = os.Remove(path)
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	blob := filepath.Join("blobs", "sha256", hostabi.DigestOf(layer).Hex())
	entry := func(m string) string { return `{"schemaVersion":2,"manifests":[` + m + `]}` }
	for name, k := range map[string]struct {
		damage func(t *testing.T, dir string, root hostabi.Descriptor)
		want   hostabi.Reason
	}{
		"version":          {write("oci-layout", `{"imageLayoutVersion":"2.0.0"}`), hostabi.ReasonBadLayout},
		"no version":       {func(t *testing.T, dir string, _ hostabi.Descriptor) { _ = os.Remove(filepath.Join(dir, "oci-layout")) }, hostabi.ReasonBadLayout},
		"index is no JSON": {write("index.json", "<html>"), hostabi.ReasonBadLayout},
		"index is huge":    {write("index.json", strings.Repeat(" ", 5<<20)), hostabi.ReasonBadLayout},
		"bad digest":       {write("index.json", entry(`{"mediaType":"x","digest":"sha256:../../etc/passwd","size":1}`)), hostabi.ReasonBadLayout},
		"bad size":         {write("index.json", entry(`{"mediaType":"x","digest":"`+string(someDigest)+`","size":-1}`)), hostabi.ReasonBadLayout},
		"blob changed":     {write(blob, strings.Repeat("x", 1000)), hostabi.ReasonDigestMismatch},
		"blob short":       {write(blob, "x"), hostabi.ReasonDigestMismatch},
		"blob gone":        {func(t *testing.T, dir string, _ hostabi.Descriptor) { _ = os.Remove(filepath.Join(dir, blob)) }, hostabi.ReasonRefNotFound},
		"manifest changed": {func(t *testing.T, dir string, root hostabi.Descriptor) {
			write(filepath.Join("blobs", "sha256", root.Digest.Hex()), strings.Repeat(" ", int(root.Size)))(t, dir, root)
		}, hostabi.ReasonDigestMismatch},
		"blob is a directory": {func(t *testing.T, dir string, _ hostabi.Descriptor) {
			_ = os.Remove(filepath.Join(dir, blob))
			_ = os.Mkdir(filepath.Join(dir, blob), 0o700)
		}, hostabi.ReasonBadLayout},
		"blob links out": {func(t *testing.T, dir string, _ hostabi.Descriptor) {
			outside := writeFile(t, "secret", layer)
			_ = os.Remove(filepath.Join(dir, blob))
			if err := os.Symlink(outside, filepath.Join(dir, blob)); err != nil {
				t.Skip("no symbolic links: ", err)
			}
		}, hostabi.ReasonBadLayout},
	} {
		t.Run(name, func(t *testing.T) {
			dir, root := layoutWith(t, c, layer)
			k.damage(t, dir, root)
			cache := newSink(t)
			_, err := c.Pull(t.Context(), "oci-layout:"+dir+":v1", hostabi.PullOptions{}, cache, nil)
			wantReason(t, err, k.want)
			if cache.holds(root.Digest) {
				t.Error("the manifest was published all the same")
			}
		})
	}
}

// TestHostileGraphs: manifests that break a rule or limit are refused wherever they come from.
func TestHostileGraphs(t *testing.T) {
	t.Parallel()
	c, _ := newClient(t, registry.Options{})
	empty := object{"mediaType": typeEmpty, "digest": hostabi.DigestOf([]byte("{}")), "size": 2}
	for name, k := range map[string]struct {
		mediaType string
		body      any
		want      hostabi.Reason
	}{
		"two kinds at once": {typeIndex, object{"schemaVersion": 2, "mediaType": typeIndex, "manifests": []object{}, "config": empty, "layers": []object{empty}}, hostabi.ReasonBadAnswer},
		"other type inside": {typeManifest, object{"schemaVersion": 2, "mediaType": typeIndex, "manifests": []object{}}, hostabi.ReasonBadAnswer},
		"children in one":   {typeManifest, object{"schemaVersion": 2, "config": empty, "manifests": []object{empty}}, hostabi.ReasonBadAnswer},
		"bad digest":        {typeManifest, object{"schemaVersion": 2, "config": empty, "layers": []object{{"mediaType": "x", "digest": "md5:00", "size": 1}}}, hostabi.ReasonBadAnswer},
		"negative size":     {typeManifest, object{"schemaVersion": 2, "config": empty, "layers": []object{{"mediaType": "x", "digest": someDigest, "size": -1}}}, hostabi.ReasonBadAnswer},
		"two sizes":         {typeManifest, object{"schemaVersion": 2, "config": empty, "layers": []object{{"mediaType": "x", "digest": empty["digest"], "size": 3}}}, hostabi.ReasonBadAnswer},
		"too many layers":   {typeManifest, object{"schemaVersion": 2, "config": empty, "layers": slices.Repeat([]object{empty}, 10_001)}, hostabi.ReasonBadAnswer},
		"too many children": {typeIndex, object{"schemaVersion": 2, "manifests": slices.Repeat([]object{empty}, 1_001)}, hostabi.ReasonBadAnswer},
		"size of a child":   {typeIndex, object{"schemaVersion": 2, "manifests": []object{{"mediaType": typeManifest, "digest": empty["digest"], "size": 3}}}, hostabi.ReasonDigestMismatch},
		"unknown child":     {typeIndex, object{"schemaVersion": 2, "manifests": []object{{"mediaType": "x/y", "digest": someDigest, "size": 3}}}, ""},
		"foreign layer":     {typeManifest, object{"schemaVersion": 2, "config": empty, "layers": []object{{"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar", "digest": someDigest, "size": 3, "urls": []string{"http://x"}}}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			local := newSink(t)
			local.put(t, typeEmpty, []byte("{}"))
			root := local.put(t, k.mediaType, marshal(t, k.body))
			err := c.Push(t.Context(), "oci-layout:"+t.TempDir()+"/l:v1", root, local.OpenFunc, nil)
			wantReason(t, err, k.want)
		})
	}
	t.Run("nested", func(t *testing.T) {
		local := newSink(t)
		d := local.artifact(t, noise(1, 10))
		for range 2 {
			d = local.index(t, d, "")
		}
		if err := c.Push(t.Context(), "oci-layout:"+t.TempDir()+"/l:v1", d, local.OpenFunc, nil); err != nil {
			t.Error(err)
		}
		wantReason(t, c.Push(t.Context(), "oci-layout:"+t.TempDir()+"/l:v1", local.index(t, d, ""), local.OpenFunc, nil), hostabi.ReasonBadAnswer)
	})
}

// tarOf packs a directory as a plain tar.
func tarOf(t *testing.T, dir string, more ...*tar.Header) string {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	for _, h := range more {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return writeFile(t, "layout.tar", buf.Bytes())
}

func TestLayoutTar(t *testing.T) {
	t.Parallel()
	c, _ := newClient(t, registry.Options{})
	layers := [][]byte{noise(1, 1<<20), noise(2, 17)}
	dir, root := layoutWith(t, c, layers...)
	file := tarOf(t, dir)
	cache := newSink(t)
	d, err := c.Pull(t.Context(), "oci-layout:"+file+":v1", hostabi.PullOptions{}, cache, nil)
	if err != nil || d.Digest != root.Digest {
		t.Fatalf("pull from a tar: %+v, %v", d, err)
	}
	for _, l := range layers {
		sameBytes(t, cache, hostabi.DigestOf(l), l)
	}
	if _, err := c.Copy(t.Context(), "oci-layout:"+file+":v1", "oci-layout:"+t.TempDir()+"/copy", registry.CopyOptions{}); err != nil {
		t.Error(err)
	}
	if err := c.Tag(t.Context(), "oci-layout:"+file+":v1", "v2"); err != nil { // written by somebody else, and kept
		t.Error(err)
	}
	if d, err := c.Resolve(t.Context(), "oci-layout:"+file+":v2"); err != nil || d.Digest != root.Digest {
		t.Errorf("a tag in a tar: %+v, %v", d, err)
	}
	for name, path := range map[string]string{
		"link":   tarOf(t, dir, &tar.Header{Typeflag: tar.TypeSymlink, Name: "x", Linkname: "/etc/passwd"}),
		"twice":  tarOf(t, dir, &tar.Header{Typeflag: tar.TypeReg, Name: "oci-layout"}),
		"gzip":   writeFile(t, "x.tar.gz", []byte{0x1f, 0x8b, 8, 0, 0}),
		"zstd":   writeFile(t, "x.tar.zst", []byte{0x28, 0xb5, 0x2f, 0xfd, 0}),
		"no tar": writeFile(t, "x.tar", bytes.Repeat([]byte("no tar "), 200)),
	} {
		_, err := c.Resolve(t.Context(), "oci-layout:"+path+":v1")
		wantReason(t, err, hostabi.ReasonBadLayout)
		if e := hostabi.AsError(err); strings.HasSuffix(name, "z") && e.Fix == "" {
			t.Errorf("%s: no command that unpacks it: %v", name, err)
		}
	}
}

// TestForeignLayout reads a layout as other tools write it: untagged, without media type of the index.
func TestForeignLayout(t *testing.T) {
	t.Parallel()
	c, _ := newClient(t, registry.Options{})
	dir, root := layoutWith(t, c, noise(1, 10))
	b := marshal(t, object{"schemaVersion": 2, "manifests": []object{jsonDesc(root)}})
	if err := os.WriteFile(filepath.Join(dir, "index.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := c.Resolve(t.Context(), "oci-layout:"+dir); err != nil || d.Digest != root.Digest {
		t.Errorf("the only entry: %+v, %v", d, err)
	}
	if err := c.Tag(t.Context(), "oci-layout:"+dir, "v9"); err != nil {
		t.Fatal(err)
	}
	var index struct{ Manifests []json.RawMessage }
	b, _ = os.ReadFile(filepath.Join(dir, "index.json"))
	if err := json.Unmarshal(b, &index); err != nil || len(index.Manifests) != 1 {
		t.Errorf("index.json is %s, %v", b, err)
	}
}

func FuzzLayoutIndex(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"` + string(someDigest) + `","size":1,"annotations":{"org.opencontainers.image.ref.name":"v1"}}]}`))
	f.Add([]byte(`{"manifests":[{}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "index.json"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := registry.New(registry.Options{})
		if err != nil {
			t.Fatal(err)
		}
		d, err := c.Resolve(t.Context(), "oci-layout:"+dir+":v1")
		if err == nil && (!d.Digest.Valid() || d.Size < 0) {
			t.Fatalf("%q gives %+v", b, d)
		}
		if err != nil && hostabi.ReasonOf(err) == "" {
			t.Fatalf("%q: %v has no reason", b, err)
		}
		for _, err := range c.Referrers(t.Context(), "oci-layout:"+dir, someDigest, "") {
			if err != nil && hostabi.ReasonOf(err) == "" {
				t.Fatalf("%q: %v has no reason", b, err)
			}
		}
	})
}
