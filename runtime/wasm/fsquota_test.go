package wasm

import (
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"
)

// TestHolesCount: a file is as large as it looks, however few bytes it holds.
func TestHolesCount(t *testing.T) {
	t.Parallel()
	const room = 1000
	w := newWorld(t, []string{"old"}, func(base string) fakeBox {
		b := rw(base)
		b.quota = room
		return b
	})
	m := w.by["/cwd"]
	size := func(name string) int64 {
		fi, err := os.Stat(filepath.Join(w.base, "in", name))
		if err != nil {
			t.Fatal(err)
		}
		return fi.Size()
	}
	f, e := m.OpenFile("new", rdwr|creat, 0)
	if e != 0 {
		t.Fatal(e)
	}
	defer f.Close()
	for name, do := range map[string]func() experimentalsys.Errno{
		"pwrite":          func() experimentalsys.Errno { _, e := f.Pwrite([]byte("x"), 1<<40); return e },
		"pwrite at most":  func() experimentalsys.Errno { _, e := f.Pwrite([]byte("xyz"), math.MaxInt64-1); return e },
		"pwrite one over": func() experimentalsys.Errno { _, e := f.Pwrite([]byte("x"), room); return e },
		"seek and write": func() experimentalsys.Errno {
			if _, e := f.Seek(room, io.SeekStart); e != 0 {
				return 0
			}
			_, e := f.Write([]byte("x"))
			return e
		},
		"seek, a seek that fails, write": func() experimentalsys.Errno {
			if _, e := f.Seek(1<<40, io.SeekStart); e != 0 {
				return 0
			}
			if _, e := f.Seek(-1, io.SeekStart); e == 0 {
				return 0
			}
			_, e := f.Write([]byte("x"))
			return e
		},
	} {
		if e := do(); e != experimentalsys.EIO || size("new") != 0 {
			t.Errorf("%s: %v, size %d", name, e, size("new"))
		}
	}
	if _, e := f.Pwrite([]byte("x"), 99); e != 0 { // costs 100
		t.Errorf("within: %v", e)
	}
	if _, e := f.Pwrite(make([]byte, 50), 0); e != 0 { // costs 50, nothing for the size
		t.Errorf("within what is paid: %v", e)
	}
	if _, e := f.Seek(199, io.SeekStart); e != 0 {
		t.Error(e)
	}
	for range 2 { // costs 100 and 1
		if _, e := f.Write([]byte("x")); e != 0 {
			t.Errorf("within: %v", e)
		}
	}
	if got := m.mounts[0].quota.left; got != room-100-50-100-1 || size("new") != 201 {
		t.Errorf("%d left, size %d", got, size("new"))
	}
	old, e := m.OpenFile("old", rdwr, 0) // its size was not made by the guest
	if e != 0 {
		t.Fatal(e)
	}
	defer old.Close()
	left := m.mounts[0].quota.left
	if _, e := old.Pwrite([]byte("x"), size("old")); e != 0 || m.mounts[0].quota.left != left-1 {
		t.Errorf("at the end of an old file: %v, %d left of %d", e, m.mounts[0].quota.left, left)
	}
}

// TestCreatedFiles: empty files cost no bytes, so they are counted.
func TestCreatedFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, []string{"f"}, rw)
	m, tmp := w.by["/cwd"], w.by["/tmp"]
	m.files.made = maxCreated - 3
	if e := m.Mkdir("d", 0); e != 0 {
		t.Fatal(e)
	}
	if e := open(tmp, "x", wronly|creat); e != 0 {
		t.Fatal(e)
	}
	if e := open(tmp, "x", wronly|creat); e != 0 { // is there
		t.Fatal(e)
	}
	if e := tmp.Symlink("x", "l"); e != 0 {
		t.Fatal(e)
	}
	for what, e := range map[string]experimentalsys.Errno{
		"file": open(m, "new", wronly|creat), "directory": m.Mkdir("d2", 0), "link": tmp.Symlink("x", "l2"),
	} {
		if e != experimentalsys.EIO {
			t.Errorf("%s: %v", what, e)
		}
	}
	if e := open(m, "f", rdwr|creat); e != 0 {
		t.Errorf("a file that is there: %v", e)
	}
	if got := w.notes.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "more than 100000 files created") {
		t.Errorf("notes %q", got)
	}
}
