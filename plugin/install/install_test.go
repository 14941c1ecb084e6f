package install_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/delivery-station/ds/cache"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/install"
	"github.com/delivery-station/ds/plugin/publish"
	"github.com/delivery-station/ds/plugin/store"
	"github.com/delivery-station/ds/registry"
)

var platform = runtime.GOOS + "/" + runtime.GOARCH

// world is a registry, a store and a cache; everything in it is real but consent.
type world struct {
	mu     sync.Mutex
	t      *testing.T
	reg    *dstest.RegistryServer
	client *registry.Client
	store  *store.Store
	cache  *cache.Store

	verifier install.Verifier

	asked   []plugin.Name
	refuse  error
	granted int
	checked []plugin.Kind
	badKind plugin.Kind
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, reg: dstest.Registry(t, dstest.RegistryOptions{})}
	dir := t.TempDir()
	var err error
	if w.client, err = registry.New(registry.Options{Home: dir, Dir: dir}); err != nil {
		t.Fatal(err)
	}
	w.store = store.New(store.Options{Dir: filepath.Join(dir, "plugins")})
	if w.cache, err = cache.Open(t.Context(), cache.Options{Dir: filepath.Join(dir, "cache")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.cache.Close() })
	return w
}

func (w *world) Source(ref string) (install.Source, bool, error) {
	parsed, err := w.client.Parse(ref)
	if err != nil {
		return nil, false, err
	}
	repo, err := w.client.Repository(ref)
	return named{repo, parsed.Name()}, parsed.Tag != "" || parsed.Digest != "", err
}

func (w *world) Tags(ctx context.Context, repo string) iter.Seq2[string, error] {
	return w.client.Tags(ctx, repo)
}

type named struct {
	*registry.Repository
	name string
}

func (n named) Name() string { return n.name }

func (w *world) Ask(_ context.Context, p, active *plugin.Installed) (func(context.Context) error, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, p.Name)
	return func(context.Context) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.granted++
		return nil
	}, w.refuse
}

func (w *world) Check(_ context.Context, p *plugin.Installed) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.checked = append(w.checked, p.Program.Kind)
	if p.Program.Kind == w.badKind {
		return hostabi.Errorf(hostabi.ReasonModuleRefused, "bad module")
	}
	return nil
}

func (w *world) install(req install.Request) (install.Result, error) {
	w.t.Helper()
	return w.with(w.store).Install(w.t.Context(), req)
}

// with installs into another store.
func (w *world) with(s *store.Store) *install.Installer {
	return install.New(install.Options{
		Store: s, Sources: w, Verifier: w.verifier, Consent: w, Checkers: map[plugin.Kind]install.Checker{plugin.Native: w, plugin.WASM: w},
		Methods: func() []string { return []string{"ds.host.v1.Config/Get"} }, Cache: func(source string) (install.Cache, error) { return w.cache.View("", source), nil },
	})
}

