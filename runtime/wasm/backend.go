// Package wasm runs plugins that are one WASI preview 1 module, with wazero. It owns engines, the cache of
// compiled code, the guest's file systems, streams and the ds_v1 imports. Modules see what their Box grants
// and nothing else: every directory goes through os.Root, never through the engine's own mounts. wazero types
// stay inside. Start with New and Backend.Run.
package wasm

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

// Options configures a Backend. The zero value compiles in memory and writes nothing.
type Options struct {
	CacheDir string       // directory of compiled modules, <cache dir>/wasm; empty = compile in memory
	CacheMax int64        // bytes of all its entries together; 0 = 1 GiB
	Compile  CompileFunc  // starts the compile worker; nil = compile in this process
	Log      *slog.Logger // warnings; nil = discard
}

// CompileFunc runs the compile worker with argv (without the program name) and stdin, within lim, and returns
// what it printed.
type CompileFunc func(ctx context.Context, argv []string, stdin io.Reader, lim CompileLimits) (stdout []byte, err error)

// CompileLimits bounds one compile worker. Dir is the only directory it may write.
type CompileLimits struct {
	Wall, CPU time.Duration
	Memory    int64
	Dir       string
}

// Backend runs WASM plugins. It is safe for concurrent use.
type Backend struct{ o Options }

// New makes a Backend; it opens nothing.
func New(o Options) *Backend { return &Backend{o: o} }

// Run runs one invocation of p.
func (b *Backend) Run(ctx context.Context, p *plugin.Installed, box *sandbox.Box, inv *plugin.Invocation, s hostabi.Session) error {
	return hostabi.Errorf(hostabi.ReasonInternal, "not built")
}

// Check compiles the module of p and keeps the result. It runs no guest code.
func (b *Backend) Check(ctx context.Context, p *plugin.Installed) error { return nil }

// Prefetch loads the module of p while the caller prepares the run.
func (b *Backend) Prefetch(p *plugin.Installed) {}

// Forget removes the compiled code of a deleted module.
func (b *Backend) Forget(source hostabi.Digest) error { return nil }

// Close waits for loads and closes the engines.
func (b *Backend) Close() error { return nil }
