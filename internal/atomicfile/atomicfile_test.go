package atomicfile_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/delivery-station/ds/internal/atomicfile"
)

// TestMain lets a test run this binary again as another process: ATOMICFILE_CHILD names a file to edit.
func TestMain(m *testing.M) {
	if name := os.Getenv("ATOMICFILE_CHILD"); name != "" {
		if err := increment(context.Background(), atomicfile.OS(), name, 50); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func increment(ctx context.Context, f atomicfile.FS, name string, times int) error {
	for range times {
		err := atomicfile.Edit(ctx, f, name, func(old []byte) ([]byte, error) {
			n, err := strconv.Atoi(string(old))
			return []byte(strconv.Itoa(n + 1)), err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func TestEditConcurrently(t *testing.T) {
	name := filepath.Join(t.TempDir(), "counter")
	must(t, os.WriteFile(name, []byte("0"), 0o640))
	var wg sync.WaitGroup
	const procs, goroutines, times = 4, 4, 50
	for range procs {
		wg.Go(func() {
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), "ATOMICFILE_CHILD="+name)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("child: %v\n%s", err, out)
			}
		})
	}
	shared := atomicfile.OS()
	for i := range goroutines {
		f := shared
		if i == 0 {
			f = atomicfile.OS() // a second value in one process excludes as well
		}
		wg.Go(func() {
			if err := increment(t.Context(), f, name, times); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	b, err := os.ReadFile(name)
	must(t, err)
	if want := (procs + goroutines) * times; string(b) != strconv.Itoa(want) {
		t.Errorf("counter is %s, want %d", b, want)
	}
	names, err := shared.ReadDir(filepath.Dir(name))
	must(t, err)
	if runtime.GOOS != "windows" && (len(names) != 1 || names[0] != "counter") {
		t.Errorf("litter in the directory: %v", names)
	}
	if fi, err := os.Stat(name); err != nil || runtime.GOOS != "windows" && fi.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}

func TestEdit(t *testing.T) {
	boom := errors.New("boom")
	for _, c := range []struct {
		name      string
		old, give []byte
		fail      error
		want      string
		same      bool // the inode stays
	}{
		{"creates", nil, []byte("x"), nil, "x", false},
		{"replaces", []byte("a"), []byte("b"), nil, "b", false},
		{"empties", []byte("a"), []byte{}, nil, "", false},
		{"nil keeps", []byte("a"), nil, nil, "a", true},
		{"equal keeps", []byte("a"), []byte("a"), nil, "a", true},
		{"error keeps", []byte("a"), []byte("b"), boom, "a", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := atomicfile.OS()
			name := filepath.Join(t.TempDir(), "f")
			var before fs.FileInfo
			if c.old != nil {
				must(t, atomicfile.Write(f, name, c.old, 0o600))
				before, _ = f.Lstat(name)
			}
			err := atomicfile.Edit(t.Context(), f, name, func(old []byte) ([]byte, error) {
				if string(old) != string(c.old) || (old == nil) != (c.old == nil) {
					t.Errorf("old is %q, want %q", old, c.old)
				}
				return c.give, c.fail
			})
			if !errors.Is(err, c.fail) {
				t.Fatalf("error %v, want %v", err, c.fail)
			}
			b, err := atomicfile.ReadFile(f, name, 10)
			must(t, err)
			if string(b) != c.want {
				t.Errorf("content %q, want %q", b, c.want)
			}
			after, err := f.Lstat(name)
			must(t, err)
			if before != nil && os.SameFile(before, after) != c.same {
				t.Errorf("same file: %v, want %v", !c.same, c.same)
			}
		})
	}
}

func TestLockWaitsForContext(t *testing.T) {
	name := filepath.Join(t.TempDir(), "l")
	a, b := atomicfile.OS(), atomicfile.OS()
	unlock, err := a.Lock(t.Context(), name)
	must(t, err)
	done, cancel := context.WithCancel(t.Context())
	cancel()
	for which, f := range map[string]atomicfile.FS{"same value": a, "other value": b} {
		if _, err := f.Lock(done, name); !errors.Is(err, atomicfile.ErrLocked) || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: one try on a held lock: %v", which, err)
		}
		short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, err := f.Lock(short, name); !errors.Is(err, atomicfile.ErrLocked) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: wait on a held lock: %v", which, err)
		}
		cancel()
	}
	must(t, unlock())
	for which, f := range map[string]atomicfile.FS{"same value": a, "other value": b} {
		unlock, err := f.Lock(done, name)
		if err != nil {
			t.Fatalf("%s: one try on a free lock: %v", which, err)
		}
		must(t, unlock())
	}
	if _, err := a.Lock(t.Context(), filepath.Join(name, "no", "dir")); err == nil || errors.Is(err, atomicfile.ErrLocked) {
		t.Errorf("lock in no directory: %v", err)
	}
}

// A holder may remove the lock file: those who wait must not enter together on the orphaned inode.
func TestLockOfRemovedFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("an open file cannot be removed on Windows")
	}
	name := filepath.Join(t.TempDir(), "l")
	var inside, rounds atomic.Int64 // the race detector does not know file locks
	var wg sync.WaitGroup
	for range 4 {
		f := atomicfile.OS() // no shared mutex: the file lock alone must hold
		wg.Go(func() {
			for range 50 {
				unlock, err := f.Lock(t.Context(), name)
				if err != nil {
					t.Error(err)
					return
				}
				if inside.Add(1) != 1 {
					t.Error("two holders of one lock")
				}
				rounds.Add(1)
				inside.Add(-1)
				if err := f.Remove(name); err != nil {
					t.Error(err)
				}
				if err := unlock(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if rounds.Load() != 200 {
		t.Errorf("%d rounds, want 200", rounds.Load())
	}
}

func TestWriteFailsClean(t *testing.T) {
	f := atomicfile.OS()
	dir := t.TempDir()
	if err := atomicfile.Write(f, filepath.Join(dir, "no", "f"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("write into no directory: %v", err)
	}
	target := filepath.Join(dir, "full")
	must(t, atomicfile.MkdirAll(f, filepath.Join(target, "x"), 0o700))
	if err := atomicfile.Write(f, target, []byte("x"), 0o600); err == nil {
		t.Error("a directory was replaced by a file")
	}
	names, err := f.ReadDir(dir)
	must(t, err)
	if len(names) != 1 {
		t.Errorf("temporary file left: %v", names)
	}
}

func TestFSRefusesLinksAndKeepsTheKernelsAnswer(t *testing.T) {
	f := atomicfile.OS()
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	must(t, atomicfile.Write(f, file, []byte("x"), 0o600))
	if err := os.Symlink(file, link); err != nil {
		t.Skipf("no links here: %v", err)
	}
	if r, err := f.Open(link, os.O_RDONLY, 0); err == nil {
		_ = r.Close()
		t.Error("a link was followed")
	}
	then := time.Unix(1_000_000_000, 0)
	must(t, f.Chtimes(link, then))
	if fi, err := f.Lstat(file); err != nil || fi.ModTime().Equal(then) {
		t.Errorf("the target's time was set: %v, %v", fi.ModTime(), err)
	}

	empty, full, other := filepath.Join(dir, "empty"), filepath.Join(dir, "full"), filepath.Join(dir, "other")
	for _, d := range []string{empty, full, filepath.Join(full, "x"), other} {
		must(t, f.Mkdir(d, 0o700))
	}
	if err := f.Rename(other, full); err == nil {
		t.Error("a full directory was replaced")
	}
	if runtime.GOOS != "windows" {
		must(t, f.Rename(other, empty))
	}
}

func TestRemoveAllKeepsTargetsOfLinks(t *testing.T) {
	f := atomicfile.OS()
	dir := t.TempDir()
	outside, tree := filepath.Join(dir, "outside"), filepath.Join(dir, "tree")
	must(t, atomicfile.MkdirAll(f, filepath.Join(tree, "a", "b"), 0o700))
	must(t, f.Mkdir(outside, 0o700))
	must(t, os.WriteFile(filepath.Join(outside, "keep"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(tree, "a", "gone"), nil, 0o400))
	if err := os.Symlink(outside, filepath.Join(tree, "a", "link")); err != nil {
		t.Skipf("no links here: %v", err)
	}
	must(t, atomicfile.RemoveAll(f, tree))
	must(t, atomicfile.RemoveAll(f, tree)) // absent is fine
	if _, err := f.Lstat(tree); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("tree is still there: %v", err)
	}
	if _, err := f.Lstat(filepath.Join(outside, "keep")); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
}

func TestMkdirAll(t *testing.T) {
	f := atomicfile.OS()
	dir := t.TempDir()
	deep := filepath.Join(dir, "a", "b", "c")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := atomicfile.MkdirAll(f, deep, 0o700); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for _, bad := range []string{file, filepath.Join(file, "x")} {
		if err := atomicfile.MkdirAll(f, bad, 0o700); err == nil {
			t.Errorf("%s: no error over a file", bad)
		}
	}
}

func TestReadFileLimit(t *testing.T) {
	f := atomicfile.OS()
	name := filepath.Join(t.TempDir(), "f")
	must(t, atomicfile.Write(f, name, []byte(strings.Repeat("x", 10)), 0o600))
	if b, err := atomicfile.ReadFile(f, name, 10); err != nil || len(b) != 10 {
		t.Errorf("at the limit: %d bytes, %v", len(b), err)
	}
	if _, err := atomicfile.ReadFile(f, name, 9); !errors.Is(err, atomicfile.ErrTooLarge) {
		t.Errorf("over the limit: %v", err)
	}
}

// TestReadHead: with and without a File the answer is the same.
func TestReadHead(t *testing.T) {
	dir := t.TempDir()
	name, link := filepath.Join(dir, "f"), filepath.Join(dir, "link")
	must(t, atomicfile.Write(atomicfile.OS(), name, []byte("0123456789"), 0o600))
	must(t, os.Symlink(name, link))
	for what, f := range map[string]atomicfile.FS{"real": atomicfile.OS(), "wrapped": struct{ atomicfile.FS }{atomicfile.OS()}} {
		for size, want := range map[int]string{4: "0123", 10: "0123456789", 20: "0123456789"} {
			b := make([]byte, size)
			if n, err := atomicfile.ReadHead(f, name, b); err != nil || string(b[:n]) != want {
				t.Errorf("%s: %q of %d bytes, %v", what, b[:n], size, err)
			}
		}
		if _, err := atomicfile.ReadHead(f, name+"x", make([]byte, 4)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: a missing file: %v", what, err)
		}
		for _, no := range []string{link, dir} {
			if n, err := atomicfile.ReadHead(f, no, make([]byte, 4)); err == nil {
				t.Errorf("%s: %d bytes of %s", what, n, no)
			}
		}
	}
}

func TestFileIDSeesChanges(t *testing.T) {
	f := atomicfile.OS()
	name := filepath.Join(t.TempDir(), "f")
	must(t, atomicfile.Write(f, name, []byte("one"), 0o600))
	id := func() atomicfile.ID {
		t.Helper()
		r, err := f.Open(name, os.O_RDONLY, 0)
		must(t, err)
		defer func() { _ = r.Close() }()
		got, err := atomicfile.FileID(r)
		must(t, err)
		return got
	}
	first := id()
	if again := id(); again != first {
		t.Errorf("reading changed %+v to %+v", first, again)
	}
	if fi, _ := f.Lstat(name); runtime.GOOS != "windows" {
		if got, ok := atomicfile.IDOf(fi); !ok || got != first {
			t.Errorf("lstat says %+v, fstat %+v", got, first)
		}
		if atomicfile.OwnerUID(fi) != os.Geteuid() || atomicfile.Unsafe(fi) != "" || atomicfile.DiskBytes(fi) <= 0 {
			t.Errorf("facts of %s: uid %d, unsafe %q, %d bytes", name, atomicfile.OwnerUID(fi), atomicfile.Unsafe(fi), atomicfile.DiskBytes(fi))
		}
	}
	// Editing in place and putting the modification time back still shows.
	must(t, os.WriteFile(name, []byte("two"), 0o600))
	must(t, os.Chtimes(name, time.Time{}, time.Unix(0, first.Mtime)))
	if second := id(); second == first {
		t.Error("an edit with restored mtime does not show")
	}
}

func TestUnsafe(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes are not access rights on Windows")
	}
	dir := t.TempDir()
	for mode, ok := range map[fs.FileMode]bool{0o700: true, 0o755: true, 0o770: false, 0o702: false} {
		must(t, os.Chmod(dir, mode))
		fi, err := os.Stat(dir)
		must(t, err)
		if got := atomicfile.Unsafe(fi); (got == "") != ok {
			t.Errorf("%v: %q", mode, got)
		}
	}
}

func TestBootID(t *testing.T) {
	f := atomicfile.OS()
	if runtime.GOOS == "linux" && f.BootID() == "" {
		t.Error("no boot id on Linux")
	}
	if f.BootID() != atomicfile.OS().BootID() {
		t.Error("the boot id changed")
	}
	must(t, f.SyncDir(t.TempDir()))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A temporary file that a killed process left goes with the next edit, and nothing of it stays.
func TestEditTakesOverALeftTemporaryFile(t *testing.T) {
	f, dir := atomicfile.OS(), t.TempDir()
	name := filepath.Join(dir, "f")
	must(t, os.WriteFile(filepath.Join(dir, ".f"+atomicfile.TempSuffix), []byte("longer than what is written"), 0o400))
	must(t, atomicfile.Edit(t.Context(), f, name, func([]byte) ([]byte, error) { return []byte("new"), nil }))
	if b, err := os.ReadFile(name); err != nil || string(b) != "new" {
		t.Errorf("content %q, %v", b, err)
	}
	names, err := f.ReadDir(dir)
	must(t, err)
	if runtime.GOOS != "windows" && len(names) != 1 {
		t.Errorf("left: %v", names)
	}
}
