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

func (f *flow) apply(ctx context.Context, p *plugin.Installed) (Result, error) {
	commit, err := f.o.Consent.Ask(ctx, p)
	if err != nil {
		return Result{}, err
	}
	p.Programs = nil // they come as they are unpacked
	r := &store.Receipt{
		Name: p.Name, PluginVersion: p.Version, Index: p.Index, RequestDigest: p.RequestDigest, ABI: f.m.ABI,
		Source: store.Source{Requested: f.req.Ref, Repository: p.Repository, Constraint: f.req.Constraint, Tag: f.tag},
		Trust:  f.trust(),
	}
	for _, c := range f.chosen {
		kind, err := f.unpack(ctx, p, c)
		if err != nil {
			return Result{}, err
		}
		r.Kinds = append(r.Kinds, kind)
	}
	unlock, err := f.o.Store.Lock(ctx, p.Name)
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = unlock() }() // the lock ends with the descriptor
	if err := f.keepOtherKinds(r); err != nil {
		return Result{}, err
	}
	if f.verdict.Record != nil {
		if err := f.verdict.Record(ctx); err != nil {
			return Result{}, err
		}
	}
	if commit != nil {
		if err := commit(ctx); err != nil {
			return Result{}, err
		}
	}
	if err := f.o.Store.Record(r); err != nil {
		return Result{}, err
	}
	p, err = f.o.Store.Lookup(ctx, p.Name)
	return Result{Plugin: p}, err
}

// keepOtherKinds carries over what an earlier installation of the same index holds beside the chosen kinds.
func (f *flow) keepOtherKinds(r *store.Receipt) error {
	old, err := f.o.Store.Receipt(r.Name)
	if hostabi.ReasonOf(err) == hostabi.ReasonPluginNotFound {
		return nil
	}
	if err != nil {
		if f.req.Force {
			return nil
		}
		return err
	}
	r.Pinned = old.Pinned
	if old.Index != r.Index {
		return nil
	}
	for _, k := range old.Kinds {
		if !slices.ContainsFunc(r.Kinds, func(n store.Kind) bool { return n.Kind == k.Kind }) {
			r.Kinds = append(r.Kinds, k)
		}
	}
	return nil
}

// unpack fetches one child and puts it into the store.
func (f *flow) unpack(ctx context.Context, p *plugin.Installed, c child) (kind store.Kind, err error) {
	kind = store.Kind{Kind: c.kind, Child: hostabi.Digest(c.desc.Digest)}
	stage, err := f.o.Store.Stage(ctx, p.Name, c.kind)
	if err != nil {
		return kind, err
	}
	defer func() {
		if cerr := stage.Close(); err == nil {
			err = cerr
		}
	}()
	program := filepath.Join(stage.Dir, stage.Program)
	if kind.Blob, err = f.extract(ctx, c.layer, program); err != nil {
		return kind, err
	}
	text, err := f.m.JSON()
	if err != nil {
		return kind, err
	}
	if err := os.WriteFile(filepath.Join(stage.Dir, "plugin.json"), text, 0o600); err != nil {
		return kind, err
	}
	if err := f.evidence(stage.Dir, c); err != nil {
		return kind, err
	}
	assets, err := f.assets(ctx, stage.Dir)
	if err != nil {
		return kind, err
	}
	if err := f.check(ctx, p, c.kind, kind.Blob, program, assets); err != nil {
		return kind, err
	}
	return stage.Publish(p.Index, kind)
}

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

// extract fetches a layer into the cache and writes its content to the file name, decompressed and checked.
func (f *flow) extract(ctx context.Context, l plugin.OCIDescriptor, name string) (digest hostabi.Digest, err error) {
	r, want, err := f.content(ctx, l)
	if err != nil {
		return "", err
	}
	defer func() { _ = r.Close() }() // read-only
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
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
	cache, err := f.o.Cache()
	if err != nil {
		return nil, want, err
	}
	if err := f.src.Fetch(ctx, descriptor(l), cache); err != nil {
		return nil, want, err
	}
	file, err := cache.Open(ctx, hostabi.Digest(l.Digest))
	if err != nil || !zstd {
		return file, want, err
	}
	z, err := archive.ZstdReader(file, want.Size)
	if err != nil {
		return nil, want, errors.Join(packageError(err), file.Close())
	}
	return both{z, file}, want, nil
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
