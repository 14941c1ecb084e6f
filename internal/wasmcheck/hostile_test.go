package wasmcheck_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/internal/wasmcheck"
)

// What a verdict, Check and Meter together, may take of a processor. The first holds for modules of up to 4 MiB, the
// second for more: 48 MiB of code cannot be read in no time.
const (
	verdictGoal   = 250 * time.Millisecond
	verdictPerMiB = verdictGoal / 4
	hostMemory    = 256 << 20 // of the process that judges
)

// bomb is a module that kills an engine or keeps it busy, and the rule that refuses it; "" = it is harmless as it is.
type bomb struct {
	module []byte
	rule   string
}

func bombs(t testing.TB) map[string]bomb {
	names := unhex(t, killNames)[8:]
	return map[string]bomb{
		"a":                 {unhex(t, killLocals), "locals"},
		"b":                 {unhex(t, killNames), "memory export"},
		"c":                 {unhex(t, killType), "type index"},
		"d":                 {unhex(t, growTable), "memory export"},
		"a in a whole one":  {build{fns: []fn{{locals: [][]byte{local(4_000_000_000, 0x7e)}}}}.bytes(), "locals"},
		"b in a whole one":  {build{custom: names}.bytes(), ""},
		"c in a whole one":  {build{fns: []fn{{code: []byte{0x10, 1}}, {typ: 78}}}.bytes(), "type index"},
		"d in a whole one":  {build{tables: [][]byte{{0x70, 0, 0}}, fns: []fn{{code: unhex(t, "d070 4180d3f23f fc0f00 1a")}}}.bytes(), ""},
		"phi":               {nestedLoops(200, 200), "loop nesting"},
		"ifs":               {manyIfs(1000), "locals x blocks"},
		"bigfunc":           {bigFunction(100_000), "body size"},
		"nest":              {nestedBlocks(100_000), "block nesting"},
		"brt":               {branchTables(300, 300), "br_table entries of a function"},
		"100 loops x 100":   {nestedLoops(100, 100), "loop nesting"},
		"64 MiB of nothing": {append(build{}.bytes(), make([]byte, wasmcheck.MaxModule-200)...), "sections"},
	}
}

// heavy makes modules just below the limits, in the ways that cost Check and Meter most.
var heavy = map[string]func() []byte{
	"nothing":         func() []byte { return full(0x01) },
	"loads":           func() []byte { return full(0x41, 0, 0x28, 2, 0, 0x1a) },
	"blocks":          func() []byte { return full(0x02, 0x40, 0x0b) },
	"small functions": func() []byte { return many(0x41, 0, 0x1a) },
	"many calls":      func() []byte { return many(0x10, 0) },
	"types": func() []byte {
		return build{types: slices.Repeat([]string{strings.Repeat("i", 600) + ">"}, 99_000)}.bytes()
	},
	"data": func() []byte { return build{data: [][]byte{cat([]byte{1}, u(60<<20), make([]byte, 60<<20))}}.bytes() },
	"elements": func() []byte {
		return build{elems: [][]byte{cat([]byte{1, 0}, u(1_000_000), make([]byte, 1_000_000))}}.bytes()
	},
	"custom sections": func() []byte {
		return build{custom: bytes.Repeat(sec(0, make([]byte, 6000)), 9_999)}.bytes()
	},
}

// full is as many bodies full of unit as the code section takes.
func full(unit ...byte) []byte {
	body := fn{code: bytes.Repeat(unit, (512<<10-64)/len(unit))}
	return build{fns: slices.Repeat([]fn{body}, 95)}.bytes()
}

// many is as many functions as there may be.
func many(unit ...byte) []byte {
	body := fn{code: bytes.Repeat(unit, 450/len(unit))}
	return build{fns: slices.Repeat([]fn{body}, 99_000)}.bytes()
}

// verdict is Check and Meter, and the processor time that they took. It fails the test if that was too much.
func verdict(t testing.TB, what string, b []byte) (time.Duration, error) {
	t.Helper()
	begin := cpuTime()
	_, err := wasmcheck.Check(b, wasmcheck.Limits{})
	if err == nil {
		_, err = wasmcheck.Meter(b)
	}
	took := cpuTime() - begin
	limit := max(verdictGoal, verdictPerMiB*time.Duration(len(b))>>20)
	if took > 3*limit { // a loaded machine
		t.Errorf("%s: the verdict on %d bytes took %v", what, len(b), took)
	}
	return took, err
}

// TestS2_Hostile judges modules that attack: bombs, modules that are as dear as the limits allow, and changed ones. None
// may cost the host more than a moment and some memory; what passes is compiled by another process, which must live.
func TestS2_Hostile(t *testing.T) {
	// not parallel: it measures
	n := map[string]int{"": 3000, "ci": 20_000, "full": 150_000}[os.Getenv("DS_TORTURE")]
	if testing.Short() {
		n = 500
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	seed, _ := strconv.ParseUint(os.Getenv("DS_TORTURE_SEED"), 10, 64)
	r := rand.New(rand.NewPCG(seed, 2))
	c := &compiler{}
	defer c.close()
	corpus := [][]byte{read(t, "../../testdata/guests/c/hello.wasm"), nestedLoops(20, 20), manyIfs(50), branchTables(10, 50), nestedBlocks(100)}
	for seed := range uint64(40) {
		corpus = append(corpus, generate(seed))
	}
	resetPeak()
	passed, slowest := 0, time.Duration(0)
	for range n {
		b := mutate(r, corpus)
		took, _ := verdict(t, "mutant", b)
		slowest = max(slowest, took)
		if judge(t, c, b) {
			passed++
		}
	}
	all := bombs(t)
	rules := testBombs(t, all, &slowest)
	peak := peakMemory()
	perMiB, dearest := time.Duration(0), ""
	for name, makes := range heavy {
		if os.Getenv("DS_TORTURE") == "" && name != "many calls" && name != "elements" {
			continue
		}
		b := makes()
		resetPeak()
		took, _ := verdict(t, name, b)
		peak = max(peak, peakMemory()-int64(len(b)))
		if took = took << 20 / time.Duration(len(b)); took > perMiB {
			perMiB, dearest = took, name
		}
	}
	if peak > hostMemory {
		t.Errorf("the judging process had %d MiB beside the module, at most %d", peak>>20, hostMemory>>20)
	}
	if passed < n/50 {
		t.Errorf("only %d of %d mutants passed Check: the mutator has become dull", passed, n)
	}
	t.Logf("S2: %d mutants (%d pass Check, the engine lives), %d bombs refused by %d rules: slowest verdict %v; %d modules at the limits: at most %v per MiB (%s); host %d MiB",
		n, passed, len(all), rules, slowest.Round(time.Microsecond), len(heavy), perMiB.Round(time.Millisecond), dearest, peak>>20)
}

// testBombs refuses every bomb by the rule that it is about, with an error that names it.
func testBombs(t *testing.T, all map[string]bomb, slowest *time.Duration) (rules int) {
	t.Helper()
	seen := make(map[string]bool)
	for name, c := range all {
		took, err := verdict(t, name, c.module)
		*slowest = max(*slowest, took)
		e, _ := errors.AsType[*wasmcheck.Error](err)
		if c.rule == "" && err != nil || c.rule != "" && (e == nil || e.Rule != c.rule) {
			t.Errorf("%s: got %v, want rule %q", name, err, c.rule)
			continue
		}
		seen[c.rule] = true
	}
	return len(seen) - 1
}
