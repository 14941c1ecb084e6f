package wasm

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"
)

// place is where a target lies: an open directory and a name in it. os.Root keeps every call in the mount, but a
// mount may grant less than its directory, and the host, or another guest, may turn a directory into a link between
// a look at it and its use. So in such a mount nothing is done by a path: each directory on the way is opened by
// itself and compared with what was looked at.
type place struct {
	dir  *os.Root
	name string
	own  bool // dir is closed after use
}

func (p place) close() {
	if p.own {
		_ = p.dir.Close() // read only
	}
}

// errSwapped says that something else took the place of what was looked at; guests get EACCES for what is no errno.
var errSwapped = errors.New("changed meanwhile")

// strict: not everything that os.Root would let the guest reach is granted.
func (t target) strict() bool { return !t.m.follow || len(t.m.deny) > 0 }

// place finds the directory of the target. In a strict mount links on the way are EACCES.
func (t target) place() (place, experimentalsys.Errno) {
	if !t.strict() {
		return place{dir: t.root, name: filepath.FromSlash(t.rel)}, 0
	}
	p := place{dir: t.root, name: path.Base(t.rel)}
	if dir := path.Dir(t.rel); dir != "." {
		for part := range strings.SplitSeq(dir, "/") {
			if e := p.enter(part); e != 0 {
				return place{}, e
			}
		}
	}
	return p, 0
}

// enter goes down into a directory, which must not be a link. After an error the place is closed.
func (p *place) enter(name string) experimentalsys.Errno {
	next, e := enter(p.dir, name)
	p.close()
	p.dir, p.own = next, true
	return e
}

func enter(dir *os.Root, name string) (*os.Root, experimentalsys.Errno) {
	was, err := dir.Lstat(name)
	switch {
	case err != nil:
		n, _ := errno(err)
		return nil, n
	case was.Mode()&fs.ModeSymlink != 0:
		return nil, experimentalsys.EACCES
	case !was.IsDir():
		return nil, experimentalsys.ENOTDIR
	}
	next, err := dir.OpenRoot(name + string(filepath.Separator) + ".") // the dot keeps a pipe that took its place from blocking
	if err != nil {
		n, _ := errno(err)
		return nil, n
	}
	now, err := next.Lstat(".")
	if err != nil || !os.SameFile(was, now) {
		_ = next.Close() // something else took its place
		return nil, experimentalsys.EACCES
	}
	return next, 0
}

// openAt opens a file. In a strict mount it never creates or empties what a link leads to.
func (f *mountFS) openAt(t target, flag experimentalsys.Oflag, created bool) (*os.File, experimentalsys.Errno) {
	p, e := t.place()
	if e != 0 {
		return nil, e
	}
	defer p.close()
	how := osFlags(flag) | nonblock
	if t.strict() {
		h, err := p.openStrict(flag, how, created)
		return h, f.fail(t.path, err)
	}
	h, err := p.dir.OpenFile(p.name, how, newFileMode)
	return h, f.fail(t.path, err)
}

func (p place) openStrict(flag experimentalsys.Oflag, how int, created bool) (*os.File, error) {
	excl := flag&experimentalsys.O_EXCL != 0
	if flag&experimentalsys.O_CREAT != 0 && (created || excl) {
		h, err := p.dir.OpenFile(p.name, how|os.O_EXCL, newFileMode)
		if excl || !errors.Is(err, fs.ErrExist) {
			return h, err
		} // somebody else was faster
	}
	was, err := p.dir.Lstat(p.name)
	if err != nil {
		return nil, err
	}
	if !was.Mode().IsRegular() {
		return nil, errSwapped
	}
	how &^= os.O_CREATE | os.O_TRUNC
	empty := flag&experimentalsys.O_TRUNC != 0
	if empty && flag&accessMask == 0 {
		how |= os.O_RDWR
	}
	h, err := p.dir.OpenFile(p.name, how, 0)
	if err != nil {
		return nil, err
	}
	now, err := h.Stat()
	if err == nil && !os.SameFile(was, now) {
		err = errSwapped
	}
	if err == nil && empty {
		err = h.Truncate(0)
	}
	if err != nil {
		_ = h.Close() // nothing was written
		return nil, err
	}
	return h, nil
}

// openDir opens a directory for listing.
func (t target) openDir() (*os.File, experimentalsys.Errno) {
	p, e := t.place()
	if e != 0 {
		return nil, e
	}
	if t.strict() && p.name != "." {
		if e := p.enter(p.name); e != 0 {
			return nil, e
		}
		p.name = "."
	}
	defer p.close()
	h, err := p.dir.OpenFile(p.name, os.O_RDONLY|nonblock, 0)
	if err != nil {
		n, _ := errno(err)
		return nil, n
	}
	if fi, err := h.Stat(); err != nil || !fi.IsDir() {
		_ = h.Close() // read only
		return nil, experimentalsys.ENOTDIR
	}
	return h, 0
}

// at runs one call on the directory and the name of the target.
func (f *mountFS) at(t target, call func(dir *os.Root, name string) error) experimentalsys.Errno {
	p, e := t.place()
	if e != 0 {
		return e
	}
	defer p.close()
	return f.fail(t.path, call(p.dir, p.name))
}

// move renames a to b, which are in one tree.
func (f *mountFS) move(a, b target) experimentalsys.Errno {
	if !a.strict() && !b.strict() {
		return f.fail(b.path, a.root.Rename(filepath.FromSlash(a.rel), filepath.FromSlash(b.rel)))
	}
	a.m, b.m = strictly(a.m), strictly(b.m)
	from, e := a.place()
	if e != 0 {
		return e
	}
	defer from.close()
	if path.Dir(a.rel) == path.Dir(b.rel) {
		return f.fail(b.path, from.dir.Rename(from.name, path.Base(b.rel)))
	}
	to, e := b.place()
	if e != 0 {
		return e
	}
	defer to.close()
	return f.fail(b.path, renameBetween(a.root, filepath.FromSlash(a.rel), filepath.FromSlash(b.rel), from, to))
}

// strictly is the mount with its links not followed.
func strictly(m *mount) *mount {
	if !m.follow {
		return m
	}
	c := *m
	c.follow = false
	return &c
}
