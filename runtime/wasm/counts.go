package wasm

import (
	"context"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/sys"

	"github.com/delivery-station/ds/hostabi"
)

// maxItems is how many subscriptions one poll_oneoff, and how many buffers one read, may have. It is IOV_MAX of Linux,
// and more than a run has files and timers.
const maxItems = 1024

// countGuard looks at the third argument of some WASI functions, a number of items, before the engine's own code does.
// That cannot be ended before it has seen the last, allocates for every subscription and multiplies their number in 32
// bits, and calls nothing of ours for an empty buffer: a guest with a gigabyte of memory would hold the host for
// seconds. The functions cannot be replaced from outside, since the table of descriptors is out of reach. Writes need no
// guard: each piece comes to our files and streams, which look whether time is over.
type countGuard struct{}

// NewFunctionListener implements experimental.FunctionListenerFactory.
func (countGuard) NewFunctionListener(def api.FunctionDefinition) experimental.FunctionListener {
	items, ok := map[string]string{"poll_oneoff": "subscriptions", "fd_read": "buffers", "fd_pread": "buffers"}[def.Name()]
	if !ok {
		return nil
	}
	return experimental.FunctionListenerFunc(func(ctx context.Context, _ api.Module, def api.FunctionDefinition, params []uint64, _ experimental.StackIterator) {
		n := uint32(params[2])
		if n <= maxItems {
			return
		}
		in := ctx.Value(instanceKey{}).(*instance)
		in.refused = hostabi.Errorf(hostabi.ReasonTooMany, "%s with %d %s, at most %d", def.Name(), n, items, maxItems)
		panic(sys.NewExitError(stopCode))
	})
}
