//go:build !wasip1

package client_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi/hosttest"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/runtime/native"
	"github.com/delivery-station/ds/runtime/wasm"
)

// TestKinds runs one source as a native program and as a module: output, exit codes and what reaches the host
// are the same.
func TestKinds(t *testing.T) {
	skipShort(t, "builds programs")
	dir := t.TempDir()
	programs := make([]plugin.Program, len(targets))
	for i, target := range targets {
		programs[i] = plugin.Program{Kind: plugin.Native, Mode: plugin.Direct, Dir: dir, Path: filepath.Join(dir, target.name)}
		if target.name == "wasip1" {
			programs[i].Kind = plugin.WASM
		}
		goTool(t, target.env, "build", "-trimpath", "-ldflags=-s -w", "-o", programs[i].Path, "./testdata/guest")
	}
	modules := wasm.New(wasm.Options{CacheDir: t.TempDir()})
	t.Cleanup(func() { _ = modules.Close() })
	backends := []hosttest.Backend{native.New(native.Options{}), modules}
	for _, words := range []string{
		"state", "cache", "registry REF", "plugins", "events", "terminal", "errors", "rows", "parallel", "fail", "exit", "cat", "help", "nonsense", "--ds-describe",
	} {
		t.Run(strings.Fields(words)[0], func(t *testing.T) {
			got := make([]string, len(backends))
			for i, b := range backends {
				w := hosttest.NewWorld(t, owners, hosttest.Setup{})
				p := programs[i]
				w.Installed.Program = &p
				args := strings.Fields(strings.ReplaceAll(words, "REF", w.Registry+"/out:v1"))
				got[i] = strings.ReplaceAll(runKind(t, b, w, args), w.Registry, "REGISTRY")
			}
			if got[0] != got[1] || strings.Contains(got[0], "exit -1") {
				t.Errorf("native:\n%s\nmodule:\n%s", got[0], got[1])
			}
			t.Log(got[0])
		})
	}
}

// runKind runs one invocation and describes what came of it.
func runKind(t *testing.T, b hosttest.Backend, w *hosttest.World, args []string) string {
	t.Helper()
	f, err := os.Open(w.Installed.Program.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w.Installed.Program.File = f
	w.Installed.Programs = []plugin.Program{*w.Installed.Program}
	inv := w.Invocation(args...)
	var stderr bytes.Buffer
	inv.Stderr, inv.Stdin = &stderr, strings.NewReader("some input")
	box, s := w.Open(inv)
	code := 0
	err = b.Run(t.Context(), w.Installed, box, inv, s)
	if e, ok := errors.AsType[*plugin.ExitError](err); ok {
		code = e.Code
	} else if err != nil {
		t.Errorf("run: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close session: %v", err)
	}
	out := w.Stdout.String() + "stderr " + strings.TrimPrefix(stderr.String(), "compiling kit for this ds version (once)\n") + "log " + strings.Join(w.Log.Plugin(), "; ")
	for _, r := range w.Terminal.Reports {
		out += "\nprogress " + r.Label + " " + r.State
	}
	return out + "\nexit " + string(rune('0'+code/10)) + string(rune('0'+code%10))
}
