package sandbox

import (
	"cmp"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// Mount is one directory that fs.read or fs.write opens to the plugin.
type Mount struct {
	Host     string   // absolute literal directory; one os.Root is opened there
	Guest    string   // guest directory, "/cwd/dist"; native plugins see Host
	Name     string   // not empty: only this name in Host is visible (a file argument)
	Patterns []string // globs relative to Host; empty = everything below
	// Deny are globs relative to Host of what stays out of reach although it is below: directories of ds, and
	// what user or policy deny. A backend that cannot leave them out must not open the mount.
	Deny   []string
	Write  bool
	Follow bool // symlinks inside Host are followed (scopes of the form prefix/**)
	Create bool // the typed path does not exist yet and may be created, with everything below it
	// Optional says that only entries that the plugin can do without ask for it: a backend that cannot open it
	// leaves it out.
	Optional bool
}

// hidden is a directory that no plugin gets, with everything below.
type hidden struct {
	name string // as users write it
	segs []seg  // ends in **
}

// protect lists the protected directories, each also by the name that its links lead to.
func (b *Box) protect() {
	dirs := slices.Clone(b.o.Protected)
	if runtime.GOOS != "windows" {
		dirs = append(dirs, kernelDirs()...)
	}
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		for _, d := range []string{filepath.Clean(dir), realPath(dir)} {
			parts, ok := absParts(d)
			if !ok || slices.ContainsFunc(b.hidden, func(h hidden) bool {
				return len(h.segs) == len(parts)+1 && coversPath(h.segs, literalSegs(parts), false)
			}) {
				continue
			}
			b.hidden = append(b.hidden, hidden{b.tilde(dir), append(literalSegs(parts), seg{kind: deep})})
		}
	}
}

// kernelDirs are the trees of a Unix system that are no files of anybody.
func kernelDirs() []string { return []string{"/proc", "/sys", "/dev"} }

// tilde writes a path below the home directory as users do.
func (b *Box) tilde(dir string) string {
	if rest, ok := strings.CutPrefix(dir, b.o.Home+string(filepath.Separator)); ok && b.o.Home != "" {
		return "~/" + filepath.ToSlash(rest)
	}
	return dir
}

// hides reports whether a path scope begins inside a protected directory.
func (b *Box) hides(s Scope) bool { return b.hiding(s) != "" }

func (b *Box) hiding(s Scope) string {
	if s.form != absolute || s.cap != hostabi.FSRead && s.cap != hostabi.FSWrite {
		return ""
	}
	prefix, _ := split(s.segs)
	for _, h := range b.hidden {
		if coversPath(h.segs, prefix, foldCase()) {
			return h.name
		}
	}
	return ""
}

// split cuts a path pattern after its literal directory prefix.
func split(segs []seg) (prefix, rest []seg) {
	i := slices.IndexFunc(segs, func(s seg) bool { return s.kind != literal })
	if i < 0 {
		return segs, nil
	}
	return segs[:i], segs[i:]
}

// mount computes the mounts. A granted or typed path inside a protected directory is an error.
func (b *Box) mount() error {
	var list []Mount
	for _, c := range []hostabi.Capability{hostabi.FSRead, hostabi.FSWrite} {
		r := b.rights[c]
		if r == nil || b.completing(c) {
			continue
		}
		for _, x := range effective(r) {
			if name := b.hiding(x.Scope); name != "" {
				return b.noAccess(c, x, name)
			}
			m, ok := b.mountOf(x, c == hostabi.FSWrite)
			if !ok {
				continue
			}
			if name := b.hiding(Scope{cap: c, form: absolute, segs: dirSegs(realPath(m.Host))}); name != "" {
				return b.noAccess(c, x, name)
			}
			m.Deny = b.denyBelow(m.Host, r)
			m.Optional = !slices.ContainsFunc(r.request, func(q bound) bool { return !q.optional && q.Covers(x.Scope) })
			list = add(list, m)
		}
	}
	slices.SortStableFunc(list, func(x, y Mount) int {
		return cmp.Or(strings.Compare(x.Guest, y.Guest), compareBool(x.Write, y.Write), strings.Compare(x.Name, y.Name))
	})
	b.mounts = list
	return nil
}

func (b *Box) noAccess(c hostabi.Capability, x bound, name string) error {
	return hostabi.Errorf(hostabi.ReasonCapabilityDenied, "plugins get no access to %s", name).
		WithMeta("capability", string(c)).WithMeta("resource", x.text).WithMeta("plugin", string(b.name))
}

// Mounts is what the run may see of the file system, ordered by Guest. Several may have one Guest: a guest has
// the union of what they give, and a writable scope inside a readable one is listed apart.
func (b *Box) Mounts() []Mount { return slices.Clone(b.mounts) }