// source writes a plugin directory.
func source(t *testing.T, version string, change func(text string) string) string {
	t.Helper()
	dir := t.TempDir()
	text := `apiVersion: ds.plugin/v2
name: hello
version: ` + version + `
description: Greets
license: MIT
abi: ds.host/v1
assets: app
capabilities:
  - {cap: config.read, scope: [own], reason: "the greeting"}
run:
  wasm: {artifact: dist/hello.wasm}
  native: {` + platform + `: dist/ds-hello}
`
	if change != nil {
		text = change(text)
	}
	for name, content := range map[string]string{
		"plugin.yaml": text, "dist/hello.wasm": "\x00asm\x01\x00\x00\x00" + version, "dist/ds-hello": "#!/bin/sh\necho " + version + "\n",
		"app/main.py": "print('hi')\n",
	} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (w *world) publish(dir, repo string) hostabi.Descriptor {
	w.t.Helper()
	m, err := store.ReadDir(atomicfile.OS(), dir)
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := publish.Build(w.t.Context(), dir, m, time.Unix(0, 0))
	if err != nil {
		w.t.Fatal(err)
	}
	defer p.Close()
	if err := p.Push(w.t.Context(), w.client, repo, []string{m.Version, "latest"}, nil); err != nil {
		w.t.Fatal(err)
	}
	return p.Root
}

func TestInstallBothKinds(t *testing.T) {
	w := newWorld(t)
	for name, repo := range map[string]string{"registry": w.reg.Host + "/acme/hello", "layout": "oci-layout:" + filepath.Join(t.TempDir(), "l")} {
		t.Run(name, func(t *testing.T) {
			root := w.publish(source(t, "1.0.0", nil), repo)
			r, err := w.install(install.Request{Ref: repo + ":1.0.0", Both: true, AllowUnsigned: true})
			if err != nil {
				t.Fatal(err)
			}
			p := r.Plugin
			if r.Already || p.Index != root.Digest || len(p.Programs) != 2 || p.Level != store.LevelUnsigned {
				t.Errorf("installed %+v", p)
			}
			for kind, want := range map[plugin.Kind]string{plugin.Native: "#!/bin/sh\necho 1.0.0\n", plugin.WASM: "\x00asm\x01\x00\x00\x001.0.0"} {
				pr, err := w.store.Open(t.Context(), p, kind)
				if err != nil {
					t.Fatal(err)
				}
				b := make([]byte, 100)
				n, _ := pr.File.ReadAt(b, 0)
				pr.File.Close()
				if string(b[:n]) != want {
					t.Errorf("%s holds %q", kind, b[:n])
				}
				if text, err := os.ReadFile(filepath.Join(pr.Assets, "main.py")); err != nil || string(text) != "print('hi')\n" {
					t.Errorf("assets hold %q, %v", text, err)
				}
			}
			again, err := w.install(install.Request{Ref: repo + ":1.0.0", Both: true, AllowUnsigned: true})
			if err != nil || !again.Already {
				t.Errorf("again: %+v, %v", again, err)
			}
		})
	}
	if w.granted != 2 {
		t.Errorf("%d grants recorded", w.granted)
	}
}

func TestActiveVersionCostsNoBlobRequest(t *testing.T) {
	w := newWorld(t)
	repo := w.reg.Host + "/acme/hello"
	w.publish(source(t, "1.0.0", nil), repo)
	req := install.Request{Ref: repo + ":1.0.0", AllowUnsigned: true}
	if _, err := w.install(req); err != nil {
		t.Fatal(err)
	}
	w.reg.Forget()
	if r, err := w.install(req); err != nil || !r.Already {
		t.Fatalf("%+v, %v", r, err)
	}
	// The plugin manifest is a blob of a few hundred bytes; programs are not asked for.
	if n := w.reg.Count("GET", "/blobs/"); n > 1 {
		t.Errorf("%d blob requests", n)
	}
}

func TestKinds(t *testing.T) {
	w := newWorld(t)
	repo := w.reg.Host + "/acme/hello"
	w.publish(source(t, "1.0.0", nil), repo)
	for name, c := range map[string]struct {
		req  install.Request
		want plugin.Kind
	}{
		"default is wasm": {install.Request{}, plugin.WASM},
		"native":          {install.Request{Kind: plugin.Native, Force: true}, plugin.Native},
	} {
		c.req.Ref, c.req.AllowUnsigned = repo, true
		r, err := w.install(c.req)
		if err != nil || r.Plugin.Find(c.want) == nil {
			t.Errorf("%s: %+v, %v", name, r.Plugin, err)
		}
	}
	// The second kind was added to the first.
	if p, err := w.store.Lookup(t.Context(), "hello"); err != nil || len(p.Programs) != 2 {
		t.Errorf("holds %+v, %v", p, err)
	}
	only := w.reg.Host + "/acme/only"
	w.publish(source(t, "1.0.0", func(s string) string { return strings.Replace(s, "  wasm: {artifact: dist/hello.wasm}\n", "", 1) }), only)
	_, err := w.install(install.Request{Ref: only, Kind: plugin.WASM, AllowUnsigned: true})
	if hostabi.ReasonOf(err) != hostabi.ReasonPlatformUnsupported || !strings.Contains(err.Error(), platform) {
		t.Errorf("a kind that is not there: %v", err)
	}
}

func TestConstraints(t *testing.T) {
	w := newWorld(t)
	repo := w.reg.Host + "/acme/hello"
	for _, v := range []string{"1.0.0", "1.2.0", "2.0.0", "3.0.0-rc.1"} {
		w.publish(source(t, v, nil), repo)
	}
	for constraint, want := range map[string]string{"": "2.0.0", "^1": "1.2.0", "1.0": "1.0.0", "3.0.0-rc.1": "3.0.0-rc.1"} {
		r, err := w.install(install.Request{Ref: repo, Constraint: constraint, AllowUnsigned: true, Downgrade: true})
		if err != nil || r.Plugin.Version != want {
			t.Errorf("%q: %v, %v; want %s", constraint, r.Plugin, err, want)
		}
	}
	if _, err := w.install(install.Request{Ref: repo, Constraint: "^9", AllowUnsigned: true}); hostabi.ReasonOf(err) != hostabi.ReasonRefNotFound {
		t.Errorf("no such version: %v", err)
	}
}

func TestRefusalsInstallNothing(t *testing.T) {
	w := newWorld(t)
	repo := w.reg.Host + "/acme/hello"
	w.publish(source(t, "1.0.0", nil), repo)
	needs := w.reg.Host + "/acme/needs"
	w.publish(source(t, "1.0.0", func(s string) string { return s + "requires: [ds.host.v1.Future/Call]\n" }), needs)
	for name, c := range map[string]struct {
		before func()
		req    install.Request
		want   hostabi.Reason
	}{
		"unsigned":       {nil, install.Request{Ref: repo}, hostabi.ReasonUnsigned},
		"consent":        {func() { w.refuse = hostabi.Errorf(hostabi.ReasonGrantMissing, "no") }, install.Request{Ref: repo, AllowUnsigned: true}, hostabi.ReasonGrantMissing},
		"checker":        {func() { w.badKind = plugin.WASM }, install.Request{Ref: repo, AllowUnsigned: true}, hostabi.ReasonModuleRefused},
		"missing method": {nil, install.Request{Ref: needs, AllowUnsigned: true}, hostabi.ReasonABIUnsupported},
		"not found":      {nil, install.Request{Ref: repo + ":9", AllowUnsigned: true}, hostabi.ReasonRefNotFound},
		"bad reference":  {nil, install.Request{Ref: "UPPER/Case", AllowUnsigned: true}, hostabi.ReasonRef},
		"unreachable":    {nil, install.Request{Ref: "127.0.0.1:1/x:1", AllowUnsigned: true}, hostabi.ReasonRegistryUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			w.refuse, w.badKind = nil, ""
			if c.before != nil {
				c.before()
			}
			_, err := w.install(c.req)
			if got := hostabi.ReasonOf(err); got != c.want {
				t.Errorf("reason %q, want %q: %v", got, c.want, err)
			}
			for p := range w.store.All(t.Context()) {
				t.Errorf("installed %s", p.Name)
			}
			if left, _ := os.ReadDir(filepath.Join(w.store.Dir(), ".staging")); len(left) != 0 {
				t.Errorf("left in staging: %v", left)
			}
		})
	}
}

