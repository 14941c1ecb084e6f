// Package native runs plugins that are programs of the operating system. It starts them so that nobody can
// tell it from running the file by hand (streams, terminal, signals, exit code), gives them one descriptor for
// host calls, confines them by means of the kernel where there are any, and leaves nothing behind. It never parses what a plugin writes to its standard error, and it
// decides nothing: what a plugin may do is settled by the Session and the Box it is given. Start with New and
// Backend.Run.
package native

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

// Options configures a Backend. The zero value works: private directories are made below the system's
// temporary directory.
type Options struct {
	// RunDir makes the directory that holds one DS_RUN_DIR per run (cache.Store.RunDir), which also sweeps
	// what killed processes left there; nil = the system's temporary directory.
	RunDir func() (string, error)
	// SockDir holds the socket directories of mode goplugin; it should be short. Empty = XDG_RUNTIME_DIR of
	// the invocation's environment, the system's temporary directory, /tmp: the first one that fits.
	SockDir string
	// Confine is sandbox.native: auto confines where the kernel can and says where not, require refuses what
	// cannot be confined in full with SANDBOX_REQUIRED, off confines nothing. Empty = auto.
	Confine string
	// Wrap are the words of a debugger or tracer to start programs below; empty = none.
	Wrap []string
	// Reattach names go-plugin servers that run already: a plugin of that name is not started.
	Reattach map[string]Reattach
	// Wire has runs say on stderr each frame of their host calls, without its body, and those of go-plugin servers how
	// to reattach to them.
	Wire bool
	Log  *slog.Logger // nil = discard

	// Legacy keeps what programs of protocol 1 say about themselves; nil = each run asks.
	Legacy LegacyManifests
	// LegacyCache is the directory that a plugin of protocol 1 may use as its cache; nil = one of the run.
	LegacyCache func(plugin.Name) (string, error)
}

// LegacyManifests keeps the manifests of programs of protocol 1, by the digest of the program: plugin/store.
type LegacyManifests interface {
	LegacyManifest(d hostabi.Digest) *plugin.LegacyManifest // nil = not kept
	KeepLegacyManifest(d hostabi.Digest, m *plugin.LegacyManifest) error
}

// GRPCHost is the extra ability of a Session that mode goplugin needs: all host services, bound to it, as a
// gRPC server.
type GRPCHost interface {
	GRPCServer(opts []grpc.ServerOption) *grpc.Server
}

// runDirUser is the extra ability of a Session that gives blobs and sinks as paths in the run's directory.
type runDirUser interface {
	SetRunDir(dir string, confined bool)
}

// Backend runs native plugins. It is immutable and safe for concurrent use.
type Backend struct {
	o         Options
	handshake time.Duration  // how long a goplugin server may take to answer
	probe     func() Support // what the kernel can enforce
}

// New makes a Backend; it opens and starts nothing.
func New(o Options) *Backend {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Backend{o: o, handshake: 15 * time.Second, probe: Probe}
}

// Run runs one invocation of p, whose Program is set and open. nil means exit 0, *plugin.ExitError that the
// program ran and ended otherwise, *hostabi.Error that it did not run or was stopped. It returns when the
// process is reaped and every goroutine, thread, socket and file of the run is gone. A Stdin that is no file is
// closed at the end if it is an io.Closer: nothing else can end a Read that is waiting.
func (b *Backend) Run(ctx context.Context, p *plugin.Installed, box *sandbox.Box, inv *plugin.Invocation, s hostabi.Session) error {
	r := &run{b: b, p: p, box: box, inv: inv, session: s, begin: time.Now()}
	if err := r.check(); err != nil {
		return err
	}
	if err := r.openDir(); err != nil {
		return err
	}
	defer r.removeDir()
	ctx, cancel := r.withDeadline(ctx)
	defer cancel()
	return r.inTime(ctx, r.mode(ctx))
}

func (r *run) mode(ctx context.Context) error {
	switch r.p.Program.Mode {
	case plugin.GoPlugin:
		return r.goplugin(ctx, nil)
	case plugin.Protocol1:
		return r.legacy(ctx)
	}
	return r.direct(ctx)
}
