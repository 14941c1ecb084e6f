// Package store keeps the installed set: immutable version directories, one receipt per plugin whose rename
// is the only switch, and hand-placed files that it finds but never writes (install-trust.md section 7). It
// never uses the network and never starts a plugin. Start with New, Lookup and Open.
package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/plugin"
)

const (
	maxManifest = 64 << 10
	maxReceipt  = 1 << 20
	maxSettings = 1 << 20
	// lockWait is how long one name may be locked by another ds.
	lockWait = 30 * time.Second
	// sweepAge is how long an unreferenced version is kept.
	sweepAge = 24 * time.Hour
)

var storeDirs = []string{"store", "active", "prev", "pending", "stamps", "locks", "owners", handlersDir}

// Options configure a Store.
type Options struct {
	Dir       string   // plugins.dir
	ExtraDirs []string // plugins.extra_dirs
	Full      bool     // sandbox.verify: full: hash at each start
	DS        string   // version of ds, for receipts
	FS        atomicfile.FS
	Clock     func() time.Time
	Log       *slog.Logger
}

// Store is safe for goroutines and processes. Reading takes no lock.
type Store struct{ o Options }

// New makes a store; it touches nothing.
func New(o Options) *Store {
	if o.FS == nil {
		o.FS = atomicfile.OS()
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Store{o: o}
}

// Dir is where plugins are installed.
func (s *Store) Dir() string { return s.o.Dir }

// Lookup finds an installed or hand-placed plugin; an installed one hides a hand-placed one. Errors:
// PLUGIN_NOT_FOUND, DISABLED, PLUGIN_MODIFIED for a damaged receipt, MANIFEST, UNSAFE_DIR.
func (s *Store) Lookup(_ context.Context, name plugin.Name) (*plugin.Installed, error) {
	if !name.Valid() {
		return nil, hostabi.Errorf(hostabi.ReasonPluginNotFound, "no plugin %q is installed", string(name))
	}
	r, err := s.Receipt(name)
	if err == nil {
		p, err := s.Installed(r)
		if err != nil {
			return nil, err
		}
		if p.Disabled {
			return nil, hostabi.Errorf(hostabi.ReasonDisabled, "plugin %s is disabled", name).WithFix("ds plugin enable %s", name)
		}
		p.Pending = s.waiting(r)
		return p, nil
	}
	if hostabi.ReasonOf(err) != hostabi.ReasonPluginNotFound {
		return nil, err
	}
	p, herr := s.handPlaced(name)
	if herr != nil {
		return nil, herr
	}
	if p == nil {
		return nil, err
	}
	return p, nil
}

// All yields every plugin, installed ones first, each group sorted by name. A broken one comes with its
// error and at least a Name; it hides no other.
func (s *Store) All(_ context.Context) iter.Seq2[*plugin.Installed, error] {
	return func(yield func(*plugin.Installed, error) bool) {
		seen := make(map[plugin.Name]bool)
		for _, name := range s.names() {
			seen[name] = true
			p := &plugin.Installed{Name: name}
			r, err := s.Receipt(name)
			if err == nil {
				var q *plugin.Installed
				if q, err = s.Installed(r); q != nil {
					p = q
					p.Pending = s.waiting(r)
				}
			}
			if !yield(p, err) {
				return
			}
		}
		for p, err := range s.allHandPlaced(seen) {
			if !yield(p, err) {
				return
			}
		}
	}
}

// Open opens the program of kind k once and compares it with what was installed, by stamp or by hash. The
// file that is returned is the one that was checked. The caller closes it.
func (s *Store) Open(_ context.Context, p *plugin.Installed, k plugin.Kind) (*plugin.Program, error) {
	held := p.Find(k)
	if held == nil {
		return nil, hostabi.Errorf(hostabi.ReasonPlatformUnsupported, "%s %s is not installed as %s", p.Name, p.Version, k)
	}
	own := *held
	key := handKey(own.Path)
	installed := !p.HandPlaced && !strings.HasPrefix(p.Repository, "dir:")
	if installed {
		key = filepath.Base(own.Dir)
	}
	f, st, err := s.openVerified(own.Path, key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, changed(p, "its program was removed")
	case errors.Is(err, fs.ErrPermission):
		return nil, hostabi.Errorf(hostabi.ReasonStartFailed, "%s %s: %s is not readable", p.Name, p.Version, own.Path)
	case err != nil:
		return nil, hostabi.Errorf(hostabi.ReasonPluginModified, "%s %s: %w", p.Name, p.Version, err)
	}
	if installed && st.Digest != own.Digest {
		_ = f.Close() // read-only
		return nil, changed(p, "its program was changed since install")
	}
	if installed { // as long as the program runs its version is not collected
		if err := atomicfile.Share(f); err != nil {
			_ = f.Close() // read-only
			return nil, changed(p, "its program is being removed")
		}
	}
	own.File, own.Digest, own.Size = f, st.Digest, st.Size
	return &own, nil
}

func changed(p *plugin.Installed, what string) error {
	e := hostabi.Errorf(hostabi.ReasonPluginModified, "%s %s: %s", p.Name, p.Version, what)
	if p.Requested == "" {
		return e
	}
	if p.Level == LevelUnsigned {
		return e.WithFix("ds plugin install %s --force --allow-unsigned", p.Requested)
	}
	return e.WithFix("ds plugin install %s --force", p.Requested)
}

// names lists the plugins with a receipt, sorted.
func (s *Store) names() (out []plugin.Name) {
	entries, err := s.o.FS.ReadDir(filepath.Join(s.o.Dir, "active"))
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e, ".json"); ok && plugin.Name(name).Valid() {
			out = append(out, plugin.Name(name))
		}
	}
	slices.Sort(out)
	return out
}

