package wasm

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"

	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

const (
	rdonly = experimentalsys.O_RDONLY
	wronly = experimentalsys.O_WRONLY
	rdwr   = experimentalsys.O_RDWR
	creat  = experimentalsys.O_CREAT
	excl   = experimentalsys.O_EXCL
	trunc  = experimentalsys.O_TRUNC
	appnd  = experimentalsys.O_APPEND
	dirf   = experimentalsys.O_DIRECTORY
	nofol  = experimentalsys.O_NOFOLLOW
)

// world is a host with a secret outside and mounts inside.
type world struct {
	t     *testing.T
	base  string
	notes bytes.Buffer
	by    map[string]*mountFS
	in    *instance
}

// newWorld makes files ("dir/" is a directory, "a -> b" a link) below <base>/in and a secret beside it.
func newWorld(t *testing.T, files []string, box func(base string) fakeBox) *world {
	t.Helper()
	w := &world{t: t, base: t.TempDir(), by: make(map[string]*mountFS)}
	w.host("secret/key", "secret")
	for _, f := range files {
		if name, to, ok := strings.Cut(f, " -> "); ok {
			w.mkdir(filepath.Dir("in/" + name))
			if err := os.Symlink(strings.ReplaceAll(to, "$BASE", w.base), filepath.Join(w.base, "in", name)); err != nil {
				t.Skipf("no symbolic links here: %v", err)
			}
			continue
		}
		if strings.HasSuffix(f, "/") {
			w.mkdir("in/" + f)
			continue
		}
		w.host("in/"+f, "content of "+f)
	}
	w.in = &instance{backend: New(Options{TempDir: w.base}), plugin: &plugin.Installed{Program: &plugin.Program{}}}
	w.in.files = &fileTable{note: func(s string) { w.notes.WriteString(s + "\n") }}
	for _, m := range openMounts(w.in, box(w.base)) {
		w.by[m.guest] = m
		t.Cleanup(func() {
			if err := m.close(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(w.in.files.close)
	return w
}

func (w *world) mkdir(name string) {
	if err := os.MkdirAll(filepath.Join(w.base, name), 0o700); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) host(name, text string) {
	w.mkdir(filepath.Dir(name))
	if err := os.WriteFile(filepath.Join(w.base, name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) read(name string) string {
	b, err := os.ReadFile(filepath.Join(w.base, name))
	if err != nil {
		return "error: " + err.Error()
	}
	return string(b)
}

// list is what a guest sees in a directory, directories with a slash.
func (w *world) list(m *mountFS, name string) []string {
	w.t.Helper()
	f, e := m.OpenFile(name, dirf, 0)
	if e != 0 {
		return []string{e.Error()}
	}
	defer f.Close()
	var names []string
	for {
		entries, e := f.Readdir(2)
		if e != 0 {
			w.t.Errorf("readdir %s: %v", name, e)
		}
		for _, d := range entries {
			if d.Ino == 0 && runtime.GOOS != "windows" {
				w.t.Errorf("%s has no inode", d.Name)
			}
			if d.IsDir() {
				d.Name += "/"
			}
			names = append(names, d.Name)
		}
		if len(entries) < 2 {
			break
		}
	}
	slices.Sort(names)
	return names
}

func open(m *mountFS, name string, flag experimentalsys.Oflag) experimentalsys.Errno {
	f, e := m.OpenFile(name, flag, 0)
	if e == 0 {
		f.Close()
	}
	return e
}

func rw(base string) fakeBox {
	return fakeBox{mounts: []sandbox.Mount{{Host: base + "/in", Guest: "/cwd", Write: true, Follow: true}}}
}

func ro(base string) fakeBox {
	return fakeBox{mounts: []sandbox.Mount{{Host: base + "/in", Guest: "/cwd", Follow: true}}}
}

func noFollow(base string) fakeBox {
	return fakeBox{mounts: []sandbox.Mount{{Host: base + "/in", Guest: "/cwd", Write: true}}}
}

// TestEscapes: no name leads out of the mount.
func TestEscapes(t *testing.T) {
	t.Parallel()
	links := []string{
		"d/f", "out -> ../secret", "outfile -> ../secret/key", "abs -> $BASE/secret", "absfile -> $BASE/secret/key",
		"root -> /", "proc -> /proc/self", "up -> ..", "chain -> out", "d/deep -> ../../secret", "dangling -> ../secret/new",
	}
	names := []string{
		"../secret/key", "../../etc/passwd", "/etc/passwd", "/../secret/key", "d/../../secret/key", "..", "../", "/..",
		"out/key", "outfile", "abs/key", "absfile", "root/etc/passwd", "proc/environ", "proc/root/etc/passwd", "up/secret/key",
		"chain/key", "d/deep/key", "dangling", "/proc/self/environ", "./../secret/key", "d/./../../secret/key", "//../secret/key",
	}
	for _, mode := range []struct {
		name string
		box  func(string) fakeBox
	}{{"writable", rw}, {"read-only", ro}, {"links not followed", noFollow}} {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, links, mode.box)
			m := w.by["/cwd"]
			for _, n := range names {
				for _, flag := range []experimentalsys.Oflag{rdonly, rdwr, wronly | creat, wronly | creat | trunc, rdonly | trunc, rdonly | creat, dirf, rdonly | nofol} {
					if f, e := m.OpenFile(n, flag, 0); e == 0 {
						if isDir, _ := f.IsDir(); !isDir {
							b := make([]byte, 100)
							n2, _ := f.Read(b)
							t.Errorf("open %q with %x: got %q", n, flag, b[:n2])
						}
						f.Close()
					}
				}
				if st, e := m.Stat(n); e == 0 {
					t.Errorf("stat %q: %+v", n, st)
				}
				if s, e := m.Readlink(n); e == 0 && (filepath.IsAbs(s) || strings.Contains(s, w.base)) {
					t.Errorf("readlink %q: %q", n, s)
				}
				if e := m.Mkdir(n+"x", 0); e == 0 && strings.Contains(n, "/") {
					t.Errorf("mkdir %q", n+"x")
				}
				if e := m.Rename("d/f", n+"/moved"); e == 0 {
					t.Errorf("rename to %q", n+"/moved")
				}
				if e := m.Utimens(n, 1, 1); e == 0 {
					t.Errorf("utimens %q", n)
				}
			}
			entries, err := os.ReadDir(filepath.Join(w.base, "secret"))
			if err != nil || len(entries) != 1 || w.read("secret/key") != "secret" {
				t.Errorf("outside was changed: %v, %q, %v", entries, w.read("secret/key"), err)
			}
			if fi, err := os.Stat(filepath.Join(w.base, "secret/key")); err != nil || fi.ModTime().Unix() == 0 {
				t.Errorf("times outside were changed: %v", err)
			}
		})
	}
}

// TestEscapesAreAlive: the same names work where links are allowed to lead.
func TestLinksInside(t *testing.T) {
	t.Parallel()
	files := []string{"d/f", "in -> d", "infile -> d/f", "abs -> $BASE/in/d"}
	w := newWorld(t, files, rw)
	m := w.by["/cwd"]
	for name, want := range map[string]experimentalsys.Errno{"in/f": 0, "infile": 0, "abs/f": experimentalsys.EACCES} {
		if e := open(m, name, rdonly); e != want {
			t.Errorf("%s: %v, want %v", name, e, want)
		}
	}
	if e := open(m, "infile", nofol); e != experimentalsys.ELOOP {
		t.Errorf("O_NOFOLLOW: %v", e)
	}
	if e := open(m, "in", nofol|dirf); e != experimentalsys.ENOTDIR {
		t.Errorf("O_NOFOLLOW|O_DIRECTORY: %v", e)
	}
	if s, e := m.Readlink("infile"); s != "d/f" || e != 0 {
		t.Errorf("readlink: %q %v", s, e)
	}
	if _, e := m.Readlink("abs"); e != experimentalsys.EACCES {
		t.Errorf("readlink of an absolute target: %v", e)
	}
	if _, e := m.Readlink("d/f"); e != experimentalsys.EINVAL {
		t.Errorf("readlink of a file: %v", e)
	}
	n := newWorld(t, files, noFollow).by["/cwd"]
	for name, want := range map[string]experimentalsys.Errno{"in/f": experimentalsys.EACCES, "infile": experimentalsys.ELOOP, "d/f": 0} {
		if e := open(n, name, rdonly); e != want {
			t.Errorf("not followed: %s: %v, want %v", name, e, want)
		}
	}
	if st, e := n.Lstat("infile"); e != 0 || st.Mode&fs.ModeSymlink == 0 {
		t.Errorf("lstat: %v %v", st.Mode, e)
	}
}

func TestGuestLinks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, []string{"f"}, rw)
	cwd, tmp := w.by["/cwd"], w.by["/tmp"]
	if e := cwd.Symlink("f", "l"); e != experimentalsys.ENOTSUP {
		t.Errorf("link in /cwd: %v", e)
	}
	if e := cwd.Link("f", "l"); e != experimentalsys.ENOTSUP {
		t.Errorf("hard link: %v", e)
	}
	for to, want := range map[string]experimentalsys.Errno{
		"f": 0, "d/f": 0, "/etc/passwd": experimentalsys.EACCES, "../x": experimentalsys.EACCES, "a/../b": experimentalsys.EACCES, "": experimentalsys.EACCES,
	} {
		if e := tmp.Symlink(to, "l"+strings.ReplaceAll(to, "/", "_")); e != want {
			t.Errorf("link to %q: %v, want %v", to, e, want)
		}
	}
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, []string{"f", "d/g"}, ro)
	m := w.by["/cwd"]
	for name, flag := range map[string]experimentalsys.Oflag{
		"O_WRONLY": wronly, "O_RDWR": rdwr, "O_CREAT": creat, "O_TRUNC": trunc, "O_APPEND": appnd, "O_CREAT|O_EXCL": creat | excl, "O_TRUNC|O_RDWR": trunc | rdwr,
	} {
		if e := open(m, "f", flag); e != experimentalsys.EROFS {
			t.Errorf("%s: %v", name, e)
		}
	}
	if e := open(m, "new", wronly|creat); e != experimentalsys.EROFS {
		t.Errorf("create: %v", e)
	}
	for name, e := range map[string]experimentalsys.Errno{
		"mkdir": m.Mkdir("x", 0), "unlink": m.Unlink("f"), "rmdir": m.Rmdir("d"), "rename": m.Rename("f", "g"),
		"utimens": m.Utimens("f", 0, 0), "symlink": m.Symlink("f", "l"),
	} {
		if e != experimentalsys.EROFS {
			t.Errorf("%s: %v", name, e)
		}
	}
	f, e := m.OpenFile("f", rdonly, 0)
	if e != 0 {
		t.Fatal(e)
	}
	defer f.Close()
	_, we := f.Write([]byte("x"))
	_, pe := f.Pwrite([]byte("x"), 0)
	for name, e := range map[string]experimentalsys.Errno{"write": we, "pwrite": pe, "truncate": f.Truncate(0), "utimens": f.Utimens(0, 0), "append": f.SetAppend(true)} {
		if e != experimentalsys.EBADF {
			t.Errorf("file %s: %v", name, e)
		}
	}
	if w.read("in/f") != "content of f" {
		t.Errorf("changed: %q", w.read("in/f"))
	}
}

