package wasm

import (
	"cmp"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/sys"
)

const (
	accessMask = experimentalsys.O_RDWR | experimentalsys.O_WRONLY
	changeMask = accessMask | experimentalsys.O_CREAT | experimentalsys.O_TRUNC | experimentalsys.O_APPEND

	newFileMode = 0o644
	newDirMode  = 0o755
)

// OpenFile implements sys.FS. The permission bits of the guest are ignored.
func (f *mountFS) OpenFile(name string, flag experimentalsys.Oflag, _ fs.FileMode) (experimentalsys.File, experimentalsys.Errno) {
	p, slash, e := cleanName(name)
	if e != 0 {
		return nil, e
	}
	t, e := f.resolve(p)
	if e == experimentalsys.ENOENT && flag&experimentalsys.O_CREAT != 0 && f.leadsTo(path.Dir(p)) {
		return nil, experimentalsys.EACCES
	}
	if e != 0 {
		return nil, e
	}
	if t.m == nil || t.root == nil {
		return f.openDir(t, flag)
	}
	fi, e := t.lstat()
	if e == experimentalsys.ENOENT && flag&experimentalsys.O_CREAT != 0 {
		if slash {
			return nil, experimentalsys.EISDIR
		}
		return f.openFile(t, flag, true)
	}
	if e != 0 {
		return nil, e
	}
	if fi.Mode()&fs.ModeSymlink != 0 {
		if flag&experimentalsys.O_NOFOLLOW != 0 && flag&experimentalsys.O_DIRECTORY != 0 {
			return nil, experimentalsys.ENOTDIR
		}
		if flag&experimentalsys.O_NOFOLLOW != 0 {
			return nil, experimentalsys.ELOOP
		}
		if t, fi, e = t.followed(); e != 0 {
			return nil, e
		}
	}
	switch fi.Mode().Type() {
	case fs.ModeDir:
		return f.openDir(t, flag)
	case 0:
		if slash || flag&experimentalsys.O_DIRECTORY != 0 {
			return nil, experimentalsys.ENOTDIR
		}
		return f.openFile(t, flag, false)
	}
	return nil, experimentalsys.EACCES // devices, pipes, sockets
}

// openDir opens a directory. Nothing of the host is touched before it is read.
func (f *mountFS) openDir(t target, flag experimentalsys.Oflag) (experimentalsys.File, experimentalsys.Errno) {
	if flag&experimentalsys.O_CREAT != 0 && flag&experimentalsys.O_EXCL != 0 {
		return nil, experimentalsys.EEXIST
	}
	if flag&changeMask != 0 {
		return nil, experimentalsys.EISDIR
	}
	d := &dir{fs: f, t: t}
	if e := f.files.add(f.guest+"/"+t.path, t.path == ".", d.shut); e != 0 {
		return nil, e
	}
	return d, 0
}

// openFile opens a regular file; created says that there is none yet.
func (f *mountFS) openFile(t target, flag experimentalsys.Oflag, created bool) (experimentalsys.File, experimentalsys.Errno) {
	if !t.whole && flag&experimentalsys.O_CREAT != 0 {
		return nil, experimentalsys.EACCES
	}
	if !t.whole { // what is not granted does not exist, as in Stat and Readdir
		return nil, experimentalsys.ENOENT
	}
	if flag&changeMask != 0 && !t.m.write {
		return nil, experimentalsys.EROFS
	}
	if created {
		if e := f.files.create(f, t.path); e != 0 {
			return nil, e
		}
	}
	h, e := f.openAt(t, flag, created)
	if e != 0 {
		return nil, e
	}
	if fi, err := h.Stat(); err != nil || !fi.Mode().IsRegular() {
		_ = h.Close() // it was replaced since we looked
		return nil, experimentalsys.EACCES
	}
	r := &file{fs: f, t: t, h: h, flag: flag}
	if e := f.files.add(f.guest+"/"+t.path, t.path == ".", r.shut); e != 0 {
		_ = h.Close() // nothing was written
		return nil, e
	}
	return r, 0
}

