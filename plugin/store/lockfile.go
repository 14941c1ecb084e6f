package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/internal/yamlfile"
	"github.com/delivery-station/ds/plugin"
)

// LockFile is ds.lock: what exactly is installed, for another machine (install-trust.md section 11). It is data,
// not authority: it answers no question of trust or consent by itself.
type LockFile map[plugin.Name]Locked

// Locked is one plugin of a lock file. One with only a source and a constraint is to be completed.
type Locked struct {
	Source       string
	Constraint   string
	Version      string
	Index        hostabi.Digest            // pins every platform
	Artifacts    map[string]hostabi.Digest // child manifests by platform, "wasm" for the module
	Signer       string                    // key id, or none
	Signature    hostabi.Digest            // bundle
	Level        string
	Capabilities hostabi.Digest // request digest
}

const (
	lockVersion = 1
	maxLock     = 4 << 20
)

// ParseLock reads a lock file; name is for messages. Unknown keys are errors: LOCK_DRIFT would go unnoticed.
func ParseLock(name string, b []byte) (LockFile, error) {
	root, err := yamlfile.Parse(name, b, yamlfile.Limits{})
	if err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonConfigSyntax, "%w", err)
	}
	p := &lockReader{yamlfile.Reader{Name: name, Suggest: plugin.Suggest}}
	out := make(LockFile)
	p.Object(root, "a lock file", map[string]func(*yamlfile.Node){
		"version": p.Version,
		"plugins": func(n *yamlfile.Node) {
			p.Map(n, "plugins", func(key, n *yamlfile.Node) {
				if !plugin.Name(key.Text).Valid() {
					p.Errorf(key, "%q is no plugin name", key.Text)
				}
				out[plugin.Name(key.Text)] = p.locked(n)
			})
		},
	})
	if root.Get("version") == nil {
		p.Errorf(root, "version is required")
	}
	if err := p.Err(); err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonConfigSyntax, "%w", err)
	}
	return out, nil
}

type lockReader struct{ yamlfile.Reader }

func (p *lockReader) text(to *string, what string) func(*yamlfile.Node) {
	return func(n *yamlfile.Node) { *to = p.Str(n, what) }
}

func (p *lockReader) digest(to *hostabi.Digest, what string) func(*yamlfile.Node) {
	return func(n *yamlfile.Node) {
		if *to = hostabi.Digest(p.Str(n, what)); !to.Valid() {
			p.Errorf(n, "%s is no digest", what)
		}
	}
}

func (p *lockReader) locked(n *yamlfile.Node) (l Locked) {
	p.Object(n, "a plugin", map[string]func(*yamlfile.Node){
		"source": p.text(&l.Source, "source"), "constraint": p.text(&l.Constraint, "constraint"), "version": p.text(&l.Version, "version"),
		"signer": p.text(&l.Signer, "signer"), "level": p.text(&l.Level, "level"),
		"index": p.digest(&l.Index, "index"), "signature": p.digest(&l.Signature, "signature"), "capabilities": p.digest(&l.Capabilities, "capabilities"),
		"artifacts": func(n *yamlfile.Node) {
			l.Artifacts = make(map[string]hostabi.Digest)
			p.Map(n, "artifacts", func(platform, n *yamlfile.Node) {
				var d hostabi.Digest
				p.digest(&d, platform.Text)(n)
				l.Artifacts[platform.Text] = d
			})
		},
	})
	switch {
	case l.Source == "":
		p.Errorf(n, "source is required")
	case l.Index != "" && (l.Signer == "" || l.Capabilities == "" || l.Version == "" || rank(l.Level) < 0):
		p.Errorf(n, "an entry with index needs version, signer, level and capabilities")
	}
	return l
}

// Format writes the one form of a lock file.
func (l LockFile) Format() ([]byte, error) {
	all := make(map[string]any, len(l))
	for name, e := range l {
		var out yamlfile.Ordered
		add := func(key, value string) {
			if value != "" {
				out = append(out, yamlfile.Entry{Key: key, Value: value})
			}
		}
		add("source", e.Source)
		add("constraint", e.Constraint)
		add("version", e.Version)
		add("index", string(e.Index))
		if len(e.Artifacts) > 0 {
			artifacts := make(map[string]any, len(e.Artifacts))
			for platform, d := range e.Artifacts {
				artifacts[platform] = string(d)
			}
			out = append(out, yamlfile.Entry{Key: "artifacts", Value: artifacts})
		}
		add("signer", e.Signer)
		add("signature", string(e.Signature))
		add("level", e.Level)
		add("capabilities", string(e.Capabilities))
		all[string(name)] = out
	}
	return yamlfile.Marshal(yamlfile.Ordered{{Key: "version", Value: lockVersion}, {Key: "plugins", Value: all}})
}