// TestErrnos: what POSIX says where os.Root or wazero would say something else.
func TestErrnos(t *testing.T) {
	t.Parallel()
	w := newWorld(t, []string{"f", "g", "d/x", "e/", "full/x"}, rw)
	m := w.by["/cwd"]
	if err := mkfifo(filepath.Join(w.base, "in/fifo")); err == nil {
		if e := open(m, "fifo", rdonly); e != experimentalsys.EACCES {
			t.Errorf("fifo: %v", e)
		}
	}
	long := strings.Repeat("n", 256)
	for name, c := range map[string]struct{ got, want experimentalsys.Errno }{
		"long part":             {open(m, long, rdonly), experimentalsys.ENAMETOOLONG},
		"long path":             {open(m, strings.Repeat("d/", 2100), rdonly), experimentalsys.ENAMETOOLONG},
		"NUL":                   {open(m, "a\x00b", rdonly), experimentalsys.EINVAL},
		"missing":               {open(m, "nope", rdonly), experimentalsys.ENOENT},
		"below a file":          {open(m, "f/x", rdonly), experimentalsys.ENOTDIR},
		"file with slash":       {open(m, "f/", rdonly), experimentalsys.ENOTDIR},
		"create with slash":     {open(m, "new/", wronly|creat), experimentalsys.EISDIR},
		"directory to write":    {open(m, "d", wronly), experimentalsys.EISDIR},
		"O_DIRECTORY to write":  {open(m, "d", dirf|rdwr), experimentalsys.EISDIR},
		"O_DIRECTORY on a file": {open(m, "f", dirf), experimentalsys.ENOTDIR},
		"O_EXCL":                {open(m, "f", wronly|creat|excl), experimentalsys.EEXIST},
		"leading slash":         {open(m, "/d/x", rdonly), 0},
		"unlink directory":      {m.Unlink("d"), experimentalsys.EISDIR},
		"unlink with slash":     {m.Unlink("f/"), experimentalsys.ENOTDIR},
		"unlink missing":        {m.Unlink("nope"), experimentalsys.ENOENT},
		"rmdir file":            {m.Rmdir("f"), experimentalsys.ENOTDIR},
		"rmdir full":            {m.Rmdir("full"), experimentalsys.ENOTEMPTY},
		"rmdir mount":           {m.Rmdir("."), experimentalsys.EACCES},
		"mkdir existing":        {m.Mkdir("d", 0), experimentalsys.EEXIST},
		"mkdir below missing":   {m.Mkdir("nope/x", 0), experimentalsys.ENOENT},
		"file over directory":   {m.Rename("f", "e"), experimentalsys.EISDIR},
		"directory over file":   {m.Rename("d", "f"), experimentalsys.ENOTDIR},
		"directory over full":   {m.Rename("d", "full"), experimentalsys.ENOTEMPTY},
		"directory into itself": {m.Rename("d", "d/y"), experimentalsys.EINVAL},
		"rename missing":        {m.Rename("nope", "x"), experimentalsys.ENOENT},
		"rename with slash":     {m.Rename("f/", "x"), experimentalsys.ENOTDIR},
		"directory over empty":  {m.Rename("d", "e"), 0},
		"file over file":        {m.Rename("g", "f"), 0},
		"utimens missing":       {m.Utimens("nope", 0, 0), experimentalsys.ENOENT},
		"stat with slash":       {statErrno(m, "f/"), experimentalsys.ENOTDIR},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
	if w.read("in/f") != "content of g" || w.read("in/e/x") != "content of d/x" {
		t.Errorf("renames did not happen: %q %q", w.read("in/f"), w.read("in/e/x"))
	}
}

func statErrno(m *mountFS, name string) experimentalsys.Errno {
	_, e := m.Stat(name)
	return e
}

func TestFileOperations(t *testing.T) {
	t.Parallel()
	w := newWorld(t, []string{"f"}, rw)
	m := w.by["/cwd"]
	f, e := m.OpenFile("new", rdwr|creat, 0o777)
	if e != 0 {
		t.Fatal(e)
	}
	if fi, err := os.Stat(filepath.Join(w.base, "in/new")); err != nil || fi.Mode().Perm()&0o133 != 0 {
		t.Errorf("mode of a new file: %v %v", fi.Mode(), err)
	}
	if n, e := f.Write([]byte("0123456789")); n != 10 || e != 0 {
		t.Errorf("write: %d %v", n, e)
	}
	if e := f.SetAppend(true); e != 0 || !f.IsAppend() {
		t.Errorf("append: %v", e)
	}
	if n, e := f.Pwrite([]byte("AB"), 0); n != 2 || e != 0 {
		t.Errorf("pwrite on a file opened for appending: %d %v", n, e)
	}
	if n, e := f.Write([]byte("x")); n != 1 || e != 0 {
		t.Errorf("append: %d %v", n, e)
	}
	if e := f.SetAppend(false); e != 0 || f.IsAppend() {
		t.Errorf("no append: %v", e)
	}
	if at, e := f.Seek(1, io.SeekStart); at != 1 || e != 0 {
		t.Errorf("seek: %d %v", at, e)
	}
	b := make([]byte, 4)
	if n, e := f.Read(b); n != 4 || e != 0 {
		t.Errorf("read: %d %v", n, e)
	}
	if n, e := f.Pread(make([]byte, 10), 8); n < 3 || n > 5 || e != 0 { // Linux appends in pwrite, too
		t.Errorf("pread at the end: %d %v", n, e)
	}
	if _, e := f.Seek(-1, io.SeekStart); e != experimentalsys.EINVAL {
		t.Errorf("seek before the start: %v", e)
	}
	if _, e := f.Seek(0, 7); e != experimentalsys.EINVAL {
		t.Errorf("unknown whence: %v", e)
	}
	if e := f.Truncate(-1); e != experimentalsys.EINVAL {
		t.Errorf("negative size: %v", e)
	}
	if e := f.Truncate(3); e != 0 || len(w.read("in/new")) != 3 {
		t.Errorf("truncate: %v %q", e, w.read("in/new"))
	}
	day := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	if e := f.Utimens(experimentalsys.UTIME_OMIT, day.UnixNano()); e != 0 {
		t.Errorf("utimens: %v", e)
	}
	st, e := f.Stat()
	if e != 0 || st.Mtim != day.UnixNano() || st.Atim == day.UnixNano() {
		t.Errorf("times: %+v %v", st, e)
	}
	if dev, e := f.Dev(); e != 0 || dev != st.Dev {
		t.Errorf("dev: %v", e)
	}
	if ino, e := f.Ino(); e != 0 || ino != st.Ino {
		t.Errorf("ino: %v", e)
	}
	if e := f.Sync(); e != 0 {
		t.Errorf("sync: %v", e)
	}
	if e := f.Datasync(); e != 0 {
		t.Errorf("datasync: %v", e)
	}
	if _, e := f.Readdir(1); e != experimentalsys.ENOTDIR {
		t.Errorf("readdir of a file: %v", e)
	}
	if e := m.Unlink("new"); e != 0 {
		t.Errorf("unlink: %v", e)
	}
	if e := f.Utimens(0, 0); e != experimentalsys.ENOENT {
		t.Errorf("times of a removed file: %v", e)
	}
	if e := f.SetAppend(true); e != experimentalsys.ENOENT {
		t.Errorf("append to a removed file: %v", e)
	}
	if e := f.Close(); e != 0 {
		t.Errorf("close: %v", e)
	}
	if e := f.Close(); e != 0 {
		t.Errorf("second close: %v", e)
	}
	if e := m.Mkdir("sub", 0); e != 0 {
		t.Errorf("mkdir: %v", e)
	}
	if e := m.Utimens("sub", day.UnixNano(), day.UnixNano()); e != 0 {
		t.Errorf("utimens of a directory: %v", e)
	}
	if e := m.Rmdir("sub"); e != 0 {
		t.Errorf("rmdir: %v", e)
	}
}

// TestUnion: a guest sees the union of its mounts and nothing that was not granted.
func TestUnion(t *testing.T) {
	t.Parallel()
	files := []string{
		"a.txt", "b.txt", "hidden", "dist/out.o", "dist/readme", "src/main.go", "src/x/y.go", "src/x/z.c", "other/o", "deep/er/file",
	}
	w := newWorld(t, files, func(base string) fakeBox {
		in := base + "/in"
		return fakeBox{mounts: []sandbox.Mount{
			{Host: in, Guest: "/cwd", Name: "a.txt"},
			{Host: in, Guest: "/cwd", Name: "b.txt", Write: true},
			{Host: in, Guest: "/cwd", Name: "made", Write: true, Create: true},
			{Host: in, Guest: "/cwd", Patterns: []string{"src/**/*.go"}},
			{Host: in + "/dist", Guest: "/cwd/dist", Write: true, Patterns: []string{"*.o"}},
			{Host: in + "/deep/er", Guest: "/cwd/deep/er", Follow: true},
			{Host: in + "/other", Guest: "/args/3", Name: "o"},
			{Host: base + "/none", Guest: "/home/none"},
			{Host: base + "/secret", Guest: "/weird/place"},
		}}
	})
	cwd := w.by["/cwd"]
	if _, ok := w.by["/weird"]; ok {
		t.Error("mount outside the guest's tree")
	}
	for name, want := range map[string][]string{
		".":       {"a.txt", "b.txt", "deep/", "dist/", "src/"},
		"/":       {"a.txt", "b.txt", "deep/", "dist/", "src/"},
		"src":     {"main.go", "x/"},
		"src/x":   {"y.go"},
		"dist":    {"out.o"},
		"deep":    {"er/"},
		"deep/er": {"file"},
		"other":   {experimentalsys.ENOENT.Error()},
	} {
		if got := w.list(cwd, name); !slices.Equal(got, want) {
			t.Errorf("ls %s: %q, want %q", name, got, want)
		}
	}
	if got := w.list(w.by["/args"], "."); !slices.Equal(got, []string{"3/"}) {
		t.Errorf("ls /args: %q", got)
	}
	if got := w.list(w.by["/args"], "3"); !slices.Equal(got, []string{"o"}) {
		t.Errorf("ls /args/3: %q", got)
	}
	for name, c := range map[string]struct {
		flag experimentalsys.Oflag
		want experimentalsys.Errno
	}{
		"a.txt":          {rdonly, 0},
		"b.txt":          {rdwr, 0},
		"hidden":         {rdonly, experimentalsys.ENOENT},
		"src/x/z.c":      {rdonly, experimentalsys.ENOENT},
		"dist/readme":    {rdonly, experimentalsys.ENOENT},
		"dist/new.o":     {wronly | creat, 0},
		"dist/new.c":     {wronly | creat, experimentalsys.EACCES},
		"src/new.go":     {wronly | creat, experimentalsys.EROFS},
		"made":           {wronly | creat, 0},
		"other/o":        {rdonly, experimentalsys.ENOENT},
		"deep/other":     {rdonly, experimentalsys.ENOENT},
		"deep/er/file":   {rdonly, 0},
		"a.txt/../b.txt": {rdonly, 0},
		"new":            {wronly | creat, experimentalsys.EACCES},
	} {
		if e := open(cwd, name, c.flag); e != c.want {
			t.Errorf("open %s: %v, want %v", name, e, c.want)
		}
	}
	if e := open(cwd, "a.txt", wronly); e != experimentalsys.EROFS {
		t.Errorf("write to a.txt: %v", e)
	}
	if e := cwd.Rename("b.txt", "dist/b.o"); e != experimentalsys.EIO || !strings.Contains(w.notes.String(), "rename across mounts") {
		t.Errorf("rename across mounts: %v %q", e, &w.notes)
	}
	if e := cwd.Rename("b.txt", "hidden"); e == 0 || w.read("in/hidden") != "content of hidden" {
		t.Errorf("rename over what is not granted: %v", e)
	}
	if e := cwd.Mkdir("dist", 0); e != experimentalsys.EEXIST {
		t.Errorf("mkdir of a mount point: %v", e)
	}
	if e := cwd.Mkdir("deep/x", 0); e != experimentalsys.EACCES {
		t.Errorf("mkdir in a virtual directory: %v", e)
	}
	if st, e := cwd.Stat("deep"); e != 0 || !st.Mode.IsDir() {
		t.Errorf("stat of a virtual directory: %v %v", st.Mode, e)
	}
	if _, e := w.by["/home"].Stat("none"); e != 0 && e != experimentalsys.ENOENT {
		t.Errorf("mount of a directory that is not there: %v", e)
	}
}

// TestDenied: what lies below a mount but is kept from the guest cannot be reached under any name.
func TestDenied(t *testing.T) {
	t.Parallel()
	files := []string{
		"f", "d/g", ".config/ds/grants.yaml", ".config/other", "keys/a.pem", "keys/a.txt", "link -> .config/ds", "linkfile -> .config/ds/grants.yaml",
		"deep/up -> ../.config", "chain -> deep/up", "fine -> d", "finefile -> d/g", "self -> self", "out -> ../secret", "abs -> $BASE/in/d",
	}
	w := newWorld(t, files, func(base string) fakeBox {
		return fakeBox{mounts: []sandbox.Mount{{Host: base + "/in", Guest: "/cwd", Write: true, Follow: true, Deny: []string{".config/ds/**", "**/*.pem"}}}}
	})
	m := w.by["/cwd"]
	for name, want := range map[string]experimentalsys.Errno{
		"f": 0, "d/g": 0, ".config/other": 0, "keys/a.txt": 0, "fine/g": 0, "finefile": 0, "chain/other": 0, "deep/up/other": 0,
		".config/ds/grants.yaml": experimentalsys.ENOENT, "keys/a.pem": experimentalsys.ENOENT,
		"link/grants.yaml": experimentalsys.EACCES, "linkfile": experimentalsys.EACCES, "chain/ds/grants.yaml": experimentalsys.EACCES,
		"deep/up/ds/grants.yaml": experimentalsys.EACCES, "self": experimentalsys.ELOOP, "out/key": experimentalsys.EACCES, "abs/g": experimentalsys.EACCES,
	} {
		if e := open(m, name, rdonly); e != want {
			t.Errorf("open %s: %v, want %v", name, e, want)
		}
		if _, e := m.Stat(name); e != want {
			t.Errorf("stat %s: %v, want %v", name, e, want)
		}
	}
	if got := w.list(m, ".config"); !slices.Equal(got, []string{"other"}) {
		t.Errorf("ls .config: %q", got)
	}
	if got := w.list(m, "chain"); !slices.Equal(got, []string{"other"}) {
		t.Errorf("ls chain: %q", got)
	}
	if got := w.list(m, "keys"); !slices.Equal(got, []string{"a.txt"}) {
		t.Errorf("ls keys: %q", got)
	}
	for what, e := range map[string]experimentalsys.Errno{
		"directory around it": m.Rename(".config", "x"), "onto it": m.Rename("f", ".config/ds/grants.yaml"), "to a denied name": m.Rename("f", "x.pem"),
		"create": open(m, "b.pem", wronly|creat), "mkdir": m.Mkdir(".config/ds/x", 0), "unlink": m.Unlink("keys/a.pem"), "through a link": m.Unlink("link/grants.yaml"),
		"times": m.Utimens("linkfile", 0, 0),
	} {
		if e == 0 {
			t.Errorf("%s is allowed", what)
		}
	}
	if e := m.Rename("f", "d/f"); e != 0 {
		t.Errorf("rename of a file: %v", e)
	}
	if e := m.Utimens("finefile", 0, 0); e != 0 {
		t.Errorf("times through a link: %v", e)
	}
	if got := w.read("in/.config/ds/grants.yaml"); got != "content of .config/ds/grants.yaml" {
		t.Errorf("changed: %q", got)
	}
}

// TestRenameWidensNothing: a directory whose content is not granted keeps its name.
func TestRenameWidensNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, []string{"a/x", "b/d/y", "b/f"}, func(base string) fakeBox {
		return fakeBox{mounts: []sandbox.Mount{{Host: base + "/in", Guest: "/cwd", Write: true, Patterns: []string{"a/**", "b/*"}}}}
	})
	m := w.by["/cwd"]
	if e := m.Rename("b/d", "a/d"); e != experimentalsys.EACCES {
		t.Errorf("directory with hidden content: %v", e)
	}
	if e := m.Rename("b/f", "a/f"); e != 0 {
		t.Errorf("file: %v", e)
	}
}

