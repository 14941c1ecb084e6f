package install_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/cache"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/archive"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/install"
	"github.com/delivery-station/ds/plugin/publish"
	"github.com/delivery-station/ds/plugin/store"
)

// hostile is a package in the making: documents by artifact type, blobs by digest, each of which may lie.
type hostile struct {
	t     *testing.T
	r     *rand.Rand
	index *plugin.OCIDocument
	docs  map[string]*plugin.OCIDocument
	blobs map[string][]byte
	raw   func([]byte) []byte // changes the text of the index
}

// pick chooses a child with its own layer.
func (h *hostile) pick() *plugin.OCIDescriptor { return &h.any().Layers[0] }

func (h *hostile) any() *plugin.OCIDocument {
	types := []string{plugin.BinaryType, plugin.AssetsType, plugin.ManifestType}
	return h.docs[types[h.r.IntN(len(types))]]
}

// layer replaces the content of a layer, with right digest and size of what is stored.
func (h *hostile) layer(l *plugin.OCIDescriptor, content []byte) {
	d := hostabi.DigestOf(content)
	h.blobs[string(d)] = content
	l.Digest, l.Size = string(d), int64(len(content))
}

// packed replaces the content of a zstd layer by what plain compresses to, with right annotations.
func (h *hostile) packed(l *plugin.OCIDescriptor, plain []byte) {
	var b bytes.Buffer
	z, err := archive.ZstdWriter(&b)
	if err == nil {
		if _, err = z.Write(plain); err == nil {
			err = z.Close()
		}
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.layer(l, b.Bytes())
	l.Annotations[plugin.UncompressedDigest], l.Annotations[plugin.UncompressedSize] = string(hostabi.DigestOf(plain)), strconv.Itoa(len(plain))
}

// assets replaces the assets by a tar with the entries.
func (h *hostile) assets(entries ...*tar.Header) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		content := []byte("evil")
		if e.Typeflag != tar.TypeReg {
			content = nil
		}
		if e.Size = int64(len(content)); e.Mode == 0 {
			e.Mode = 0o644
		}
		if err := w.WriteHeader(e); err != nil {
			continue // the writer of the standard library refuses it itself
		}
		_, _ = w.Write(content)
	}
	_ = w.Close()
	h.packed(&h.docs[plugin.AssetsType].Layers[0], b.Bytes())
}

func (h *hostile) one(list ...string) string { return list[h.r.IntN(len(list))] }

// evilName is a path that an archive must not have.
func (h *hostile) evilName() string {
	return h.one("../x", "../../../../tmp/ds-evil", "/tmp/ds-evil", "a/../../x", "a\\b", "..\\x", "C:x", "C:\\x", "con", "NUL.txt", "a/aux", "x.", "x ", "a\x01b",
		"\xff\xfe", "a:b", strings.Repeat("d/", 200)+"x", strings.Repeat("n", 300), "./../x", "a//../../b", "..", "")
}

