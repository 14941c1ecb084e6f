package hostabi

import "time"

// Limits that a guest meets, equal on every carrier and reported by Meta.Describe (host-abi.md section 2).
const (
	MaxMessage     = 4 << 20 // bytes of one request, reply or stream message
	MaxStreams     = 64      // open streams of one session
	MaxQueued      = 16      // unacknowledged messages of one stream, each way
	MaxHandles     = 64      // open blob handles and sinks of one session
	MaxCalls       = 32      // unary calls in flight of one session
	MaxDepth       = 8       // plugins in one call chain
	MaxChildren    = 8       // plugin calls at once of one session
	MaxOutput      = 64 << 20
	MaxMethod      = 128
	MaxEventData   = 64 << 10 // data plus attributes
	MaxEventRate   = 10_000   // per second and source
	MaxTopic       = 128
	MaxHops        = 8
	MaxStateValue  = 256 << 10
	MaxStateKey    = 256
	MaxLogRecord   = 16 << 10
	MaxLogRate     = 1_000
	MaxProgress    = 20 // reports per second
	MaxPrompt      = 4 << 10
	MaxRedirects   = 10
	MaxHTTPHeader  = 1 << 20
	MaxHTTPBody    = 256 << 10 // bytes of one body message
	MaxOpenFiles   = 256       // of one WASM instance, over all mounts
	DefaultRing    = 100       // queued events of one subscriber
	MaxPatterns    = 32        // subscription patterns of one session
	MaxPollWait    = 30 * time.Second
	MaxNestedTime  = 30 * time.Minute // event handlers and nested calls without a limit of their own
	MaxProtocol1   = 5 * time.Minute
	MaxAttributes  = 16
	MaxAttribute   = 1 << 10
	MaxContentType = 128
)
