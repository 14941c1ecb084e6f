package wasm

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/wasmcheck"
	"github.com/delivery-station/ds/plugin"
)

// cacheRun runs the demo on a fresh backend over dir and says what it printed and logged.
func cacheRun(t *testing.T, dir string, p *plugin.Installed) (log string) {
	t.Helper()
	var warnings bytes.Buffer
	b := New(Options{CacheDir: dir, Log: logTo(&warnings)})
	r := &runOf{b: b}
	if err := r.run(t.Context(), t, p, "args"); err != nil || r.out.String() != "ds-demo\nargs\n" {
		t.Errorf("run: %v: %q %s", err, &r.out, &r.err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	return warnings.String()
}

// entryFiles are the files of the one entry below dir.
func entryFiles(t *testing.T, dir string) (entry, native string) {
	t.Helper()
	entries, err := filepath.Glob(filepath.Join(dir, strings.Repeat("?", 64)))
	if err != nil || len(entries) != 1 {
		t.Fatalf("entries %q: %v", entries, err)
	}
	natives, err := filepath.Glob(filepath.Join(entries[0], "wazero-*", "*"))
	if err != nil || len(natives) != 1 {
		t.Fatalf("native files %q: %v", natives, err)
	}
	return entries[0], natives[0]
}

func TestEntryIsPublished(t *testing.T) {
	t.Parallel()
	dir, p := filepath.Join(t.TempDir(), "wasm"), installed(t, demoWASM)
	if log := cacheRun(t, dir, p); log != "" {
		t.Errorf("cold: %s", log)
	}
	entry, native := entryFiles(t, dir)
	b, err := os.ReadFile(filepath.Join(entry, entryFile))
	if err != nil {
		t.Fatal(err)
	}
	var info entryInfo
	if err := json.Unmarshal(b, &info); err != nil {
		t.Fatal(err)
	}
	if info.V != 1 || info.Source != p.Program.Digest || info.Engine != engineName() || !strings.HasPrefix(info.Engine, "wazero ") ||
		info.OS != runtime.GOOS || info.Arch != runtime.GOARCH || len(info.Files) != 2 || info.SHA256 == p.Program.Digest.Hex() || info.Meter != wasmcheck.MeterVersion {
		t.Errorf("entry %s", b)
	}
	for name, want := range map[string]fs.FileMode{dir: 0o700, entry: 0o700, filepath.Join(entry, moduleFile): 0o400, filepath.Join(entry, entryFile): 0o400, native: 0o600} {
		fi, err := os.Stat(name)
		if err != nil || runtime.GOOS != "windows" && fi.Mode().Perm() != want {
			t.Errorf("%s: mode %v, want %v: %v", name, fi.Mode().Perm(), want, err)
		}
	}
	before, err := os.Stat(native)
	if err != nil {
		t.Fatal(err)
	}
	if log := cacheRun(t, dir, p); log != "" {
		t.Errorf("warm: %s", log)
	}
	if after, err := os.Stat(native); err != nil || !os.SameFile(before, after) {
		t.Errorf("built again: %v", err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, tempPrefix+"*"))
	if len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestDamagedEntries are built again with a warning, and the guest runs.
func TestDamagedEntries(t *testing.T) {
	t.Parallel()
	write := func(name string, f func(b []byte) []byte) error {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := os.Chmod(name, 0o600); err != nil {
			return err
		}
		return os.WriteFile(name, f(b), 0o600)
	}
	// restamp makes entry.json agree with what the files are now: only the engine can see the damage.
	restamp := func(entry string) error {
		s := New(Options{CacheDir: filepath.Dir(entry)}).entries
		return write(filepath.Join(entry, entryFile), func(b []byte) []byte {
			var info entryInfo
			_ = json.Unmarshal(b, &info)
			for i, f := range info.Files {
				_, info.Files[i], _ = s.readStamped(entry, f.Name)
			}
			b, _ = json.Marshal(info)
			return b
		})
	}
	half := func(b []byte) []byte { return b[:len(b)/2] }
	flip := func(b []byte) []byte { b[len(b)/2] ^= 0x40; return b }
	for name, damage := range map[string]func(entry, native string) error{
		"native truncated":            func(_, n string) error { return write(n, half) },
		"native flipped":              func(_, n string) error { return write(n, flip) },
		"native truncated, restamped": func(e, n string) error { return firstError(write(n, half), restamp(e)) },
		"native flipped, restamped":   func(e, n string) error { return firstError(write(n, flip), restamp(e)) },
		"native replaced":             func(_, n string) error { return firstError(os.Rename(n, n+".old"), copyFile(n+".old", n)) },
		"native deleted":              func(_, n string) error { return os.Remove(n) },
		"module truncated":            func(e, _ string) error { return write(filepath.Join(e, moduleFile), half) },
		"module deleted":              func(e, _ string) error { return os.Remove(filepath.Join(e, moduleFile)) },
		"entry.json deleted":          func(e, _ string) error { return os.Remove(filepath.Join(e, entryFile)) },
		"entry.json garbage": func(e, _ string) error {
			return write(filepath.Join(e, entryFile), func([]byte) []byte { return []byte("{") })
		},
		"entry.json of version 2": func(e, _ string) error {
			return write(filepath.Join(e, entryFile), func([]byte) []byte { return []byte(`{"v":2}`) })
		},
		"entry.json leaves": func(e, _ string) error {
			return write(filepath.Join(e, entryFile), func([]byte) []byte { return []byte(`{"v":1,"files":[{"name":"../../x"}]}`) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, p := filepath.Join(t.TempDir(), "wasm"), installed(t, demoWASM)
			cacheRun(t, dir, p)
			entry, native := entryFiles(t, dir)
			if err := damage(entry, native); err != nil {
				t.Fatal(err)
			}
			if log := cacheRun(t, dir, p); strings.Count(log, "\n") != 1 || !strings.Contains(log, "built again") {
				t.Errorf("first run after: %s", log)
			}
			if log := cacheRun(t, dir, p); log != "" {
				t.Errorf("second run after: %s", log)
			}
		})
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

func TestDeletedEntryIsBuiltAgain(t *testing.T) {
	t.Parallel()
	dir, p := filepath.Join(t.TempDir(), "wasm"), installed(t, demoWASM)
	cacheRun(t, dir, p)
	entry, _ := entryFiles(t, dir)
	if err := os.RemoveAll(entry); err != nil {
		t.Fatal(err)
	}
	if log := cacheRun(t, dir, p); log != "" {
		t.Errorf("a cleared cache is no damage: %s", log)
	}
	entryFiles(t, dir)
}

func TestUnusableCacheDirectory(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("no permission bits")
	}
	p := installed(t, demoWASM)
	for name, c := range map[string]struct {
		make func(base string) (dir string)
		want string
	}{
		"group-writable": {func(base string) string { return mkdirMode(t, base, "w", 0o770) }, "chmod go-w"},
		"parent of others": {func(base string) string {
			mkdirMode(t, base, "open", 0o777)
			return mkdirMode(t, base, "open/wasm", 0o700)
		}, "writable by group or others"},
		"a file": {func(base string) string {
			f := filepath.Join(base, "file")
			if err := os.WriteFile(f, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return f
		}, "not kept"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := c.make(t.TempDir())
			if log := cacheRun(t, dir, p); strings.Count(log, "\n") != 1 || !strings.Contains(log, c.want) {
				t.Errorf("log: %s", log)
			}
			if keys, _ := filepath.Glob(filepath.Join(dir, strings.Repeat("?", 64))); len(keys) > 0 {
				t.Errorf("written: %q", keys)
			}
			b := New(Options{CacheDir: dir})
			if err := b.Check(t.Context(), p); err != nil {
				t.Errorf("check: %v", err)
			}
		})
	}
}

func mkdirMode(t *testing.T, base, name string, mode fs.FileMode) string {
	dir := filepath.Join(base, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestReadOnlyHome(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	dir := mkdirMode(t, t.TempDir(), "home", 0o500)
	if log := cacheRun(t, filepath.Join(dir, "wasm"), installed(t, demoWASM)); strings.Count(log, "\n") != 1 {
		t.Errorf("log: %s", log)
	}
}

func TestCheckMakesTheEntry(t *testing.T) {
	t.Parallel()
	dir, p := filepath.Join(t.TempDir(), "wasm"), installed(t, demoWASM)
	b := New(Options{CacheDir: dir})
	q := *p
	q.Program = nil // as after unpacking: nothing is open
	if err := b.Check(t.Context(), &q); err != nil {
		t.Fatal(err)
	}
	entry, _ := entryFiles(t, dir)
	if err := b.Forget(hostabi.DigestOf([]byte("another"))); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(entry); err != nil {
		t.Errorf("another module was forgotten: %v", err)
	}
	if err := b.Forget(p.Program.Digest); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(entry); !os.IsNotExist(err) {
		t.Errorf("not forgotten: %v", err)
	}
	q.Programs = nil
	if err := b.Check(t.Context(), &q); hostabi.ReasonOf(err) != hostabi.ReasonPlatformUnsupported {
		t.Errorf("without a module: %v", err)
	}
	bad := *p.Program
	bad.Digest = hostabi.DigestOf(nil)
	q.Program = &bad
	if err := b.Check(t.Context(), &q); hostabi.ReasonOf(err) != hostabi.ReasonPluginModified {
		t.Errorf("changed module: %v", err)
	}
	if err := New(Options{}).Forget(p.Program.Digest); err != nil {
		t.Error(err)
	}
}

func TestTrim(t *testing.T) {
	t.Parallel()
	dir, p := filepath.Join(t.TempDir(), "wasm"), installed(t, demoWASM)
	b := New(Options{CacheDir: dir})
	s := b.entries
	now := time.Now()
	s.now = func() time.Time { return now }
	if err := b.Check(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	entry, _ := entryFiles(t, dir)
	fake := func(key, engine string, age time.Duration, size int64) string {
		path := filepath.Join(dir, strings.Repeat(key, 64))
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		j, _ := json.Marshal(entryInfo{V: 1, Engine: engine, Meter: meterVersion, Files: []stamp{{Size: size}}})
		if err := os.WriteFile(filepath.Join(path, entryFile), j, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	idle := fake("a", engineName(), 31*24*time.Hour, 1)
	foreign := fake("b", "wazero v0.0.1", 25*time.Hour, 1)
	foreignFresh := fake("c", "wazero v0.0.1", time.Hour, 1)
	large := fake("d", engineName(), 3*time.Hour, 1<<30)
	older := fake("e", engineName(), 4*time.Hour, 1<<20)
	staging := filepath.Join(dir, tempPrefix+"1-x")
	if err := os.Mkdir(staging, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(staging, now.Add(-2*time.Hour), now.Add(-2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	if err := s.trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(idle); err != nil {
		t.Error("trimmed twice a day")
	}
	now = now.Add(25 * time.Hour)
	for _, keep := range []string{foreignFresh, large, older} { // used meanwhile
		at := now.Add(-time.Hour)
		if keep == older {
			at = now.Add(-2 * time.Hour)
		}
		if err := os.Chtimes(keep, at, at); err != nil {
			t.Fatal(err)
		}
	}
	s.touch(entry)
	s.max = 1 << 30
	if err := s.trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{idle: false, foreign: false, foreignFresh: true, large: false, older: false, entry: true, staging: false} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", filepath.Base(path), err == nil, want)
		}
	}
}

// TestColdProcesses: several processes that start one cold plugin compile it once.
func TestColdProcesses(t *testing.T) {
	if dir := os.Getenv("WASM_TEST_COLD"); dir != "" {
		if log := cacheRun(t, dir, installed(t, demoWASM)); log != "" {
			t.Error(log)
		}
		return
	}
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "wasm")
	errs := make(chan error, 4)
	for range cap(errs) {
		go func() {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestColdProcesses$")
			cmd.Env = append(os.Environ(), "WASM_TEST_COLD="+dir)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Logf("%s", out)
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	entryFiles(t, dir)
	left, _ := filepath.Glob(filepath.Join(dir, tempPrefix+"*"))
	if len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestOneLoad: invocations of one module share its engine.
func TestOneLoad(t *testing.T) {
	t.Parallel()
	b := New(Options{})
	defer func() { _ = b.Close() }()
	p := installed(t, demoWASM)
	b.Prefetch(p)
	errs := make(chan error, 8)
	for range cap(errs) {
		go func() { errs <- (&runOf{b: b}).run(t.Context(), t, p, "args") }()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if len(b.loads) != 1 {
		t.Errorf("%d engines", len(b.loads))
	}
}

func TestPanicDropsTheEngine(t *testing.T) {
	t.Parallel()
	b := New(Options{})
	p := installed(t, probeWASM)
	if err := (&runOf{b: b}).run(t.Context(), t, p, "callfor", "/panic"); hostabi.ReasonOf(err) != hostabi.ReasonInternal {
		t.Errorf("got %v", err)
	}
	if len(b.loads) != 0 || len(b.dropped) != 1 {
		t.Errorf("%d engines, %d dropped", len(b.loads), len(b.dropped))
	}
	if err := (&runOf{b: b}).run(t.Context(), t, p, "callfor", "/echo"); err != nil {
		t.Errorf("next run: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

func TestKeyDependsOnTheModule(t *testing.T) {
	t.Parallel()
	a, b := keyOf(hostabi.DigestOf([]byte("a"))), keyOf(hostabi.DigestOf([]byte("b")))
	if a == b || len(a) != 64 || a != keyOf(hostabi.DigestOf([]byte("a"))) {
		t.Errorf("keys %s %s", a, b)
	}
	p := installedBytes(t, module(nil, true, "_start"))
	p.Program.Digest = "" // found by reading
	if err := (&runOf{}).run(t.Context(), t, p); err != nil {
		t.Error(err)
	}
}

// TestProbeIsCurrent: the committed module was built from the committed source.
func TestProbeIsCurrent(t *testing.T) {
	t.Parallel()
	src, err := os.ReadFile("testdata/probe.c")
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile("testdata/sources.sha256")
	if err != nil {
		t.Fatal(err)
	}
	if want := hostabi.DigestOf(src).Hex() + "  probe.c\n"; string(sums) != want {
		t.Errorf("probe.c has changed; build it anew as its first comment says: %s", sums)
	}
}
