package main

import (
	"errors"
	"fmt"
	"testing"

	"github.com/delivery-station/ds/config"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// TestExitCode holds the one switch against the reason table, as an error of a built-in and around a run, wrapped
// as callers wrap it.
func TestExitCode(t *testing.T) {
	t.Parallel()
	for _, r := range hostabi.Reasons() {
		err := fmt.Errorf("context: %w", hostabi.Errorf(r.Reason, "text"))
		if got := exitCode(err, 0); got != r.Exit {
			t.Errorf("%s of a built-in: %d, want %d", r.Reason, got, r.Exit)
		}
		for _, s := range []plugin.Stage{plugin.StageFind, plugin.StageGrant, plugin.StagePrepare, plugin.StageRun} {
			want := r.RunExit
			if s != plugin.StageFind && r.Code == hostabi.NotFound {
				want = 125 // 127 is for the word that names no plugin
			}
			if got := exitCode(&plugin.RunError{Name: "x", Stage: s, Err: err}, 0); got != want {
				t.Errorf("%s around a run (%s): %d, want %d", r.Reason, s, got, want)
			}
		}
	}
	interrupted := hostabi.Errorf(hostabi.ReasonInterrupted, "interrupted")
	for name, c := range map[string]struct {
		err    error
		signal int
		want   int
	}{
		"ok":                   {nil, 0, 0},
		"ok after a signal":    {nil, 15, 0},
		"plugin's own":         {&plugin.ExitError{Code: 3}, 0, 3},
		"plugin's own, signal": {&plugin.ExitError{Code: 0x100 - 1}, 15, 255},
		"plugin's own, around": {&plugin.RunError{Name: "x", Stage: plugin.StageRun, Err: &plugin.ExitError{Code: 9}}, 0, 9},
		"batch":                {&partialError{1, 2}, 0, 8},
		"interrupted":          {interrupted, 0, 130},
		"interrupted, TERM":    {interrupted, 15, 143},
		"interrupted, HUP":     {&plugin.RunError{Name: "x", Stage: plugin.StageRun, Err: interrupted}, 1, 129},
		"configuration":        {config.Errors{{Reason: hostabi.ReasonConfigKey}}, 0, 2},
		"configuration, run":   {&plugin.RunError{Name: "x", Stage: plugin.StagePrepare, Err: config.Errors{{Reason: hostabi.ReasonConfigKey}}}, 0, 125},
		"unknown error":        {errors.New("anything"), 0, 1},
	} {
		if got := exitCode(c.err, c.signal); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