// TestMovedLinks: no rename changes where a link of the host leads, so that none begins to lead out.
func TestMovedLinks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		from, to string
		links    string // in the directory that is moved, or the link itself
		want     experimentalsys.Errno
	}{
		"link to another directory":             {"a/b/l", "l", "a/b/l -> ../../x", experimentalsys.EACCES},
		"link down":                             {"l", "a/b/l", "l -> ../in/x", experimentalsys.EACCES},
		"link in its directory":                 {"a/b/l", "a/b/m", "a/b/l -> ../../x", 0},
		"link without ..":                       {"a/l", "b/l", "a/l -> c/x", 0},
		"link with .. in the middle":            {"a/l", "b/l", "a/l -> c/../../x", experimentalsys.EACCES},
		"absolute link":                         {"a/l", "l", "a/l -> /etc/passwd", 0},
		"directory with a link out of it":       {"a/b/d", "d", "a/b/d/l -> ../../../x", experimentalsys.EACCES},
		"directory with a link to its parent":   {"a/d", "d", "a/d/l -> ..", experimentalsys.EACCES},
		"directory with such a link below":      {"a/b/d", "d", "a/b/d/s/t/l -> ../../../x", experimentalsys.EACCES},
		"directory with a link that stays in":   {"a/b/d", "d", "a/b/d/s/l -> ../x", 0},
		"directory renamed in its directory":    {"a/b/d", "a/b/e", "a/b/d/l -> ../../../x", 0},
		"directory over an empty one elsewhere": {"a/b/d", "empty", "a/b/d/l -> ../../../x", experimentalsys.EACCES},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, []string{c.links, "a/b/d/f", "b/f", "empty/", "x"}, rw)
			link, to, _ := strings.Cut(c.links, " -> ")
			if e := w.by["/cwd"].Rename(c.from, c.to); e != c.want {
				t.Fatalf("rename: %v, want %v", e, c.want)
			}
			now := link
			if c.want == 0 {
				now = c.to + strings.TrimPrefix(link, c.from)
			}
			if got, err := os.Readlink(filepath.Join(w.base, "in", now)); err != nil || got != to {
				t.Errorf("%s is %q %v", now, got, err)
			}
			if _, err := os.Stat(filepath.Join(w.base, "in", "empty")); err != nil {
				t.Errorf("a refused rename removes what it would replace: %v", err)
			}
			if said := strings.Contains(w.notes.String(), "a symbolic link with .. would point elsewhere"); said != (c.want != 0) {
				t.Errorf("notes %q", &w.notes)
			}
		})
	}
}

