// Package wasmcheck looks at the bytes of a WASM module before an engine does. Check refuses what costs an engine
// too much or kills it: it is linear, keeps at most 1 MiB and 8 bytes per function, never recurses. Meter rewrites
// a module so that it can be stopped at any time: it counts down at loop heads, at the entry of functions and before
// bulk operations, and calls the import ds_meter.tick now and then. Neither is a validator: the engine still checks
// types. The package uses the standard library only and owns no state. Start with Check; compile only what Meter
// returns.
package wasmcheck

import "fmt"

// The imports that modules may have.
const (
	WASIModule = "wasi_snapshot_preview1"
	HostModule = "ds_v1"
)

// The import that Meter adds: a function without parameters and results. It returns or ends the instance.
const (
	TickModule = "ds_meter"
	TickName   = "tick"
)

// MeterVersion names what Meter does. It is part of the name of everything that is made from its output.
const MeterVersion = "1"

// MaxModule is the size of the largest module that Check accepts, in bytes; MaxMetered that of Meter's output.
const (
	MaxModule  = 64 << 20
	MaxMetered = 72 << 20
)

// Limits is what a caller may choose. The other limits are fixed, see limits.go.
type Limits struct {
	MemoryPages uint32 // largest minimum of the memory, in pages of 64 KiB; 0 = 65536
	Metered     bool   // the module is Meter's output: it imports ds_meter.tick and is larger by what Meter adds
}

// Report is what Check counted. Sizes are bytes.
type Report struct {
	Module, Code, Body, Metered                                             int // Body is the largest function body, Metered at most the code after Meter
	Types, Imports, Functions, Exports, Globals, Elements, Segments, Tables int // Segments are those of data
	MemoryMin                                                               uint32
	Locals, Blocks, Loops, Branches                                         int // of one function: locals, nesting, br_table entries
	LoopCost, BlockCost, CallCost                                           int // largest of one function, limits.go
	SumBranches, SumLoopCost, SumBlockCost, SumCallCost                     int // of all functions
}

// Error says which rule a module breaks and where. Its text is one line without control characters.
type Error struct {
	Section string // "type", "code" …; empty when it is about the module as a whole
	Offset  int    // of the byte in the module
	Rule    string // the name of the rule, a few words that never change
	Newer   bool   // it imports a function of ds_v1 that is not known here: a newer ds may have it
	Msg     string
}

func (e *Error) Error() string {
	if e.Section == "" {
		return e.Msg
	}
	return fmt.Sprintf("%s (%s section, byte %d)", e.Msg, e.Section, e.Offset)
}

// Check refuses a module that is over a limit, that is damaged or that is no WASI preview 1 command. Every error is an
// *Error. It keeps no reference to b.
func Check(b []byte, l Limits) (Report, error) {
	m := newModule(b, l)
	m.check()
	if m.r.err != nil {
		return Report{}, m.r.err
	}
	return m.report, nil
}
