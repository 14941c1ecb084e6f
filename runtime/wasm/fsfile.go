package wasm

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/sys"

	"github.com/delivery-station/ds/hostabi"
)

var (
	errOpenFiles = fmt.Errorf("more than %d open files", hostabi.MaxOpenFiles)
	errCreated   = fmt.Errorf("more than %d files created", maxCreated)
	errQuota     = errors.New("over the quota")
	errAcross    = errors.New("rename across mounts; grant one directory that holds both")
)

// maxCreated is how many files, directories and links one run may make (security.md section 9): empty ones cost
// no bytes of a quota.
const maxCreated = 100_000

// offset is int64 by a name under which go vet does not take the engine's Seek for a misspelt io.Seeker.
type offset = int64

// fileTable counts the open files and directories of one instance over all its mounts, closes what the guest
// left open, and tells the user causes that the guest cannot see.
type fileTable struct {
	note func(line string)
	open map[*opened]struct{}
	made int // files, directories and links
	told map[string]bool
}

// opened is one entry of the table.
type opened struct{ shut func() }

// add counts one more file; use gets the entry to drop at its end. The top of each preopen, of those of mounts
// and of /ds, is free: the engine opens it by itself and does not expect that to fail.
func (t *fileTable) add(name string, top bool, use func(*opened) (shut func())) experimentalsys.Errno {
	if t.open == nil {
		t.open = make(map[*opened]struct{})
	}
	if len(t.open) >= hostabi.MaxOpenFiles+len(preopens)+1 || !top && len(t.open) >= hostabi.MaxOpenFiles {
		t.cause(name, errOpenFiles)
		return experimentalsys.EIO
	}
	o := &opened{}
	o.shut = use(o)
	t.open[o] = struct{}{}
	return 0
}

// create counts a file, directory or link that the guest is about to make.
func (t *fileTable) create(f *mountFS, p string) experimentalsys.Errno {
	if t.made >= maxCreated {
		t.cause(f.guest+"/"+p, errCreated)
		return experimentalsys.EIO
	}
	t.made++
	return 0
}

func (t *fileTable) drop(o *opened) { delete(t.open, o) }

func (t *fileTable) close() {
	for o := range t.open {
		o.shut()
	}
	t.open = nil
}

// cause prints the reason of an EIO, each reason once.
func (t *fileTable) cause(path string, err error) {
	if t.told == nil {
		t.told = make(map[string]bool)
	}
	if why := err.Error(); !t.told[why] {
		t.told[why] = true
		t.note("warning: " + path + ": " + why)
	}
}

// file is an open regular file.
type file struct {
	fs   *mountFS
	t    target
	h    *os.File
	flag experimentalsys.Oflag
	slot *opened
	high int64 // the file had this size, or the quota paid for it
	far  bool  // the position may be behind the end
}

// shut registers the file in the table.
func (r *file) shut(o *opened) func() {
	r.slot = o
	return func() { _ = r.h.Close() } // what was written is with the system
}

func (r *file) fail(err error) experimentalsys.Errno { return r.fs.fail(r.t.path, err) }

// canChange reports whether the file was opened for writing.
func (r *file) canChange() bool { return r.flag&accessMask != 0 }

// Stat implements sys.File.
func (r *file) Stat() (sys.Stat_t, experimentalsys.Errno) {
	fi, err := r.h.Stat()
	if err != nil {
		return sys.Stat_t{}, r.fail(err)
	}
	return sys.NewStat_t(fi), 0
}

// Dev implements sys.File.
func (r *file) Dev() (uint64, experimentalsys.Errno) {
	st, e := r.Stat()
	return st.Dev, e
}

// Ino implements sys.File.
func (r *file) Ino() (sys.Inode, experimentalsys.Errno) {
	st, e := r.Stat()
	return st.Ino, e
}

// IsDir implements sys.File.
func (r *file) IsDir() (bool, experimentalsys.Errno) { return false, 0 }

// IsAppend implements sys.File.
func (r *file) IsAppend() bool { return r.flag&experimentalsys.O_APPEND != 0 }

