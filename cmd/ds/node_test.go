//go:build unix

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestNodeGoPlugin runs a stock go-plugin server that is written in Node with grpc-js: mode goplugin is for every
// language that speaks gRPC.
func TestNodeGoPlugin(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not here")
	}
	modules := filepath.Join(fetchedDir, "grpcjs", "node_modules")
	if _, err := os.Stat(modules); err != nil {
		t.Skip("bin/guests/grpcjs is not here: make interpreters fetches it")
	}
	dir := t.TempDir()
	source := filepath.Join("..", "..", "testdata", "node")
	for from, to := range map[string]string{
		filepath.Join(source, "server.js"): "server.js", filepath.Join(source, "plugin.yaml"): "plugin.yaml", filepath.Join(source, "goplugin.proto"): "goplugin.proto",
		filepath.Join("..", "..", "hostabi", "hostv1", "plugin.proto"): "plugin.proto", filepath.Join("..", "..", "hostabi", "hostv1", "host.proto"): "host.proto",
	} {
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, to), b, 0o700)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(filepath.Join(dir, "node_modules"), os.DirFS(modules)); err != nil {
		t.Fatal(err)
	}
	c := newCall(t)
	c.want(0, "plugin", "install", dir, "--grant", "manifest")

	flood := sha256.New()
	if _, err := io.CopyN(flood, pattern{}, 8<<20); err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		words  []string
		stdin  string
		stdout string
		stderr string
		code   int
	}{
		"words":          {[]string{"words", "", "a b", "--x"}, "", `[["words","","a b","--x"],"nodegp"]` + "\n", "", 0},
		"exit":           {[]string{"exit", "7"}, "", "", "", 7},
		"host call":      {[]string{"config", "settings.nodegp.greeting"}, "", "hi\n", "", 0},
		"denied":         {[]string{"denied"}, "", "code 7\n", "", 0},
		"standard input": {[]string{"cat"}, "to the end", "to the end", "", 0},
		"standard error": {[]string{"stderr"}, "", "", "{\"@message\":1}\n|said\n", 0},
		"no such word":   {[]string{"other"}, "", "", "is not a function", 1},
	} {
		t.Run(name, func(t *testing.T) {
			c.t, c.stdin = t, x.stdin
			c.want(x.code, append([]string{"--set", "plugins.settings.nodegp.greeting=hi", "nodegp"}, x.words...)...)
			if got := c.stdout.String(); got != x.stdout {
				t.Errorf("stdout %q, want %q", got, x.stdout)
			}
			for _, want := range strings.Split(x.stderr, "|") {
				if !strings.Contains(c.stderr.String(), want) {
					t.Errorf("stderr %q, want %q in it", c.stderr.String(), want)
				}
			}
		})
	}
	c.t, c.stdin = t, ""
	c.want(0, "nodegp", "flood", strconv.Itoa(8<<20))
	if sum := sha256.Sum256(c.stdout.Bytes()); hex.EncodeToString(sum[:]) != hex.EncodeToString(flood.Sum(nil)) {
		t.Errorf("%d bytes of 8 MiB arrived, or others", c.stdout.Len())
	}
}

// pattern is what the server floods with.
type pattern struct{}

func (pattern) Read(p []byte) (int, error) {
	n := copy(p, strings.Repeat("0123456789abcdef", len(p)/16+1))
	return n - n%16, nil
}
