package install

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"slices"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/archive"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

// flow is one installation on its way.
type flow struct {
	*Installer
	req  Request
	src  Source
	view Cache // of src, once something was fetched
	tag  string
	root hostabi.Descriptor
	doc  plugin.OCIDocument
	docs map[hostabi.Digest][]byte // OCI documents as they were read

	bundles map[hostabi.Digest][]byte // that are attached to the index
	verdict Verdict

	m      *plugin.Manifest
	layer  *Layer // signed by the original DS; nil in packages of this ds
	chosen []child
	active *plugin.Installed // from the same source; nil = none
}

// child is one program of the index that will be installed.
type child struct {
	kind  plugin.Kind
	desc  plugin.OCIDescriptor
	layer plugin.OCIDescriptor
}

// resolve finds the index digest: by tag or digest, or by the version that the constraint picks.
func (f *flow) resolve(ctx context.Context) (err error) {
	var pinned bool
	if f.src, pinned, err = f.o.Sources.Source(f.req.Ref); err != nil {
		return err
	}
	ref := f.req.Ref
	if want := cmp.Or(f.req.To, f.req.Constraint); (want != "" && !f.req.Exact) || !pinned {
		if f.tag, err = plugin.PickVersion(f.o.Sources.Tags(ctx, f.src.Name()), want); err != nil {
			return err
		}
		ref = f.src.Name() + ":" + f.tag
	}
	if f.req.To != "" && f.req.Constraint != "" && !fits(f.tag, f.req.Constraint) {
		f.req.Constraint = "" // or the next upgrade would want to go back
	}
	f.root, err = f.src.Resolve(ctx, ref)
	return err
}

func fits(tag, constraint string) bool {
	_, err := plugin.PickVersion(func(yield func(string, error) bool) { yield(tag, nil) }, constraint)
	return err == nil
}

// index reads and checks the index. Its digest was checked by Manifest.
func (f *flow) index(ctx context.Context) error {
	if err := f.document(ctx, f.root, &f.doc); err != nil {
		return err
	}
	if f.isFormat1() {
		return f.format1(ctx)
	}
	if f.doc.ArtifactType != plugin.IndexType {
		return hostabi.Errorf(hostabi.ReasonNotAPlugin, "%s is no plugin package (artifact type %q)", f.req.Ref, f.doc.ArtifactType)
	}
	if len(f.doc.Manifests) > maxChildren {
		return invalid("index has %d children, at most %d", len(f.doc.Manifests), maxChildren)
	}
	return nil
}

func (f *flow) document(ctx context.Context, d hostabi.Descriptor, into *plugin.OCIDocument) error {
	b, err := f.src.Manifest(ctx, d)
	if err != nil {
		return err
	}
	if f.docs == nil {
		f.docs = make(map[hostabi.Digest][]byte)
	}
	f.docs[d.Digest] = b
	if err := json.Unmarshal(b, into); err != nil || into.SchemaVersion != 2 {
		return invalid("%s is no OCI document", d.Digest)
	}
	return nil
}