// SetAppend implements sys.File: the flag cannot be changed, so the file is opened again, if it is still there.
func (r *file) SetAppend(on bool) experimentalsys.Errno {
	if on == r.IsAppend() {
		return 0
	}
	if !r.canChange() {
		return experimentalsys.EBADF
	}
	flag := r.flag&^(experimentalsys.O_APPEND|experimentalsys.O_CREAT|experimentalsys.O_EXCL|experimentalsys.O_TRUNC) | experimentalsys.O_NOFOLLOW
	if on {
		flag |= experimentalsys.O_APPEND
	}
	h, err := r.t.root.OpenFile(filepath.FromSlash(r.t.rel), osFlags(flag)|nonblock, 0)
	if err != nil {
		return r.fail(err)
	}
	at, err := r.h.Seek(0, io.SeekCurrent)
	if err == nil {
		err = same(r.h, h)
	}
	if err == nil {
		_, err = h.Seek(at, io.SeekStart)
	}
	if err != nil {
		_ = h.Close() // not used
		return r.fail(err)
	}
	_ = r.h.Close() // what was written is with the system
	r.h, r.flag = h, flag
	return 0
}

// same is nil if both are the same file.
func same(a, b *os.File) error {
	x, err := a.Stat()
	if err != nil {
		return err
	}
	y, err := b.Stat()
	if err == nil && !os.SameFile(x, y) {
		err = fs.ErrNotExist
	}
	return err
}

// Read implements sys.File.
func (r *file) Read(b []byte) (int, experimentalsys.Errno) {
	r.fs.check()
	n, err := r.h.Read(b)
	if errors.Is(err, io.EOF) {
		return n, 0
	}
	return n, r.fail(err)
}

// Pread implements sys.File.
func (r *file) Pread(b []byte, off int64) (int, experimentalsys.Errno) {
	r.fs.check()
	if off < 0 {
		return 0, experimentalsys.EINVAL
	}
	n, err := r.h.ReadAt(b, off)
	if errors.Is(err, io.EOF) {
		return n, 0
	}
	return n, r.fail(err)
}

// Seek implements sys.File.
func (r *file) Seek(off offset, whence int) (offset, experimentalsys.Errno) {
	if whence < io.SeekStart || whence > io.SeekEnd {
		return 0, experimentalsys.EINVAL
	}
	at, err := r.h.Seek(off, whence)
	if err != nil {
		return 0, r.fail(err)
	}
	r.far = at > r.high
	return at, 0
}

// Readdir implements sys.File.
func (r *file) Readdir(int) ([]experimentalsys.Dirent, experimentalsys.Errno) {
	return nil, experimentalsys.ENOTDIR
}

// Write implements sys.File. A write over the quota changes nothing.
func (r *file) Write(b []byte) (int, experimentalsys.Errno) {
	r.fs.check()
	if !r.canChange() {
		return 0, experimentalsys.EBADF
	}
	at := int64(-1)
	if r.far && !r.IsAppend() {
		var err error
		if at, err = r.h.Seek(0, io.SeekCurrent); err != nil {
			return 0, r.fail(err)
		}
	}
	if e := r.take(at, len(b)); e != 0 {
		return 0, e
	}
	r.far = false
	n, err := r.h.Write(b)
	return n, r.fail(err)
}

// Pwrite implements sys.File.
func (r *file) Pwrite(b []byte, off int64) (int, experimentalsys.Errno) {
	r.fs.check()
	if !r.canChange() {
		return 0, experimentalsys.EBADF
	}
	if off < 0 {
		return 0, experimentalsys.EINVAL
	}
	if e := r.take(off, len(b)); e != 0 {
		return 0, e
	}
	n, err := pwrite(r.h, b, off)
	return n, r.fail(err)
}

// Truncate implements sys.File. Sparse bytes count.
func (r *file) Truncate(size int64) experimentalsys.Errno {
	if !r.canChange() {
		return experimentalsys.EBADF
	}
	if size < 0 {
		return experimentalsys.EINVAL
	}
	fi, err := r.h.Stat()
	if err != nil {
		return r.fail(err)
	}
	if e := r.pay(size - fi.Size()); e != 0 {
		return e
	}
	r.high = max(r.high, size)
	return r.fail(r.h.Truncate(size))
}

