package wasm

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync/atomic"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/wasmcheck"
)

const (
	// features is what modules may use; the number is part of the cache key.
	features = api.CoreFeaturesV2
	// closeOnDone would make the compiler emit a check at every loop head that ends the guest when the context
	// of _start is done. It is dear and does not end call trees; modules are metered instead. It is part of the
	// cache key.
	closeOnDone = false
	// maxPages lets the allocator of each instance be the one memory limit, so that a growth that it
	// refuses is seen, and instances with different limits share one engine.
	maxPages = 65536
	pageSize = 65536
)

// engine is one module ready to run: native code and the host modules it links to. It is shared by all
// invocations of the module in this process and holds no state of any of them.
type engine struct {
	runtime wazero.Runtime
	cache   wazero.CompilationCache // nil: compiled in memory
	code    wazero.CompiledModule
}

// newEngine loads a metered module, from native code below dir if there is some, else by compiling it, which writes the
// code there. An empty dir compiles in memory. Errors of the module itself have reason MODULE_REFUSED or
// ABI_UNSUPPORTED.
func newEngine(ctx context.Context, module []byte, dir string) (*engine, error) {
	e := &engine{}
	if err := e.load(ctx, module, dir); err != nil {
		e.close(ctx)
		return nil, err
	}
	return e, nil
}

func (e *engine) load(ctx context.Context, module []byte, dir string) (err error) {
	defer recovered("load module", &err)
	cfg := wazero.NewRuntimeConfig().WithCoreFeatures(features).WithCloseOnContextDone(closeOnDone).
		WithDebugInfoEnabled(false).WithCustomSections(false).WithMemoryLimitPages(maxPages)
	if dir != "" {
		if e.cache, err = wazero.NewCompilationCacheWithDir(dir); err != nil {
			return &engineError{err}
		}
		cfg = cfg.WithCompilationCache(e.cache)
	}
	e.runtime = wazero.NewRuntimeWithConfig(ctx, cfg)
	if e.code, err = e.runtime.CompileModule(ctx, module); err != nil {
		return &engineError{err}
	}
	return nil
}

// link adds the modules that guests import. It is apart from newEngine because a compile needs none of them.
func (e *engine) link(ctx context.Context) (err error) {
	defer recovered("link module", &err)
	if _, err := wasi_snapshot_preview1.Instantiate(experimental.WithFunctionListenerFactory(ctx, countGuard{}), e.runtime); err != nil {
		return err
	}
	b := e.runtime.NewHostModuleBuilder(importModule)
	for name, f := range imports {
		b = b.NewFunctionBuilder().WithGoModuleFunction(f, f.params(), f.results()).Export(name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		return err
	}
	_, err = e.runtime.NewHostModuleBuilder(wasmcheck.TickModule).NewFunctionBuilder().
		WithGoFunction(api.GoFunc(tick), nil, nil).Export(wasmcheck.TickName).Instantiate(ctx)
	return err
}

// tick is what metered code calls again and again.
func tick(ctx context.Context, _ []uint64) {
	ctx.Value(instanceKey{}).(*instance).stop.tick()
}

// minMemory is the memory that the module needs at least, in bytes.
func (e *engine) minMemory() int64 {
	m, ok := e.code.ExportedMemories()["memory"]
	if !ok {
		return 0
	}
	return int64(m.Min()) * pageSize
}

func (e *engine) close(ctx context.Context) {
	if e.runtime != nil {
		_ = e.runtime.Close(ctx) // closes what is linked; nothing runs any more
	}
	if e.cache != nil {
		_ = e.cache.Close(ctx) // unmaps the code
	}
}

// engineError is an error of the engine: the module, its native code or the directory of that is to blame.
type engineError struct{ err error }

func (e *engineError) Error() string { return e.err.Error() }
func (e *engineError) Unwrap() error { return e.err }

// panicError is a panic of the engine or of a host function.
type panicError struct {
	what  string
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("%s: panic: %v", e.what, e.value) }

// recovered turns a panic of the surrounding function into *err.
func recovered(what string, err *error) {
	if r := recover(); r != nil {
		*err = &panicError{what: what, value: r, stack: debug.Stack()}
	}
}

// load is one engine on its way.
type load struct {
	done     chan struct{} // closed when engine and err are set
	building atomic.Bool   // native code has to be made first
	engine   *engine
	err      error // *hostabi.Error
}

func (l *load) fail(err error) {
	l.engine, l.err = nil, hostabi.AsError(err)
}
