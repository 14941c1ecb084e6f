package sandbox

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/plugin"
)

// lockWait is how long an edit waits for another process.
const lockWait = 30 * time.Second

// StoreOptions say where grants and ceiling are and what every Box of the store shares.
type StoreOptions struct {
	Path       string        // grants.yaml, absolute; its directory is made at the first grant
	PolicyPath string        // policy.yaml; empty = no ceiling
	FS         atomicfile.FS // nil = the real one

	// As in BoxOptions.
	Settings                 func(key string) (string, bool)
	Canonical                func(ref string) (repository string, err error)
	Home                     string
	Protected                []string
	MemoryDefault, MemoryMax int64
	TimeMax                  int64 // ns
}

// Store keeps what users granted in grants.yaml and makes the Box of each run from it. It is safe for
// concurrent use and for several processes. A file that does not parse is never rewritten.
type Store struct {
	o         StoreOptions
	now       func() time.Time
	adminOnly func(path string, f *os.File) error
}

// Open makes a store; files are read when they are needed. A Path that is not absolute is USAGE.
func Open(o StoreOptions) (*Store, error) {
	if !filepath.IsAbs(o.Path) {
		return nil, hostabi.Errorf(hostabi.ReasonUsage, "%q: the grants file needs an absolute path", o.Path)
	}
	if o.FS == nil {
		o.FS = atomicfile.OS()
	}
	return &Store{o: o, now: time.Now, adminOnly: adminOnly}, nil
}

// Policy is the admin's ceiling, nil if there is none.
func (s *Store) Policy() (*Policy, error) {
	if s.o.PolicyPath == "" {
		return nil, nil
	}
	return loadPolicy(s.o.PolicyPath, s.adminOnly)
}

// Box makes the Box of one run (manager.Grants). It fails with GRANT_MISSING when something that p requires
// is neither granted nor denied, POLICY_FILE when the ceiling refuses p or is unsafe, CONFIG_SYNTAX when
// grants.yaml is damaged, and as NewBox does. A plugin that asks for nothing needs no grants.
func (s *Store) Box(ctx context.Context, p *plugin.Installed, inv *plugin.Invocation) (*Box, error) {
	policy, err := s.Policy()
	if err != nil {
		return nil, err
	}
	if err := policy.Allow(p); err != nil {
		return nil, err
	}
	var g Grant
	if len(requests(p)) > 0 && !policy.Decides() {
		if g, _, err = s.Lookup(p); err != nil {
			return nil, err
		}
		if missing := CompareTo(p, g).Required(); len(missing) > 0 {
			return nil, grantMissing(p, g, missing)
		}
	}
	o := BoxOptions{
		Plugin: p, Invocation: inv, Granted: g.Granted, Denied: g.Denied, Policy: policy,
		Settings: s.o.Settings, Canonical: s.o.Canonical, Home: s.o.Home, Protected: s.o.Protected,
		MemoryDefault: s.o.MemoryDefault, MemoryMax: s.o.MemoryMax, TimeMax: s.o.TimeMax,
		Inherited: CallerOf(ctx),
	}
	if inv != nil && inv.Caller != "" && o.Inherited == nil {
		o.Inherited = new(Box) // who calls is not known, so nothing that was typed counts
	}
	return NewBox(o)
}

// names lists the capabilities of changes, each once.
func names(changes []Change) string {
	var out []string
	for _, c := range changes {
		if !slices.Contains(out, string(c.Cap)) {
			out = append(out, string(c.Cap))
		}
	}
	return strings.Join(out, ", ")
}

func grantMissing(p *plugin.Installed, g Grant, missing []Change) error {
	d := CompareTo(p, g)
	name := string(p.Name)
	if p.Version != "" {
		name += " " + p.Version
	}
	return hostabi.Errorf(hostabi.ReasonGrantMissing, "%s asks for %s, not granted", name, names(missing)).
		WithFix("%s", d.Command(missing)).WithMeta("plugin", string(p.Name))
}