// take pays for n bytes at an offset, -1 when that is not behind the end. A hole that they leave behind the end
// counts too: a guest must not make a file of a TiB with one byte.
func (r *file) take(off int64, n int) experimentalsys.Errno {
	cost := int64(n)
	if off > r.high {
		fi, err := r.h.Stat()
		if err != nil {
			return r.fail(err)
		}
		r.high = max(r.high, fi.Size())
		if hole := off - r.high; hole > 0 {
			cost = addSizes(cost, hole)
		}
	}
	if e := r.pay(cost); e != 0 {
		return e
	}
	if off >= 0 {
		r.high = max(r.high, addSizes(off, int64(n)))
	}
	return 0
}

// addSizes adds two sizes; too much is the largest.
func addSizes(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

func (r *file) pay(n int64) experimentalsys.Errno {
	if !r.t.m.quota.take(n) {
		r.fs.files.cause(r.fs.guest+"/"+r.t.path, errQuota)
		return experimentalsys.EIO
	}
	return 0
}

// Sync implements sys.File.
func (r *file) Sync() experimentalsys.Errno { return r.fail(r.h.Sync()) }

// Datasync implements sys.File.
func (r *file) Datasync() experimentalsys.Errno { return r.Sync() }

// Utimens implements sys.File.
func (r *file) Utimens(atim, mtim int64) experimentalsys.Errno {
	if !r.t.m.write {
		return experimentalsys.EBADF
	}
	fi, err := r.h.Stat()
	if err != nil {
		return r.fail(err)
	}
	now, e := r.t.stat()
	if e != 0 {
		return e
	}
	if !os.SameFile(fi, now) { // renamed or removed since it was opened
		return experimentalsys.ENOENT
	}
	return r.fs.chtimes(r.t, atim, mtim)
}

// Close implements sys.File. It never fails: wazero keeps a descriptor whose Close failed.
func (r *file) Close() experimentalsys.Errno {
	_ = r.h.Close() // what was written is with the system
	r.fs.files.drop(r.slot)
	return 0
}

// dir is an open directory: the union of the mounts that show it. Reading opens one after the other.
type dir struct {
	experimentalsys.DirFile
	fs   *mountFS
	t    target
	slot *opened

	started bool
	from    []*mount // still to be read
	h       *os.File // being read
	m       *mount   // that h belongs to
	rel     string   // of h in m
	extra   []experimentalsys.Dirent
	seen    map[string]bool // nil with one source only
}

func (d *dir) shut(o *opened) func() {
	d.slot = o
	return d.rewind
}

// Stat implements sys.File.
func (d *dir) Stat() (sys.Stat_t, experimentalsys.Errno) { return d.fs.Stat(d.t.path) }

// Dev implements sys.File.
func (d *dir) Dev() (uint64, experimentalsys.Errno) {
	st, e := d.Stat()
	return st.Dev, e
}

// Ino implements sys.File.
func (d *dir) Ino() (sys.Inode, experimentalsys.Errno) {
	st, e := d.Stat()
	return st.Ino, e
}

// Seek implements sys.File: only rewinding.
func (d *dir) Seek(off offset, whence int) (offset, experimentalsys.Errno) {
	if off != 0 || whence != io.SeekStart {
		return 0, experimentalsys.EINVAL
	}
	d.rewind()
	return 0, 0
}

func (d *dir) rewind() {
	if d.h != nil {
		_ = d.h.Close() // read only
	}
	d.h, d.m, d.from, d.extra, d.seen, d.started = nil, nil, nil, nil, nil, false
}

// start lists what has to be read.
func (d *dir) start() {
	d.started = true
	for _, m := range d.fs.mounts {
		rel, ok := below(m.at, d.t.path)
		if !ok {
			continue
		}
		if m.name != "" && rel == "." { // no need to read the directory around it
			if e, ok := m.entry(m.name); ok {
				d.extra = append(d.extra, e)
			}
			continue
		}
		if whole, leads := m.shows(rel); whole || leads {
			d.from = append(d.from, m)
		}
	}
	for _, name := range d.fs.dirs[d.t.path] {
		d.extra = append(d.extra, experimentalsys.Dirent{Name: name, Type: fs.ModeDir, Ino: inode(d.fs.guest + "/" + path.Join(d.t.path, name))})
	}
	if len(d.from) > 1 || len(d.extra) > 0 {
		d.seen = make(map[string]bool)
	}
}

// entry looks at one name of a mount.
func (m *mount) entry(rel string) (experimentalsys.Dirent, bool) {
	root, err := m.tree.root()
	if err != nil {
		return experimentalsys.Dirent{}, false
	}
	fi, err := root.Lstat(filepath.FromSlash(rel))
	if err != nil {
		return experimentalsys.Dirent{}, false
	}
	return dirent(fi), true
}

func dirent(fi fs.FileInfo) experimentalsys.Dirent {
	return experimentalsys.Dirent{Name: fi.Name(), Type: fi.Mode().Type(), Ino: sys.NewStat_t(fi).Ino}
}

// Readdir implements sys.File: at most n entries, all with n <= 0; fewer than n is the end. Entries that
// vanish meanwhile are skipped.
func (d *dir) Readdir(n int) ([]experimentalsys.Dirent, experimentalsys.Errno) {
	d.fs.check()
	if !d.started {
		d.start()
	}
	var out []experimentalsys.Dirent
	for n <= 0 || len(out) < n {
		if len(d.extra) > 0 {
			out = d.emit(out, d.extra[0])
			d.extra = d.extra[1:]
			continue
		}
		if d.h == nil {
			if len(d.from) == 0 {
				return out, 0
			}
			d.next()
			continue
		}
		want := 128
		if n > 0 {
			want = min(want, n-len(out))
		}
		list, err := d.h.Readdir(want)
		for _, fi := range list {
			if whole, leads := d.m.shows(path.Join(d.rel, fi.Name())); whole || leads && fi.IsDir() {
				out = d.emit(out, dirent(fi))
			}
		}
		if err != nil {
			_ = d.h.Close() // read only
			d.h = nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return out, d.fs.fail(d.t.path, err)
		}
	}
	return out, 0
}

// next opens the next directory; one that is not there has no entries.
func (d *dir) next() {
	m := d.from[0]
	d.from = d.from[1:]
	rel, _ := below(m.at, d.t.path)
	root, err := m.tree.root()
	if err != nil {
		return
	}
	t := target{m: m, root: root, rel: rel}
	if t.careful() {
		var e experimentalsys.Errno
		if t, e = t.withoutLinks(true); e != 0 {
			return
		}
	}
	if h, e := t.openDir(); e == 0 {
		d.h, d.m, d.rel = h, m, t.rel
	}
}

func (d *dir) emit(out []experimentalsys.Dirent, e experimentalsys.Dirent) []experimentalsys.Dirent {
	if d.seen != nil {
		if d.seen[e.Name] {
			return out
		}
		d.seen[e.Name] = true
	}
	return append(out, e)
}

// Sync implements sys.File.
func (d *dir) Sync() experimentalsys.Errno { return 0 }

// Datasync implements sys.File.
func (d *dir) Datasync() experimentalsys.Errno { return 0 }

// Utimens implements sys.File.
func (d *dir) Utimens(atim, mtim int64) experimentalsys.Errno {
	return d.fs.Utimens(d.t.path, atim, mtim)
}

// Close implements sys.File.
func (d *dir) Close() experimentalsys.Errno {
	d.rewind()
	d.fs.files.drop(d.slot)
	return 0
}

// inode is a stable number for what has none; never 0, which guests take for a deleted name.
func inode(name string) sys.Inode {
	h := fnv.New64a()
	_, _ = h.Write([]byte(path.Clean(name))) // never fails
	return h.Sum64() | 1
}
