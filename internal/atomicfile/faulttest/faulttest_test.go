package faulttest_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/internal/atomicfile/faulttest"
)

// record is a scenario of one file that is replaced by write.
func record(name string, write func(f atomicfile.FS, name string, data []byte) error) faulttest.Scenario {
	old, fresh := strings.Repeat("old", 5000), strings.Repeat("new!", 5000)
	return faulttest.Scenario{
		Name: name,
		Setup: func(t *testing.T, f atomicfile.FS, dir string) {
			if err := atomicfile.Write(f, filepath.Join(dir, "record"), []byte(old), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		Run: func(_ context.Context, f atomicfile.FS, dir string, ack func(string)) error {
			if err := write(f, filepath.Join(dir, "record"), []byte(fresh)); err != nil {
				return err
			}
			ack("new")
			return nil
		},
		Check: func(t *testing.T, r faulttest.Result) {
			b, err := os.ReadFile(filepath.Join(r.Dir, "record"))
			if err != nil || string(b) != fresh && (string(b) != old || len(r.Acked) > 0) {
				t.Errorf("%d bytes, %v", len(b), err)
			}
		},
	}
}

func good(f atomicfile.FS, name string, data []byte) error {
	return atomicfile.Write(f, name, data, 0o600)
}

// inPlace is what nobody should do.
func inPlace(f atomicfile.FS, name string, data []byte) error {
	return put(f, name, os.O_WRONLY|os.O_TRUNC, data, false)
}

// unsynced is published by rename, but its bytes may not be on the disk.
func unsynced(f atomicfile.FS, name string, data []byte) error {
	if err := put(f, name+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, data, false); err != nil {
		return err
	}
	if err := f.Rename(name+".tmp", name); err != nil {
		return err
	}
	return f.SyncDir(filepath.Dir(name))
}

// unnamed syncs the bytes and not the name.
func unnamed(f atomicfile.FS, name string, data []byte) error {
	if err := put(f, name+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, data, true); err != nil {
		return err
	}
	return f.Rename(name+".tmp", name)
}

func put(f atomicfile.FS, name string, flag int, data []byte, sync bool) error {
	w, err := f.Open(name, flag, 0o600)
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	if err == nil && sync {
		err = w.Sync()
	}
	return errors.Join(err, w.Close())
}

func TestR2_Write(t *testing.T) { faulttest.Loop(t, record("write", good)) }

func TestR3_Write(t *testing.T) {
	faulttest.Cuts(t, record("write", good), faulttest.Scale(50, 200, 2000))
}

// The harness is alive: what stores must not do is noticed.
func TestDefectsAreNoticed(t *testing.T) {
	for _, c := range []struct {
		name       string
		write      func(f atomicfile.FS, name string, data []byte) error
		dies, cuts bool // in which half it shows
	}{
		{"good", good, false, false},
		{"in place", inPlace, true, true},
		{"bytes not synced", unsynced, false, true},
		{"name not synced", unnamed, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := record("x", c.write)
			dies, cuts := false, false
			for n := 1; n < 12; n++ {
				for _, k := range faulttest.Kinds() {
					if k.Kills() {
						continue
					}
					dir := t.TempDir()
					s.Setup(t, atomicfile.OS(), dir)
					f := faulttest.Fault(atomicfile.OS(), faulttest.Plan{N: n, Kind: k, Sticky: k == faulttest.ENOSPC})
					err := s.Run(t.Context(), f, dir, func(string) {})
					dies = dies || f.Fired() && err != nil && bad(dir, "old", "new!")
				}
			}
			dir := t.TempDir()
			s.Setup(t, atomicfile.OS(), dir)
			rec := faulttest.Record(t, atomicfile.OS(), dir)
			if err := s.Run(t.Context(), rec, dir, func(string) {}); err != nil {
				t.Fatal(err)
			}
			for op := range rec.Len() + 1 {
				for seed := range uint64(8) {
					left := t.TempDir()
					if _, err := rec.Cut(op, seed, left); err != nil {
						t.Fatal(err)
					}
					allowed := []string{"old", "new!"}
					if op == rec.Len() {
						allowed = []string{"new!"}
					}
					cuts = cuts || bad(left, allowed...)
				}
			}
			if dies != c.dies || cuts != c.cuts {
				t.Errorf("noticed by faults: %v, want %v; by cuts: %v, want %v", dies, c.dies, cuts, c.cuts)
			}
		})
	}
}

// bad reports whether the record is none of the words again and again.
func bad(dir string, words ...string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "record"))
	if err != nil {
		return true
	}
	for _, w := range words {
		if string(b) == strings.Repeat(w, 5000) {
			return false
		}
	}
	return true
}

// A file after the cut looks like the one before it, until it changes.
func TestCutKeepsIdentity(t *testing.T) {
	dir, left := t.TempDir(), t.TempDir()
	rec := faulttest.Record(t, atomicfile.OS(), dir)
	w, err := rec.Open(filepath.Join(dir, "f"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write([]byte("bytes"))
	fi, serr := w.Stat()
	if err := errors.Join(err, serr, w.Sync(), w.Close(), rec.SyncDir(dir)); err != nil {
		t.Fatal(err)
	}
	want, ok := atomicfile.IDOf(fi)
	if !ok {
		t.Skip("no inodes here")
	}
	f, err := rec.Cut(rec.Len(), 1, left)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(left, "f")
	if fi, err := f.Lstat(name); err != nil {
		t.Fatal(err)
	} else if got, _ := atomicfile.IDOf(fi); got != want {
		t.Errorf("after the cut %+v, before %+v", got, want)
	}
	if err := os.WriteFile(name, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if fi, err := f.Lstat(name); err != nil {
		t.Fatal(err)
	} else if got, _ := atomicfile.IDOf(fi); got == want {
		t.Error("a changed file still looks the same")
	}
}

func TestFaultKeepsErrno(t *testing.T) {
	dir := t.TempDir()
	f := faulttest.Fault(atomicfile.OS(), faulttest.Plan{N: 2, Kind: faulttest.Short})
	err := atomicfile.Write(f, filepath.Join(dir, "f"), []byte("12345678"), 0o600)
	if !errors.Is(err, syscall.ENOSPC) || !f.Fired() {
		t.Errorf("error %v, fired %v", err, f.Fired())
	}
	if names, _ := os.ReadDir(dir); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
	if ops := f.Ops(); len(ops) != 4 || !strings.HasPrefix(ops[1].String(), "write ") {
		t.Errorf("operations %v", ops)
	}
}
