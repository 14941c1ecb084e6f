package install

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/archive"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/store"
)

// check hands the staged program to the checker of its kind.
func (f *flow) check(ctx context.Context, p *plugin.Installed, k plugin.Kind, digest hostabi.Digest, program, assets string) error {
	checker := f.o.Checkers[k]
	if checker == nil {
		return nil
	}
	file, err := os.Open(program)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // read-only
	staged := *p
	pr := plugin.Program{Kind: k, Dir: filepath.Dir(program), Path: program, Assets: assets, Digest: digest, File: file}
	if k == plugin.Native {
		pr.Mode = plugin.Direct
	}
	staged.Programs, staged.Program = []plugin.Program{pr}, &pr
	return checker.Check(ctx, &staged)
}

// extract fetches a layer into the cache and writes its content to the program of the stage, decompressed and
// checked.
func (f *flow) extract(ctx context.Context, l plugin.OCIDescriptor, stage *store.Stage) (digest hostabi.Digest, err error) {
	if isArchive(l) {
		return f.extractArchive(ctx, l, stage)
	}
	r, want, err := f.content(ctx, l)
	if err != nil {
		return "", err
	}
	defer func() { _ = r.Close() }() // read-only
	out, err := stage.Create(stage.Program)
	if err != nil {
		return "", err
	}
	defer func() {
		if cerr := out.Close(); err == nil {
			err = cerr
		}
	}()
	got, size, err := copyHashed(out, r)
	if err != nil {
		return "", packageError(err)
	}
	if got != want.Digest || size != want.Size {
		return "", invalid("content of layer %s is %s with %d bytes, want %s with %d", l.Digest, got, size, want.Digest, want.Size)
	}
	return got, nil
}

// content fetches a layer and opens it decompressed; want is what the content must be.
func (f *flow) content(ctx context.Context, l plugin.OCIDescriptor) (io.ReadCloser, hostabi.Descriptor, error) {
	want := descriptor(l)
	zstd := slices.Contains([]string{plugin.BinaryType, plugin.ModuleZstdType, plugin.AssetsType}, l.MediaType)
	if zstd {
		size, err := strconv.ParseInt(l.Annotations[plugin.UncompressedSize], 10, 64)
		digest := hostabi.Digest(l.Annotations[plugin.UncompressedDigest])
		if err != nil || size < 0 || size > maxProgram || !digest.Valid() {
			return nil, want, invalid("layer %s does not say its uncompressed digest and size", l.Digest)
		}
		want.Digest, want.Size = digest, size
	}
	file, err := f.fetch(ctx, descriptor(l))
	if err != nil || !zstd {
		return file, want, err
	}
	z, err := archive.ZstdReader(file, want.Size)
	if err != nil {
		return nil, want, errors.Join(packageError(err), file.Close())
	}
	return both{z, file}, want, nil
}

// fetch brings a blob of the source into the cache and opens it. What the cache has from elsewhere under that
// digest counts only if the source holds it too: a package must not lift another repository's content.
func (f *flow) fetch(ctx context.Context, d hostabi.Descriptor) (*os.File, error) {
	if f.view == nil {
		view, err := f.o.Cache(f.src.Name())
		if err != nil {
			return nil, err
		}
		f.view = view
	}
	if info, err := f.view.Stat(ctx, d.Digest); err == nil && !slices.Contains(info.Sources, f.src.Name()) {
		ok, err := f.src.Has(ctx, d)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, invalid("%s does not hold %s", f.src.Name(), d.Digest)
		}
	}
	if err := f.src.Fetch(ctx, d, f.view); err != nil {
		return nil, err
	}
	return f.view.Open(ctx, d.Digest)
}

// assets unpacks the assets child, if the manifest has one, into dir/assets.
func (f *flow) assets(ctx context.Context, dir string) (string, error) {
	if f.m.Assets == "" {
		return "", nil
	}
	i := slices.IndexFunc(f.doc.Manifests, func(d plugin.OCIDescriptor) bool { return d.ArtifactType == plugin.AssetsType })
	if i < 0 {
		return "", invalid("manifest names assets, the index has none")
	}
	layer, err := f.oneLayer(ctx, f.doc.Manifests[i], maxProgram, plugin.AssetsType)
	if err != nil {
		return "", err
	}
	r, want, err := f.content(ctx, layer)
	if err != nil {
		return "", err
	}
	defer func() { _ = r.Close() }() // read-only
	to := filepath.Join(dir, "assets")
	if err := os.Mkdir(to, 0o700); err != nil {
		return "", err
	}
	root, err := os.OpenRoot(to)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }() // its files are synced when the stage is sealed
	counted := newHashed(r)
	if err := archive.UnpackTar(ctx, counted, root, archive.Limits{Bytes: want.Size}); err != nil {
		return "", packageError(err)
	}
	if got, size, err := counted.rest(); err != nil || got != want.Digest || size != want.Size {
		return "", invalid("assets are %s with %d bytes, want %s with %d", got, size, want.Digest, want.Size)
	}
	return to, nil
}
