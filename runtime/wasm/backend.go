// Package wasm runs plugins that are one WASI preview 1 module, with wazero. It owns engines, the cache of
// compiled code, the guest's file systems, streams and the ds_v1 imports. Modules see what their Box grants
// and nothing else: every directory goes through os.Root, never through the engine's own mounts. wazero types
// stay inside. Start with New and Backend.Run.
package wasm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/internal/wasmcheck"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

// Options configures a Backend. The zero value compiles in memory and writes nothing.
type Options struct {
	CacheDir    string        // directory of compiled modules, <cache dir>/wasm; empty = compile in memory
	CacheMax    int64         // bytes of all its entries together; 0 = 1 GiB
	Compile     CompileFunc   // starts the compile worker; nil = compile in this process
	CompileTime time.Duration // CPU time that one compile may take at most; 0 = what the module's size allows
	TempDir     string        // where the /tmp of guests is made; empty = the system's
	MemoryMax   int64         // bytes that all guests alive may have together; 0 = no bound
	Log         *slog.Logger  // warnings; nil = discard
}

// CompileFunc runs the compile worker with argv (without the program name) and stdin, within lim, and returns
// what it printed. An *hostabi.Error means that the module was refused.
type CompileFunc func(ctx context.Context, argv []string, stdin io.Reader, lim CompileLimits) (stdout []byte, err error)

// CompileLimits bounds one compile worker. Dir is the only directory it may write.
type CompileLimits struct {
	Wall, CPU time.Duration
	Memory    int64
	Dir       string
}

// Backend runs WASM plugins. It is safe for concurrent use.
type Backend struct {
	o       Options
	entries *entries // nil: no cache
	memory  accounts

	prepared func(*instance) // tests change what an instance sees before it runs; nil otherwise

	loading context.Context // of loads, which outlive who asked for them; ends with Close
	cancel  context.CancelFunc

	mu      sync.Mutex
	loads   map[string]*load // by key
	dropped []*engine        // panicked; closed with the rest, because others may be running on them
	wg      sync.WaitGroup
	warned  sync.Once
}

// New makes a Backend; it opens nothing.
func New(o Options) *Backend {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.CacheMax == 0 {
		o.CacheMax = defaultMax
	}
	b := &Backend{o: o, memory: accounts{max: o.MemoryMax}, loads: make(map[string]*load)}
	b.loading, b.cancel = context.WithCancel(context.Background())
	if o.CacheDir != "" {
		b.entries = &entries{dir: o.CacheDir, max: o.CacheMax, fs: atomicfile.OS(), log: o.Log, now: time.Now}
	}
	return b
}

// Run runs one invocation of p, whose Program is open. nil means exit 0, *plugin.ExitError that the guest
// ended otherwise or by a signal, *plugin.RunError everything else. It fills inv.Paths.
func (b *Backend) Run(ctx context.Context, p *plugin.Installed, box *sandbox.Box, inv *plugin.Invocation, s hostabi.Session) error {
	return b.run(ctx, p, box, inv, s)
}

// grants is what this backend needs of a sandbox.Box.
type grants interface {
	Mounts() []sandbox.Mount
	Limits() plugin.Limits
	Quota(c hostabi.Capability) int64
	Env(host []string) []string
	Paths() (args []string, paths []hostabi.PathArg)
}

var _ grants = (*sandbox.Box)(nil)

func (b *Backend) run(ctx context.Context, p *plugin.Installed, box grants, inv *plugin.Invocation, s hostabi.Session) (err error) {
	stage := plugin.StagePrepare
	defer func() { err = b.runError(p, inv, stage, err) }()
	defer recovered("run", &err)

	stop := newStopper(ctx, inv)
	defer stop.end()
	l, err := b.await(p, inv, stop)
	if err != nil {
		return err
	}
	in, err := b.instance(p, box, inv, s, stop, l.engine)
	if err != nil {
		return err
	}
	defer in.close()
	stage = plugin.StageRun
	err = in.run(l.engine) //nolint:contextcheck // the stopper made the guest's context from ctx
	if _, ok := errors.AsType[*panicError](err); ok {
		b.drop(l)
	}
	return err
}

