// Package native runs plugins that are programs of the operating system. It starts them so that nobody can
// tell it from running the file by hand (streams, terminal, signals, exit code), gives them one descriptor for
// host calls and leaves nothing behind. It never parses what a plugin writes. Start with New and Backend.Run.
package native

import (
	"context"
	"io"
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
	// RunDir makes the directory that holds one DS_RUN_DIR per run (cache.Store.RunDir); nil = temporary.
	RunDir func() (string, error)
	// SockDir holds the socket directories of mode goplugin; it should be short. Empty = $XDG_RUNTIME_DIR
	// as the invocation's environment has it, the temporary directory, /tmp, whichever is short enough.
	SockDir string
	// Confine is sandbox.native: auto, require or off. No kernel limits are applied yet: require refuses
	// every run with SANDBOX_REQUIRED, the other values run unconfined and say so.
	Confine string
	// Wrap are the words of a debugger or tracer to start the program with; empty = none.
	Wrap []string
	// Reattach maps a plugin's name to the JSON of a running goplugin server; not supported yet.
	Reattach map[string]string
	Log      *slog.Logger // nil = discard
}

// GRPCHost is the extra ability of a Session that mode goplugin needs: all host services, bound to it, as a
// gRPC server.
type GRPCHost interface {
	GRPCServer(opts []grpc.ServerOption) *grpc.Server
}

// WorkerLimits bounds one worker. Zero fields do not limit.
type WorkerLimits struct {
	Wall, CPU time.Duration
	Memory    int64  // bytes of data
	Dir       string // the only directory it may write, where confinement exists
}

// Support says what the kernel offers to confine a plugin.
type Support struct {
	Landlock int  // ABI version, 0 = none
	Seccomp  bool // filters can be loaded
}

// Backend runs native plugins. It is immutable and safe for concurrent use.
type Backend struct{ o Options }

// New makes a Backend; it opens and starts nothing.
func New(o Options) *Backend {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Backend{o: o}
}

// Run runs one invocation of p, whose Program is set and open. nil means exit 0, *plugin.ExitError that the
// program ran and ended otherwise, *hostabi.Error that it did not run or was stopped. It returns when the
// process is reaped and every goroutine, thread, socket and file of the run is gone.
func (b *Backend) Run(ctx context.Context, p *plugin.Installed, box *sandbox.Box, inv *plugin.Invocation, s hostabi.Session) error {
	return hostabi.Errorf(hostabi.ReasonInternal, "not built")
}

// Worker runs this executable with argv (without the program name), an empty environment and stdin, within l,
// and returns what it printed.
func (b *Backend) Worker(ctx context.Context, argv []string, stdin io.Reader, l WorkerLimits) (stdout []byte, err error) {
	return nil, hostabi.Errorf(hostabi.ReasonInternal, "not built")
}
