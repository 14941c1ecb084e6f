package wasm

import (
	"context"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/sys"

	"github.com/delivery-station/ds/hostabi"
)

// maxSubscriptions is how many events one poll_oneoff may wait for: more than a run has files and timers.
const maxSubscriptions = 1024

// pollGuard looks at the arguments of poll_oneoff before the engine's own code does. That allocates for every
// subscription, multiplies their number in 32 bits, and cannot be ended before it has seen the last: a guest with a
// gigabyte of memory would hold the host for seconds, and take another gigabyte of it. The function cannot be replaced
// from outside, since the table of descriptors is out of reach.
type pollGuard struct{}

// NewFunctionListener implements experimental.FunctionListenerFactory.
func (pollGuard) NewFunctionListener(def api.FunctionDefinition) experimental.FunctionListener {
	if def.Name() != "poll_oneoff" {
		return nil
	}
	return experimental.FunctionListenerFunc(func(ctx context.Context, _ api.Module, _ api.FunctionDefinition, params []uint64, _ experimental.StackIterator) {
		n := uint32(params[2])
		if n <= maxSubscriptions {
			return
		}
		in := ctx.Value(instanceKey{}).(*instance)
		in.refused = hostabi.Errorf(hostabi.ReasonTooMany, "poll_oneoff with %d subscriptions, at most %d", n, maxSubscriptions)
		panic(sys.NewExitError(stopCode))
	})
}
