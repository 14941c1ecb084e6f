package wasm

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/sandbox"
)

// mountFS is one preopen: a tree of virtual directories whose leaves are host directories. A guest has the
// union of what the mounts give it. One goroutine uses it, the one that runs the guest.
type mountFS struct {
	experimentalsys.UnimplementedFS
	guest  string // "/cwd"
	mounts []*mount
	dirs   map[string][]string // virtual directory -> names in it
	files  *fileTable
	stop   *stopper // nil: nothing ends the guest
}

// mount is one host directory, or one name in it, or what patterns select of it.
type mount struct {
	tree  *tree
	at    string // where it appears in the preopen, "." or "dist"
	name  string // not empty: this name only
	below bool   // with name: everything below it too
	globs []glob // not empty: only what matches
	deny  []glob // never what matches, nor anything below
	write bool
	// follow: symbolic links inside the tree are followed. links: relative ones may be created.
	follow, links bool
	quota         *quota
}

// tree is an open host directory. It is shared by all mounts of that directory and opened at first use.
type tree struct {
	host   string
	once   sync.Once
	dir    *os.Root
	err    error
	create bool // make a private directory instead of opening host
}

func (t *tree) root() (*os.Root, error) {
	t.once.Do(func() {
		if t.create {
			parent := t.host
			t.host = ""
			if t.host, t.err = os.MkdirTemp(parent, "ds-wasm-"); t.err != nil {
				return
			}
		}
		t.dir, t.err = os.OpenRoot(t.host)
	})
	return t.dir, t.err
}

// close closes the directory; a private one is removed.
func (t *tree) close() error {
	t.once.Do(func() { t.err = fs.ErrClosed })
	if t.dir != nil {
		_ = t.dir.Close() // read only
		t.dir = nil
	}
	if t.create && t.host != "" && t.err == nil {
		return os.RemoveAll(t.host)
	}
	return nil
}

// quota bounds the bytes that a guest adds; nil is unbounded.
type quota struct{ left int64 }

func (q *quota) take(n int64) bool {
	if q == nil || n <= 0 {
		return true
	}
	if n > q.left {
		return false
	}
	q.left -= n
	return true
}

// preopens is the order of the mounts, /cwd first: guests without a working directory take the first.
var preopens = []string{"/cwd", "/args", "/home", "/host", "/app", "/tmp"}

// openMounts makes the preopens of a run.
func openMounts(in *instance, box grants) []*mountFS {
	list := box.Mounts()
	if a := in.plugin.Program.Assets; a != "" {
		list = append(list, sandbox.Mount{Host: a, Guest: "/app", Follow: true})
	}
	var written *quota
	if n := box.Quota(hostabi.FSWrite); n > 0 {
		written = &quota{left: n}
	}
	trees := make(map[string]*tree)
	by := make(map[string]*mountFS)
	for _, m := range list {
		top, at := splitGuest(m.Guest)
		if !slices.Contains(preopens, top) {
			in.backend.o.Log.Warn("wasm: mount outside the guest's tree", "guest", m.Guest)
			continue
		}
		t := trees[m.Host]
		if t == nil {
			t = &tree{host: m.Host}
			if _, err := t.root(); err != nil {
				in.backend.o.Log.Debug("wasm: mount is not there", "host", m.Host, "error", err)
			}
			trees[m.Host] = t
		}
		mt := &mount{tree: t, at: at, name: m.Name, below: m.Create, write: m.Write, follow: m.Follow, quota: written}
		mt.globs, mt.deny = parseGlobs(m.Patterns), parseGlobs(m.Deny)
		if by[top] == nil {
			by[top] = newMountFS(top, in.files)
		}
		by[top].add(mt)
	}
	tmp := newMountFS("/tmp", in.files)
	mt := &mount{tree: &tree{host: cmp.Or(in.backend.o.TempDir, os.TempDir()), create: true}, at: ".", write: true, follow: true, links: true}
	if n := box.Limits().Tmp; n > 0 {
		mt.quota = &quota{left: n}
	}
	tmp.add(mt)
	by["/tmp"] = tmp
	var out []*mountFS
	for _, top := range preopens {
		if f := by[top]; f != nil {
			f.stop = in.stop
			f.finish()
			out = append(out, f)
		}
	}
	return out
}

// splitGuest splits "/cwd/a/b" into "/cwd" and "a/b".
func splitGuest(guest string) (top, at string) {
	clean := path.Clean("/" + guest)
	top, at, _ = strings.Cut(clean[1:], "/")
	return "/" + top, cmp.Or(at, ".")
}

