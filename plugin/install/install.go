// Package install brings one plugin version from a registry or OCI layout into the store: resolve, check,
// ask, fetch, unpack, check again, record (install-trust.md section 6). Every digest is verified before its
// content is used, nothing that it installs is ever run, and the receipt's rename is the only switch. Start
// with New and Installer.Install.
package install

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/archive"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/store"
)

// Limits of a package (install-trust.md section 12, security.md section 8).
const (
	maxChildren = 1000
	maxPlugin   = 64 << 10 // plugin manifest
	maxProgram  = 1 << 30
)

// Source is one repository or OCI layout: registry.Client.Repository.
type Source interface {
	Name() string // "host/repository" or "oci-layout:/abs": the identity that grants belong to
	Resolve(ctx context.Context, ref string) (hostabi.Descriptor, error)
	Manifest(ctx context.Context, d hostabi.Descriptor) ([]byte, error) // at most 4 MiB, digest checked
	Fetch(ctx context.Context, d hostabi.Descriptor, into hostabi.Sink) error
}

// Sources finds repositories: registry.Client.
type Sources interface {
	// Source binds ref's repository; pinned reports whether ref names a tag or digest.
	Source(ref string) (src Source, pinned bool, err error)
	Tags(ctx context.Context, repository string) iter.Seq2[string, error]
}

// Cache is where layers are fetched to and read from: cache.View.
type Cache interface {
	hostabi.Sink
	Open(ctx context.Context, d hostabi.Digest) (*os.File, error)
}

// Consent asks the user. p has its manifest, and of the programs that will be installed kind and size. The returned function records the grant; it is
// called when everything else is in place. GRANT_MISSING when a required request was refused or nobody could
// be asked: then nothing is installed.
type Consent interface {
	Ask(ctx context.Context, p *plugin.Installed) (commit func(context.Context) error, err error)
}

// Checker looks at a program without running it: runtime/wasm compiles it, runtime/native reads its header.
type Checker interface {
	Check(ctx context.Context, p *plugin.Installed) error
}

// Options are the parts of an Installer.
type Options struct {
	Store    *store.Store
	Sources  Sources
	Cache    func() (Cache, error)
	Consent  Consent
	Checkers map[plugin.Kind]Checker
	Methods  func() []string // of the host, for requires
	Prefer   plugin.Kind     // plugins.backend; empty = the manifest's run.prefer
	Clock    func() time.Time
	// Progress is told what is fetched.
	Progress func(hostabi.Progress)
}

// Request is one installation.
type Request struct {
	Ref           string      // reference as the user wrote it, without constraint
	Constraint    string      // of versions, when Ref has neither tag nor digest
	Kind          plugin.Kind // wanted kind; empty = Options.Prefer
	Both          bool        // every kind that fits this platform
	AllowUnsigned bool
	Force         bool // install again even if the version is active and intact
	DryRun        bool // stop before consent
}

// Result says what happened.
type Result struct {
	Plugin  *plugin.Installed
	Already bool // the version was active and intact; nothing was done
}

// Installer installs plugins. It is safe for concurrent use.
type Installer struct{ o Options }

// New makes an installer.
func New(o Options) *Installer {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return &Installer{o: o}
}

// Install resolves, checks, asks, fetches, unpacks and records one version. After any error the plugin that
// was active before is active still.
func (i *Installer) Install(ctx context.Context, req Request) (Result, error) {
	f := &flow{Installer: i, req: req}
	for _, step := range []func(context.Context) error{f.resolve, f.index, f.readManifest, f.choose} {
		if err := step(ctx); err != nil {
			return Result{}, err
		}
	}
	if p := f.intact(ctx); p != nil && !req.Force {
		return Result{Plugin: p, Already: true}, nil
	}
	p := f.installed()
	if req.DryRun {
		return Result{Plugin: p}, nil
	}
	return f.apply(ctx, p)
}

// flow is one installation on its way.
type flow struct {
	*Installer
	req    Request
	src    Source
	tag    string
	root   hostabi.Descriptor
	doc    plugin.OCIDocument
	m      *plugin.Manifest
	chosen []child
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
	if f.req.Constraint != "" || !pinned {
		if f.tag, err = plugin.PickVersion(f.o.Sources.Tags(ctx, f.src.Name()), f.req.Constraint); err != nil {
			return err
		}
		ref = f.src.Name() + ":" + f.tag
	}
	f.root, err = f.src.Resolve(ctx, ref)
	return err
}

