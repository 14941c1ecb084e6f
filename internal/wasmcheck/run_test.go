package wasmcheck_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/delivery-station/ds/internal/wasmcheck"
)

// lab is an engine with what guests of the tests import. It counts calls of tick; a test may end the guest there.
type lab struct {
	rt    wazero.Runtime
	ticks int
	limit int // of ticks; 0 = none
}

func newLab(t testing.TB, cfg wazero.RuntimeConfig) *lab {
	t.Helper()
	ctx := context.Background()
	l := &lab{rt: wazero.NewRuntimeWithConfig(ctx, cfg.WithCoreFeatures(api.CoreFeaturesV2).WithMemoryLimitPages(4096))}
	t.Cleanup(func() { _ = l.rt.Close(ctx) })
	wasi_snapshot_preview1.MustInstantiate(ctx, l.rt)
	_, err := l.rt.NewHostModuleBuilder(wasmcheck.TickModule).NewFunctionBuilder().WithGoFunction(api.GoFunc(func(context.Context, []uint64) {
		l.ticks++
		if l.limit > 0 && l.ticks >= l.limit {
			panic(sys.NewExitError(124))
		}
	}), nil, nil).Export(wasmcheck.TickName).Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	host := l.rt.NewHostModuleBuilder(wasmcheck.HostModule)
	for _, name := range wasmcheck.Names(wasmcheck.HostModule) {
		text, _ := wasmcheck.Signature(wasmcheck.HostModule, name)
		params := make([]api.ValueType, strings.Count(text, "i32"))
		for i := range params {
			params[i] = api.ValueTypeI32
		}
		host = host.NewFunctionBuilder().WithGoFunction(api.GoFunc(func(_ context.Context, stack []uint64) {
			stack[0] = 12 << 32 // UNIMPLEMENTED
		}), params, []api.ValueType{api.ValueTypeI64}).Export(name)
	}
	if _, err := host.Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *lab) compile(t testing.TB, b []byte) wazero.CompiledModule {
	t.Helper()
	cm, err := l.rt.CompileModule(context.Background(), b)
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	return cm
}

// given is what a guest is started with.
type given struct {
	args  []string
	stdin string
	dir   string // mounted at /
}

// result is everything that a run shows.
type result struct {
	out, err string
	exit     uint32
	trap     string
	pages    uint32
	memory   [32]byte
	globals  [10]uint64
}

func (r result) String() string {
	return fmt.Sprintf("exit %d trap %q pages %d memory %x out %.200q err %.200q", r.exit, r.trap, r.pages, r.memory[:4], r.out, r.err)
}

func (l *lab) run(t testing.TB, cm wazero.CompiledModule, g given) result {
	t.Helper()
	ctx := context.Background()
	var out, stderr bytes.Buffer
	cfg := wazero.NewModuleConfig().WithName("").WithStartFunctions().WithArgs(append([]string{"guest"}, g.args...)...).
		WithStdin(strings.NewReader(g.stdin)).WithStdout(&out).WithStderr(&stderr)
	if g.dir != "" {
		cfg = cfg.WithFSConfig(wazero.NewFSConfig().WithReadOnlyDirMount(g.dir, "/"))
	}
	m, err := l.rt.InstantiateModule(ctx, cm, cfg)
	if err != nil {
		return result{trap: "instantiate: " + firstLine(err)}
	}
	defer func() { _ = m.Close(ctx) }()
	_, err = m.ExportedFunction("_start").Call(ctx)
	r := result{out: out.String(), err: stderr.String()}
	if e, ok := errors.AsType[*sys.ExitError](err); ok {
		r.exit = e.ExitCode()
	} else if err != nil {
		r.trap = firstLine(err)
	}
	mem := m.Memory()
	r.pages = mem.Size() >> 16
	if view, ok := mem.Read(0, mem.Size()); ok {
		r.memory = sha256.Sum256(view)
	}
	for i := range r.globals {
		if g := m.ExportedGlobal("g" + strconv.Itoa(i)); g != nil {
			r.globals[i] = g.Get()
		}
	}
	return r
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// meter rewrites b and checks what every output has to be: the same again, accepted, and not meterable twice.
func meter(t testing.TB, b []byte) []byte {
	t.Helper()
	out, err := wasmcheck.Meter(b)
	if err != nil {
		t.Fatalf("meter: %v", err)
	}
	again, err := wasmcheck.Meter(b)
	if err != nil || !bytes.Equal(out, again) {
		t.Fatalf("meter is not deterministic: %v", err)
	}
	if _, err := wasmcheck.Check(out, wasmcheck.Limits{Metered: true}); err != nil {
		t.Fatalf("check of the metered module: %v", err)
	}
	if _, err := wasmcheck.Check(out, wasmcheck.Limits{}); err == nil {
		t.Fatal("a metered module passes as a plain one")
	}
	return out
}

// same runs b plain and metered and compares. It returns the result and the number of ticks.
func (l *lab) same(t testing.TB, b []byte, gs ...given) (last result, ticks int) {
	t.Helper()
	return l.compare(t, b, meter(t, b), gs...)
}

func (l *lab) compare(t testing.TB, a, b []byte, gs ...given) (last result, ticks int) {
	t.Helper()
	plain, metered := l.compile(t, a), l.compile(t, b)
	defer func() { _, _ = plain.Close(t.Context()), metered.Close(t.Context()) }()
	before := l.ticks
	for _, g := range gs {
		want, got := l.run(t, plain, g), l.run(t, metered, g)
		if got != want {
			t.Errorf("%v:\nplain   %v\nmetered %v", g.args, want, got)
		}
		last = got
	}
	return last, l.ticks - before
}

// kernels is the Go guest, built once per test process.
var kernels = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "ds-wasmcheck-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "kernels.wasm")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", file, "./testdata/kernels")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return os.ReadFile(file)
})

func goGuest(t testing.TB) []byte {
	t.Helper()
	if testing.Short() {
		t.Skip("builds and compiles a Go program")
	}
	b, err := kernels()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
