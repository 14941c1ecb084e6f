//go:build unix

package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/delivery-station/ds/internal/dstest"
)

// interrupt runs ds and sends sig to this process as soon as the registry is asked for a blob, which it never
// sends completely.
func (c *call) interrupt(r *dstest.RegistryServer, sig syscall.Signal, args ...string) int {
	c.t.Helper()
	r.Inject(dstest.Fault{Method: "GET", Path: "/blobs/", StallAt: 100})
	defer r.Heal()
	r.Forget()
	code := make(chan int, 1)
	go func() { code <- c.run(args...) }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	patience := time.NewTimer(time.Minute)
	defer patience.Stop()
	for sent := false; ; {
		select {
		case n := <-code:
			return n
		case <-tick.C:
			if !sent && r.Sent("/blobs/") > 0 {
				sent = true
				if err := syscall.Kill(os.Getpid(), sig); err != nil {
					c.t.Error(err)
				}
			}
		case <-patience.C:
			c.t.Fatalf("ds %q did not end\n%s", args, c.stderr.String())
		}
	}
}

// TestInterrupted ends an installation and pulls in the middle of a transfer: the exit code says so, nothing is
// half there, and the next try works.
func TestInterrupted(t *testing.T) {
	r := dstest.Registry(t, dstest.RegistryOptions{})
	payload := filepath.Join(t.TempDir(), "payload")
	if err := os.WriteFile(payload, make([]byte, 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	demo := r.Host + "/acme/demo:0.1.0"
	c := newCall(t)
	c.want(0, "plugin", "push", filepath.Join(guests(t).Both, "demo"), r.Host+"/acme/demo", "--unsigned")
	if got := c.interrupt(r, syscall.SIGINT, "plugin", "install", demo, "--allow-unsigned", "--grant", "manifest"); got != 130 {
		t.Errorf("install: exit %d, want 130\n%s", got, c.stderr.String())
	}
	for _, pattern := range []string{"active/*", "store/*", ".staging/*"} {
		if left, _ := filepath.Glob(filepath.Join(c.home, ".local", "share", "ds", "plugins", pattern)); len(left) > 0 {
			t.Errorf("install left %v", left)
		}
	}
	c.want(0, "plugin", "install", demo, "--allow-unsigned", "--grant", "manifest")

	for _, v := range kinds(t) {
		t.Run(v.kind, func(t *testing.T) {
			app := r.Host + "/acme/" + v.kind + ":1"
			c := installed(t, v, "porter")
			c.want(0, "porter", "push", payload, app)
			if err := os.RemoveAll(filepath.Join(c.home, ".cache", "ds", "artifacts")); err != nil {
				t.Fatal(err)
			}
			out := filepath.Join(t.TempDir(), "out")
			for sig, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
				if got := c.interrupt(r, sig, "porter", "pull", app, "-o", out); got != want {
					t.Errorf("%v: exit %d, want %d\n%s", sig, got, want, c.stderr.String())
				}
				if _, err := os.Stat(filepath.Join(out, "payload")); err == nil {
					t.Error("a file was written")
				}
			}
			c.want(0, "porter", "pull", app, "-o", out)
			if info, err := os.Stat(filepath.Join(out, "payload")); err != nil || info.Size() != 100_000 {
				t.Errorf("after that: %v, %v", info, err)
			}
		})
	}
}