// Lookup is the grant of p; ok is false if there is none.
func (s *Store) Lookup(p *plugin.Installed) (g Grant, ok bool, err error) {
	return s.LookupKey(KeyOf(p))
}

// LookupKey is the grant of a key.
func (s *Store) LookupKey(k Key) (g Grant, ok bool, err error) {
	all, err := s.All()
	if err != nil {
		return Grant{}, false, err
	}
	if i := indexOf(all, k); i >= 0 {
		return all[i], true, nil
	}
	return Grant{Key: k}, false, nil
}

// All lists every grant; none if there is no file.
func (s *Store) All() ([]Grant, error) {
	b, err := atomicfile.ReadFile(s.o.FS, s.o.Path, maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonConfigFile, "%s: %w", s.o.Path, err)
	}
	for _, name := range []string{filepath.Dir(s.o.Path), s.o.Path} {
		info, err := os.Stat(name) // either may be a link of the user's
		if err != nil {
			continue // gone since it was read
		}
		if why := atomicfile.Foreign(info); why != "" {
			return nil, hostabi.Errorf(hostabi.ReasonUnsafeDir, "%s %s, so these are not only your grants", name, why).WithFix("chmod go-w %s", name)
		}
	}
	return s.parse(b)
}

func (s *Store) parse(b []byte) ([]Grant, error) {
	all, err := parseGrants(s.o.Path, b)
	if err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonConfigSyntax, "%w", err)
	}
	return all, nil
}

// Grant records g in place of what its key had (install.Granter).
func (s *Store) Grant(ctx context.Context, g Grant) error {
	return s.Edit(ctx, g.Key, func(old *Grant) error { *old = g.clone(); return nil })
}

// Edit changes the grant of one key under the lock of the file: f gets it, or an empty one. At is set, unless nothing
// changed: then the file stays as it is. A grant that is left without any scope is removed. The previous file is kept
// as grants.yaml.bak.
func (s *Store) Edit(ctx context.Context, k Key, f func(g *Grant) error) error {
	if err := k.check(); err != nil {
		return err
	}
	return s.edit(ctx, func(all []Grant) ([]Grant, error) {
		i := indexOf(all, k)
		if i < 0 {
			all, i = append(all, Grant{Key: k}), len(all)
		}
		g := all[i].clone()
		if err := f(&g); err != nil {
			return nil, err
		}
		g.Key, g.At = k, all[i].At
		if same, err := sameGrant(g, all[i]); err != nil || same && !g.empty() {
			return all, err
		}
		g.At = s.now().UTC().Truncate(time.Second)
		if all[i] = g; g.empty() {
			all = slices.Delete(all, i, i+1)
		}
		return all, nil
	})
}

// sameGrant reports whether x and y are written alike.
func sameGrant(x, y Grant) (bool, error) {
	a, err := formatGrants([]Grant{x})
	if err != nil {
		return false, err
	}
	b, err := formatGrants([]Grant{y})
	return bytes.Equal(a, b), err
}

func (k Key) check() error {
	if k.Plugin == "" || k.Signer == "" || k.Signer == noSigner && !k.local() && !k.Index.Valid() {
		return hostabi.Errorf(hostabi.ReasonInternal, "grant of %q has no source, signer or index digest", clip(k.Plugin))
	}
	return nil
}

func (g Grant) empty() bool {
	for _, s := range g.Granted {
		if len(s.Scope) > 0 {
			return false
		}
	}
	for _, s := range g.Denied {
		if len(s) > 0 {
			return false
		}
	}
	return true
}

// Succeed gives signer to what was granted to signer from of the same source, who named it; what to has is left alone.
// The grant of from stays, for the versions that it signed.
func (s *Store) Succeed(ctx context.Context, repository, from, to string) error {
	old, ok, err := s.LookupKey(Key{Plugin: repository, Signer: from})
	if err != nil || !ok {
		return err
	}
	return s.Edit(ctx, Key{Plugin: repository, Signer: to}, func(g *Grant) error {
		if g.empty() {
			*g = old.clone()
		}
		return nil
	})
}

