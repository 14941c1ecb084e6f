// Package publish turns a plugin directory into the OCI index of one version and pushes it: blobs,
// children, index by digest, tags last (install-trust.md sections 1 and 2). The same directory gives the
// same bytes. It never runs what it packs. Start with Build.
package publish

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/archive"
	"github.com/delivery-station/ds/plugin"
)

// Package is the graph of one version: documents in memory, compressed layers in a temporary directory.
type Package struct {
	Root hostabi.Descriptor

	version string
	created time.Time

	dir   string
	docs  map[hostabi.Digest][]byte
	files map[hostabi.Digest]string
}

// Options say how a package is made. The zero value is the form that all versions of ds read.
type Options struct {
	Created     time.Time // the only time in the package
	Legacy      bool      // also children in the form of the original DS, first, because it takes the first that fits
	WASMZstd    bool      // module in a zstd frame: smaller, for ds only
	EmptyConfig bool      // module under an empty config, for registries that refuse the CNCF type
}

// Build packs the plugin in dir with created as the only time. The caller closes the package.
func Build(ctx context.Context, dir string, m *plugin.Manifest, created time.Time) (*Package, error) {
	return Options{Created: created}.Build(ctx, dir, m)
}

// Build packs the programs, assets and manifest of the plugin in dir. The caller closes the package.
func (o Options) Build(ctx context.Context, dir string, m *plugin.Manifest) (*Package, error) {
	tmp, err := os.MkdirTemp("", "ds-package-")
	if err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonNoSpace, "package: %w", err)
	}
	b := &builder{Package: &Package{version: m.Version, created: o.Created, dir: tmp, docs: make(map[hostabi.Digest][]byte), files: make(map[hostabi.Digest]string)}, Options: o, src: dir, m: m}
	if err := b.build(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b.Package, nil
}

// Close removes the temporary directory.
func (p *Package) Close() error { return os.RemoveAll(p.dir) }

// Open gives the bytes of one blob or document of the package.
func (p *Package) Open(_ context.Context, d hostabi.Digest) (io.ReadSeekCloser, error) {
	if b, ok := p.docs[d]; ok {
		return document{bytes.NewReader(b)}, nil
	}
	if name, ok := p.files[d]; ok {
		return os.Open(name)
	}
	return nil, hostabi.Errorf(hostabi.ReasonNotCached, "package holds no %s", d)
}

type document struct{ *bytes.Reader }

func (document) Close() error { return nil }

type builder struct {
	*Package
	Options
	src   string
	m     *plugin.Manifest
	index plugin.OCIDocument
}

func (b *builder) build(ctx context.Context) error {
	b.index = plugin.OCIDocument{SchemaVersion: 2, MediaType: plugin.OCIIndex, ArtifactType: plugin.IndexType}
	for _, step := range []func(context.Context) error{b.legacy, b.native, b.wasm, b.assets, b.manifest} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	b.index.Annotations = map[string]string{
		"name": string(b.m.Name), "version": b.m.Version, plugin.OCITitle: string(b.m.Name), plugin.OCIVersion: b.m.Version,
		plugin.OCICreated: b.Created.UTC().Format(time.RFC3339),
	}
	if b.m.Description != "" {
		b.index.Annotations["description"] = b.m.Description
	}
	if b.m.License != "" {
		b.index.Annotations[plugin.OCILicenses] = b.m.License
	}
	d, err := b.doc(plugin.OCIIndex, b.index)
	if err != nil {
		return err
	}
	b.Root = hostabi.Descriptor{MediaType: d.MediaType, Digest: hostabi.Digest(d.Digest), Size: d.Size, ArtifactType: plugin.IndexType}
	return nil
}

// native adds one child per platform, sorted by platform.
func (b *builder) native(ctx context.Context) error {
	return b.eachNative(func(p *plugin.OCIPlatform, title string, f *os.File) error {
		layer, err := b.compress(ctx, f, plugin.BinaryType, title)
		if err != nil {
			return err
		}
		layer.Annotations[plugin.LegacySignature] = "!format-v2"
		return b.child(plugin.BinaryType, nil, layer, p)
	})
}