// effective narrows request, grant and ceiling to the path scopes of this run.
func effective(r *right) []bound {
	out := narrowBounds(r.request, r.grant)
	if r.ceiling {
		out = narrowBounds(out, r.max)
	}
	return slices.DeleteFunc(out, func(x bound) bool {
		return slices.ContainsFunc(slices.Concat(r.userDeny, r.adminDeny), func(d bound) bool { return d.Covers(x.Scope) })
	})
}

func narrowBounds(a, b []bound) []bound {
	var out []bound
	add := func(list, other []bound) {
		for _, x := range list {
			same := func(o bound) bool { return o.at == x.at && slices.Equal(o.segs, x.segs) && o.typed == x.typed }
			if x.form == absolute && !slices.ContainsFunc(out, same) && slices.ContainsFunc(other, func(o bound) bool { return o.Covers(x.Scope) }) {
				out = append(out, x)
			}
		}
	}
	add(a, b)
	add(b, a)
	return out
}

func (b *Box) mountOf(x bound, write bool) (Mount, bool) {
	if x.typed != nil {
		return b.typedMount(x, write)
	}
	prefix, rest := split(x.segs)
	m := Mount{Write: write}
	if len(rest) == 0 { // one path
		m.Name = prefix[len(prefix)-1].text
		prefix = prefix[:len(prefix)-1]
		if onDisk(joinSegs(x.segs)) == directory {
			return m, false // the directory alone, without what is below, is nothing to mount
		}
	}
	if len(prefix) < x.base {
		return m, false
	}
	m.Host = joinSegs(prefix)
	m.Guest = path.Join(guestBase(x.at), pathText(prefix[x.base:]))
	if x.at == inCwd && !b.staysInCwd(m.Host) {
		return m, false
	}
	switch {
	case m.Name != "":
	case len(rest) == 1 && rest[0].kind == deep:
		m.Follow = true
	default:
		m.Patterns = []string{pathText(rest)}
	}
	if write && onDisk(m.Host) == missing {
		b.fromAncestor(&m, prefix[:x.base], prefix[x.base:], x.at)
	}
	return m, true
}

// fromAncestor lets a writable scope whose directory does not exist begin at the nearest directory that does.
func (b *Box) fromAncestor(m *Mount, base, below []seg, at form) {
	have := len(below)
	for have > 0 && onDisk(joinSegs(slices.Concat(base, below[:have]))) == missing {
		have--
	}
	gone := below[have:]
	if len(gone) == 0 {
		return
	}
	m.Host = joinSegs(slices.Concat(base, below[:have]))
	m.Guest = path.Join(guestBase(at), pathText(below[:have]))
	rest := m.Patterns
	switch {
	case m.Name != "":
		rest = []string{m.Name}
	case rest == nil:
		rest = []string{"**"}
	}
	m.Name, m.Patterns, m.Follow = "", nil, false
	for i := range gone { // the directories on the way may be made
		m.Patterns = append(m.Patterns, pathText(gone[:i+1]))
	}
	for _, r := range rest {
		m.Patterns = append(m.Patterns, pathText(gone)+"/"+r)
	}
}

// staysInCwd reports whether links in a project lead a directory of it out of it. Whoever wrote the project
// must not choose what a plugin sees.
func (b *Box) staysInCwd(host string) bool {
	target := realPath(host)
	cwd := dirSegs(realPath(b.o.Invocation.Dir))
	return coversPath(append(cwd, seg{kind: deep}), dirSegs(target), foldCase())
}

func (b *Box) typedMount(x bound, write bool) (Mount, bool) {
	m := Mount{Write: write}
	parts := x.segs
	if n := len(parts); n > 0 && parts[n-1].kind == deep {
		parts = parts[:n-1]
	}
	host := joinSegs(parts)
	guest := b.guestPath(x.typed, host)
	if x.kind == directory {
		m.Host, m.Guest, m.Follow = host, guest, true
		return m, true
	}
	if len(parts) == 0 || x.kind == missing && !write {
		return m, false
	}
	m.Host, m.Guest, m.Name = filepath.Dir(host), path.Dir(guest), filepath.Base(host)
	m.Create = x.kind == missing
	if m.Create && onDisk(m.Host) != directory {
		rel, inside := inDir(b.o.Invocation.Dir, host)
		if !inside {
			return m, false // the plugin gets the error that any program would
		}
		for below := path.Dir(rel); below != "."; below = path.Dir(below) {
			dir := filepath.Join(b.o.Invocation.Dir, filepath.FromSlash(path.Dir(below)))
			m.Host, m.Guest, m.Name = dir, path.Join("/cwd", path.Dir(below)), path.Base(below)
			if onDisk(dir) == directory {
				break
			}
		}
	}
	return m, true
}

