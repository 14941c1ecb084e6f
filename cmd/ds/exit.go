package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/delivery-station/ds/config"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/term"
	"github.com/delivery-station/ds/plugin"
)

// partialError says that some items of a batch failed; each was reported when it did.
type partialError struct{ failed, total int }

func (e *partialError) Error() string { return fmt.Sprintf("%d of %d failed", e.failed, e.total) }

// exitCode is the one switch (cli.md section 7): built-ins have the built-in column of the reason table,
// errors around a run the run column, and a plugin's own code passes unchanged.
func exitCode(err error, signal int) int {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*plugin.ExitError](err); ok {
		return e.Code
	}
	if _, ok := errors.AsType[*partialError](err); ok {
		return 8
	}
	info := hostabi.AsError(err).Reason.Info()
	if info.Reason == hostabi.ReasonInterrupted && signal > 0 {
		return 128 + signal
	}
	r, around := errors.AsType[*plugin.RunError](err)
	switch {
	case !around:
		return info.Exit
	case info.Code == hostabi.NotFound && r.Stage != plugin.StageFind:
		return 125
	}
	return info.RunExit
}

// finish reports err and returns the exit code. A plugin that ran and failed has said so itself.
func (a *app) finish(err error) int {
	a.close()
	signal := int(a.signalled.Load())
	code := exitCode(err, signal)
	if err != nil {
		a.report(err, code)
	}
	for _, w := range a.clean {
		_ = w.Close() // nowhere left to say it
	}
	if a.term != nil {
		a.term.Close()
	}
	return code
}

// report prints err on stderr in the user's form.
func (a *app) report(err error, code int) {
	if e, ok := errors.AsType[*plugin.ExitError](err); ok {
		a.reportSignal(e)
		return
	}
	if a.errorFormat() == "json" {
		a.reportJSON(err, code)
		return
	}
	if errs, ok := errors.AsType[config.Errors](err); ok {
		a.reportConfig(errs)
		return
	}
	a.reportText(err)
}

// reportSignal names what killed a plugin, but not the everyday signals.
func (a *app) reportSignal(e *plugin.ExitError) {
	if text := signalText(e.Signal); text != "" {
		fmt.Fprintf(a.stderr(), "ds: %s was killed by %s\n", a.running, text)
	}
}

func (a *app) reportText(err error) {
	e := hostabi.AsError(err)
	msg := message(err)
	if _, ok := errors.AsType[*partialError](err); ok {
		fmt.Fprintf(a.stderr(), "%s\n", a.red("Error: "+msg))
		return
	}
	number := e.Number()
	fmt.Fprintf(a.stderr(), "%s %s\n", a.red(fmt.Sprintf("Error DS%04d:", number)), term.Clean(msg, 2000))
	if cause := e.Meta["cause"]; cause != "" {
		fmt.Fprintf(a.stderr(), "  cause  %s\n", term.Clean(cause, 500))
	}
	if e.Fix != "" {
		for line := range strings.SplitSeq(e.Fix, "\n") {
			fmt.Fprintf(a.stderr(), "  hint   %s\n", term.Clean(line, 4000))
		}
	}
	fmt.Fprintf(a.stderr(), "  more   ds explain DS%04d\n", number)
}

// message is the text of err. Around a run it names the plugin, if it does not do so already.
func message(err error) string {
	r, ok := errors.AsType[*plugin.RunError](err)
	switch {
	case !ok:
		return err.Error()
	case r.Stage == plugin.StageFind || strings.HasPrefix(r.Err.Error(), string(r.Name)+" ") || strings.HasPrefix(r.Err.Error(), string(r.Name)+":"):
		return r.Err.Error()
	}
	return string(r.Name) + ": " + r.Err.Error()
}

func (a *app) reportConfig(errs config.Errors) {
	shown, more := errs.Shown()
	for _, p := range shown {
		fmt.Fprintf(a.stderr(), "%s %s\n", a.red(fmt.Sprintf("Error DS%04d:", p.Reason.Info().Number)), term.Clean(p.Error(), 2000))
		for _, line := range p.Excerpt {
			fmt.Fprintln(a.stderr(), line)
		}
		if p.Hint != "" {
			fmt.Fprintf(a.stderr(), "  hint   %s\n", p.Hint)
		}
	}
	if more > 0 || len(shown) > 1 {
		fmt.Fprintf(a.stderr(), "%d errors\n", len(shown)+more)
	}
}

func (a *app) reportJSON(err error, code int) {
	e := hostabi.AsError(err)
	line, merr := json.Marshal(struct {
		Code    string `json:"code"`
		Reason  string `json:"reason"`
		Message string `json:"message"`
		Cause   string `json:"cause,omitempty"`
		Hint    string `json:"hint,omitempty"`
		TraceID string `json:"trace_id,omitempty"`
		Exit    int    `json:"exit"`
	}{fmt.Sprintf("DS%04d", e.Number()), string(e.Reason), term.Clean(message(err), 2000), e.Meta["cause"], e.Fix, a.traceID, code})
	if merr == nil {
		fmt.Fprintf(a.stderr(), "%s\n", line)
	}
}

func (a *app) red(s string) string {
	if a.term != nil && a.term.ColorErr() {
		return "\x1b[31m" + s + "\x1b[0m"
	}
	return s
}