// Revoke takes back what words (CAP=SCOPE) cover from the grant of p; without words all of it. USAGE if
// nothing of it was granted.
func (s *Store) Revoke(ctx context.Context, p *plugin.Installed, words ...string) error {
	return s.Edit(ctx, KeyOf(p), func(g *Grant) error { return g.without(p.Name, words) })
}

// Without is the grant of p as Revoke would leave it.
func (s *Store) Without(p *plugin.Installed, words ...string) (Grant, error) {
	g, _, err := s.Lookup(p)
	if err != nil {
		return g, err
	}
	g = g.clone()
	return g, g.without(p.Name, words)
}

func (g *Grant) without(name plugin.Name, words []string) error {
	if len(words) == 0 {
		g.Granted, g.Denied = nil, nil
		return nil
	}
	for _, text := range words {
		w, err := ParseWord(text)
		if err != nil {
			return err
		}
		if w.Special != "" {
			return hostabi.Errorf(hostabi.ReasonUsage, "%q cannot be revoked; want CAP=SCOPE", w.Special)
		}
		if err := g.revoke(name, w); err != nil {
			return err
		}
	}
	return nil
}

func (g *Grant) revoke(name plugin.Name, w Word) error {
	s, err := parseLoose(w.Cap, name, w.Scope)
	if err != nil {
		return err
	}
	old := g.Granted[w.Cap]
	var keep []string
	for _, x := range loose(w.Cap, name, old.Scope) {
		if x.text != w.Scope && !s.Covers(x) {
			keep = append(keep, x.text)
		}
	}
	if len(keep) == len(old.Scope) {
		return hostabi.Errorf(hostabi.ReasonUsage, "%s has no grant of %s %s; nothing revoked", name, w.Cap, clip(w.Scope))
	}
	if old.Scope = keep; len(keep) == 0 {
		delete(g.Granted, w.Cap)
		return nil
	}
	g.Granted[w.Cap] = old
	return nil
}

// Purge removes every grant of a source, whoever signed it.
func (s *Store) Purge(ctx context.Context, repository string) error {
	return s.edit(ctx, func(all []Grant) ([]Grant, error) {
		return slices.DeleteFunc(all, func(g Grant) bool { return g.Plugin == repository }), nil
	})
}

func (s *Store) edit(ctx context.Context, f func([]Grant) ([]Grant, error)) error {
	if err := atomicfile.MkdirAll(s.o.FS, filepath.Dir(s.o.Path), 0o700); err != nil {
		return hostabi.Errorf(hostabi.ReasonConfigFile, "%s: %w", s.o.Path, err)
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	err := atomicfile.Edit(ctx, s.o.FS, s.o.Path, func(old []byte) ([]byte, error) {
		all, err := s.parse(old)
		if err != nil {
			return nil, err
		}
		if all, err = f(all); err != nil {
			return nil, err
		}
		b, err := formatGrants(all)
		if err != nil || old == nil && len(all) == 0 {
			return nil, err
		}
		if _, err := s.parse(b); err != nil { // what is written can be read
			return nil, err
		}
		if old == nil || bytes.Equal(old, b) {
			return b, nil
		}
		return b, atomicfile.WriteLocked(s.o.FS, s.o.Path+".bak", old, 0o600)
	})
	switch {
	case err == nil:
		return nil
	case hostabi.ReasonOf(err) != "":
		return err
	case errors.Is(err, atomicfile.ErrLocked):
		return hostabi.Errorf(hostabi.ReasonLockHeld, "%s is being changed by another ds: %w", s.o.Path, err)
	}
	return hostabi.Errorf(hostabi.ReasonConfigFile, "%s: %w", s.o.Path, err)
}

func indexOf(all []Grant, k Key) int {
	return slices.IndexFunc(all, func(g Grant) bool { return g.Key == k })
}
