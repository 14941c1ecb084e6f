package sandbox

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// bound is a scope of one run: own, args, settings and directories are what they stand for in it. It matches
// a resource by covering it.
type bound struct {
	Scope
	from  string        // the scope as it was written
	at    form          // form before it was bound: where a path scope is mounted
	base  int           // path scopes: elements of the directory it is relative to
	typed *plugin.Typed // of scope args
	kind  typedKind     // of a typed path

	optional bool // requested by an entry that the plugin can do without
}

// typedKind says what a typed path is on disk.
type typedKind uint8

const (
	missing typedKind = iota
	file
	directory
)

// resource reads a resource that is to be checked into the literal scope of it. What a subscriber names may
// itself be a pattern.
func resource(c hostabi.Capability, text string) (Scope, error) {
	s := Scope{cap: c, text: text}
	bad := errors.New("not a canonical resource")
	switch c {
	case hostabi.ConfigRead, hostabi.SecretRead:
		if host, ok := strings.CutPrefix(text, "registry:"); ok && c == hostabi.SecretRead {
			s.form, s.segs = registryOf, []seg{{literal, host}}
			return s, nil
		}
		return s, s.literalDots(text, keyPart)
	case hostabi.EventsPublish:
		return s, s.literalDots(text, validTopicPart)
	case hostabi.EventsSubscribe:
		return s, s.parseDotted(text, validTopicPart)
	case hostabi.EnvRead:
		s.form, s.segs = variable, []seg{{literal, text}}
		return s, nil
	case hostabi.NetHTTP:
		_, o, err := canonicalURL(text)
		s.form, s.origin = originOf, o
		return s, err
	case hostabi.FSRead, hostabi.FSWrite:
		parts, ok := absParts(text)
		if !ok {
			return s, bad
		}
		s.form, s.segs, s.fold = absolute, literalSegs(parts), foldCase()
		return s, nil
	case hostabi.CacheRead, hostabi.CacheWrite:
		return s, s.literalBlob(text)
	case hostabi.RegistryPull, hostabi.RegistryPush:
		r, ok := repository(text)
		if !ok {
			return s, bad
		}
		s.form, s.repo = repoOf, r
		return s, nil
	case hostabi.StateRead, hostabi.StateWrite:
		owner, key, ok := strings.Cut(text, ":")
		if !ok || !plugin.Name(owner).Valid() || hostabi.CheckStateKey(key) != nil {
			return s, bad
		}
		s.form, s.owner, s.segs = stateKey, owner, literalSegs(strings.Split(key, "/"))
		return s, nil
	case hostabi.PluginsCall:
		name, command, ok := strings.Cut(text, "/")
		if !ok || !plugin.Name(name).Valid() || command != "" && !validCommand(command) {
			return s, bad
		}
		s.form, s.owner, s.segs = callee, name, []seg{{literal, command}}
		return s, nil
	case hostabi.TermPrompt:
		return s, s.parsePrompt(text)
	}
	return s, bad
}

func (s *Scope) literalDots(text string, valid func(string) bool) error {
	parts := strings.Split(text, ".")
	if slices.ContainsFunc(parts, func(p string) bool { return !valid(p) }) {
		return errors.New("not a canonical name")
	}
	s.form, s.segs = dotted, literalSegs(parts)
	return nil
}

// keyPart accepts what can be a key of a map in a configuration file; scopes take less.
func keyPart(p string) bool {
	return p != "" && !strings.ContainsFunc(p, func(r rune) bool { return r <= 0x20 || r == 0x7f || r == '*' })
}

func (s *Scope) literalBlob(text string) error {
	if hostabi.Digest(text).Valid() {
		s.form, s.segs = blobOf, []seg{{literal, text}}
		return nil
	}
	if rest, ok := strings.CutPrefix(text, "artifact:"); ok {
		r, ok := repository(rest)
		if !ok {
			return errors.New("not a repository")
		}
		s.form, s.repo = artifact, r
		return nil
	}
	switch text {
	case "own":
		s.form = own
	case "any":
		s.form = anyBlob
	default:
		return errors.New("not a blob")
	}
	return nil
}

// absParts are the elements of an absolute clean path; the volume of Windows is the first one.
func absParts(path string) ([]string, bool) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || strings.Contains(path, "\x00") {
		return nil, false
	}
	path = strings.Trim(filepath.ToSlash(path), "/")
	if path == "" {
		return nil, true
	}
	return strings.Split(path, "/"), true
}

