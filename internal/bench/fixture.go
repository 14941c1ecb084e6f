package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// fixture is everything that rows run on, below one temporary directory: a home with installed plugins, and
// copies of ds and of the contenders, so that all lie on the same file system and nobody replaces them while
// they are measured.
type fixture struct {
	tmp, home, peers, guests string
	ds                       string
	root                     string // of the source tree
	tool                     string // go
	tests                    map[string]string
	server                   *server // nil without rows of the registry, or without the contenders
}

// guest is one plugin of the fixture.
type guest struct {
	name, run string
	build     []string // arguments of go build; empty = copy
	env       []string
	from, to  string
	caps      string // beside config.read, for which rows of other plugins must not pay
}

func guests() []guest {
	const (
		native = "  native:\n    linux/amd64: native\n    linux/arm64: native\n"
		broker = "  native:\n    mode: goplugin\n    linux/amd64: native\n    linux/arm64: native\n"
		bench  = "./testdata/guests/go/bench"
		blobs  = "  - {cap: cache.read, scope: [own], reason: \"the blob to read\"}\n  - {cap: cache.write, scope: [own], reason: \"the blob to read\"}\n"
	)
	static, wasip1 := []string{"CGO_ENABLED=0"}, []string{"GOOS=wasip1", "GOARCH=wasm"}
	wasm := func(name string) string { return "  wasm: {artifact: " + name + ".wasm}\n" }
	return []guest{
		{name: "raw", run: native, build: []string{"-C", peersModule, "./rawgo"}, env: static, to: "native"},
		{name: "gohello", run: wasm("gohello"), build: []string{"-C", peersModule, "./rawgo"}, env: wasip1, to: "gohello.wasm"},
		{name: "chello", run: wasm("chello"), from: "testdata/guests/c/hello.wasm", to: "chello.wasm"},
		{name: "cguest", run: wasm("cguest"), from: "testdata/guests/c/bench.wasm", to: "cguest.wasm"},
		{name: "guest", run: native, build: []string{bench}, env: static, to: "native"},
		{name: "wguest", run: wasm("wguest"), build: []string{bench}, env: wasip1, to: "wguest.wasm"},
		{name: "blob", run: native, build: []string{bench}, env: static, to: "native", caps: blobs},
		{name: "wblob", run: wasm("wblob"), build: []string{bench}, env: wasip1, to: "wblob.wasm", caps: blobs},
		{name: "gpguest", run: broker, build: []string{"-tags=grpcnotrace,goplugin", bench}, env: static, to: "native"},
	}
}

func newFixture(ctx context.Context, tmp string, o options) (*fixture, error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(root, "testdata", "guests", "go", "bench")); err != nil {
		return nil, errors.New("run it in the root of the source tree")
	}
	f := &fixture{
		tmp: tmp, home: filepath.Join(tmp, "home"), peers: filepath.Join(tmp, "peers"), guests: filepath.Join(tmp, "guests"),
		ds: filepath.Join(tmp, "ds"), root: root, tool: o.goTool, tests: make(map[string]string),
	}
	if err := copyFile(o.ds, f.ds); err != nil {
		return nil, err
	}
	if _, err := os.Stat(o.peers); err == nil {
		if err := os.CopyFS(f.peers, os.DirFS(o.peers)); err != nil {
			return nil, err
		}
	}
	if err := f.configure(); err != nil {
		return nil, err
	}
	for _, g := range guests() {
		if err := f.install(ctx, g); err != nil {
			return nil, err
		}
	}
	if usesRegistry(o.rows()) {
		if err := errors.Join(f.installPorter(ctx), f.startRegistry(ctx, o.quick)); err != nil {
			f.close()
			return nil, err
		}
	}
	return f, nil
}