// Check compiles the module of p and keeps the result, so that the first run loads it. It runs no guest code.
// The error is MODULE_REFUSED or ABI_UNSUPPORTED when the module cannot run here.
func (b *Backend) Check(ctx context.Context, p *plugin.Installed) (err error) {
	defer recovered("check", &err)
	prog, closeFile, err := program(p)
	if err != nil {
		return err
	}
	defer closeFile()
	module, err := source(prog)
	if err != nil {
		return err
	}
	if b.entries == nil || b.cacheUnusable() {
		return checkInMemory(ctx, module)
	}
	if err := b.entries.trim(ctx); err != nil {
		b.o.Log.Warn("wasm: cannot trim the cache of compiled modules", "error", err)
	}
	err = b.publish(ctx, keyOf(hostabi.DigestOf(module)), module)
	if we, ok := errors.AsType[*writeError](err); ok {
		b.warn("cannot write compiled modules", we.err)
		return checkInMemory(ctx, module)
	}
	return err
}

// Prefetch starts loading the module of p, whose Program is open, while the caller prepares the run.
func (b *Backend) Prefetch(p *plugin.Installed) {
	if p.Program != nil && p.Program.File != nil {
		b.load(p.Program)
	}
}

// Forget removes the compiled code of a deleted module.
func (b *Backend) Forget(source hostabi.Digest) error {
	if b.entries == nil {
		return nil
	}
	return b.entries.forget(source)
}

// Close waits for loads and closes the engines. Nothing may run any more, and nothing can be run again.
func (b *Backend) Close() error {
	b.cancel()
	b.wg.Wait()
	ctx := context.Background()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.loads {
		if l.engine != nil {
			l.engine.close(ctx)
		}
	}
	for _, e := range b.dropped {
		e.close(ctx)
	}
	b.loads, b.dropped = make(map[string]*load), nil
	return nil
}

// await waits for the engine of p or for the reason to stop.
func (b *Backend) await(p *plugin.Installed, inv *plugin.Invocation, stop *stopper) (*load, error) {
	if p.Program == nil || p.Program.File == nil {
		return nil, fmt.Errorf("program of %s is not open", p.Name)
	}
	l := b.load(p.Program)
	patience := time.NewTimer(300 * time.Millisecond)
	defer patience.Stop()
	for {
		select {
		case <-l.done:
			if l.err != nil {
				return nil, l.err
			}
			return l, nil
		case <-patience.C:
			if l.building.Load() && inv.Stderr != nil {
				_, _ = fmt.Fprintf(inv.Stderr, "compiling %s for this ds version (once)\n", p.Name) // a courtesy
			}
		case <-stop.wait.Done():
			stop.note(reason{timeout: errors.Is(stop.wait.Err(), context.DeadlineExceeded)})
			return nil, stopped(stop.why.Load())
		}
	}
}

// load starts loading a program or joins who does; a failed load is tried again by the next.
func (b *Backend) load(prog *plugin.Program) *load {
	key, err := keyOfProgram(prog)
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.loads[key]; l != nil {
		return l
	}
	l := &load{done: make(chan struct{})}
	if err != nil {
		l.fail(err)
		close(l.done)
		return l
	}
	b.loads[key] = l
	b.wg.Go(func() {
		defer close(l.done)
		e, err := b.open(b.loading, key, prog, l)
		if err == nil {
			l.engine = e
			return
		}
		l.fail(err)
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.loads, key)
	})
	return l
}

// drop forgets an engine that panicked.
func (b *Backend) drop(l *load) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, have := range b.loads {
		if have == l {
			delete(b.loads, key)
			b.dropped = append(b.dropped, l.engine)
		}
	}
}

// open makes the engine of a program: from its entry, after building that if needed, else in memory. A
// damaged entry is built again once.
func (b *Backend) open(ctx context.Context, key string, prog *plugin.Program, l *load) (e *engine, err error) {
	defer recovered("load", &err)
	if b.entries == nil || b.cacheUnusable() {
		return b.openInMemory(ctx, prog, l)
	}
	for range 2 {
		module, dir, err := b.entries.load(key)
		if err == nil {
			e, err = newLinked(ctx, module, dir)
			if err == nil {
				return e, nil
			}
		}
		if !errors.Is(err, fs.ErrNotExist) {
			if _, refusal := errors.AsType[*hostabi.Error](err); refusal {
				return nil, err
			}
			b.o.Log.Warn("wasm: compiled module was damaged and is built again", "key", key, "error", err)
			if err := b.entries.remove(key); err != nil {
				b.warn("cannot write compiled modules", err)
				return b.openInMemory(ctx, prog, l)
			}
		}
		l.building.Store(true)
		src, err := source(prog)
		if err != nil {
			return nil, err
		}
		err = b.publish(ctx, key, src)
		if we, ok := errors.AsType[*writeError](err); ok {
			b.warn("cannot write compiled modules", we.err)
			return b.openInMemory(ctx, prog, l)
		}
		if err != nil {
			return nil, err
		}
	}
	b.warn("cannot load compiled modules", fmt.Errorf("entry %s is damaged again", key))
	return b.openInMemory(ctx, prog, l)
}

