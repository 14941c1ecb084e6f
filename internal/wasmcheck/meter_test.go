package wasmcheck_test

import (
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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

// TestS6_Rewriter: and for modules that nobody would write: metered and plain they print, trap and leave behind the
// same. The seeds are shared out to as many engines as there are processors.
func TestS6_Rewriter(t *testing.T) {
	t.Parallel()
	n := map[string]int{"": 250, "ci": 5000, "full": 100_000}[os.Getenv("DS_TORTURE")]
	if testing.Short() {
		n = 50
	}
	begin, _ := strconv.ParseUint(os.Getenv("DS_TORTURE_SEED"), 10, 64)
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // a third of the time is collecting what the compiler left
	var next, ticks atomic.Int64
	var mu sync.Mutex
	ends := map[string]int{}
	workers := runtime.GOMAXPROCS(0)
	t.Run("seeds", func(t *testing.T) {
		for w := range workers {
			t.Run(strconv.Itoa(w), func(t *testing.T) {
				t.Parallel()
				l := newLab(t, wazero.NewRuntimeConfig())
				own := map[string]int{}
				for i := next.Add(1) - 1; i < int64(n) && !t.Failed(); i = next.Add(1) - 1 {
					trap, k := l.differs(t, begin+uint64(i))
					own[trap]++
					ticks.Add(int64(k))
				}
				mu.Lock()
				defer mu.Unlock()
				for trap, k := range own {
					ends[trap] += k
				}
			})
		}
	})
	t.Logf("S6: %d generated modules, metered as plain, %d ticks, ends %v", n, ticks.Load(), ends)
	if plain := ends[""]; plain < n/8 || plain == n {
		t.Errorf("%d of %d modules end without a trap: the generator has become dull", plain, n)
	}
}

// differs fails the test if the module of a seed does anything else when it is metered. It returns how it ended.
func (l *lab) differs(t *testing.T, seed uint64) (trap string, ticks int) {
	t.Helper()
	b := generate(seed)
	if _, err := wasmcheck.Check(b, wasmcheck.Limits{}); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	meter(t, b)
	often, err := wasmcheck.MeterOften(b, int32(1+seed%50))
	if err != nil {
		t.Fatal(err)
	}
	r, ticks := l.compare(t, b, often, given{})
	if t.Failed() {
		t.Logf("seed %d: %d bytes", seed, len(b))
	}
	return r.trap, ticks
}