func (s *Store) receiptPath(dir string, name plugin.Name) string {
	return filepath.Join(s.o.Dir, dir, string(name)+".json")
}

// Receipt reads the active receipt of name; PLUGIN_NOT_FOUND when there is none.
func (s *Store) Receipt(name plugin.Name) (*Receipt, error) {
	return s.receipt("active", name, "no plugin %q is installed")
}

// receipt reads one of the receipts of name; absent is what to say when there is none.
func (s *Store) receipt(dir string, name plugin.Name, absent string) (*Receipt, error) {
	path := s.receiptPath(dir, name)
	if err := s.safe(".", dir); err != nil {
		return nil, err
	}
	b, err := atomicfile.ReadFile(s.o.FS, path, maxReceipt)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hostabi.Errorf(hostabi.ReasonPluginNotFound, absent, string(name))
	}
	r := new(Receipt)
	if err == nil {
		err = json.Unmarshal(b, r)
	}
	if err == nil {
		err = r.check(name)
	}
	if err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonPluginModified, "%s: receipt %s is damaged: %w", name, path, err).
			WithFix("ds plugin remove %s", name)
	}
	return r, nil
}

// Installed makes the word for one receipt; it reads plugin.json and nothing of the programs.
func (s *Store) Installed(r *Receipt) (*plugin.Installed, error) {
	p := &plugin.Installed{
		Name: r.Name, Version: r.PluginVersion, Repository: r.Source.Repository, Signer: r.Trust.Key, Index: r.Index,
		RequestDigest: r.RequestDigest, Level: r.Trust.Level, Pinned: r.Pinned, Disabled: r.Disabled, InstalledAt: r.InstalledAt,
		Requested: r.Source.Requested,
	}
	if p.Signer == "" {
		p.Signer = "none"
	}
	if r.Dev != "" {
		return s.development(p, r.Dev)
	}
	for i, k := range r.Kinds {
		dir := filepath.Join(s.o.Dir, "store", k.Dir)
		if err := s.safe("store", filepath.Join("store", k.Dir)); err != nil {
			return p, err
		}
		if i == 0 {
			m, err := s.manifest(p, r, dir)
			if err != nil {
				return p, err
			}
			p.Manifest = m
		}
		pr := plugin.Program{Kind: k.Kind, Dir: dir, Path: filepath.Join(dir, programName(r.Name, k.Kind)), Digest: k.Blob}
		if k.Kind == plugin.Native {
			pr.Mode = modeOf(p.Manifest)
		}
		if p.Manifest.Assets != "" {
			pr.Assets = filepath.Join(dir, "assets")
		}
		p.Programs = append(p.Programs, pr)
	}
	s.describe(p)
	return p, nil
}

// safe refuses directories of the store in which another user could put a plugin or a receipt: UNSAFE_DIR. What
// is not there is safe. Only the store itself may be a link.
func (s *Store) safe(names ...string) error {
	for _, name := range names {
		dir := filepath.Join(s.o.Dir, name)
		stat := os.Lstat
		if name == "." {
			stat = os.Stat
		}
		info, err := stat(dir)
		if err != nil {
			continue // whoever opens something in it says so
		}
		if !info.IsDir() {
			return hostabi.Errorf(hostabi.ReasonUnsafeDir, "%s is not a directory", dir)
		}
		if why := atomicfile.Unsafe(info); why != "" {
			return hostabi.Errorf(hostabi.ReasonUnsafeDir, "%s %s", dir, why).WithFix("chmod go-w %s", dir)
		}
	}
	return nil
}

// manifest reads plugin.json of a version if it is the one that was installed: it says what the plugin asks for
// and which arguments are paths and references.
func (s *Store) manifest(p *plugin.Installed, r *Receipt, dir string) (*plugin.Manifest, error) {
	b, err := atomicfile.ReadFile(s.o.FS, filepath.Join(dir, manifestName), maxManifest+1)
	if err != nil {
		return nil, changed(p, "its plugin.json is missing or unreadable")
	}
	want := r.Manifest
	if want == "" { // a receipt of a ds that did not write it
		want, _ = s.manifestDigest(r) // none: nothing is equal to it
	}
	if hostabi.DigestOf(b) != want {
		return nil, changed(p, "its plugin.json was changed since install")
	}
	m, _, err := plugin.ParseManifest(manifestName, b)
	return m, err
}

