package main

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/term"
	"github.com/delivery-station/ds/internal/trust"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/install"
	"github.com/delivery-station/ds/plugin/store"
	"github.com/delivery-station/ds/registry"
)

// Types of what a bundle holds beside plugins (install-trust.md section 13).
const (
	bundleType     = "application/vnd.delivery-station.bundle.v1+json"
	bundleLockType = "application/vnd.delivery-station.bundle.lock.v1+yaml"
	bundleKeysType = "application/vnd.delivery-station.bundle.keys.v1+pem"
	maxBundleLock  = 4 << 20
	maxBundleKeys  = 1 << 20
)

// bundle is a layout tar of ds porter bundle: each plugin is listed under the repository and version that it came
// from, and is verified as if it came from there.
type bundle struct {
	repo    *registry.Repository
	path    string
	plugins []bundled
}

// bundled is one plugin of a bundle.
type bundled struct {
	repository, tag string
	name            string
	root            hostabi.Descriptor
}

// splitBundle cuts FILE.tar[:NAME]; ok is false if ref names no tar.
func (a *app) splitBundle(ref string) (file, name string, ok bool) {
	file = ref
	if i := strings.LastIndex(ref, ".tar:"); i >= 0 {
		file, name = ref[:i+4], ref[i+5:]
	}
	if !strings.HasSuffix(file, ".tar") || strings.HasPrefix(file, "oci-layout:") {
		return "", "", false
	}
	info, err := os.Stat(a.absolute(file))
	return a.absolute(file), name, err == nil && info.Mode().IsRegular()
}

// openBundle reads what the tar at path lists. A tar that lists no repository is a plain layout: then there are no
// plugins.
func (a *app) openBundle(ctx context.Context, path string) (*bundle, error) {
	c, err := a.parts.registry()
	if err != nil {
		return nil, err
	}
	b := &bundle{path: path}
	if b.repo, err = c.Repository("oci-layout:" + path); err != nil {
		return nil, err
	}
	listed, err := b.repo.Listed(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range listed {
		if !strings.Contains(d.Ref, "/") {
			continue
		}
		ref, err := registry.ParseReference(d.Ref)
		if err != nil || ref.IsLayout() || ref.Tag == "" {
			return nil, hostabi.Errorf(hostabi.ReasonBadLayout, "%s lists the name %q, want REPOSITORY:VERSION", path, term.Clean(d.Ref, 200))
		}
		text, err := b.repo.Manifest(ctx, d)
		if err != nil {
			return nil, err
		}
		var doc plugin.OCIDocument
		if json.Unmarshal(text, &doc) != nil || doc.ArtifactType != plugin.IndexType {
			continue // an artifact of another kind
		}
		d.Ref = ""
		b.plugins = append(b.plugins, bundled{ref.Name(), ref.Tag, doc.Annotations["name"], d})
	}
	return b, nil
}

// lock is the lock file in the bundle.
func (b *bundle) lock(ctx context.Context) (store.LockFile, error) {
	text, err := b.extra(ctx, bundleLockType, maxBundleLock)
	if err != nil {
		return nil, err
	}
	if text == nil {
		return nil, hostabi.Errorf(hostabi.ReasonConfigFile, "%s holds no lock file", b.path).WithFix("ds porter bundle create --lock ds.lock -o FILE.tar REF...")
	}
	return store.ParseLock(b.path, text)
}

// extra is what a bundle holds of a type beside plugins, nil if nothing.
func (b *bundle) extra(ctx context.Context, mediaType string, limit int64) ([]byte, error) {
	listed, err := b.repo.Listed(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range listed {
		text, err := b.repo.Manifest(ctx, d)
		if err != nil {
			return nil, err
		}
		var doc plugin.OCIDocument
		if json.Unmarshal(text, &doc) != nil || doc.ArtifactType != bundleType {
			continue
		}
		for _, l := range doc.Layers {
			if l.MediaType == mediaType && l.Size >= 0 && l.Size <= limit {
				return b.repo.Small(ctx, hostabi.Descriptor{MediaType: l.MediaType, Digest: hostabi.Digest(l.Digest), Size: l.Size})
			}
		}
	}
	return nil, nil
}

// noteKeys names the keys that a bundle holds. Nothing else is done with them: whoever made the bundle chose them.
func (b *bundle) noteKeys(ctx context.Context, a *app) {
	text, err := b.extra(ctx, bundleKeysType, maxBundleKeys)
	if err != nil {
		return // what is being said is why the install ended
	}
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return
		}
		if k, err := trust.NewKey(block.Bytes); err == nil {
			fmt.Fprintf(a.stderr(), "note: %s holds the key %s; that proves nothing, compare it with what the publisher says\n", filepath.Base(b.path), k.ID())
		}
	}
}