// attacks are the ways in which a package can be wrong; none may be installed, whatever else is done to it.
func attacks() map[string]func(h *hostile) {
	return map[string]func(h *hostile){
		"flipped byte": func(h *hostile) {
			l := h.pick()
			b := bytes.Clone(h.blobs[l.Digest])
			b[h.r.IntN(len(b))] ^= 1 << h.r.IntN(8)
			h.blobs[l.Digest] = b
		},
		"truncated": func(h *hostile) {
			l := h.pick()
			h.blobs[l.Digest] = h.blobs[l.Digest][:h.r.IntN(len(h.blobs[l.Digest]))]
		},
		"longer":  func(h *hostile) { l := h.pick(); h.blobs[l.Digest] = append(bytes.Clone(h.blobs[l.Digest]), "more"...) },
		"missing": func(h *hostile) { delete(h.blobs, h.pick().Digest) },
		"size lie": func(h *hostile) {
			l := h.pick()
			l.Size = []int64{l.Size + 1, l.Size - 1, 0, -1, 1 << 40, 1<<63 - 1}[h.r.IntN(6)]
		},
		"digest form": func(h *hostile) {
			h.pick().Digest = h.one("sha256:../../../../etc/passwd", "sha256:"+strings.Repeat("A", 64), "", "md5:x", "sha256:"+strings.Repeat("0", 63), "../x")
		},
		"child digest form": func(h *hostile) {
			h.index.Annotations["x"] = "child" // the children get their digests when the layout is written
			h.raw = func(b []byte) []byte {
				return bytes.ReplaceAll(b, []byte(`"digest":"sha256:`), []byte(`"digest":"`+h.one("sha256:../", "../../", "sha1:")))
			}
		},
		"plain size lie": func(h *hostile) {
			a := h.docs[h.one(plugin.BinaryType, plugin.AssetsType)].Layers[0].Annotations
			a[plugin.UncompressedSize] = h.one("0", "-1", "1", "99999999999999999999", "1e3", "", "0x10", " 5")
		},
		"plain digest lie": func(h *hostile) {
			a := h.docs[h.one(plugin.BinaryType, plugin.AssetsType)].Layers[0].Annotations
			a[plugin.UncompressedDigest] = h.one("", string(hostabi.DigestOf([]byte("other"))), "sha256:x")
		},
		"bomb": func(h *hostile) {
			l := &h.docs[h.one(plugin.BinaryType, plugin.AssetsType)].Layers[0]
			h.packed(l, make([]byte, 16<<20))
			l.Annotations[plugin.UncompressedSize] = strconv.Itoa(1 + h.r.IntN(1<<16))
		},
		"second frame": func(h *hostile) {
			l := &h.docs[h.one(plugin.BinaryType, plugin.AssetsType)].Layers[0]
			h.layer(l, append(bytes.Clone(h.blobs[l.Digest]), h.blobs[l.Digest]...))
		},
		"no zstd": func(h *hostile) {
			h.layer(&h.docs[h.one(plugin.BinaryType, plugin.AssetsType)].Layers[0], []byte("#!/bin/sh\necho evil\n"))
		},
		"evil name": func(h *hostile) {
			name := h.evilName()
			if name == "" {
				name = "../x"
			}
			h.assets(&tar.Header{Typeflag: tar.TypeReg, Name: "ok", Format: tar.FormatPAX}, &tar.Header{Typeflag: tar.TypeReg, Name: name, Format: tar.FormatPAX})
		},
		"link": func(h *hostile) {
			kind := []byte{tar.TypeSymlink, tar.TypeLink}[h.r.IntN(2)]
			h.assets(&tar.Header{Typeflag: kind, Name: "l", Linkname: h.one("/etc", "../../..", ".", "ok")}, &tar.Header{Typeflag: tar.TypeReg, Name: "l/x"})
		},
		"device": func(h *hostile) {
			h.assets(&tar.Header{Typeflag: []byte{tar.TypeChar, tar.TypeBlock, tar.TypeFifo}[h.r.IntN(3)], Name: "d"})
		},
		"twice": func(h *hostile) {
			a, b := "app/File", h.one("app/File", "app/file", "APP/file", "app/FILE")
			h.assets(&tar.Header{Typeflag: tar.TypeReg, Name: a}, &tar.Header{Typeflag: tar.TypeReg, Name: b})
		},
		"file as directory": func(h *hostile) {
			h.assets(&tar.Header{Typeflag: tar.TypeReg, Name: "a"}, &tar.Header{Typeflag: tar.TypeReg, Name: "a/b"})
		},
		"layer type": func(h *hostile) {
			h.docs[h.one(plugin.BinaryType, plugin.AssetsType, plugin.ManifestType)].Layers[0].MediaType = h.one("text/plain", "", plugin.ModuleType, "application/vnd.oci.image.layer.v1.tar")
		},
		"two layers": func(h *hostile) { d := h.any(); d.Layers = append(d.Layers, d.Layers[0]) },
		"no layer":   func(h *hostile) { h.any().Layers = nil },
		"twice one platform": func(h *hostile) {
			for _, d := range h.index.Manifests {
				if d.ArtifactType == plugin.BinaryType {
					h.index.Manifests = append(h.index.Manifests, d)
				}
			}
		},
		"no manifest": func(h *hostile) {
			for i, d := range h.index.Manifests {
				if d.ArtifactType == plugin.ManifestType {
					h.index.Manifests = append(h.index.Manifests[:i:i], h.index.Manifests[i+1:]...)
					return
				}
			}
		},
		"loop": func(h *hostile) {
			h.docs[plugin.ManifestType] = h.index
		},
		"index text": func(h *hostile) {
			n := h.r.IntN(6)
			h.raw = func(b []byte) []byte {
				switch n {
				case 0:
					return b[:len(b)/2]
				case 1:
					return []byte("null")
				case 2:
					return []byte(`[` + string(b) + `]`)
				case 3:
					return bytes.Replace(b, []byte(`"schemaVersion":2`), []byte(`"schemaVersion":1`), 1)
				case 4:
					return append(bytes.Clone(b), b...)
				}
				return []byte(strings.Repeat("[", 100_000))
			}
		},
		"huge annotation": func(h *hostile) { h.index.Annotations["x"] = strings.Repeat("x", 5<<20) },
		"many children": func(h *hostile) {
			for range 1500 {
				h.index.Manifests = append(h.index.Manifests, h.index.Manifests[0])
			}
		},
		"other name": func(h *hostile) {
			h.index.Annotations["name"] = h.one("../../evil", "plugin", "help", "", "HELLO", "hello\x1b[31m", "porter")
		},
		"other version": func(h *hostile) { h.index.Annotations["version"] = h.one("", "9.9.9", "../1", "1") },
		"manifest text": func(h *hostile) {
			h.layer(&h.docs[plugin.ManifestType].Layers[0], []byte(h.one(
				"{}", "null", "[]", `{"apiVersion":"ds.plugin/v2","name":"hello","version":"1.0.0"}`, strings.Repeat("[", 60_000), "\xff\xff", strings.Repeat(" ", 70_000),
				`{"apiVersion":"ds.plugin/v2","name":"../x","version":"1.0.0","abi":"ds.host/v1","run":{"wasm":{"artifact":"x.wasm"}}}`,
				`{"apiVersion":"ds.plugin/v2","name":"hello","version":"1.0.0","abi":"ds.host/v9","run":{"wasm":{"artifact":"x.wasm"}}}`,
			)))
		},
	}
}