func TestCreatedArgumentIncludesWhatIsBelow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, []string{"f"}, func(base string) fakeBox {
		return fakeBox{mounts: []sandbox.Mount{{Host: base + "/in", Guest: "/cwd", Name: "out", Write: true, Create: true}}}
	})
	m := w.by["/cwd"]
	if e := m.Mkdir("out", 0); e != 0 {
		t.Fatal(e)
	}
	if e := open(m, "out/x", wronly|creat); e != 0 {
		t.Fatal(e)
	}
	if got := w.list(m, "out"); !slices.Equal(got, []string{"x"}) {
		t.Errorf("ls: %q", got)
	}
}

func TestQuota(t *testing.T) {
	t.Parallel()
	w := newWorld(t, []string{"f"}, func(base string) fakeBox {
		b := rw(base)
		b.quota, b.limits.Tmp = 10, 5
		return b
	})
	f, e := w.by["/cwd"].OpenFile("new", wronly|creat, 0)
	if e != 0 {
		t.Fatal(e)
	}
	defer f.Close()
	if n, e := f.Write([]byte("12345678")); n != 8 || e != 0 {
		t.Errorf("within: %d %v", n, e)
	}
	if n, e := f.Write([]byte("901")); n != 0 || e != experimentalsys.EIO {
		t.Errorf("over: %d %v", n, e)
	}
	if n, e := f.Pwrite([]byte("901"), 0); n != 0 || e != experimentalsys.EIO {
		t.Errorf("pwrite over: %d %v", n, e)
	}
	if e := f.Truncate(1 << 41); e != experimentalsys.EIO {
		t.Errorf("truncate over: %v", e)
	}
	if w.read("in/new") != "12345678" || w.notes.String() != "warning: /cwd/new: over the quota\n" {
		t.Errorf("%q %q", w.read("in/new"), &w.notes)
	}
	tmp, e := w.by["/tmp"].OpenFile("x", wronly|creat, 0)
	if e != 0 {
		t.Fatal(e)
	}
	defer tmp.Close()
	if _, e := tmp.Write([]byte("123456")); e != experimentalsys.EIO {
		t.Errorf("over in /tmp: %v", e)
	}
}