// manifestDigest is what files.json says of plugin.json in the version that r names.
func (s *Store) manifestDigest(r *Receipt) (hostabi.Digest, error) {
	list, err := readFiles(s.o.FS, filepath.Join(s.o.Dir, "store", r.Kinds[0].Dir), r.Kinds[0].Files)
	if err != nil {
		return "", err
	}
	for _, e := range list {
		if e.Path == manifestName {
			return e.SHA256, nil
		}
	}
	return "", fs.ErrNotExist
}

// development makes the word for a plugin that is run from its source directory: read again at every start.
func (s *Store) development(p *plugin.Installed, dir string) (*plugin.Installed, error) {
	if _, err := os.Stat(dir); err != nil {
		return p, hostabi.Errorf(hostabi.ReasonPluginModified, "%s: its directory %s is gone", p.Name, dir).WithFix("ds plugin remove %s", p.Name)
	}
	if err := CheckDir(dir); err != nil {
		return p, err
	}
	m, err := ReadDir(s.o.FS, dir)
	if err != nil {
		return p, err
	}
	if m.Name != p.Name {
		return p, hostabi.Errorf(hostabi.ReasonManifest, "%s: plugin.yaml in %s is called %s", p.Name, dir, m.Name)
	}
	p.Manifest, p.Version, p.RequestDigest = m, m.Version, plugin.RequestDigest(m.Capabilities)
	p.Programs = DirPrograms(m, dir)
	return p, nil
}

// CheckDir refuses a plugin source directory that strangers could change: UNSAFE_DIR.
func CheckDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return hostabi.Errorf(hostabi.ReasonUnsafeDir, "%s: %w", dir, err)
	}
	if why := atomicfile.Foreign(info); why != "" {
		return hostabi.Errorf(hostabi.ReasonUnsafeDir, "%s %s", dir, why).WithFix("chmod go-w %s", dir)
	}
	return nil
}

// ReadDir reads plugin.yaml of a plugin source directory, with its settings schema.
func ReadDir(f atomicfile.FS, dir string) (*plugin.Manifest, error) {
	path := filepath.Join(dir, "plugin.yaml")
	b, err := atomicfile.ReadFile(f, path, maxManifest+1)
	if err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonNotAPlugin, "%s is no plugin directory: %w", dir, err)
	}
	m, _, err := plugin.ParseManifest(path, b)
	if err != nil {
		return nil, err
	}
	if m.Legacy() {
		return nil, hostabi.Errorf(hostabi.ReasonManifest, "%s: apiVersion is missing, want %s", path, plugin.APIVersion)
	}
	return m, readSettings(f, m, dir)
}

func readSettings(f atomicfile.FS, m *plugin.Manifest, dir string) error {
	if m.ConfigSchema == "" || len(m.Settings) > 0 {
		return nil
	}
	path := filepath.Join(dir, filepath.FromSlash(m.ConfigSchema))
	b, err := atomicfile.ReadFile(f, path, maxSettings)
	if err != nil {
		return hostabi.Errorf(hostabi.ReasonManifest, "config_schema: %w", err)
	}
	m.Settings = b
	return nil
}

// DirPrograms lists the programs that a source directory holds for this platform, in the kinds that exist.
func DirPrograms(m *plugin.Manifest, dir string) (out []plugin.Program) {
	add := func(k plugin.Kind, mode plugin.Mode, rel string) {
		path := filepath.Join(dir, filepath.FromSlash(rel))
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
			pr := plugin.Program{Kind: k, Mode: mode, Dir: dir, Path: path, Size: info.Size()}
			if m.Assets != "" {
				pr.Assets = filepath.Join(dir, m.Assets)
			}
			out = append(out, pr)
		}
	}
	if m.Run.WASM != nil {
		add(plugin.WASM, "", m.Run.WASM.Artifact)
	}
	if m.Run.Native != nil {
		if rel, ok := m.Run.Native.Platforms[runtime.GOOS+"/"+runtime.GOARCH]; ok {
			add(plugin.Native, modeOf(m), rel)
		}
	}
	return out
}

func modeOf(m *plugin.Manifest) plugin.Mode {
	if m.Run.Native != nil && m.Run.Native.Mode != "" {
		return m.Run.Native.Mode
	}
	return plugin.Direct
}

// programName is the file of a kind inside a version directory.
func programName(name plugin.Name, k plugin.Kind) string {
	switch {
	case k == plugin.WASM:
		return "module.wasm"
	case runtime.GOOS == "windows":
		return "ds-" + string(name) + ".exe"
	}
	return "ds-" + string(name)
}

func dirName(index hostabi.Digest, k plugin.Kind) string { return index.Hex() + "-" + string(k) }

func random() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