// osFlags translates open flags; the checks above have seen all that it drops.
func osFlags(flag experimentalsys.Oflag) int {
	out := os.O_RDONLY
	switch flag & accessMask {
	case experimentalsys.O_RDWR, accessMask:
		out = os.O_RDWR
	case experimentalsys.O_WRONLY:
		out = os.O_WRONLY
	}
	for _, f := range []struct {
		from experimentalsys.Oflag
		to   int
	}{
		{experimentalsys.O_APPEND, os.O_APPEND},
		{experimentalsys.O_CREAT, os.O_CREATE},
		{experimentalsys.O_EXCL, os.O_EXCL},
		{experimentalsys.O_TRUNC, os.O_TRUNC},
		{experimentalsys.O_SYNC | experimentalsys.O_DSYNC, os.O_SYNC},
	} {
		if flag&f.from != 0 {
			out |= f.to
		}
	}
	return out
}

// Lstat implements sys.FS.
func (f *mountFS) Lstat(name string) (sys.Stat_t, experimentalsys.Errno) {
	return f.look(name, target.lstat)
}

// Stat implements sys.FS.
func (f *mountFS) Stat(name string) (sys.Stat_t, experimentalsys.Errno) {
	return f.look(name, target.stat)
}

func (f *mountFS) look(name string, how func(target) (fs.FileInfo, experimentalsys.Errno)) (sys.Stat_t, experimentalsys.Errno) {
	p, slash, e := cleanName(name)
	if e != 0 {
		return sys.Stat_t{}, e
	}
	t, e := f.resolve(p)
	if e != 0 {
		return sys.Stat_t{}, e
	}
	if t.m == nil || t.root == nil {
		return virtualStat(f.guest, p), 0
	}
	if slash { // a trailing slash follows a link
		how = target.stat
	}
	fi, e := how(t)
	if e != 0 {
		return sys.Stat_t{}, e
	}
	if slash && !fi.IsDir() {
		return sys.Stat_t{}, experimentalsys.ENOTDIR
	}
	if !t.whole && !fi.IsDir() {
		return sys.Stat_t{}, experimentalsys.ENOENT // on the way to nothing
	}
	return sys.NewStat_t(fi), 0
}

// Mkdir implements sys.FS.
func (f *mountFS) Mkdir(name string, _ fs.FileMode) experimentalsys.Errno {
	if p, _, e := cleanName(name); e == 0 && f.leadsTo(p) {
		if _, e := f.Lstat(name); e == 0 {
			return experimentalsys.EEXIST
		}
	}
	t, _, e := f.change(name)
	if e != 0 {
		return e
	}
	if e := f.files.create(f, t.path); e != 0 {
		return e
	}
	return f.at(t, func(dir *os.Root, name string) error { return dir.Mkdir(name, newDirMode) })
}

// Unlink implements sys.FS: files and links only.
func (f *mountFS) Unlink(name string) experimentalsys.Errno {
	t, slash, e := f.change(name)
	if e != 0 {
		return e
	}
	fi, e := t.lstat()
	switch {
	case e != 0:
		return e
	case fi.IsDir():
		return experimentalsys.EISDIR
	case slash:
		return experimentalsys.ENOTDIR
	}
	return f.at(t, (*os.Root).Remove)
}

// Rmdir implements sys.FS: empty directories only.
func (f *mountFS) Rmdir(name string) experimentalsys.Errno {
	t, _, e := f.change(name)
	if e != 0 {
		return e
	}
	fi, e := t.lstat()
	if e != 0 {
		return e
	}
	if !fi.IsDir() {
		return experimentalsys.ENOTDIR
	}
	return f.at(t, (*os.Root).Remove)
}