func TestErrnoOf(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]experimentalsys.Errno{
		syscall.ENOSPC: experimentalsys.EIO, syscall.EMFILE: experimentalsys.EIO, syscall.EPERM: experimentalsys.EACCES,
		syscall.EAGAIN: experimentalsys.EIO, syscall.EINTR: experimentalsys.EIO, syscall.ENOTEMPTY: experimentalsys.ENOTEMPTY,
		fs.ErrClosed: experimentalsys.EBADF, fs.ErrNotExist: experimentalsys.ENOENT,
	} {
		if got, _ := errno(&fs.PathError{Op: "x", Path: "/host/path", Err: err}); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
	w := newWorld(t, nil, rw)
	if e := w.by["/cwd"].fail("f", &fs.PathError{Op: "write", Path: "/host/path", Err: syscall.ENOSPC}); e != experimentalsys.EIO {
		t.Error(e)
	}
	if got := w.notes.String(); got != "warning: /cwd/f: no space left on device\n" {
		t.Errorf("note %q", got)
	}
}

func TestGlob(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, name string
		whole, leads  bool
	}{
		{"*.go", "a.go", true, false},
		{"*.go", "d/a.go", false, false},
		{"*.go", ".", false, true},
		{"**", ".", true, true},
		{"**", "a/b/c", true, true},
		{"src/**", "src", true, true},
		{"src/**", "srcx", false, false},
		{"src/**/*.go", "src", false, true},
		{"src/**/*.go", "src/a.go", true, true},
		{"src/**/*.go", "src/x/y/a.go", true, true},
		{"src/**/*.go", "src/x/y/a.c", false, true},
		{"a/b/c", "a/b", false, true},
		{"a/b/c", "a/b/c", true, false},
		{"a/b/c", "a/b/c/d", false, false},
		{"a*b*c", "aXbYc", true, false},
		{"a*b*c", "aXbY", false, false},
		{"*", "", true, false},
		{"a*", "a", true, false},
	} {
		if whole, leads := parseGlob(c.pattern).match(c.name); whole != c.whole || leads != c.leads {
			t.Errorf("%s on %s: %v %v, want %v %v", c.pattern, c.name, whole, leads, c.whole, c.leads)
		}
	}
}

