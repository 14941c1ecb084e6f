package wasmcheck_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/delivery-station/ds/internal/wasmcheck"
)

// TestREG004_CompileModuleDies: three small modules kill or panic a bare engine; Check refuses them before it sees a byte.
func TestREG004_CompileModuleDies(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"a": killLocals, "b": killNames, "c": killType} {
		c := &compiler{}
		if took, err := c.compile(unhex(t, text)); err == nil {
			t.Errorf("%s: the bare engine survives (took %v): review whether Check still needs this rule", name, took)
		}
		c.close()
		begin := time.Now()
		if _, err := wasmcheck.Check(unhex(t, text), wasmcheck.Limits{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if took := time.Since(begin); took > 10*time.Millisecond {
			t.Logf("%s: refused after %v", name, took)
		}
	}
}

// doubling is n functions, each of which calls the next twice; the last does nothing.
func doubling(n int) []byte {
	b := build{}
	for i := range n - 1 {
		next := u(uint32(i + 1))
		b.fns = append(b.fns, fn{code: cat([]byte{0x10}, next, []byte{0x10}, next)})
	}
	b.fns = append(b.fns, fn{code: []byte{0x01}})
	return b.bytes()
}

// filling is n times memory.fill of 64 MiB.
func filling(n int) []byte {
	one := cat([]byte{0x41, 0, 0x41, 7, 0x41}, s(64<<20), []byte{0xfc, 11, 0})
	return build{memory: cat([]byte{1, 0}, u(1024)), fns: []fn{{code: bytes.Repeat(one, n)}}}.bytes()
}

// TestREG005_StopSwitch: the engine's own stop switch leaves a call tree and bulk operations running for seconds; with
// Meter they reach tick. That a deadline ends them then is tested in runtime/wasm.
func TestREG005_StopSwitch(t *testing.T) {
	if testing.Short() {
		t.Skip("waits three seconds for a program that must not end")
	}
	t.Parallel()
	for name, b := range map[string][]byte{"call tree": doubling(40), "fill": filling(4000)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, exe, "-test.run=^$")
			cmd.Env = append(os.Environ(), compilerEnv+"=run")
			cmd.Stdin = bytes.NewReader(b)
			if out, err := cmd.CombinedOutput(); ctx.Err() == nil {
				t.Errorf("the bare engine ends it: review whether Meter is still needed: %v %s", err, out)
			}
			l := newLab(t, wazero.NewRuntimeConfig())
			l.limit = 3
			if r := l.run(t, l.compile(t, meter(t, b)), given{}); r.exit != 124 {
				t.Errorf("metered: %v", r)
			}
		})
	}
}

// TestREG006_StopSwitchCosts: the engine's own stop switch at least doubles the time of what computes; Meter, which also
// stops call trees and bulk operations, costs a quarter at most.
func TestREG006_StopSwitchCosts(t *testing.T) {
	// not parallel: it measures
	guest := goGuest(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	plain, closing := newLab(t, wazero.NewRuntimeConfig()), newLab(t, wazero.NewRuntimeConfig().WithCloseOnContextDone(true))
	loop, fib := tightLoop(30_000_000), callTree(27)
	labs := []*lab{plain, plain, closing}
	load := func(b []byte) []wazero.CompiledModule {
		return []wazero.CompiledModule{plain.compile(t, b), plain.compile(t, meter(t, b)), closing.compile(t, b)}
	}
	inGo := load(guest)
	kernels := []struct {
		name  string
		mods  []wazero.CompiledModule
		given given
	}{{"tight loop", load(loop), given{}}, {"calls", load(fib), given{}}}
	rounds, goKernels := 3, map[string]int{"loop": 4, "fib": 3, "sort": 2, "sha256": 3, "json": 1, "regexp": 1, "map": 2, "copy": 3, "matmul": 2, "crc": 12}
	if os.Getenv("DS_TORTURE") == "" {
		rounds, goKernels = 1, map[string]int{"sort": 2, "crc": 12}
	}
	for name, n := range goKernels {
		kernels = append(kernels, struct {
			name  string
			mods  []wazero.CompiledModule
			given given
		}{name, inGo, given{args: []string{name, strconv.Itoa(n)}}})
	}
	var metered, bare, worst float64
	for _, k := range kernels {
		best := [3]time.Duration{math.MaxInt64, math.MaxInt64, math.MaxInt64}
		for range rounds {
			for i, m := range k.mods {
				begin := cpuTime()
				if r := labs[i].run(t, m, k.given); r.trap != "" {
					t.Fatalf("%s: %v", k.name, r)
				}
				best[i] = min(best[i], cpuTime()-begin)
			}
		}
		ours := best[1].Seconds() / best[0].Seconds()
		metered, bare, worst = metered+math.Log(ours), bare+math.Log(best[2].Seconds()/best[0].Seconds()), max(worst, ours)
	}
	n := float64(len(kernels))
	metered, bare = math.Exp(metered/n), math.Exp(bare/n)
	if bare < 2 {
		t.Errorf("the bare engine's stop switch costs %.2f times the time only: review whether Meter is still needed", bare)
	}
	if metered > 2 { // the contract says 1.25 on a quiet machine: make bench
		t.Errorf("metered code takes %.2f times the time", metered)
	}
	t.Logf("REG-006: geomean of %d kernels: metered %.2f (largest %.2f), the engine's stop switch %.2f", len(kernels), metered, worst, bare)
}

// TestREG007_CompileBombs: modules that keep a bare engine busy, fill its memory or kill it are refused at once, by the
// rule that they are about. That whatever passes is bounded by a worker is tested in runtime/wasm.
func TestREG007_CompileBombs(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles bombs")
	}
	// not parallel: it measures
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	all := bombs(t)
	bare := []string{"brt", "ifs", "bigfunc", "phi", "nest"}
	if os.Getenv("DS_TORTURE") == "" {
		bare = bare[:2] // the others take seconds
	}
	for _, name := range bare {
		c := &compiler{patience: 10 * time.Second}
		_, err := c.compile(all[name].module)
		c.close()
		cpu := c.ended.UserTime() + c.ended.SystemTime()
		if byItself := err != nil && c.ended.Exited(); !byItself && cpu < 2*verdictGoal {
			t.Errorf("%s: the bare engine compiles it in %v: review whether Check still needs this rule", name, cpu)
		}
	}
	slowest := time.Duration(0)
	resetPeak()
	before := peakMemory()
	rules := testBombs(t, all, &slowest)
	grown := peakMemory() - before
	if grown > 64<<20 {
		t.Errorf("the judging process grew by %d MiB", grown>>20)
	}
	t.Logf("REG-007: the bare engine dies of or is kept busy by %v; ours refuses %d bombs by %d rules, slowest verdict %v, host +%d MiB", bare, len(all), rules, slowest.Round(time.Microsecond), grown>>20)
}

