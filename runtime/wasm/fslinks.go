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

// errPointsElsewhere is the cause of an EACCES that a guest would not expect.
var errPointsElsewhere = errors.New("not moved: a symbolic link with .. would point elsewhere")

// keepsLinks refuses to move to another directory what would change where a link leads. A link of the host with ".."
// in it points inside today; moved up it points outside of the mount, or into what only others may use, and would wait
// there for whoever follows it next. So such a link keeps its directory, and a directory moves only with links that
// stay below it. Guests make no links with "..", so what was looked at stays so.
func (f *mountFS) keepsLinks(t, to target, old fs.FileInfo) experimentalsys.Errno {
	if t.m.tree.create || old.Mode().IsRegular() || path.Dir(t.rel) == path.Dir(to.rel) { // a directory of its own has no links of the host
		return 0
	}
	if old.Mode()&fs.ModeSymlink != 0 {
		leads, err := t.root.Readlink(filepath.FromSlash(t.rel))
		return f.linkError(t, err, leavesBy(leads) > 0)
	}
	leaves := false
	err := fs.WalkDir(t.root.FS(), t.rel, func(name string, d fs.DirEntry, err error) error {
		f.check()
		if err != nil || d.Type()&fs.ModeSymlink == 0 {
			return err
		}
		leads, err := t.root.Readlink(filepath.FromSlash(name))
		if below := strings.Count(name, "/") - strings.Count(t.rel, "/") - 1; leavesBy(leads) > below {
			leaves, err = true, fs.SkipAll
		}
		return err
	})
	return f.linkError(t, err, leaves)
}

func (f *mountFS) linkError(t target, err error, leaves bool) experimentalsys.Errno {
	if err != nil {
		return f.fail(t.path, err)
	}
	if leaves {
		f.files.cause(f.guest+"/"+t.path, errPointsElsewhere)
		return experimentalsys.EACCES
	}
	return 0
}

// leavesBy is how many directories up a relative link may lead at most; what an absolute one means does not depend on
// where it is. The parts between do not count: each may be a link itself.
func leavesBy(to string) (up int) {
	to = filepath.ToSlash(to)
	if path.IsAbs(to) || filepath.IsAbs(to) {
		return 0
	}
	for part := range strings.SplitSeq(to, "/") {
		if part == ".." {
			up++
		}
	}
	return up
}

// moveKeeping renames a to b, which keepsLinks has allowed, and takes care that this is still so. In one directory no
// link changes; that it is one is made sure of by opening it once.
func (f *mountFS) moveKeeping(a, b target, old fs.FileInfo) experimentalsys.Errno {
	sameDir := path.Dir(a.rel) == path.Dir(b.rel)
	if a.m.tree.create || sameDir && (old.Mode().IsRegular() || a.strict() || b.strict()) { // a strict move opens the directory itself
		return f.move(a, b)
	}
	if sameDir {
		dir, err := a.root.OpenRoot(filepath.FromSlash(path.Dir(a.rel)))
		if err != nil {
			return f.fail(b.path, err)
		}
		defer func() { _ = dir.Close() }() // read only
		return f.fail(b.path, dir.Rename(path.Base(a.rel), path.Base(b.rel)))
	}
	if e := f.move(a, b); e != 0 {
		return e
	}
	if now, e := b.lstat(); e != 0 || os.SameFile(old, now) {
		return 0
	}
	_ = f.move(b, a) // another guest put it there meanwhile, and it was not looked at
	return experimentalsys.EACCES
}