// TestBrokenPackages changes one thing of a good package; each change is refused and installs nothing.
func TestBrokenPackages(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		change func(index *plugin.OCIDocument, docs map[string]*plugin.OCIDocument)
		want   hostabi.Reason
	}{
		"not a plugin": {func(i *plugin.OCIDocument, _ map[string]*plugin.OCIDocument) { i.ArtifactType = "application/x" }, hostabi.ReasonNotAPlugin},
		"no manifest": {func(i *plugin.OCIDocument, _ map[string]*plugin.OCIDocument) {
			i.Manifests = i.Manifests[:len(i.Manifests)-1]
		}, hostabi.ReasonPackageInvalid},
		"other name":    {func(i *plugin.OCIDocument, _ map[string]*plugin.OCIDocument) { i.Annotations["name"] = "porter" }, hostabi.ReasonPackageInvalid},
		"other version": {func(i *plugin.OCIDocument, _ map[string]*plugin.OCIDocument) { i.Annotations["version"] = "9.9.9" }, hostabi.ReasonPackageInvalid},
		"twice": {func(i *plugin.OCIDocument, _ map[string]*plugin.OCIDocument) {
			i.Manifests = append(i.Manifests, i.Manifests[1])
		}, hostabi.ReasonPackageInvalid},
		"no plain size": {func(_ *plugin.OCIDocument, d map[string]*plugin.OCIDocument) {
			delete(d[plugin.BinaryType].Layers[0].Annotations, plugin.UncompressedSize)
		}, hostabi.ReasonPackageInvalid},
		"plain size lies": {func(_ *plugin.OCIDocument, d map[string]*plugin.OCIDocument) {
			d[plugin.BinaryType].Layers[0].Annotations[plugin.UncompressedSize] = "3"
		}, hostabi.ReasonPackageInvalid},
		"plain digest lies": {func(_ *plugin.OCIDocument, d map[string]*plugin.OCIDocument) {
			d[plugin.BinaryType].Layers[0].Annotations[plugin.UncompressedDigest] = string(hostabi.DigestOf(nil))
		}, hostabi.ReasonPackageInvalid},
		"bomb": {func(_ *plugin.OCIDocument, d map[string]*plugin.OCIDocument) {
			d[plugin.BinaryType].Layers[0].Annotations[plugin.UncompressedSize] = strconv.Itoa(1 << 40)
		}, hostabi.ReasonPackageInvalid},
		"two layers": {func(_ *plugin.OCIDocument, d map[string]*plugin.OCIDocument) {
			x := d[plugin.BinaryType]
			x.Layers = append(x.Layers, x.Layers[0])
		}, hostabi.ReasonPackageInvalid},
		"wrong layer type": {func(_ *plugin.OCIDocument, d map[string]*plugin.OCIDocument) {
			d[plugin.BinaryType].Layers[0].MediaType = "text/plain"
		}, hostabi.ReasonPackageInvalid},
		"assets lie": {func(_ *plugin.OCIDocument, d map[string]*plugin.OCIDocument) {
			d[plugin.AssetsType].Layers[0].Annotations[plugin.UncompressedDigest] = string(hostabi.DigestOf(nil))
		}, hostabi.ReasonPackageInvalid},
		"no assets": {func(i *plugin.OCIDocument, _ map[string]*plugin.OCIDocument) {
			i.Manifests = append(i.Manifests[:2:2], i.Manifests[3:]...)
		}, hostabi.ReasonPackageInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			repo := w.reg.Host + "/bad/" + strings.ReplaceAll(name, " ", "-")
			w.pushChanged(source(t, "1.0.0", nil), repo, c.change)
			_, err := w.install(install.Request{Ref: repo + ":1.0.0", Kind: plugin.Native, AllowUnsigned: true})
			if got := hostabi.ReasonOf(err); got != c.want {
				t.Errorf("reason %q, want %q: %v", got, c.want, err)
			}
			for p := range w.store.All(t.Context()) {
				t.Errorf("installed %s", p.Name)
			}
		})
	}
}