// TestREG008_TablesAndStack: the engine's limit of pages does not count tables, so that one table.grow takes a gigabyte;
// endless recursion takes what the engine allows. After Meter a table has a million elements, and both stay small.
func TestREG008_TablesAndStack(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a gigabyte")
	}
	t.Parallel()
	grow := bombs(t)["d in a whole one"].module
	bare, ours, stack := peakOf(t, grow), peakOf(t, meter(t, grow)), peakOf(t, meter(t, code([]byte{0x10, 0})))
	if bare == 0 {
		t.Skip("this system does not tell the memory of a process")
	}
	if bare < 900<<20 {
		t.Errorf("the bare engine takes %d MiB only: review whether Meter must still cap tables", bare>>20)
	}
	if ours > 128<<20 || stack > hostMemory {
		t.Errorf("metered: %d MiB after table.grow, %d MiB after a recursion", ours>>20, stack>>20)
	}
	t.Logf("REG-008: table.grow takes %d MiB on the bare engine, the whole process %d MiB with Meter; endless recursion %d MiB", bare>>20, ours>>20, stack>>20)
}

// peakOf runs a module in a process of its own, with a limit of 256 MiB for its memory, and returns the memory that the process had.
func peakOf(t *testing.T, module []byte) int64 {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), compilerEnv+"=peak")
	cmd.Stdin = bytes.NewReader(module)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	n, err := strconv.ParseInt(string(out), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// runPeak is the other half of peakOf.
func runPeak(in io.Reader, out io.Writer) int {
	b, err := io.ReadAll(in)
	if err != nil {
		return 3
	}
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithMemoryLimitPages(4096))
	tick := func(context.Context, []uint64) {}
	if _, err = rt.NewHostModuleBuilder(wasmcheck.TickModule).NewFunctionBuilder().WithGoFunction(api.GoFunc(tick), nil, nil).Export(wasmcheck.TickName).Instantiate(ctx); err != nil {
		return 3
	}
	m, err := rt.InstantiateWithConfig(ctx, b, wazero.NewModuleConfig().WithStartFunctions())
	if err != nil {
		return 3
	}
	_, _ = m.ExportedFunction("_start").Call(ctx) // a trap is fine
	_, _ = fmt.Fprint(out, peakMemory())
	return 0
}

// runBare runs the module with a deadline of 300 ms and the engine's own stop switch.
func runBare(in io.Reader) int {
	b, err := io.ReadAll(in)
	if err != nil {
		return 3
	}
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCloseOnContextDone(true))
	m, err := rt.InstantiateWithConfig(ctx, b, wazero.NewModuleConfig().WithStartFunctions())
	if err != nil {
		return 3
	}
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err = m.ExportedFunction("_start").Call(ctx)
	if _, ok := errors.AsType[*sys.ExitError](err); ok {
		return 0
	}
	return 1
}
