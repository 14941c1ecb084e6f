package wasmcheck_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
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
