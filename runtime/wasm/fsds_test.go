package wasm

import (
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/sys"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

const (
	forRead  = experimentalsys.O_RDONLY
	forWrite = experimentalsys.O_WRONLY | experimentalsys.O_CREAT | experimentalsys.O_TRUNC
	forBoth  = experimentalsys.O_RDWR
)

func TestTreeNames(t *testing.T) {
	d, s := newTree(t, &plugin.Invocation{})
	s.handles = map[uint32]io.ReadWriteCloser{7: &fakeBlob{}}
	const (
		ok, noent, notdir, isdir = experimentalsys.Errno(0), experimentalsys.ENOENT, experimentalsys.ENOTDIR, experimentalsys.EISDIR
		inval, rofs, acces       = experimentalsys.EINVAL, experimentalsys.EROFS, experimentalsys.EACCES
	)
	for _, c := range []struct {
		name             string
		stat, read, make experimentalsys.Errno
		mode             fs.FileMode
	}{
		{".", ok, ok, isdir, fs.ModeDir},
		{"/", ok, ok, isdir, fs.ModeDir},
		{"call", ok, ok, isdir, fs.ModeDir},
		{"/call/", ok, ok, isdir, fs.ModeDir},
		{"call/Echo", ok, ok, isdir, fs.ModeDir},
		{"call/Anything", ok, ok, isdir, fs.ModeDir},
		{"call/Echo/Say", ok, ok, ok, fs.ModeDevice | fs.ModeCharDevice},
		{"call/No/Such", ok, ok, ok, fs.ModeDevice | fs.ModeCharDevice},
		{"call/Echo/Say/", notdir, notdir, notdir, 0},
		{"call/Echo/Say/more", notdir, notdir, notdir, 0},
		{"call/../call/Echo/Say", ok, ok, ok, fs.ModeDevice | fs.ModeCharDevice},
		{"../call/Echo/Say", acces, acces, acces, 0},
		{"call/\x00/Say", inval, inval, inval, 0},
		{"blob", ok, ok, isdir, fs.ModeDir},
		{"blob/sha256", ok, ok, isdir, fs.ModeDir},
		{"blob/md5", noent, noent, noent, 0},
		{"blob/sha256/aa/b", notdir, notdir, notdir, 0},
		{"blob/sha256/aa", experimentalsys.ENOTSUP, experimentalsys.ENOTSUP, rofs, 0}, // this session has no cache
		{"sink", ok, ok, isdir, fs.ModeDir},
		{"sink/7", ok, ok, ok, fs.ModeDevice | fs.ModeCharDevice},
		{"sink/8", inval, inval, inval, 0},
		{"sink/0", inval, inval, inval, 0},
		{"sink/07", noent, noent, noent, 0},
		{"sink/+7", noent, noent, noent, 0},
		{"sink/99999999999", noent, noent, noent, 0},
		{"sink/7/x", notdir, notdir, notdir, 0},
		{"caps.json", ok, ok, rofs, 0},
		{"caps.json/x", notdir, notdir, notdir, 0},
		{"other.json", noent, noent, noent, 0},
		{"last_error.json", ok, ok, rofs, 0},
		{strings.Repeat("x", 5000), experimentalsys.ENAMETOOLONG, experimentalsys.ENAMETOOLONG, experimentalsys.ENAMETOOLONG, 0},
	} {
		st, e := d.Stat(c.name)
		if e != c.stat || e == 0 && st.Mode.Type() != c.mode {
			t.Errorf("stat %q: %v %v, want %v %v", c.name, e, st.Mode, c.stat, c.mode)
		}
		f, e := d.OpenFile(c.name, forRead, 0)
		if e != c.read {
			t.Errorf("open %q: %v, want %v", c.name, e, c.read)
		}
		if e == 0 {
			if got, _ := f.Stat(); got.Mode != st.Mode || got.Ino != st.Ino || got.Ino == 0 {
				t.Errorf("%q: open %v %d, before %v %d", c.name, got.Mode, got.Ino, st.Mode, st.Ino)
			}
			f.Close()
		}
		f, e = d.OpenFile(c.name, forWrite, 0)
		if e != c.make {
			t.Errorf("open %q for writing: %v, want %v", c.name, e, c.make)
		}
		if e == 0 {
			f.Close()
		}
	}
	for _, m := range s.asked {
		if m != "/ds.host.v1.Meta/Describe" && m != "/ds.host.v1.Cache/Stat" && m != "/ds.host.v1.Cache/Open" {
			t.Errorf("looking called %s", m)
		}
	}
	for what, e := range map[string]experimentalsys.Errno{
		"mkdir": d.Mkdir("x", 0), "rmdir": d.Rmdir("call"), "unlink": d.Unlink("caps.json"), "rename": d.Rename("call", "c"),
		"link": d.Link("caps.json", "x"), "symlink": d.Symlink("x", "y"), "chmod": d.Chmod("call", 0), "utimens": d.Utimens("call", 0, 0),
	} {
		if e != experimentalsys.EROFS {
			t.Errorf("%s: %v", what, e)
		}
	}
	if _, e := d.OpenFile("call/Echo/Say", forWrite|experimentalsys.O_EXCL, 0); e != experimentalsys.EEXIST {
		t.Errorf("exclusive: %v", e)
	}
	if _, e := d.OpenFile("call/Echo/Say", experimentalsys.O_DIRECTORY, 0); e != notdir {
		t.Errorf("a call as a directory: %v", e)
	}
	if n := len(d.in.files.open); n != 0 {
		t.Errorf("%d entries left in the file table", n)
	}
}

func TestTreeLists(t *testing.T) {
	d, _ := newTree(t, &plugin.Invocation{})
	for name, want := range map[string]string{
		".":           "args.json blob call caps.json config.json last_error.json sink",
		"call":        "Echo Meta",
		"call/Echo":   "Fail Say",
		"call/Nobody": "",
		"blob":        "sha256",
		"blob/sha256": "",
		"sink":        "",
	} {
		f := mustOpen(t, d, name, forRead)
		for range 2 {
			var names []string
			for {
				list, e := f.Readdir(2)
				if e != 0 {
					t.Fatalf("%s: %v", name, e)
				}
				for _, entry := range list {
					names = append(names, entry.Name)
					if st, e := d.Stat(name + "/" + entry.Name); e != 0 || st.Mode.Type() != entry.Type {
						t.Errorf("%s: %v, listed as %v", entry.Name, st.Mode, entry.Type)
					}
				}
				if len(list) < 2 {
					break
				}
			}
			slices.Sort(names)
			if got := strings.Join(names, " "); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
			if _, e := f.Seek(0, io.SeekStart); e != 0 {
				t.Errorf("rewind: %v", e)
			}
		}
		if _, e := f.Seek(1, io.SeekStart); e != experimentalsys.EINVAL {
			t.Errorf("seek: %v", e)
		}
		if _, e := f.Read(make([]byte, 1)); e != experimentalsys.EISDIR {
			t.Errorf("read: %v", e)
		}
		f.Close()
	}
}

func TestTreeFacts(t *testing.T) {
	d, _ := newTree(t, &plugin.Invocation{})
	for name, want := range map[string]string{
		"args.json":       `[{"index":1,"typed":"/x"}]`,
		"caps.json":       `[{"cap":"state.read"}]`,
		"config.json":     `{"a":{"b":[1],"c":"x"}}`,
		"last_error.json": `{}`,
	} {
		got, e := slurp(d, name)
		if e != 0 || got != want+"\n" {
			t.Errorf("%s: %v %s, want %s", name, e, got, want)
		}
		if st, e := d.Stat(name); e != 0 || st.Size != int64(len(want)+1) || !st.Mode.IsRegular() {
			t.Errorf("%s: %v size %d", name, e, st.Size)
		}
	}
	f := mustOpen(t, d, "args.json", forRead)
	if at, e := f.Seek(-2, io.SeekEnd); e != 0 || at != 25 {
		t.Errorf("seek: %d, %v", at, e)
	}
	if text, e := readFile(f); text != "]\n" || e != 0 {
		t.Errorf("tail %q, %v", text, e)
	}
	if _, e := f.Seek(-1, io.SeekStart); e != experimentalsys.EINVAL {
		t.Errorf("seek: %v", e)
	}
	if _, e := f.Pread(make([]byte, 1), -1); e != experimentalsys.EINVAL {
		t.Errorf("pread: %v", e)
	}
	if _, e := f.Write([]byte("x")); e != experimentalsys.EBADF {
		t.Errorf("write: %v", e)
	}
	f.Close()
	d, s := newTree(t, &plugin.Invocation{})
	s.methods["Meta/Describe"] = func(string) (string, error) { return `{}`, nil }
	s.methods["Config/List"] = func(string) (string, error) {
		return "", hostabi.Errorf(hostabi.ReasonCapabilityDenied, "no")
	}
	if got, e := slurp(d, "caps.json"); got != "[]\n" || e != 0 {
		t.Errorf("no grants: %q, %v", got, e)
	}
	if _, e := slurp(d, "config.json"); e != experimentalsys.EACCES {
		t.Errorf("denied: %v", e)
	}
	if r := lastReason(t, d); r != hostabi.ReasonCapabilityDenied {
		t.Errorf("reason %s", r)
	}
}

func second[T any](_ T, e experimentalsys.Errno) experimentalsys.Errno { return e }

// TestTreeGuestEnds: what a guest wrote and did not close before it was stopped does not run.
func TestTreeGuestEnds(t *testing.T) {
	d, s := newTree(t, &plugin.Invocation{})
	f := mustOpen(t, d, "call/Echo/Say", forWrite)
	_, _ = f.Write([]byte(`{"half`))
	d.ended = true
	f.Close()
	f = mustOpen(t, d, "call/Echo/Say", forBoth)
	_, _ = f.Write([]byte(`{"half`))
	d.in.files.close()
	if len(s.asked) != 0 || d.held != 0 {
		t.Errorf("called %v, %d bytes held", s.asked, d.held)
	}
}

// stopsGuest reports whether f ended the guest.
func stopsGuest(f func()) (ended bool) {
	defer func() { _, ended = recover().(*sys.ExitError) }()
	f()
	return false
}

func TestTreePanicOfTheHost(t *testing.T) {
	d, s := newTree(t, &plugin.Invocation{})
	s.methods["Echo/Say"] = func(string) (string, error) { panic("planted") }
	f := mustOpen(t, d, "call/Echo/Say", forWrite)
	_, _ = f.Write([]byte("{}"))
	if !stopsGuest(func() { f.Close() }) {
		t.Error("the guest goes on")
	}
	if d.in.panicked == nil || d.in.panicked.value != "planted" || d.in.busy.Load() {
		t.Errorf("remembered %v", d.in.panicked)
	}
}

// FuzzTree: any sequence of calls on any names ends without a panic of the host, without an errno that runtimes
// retry for ever, and leaves nothing.
func FuzzTree(f *testing.F) {
	f.Add([]byte("\x00\x00\x02\x06\x03\x09"), "call/Echo/Say")
	f.Add([]byte("\x01\x00\x02\x02\x06\x03\x05\x04\x07\x03"), "call/Stream/Endless")
	f.Add([]byte("\x02\x02\x01\x06\x08\x03"), "sink/1")
	f.Add([]byte("\x03\x01\x03"), "blob/sha256/"+strings.Repeat("a", 64))
	f.Add([]byte("\x04\x0a\x01\x03"), "call/../call//Echo/./Say/")
	f.Fuzz(func(t *testing.T, steps []byte, name string) {
		d, s := newTree(t, &plugin.Invocation{})
		s.handles = map[uint32]io.ReadWriteCloser{1: &fakeBlob{}}
		names := []string{"call/Echo/Say", "call/Stream/Echo", "call/Echo/Fail", "last_error.json", ".", name}
		flags := []experimentalsys.Oflag{forRead, forWrite, forBoth, forBoth | experimentalsys.O_APPEND, experimentalsys.O_DIRECTORY}
		var open []experimentalsys.File
		next := func() int {
			if len(steps) == 0 {
				return 0
			}
			n := int(steps[0])
			steps = steps[1:]
			return n
		}
		check := func(e experimentalsys.Errno) {
			if e == experimentalsys.EINTR || e == experimentalsys.EAGAIN || e == experimentalsys.ENOSYS {
				t.Fatalf("errno %v", e)
			}
		}
		for i := 0; i < 64 && len(steps) > 0; i++ {
			op, arg := next(), next()
			if op%12 < 3 || len(open) == 0 {
				g, e := d.OpenFile(names[op%len(names)], flags[arg%len(flags)], 0)
				check(e)
				if e == 0 {
					open = append(open, g)
				}
				continue
			}
			at := arg % len(open)
			g := open[at]
			switch op % 12 {
			case 3, 4:
				_, e := g.Read(make([]byte, arg))
				check(e)
			case 5, 6:
				_, e := g.Write([]byte(name))
				check(e)
			case 7:
				_, e := g.Seek(int64(arg-100), op%4)
				check(e)
			case 8:
				_, e := g.Pwrite([]byte("{}\n"), int64(arg))
				check(e)
			case 9:
				_, e := g.Stat()
				check(e)
				check(g.Truncate(int64(arg)))
			case 10:
				if isDir, _ := g.IsDir(); isDir {
					_, e := g.Readdir(arg)
					check(e)
				}
				_, e := d.Stat(names[arg%len(names)])
				check(e)
			default:
				check(g.Close())
				open = slices.Delete(open, at, at+1)
			}
		}
		d.in.files.close()
		d.close()
		if d.held != 0 || s.open.Load() != 0 || len(d.kept) != 0 {
			t.Fatalf("left: %d bytes, %d streams, %d answers", d.held, s.open.Load(), len(d.kept))
		}
	})
}