// pushChanged builds a package, changes its documents and pushes the result with right digests.
func (w *world) pushChanged(dir, repo string, change func(*plugin.OCIDocument, map[string]*plugin.OCIDocument)) {
	w.t.Helper()
	m, err := store.ReadDir(atomicfile.OS(), dir)
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := publish.Build(w.t.Context(), dir, m, time.Unix(0, 0))
	if err != nil {
		w.t.Fatal(err)
	}
	defer p.Close()
	changed := make(map[hostabi.Digest][]byte)
	read := func(d string) *plugin.OCIDocument {
		f, err := p.Open(w.t.Context(), hostabi.Digest(d))
		if err != nil {
			w.t.Fatal(err)
		}
		defer f.Close()
		doc := new(plugin.OCIDocument)
		if err := json.NewDecoder(f).Decode(doc); err != nil {
			w.t.Fatal(err)
		}
		return doc
	}
	index := read(string(p.Root.Digest))
	docs := make(map[string]*plugin.OCIDocument)
	for _, d := range index.Manifests {
		docs[d.ArtifactType] = read(d.Digest)
	}
	change(index, docs)
	encode := func(v any) (hostabi.Digest, int64) {
		b, err := json.Marshal(v)
		if err != nil {
			w.t.Fatal(err)
		}
		d := hostabi.DigestOf(b)
		changed[d] = b
		return d, int64(len(b))
	}
	for i, d := range index.Manifests {
		digest, size := encode(docs[d.ArtifactType])
		index.Manifests[i].Digest, index.Manifests[i].Size = string(digest), size
	}
	digest, size := encode(index)
	root := hostabi.Descriptor{MediaType: plugin.OCIIndex, Digest: digest, Size: size}
	if err := w.client.Push(w.t.Context(), repo+"@"+string(digest), root, opener{changed, p}.open, nil); err != nil {
		w.t.Fatal(err)
	}
	if err := w.client.Tag(w.t.Context(), repo+"@"+string(digest), "1.0.0"); err != nil {
		w.t.Fatal(err)
	}
}