// publish makes the entry of key unless another process has just made it.
func (b *Backend) publish(ctx context.Context, key string, module []byte) error {
	unlock, err := b.entries.lock(ctx, key)
	if err != nil && ctx.Err() != nil {
		return hostabi.Errorf(hostabi.ReasonInterrupted, "interrupted: %w", context.Cause(ctx))
	}
	if err != nil {
		return &writeError{err}
	}
	defer func() { _ = unlock() }() // released at exit at the latest
	if _, _, err := b.entries.load(key); err == nil {
		return nil
	}
	return b.compile(ctx, key, module)
}

func (b *Backend) openInMemory(ctx context.Context, prog *plugin.Program, l *load) (*engine, error) {
	l.building.Store(true)
	module, err := source(prog)
	if err != nil {
		return nil, err
	}
	if module, err = metered(module); err != nil {
		return nil, err
	}
	e, err := newEngine(ctx, module, "")
	if err != nil {
		return nil, moduleError(err)
	}
	if err := e.link(ctx); err != nil {
		e.close(ctx)
		return nil, err
	}
	return e, nil
}

// newLinked is a new engine with the host modules, from an entry, which another ds may have made.
func newLinked(ctx context.Context, module []byte, dir string) (*engine, error) {
	e, err := newEngine(ctx, module, dir)
	if err != nil {
		return nil, err
	}
	if err = checkImports(e.code); err == nil {
		err = e.link(ctx)
	}
	if err != nil {
		e.close(ctx)
		return nil, err
	}
	return e, nil
}

func checkInMemory(ctx context.Context, module []byte) error {
	module, err := metered(module)
	if err != nil {
		return err
	}
	e, err := newEngine(ctx, module, "")
	if err != nil {
		return moduleError(err)
	}
	e.close(ctx)
	return nil
}

// cacheUnusable reports whether nothing may be read or written in the cache directory, with one warning.
func (b *Backend) cacheUnusable() bool {
	err := b.entries.usable()
	if err != nil {
		b.warn("compiled modules are not kept", err)
	}
	return err != nil
}

// warn is the one warning about the cache directory.
func (b *Backend) warn(what string, err error) {
	b.warned.Do(func() { b.o.Log.Warn("wasm: "+what, "error", err) })
}

// program is the WASM program of p and a function that closes what had to be opened for it.
func program(p *plugin.Installed) (*plugin.Program, func(), error) {
	if p.Program != nil && p.Program.File != nil {
		return p.Program, func() {}, nil
	}
	found := p.Program
	if found == nil {
		found = p.Find(plugin.WASM)
	}
	if found == nil {
		return nil, nil, hostabi.Errorf(hostabi.ReasonPlatformUnsupported, "%s has no WASM module", p.Name)
	}
	f, err := os.Open(found.Path)
	if err != nil {
		return nil, nil, err
	}
	opened := *found
	opened.File = f
	return &opened, func() { _ = f.Close() }, nil // read only
}

// keyOfProgram is the key of a program; one without a digest is read for it.
func keyOfProgram(prog *plugin.Program) (string, error) {
	if prog.Digest != "" {
		return keyOf(prog.Digest), nil
	}
	module, err := source(prog)
	return keyOf(hostabi.DigestOf(module)), err
}

// source reads the module of an open program and compares its digest: the entry that is made from these
// bytes is trusted from then on.
func source(prog *plugin.Program) ([]byte, error) {
	fi, err := prog.File.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Size() > wasmcheck.MaxModule {
		return nil, refused("module of %d bytes is over the limit of %d", fi.Size(), wasmcheck.MaxModule)
	}
	module := make([]byte, fi.Size())
	if _, err := io.ReadFull(io.NewSectionReader(prog.File, 0, fi.Size()), module); err != nil {
		return nil, err
	}
	if got := hostabi.DigestOf(module); prog.Digest != "" && got != prog.Digest {
		return nil, hostabi.Errorf(hostabi.ReasonPluginModified, "%s has digest %s, installed was %s", prog.Path, got, prog.Digest)
	}
	return module, nil
}