func newMountFS(guest string, files *fileTable) *mountFS {
	return &mountFS{guest: guest, dirs: map[string][]string{".": nil}, files: files}
}

func (f *mountFS) add(m *mount) { f.mounts = append(f.mounts, m) }

// finish orders the mounts, deepest first, and makes the virtual directories that lead to them.
func (f *mountFS) finish() {
	slices.SortStableFunc(f.mounts, func(a, b *mount) int { return cmp.Compare(depth(b.at), depth(a.at)) })
	for _, m := range f.mounts {
		for at := m.at; at != "."; {
			parent, name := path.Dir(at), path.Base(at)
			if !slices.Contains(f.dirs[parent], name) {
				f.dirs[parent] = append(f.dirs[parent], name)
			}
			if _, ok := f.dirs[at]; !ok {
				f.dirs[at] = nil
			}
			at = parent
		}
	}
}

func depth(at string) int {
	if at == "." {
		return 0
	}
	return 1 + strings.Count(at, "/")
}

func (f *mountFS) close() error {
	var first error
	for _, m := range f.mounts {
		if err := m.tree.close(); err != nil && first == nil {
			first = fmt.Errorf("%s: %w", f.guest, err)
		}
	}
	return first
}

// below is the part of p under at.
func below(at, p string) (rel string, ok bool) {
	if at == "." {
		return p, true
	}
	if p == at {
		return ".", true
	}
	return strings.CutPrefix(p, at+"/")
}

// shows tells whether rel is part of the mount, and whether something below it may be.
func (m *mount) shows(rel string) (whole, leads bool) {
	switch {
	case m.denies(rel):
		return false, false
	case m.name != "":
		inside := m.below && strings.HasPrefix(rel, m.name+"/")
		return rel == m.name || inside, rel == "." || rel == m.name && m.below || inside
	case len(m.globs) == 0:
		return true, true
	}
	for _, g := range m.globs {
		w, l := g.match(rel)
		whole, leads = whole || w, leads || l
	}
	return whole, leads
}

// denies reports whether rel, or a directory that it is in, is kept from the guest.
func (m *mount) denies(rel string) bool {
	for _, g := range m.deny {
		for at := rel; ; at = path.Dir(at) {
			if whole, _ := g.match(at); whole {
				return true
			}
			if at == "." {
				break
			}
		}
	}
	return false
}

// covers reports whether everything below rel is granted. Only such a directory may be renamed: under its new
// name what was kept from the guest would not be any more.
func (m *mount) covers(rel string) bool {
	for _, g := range m.deny {
		if _, leads := g.match(rel); leads {
			return false
		}
	}
	switch {
	case m.name != "":
		return m.below
	case len(m.globs) == 0:
		return true
	}
	return slices.ContainsFunc(m.globs, func(g glob) bool {
		whole, _ := g.match(rel)
		return whole && g[len(g)-1] == "**"
	})
}

// target is where a guest's name leads.
type target struct {
	path string // in the preopen
	m    *mount // nil: a virtual directory only
	rel  string // in the mount
	root *os.Root
	// whole: the name itself is granted. Otherwise it is a directory on the way to granted names, which may be
	// looked at and listed, and lists only those.
	whole bool
}

// check ends a guest whose time is over: one call may take long, and many may stand between two ticks.
func (f *mountFS) check() {
	if f.stop != nil {
		f.stop.check()
	}
}

// resolve finds the mount of p. A writable mount wins over a read-only one, then the deeper wins.
func (f *mountFS) resolve(p string) (target, experimentalsys.Errno) {
	f.check()
	var whole, way *mount
	for _, m := range f.mounts {
		rel, ok := below(m.at, p)
		if !ok {
			continue
		}
		if root, _ := m.tree.peek(); root == nil && !m.tree.create {
			continue
		}
		w, l := m.shows(rel)
		if w && (whole == nil || m.write && !whole.write) {
			whole = m
		}
		if l && way == nil && rel != "." {
			way = m
		}
	}
	t := target{path: p, m: cmp.Or(whole, way), whole: whole != nil}
	if t.m == nil {
		if _, ok := f.dirs[p]; ok {
			return t, 0
		}
		return t, experimentalsys.ENOENT
	}
	t.rel, _ = below(t.m.at, p)
	if !t.whole {
		if _, virtual := f.dirs[p]; virtual {
			t.m = nil
			return t, 0
		}
	}
	if t.rel == "." && t.m.tree.create {
		return t, 0 // made when something in it is used
	}
	root, err := t.m.tree.root()
	if err != nil {
		return t, f.fail(p, err)
	}
	t.root = root
	if !t.careful() {
		return t, 0
	}
	return t.withoutLinks(false)
}