// configure writes the user's configuration, which is small as it mostly is, and one with the values that the rows
// of host calls read.
func (f *fixture) configure() error {
	dir := filepath.Join(f.home, ".config", "ds")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	value := func(size int) string {
		return fmt.Sprintf("      v%d: %q\n", size, strings.Repeat("x", size))
	}
	const settings = "plugins:\n  settings:\n"
	small, calls, large, huge := settings, settings, settings, settings
	for _, name := range []string{"guest", "gpguest"} {
		small += "    " + name + ":\n" + value(64)
	}
	for _, name := range []string{"cguest", "guest", "wguest", "gpguest"} {
		calls += "    " + name + ":\n" + value(0) + value(64) + value(1024)
		large += "    " + name + ":\n" + value(64<<10)
	}
	huge += "    cguest:\n" + value(1e6)
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(small), 0o600),
		os.WriteFile(filepath.Join(f.tmp, "calls.yaml"), []byte(calls), 0o600),
		os.WriteFile(filepath.Join(f.tmp, "large.yaml"), []byte(large), 0o600),
		os.WriteFile(filepath.Join(f.tmp, "huge.yaml"), []byte(huge), 0o600),
	)
}

// install builds or copies a plugin and installs it with what it asks for.
func (f *fixture) install(ctx context.Context, g guest) error {
	dir := filepath.Join(f.guests, g.name)
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // programs, not secrets
		return err
	}
	to := filepath.Join(dir, g.to)
	if len(g.build) == 0 {
		if err := copyFile(filepath.Join(f.root, g.from), to); err != nil {
			return err
		}
	} else {
		args := []string{"build", "-trimpath", "-ldflags=-s -w", "-o", to}
		wd := f.root
		if g.build[0] == "-C" {
			wd = filepath.Join(f.root, g.build[1])
			args = append(args, g.build[2:]...)
		} else {
			args = append(args, g.build...)
		}
		if err := f.goTool(ctx, wd, g.env, args...); err != nil {
			return err
		}
	}
	manifest := "apiVersion: ds.plugin/v2\nname: " + g.name + "\nversion: 0.1.0\ndescription: Work that is measured\nlicense: MIT\nabi: ds.host/v1\n" +
		"capabilities:\n  - {cap: config.read, scope: [own], reason: \"the value to read\"}\n" +
		"  - {cap: cache.read, scope: [own], reason: \"the blob to read\"}\n  - {cap: cache.write, scope: [own], reason: \"the blob to read\"}\nrun:\n" + g.run
	if err := os.WriteFile(filepath.Join(dir, "plugin.yaml"), []byte(manifest), 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, f.ds, "plugin", "install", dir, "--grant", "manifest")
	cmd.Env, cmd.Dir = f.env(), f.tmp
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ds plugin install %s: %w\n%s", g.name, err, text)
	}
	return nil
}

// goTool runs the go command in dir, with the caller's environment.
func (f *fixture) goTool(ctx context.Context, dir string, env []string, args ...string) error {
	cmd := exec.CommandContext(ctx, f.tool, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, text)
	}
	return nil
}

// env is what every side gets: a home of its own, no proxy, no variable of ds.
func (f *fixture) env() []string {
	return []string{"HOME=" + f.home, "PATH=/usr/local/bin:/usr/bin:/bin", "TMPDIR=" + f.tmp, "LANG=C.UTF-8"}
}

func (f *fixture) expand(s string) string {
	return os.Expand(s, func(name string) string {
		if word, ok := f.registryWord(name); ok {
			return word
		}
		return map[string]string{"ds": f.ds, "peers": f.peers, "guests": f.guests, "home": f.home, "tmp": f.tmp}[name]
	})
}

// copyFile keeps nothing in memory: a child's peak begins with that of this program.
func copyFile(from, to string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755) //nolint:gosec // programs
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}

// removeAll removes dir, also what was made read-only in it.
func removeAll(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return os.Chmod(path, 0o700) //nolint:gosec // a directory that is going away
		}
		return nil
	})
	_ = os.RemoveAll(dir)
}