func TestDamagedBlobIsNotInstalled(t *testing.T) {
	w := newWorld(t)
	repo := w.reg.Host + "/acme/hello"
	w.publish(source(t, "1.0.0", nil), repo)
	w.reg.Inject(dstest.Fault{Method: "GET", Path: "/blobs/", Flip: true, Times: 1000})
	_, err := w.install(install.Request{Ref: repo + ":1.0.0", AllowUnsigned: true})
	if got := hostabi.ReasonOf(err); got != hostabi.ReasonDigestMismatch {
		t.Errorf("reason %q: %v", got, err)
	}
	if !errors.Is(err, &hostabi.Error{Reason: hostabi.ReasonDigestMismatch}) {
		t.Errorf("got %v", err)
	}
	w.reg.Heal()
	if _, err := w.install(install.Request{Ref: repo + ":1.0.0", AllowUnsigned: true}); err != nil {
		t.Errorf("after the registry is well again: %v", err)
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	w := newWorld(t)
	repo := w.reg.Host + "/acme/hello"
	w.publish(source(t, "1.0.0", nil), repo)
	r, err := w.install(install.Request{Ref: repo + ":1.0.0", AllowUnsigned: true, DryRun: true})
	if err != nil || r.Plugin.Version != "1.0.0" || len(w.asked) != 0 {
		t.Errorf("%+v, %v, asked %v", r, err, w.asked)
	}
	if _, err := os.Stat(w.store.Dir()); err == nil {
		t.Error("a dry run made the store")
	}
}

// opener reads changed documents and, of everything else, the package.
type opener struct {
	changed map[hostabi.Digest][]byte
	p       *publish.Package
}

func (o opener) open(ctx context.Context, d hostabi.Digest) (io.ReadSeekCloser, error) {
	if b, ok := o.changed[d]; ok {
		return readCloser{bytes.NewReader(b)}, nil
	}
	return o.p.Open(ctx, d)
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }
