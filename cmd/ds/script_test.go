package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/runtime/native"
)

// TestMain makes ds a command of the test binary, so that scripts run the code under test and count as coverage.
func TestMain(m *testing.M) {
	programs := dstest.ScriptPrograms()
	programs["ds"] = func() {
		os.Exit(run(context.Background(), os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr}, os.Environ()))
	}
	testscript.Main(suite{m}, programs)
}

// suite removes what the tests have built.
type suite struct{ *testing.M }

func (s suite) Run() int {
	code := s.M.Run()
	if built.dir != "" {
		if err := os.RemoveAll(built.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	return code
}

// built are the guests of all tests of this process, made when the first asks for them.
var built struct {
	once sync.Once
	dir  string
	dstest.Guests
	err error
}

func guests(t testing.TB) dstest.Guests {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "ds-guests-"); built.err == nil {
			built.Guests, built.err = dstest.BuildGuests(built.dir)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.Guests
}

// variant is one way to run a script: $KIND, the backend that runs plugins, and the plugins to install.
type variant struct{ kind, backend, guests string }

// TestScript runs the command line as users see it: one file, one behaviour. A script that names $KIND runs once
// for each kind of plugin and gives the same output each time: native, wasm, and goplugin for native programs
// that are go-plugin servers.
func TestScript(t *testing.T) {
	guests := guests(t)
	compiled := compile(t, guests.Both)
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
				Files: files, Cmds: dstest.ScriptCommands(),
				Setup:     func(e *testscript.Env) error { return v.setup(e, compiled, homes) },
				Condition: v.condition,
			})
		})
	}
}

// setup gives each script a home of its own, which is not below its working directory: what a plugin may read
// there must not contain the files of ds.
func (v variant) setup(e *testscript.Env, compiled, homes string) error {
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
	// Native code of the modules, made once: compiling it again in every script would be most of the time.
	cache := filepath.Join(home, ".cache", "ds")
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return err
	}
	return os.Symlink(compiled, filepath.Join(cache, "wasm"))
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

// compile runs each module once and returns the directory of compiled code.
func compile(t *testing.T, guests string) string {
	t.Helper()
	c := newCall(t)
	for name, args := range map[string][]string{"porter": {"version"}, "probe": {"args"}, "demo": {"args"}} {
		c.want(0, "plugin", "install", filepath.Join(guests, name), "--grant", "manifest")
		c.want(0, append([]string{"--backend", "wasm", name}, args...)...)
	}
	return filepath.Join(c.home, ".cache", "ds", "wasm")
}

// call runs ds in this process, in a home of its own.
type call struct {
	t              testing.TB
	home           string
	env            map[string]string
	stdin          string
	stdout, stderr bytes.Buffer
}

func newCall(t testing.TB) *call {
	t.Helper()
	home := t.TempDir()
	return &call{t: t, home: home, env: map[string]string{"HOME": home, "PATH": os.Getenv("PATH")}}
}

// run is one call of ds; its output is in c.stdout and c.stderr.
func (c *call) run(args ...string) int {
	c.t.Helper()
	c.stdout.Reset()
	c.stderr.Reset()
	return run(c.t.Context(), args, stdio{strings.NewReader(c.stdin), &c.stdout, &c.stderr}, c.environ())
}

func (c *call) environ() (env []string) {
	for k, v := range c.env {
		env = append(env, k+"="+v)
	}
	return env
}

// want is run, and a test that fails if the exit code is another one.
func (c *call) want(code int, args ...string) {
	c.t.Helper()
	if got := c.run(args...); got != code {
		c.t.Fatalf("ds %q: exit %d, want %d\n%s%s", args, got, code, c.stdout.String(), c.stderr.String())
	}
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