// joinAbs is the path that parts name.
func joinAbs(parts []string) string {
	p := strings.Join(parts, "/")
	if filepath.VolumeName(p) == "" {
		return filepath.FromSlash("/" + p)
	}
	if len(parts) == 1 {
		p += "/" // the root of a volume
	}
	return filepath.FromSlash(p)
}

// binder turns scopes into those of one run.
type binder struct {
	o     *BoxOptions
	cwd   []string // nil if there is none
	home  []string
	cache map[hostabi.Capability][]bound // typed values
}

func newBinder(o *BoxOptions) *binder {
	b := &binder{o: o, cache: make(map[hostabi.Capability][]bound)}
	b.cwd, _ = absParts(o.Invocation.Dir)
	b.home, _ = absParts(o.Home)
	return b
}

// bind gives what scopes stand for in this run; a scope that stands for nothing is left out. The error is
// about a setting of the user that cannot be an origin.
func (b *binder) bind(scopes []Scope) ([]bound, error) {
	var out []bound
	for _, s := range scopes {
		x := bound{Scope: s, from: s.text, at: s.form}
		switch s.form {
		case args:
			out = append(out, b.typedFor(s.cap)...)
			continue
		case fromSetting:
			if b.o.Settings == nil {
				continue
			}
			value, ok := b.o.Settings(s.setting)
			if !ok || value == "" {
				continue
			}
			o, err := s.resolved(value)
			if err != nil {
				return nil, hostabi.Errorf(hostabi.ReasonConfigValue, "%s: it cannot be used for scope %s of %s: %w", s.setting, s.text, s.cap, err)
			}
			x.form, x.origin = originOf, o
		case inCwd, inHome:
			base := b.cwd
			if s.form == inHome {
				base = b.home
			}
			if base == nil {
				continue
			}
			x.form, x.base = absolute, len(base)
			x.segs = append(literalSegs(base), s.segs...)
		}
		out = append(out, x)
	}
	return out, nil
}

// typedFor gives scope args of c: what the user typed, and in a nested call only what the caller may use too.
func (b *binder) typedFor(c hostabi.Capability) []bound {
	if out, ok := b.cache[c]; ok {
		return out
	}
	var out []bound
	for i := range b.o.Invocation.Typed {
		t := &b.o.Invocation.Typed[i]
		x := bound{Scope: Scope{cap: c, text: t.Value, fold: foldCase()}, from: "args", at: args, typed: t}
		if !b.typedScope(t, &x) || b.o.Inherited != nil && !b.o.Inherited.covers(x.Scope) {
			continue
		}
		out = append(out, x)
	}
	b.cache[c] = out
	return out
}

// typedScope says what one typed value opens for the capability of x.
func (b *binder) typedScope(t *plugin.Typed, x *bound) bool {
	switch x.cap {
	case hostabi.FSRead, hostabi.FSWrite:
		if t.Type != "path" || x.cap == hostabi.FSRead && t.Mode == "write" || x.cap == hostabi.FSWrite && t.Mode != "write" && t.Mode != "readwrite" {
			return false
		}
		path, ok := absPath(b.o.Invocation.Dir, t.Value)
		if !ok {
			return false
		}
		parts, _ := absParts(path)
		x.form, x.segs, x.kind = absolute, literalSegs(parts), onDisk(path)
		if x.kind == directory || x.kind == missing && x.cap == hostabi.FSWrite {
			x.segs = append(x.segs, seg{kind: deep})
		}
		return true
	case hostabi.NetHTTP:
		if t.Type != "url" {
			return false
		}
		_, o, err := canonicalURL(t.Value)
		x.form, x.origin = originOf, o
		return err == nil
	case hostabi.CacheRead:
		if t.Type == "digest" {
			x.form, x.segs = blobOf, []seg{{literal, t.Value}}
			return hostabi.Digest(t.Value).Valid()
		}
		x.form = artifact
		return b.typedRepository(t, x)
	case hostabi.RegistryPull, hostabi.RegistryPush:
		x.form = repoOf
		return b.typedRepository(t, x)
	}
	return false
}

func (b *binder) typedRepository(t *plugin.Typed, x *bound) bool {
	if t.Type != "ref" || b.o.Canonical == nil {
		return false
	}
	name, err := b.o.Canonical(t.Value)
	if err != nil {
		return false
	}
	var ok bool
	x.repo, ok = repository(name)
	return ok
}

// absPath is the absolute clean form of a typed path.
func absPath(dir, value string) (string, bool) {
	if strings.Contains(value, "\x00") {
		return "", false
	}
	if !filepath.IsAbs(value) {
		if !filepath.IsAbs(dir) {
			return "", false
		}
		value = filepath.Join(dir, value)
	}
	return filepath.Clean(value), true
}
