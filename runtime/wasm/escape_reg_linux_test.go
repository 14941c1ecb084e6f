package wasm

import (
	"slices"
	"strings"
	"testing"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"

	"github.com/delivery-station/ds/sandbox"
)

// kindNamed is a kind of escapeKinds.
func kindNamed(t *testing.T, name string) escapeKind {
	t.Helper()
	for _, k := range escapeKinds {
		if k.name == name {
			return k
		}
	}
	t.Fatalf("no kind %q", name)
	return escapeKind{}
}

// ours fails the test for every probe that escapes from a mount of ds.
func ours(t *testing.T, kind string) []probe {
	t.Helper()
	w := newEscapeWorld(t, kindNamed(t, kind), true)
	b := w.backend()
	before := w.look()
	probes := w.probe(b)
	for _, id := range w.escapes(before, w.look(), probes) {
		t.Errorf("%s: %s escapes: %v", kind, id, find(probes, id))
	}
	return probes
}

// TestREG001_DirMountIsNoSandbox: guests leave the engine's directory mount (wazero #2321, #2323), and read and
// write the memory of the host through it.
func TestREG001_DirMountIsNoSandbox(t *testing.T) {
	t.Parallel()
	escapes, probes := bareEscapes(t, "rw", true)
	if len(escapes) < minBare {
		t.Errorf("only %d probes escape from the engine's mount: review the defence and the suite: %v", len(escapes), escapes)
	}
	for _, id := range []string{"proc.environ", "proc.mem.read", "proc.mem.write", "absfile.trunc", "made.rel.read", "absdir.hardlink"} {
		if !slices.Contains(escapes, id) {
			t.Errorf("%s does not escape from the engine's mount: %v", id, find(probes, id))
		}
	}
	for _, k := range escapeKinds[:scale(1, len(escapeKinds), len(escapeKinds))] { // TestS1_Escape always does more
		ours(t, k.name)
	}
	t.Logf("REG-001: %d of %d probes escape from WithDirMount, 0 from ours", len(escapes), len(probes))
}

// TestREG002_ReadOnlyMountsWrite: the engine's read-only mounts truncate and create files for a guest that asks
// for rights to read.
func TestREG002_ReadOnlyMountsWrite(t *testing.T) {
	t.Parallel()
	attacks := []string{"own.trunc", "own.creat"}
	for _, mount := range []string{"ro", "readfs"} {
		escapes, probes := bareEscapes(t, mount, false)
		for _, id := range attacks {
			if !slices.Contains(escapes, id) {
				t.Errorf("%s: %s changes nothing any more: %v", mount, id, find(probes, id))
			}
		}
		t.Logf("REG-002: %d probes escape from the engine's mount %s", len(escapes), mount)
	}
	kinds := []string{"cwd ro", "args file ro", "app", "args dir ro", "cwd glob ro", "home ro", "host ro"}
	for _, kind := range kinds[:scale(2, len(kinds), len(kinds))] {
		probes := ours(t, kind)
		for _, id := range attacks {
			if p := find(probes, id); p.errno != "ROFS" {
				t.Errorf("%s: %v, want ROFS", kind, p)
			}
		}
	}
}

// TestREG003_RootHolds: os.Root, which our mounts are made of, keeps every probe inside, as do the mounts, also
// when directories change under an open descriptor.
func TestREG003_RootHolds(t *testing.T) {
	t.Parallel()
	escapes, _ := bareEscapes(t, "osroot", false)
	escapes = slices.DeleteFunc(escapes, func(id string) bool {
		return id == "fd.flood" || strings.HasPrefix(id, "readlink.") // bounds and texts of links are ours to add
	})
	if len(escapes) > 0 {
		t.Errorf("os.Root lets out: %v", escapes)
	}
	ours(t, "cwd rw")
	t.Run("swap", func(t *testing.T) {
		w := newWorld(t, []string{"d/f", "d/sub/f", "link -> ../secret", "self -> .", "chain -> self/../secret/key"}, rw)
		m := w.by["/cwd"]
		d, e := m.OpenFile("d", dirf, 0)
		if e != 0 {
			t.Fatal(e)
		}
		defer d.Close()
		if list, e := d.Readdir(1); e != 0 || len(list) != 1 {
			t.Fatalf("before: %v %v", list, e)
		}
		w.rename("in/d", "in/old")
		w.rename("in/link", "in/d")
		if list, e := d.Readdir(-1); e != 0 || slices.ContainsFunc(list, func(x experimentalsys.Dirent) bool { return x.Name == "key" }) {
			t.Errorf("reading on lists what is outside: %v %v", list, e)
		}
		if _, e := d.Seek(0, 0); e != 0 {
			t.Error(e)
		}
		if list, _ := d.Readdir(-1); len(list) > 0 {
			t.Errorf("a rewound directory lists what is outside: %v", list)
		}
		for name, e := range map[string]experimentalsys.Errno{
			"open": open(m, "d/key", rdonly), "create": open(m, "d/new", wronly|creat), "truncate": open(m, "d/key", rdonly|trunc), "unlink": m.Unlink("d/key"),
			"mkdir": m.Mkdir("d/new", 0), "rename": m.Rename("d/key", "key"), "chain": open(m, "chain", rdonly), "dir": open(m, "d", dirf),
		} {
			if e == 0 {
				t.Errorf("%s works through a directory that became a link out", name)
			}
		}
		if got := w.read("secret/key"); got != "secret" {
			t.Errorf("the outside changed: %q", got)
		}
	})
	t.Run("mount", func(t *testing.T) { // the directory of the mount itself is swapped: the open one stays
		w := newWorld(t, []string{"key"}, func(base string) fakeBox {
			return fakeBox{mounts: []sandbox.Mount{{Host: base + "/in", Guest: "/cwd", Write: true, Follow: true}}}
		})
		w.rename("in", "was")
		w.symlink("secret", "in")
		f, e := w.by["/cwd"].OpenFile("key", rdwr, 0)
		if e != 0 {
			t.Fatal(e)
		}
		defer f.Close()
		b := make([]byte, 20)
		if n, _ := f.Read(b); string(b[:n]) != "content of key" {
			t.Errorf("the mount moved to %q", b[:n])
		}
	})
}