// Rename implements sys.FS, within one host directory.
func (f *mountFS) Rename(from, to string) experimentalsys.Errno {
	a, slashA, e := f.change(from)
	if e != 0 {
		return e
	}
	b, slashB, e := f.change(to)
	if e != 0 {
		return e
	}
	if a.root != b.root {
		f.files.cause(f.guest+"/"+b.path, errAcross)
		return experimentalsys.EIO
	}
	old, e := a.lstat()
	if e != 0 {
		return e
	}
	if (slashA || slashB) && !old.IsDir() {
		return experimentalsys.ENOTDIR
	}
	if old.IsDir() && !a.m.covers(a.rel) {
		return experimentalsys.EACCES
	}
	if e := f.keepsLinks(a, b, old); e != 0 {
		return e
	}
	have, e := b.lstat()
	switch {
	case e == experimentalsys.ENOENT:
	case e != 0:
		return e
	case os.SameFile(old, have):
		return 0
	case have.IsDir() && !old.IsDir():
		return experimentalsys.EISDIR
	case !have.IsDir() && old.IsDir():
		return experimentalsys.ENOTDIR
	case have.IsDir(): // Go refuses to rename over a directory, POSIX allows it over an empty one
		if strings.HasPrefix(b.rel+"/", a.rel+"/") {
			return experimentalsys.EINVAL
		}
		if e := f.at(b, (*os.Root).Remove); e != 0 {
			return e
		}
	}
	return f.moveKeeping(a, b, old)
}

// Link implements sys.FS.
func (f *mountFS) Link(_, _ string) experimentalsys.Errno { return experimentalsys.ENOTSUP }

// Symlink implements sys.FS. A link that points inside today can be renamed to point outside, and would wait
// there for the host: so links are made in /tmp only, relative and without "..".
func (f *mountFS) Symlink(old, name string) experimentalsys.Errno {
	t, slash, e := f.change(name)
	if e != 0 {
		return e
	}
	if !t.m.links {
		return experimentalsys.ENOTSUP
	}
	if slash { // a link is no directory
		if fi, e := t.lstat(); e != 0 || !fi.IsDir() {
			return cmp.Or(e, experimentalsys.ENOTDIR)
		}
		return experimentalsys.EEXIST
	}
	old = strings.Clone(old) // wazero passes a view of guest memory
	if old == "" || len(old) > maxPath || path.IsAbs(old) || !filepath.IsLocal(filepath.FromSlash(old)) || slices.Contains(strings.Split(old, "/"), "..") {
		return experimentalsys.EACCES
	}
	if e := f.files.create(f, t.path); e != 0 {
		return e
	}
	return f.at(t, func(dir *os.Root, name string) error { return dir.Symlink(filepath.FromSlash(old), name) })
}

// Readlink implements sys.FS. Absolute targets are paths of the host and stay hidden.
func (f *mountFS) Readlink(name string) (string, experimentalsys.Errno) {
	p, _, e := cleanName(name)
	if e != 0 {
		return "", e
	}
	t, e := f.resolve(p)
	if e != 0 {
		return "", e
	}
	if t.m == nil || t.root == nil || !t.whole {
		return "", experimentalsys.EINVAL
	}
	fi, e := t.lstat()
	if e != 0 {
		return "", e
	}
	if fi.Mode()&fs.ModeSymlink == 0 {
		return "", experimentalsys.EINVAL
	}
	var to string
	e = f.at(t, func(dir *os.Root, name string) (err error) {
		to, err = dir.Readlink(name)
		return err
	})
	if e != 0 {
		return "", e
	}
	if filepath.IsAbs(to) || path.IsAbs(to) {
		return "", experimentalsys.EACCES
	}
	return filepath.ToSlash(to), 0
}

// Utimens implements sys.FS.
func (f *mountFS) Utimens(name string, atim, mtim int64) experimentalsys.Errno {
	t, _, e := f.change(name)
	if e != 0 {
		return e
	}
	return f.chtimes(t, atim, mtim)
}

func (f *mountFS) chtimes(t target, atim, mtim int64) experimentalsys.Errno {
	t, _, e := t.followed()
	if e != 0 {
		return e
	}
	return f.at(t, func(dir *os.Root, name string) error { return dir.Chtimes(name, timeOf(atim), timeOf(mtim)) })
}

// timeOf is a time for os.Root.Chtimes, which keeps what is zero.
func timeOf(ns int64) time.Time {
	if ns == experimentalsys.UTIME_OMIT {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// virtualStat is the state of a directory that exists for guests only.
func virtualStat(guest, p string) sys.Stat_t {
	return sys.Stat_t{Mode: fs.ModeDir | 0o555, Nlink: 2, Ino: inode(guest + "/" + p)}
}
