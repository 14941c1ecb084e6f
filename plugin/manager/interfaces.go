package manager

import (
	"context"
	"iter"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

// Backend runs one kind of plugin: runtime/native, runtime/wasm. p.Program is set and open. nil means exit
// 0, *plugin.ExitError that the program ran and ended otherwise, any other error that it did not run or was
// stopped. When Run returns, every process, goroutine, socket and file of the run is gone.
type Backend interface {
	Run(ctx context.Context, p *plugin.Installed, b *sandbox.Box, inv *plugin.Invocation, s hostabi.Session) error
}

// Plugins is the installed set: plugin/store. Nothing in it starts a plugin.
type Plugins interface {
	// Lookup answers PLUGIN_NOT_FOUND for an unknown name; DISABLED and damaged receipts are errors too.
	Lookup(ctx context.Context, name plugin.Name) (*plugin.Installed, error)
	All(ctx context.Context) iter.Seq2[*plugin.Installed, error]
	// Open verifies the program of kind k against its stamp or digest (PLUGIN_MODIFIED) and returns a copy
	// whose File is open; the caller closes it.
	Open(ctx context.Context, p *plugin.Installed, k plugin.Kind) (*plugin.Program, error)
}

// Grants makes the Box of one run: sandbox.Store. GRANT_MISSING when a required request is not granted.
type Grants interface {
	Box(ctx context.Context, p *plugin.Installed, inv *plugin.Invocation) (*sandbox.Box, error)
}

// Host opens the session of one run: host.Registrar.
type Host interface {
	Open(p *plugin.Installed, b *sandbox.Box, inv *plugin.Invocation) (hostabi.Session, error)
}

// Events is the bus that is told about runs: internal/events.
type Events interface {
	Publish(ctx context.Context, e hostabi.Event) (subscribers, dropped int, err error)
	Wanted(topic string) bool
}