// readManifest fetches the plugin manifest child and checks everything that can be checked before consent.
func (f *flow) readManifest(ctx context.Context) error {
	if f.m != nil { // of format 1
		return plugin.CheckName(f.m.Name)
	}
	var found []plugin.OCIDescriptor
	for _, d := range f.doc.Manifests {
		if d.ArtifactType == plugin.ManifestType {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		return invalid("index has %d plugin manifests, want one", len(found))
	}
	layer, err := f.oneLayer(ctx, found[0], maxPlugin, plugin.ManifestType)
	if err != nil {
		return err
	}
	text, err := f.small(ctx, layer)
	if err != nil {
		return err
	}
	if f.m, _, err = plugin.ParseManifest("plugin.json", text); err != nil {
		return err
	}
	if err := plugin.CheckName(f.m.Name); err != nil {
		return err
	}
	if f.doc.Annotations["name"] != string(f.m.Name) || f.doc.Annotations["version"] != f.m.Version {
		return invalid("index is %s %s, its plugin manifest %s %s", f.doc.Annotations["name"], f.doc.Annotations["version"], f.m.Name, f.m.Version)
	}
	return f.supported()
}

// small fetches a layer, whose size was checked, into memory through the cache.
func (f *flow) small(ctx context.Context, l plugin.OCIDescriptor) ([]byte, error) {
	r, _, err := f.content(ctx, l)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // read-only
	return io.ReadAll(io.LimitReader(r, l.Size))
}

func (f *flow) supported() error {
	if f.m.ABI != hostabi.ABI {
		return hostabi.Errorf(hostabi.ReasonABIUnsupported, "%s %s is built for %s, this ds speaks %s", f.m.Name, f.m.Version, f.m.ABI, hostabi.ABI)
	}
	for _, method := range f.m.Requires {
		if !slices.Contains(f.o.Methods(), method) {
			return hostabi.Errorf(hostabi.ReasonABIUnsupported, "%s %s needs %s; this ds lacks it", f.m.Name, f.m.Version, method)
		}
	}
	return nil
}

// oneLayer reads a child manifest, which must have exactly one layer of one of the types and at most limit bytes.
func (f *flow) oneLayer(ctx context.Context, d plugin.OCIDescriptor, limit int64, types ...string) (plugin.OCIDescriptor, error) {
	var doc plugin.OCIDocument
	if err := f.document(ctx, descriptor(d), &doc); err != nil {
		return plugin.OCIDescriptor{}, err
	}
	if len(doc.Layers) != 1 || !slices.Contains(types, doc.Layers[0].MediaType) {
		return plugin.OCIDescriptor{}, invalid("child %s has not exactly one layer of type %s", d.Digest, types[0])
	}
	l := doc.Layers[0]
	if l.Size < 0 || l.Size > limit {
		return l, invalid("layer %s has %d bytes, at most %d", l.Digest, l.Size, limit)
	}
	if !hostabi.Digest(l.Digest).Valid() {
		return l, invalid("layer digest %q", l.Digest)
	}
	return l, nil
}

// choose picks the children to install: both kinds, or the one that is wanted, preferred, or there.
func (f *flow) choose(ctx context.Context) error {
	if f.chosen != nil { // of format 1
		return nil
	}
	have := make(map[plugin.Kind]plugin.OCIDescriptor)
	var names []string
	for _, d := range f.doc.Manifests {
		kind, ok := kindOf(d)
		if !ok {
			continue
		}
		names = append(names, d.Platform.OS+"/"+d.Platform.Architecture)
		if kind == plugin.Native && (d.Platform.OS != runtime.GOOS || d.Platform.Architecture != runtime.GOARCH) {
			continue
		}
		if _, twice := have[kind]; twice {
			return invalid("index has two %s children for one platform", kind)
		}
		have[kind] = d
	}
	for _, kind := range f.wanted(have) {
		d, ok := have[kind]
		if !ok {
			return hostabi.Errorf(hostabi.ReasonPlatformUnsupported, "%s %s has no %s program for %s/%s; it has %v", f.m.Name, f.m.Version, kind, runtime.GOOS, runtime.GOARCH, names)
		}
		layer, err := f.oneLayer(ctx, d, maxProgram, programTypes(kind)...)
		if err != nil {
			return err
		}
		f.chosen = append(f.chosen, child{kind, d, layer})
	}
	return nil
}

// programTypes are the layer types of a kind, the usual one first.
func programTypes(k plugin.Kind) []string {
	if k == plugin.Native {
		return []string{plugin.BinaryType}
	}
	return []string{plugin.ModuleType, plugin.ModuleZstdType, plugin.ModuleOldType}
}

func kindOf(d plugin.OCIDescriptor) (plugin.Kind, bool) {
	switch {
	case d.Platform == nil:
		return "", false
	case d.ArtifactType == plugin.BinaryType:
		return plugin.Native, true
	case d.ArtifactType == plugin.ModuleConfigType && d.Platform.OS == "wasip1" && d.Platform.Architecture == "wasm":
		return plugin.WASM, true
	}
	return "", false
}

func (f *flow) wanted(have map[plugin.Kind]plugin.OCIDescriptor) []plugin.Kind {
	both := []plugin.Kind{plugin.WASM, plugin.Native}
	if f.req.Both {
		kinds := slices.DeleteFunc(slices.Clone(both), func(k plugin.Kind) bool { _, ok := have[k]; return !ok })
		if len(kinds) > 0 {
			return kinds
		}
	}
	for _, k := range []plugin.Kind{f.req.Kind, f.o.Prefer} {
		if k != "" {
			return []plugin.Kind{k}
		}
	}
	for _, k := range append([]plugin.Kind{f.m.Run.Prefer}, both...) {
		if _, ok := have[k]; ok {
			return []plugin.Kind{k}
		}
	}
	return both[:1]
}

// installed is the plugin as consent and receipt see it.
func (f *flow) installed() *plugin.Installed {
	p := &plugin.Installed{
		Name: f.m.Name, Version: f.m.Version, Manifest: f.m, Repository: f.src.Name(), Signer: f.verdict.Signer, Index: f.root.Digest,
		Level: f.verdict.Level, Requested: f.req.Ref, News: f.verdict.news(),
	}
	p.RequestDigest = plugin.RequestDigest(sandbox.Requests(p))
	for _, c := range f.chosen {
		p.Programs = append(p.Programs, plugin.Program{Kind: c.kind, Size: c.layer.Size})
	}
	return p
}

// intact is the active plugin if it is this version from this source with every chosen kind and unchanged
// programs, else nil.
func (f *flow) intact(ctx context.Context) *plugin.Installed {
	r, err := f.o.Store.Receipt(f.m.Name)
	if err != nil || r.Index != f.root.Digest || r.Source.Repository != f.src.Name() || f.verdict.differs(r.Trust) {
		return nil
	}
	p, err := f.o.Store.Lookup(ctx, f.m.Name)
	if err != nil {
		return nil
	}
	for _, c := range f.chosen {
		pr, err := f.o.Store.Open(ctx, p, c.kind)
		if err != nil {
			return nil
		}
		_ = pr.File.Close() // read-only
	}
	return p
}

func descriptor(d plugin.OCIDescriptor) hostabi.Descriptor {
	return hostabi.Descriptor{MediaType: d.MediaType, Digest: hostabi.Digest(d.Digest), Size: d.Size, ArtifactType: d.ArtifactType, Annotations: d.Annotations}
}

func invalid(format string, a ...any) error {
	e := hostabi.Errorf(hostabi.ReasonPackageInvalid, format, a...)
	e.Msg = "package is invalid: " + e.Msg
	return e
}

// packageError says that a broken archive is the package's fault; other errors stay as they are.
func packageError(err error) error {
	if e, ok := errors.AsType[*archive.Error](err); ok {
		return invalid("%w", e)
	}
	return err
}
