package wasm

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/tetratelabs/wazero/sys"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// exitPipe is the status of a program whose reader went away, 128 + SIGPIPE.
const exitPipe = 141

// stopped is the result of a run that was stopped from outside, as in the table of wasm.md section 10. An
// interrupted run carries the exit status that the signal gives a native program.
func stopped(r *reason) error {
	switch {
	case r.pipe:
		return &plugin.ExitError{Code: exitPipe, Signal: int(syscall.SIGPIPE)}
	case r.timeout:
		return hostabi.Errorf(hostabi.ReasonTimeout, "deadline passed; the plugin was stopped")
	case r.signal == 0:
		return hostabi.Errorf(hostabi.ReasonInterrupted, "caller is gone; the plugin was stopped")
	}
	e := hostabi.Errorf(hostabi.ReasonInterrupted, "interrupted by signal %d", r.signal)
	e.Err = &plugin.ExitError{Code: 128 + r.signal, Signal: r.signal}
	return e
}

// outcome maps how _start ended, without a reason to stop from outside.
func outcome(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*sys.ExitError](err); ok {
		if e.ExitCode() == 0 {
			return nil
		}
		return &plugin.ExitError{Code: int(min(e.ExitCode(), 255))}
	}
	if text, ok := trapText(err); ok {
		e := hostabi.Errorf(hostabi.ReasonWASMTrap, "wasm trap: %s", text)
		e.Err = err
		return e
	}
	return &panicError{what: "engine", value: err}
}

// trapText is what the engine calls the trap, "unreachable". The engine has no exported type for it: its own
// text starts with "wasm error: ", everything that came from Go code says so.
func trapText(err error) (string, bool) {
	line, _, _ := strings.Cut(err.Error(), "\n")
	if text, ok := strings.CutPrefix(line, "wasm error: "); ok {
		return text, true
	}
	return line, line == "stack overflow"
}

// runError is err as Run returns it: exit statuses stay, panics become INTERNAL.
func (b *Backend) runError(p *plugin.Installed, inv *plugin.Invocation, stage plugin.Stage, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := err.(*plugin.ExitError); ok { //nolint:errorlint // a wrapped one is an interrupted run
		return e
	}
	if pe, ok := errors.AsType[*panicError](err); ok {
		b.o.Log.Error("wasm: panic", "plugin", p.Name, "trace", inv.TraceID, "error", pe.Error(), "stack", string(pe.stack))
		e := hostabi.Errorf(hostabi.ReasonInternal, "internal error in the wasm engine, trace %s", inv.TraceID)
		e.Err = err
		err = e
	}
	return &plugin.RunError{Name: p.Name, Stage: stage, Err: hostabi.AsError(err)}
}

// size is n bytes as a person writes it.
func size(n uint64) string {
	for _, u := range []struct {
		n    uint64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.n && n%u.n == 0 {
			return fmt.Sprintf("%d%s", n/u.n, u.name)
		}
	}
	return fmt.Sprintf("%dB", n)
}