// TestLinkNameWithSlash: a link is made under a plain name only.
func TestLinkNameWithSlash(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil, rw)
	tmp := w.by["/tmp"]
	if e := tmp.Mkdir("d", 0); e != 0 {
		t.Fatal(e)
	}
	if e := open(tmp, "f", wronly|creat); e != 0 {
		t.Fatal(e)
	}
	for name, want := range map[string]experimentalsys.Errno{
		"none/": experimentalsys.ENOENT, "d/": experimentalsys.EEXIST, "f/": experimentalsys.ENOTDIR, "f": experimentalsys.EEXIST, "l": 0,
	} {
		if e := tmp.Symlink("f", name); e != want {
			t.Errorf("link %s: %v, want %v", name, e, want)
		}
	}
}

func TestRewindSeesNewFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, []string{"a"}, rw)
	f, e := w.by["/cwd"].OpenFile(".", dirf, 0)
	if e != 0 {
		t.Fatal(e)
	}
	defer f.Close()
	if list, e := f.Readdir(0); e != 0 || len(list) != 1 {
		t.Errorf("first: %v %v", list, e)
	}
	w.host("in/b", "")
	if list, e := f.Readdir(0); e != 0 || len(list) != 0 {
		t.Errorf("at the end: %v %v", list, e)
	}
	if _, e := f.Seek(0, io.SeekStart); e != 0 {
		t.Error(e)
	}
	if list, e := f.Readdir(-1); e != 0 || len(list) != 2 {
		t.Errorf("after rewinding: %v %v", list, e)
	}
	if _, e := f.Seek(1, io.SeekStart); e != experimentalsys.EINVAL {
		t.Errorf("seek: %v", e)
	}
	if _, e := f.Read(make([]byte, 1)); e != experimentalsys.EISDIR {
		t.Errorf("read: %v", e)
	}
	if e := f.Sync(); e != 0 {
		t.Error(e)
	}
	if e := f.Datasync(); e != 0 {
		t.Error(e)
	}
	if e := f.Utimens(0, 0); e == 0 {
		t.Error("times of a mount were changed")
	}
}

