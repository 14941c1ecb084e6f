package wasmcheck_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/delivery-station/ds/internal/wasmcheck"
)

// TestMeterC: the prebuilt C guests do the same with and without Meter.
func TestMeterC(t *testing.T) {
	t.Parallel()
	l := newLab(t, wazero.NewRuntimeConfig())
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "in.txt"), []byte("input\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := func(lines ...string) (gs []given) {
		for _, line := range lines {
			gs = append(gs, given{args: strings.Fields(line), stdin: "one\ntwo\n", dir: dir})
		}
		return gs
	}
	r, _ := l.same(t, read(t, "../../testdata/guests/c/hello.wasm"), args("")...)
	if !strings.Contains(r.out, "ello") {
		t.Errorf("hello prints %q", r.out)
	}
	l.same(t, read(t, "../../testdata/guests/c/demo/demo.wasm"),
		args("", "args a b", "exit 3", "trap", "echo", "cat in.txt", "cat /none", "flood 100000", "oom", "isatty", "env")...)
	l.same(t, read(t, "../../runtime/wasm/testdata/probe.wasm"),
		args("exitcode 77", "bounds", "div", "indirect", "recurse", "callfor /x", "bench /x 1000")...)
}

// TestMeterGo: the same for a Go program of many shapes, which does not fit in one budget.
func TestMeterGo(t *testing.T) {
	t.Parallel()
	b := goGuest(t)
	l := newLab(t, wazero.NewRuntimeConfig())
	var gs []given
	for _, k := range []string{"loop", "fib", "sort", "sha256", "json", "regexp", "map", "copy", "matmul", "crc", "goroutines", "panic", "exit", "deep"} {
		gs = append(gs, given{args: []string{k, "3"}})
	}
	if _, ticks := l.same(t, b, gs...); ticks < 100 {
		t.Errorf("%d ticks", ticks)
	}
	report, err := wasmcheck.Check(b, wasmcheck.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(meter(t, b)); n > len(b)+len(b)/12 {
		t.Errorf("metered module has %d bytes, plain %d", n, len(b))
	}
	t.Logf("%+v; metered %+.2f %%", report, 100*float64(len(meter(t, b))-len(b))/float64(len(b)))
}

// TestMeterCorpus: and for every module in the directory DS_TEST_GUESTS, which may be large. NAME.args beside
// NAME.wasm has a command line in each line.
func TestMeterCorpus(t *testing.T) {
	dir := os.Getenv("DS_TEST_GUESTS")
	if dir == "" {
		t.Skip("DS_TEST_GUESTS names no directory of modules")
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.wasm"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no modules in %s: %v", dir, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			b := read(t, file)
			report, err := wasmcheck.Check(b, wasmcheck.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%+v", report)
			l := newLab(t, wazero.NewRuntimeConfig())
			lines, err := os.ReadFile(strings.TrimSuffix(file, ".wasm") + ".args")
			if err != nil {
				lines = []byte("--version\n")
			}
			for line := range strings.Lines(string(lines)) {
				r, ticks := l.same(t, b, given{args: strings.Split(strings.TrimSpace(line), "|"), dir: dir})
				t.Logf("%d ticks, %v", ticks, r)
			}
		})
	}
}

// TestMeterGenerated: and for modules that nobody would write. DS_TORTURE is ci or full, DS_TORTURE_SEED the first seed.
func TestMeterGenerated(t *testing.T) {
	t.Parallel()
	n := map[string]uint64{"": 250, "ci": 5000, "full": 100_000}[os.Getenv("DS_TORTURE")]
	if testing.Short() {
		n = 50
	}
	begin, _ := strconv.ParseUint(os.Getenv("DS_TORTURE_SEED"), 10, 64)
	l := newLab(t, wazero.NewRuntimeConfig())
	ends, ticks := map[string]int{}, 0
	for seed := begin; seed < begin+n && !t.Failed(); seed++ {
		b := generate(seed)
		if _, err := wasmcheck.Check(b, wasmcheck.Limits{}); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		meter(t, b)
		often, err := wasmcheck.MeterOften(b, int32(1+seed%50))
		if err != nil {
			t.Fatal(err)
		}
		r, k := l.compare(t, b, often, given{})
		if t.Failed() {
			t.Logf("seed %d: %d bytes", seed, len(b))
		}
		ends[r.trap]++
		ticks += k
	}
	t.Logf("%d modules, %d ticks, ends %v", n, ticks, ends)
	if plain := ends[""]; uint64(plain) < n/8 || uint64(plain) == n {
		t.Errorf("%d of %d modules end without a trap: the generator has become dull", plain, n)
	}
}
