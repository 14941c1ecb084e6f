// Package install brings one plugin version from a registry or OCI layout into the store: resolve, check,
// ask, fetch, unpack, check again, record (install-trust.md section 6). Every digest is verified before its
// content is used, nothing that it installs is ever run, and the receipt's rename is the only switch. Start
// with New and Installer.Install.
package install

import (
	"context"
	"errors"
	"iter"
	"os"
	"time"

	"github.com/delivery-station/ds/hostabi"
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
	Referrers(ctx context.Context, subject hostabi.Digest, artifactType string) iter.Seq2[hostabi.Descriptor, error]
	Has(ctx context.Context, d hostabi.Descriptor) (bool, error)
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
	Close() error
}

// Consent asks the user. p has its manifest, and of the programs that will be installed kind and size; active
// is the version that it replaces, or nil. The returned function records the grant; it is called when everything
// else is in place. GRANT_MISSING when a required request was refused or nobody could be asked: then nothing is
// installed. PLUGIN_INACTIVE in its place, when active can go on: then p is installed but waits.
type Consent interface {
	Ask(ctx context.Context, p, active *plugin.Installed) (commit func(context.Context) error, err error)
}

// Checker looks at a program without running it: runtime/wasm compiles it, runtime/native reads its header.
type Checker interface {
	Check(ctx context.Context, p *plugin.Installed) error
}

// Options are the parts of an Installer.
type Options struct {
	Store    *store.Store
	Sources  Sources
	Cache    func(source string) (Cache, error) // what was fetched from one repository or layout
	Verifier Verifier                           // nil = nothing is verified: only what the user accepts unsigned is installed
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
	Via           string      // file that it comes from, when Ref does not say so
	Constraint    string      // of versions, when Ref has neither tag nor digest; upgrades keep to it
	To            string      // version or constraint that counts this time only
	Kind          plugin.Kind // wanted kind; empty = Options.Prefer
	Both          bool        // every kind that fits this platform
	AllowUnsigned bool
	TrustKey      string // id of the key that the user trusts for this repository
	TrustHow      string // how it was named, for the pin: flag (default) or lock
	Downgrade     bool   // to a version below one that was seen
	Force         bool   // install again even if the version is active and intact, or has other content now
	Pin           bool   // upgrades skip it
	Exact         bool   // this very digest is wanted, be it older or under a version that had other content
	DryRun        bool   // stop before consent
	// Check may refuse what was found, before anything is fetched; artifacts are the children by platform.
	Check func(p *plugin.Installed, artifacts map[string]hostabi.Digest) error
}

// Result says what happened.
type Result struct {
	Plugin  *plugin.Installed
	Active  *plugin.Installed // version that was active before, from the same source; nil = none
	Already bool              // the version was active and intact; nothing was done
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
func (i *Installer) Install(ctx context.Context, req Request) (res Result, err error) {
	f := &flow{Installer: i, req: req}
	defer func() {
		if f.view != nil {
			err = errors.Join(err, f.view.Close())
		}
	}()
	for _, step := range []func(context.Context) error{f.resolve, f.index, f.verify, f.readManifest, f.history, f.choose} {
		if err := step(ctx); err != nil {
			return Result{}, err
		}
	}
	if err := f.agreed(); err != nil {
		return Result{}, err
	}
	if p := f.intact(ctx); p != nil && !req.Force {
		return Result{Plugin: p, Active: p, Already: true}, nil
	}
	p := f.installed()
	if req.DryRun {
		return Result{Plugin: p, Active: f.active}, nil
	}
	return f.apply(ctx, p)
}