// harmless is what a package may have without being wrong; nothing of it may make a request or a file.
func harmless() []func(h *hostile) {
	return []func(h *hostile){
		func(*hostile) {},
		func(h *hostile) { h.index.Annotations["org.example"] = "\x1b]0;title\x07" },
		func(h *hostile) {
			h.raw = func(b []byte) []byte {
				return bytes.Replace(b, []byte("{"), []byte(`{"urls":["http://127.0.0.1:1/evil"],`), 1)
			}
		},
		func(h *hostile) { h.raw = func(b []byte) []byte { return append([]byte("\n \t"), b...) } },
	}
}

// generate makes the layout of a package with the attack at dir, sometimes with another one on top.
func generate(t *testing.T, r *rand.Rand, dir string, from *hostile, attack func(*hostile), extra int) {
	t.Helper()
	h := from.clone(r)
	attack(h)
	if extra > 0 && h.raw == nil {
		harmless()[r.IntN(4)](h)
	}
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o700); err != nil {
		t.Fatal(err)
	}
	blob := func(d string, b []byte) {
		if hostabi.Digest(d).Valid() {
			if err := os.WriteFile(filepath.Join(dir, "blobs", "sha256", hostabi.Digest(d).Hex()), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	encode := func(v any) (string, int64, []byte) {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(hostabi.DigestOf(b)), int64(len(b)), b
	}
	for i, d := range h.index.Manifests {
		digest, size, b := encode(h.docs[d.ArtifactType])
		h.index.Manifests[i].Digest, h.index.Manifests[i].Size = digest, size
		blob(digest, b)
	}
	_, _, text := encode(h.index)
	if h.raw != nil {
		text = h.raw(text)
	}
	for d, b := range h.blobs {
		blob(d, b)
	}
	root := string(hostabi.DigestOf(text))
	blob(root, text)
	_, _, list := encode(map[string]any{"schemaVersion": 2, "manifests": []any{map[string]any{
		"mediaType": plugin.OCIIndex, "digest": root, "size": len(text), "annotations": map[string]string{"org.opencontainers.image.ref.name": "1.0.0"},
	}}})
	for name, b := range map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json": list} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// load reads a good package.
func load(t *testing.T, from string) *hostile {
	t.Helper()
	m, err := store.ReadDir(atomicfile.OS(), from)
	if err != nil {
		t.Fatal(err)
	}
	p, err := publish.Build(t.Context(), from, m, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	h := &hostile{t: t, docs: make(map[string]*plugin.OCIDocument), blobs: make(map[string][]byte)}
	read := func(d string) []byte {
		f, err := p.Open(t.Context(), hostabi.Digest(d))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	document := func(d string) *plugin.OCIDocument {
		doc := new(plugin.OCIDocument)
		if err := json.Unmarshal(read(d), doc); err != nil {
			t.Fatal(err)
		}
		return doc
	}
	h.index = document(string(p.Root.Digest))
	for _, d := range h.index.Manifests {
		doc := document(d.Digest)
		h.docs[d.ArtifactType] = doc
		for _, l := range doc.Layers {
			h.blobs[l.Digest] = read(l.Digest)
		}
	}
	return h
}

// clone is a copy to be spoilt.
func (h *hostile) clone(r *rand.Rand) *hostile {
	doc := func(d *plugin.OCIDocument) *plugin.OCIDocument {
		out := new(plugin.OCIDocument)
		b, err := json.Marshal(d)
		if err == nil {
			err = json.Unmarshal(b, out)
		}
		if err != nil {
			h.t.Fatal(err)
		}
		return out
	}
	out := &hostile{t: h.t, r: r, index: doc(h.index), docs: make(map[string]*plugin.OCIDocument), blobs: maps.Clone(h.blobs)}
	for k, d := range h.docs {
		out.docs[k] = doc(d)
	}
	return out
}

// TestS4_HostilePackages installs packages that are wrong in every way we know: none gets in, nothing is written
// outside the store and the cache, and the version that was there goes on.
func TestS4_HostilePackages(t *testing.T) {
	w := newWorld(t)
	random := rand.New(rand.NewPCG(seed(t), 4))
	good := load(t, source(t, "1.0.0", nil))
	w.publish(source(t, "0.9.0", nil), w.reg.Host+"/acme/hello")
	if _, err := w.install(install.Request{Ref: w.reg.Host + "/acme/hello:0.9.0", Both: true, AllowUnsigned: true}); err != nil {
		t.Fatal(err)
	}
	home := filepath.Dir(w.store.Dir())
	before, all := outside(t, home), attacks()
	names := slices.Sorted(maps.Keys(all))
	layouts, refused := t.TempDir(), 0
	for n := range scale(len(all), 500, 5000) {
		name := names[n%len(names)]
		dir := filepath.Join(layouts, strconv.Itoa(n))
		generate(t, random, dir, good, all[name], n/len(names))
		// A cache of its own: what an earlier package brought is right, and would be taken in place of what is wrong.
		c, err := cache.Open(t.Context(), cache.Options{Dir: filepath.Join(dir, "cache")})
		if err != nil {
			t.Fatal(err)
		}
		first := w.cache
		w.cache = c
		_, err = w.install(install.Request{Ref: "oci-layout:" + dir + ":1.0.0", Both: true, AllowUnsigned: true, Force: true})
		w.cache = first
		if cerr := c.Close(); cerr != nil {
			t.Error(cerr)
		}
		if err == nil {
			t.Fatalf("package %d (%s) was installed: %s", n, name, dir)
		}
		switch hostabi.ReasonOf(err) {
		case hostabi.ReasonInternal, "":
			t.Errorf("package %d (%s): no reason: %v", n, name, err)
		}
		refused++
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := w.store.Lookup(t.Context(), "hello"); err != nil || p.Version != "0.9.0" {
		t.Errorf("%+v, %v", p, err)
	}
	for p := range w.store.All(t.Context()) {
		if p.Name != "hello" {
			t.Errorf("installed %s", p.Name)
		}
	}
	if got := outside(t, home); fmt.Sprint(got) != fmt.Sprint(before) {
		t.Errorf("files outside the store: %v, before: %v", got, before)
	}
	if _, err := os.Lstat("/tmp/ds-evil"); err == nil {
		t.Error("/tmp/ds-evil was written")
	}
	swept(t, store.New(store.Options{Dir: w.store.Dir()}))
	// The suite is alive: the package without an attack installs.
	dir := filepath.Join(layouts, "good")
	generate(t, random, dir, good, func(*hostile) {}, 1)
	if _, err := w.install(install.Request{Ref: "oci-layout:" + dir + ":1.0.0", Both: true, AllowUnsigned: true}); err != nil {
		t.Errorf("a good package: %v", err)
	}
	t.Logf("S4: %d hostile packages of %d kinds: 0 installed, 0 writes outside", refused, len(all))
}

// outside lists what is in a home beside cache and store.
func outside(t *testing.T, home string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(home, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(home, path)
		if rel == "cache" {
			return fs.SkipDir
		}
		if top, rest, _ := strings.Cut(filepath.ToSlash(rel), "/"); top == "plugins" && (strings.HasPrefix(rest, ".staging") || strings.HasPrefix(rest, "locks")) {
			return nil
		}
		out = append(out, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