// denyBelow are the globs relative to host of what is protected or denied below it.
func (b *Box) denyBelow(host string, r *right) []string {
	var out []string
	at := dirSegs(host)
	add := func(segs []seg) {
		for i := range segs {
			if i == len(at) || segs[i].kind == deep && i <= len(at) {
				if glob := pathText(segs[i:]); !slices.Contains(out, glob) {
					out = append(out, glob)
				}
				return
			}
			if !segs[i].coversOne(at[i], foldCase()) {
				return
			}
		}
	}
	for _, h := range b.hidden {
		add(h.segs)
	}
	for _, d := range slices.Concat(r.userDeny, r.adminDeny) {
		if d.form == absolute {
			add(d.segs)
		}
	}
	return out
}

// add joins m with a mount of the same directory if both can be one.
func add(list []Mount, m Mount) []Mount {
	for i := range list {
		o := &list[i]
		if o.Host != m.Host || o.Guest != m.Guest || o.Write != m.Write || o.Name != m.Name || o.Create != m.Create {
			continue
		}
		o.Optional = o.Optional && m.Optional
		switch {
		case m.Name != "" || len(o.Patterns) == 0:
		case len(m.Patterns) == 0:
			o.Patterns, o.Follow = nil, m.Follow
		default:
			for _, p := range m.Patterns {
				if !slices.Contains(o.Patterns, p) {
					o.Patterns = append(o.Patterns, p)
				}
			}
		}
		return list
	}
	return append(list, m)
}

// Paths translates the path arguments of the invocation into the namespace of a WASM guest and returns the
// words after the plugin's name with them replaced ("/args/2/name" outside the working directory). Index of
// the PathArgs counts argv, whose first word is the plugin's own.
func (b *Box) Paths() (args []string, paths []hostabi.PathArg) {
	inv := b.o.Invocation
	args = slices.Clone(inv.Args)
	for i := range inv.Typed {
		t := &inv.Typed[i]
		if t.Type != "path" || t.Index < 0 || t.Index >= len(args) {
			continue
		}
		host, ok := absPath(inv.Dir, t.Value)
		if !ok {
			continue
		}
		guest := b.guestPath(t, host)
		paths = append(paths, hostabi.PathArg{Index: t.Index + 1, Typed: t.Value, Path: guest, Write: t.Mode == "write" || t.Mode == "readwrite"})
		if plainRelative(t.Value) && strings.HasPrefix(guest, "/cwd") {
			continue // right as it is, because /cwd is the guest's working directory
		}
		args[t.Index] = strings.TrimSuffix(inv.Args[t.Index], t.Value) + guest
	}
	return args, paths
}

// plainRelative reports whether a typed path means the same from /cwd as from the user's directory.
func plainRelative(p string) bool {
	return !filepath.IsAbs(p) && filepath.IsLocal(p) && !strings.Contains(p, "\\")
}

// guestPath is where a guest finds a typed path.
func (b *Box) guestPath(t *plugin.Typed, host string) string {
	if rel, ok := inDir(b.o.Invocation.Dir, host); ok {
		return path.Join("/cwd", rel)
	}
	base := filepath.Base(host)
	if base == string(filepath.Separator) || base == "." {
		base = "root"
	}
	return path.Join("/args", strconv.Itoa(t.Index+1), base)
}

// inDir is the slashed path of name below dir, "." for dir itself.
func inDir(dir, name string) (string, bool) {
	if !filepath.IsAbs(dir) {
		return "", false
	}
	rel, err := filepath.Rel(dir, name)
	if err != nil || !filepath.IsLocal(rel) {
		return "", false
	}
	return filepath.ToSlash(rel), true
}

func guestBase(at form) string {
	switch at {
	case inCwd:
		return "/cwd"
	case inHome:
		return "/home"
	}
	return "/host"
}

func joinSegs(segs []seg) string {
	parts := make([]string, len(segs))
	for i, s := range segs {
		parts[i] = s.text
	}
	return joinAbs(parts)
}

func dirSegs(dir string) []seg {
	parts, _ := absParts(filepath.Clean(dir))
	return literalSegs(parts)
}

// realPath follows the links of p as far as it exists.
func realPath(p string) string {
	if target, err := filepath.EvalSymlinks(p); err == nil {
		return target
	}
	dir := filepath.Dir(p)
	if dir == p {
		return p
	}
	return filepath.Join(realPath(dir), filepath.Base(p))
}

func onDisk(p string) typedKind {
	fi, err := os.Stat(p)
	switch {
	case err != nil:
		return missing
	case fi.IsDir():
		return directory
	}
	return file
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func durationLeast(a time.Duration, b int64) time.Duration { return time.Duration(least(int64(a), b)) }