// eachNative opens the program of each platform.
func (b *builder) eachNative(f func(p *plugin.OCIPlatform, title string, program *os.File) error) error {
	if b.m.Run.Native == nil {
		return nil
	}
	for _, p := range slices.Sorted(maps.Keys(b.m.Run.Native.Platforms)) {
		title := "ds-" + string(b.m.Name)
		if strings.HasPrefix(p, "windows/") {
			title += ".exe"
		}
		program, err := b.open(b.m.Run.Native.Platforms[p])
		if err != nil {
			return err
		}
		osName, arch, _ := strings.Cut(p, "/")
		err = f(&plugin.OCIPlatform{OS: osName, Architecture: arch}, title, program)
		if cerr := program.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) wasm(ctx context.Context) error {
	if b.m.Run.WASM == nil {
		return nil
	}
	f, err := b.open(b.m.Run.WASM.Artifact)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // read-only
	title := string(b.m.Name) + ".wasm"
	var layer plugin.OCIDescriptor
	if b.WASMZstd {
		layer, err = b.compress(ctx, f, plugin.ModuleZstdType, title)
	} else {
		layer, err = b.raw(f, b.m.Run.WASM.Artifact, plugin.ModuleType, title)
	}
	if err != nil {
		return err
	}
	platform := &plugin.OCIPlatform{OS: "wasip1", Architecture: "wasm"}
	if b.EmptyConfig {
		return b.child(plugin.ModuleConfigType, nil, layer, platform)
	}
	config, err := b.doc(plugin.ModuleConfigType, map[string]any{
		"created": b.Created.UTC().Format(time.RFC3339), "author": nil, "architecture": "wasm", "os": "wasip1",
		"layerDigests": []string{layer.Digest}, "component": nil,
	})
	if err != nil {
		return err
	}
	return b.child(plugin.ModuleConfigType, &config, layer, platform)
}

func (b *builder) assets(ctx context.Context) error {
	if b.m.Assets == "" {
		return nil
	}
	root, err := os.OpenRoot(filepath.Join(b.src, filepath.FromSlash(b.m.Assets)))
	if err != nil {
		return hostabi.Errorf(hostabi.ReasonManifest, "assets: %w", err)
	}
	defer func() { _ = root.Close() }() // read-only
	tar, err := os.CreateTemp(b.dir, "assets-")
	if err != nil {
		return err
	}
	defer func() { _ = tar.Close() }() // temporary
	if err := archive.PackTar(ctx, tar, root, b.Created); err != nil {
		return hostabi.Errorf(hostabi.ReasonManifest, "assets: %w", err)
	}
	if _, err := tar.Seek(0, io.SeekStart); err != nil {
		return err
	}
	layer, err := b.compress(ctx, tar, plugin.AssetsType, "assets.tar")
	if err != nil {
		return err
	}
	return b.child(plugin.AssetsType, nil, layer, nil)
}

func (b *builder) manifest(context.Context) error {
	text, err := b.m.JSON()
	if err != nil {
		return err
	}
	d := b.blob(plugin.ManifestType, text)
	d.Annotations = map[string]string{plugin.OCITitle: "plugin.json"}
	return b.child(plugin.ManifestType, nil, d, nil)
}

// open opens a file of the plugin directory, which the manifest names by a relative path.
func (b *builder) open(rel string) (*os.File, error) {
	root, err := os.OpenRoot(b.src)
	if err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonNotAPlugin, "%s: %w", b.src, err)
	}
	defer func() { _ = root.Close() }() // read-only
	f, err := root.Open(filepath.FromSlash(rel))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hostabi.Errorf(hostabi.ReasonManifest, "run names %s, which is not built: a package holds every file that run names", rel)
	}
	if err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonManifest, "run names %s, which cannot be read: %w", rel, err)
	}
	return f, nil
}

// compress writes one zstd frame of r and describes it with the annotations that installing demands.
func (b *builder) compress(ctx context.Context, r io.Reader, mediaType, title string) (d plugin.OCIDescriptor, err error) {
	out, err := os.CreateTemp(b.dir, "layer-")
	if err != nil {
		return d, err
	}
	defer func() {
		if cerr := out.Close(); err == nil {
			err = cerr
		}
	}()
	packed, plain := newCounter(out), newCounter(io.Discard)
	z, err := archive.ZstdWriter(packed)
	if err != nil {
		return d, err
	}
	if _, err := io.Copy(io.MultiWriter(z, plain), reader{ctx, r}); err != nil {
		return d, err
	}
	if err := z.Close(); err != nil {
		return d, err
	}
	b.files[packed.digest()] = out.Name()
	return plugin.OCIDescriptor{
		MediaType: mediaType, Digest: string(packed.digest()), Size: packed.n,
		Annotations: map[string]string{
			plugin.OCITitle: title, plugin.UncompressedDigest: string(plain.digest()), plugin.UncompressedSize: strconv.FormatInt(plain.n, 10),
		},
	}, nil
}

// raw describes a file of the plugin directory that is a layer as it is.
func (b *builder) raw(f *os.File, rel, mediaType, title string) (plugin.OCIDescriptor, error) {
	digest, size, err := digestOf(f)
	if err != nil {
		return plugin.OCIDescriptor{}, err
	}
	b.files[digest] = filepath.Join(b.src, filepath.FromSlash(rel))
	return plugin.OCIDescriptor{MediaType: mediaType, Digest: string(digest), Size: size, Annotations: map[string]string{plugin.OCITitle: title}}, nil
}

// child adds a manifest with one layer to the index.
func (b *builder) child(artifactType string, config *plugin.OCIDescriptor, layer plugin.OCIDescriptor, p *plugin.OCIPlatform) error {
	if config == nil {
		empty := b.blob(plugin.OCIEmpty, []byte("{}"))
		config = &empty
	}
	d, err := b.doc(plugin.OCIManifest, plugin.OCIDocument{
		SchemaVersion: 2, MediaType: plugin.OCIManifest, ArtifactType: artifactType, Config: config, Layers: []plugin.OCIDescriptor{layer},
	})
	if err != nil {
		return err
	}
	d.ArtifactType, d.Platform = artifactType, p
	b.index.Manifests = append(b.index.Manifests, d)
	return nil
}

func (b *builder) doc(mediaType string, v any) (plugin.OCIDescriptor, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return plugin.OCIDescriptor{}, fmt.Errorf("encode %s: %w", mediaType, err)
	}
	return b.blob(mediaType, text), nil
}

func (b *builder) blob(mediaType string, text []byte) plugin.OCIDescriptor {
	d := hostabi.DigestOf(text)
	b.docs[d] = text
	return plugin.OCIDescriptor{MediaType: mediaType, Digest: string(d), Size: int64(len(text))}
}
