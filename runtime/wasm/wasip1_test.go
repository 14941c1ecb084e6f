package wasm

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/plugin"
)

const (
	suiteModules = 72 // of wasm32-wasip1 in WebAssembly/wasi-testsuite, branch prod/testsuite-base
	suiteFloor   = 59 // wasm.md section 13
)

// suiteCase is one module of the suite with the JSON file beside it.
type suiteCase struct {
	name string // c/lseek
	file string
	Args []string          `json:"args"`
	Env  map[string]string `json:"env"`
	Root string            `json:"root"`
	Exit int               `json:"exit_code"`
	Out  *string           `json:"stdout"`
	Err  *string           `json:"stderr"`
}

// prepare gives a guest root at "/", as the suite wants it, and nothing of what ds adds.
func (c suiteCase) prepare(root string) func(in *instance) {
	return func(in *instance) {
		in.files.close()
		for _, m := range in.mounts {
			_ = m.close() // an empty /tmp
		}
		in.mounts = nil
		if root != "" {
			f := newMountFS("/", in.files)
			f.add(&mount{tree: &tree{host: root}, at: ".", write: true, follow: true, links: true})
			f.finish()
			in.mounts = append(in.mounts, f)
		}
		in.env = nil
		for k, v := range c.Env {
			in.env = append(in.env, k+"="+v)
		}
		slices.Sort(in.env)
	}
}

// TestWASIConformance runs the public test suite of WASI preview 1 (make wasip1). The module says by its exit
// code whether it is content. What is not is listed; a listed module that passes is an error too.
func TestWASIConformance(t *testing.T) {
	dir := os.Getenv("DS_WASI_TESTSUITE")
	if dir == "" {
		t.Skip("DS_WASI_TESTSUITE names no checkout of WebAssembly/wasi-testsuite, branch prod/testsuite-base")
	}
	cases := suiteCases(t, dir)
	if len(cases) != suiteModules {
		t.Errorf("%s has %d modules, want %d", dir, len(cases), suiteModules)
	}
	expected := suiteExpected(t)
	passed := 0
	for _, c := range cases {
		why := c.run(t)
		known := expected[c.name]
		delete(expected, c.name)
		switch {
		case why == "" && known:
			passed++
			t.Errorf("%s passes: take it off the list of expected failures", c.name)
		case why == "":
			passed++
			t.Logf("pass   %s", c.name)
		case known:
			t.Logf("known  %s: %s", c.name, why)
		default:
			t.Errorf("%s fails: %s", c.name, why)
		}
	}
	for name := range expected {
		t.Errorf("%s is expected to fail and does not exist", name)
	}
	t.Logf("WASI preview 1: %d of %d pass, floor %d", passed, len(cases), suiteFloor)
	if passed < suiteFloor {
		t.Errorf("%d pass, at least %d must", passed, suiteFloor)
	}
}

// run is empty if the module behaves as its file says.
func (c suiteCase) run(t *testing.T) string {
	var root string
	if c.Root != "" {
		root = t.TempDir()
		if err := os.CopyFS(root, os.DirFS(filepath.Join(filepath.Dir(c.file), c.Root))); err != nil {
			t.Fatal(err)
		}
	}
	b := New(Options{TempDir: t.TempDir()})
	defer func() { _ = b.Close() }() // nothing was written
	b.prepared = c.prepare(root)
	r := &runOf{b: b, inv: plugin.Invocation{Deadline: time.Now().Add(time.Minute)}}
	err := r.run(context.WithoutCancel(t.Context()), t, installed(t, c.file), c.Args...)
	code := 0
	if e, ok := errors.AsType[*plugin.ExitError](err); ok {
		code, err = e.Code, nil
	}
	switch {
	case err != nil:
		return resultOf(err) + ": " + firstLines(r.err.String())
	case code != c.Exit:
		return "exit " + itoa(code) + ": " + firstLines(r.err.String())
	case c.Out != nil && *c.Out != r.out.String():
		return "stdout " + r.out.String()
	case c.Err != nil && *c.Err != r.err.String():
		return "stderr " + r.err.String()
	}
	return ""
}

// firstLines is the beginning of what a guest complained about.
func firstLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[:min(len(lines), 3)], " | ")
}

func suiteCases(t *testing.T, dir string) []suiteCase {
	t.Helper()
	var out []suiteCase
	for _, lang := range []string{"assemblyscript", "c", "rust"} {
		files, err := filepath.Glob(filepath.Join(dir, "tests", lang, "testsuite", "wasm32-wasip1", "*.wasm"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			c := suiteCase{name: lang + "/" + strings.TrimSuffix(filepath.Base(file), ".wasm"), file: file}
			b, err := os.ReadFile(strings.TrimSuffix(file, ".wasm") + ".json")
			if err == nil {
				err = json.Unmarshal(b, &c)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("%s: %v", c.name, err)
			}
			out = append(out, c)
		}
	}
	return out
}

// suiteExpected reads the list: a name, then why, a line; "#" begins a comment.
func suiteExpected(t *testing.T) map[string]bool {
	t.Helper()
	b, err := os.ReadFile("../../testdata/wasip1/expected-failures.txt")
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]bool)
	for line := range strings.Lines(string(b)) {
		if name, _, _ := strings.Cut(strings.TrimSpace(line), " "); name != "" && name[0] != '#' {
			out[name] = true
		}
	}
	return out
}
