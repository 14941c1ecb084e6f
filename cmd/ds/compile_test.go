package main

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCompileWorker: modules are compiled by a process of their own, which an expensive one does not outlive. What
// ds prints names the limit, and nothing is left behind.
func TestCompileWorker(t *testing.T) {
	if testing.Short() || slack > 1 {
		t.Skip("takes a second of processor time, and many under the race detector")
	}
	c := newCall(t)
	c.env["DS_SANDBOX_COMPILE_TIMEOUT"] = "1s"
	dir := t.TempDir()
	manifest := "apiVersion: ds.plugin/v2\nname: costly\nversion: 1.0.0\ndescription: Compiles for long\nabi: ds.host/v1\nrun:\n  wasm: {artifact: costly.wasm}\n"
	if err := os.WriteFile(filepath.Join(dir, "plugin.yaml"), []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "costly.wasm"), costlyModule(), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := c.run("plugin", "install", dir, "--grant", "manifest"); code == 0 {
		c.want(125, "costly")
	}
	if got := c.stderr.String(); !strings.Contains(got, "module is too expensive to compile: it needs more than 1s of processor time") {
		t.Errorf("got %s", got)
	}
	left, err := filepath.Glob(filepath.Join(c.home, ".cache", "ds", "wasm", "[.0-9a-f]*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range left {
		if base := filepath.Base(name); base != ".lock" && base != ".trim" {
			t.Errorf("left behind: %s", name)
		}
	}
}

// costlyModule is a valid module of 24 MiB of plain code: many seconds of compiling.
func costlyModule() []byte {
	size := func(b []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(b))), b...) }
	const functions = 768
	body := []byte{1, 1, 0x7f} // one local, i32
	for range 32 << 10 / 8 {
		body = append(body, 0x20, 0, 0x41, 7, 0x6c, 0x21, 0, 0x01) // local = local * 7
	}
	body = size(append(body, 0x0b))
	out := []byte("\x00asm\x01\x00\x00\x00")
	section := func(id byte, content []byte) { out = append(append(out, id), size(content)...) }
	section(1, []byte{1, 0x60, 0, 0})
	section(3, append(binary.AppendUvarint(nil, functions), make([]byte, functions)...))
	section(5, []byte{1, 0, 1})
	section(7, []byte("\x02\x06memory\x02\x00\x06_start\x00\x00"))
	section(10, append(binary.AppendUvarint(nil, functions), bytes.Repeat(body, functions)...))
	return out
}
