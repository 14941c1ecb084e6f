package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/delivery-station/ds/internal/dstest"
)

// TestMain makes ds a command of the test binary, so that scripts run the code under test and count as coverage.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"ds": func() {
			os.Exit(run(context.Background(), os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr}, os.Environ()))
		},
	})
}

// TestScript runs the command line as users see it: one file, one behaviour.
func TestScript(t *testing.T) {
	guests := dstest.BuildGuests(t)
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("..", "..", "testdata", "script"),
		RequireExplicitExec: false,
		Setup: func(e *testscript.Env) error {
			e.Vars = append(e.Vars, cleanEnv(e.WorkDir)...)
			e.Setenv("GUESTS", guests)
			e.Values[dstest.ScriptKey{}] = make(map[string]*dstest.RegistryServer)
			return nil
		},
		Cmds: dstest.ScriptCommands(),
	})
}

// cleanEnv is a home of its own and nothing of the caller's environment that ds would obey.
func cleanEnv(dir string) (env []string) {
	home := filepath.Join(dir, ".home")
	env = append(env, "HOME="+home, "NO_COLOR=", "CI=", "DS_NO_INPUT=")
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "DS_") || strings.HasPrefix(name, "XDG_") {
			env = append(env, name+"=")
		}
	}
	return env
}