// Source implements install.Sources: the repositories of the bundle, and no other.
func (b *bundle) Source(ref string) (install.Source, bool, error) {
	r, err := registry.ParseReference(ref)
	if err != nil {
		return nil, false, err
	}
	if !slices.ContainsFunc(b.plugins, func(p bundled) bool { return p.repository == r.Name() }) {
		return nil, false, hostabi.Errorf(hostabi.ReasonRefNotFound, "%s is not in %s", r.Name(), b.path)
	}
	return bundleSource{b.repo, b, r.Name()}, r.Tag != "" || r.Digest != "", nil
}

// Tags implements install.Sources.
func (b *bundle) Tags(_ context.Context, repository string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, p := range b.plugins {
			if p.repository == repository && !yield(p.tag, nil) {
				return
			}
		}
	}
}

// bundleSource is one repository as the bundle holds it.
type bundleSource struct {
	*registry.Repository
	b    *bundle
	name string
}

// Name is the repository that the plugin came from: grants, pins and locks belong to that.
func (s bundleSource) Name() string { return s.name }

// Resolve finds a version or digest in the bundle.
func (s bundleSource) Resolve(_ context.Context, ref string) (hostabi.Descriptor, error) {
	r, err := registry.ParseReference(ref)
	if err != nil {
		return hostabi.Descriptor{}, err
	}
	for _, p := range s.b.plugins {
		if p.repository == s.name && (r.Digest != "" && p.root.Digest == r.Digest || r.Digest == "" && p.tag == r.Tag) {
			return p.root, nil
		}
	}
	return hostabi.Descriptor{}, hostabi.Errorf(hostabi.ReasonRefNotFound, "%s is not in %s", ref, s.b.path)
}

// check is for unsigned plugins of a bundle: nobody vouches for the repository that it names, so the administrator's
// sources have to allow the file itself too.
func (b *bundle) check(a *app, p *plugin.Installed) error {
	if p.Level != store.LevelUnsigned && p.Level != "legacy-signed" {
		return nil
	}
	grants, err := a.parts.grants()
	if err != nil {
		return err
	}
	policy, err := grants.Policy()
	if err != nil {
		return err
	}
	return policy.AllowSource("oci-layout:" + b.path)
}

// refOf is how a user names the plugin of a repository of the bundle.
func (b *bundle) refOf(repository string) string {
	for _, p := range b.plugins {
		if p.repository == repository {
			return b.path + ":" + p.name
		}
	}
	return b.path
}

// installBundle installs one plugin of a bundle, or all of them.
func (a *app) installBundle(ctx context.Context, b *bundle, name string, f installFlags) error {
	var refs []string
	for _, p := range b.plugins {
		if name == "" || p.name == name {
			refs = append(refs, p.repository)
		}
	}
	slices.Sort(refs)
	refs = slices.Compact(refs)
	switch {
	case len(refs) == 0:
		return hostabi.Errorf(hostabi.ReasonRefNotFound, "%s holds no plugin %s", filepath.Base(b.path), name)
	case len(refs) > 1 && f.allowUnsigned:
		return hostabi.Errorf(hostabi.ReasonUsage, "--allow-unsigned takes exactly one plugin: %s:NAME", b.path)
	}
	untrusted := false
	defer func() {
		if untrusted {
			b.noteKeys(ctx, a)
		}
	}()
	return a.each(refs, func(ref string) error {
		err := a.installFrom(ctx, b, ref, f)
		untrusted = untrusted || hostabi.ReasonOf(err) == hostabi.ReasonSignerUntrusted
		return err
	})
}
