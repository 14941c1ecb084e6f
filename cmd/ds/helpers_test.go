package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/delivery-station/ds/internal/dstest"
)

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

// built is what all tests of this process share, made when the first asks for it.
var built struct {
	once, compile sync.Once
	dir           string
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

// linkCompiled gives home the native code of the modules, made once: compiling it again for every script would
// be most of the time.
func linkCompiled(t testing.TB, home string) error {
	t.Helper()
	g := guests(t)
	built.compile.Do(func() {
		c := &call{t: t, home: filepath.Join(built.dir, "home")}
		c.env = map[string]string{"HOME": c.home}
		for name, args := range map[string][]string{"porter": {"version"}, "cache": {"version"}, "probe": {"args"}, "demo": {"args"}} {
			c.want(0, "plugin", "install", filepath.Join(g.Both, name), "--grant", "manifest")
			c.want(0, append([]string{"--backend", "wasm", name}, args...)...)
		}
	})
	cache := filepath.Join(home, ".cache", "ds")
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return err
	}
	return os.Symlink(filepath.Join(built.dir, "home", ".cache", "ds", "wasm"), filepath.Join(cache, "wasm"))
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