// careful: links are followed, but not by the system, because something below the mount is kept from the guest.
func (t target) careful() bool { return t.m.follow && len(t.m.deny) > 0 && t.rel != "." }

// maxLinks is how many links one name may lead over, as in Linux.
const maxLinks = 40

// withoutLinks is the target under a name without links in its directories and, with last, at its end. Each
// name on the way is checked: a link must not lead to what the mount denies.
func (t target) withoutLinks(last bool) (target, experimentalsys.Errno) {
	links := 0
	for end := 0; end < len(t.rel); {
		if n := strings.IndexByte(t.rel[end:], '/'); n >= 0 {
			end += n
		} else {
			end = len(t.rel)
		}
		at := t.rel[:end]
		if end == len(t.rel) && !last {
			break
		}
		fi, err := t.root.Lstat(filepath.FromSlash(at))
		if errors.Is(err, fs.ErrNotExist) {
			break // the caller finds that out
		}
		if err != nil {
			n, _ := errno(err)
			return t, n
		}
		if fi.Mode()&fs.ModeSymlink == 0 {
			end++
			continue
		}
		to, err := t.root.Readlink(filepath.FromSlash(at))
		if err != nil || filepath.IsAbs(to) || path.IsAbs(to) {
			return t, experimentalsys.EACCES
		}
		if links++; links > maxLinks {
			return t, experimentalsys.ELOOP
		}
		rest := strings.TrimPrefix(t.rel[end:], "/")
		t.rel = path.Join(path.Dir(at), filepath.ToSlash(to), rest)
		if t.rel == ".." || strings.HasPrefix(t.rel, "../") || t.m.denies(t.rel) {
			return t, experimentalsys.EACCES
		}
		end = 0
	}
	return t, 0
}

// peek is the directory if it was opened.
func (t *tree) peek() (*os.Root, error) {
	if t.create {
		return t.dir, nil
	}
	return t.root()
}

// change finds what a changing call works on; directories on the way and mount points cannot be changed.
func (f *mountFS) change(name string) (t target, slash bool, e experimentalsys.Errno) {
	p, slash, e := cleanName(name)
	if e != 0 {
		return t, false, e
	}
	t, e = f.resolve(p)
	switch {
	case e == experimentalsys.ENOENT && f.leadsTo(path.Dir(p)):
		return t, false, experimentalsys.EACCES // a name beside granted ones
	case e != 0:
		return t, false, e
	case t.m == nil || !t.whole:
		return t, false, experimentalsys.EACCES
	case !t.m.write:
		return t, false, experimentalsys.EROFS
	case t.rel == ".":
		return t, false, experimentalsys.EACCES
	}
	at, e := t.place()
	if e != 0 {
		return t, false, e
	}
	at.close()
	return t, slash, 0
}

// leadsTo reports whether p is a directory that the guest can see.
func (f *mountFS) leadsTo(p string) bool {
	_, e := f.resolve(p)
	return e == 0
}

// lstat looks at the name itself.
func (t target) lstat() (fs.FileInfo, experimentalsys.Errno) {
	at, e := t.place()
	if e != 0 {
		return nil, e
	}
	defer at.close()
	fi, err := at.dir.Lstat(at.name)
	n, _ := errno(err)
	return fi, n
}

// followed is the target that a link at the end of the name leads to, and its state; other targets stay.
func (t target) followed() (target, fs.FileInfo, experimentalsys.Errno) {
	fi, e := t.lstat()
	if e != 0 || fi.Mode()&fs.ModeSymlink == 0 {
		return t, fi, e
	}
	if !t.m.follow {
		return t, nil, experimentalsys.ELOOP
	}
	if t.careful() {
		if t, e = t.withoutLinks(true); e != 0 {
			return t, nil, e
		}
		fi, e = t.lstat()
		return t, fi, e
	}
	fi, err := t.root.Stat(filepath.FromSlash(t.rel))
	n, _ := errno(err)
	return t, fi, n
}

// stat follows a link if the mount allows it.
func (t target) stat() (fs.FileInfo, experimentalsys.Errno) {
	_, fi, e := t.followed()
	return fi, e
}