// TestForbiddenMounts: the engine's own mounts are no sandbox, whoever might want to use them here.
func TestForbiddenMounts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"WithDir" + "Mount", "WithReadOnlyDir" + "Mount", "WithFS" + "Mount", "sysfs.Dir" + "FS", "sysfs.Read" + "FS", "os.Dir" + "FS"} {
			if bytes.Contains(b, []byte(word)) {
				t.Errorf("%s uses %s", name, word)
			}
		}
	}
}

// FuzzNames: no name of a guest panics or leads outside.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"a", "../x", "/", "a//b/../c/", "\x00", strings.Repeat("a/", 300), "d/f", "l/key"} {
		f.Add(s, uint32(0))
	}
	f.Fuzz(func(t *testing.T, name string, flag uint32) {
		w := newWorld(t, []string{"d/f", "l -> ../secret"}, rw)
		m := w.by["/cwd"]
		if h, e := m.OpenFile(name, experimentalsys.Oflag(flag), 0); e == 0 {
			b := make([]byte, 10)
			if n, _ := h.Read(b); strings.HasPrefix(string(b[:n]), "secret") {
				t.Errorf("%q escapes", name)
			}
			h.Close()
		}
		_, _ = m.Stat(name)
		_, _ = m.Readlink(name)
		m.Mkdir(name, 0)
		m.Rename("d/f", name)
		m.Unlink(name)
		if w.read("secret/key") != "secret" {
			t.Errorf("%q changed the outside", name)
		}
	})
}
