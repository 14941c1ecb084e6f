package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/internal/dstest/natstest"
	"github.com/delivery-station/ds/runtime/native"
)

// TestMain makes ds a command of the test binary, so that scripts run the code under test and count as coverage.
func TestMain(m *testing.M) {
	programs := dstest.ScriptPrograms()
	programs["ds-share-cache"] = shareCache
	programs["ds"] = func() {
		a := newApp(stdio{os.Stdin, os.Stdout, os.Stderr}, os.Environ())
		a.completeTime = time.Minute // machines that run tests are busy
		if policy := os.Getenv("TEST_POLICY"); policy != "" {
			a.policy = policy
		}
		os.Exit(a.run(context.Background(), os.Args[1:]))
	}
	testscript.Main(suite{m}, programs)
}

// variant is one way to run a script: $KIND, the backend that runs plugins, and the plugins to install.
type variant struct{ kind, backend, guests string }

// TestScript runs the command line as users see it: one file, one behaviour. A script that names $KIND runs once
// for each kind of plugin and gives the same output each time: native, wasm, and goplugin for native programs
// that are go-plugin servers.
func TestScript(t *testing.T) {
	guests := guests(t)
	once, perKind := scripts(t)
	homes := t.TempDir()
	for _, v := range []variant{
		{"once", "", guests.Both}, {"native", "native", guests.Both}, {"wasm", "wasm", guests.Both}, {"goplugin", "native", guests.GoPlugin},
	} {
		files := perKind
		if v.kind == "once" {
			files = once
		}
		if v.kind == "goplugin" && testing.Short() {
			continue // the mode's own package has short tests
		}
		t.Run(v.kind, func(t *testing.T) {
			t.Parallel()
			testscript.Run(t, testscript.Params{
				Files: files, Cmds: scriptCommands(),
				Setup:     func(e *testscript.Env) error { return v.setup(t, e, homes) },
				Condition: v.condition,
			})
		})
	}
}

// TestDistributionScripts runs the life of a plugin, from push to an offline install, and a team cache over registries
// of another make, with a token server and without the referrers API.
func TestDistributionScripts(t *testing.T) {
	program := os.Getenv("DS_TESTREG")
	if program == "" {
		t.Skip("DS_TESTREG names no registry program: make registrytest builds it")
	}
	homes, v := t.TempDir(), variant{"once", "", guests(t).Both}
	script := func(name string) string { return filepath.Join("..", "..", "testdata", "script", name+".txtar") }
	testscript.Run(t, testscript.Params{
		Files: []string{script("airgap"), script("team_tier")}, Cmds: scriptCommands(),
		Setup: func(e *testscript.Env) error {
			err := v.setup(t, e, homes)
			e.Setenv("TESTREG", program)
			return err
		},
		Condition: v.condition,
	})
}

// scriptCommands are those of every script.
func scriptCommands() map[string]func(ts *testscript.TestScript, neg bool, args []string) {
	all := dstest.ScriptCommands()
	maps.Copy(all, natstest.ScriptCommands())
	return all
}

// setup gives each script a home of its own, which is not below its working directory: what a plugin may read
// there must not contain the files of ds.
func (v variant) setup(t *testing.T, e *testscript.Env, homes string) error {
	home, err := os.MkdirTemp(homes, "home")
	if err != nil {
		return err
	}
	e.Vars = append(e.Vars, cleanEnv(home)...)
	e.Setenv("GUESTS", v.guests)
	e.Setenv("GOARCH", runtime.GOARCH)
	if v.backend != "" {
		e.Setenv("KIND", v.kind)
		e.Setenv("BACKEND", v.backend)
		e.Setenv("DS_PLUGINS_BACKEND", v.backend)
	}
	e.Values[dstest.ScriptKey{}] = make(map[string]*dstest.RegistryServer)
	e.Values[natstest.ScriptKey{}] = make(natstest.Servers)
	return linkCompiled(t, home)
}

// condition makes [kind:native], [kind:wasm] and [kind:goplugin] true in their variants.
func (v variant) condition(name string) (bool, error) {
	if kind, ok := strings.CutPrefix(name, "kind:"); ok {
		return v.kind == kind, nil
	}
	switch name {
	case "root":
		return os.Geteuid() == 0, nil
	case "confines": // native plugins are confined here
		return native.Probe().Confines(), nil
	}
	return false, fmt.Errorf("unknown condition %s", name)
}

// scripts lists the scripts that run once and those that run for each kind.
func scripts(t *testing.T) (once, perKind []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "testdata", "script", "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte("$KIND")) {
			perKind = append(perKind, f)
		} else {
			once = append(once, f)
		}
	}
	return once, perKind
}

// cleanEnv is a home of its own and nothing of the caller's environment that ds would obey.
func cleanEnv(home string) (env []string) {
	env = append(env, "HOME="+home, "NO_COLOR=", "CI=", "DS_NO_INPUT=", "TERM=xterm", "LANG=C.UTF-8")
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "DS_") || strings.HasPrefix(name, "XDG_") {
			env = append(env, name+"=")
		}
	}
	return env
}
