package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// kinds are the ways in which a plugin runs, with the directory of guests and the backend of each.
func kinds(t *testing.T) []variant {
	t.Helper()
	g := guests(t)
	return []variant{{"native", "native", g.Both}, {"goplugin", "native", g.GoPlugin}, {"wasm", "wasm", g.Both}}
}

// installed is a call whose home has the plugin, to be run as v says.
func installed(t *testing.T, v variant, names ...string) *call {
	t.Helper()
	c := newCall(t)
	c.env["DS_PLUGINS_BACKEND"] = v.backend
	if err := linkCompiled(t, c.home); err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		c.want(0, "plugin", "install", filepath.Join(v.guests, n), "--grant", "manifest")
	}
	return c
}

// loops is how often output tests run: DS_TEST_LOOPS, by default 5, once with -short.
func loops(t *testing.T) int {
	t.Helper()
	if testing.Short() {
		return 1
	}
	n, err := strconv.Atoi(os.Getenv("DS_TEST_LOOPS"))
	if err != nil {
		return 5
	}
	return n
}

// TestOutput sends 64 MiB of a plugin through ds into a hash, again and again: not a byte may be missing at the
// end, where programs exit with output still on its way.
func TestOutput(t *testing.T) {
	const size = 64 << 20
	want := sha256.New()
	block := make([]byte, 251*1024)
	for i := range block {
		block[i] = byte(i % 251)
	}
	for n := size; n > 0; n -= len(block) {
		want.Write(block[:min(n, len(block))])
	}
	sum := hex.EncodeToString(want.Sum(nil))
	for _, v := range kinds(t) {
		t.Run(v.kind, func(t *testing.T) {
			c := installed(t, v, "probe")
			for i := range loops(t) {
				n, got := c.hashOutput("probe", "flood", strconv.Itoa(size))
				if n != size || got != sum {
					t.Fatalf("run %d: %d bytes, sha256 %s; want %d, %s\n%s", i, n, got, size, sum, c.stderr.String())
				}
			}
		})
	}
}

// hashOutput runs ds with a pipe as stdout, as a shell would, and hashes what comes out of it.
func (c *call) hashOutput(args ...string) (n int64, sum string) {
	c.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		c.t.Fatal(err)
	}
	h := sha256.New()
	var reader sync.WaitGroup
	reader.Go(func() {
		n, err = io.Copy(h, r)
	})
	c.stderr.Reset()
	code := run(c.t.Context(), args, stdio{strings.NewReader(""), w, &c.stderr}, c.environ())
	if cerr := w.Close(); cerr != nil {
		c.t.Error(cerr)
	}
	reader.Wait()
	if cerr := r.Close(); cerr != nil {
		c.t.Error(cerr)
	}
	if code != 0 || err != nil {
		c.t.Fatalf("ds %q: exit %d, %v\n%s", args, code, err, c.stderr.String())
	}
	return n, hex.EncodeToString(h.Sum(nil))
}

// TestExitCodes passes every code of a plugin through ds.
func TestExitCodes(t *testing.T) {
	for _, v := range kinds(t) {
		name, step := "probe", 1
		switch {
		case testing.Short():
			step = 51
		case v.kind == "goplugin":
			step = 15
		case v.kind == "wasm":
			name = "demo" // small: 256 runs of it are no wait
		}
		t.Run(v.kind, func(t *testing.T) {
			c := installed(t, v, name)
			c.want(0, name, "exit", "0") // compiles the module, which a slow machine is told about
			for code := 0; code <= 255; code += step {
				c.want(code, name, "exit", strconv.Itoa(code))
				if c.stderr.Len() > 0 {
					t.Errorf("exit %d: ds says %q", code, c.stderr.String())
				}
			}
		})
	}
}

// TestNothingIsStarted installs fifty plugins of each kind and shows that listing, help and completion start none.
func TestNothingIsStarted(t *testing.T) {
	c := newCall(t)
	dir := t.TempDir()
	for i := range 50 {
		c.want(0, "plugin", "install", writePlugin(t, dir, i))
	}
	before := started(t)
	for _, args := range [][]string{
		{"plugin", "list"},
		{"--format", "json", "plugin", "list"},
		{"plugin", "info", "p07"},
		{"plugin", "info", "p07", "--capabilities"},
		{"help"},
		{"help", "p07"},
		{"p08", "--help"},
		{"p08", "greet", "-h"},
		{"__complete", "p"},
		{"__complete", "p07", "gr"},
		{"__complete", "p07", "greet", "--"},
		{"__complete", "plugin", "remove", "p"},
	} {
		c.want(0, args...)
		if bytes.Contains(c.stdout.Bytes(), []byte("started")) {
			t.Errorf("ds %q: a plugin has written %q", args, c.stdout.String())
		}
	}
	c.want(0, "__complete", "p")
	if n := strings.Count(c.stdout.String(), "Greets"); n != 50 {
		t.Errorf("completion knows %d plugins:\n%s", n, c.stdout.String())
	}
	c.want(127, "p99")
	if after := started(t); after != before {
		t.Error("a process was started")
	}
	if found, _ := filepath.Glob(filepath.Join(c.home, ".cache", "ds", "wasm", "*")); len(found) > 0 {
		t.Errorf("a module was compiled: %v", found)
	}
	c.want(0, "p08", "greet") // the check can fail: this one is started
	if started(t) == before && before >= 0 {
		t.Error("a started plugin was not noticed")
	}
}

// writePlugin makes plugin number i: even ones are scripts, odd ones modules.
func writePlugin(t *testing.T, dir string, i int) string {
	t.Helper()
	name := fmt.Sprintf("p%02d", i)
	at := filepath.Join(dir, name)
	run := "wasm: {artifact: p.wasm}"
	if i%2 == 0 {
		run = "native: {linux/amd64: p.sh, linux/arm64: p.sh, darwin/amd64: p.sh, darwin/arm64: p.sh}"
	}
	files := map[string]string{
		"plugin.yaml": "apiVersion: ds.plugin/v2\nname: " + name + "\nversion: 1.0.0\ndescription: Greets\nabi: ds.host/v1\n" +
			"commands: [{name: greet, summary: greet, flags: [{name: loud, type: bool}]}]\nrun: {" + run + "}\n",
		"p.sh": "#!/bin/sh\necho started\n", "p.wasm": "no module",
	}
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	for base, text := range files {
		if err := os.WriteFile(filepath.Join(at, base), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return at
}

// TestNothingIsLeft runs plugins of every kind, well and badly, and looks for what they leave behind.
func TestNothingIsLeft(t *testing.T) {
	for _, v := range kinds(t) {
		t.Run(v.kind, func(t *testing.T) {
			c := installed(t, v, "probe", "demo")
			calls := func() {
				c.want(0, "probe", "state")
				c.want(0, "probe", "relay", "demo", "event")
				c.want(3, "probe", "fail")
				c.want(124, "--timeout", "100ms", "probe", "sleep", "1m")
			}
			calls() // what is made once per process
			before := resources(t)
			calls()
			before.compare(t)
			if left, _ := filepath.Glob(filepath.Join(c.home, ".cache", "ds", "run", "*")); len(left) > 0 {
				t.Errorf("left in the run directory: %v", left)
			}
		})
	}
}