// index reads and checks the index. Its digest was checked by Manifest.
func (f *flow) index(ctx context.Context) error {
	if err := f.document(ctx, f.root, &f.doc); err != nil {
		return err
	}
	if f.doc.ArtifactType != plugin.IndexType {
		return hostabi.Errorf(hostabi.ReasonNotAPlugin, "%s is no plugin package (artifact type %q)", f.req.Ref, f.doc.ArtifactType)
	}
	if len(f.doc.Manifests) > maxChildren {
		return invalid("index has %d children, at most %d", len(f.doc.Manifests), maxChildren)
	}
	if !f.req.AllowUnsigned {
		return hostabi.Errorf(hostabi.ReasonUnsigned, "%s is not signed", f.req.Ref).
			WithFix("ds plugin install %s --allow-unsigned", f.req.Ref)
	}
	return nil
}

func (f *flow) document(ctx context.Context, d hostabi.Descriptor, into *plugin.OCIDocument) error {
	b, err := f.src.Manifest(ctx, d)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil || into.SchemaVersion != 2 {
		return invalid("%s is no OCI document", d.Digest)
	}
	return nil
}

// readManifest fetches the plugin manifest child and checks everything that can be checked before consent.
func (f *flow) readManifest(ctx context.Context) error {
	var found []plugin.OCIDescriptor
	for _, d := range f.doc.Manifests {
		if d.ArtifactType == plugin.ManifestType {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		return invalid("index has %d plugin manifests, want one", len(found))
	}
	layer, err := f.oneLayer(ctx, found[0], plugin.ManifestType, maxPlugin)
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

// oneLayer reads a child manifest, which must have exactly one layer of the given type and at most limit bytes.
func (f *flow) oneLayer(ctx context.Context, d plugin.OCIDescriptor, mediaType string, limit int64) (plugin.OCIDescriptor, error) {
	var doc plugin.OCIDocument
	if err := f.document(ctx, descriptor(d), &doc); err != nil {
		return plugin.OCIDescriptor{}, err
	}
	if len(doc.Layers) != 1 || doc.Layers[0].MediaType != mediaType {
		return plugin.OCIDescriptor{}, invalid("child %s has not exactly one layer of type %s", d.Digest, mediaType)
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
		mediaType := map[plugin.Kind]string{plugin.Native: plugin.BinaryType, plugin.WASM: plugin.ModuleType}[kind]
		layer, err := f.oneLayer(ctx, d, mediaType, maxProgram)
		if err != nil {
			return err
		}
		f.chosen = append(f.chosen, child{kind, d, layer})
	}
	return nil
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
		Name: f.m.Name, Version: f.m.Version, Manifest: f.m, Repository: f.src.Name(), Signer: "none", Index: f.root.Digest,
		RequestDigest: plugin.RequestDigest(f.m.Capabilities), Level: store.LevelUnsigned, Requested: f.req.Ref,
	}
	for _, c := range f.chosen {
		p.Programs = append(p.Programs, plugin.Program{Kind: c.kind, Size: c.layer.Size})
	}
	return p
}

// intact is the active plugin if it is this version from this source with every chosen kind and unchanged
// programs, else nil.
func (f *flow) intact(ctx context.Context) *plugin.Installed {
	r, err := f.o.Store.Receipt(f.m.Name)
	if err != nil || r.Index != f.root.Digest || r.Source.Repository != f.src.Name() {
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

func (f *flow) apply(ctx context.Context, p *plugin.Installed) (Result, error) {
	commit, err := f.o.Consent.Ask(ctx, p)
	if err != nil {
		return Result{}, err
	}
	p.Programs = nil // they come as they are unpacked
	r := &store.Receipt{
		Name: p.Name, PluginVersion: p.Version, Index: p.Index, RequestDigest: p.RequestDigest, ABI: f.m.ABI,
		Source: store.Source{Requested: f.req.Ref, Repository: p.Repository, Constraint: f.req.Constraint, Tag: f.tag},
		Trust:  store.Trust{Level: p.Level, AllowUnsigned: f.req.AllowUnsigned, VerifiedAt: f.o.Clock().UTC().Truncate(time.Second)},
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
	zstd := l.MediaType == plugin.BinaryType || l.MediaType == plugin.AssetsType
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
	layer, err := f.oneLayer(ctx, f.doc.Manifests[i], plugin.AssetsType, maxProgram)
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