// ReadLock reads the lock file at path; CONFIG_FILE when there is none.
func (s *Store) ReadLock(path string) (LockFile, error) {
	b, err := atomicfile.ReadFile(s.o.FS, path, maxLock)
	if err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonConfigFile, "lock file: %w", err).WithFix("ds plugin lock")
	}
	return ParseLock(path, b)
}

// EditLock changes the lock file at path under its own lock; f gets what it says, nothing if there is none. One
// that does not parse is not rewritten.
func (s *Store) EditLock(ctx context.Context, path string, f func(LockFile) error) error {
	if err := atomicfile.MkdirAll(s.o.FS, filepath.Dir(path), 0o700); err != nil {
		return writeError(err)
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	err := atomicfile.Edit(ctx, s.o.FS, path, func(old []byte) ([]byte, error) {
		l := make(LockFile)
		if old != nil {
			var err error
			if l, err = ParseLock(path, old); err != nil {
				return nil, err
			}
		}
		if err := f(l); err != nil {
			return nil, err
		}
		return l.Format()
	})
	if errors.Is(err, atomicfile.ErrLocked) {
		return hostabi.Errorf(hostabi.ReasonLockHeld, "%s is being changed by another ds", path)
	}
	return writeError(err)
}

// Locked is the entry of an installed plugin. A development directory has none: it is on this machine only.
func (s *Store) Locked(r *Receipt) (l Locked, ok bool, err error) {
	if r.Dev != "" || len(r.Kinds) == 0 {
		return l, false, nil
	}
	l = Locked{
		Source: r.Source.Repository, Constraint: r.Source.Constraint, Version: r.PluginVersion, Index: r.Index, Signer: r.Trust.Key,
		Signature: hostabi.Digest(r.Trust.Bundle), Level: r.Trust.Level, Capabilities: r.RequestDigest,
	}
	if l.Signer == "" {
		l.Signer = "none"
	}
	name := filepath.Join(s.o.Dir, "store", r.Kinds[0].Dir, "oci", "index.json")
	b, err := atomicfile.ReadFile(s.o.FS, name, maxLock)
	switch {
	case errors.Is(err, fs.ErrNotExist): // installed by a ds that did not keep it
		return l, true, nil
	case err != nil || hostabi.DigestOf(b) != r.Index:
		return l, false, hostabi.Errorf(hostabi.ReasonPluginModified, "%s %s: its index was changed since install", r.Name, r.PluginVersion)
	}
	l.Artifacts, err = Artifacts(b)
	return l, true, err
}

// Artifacts are the child manifests of an index by platform.
func Artifacts(index []byte) (map[string]hostabi.Digest, error) {
	var doc plugin.OCIDocument
	if err := json.Unmarshal(index, &doc); err != nil {
		return nil, err
	}
	out := make(map[string]hostabi.Digest)
	for _, d := range doc.Manifests {
		switch {
		case d.Platform == nil:
		case d.Platform.OS == "wasip1":
			out["wasm"] = hostabi.Digest(d.Digest)
		default:
			out[d.Platform.OS+"/"+d.Platform.Architecture] = hostabi.Digest(d.Digest)
		}
	}
	return out, nil
}

// Differences lists how got differs from want, one line each; a constraint does not say what is installed.
func (l Locked) Differences(got Locked) (out []string) {
	diff := func(what, want, got string) {
		if want != got {
			out = append(out, fmt.Sprintf("%s: locked %s, is %s", what, or(want), or(got)))
		}
	}
	diff("source", l.Source, got.Source)
	diff("version", l.Version, got.Version)
	diff("index", string(l.Index), string(got.Index))
	diff("signer", l.Signer, got.Signer)
	diff("capabilities", string(l.Capabilities), string(got.Capabilities))
	if rank(got.Level) < rank(l.Level) {
		diff("level", l.Level, got.Level)
	}
	if len(l.Artifacts) > 0 && len(got.Artifacts) > 0 {
		for _, platform := range platforms(l.Artifacts, got.Artifacts) {
			diff("artifact "+platform, string(l.Artifacts[platform]), string(got.Artifacts[platform]))
		}
	}
	return out
}

func or(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

// rank orders trust levels.
func rank(level string) int {
	return slices.Index([]string{LevelUnsigned, "legacy-signed", "pinned", "signed"}, level)
}

func platforms(a, b map[string]hostabi.Digest) (out []string) {
	for _, m := range []map[string]hostabi.Digest{a, b} {
		for p := range m {
			if !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	slices.SortFunc(out, strings.Compare)
	return out
}
