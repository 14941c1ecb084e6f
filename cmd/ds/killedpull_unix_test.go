//go:build unix

package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/internal/dstest"
)

// TestS5_KilledPull kills ds in the middle of a blob, twice: the next run continues where the last one ended.
func TestS5_KilledPull(t *testing.T) {
	if testing.Short() {
		t.Skip("runs several commands")
	}
	const size = 8 << 20
	g := guests(t)
	home, work := t.TempDir(), t.TempDir()
	payload := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{5}).Read(payload) // never fails
	if err := os.WriteFile(filepath.Join(work, "payload"), payload, 0o600); err != nil {
		t.Fatal(err)
	}
	command := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "ds", args...)
		cmd.Env, cmd.Dir = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "DS_NO_INPUT=1"}, work
		return cmd
	}
	run := func(args ...string) {
		t.Helper()
		if out, err := command(args...).CombinedOutput(); err != nil {
			t.Fatalf("ds %q: %v\n%s", args, err, out)
		}
	}
	run("plugin", "install", filepath.Join(g.Both, "porter"), "--grant", "manifest")
	for _, backend := range []string{"native", "wasm"} {
		r := dstest.Registry(t, dstest.RegistryOptions{})
		ref := r.Host + "/acme/big:1"
		run("--backend", backend, "porter", "push", "payload", ref)
		if err := os.RemoveAll(filepath.Join(home, ".cache", "ds")); err != nil {
			t.Fatal(err)
		}
		r.Forget()
		have := int64(0)
		for range 2 {
			r.Heal()
			r.Inject(dstest.Fault{Method: "GET", Path: "/blobs/", StallAt: 3 << 20})
			want := have + 3<<20
			cmd := command("--backend", backend, "porter", "pull", ref, "-o", "out")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			arrived := waitForBytes(t, home, want)
			_ = cmd.Process.Kill() // SIGKILL
			_ = cmd.Wait()         // says that it was killed
			if !arrived {
				t.Fatalf("%s: %d bytes never arrived", backend, want)
			}
			have = want
		}
		r.Heal()
		run("--backend", backend, "porter", "pull", ref, "-o", "out")
		got, err := os.ReadFile(filepath.Join(work, "out", "payload"))
		if err != nil || !bytes.Equal(got, payload) {
			t.Fatalf("%s: the file is not what was pushed: %v", backend, err)
		}
		last := int64(-1)
		for _, q := range r.Requests() {
			if strings.HasPrefix(q.Range, "bytes=") {
				_, _ = fmt.Sscanf(q.Range, "bytes=%d-", &last) // -1 is told below
			}
		}
		if sent := r.Sent("/blobs/"); float64(last) < 0.95*float64(have) || float64(sent) > 1.10*size {
			t.Errorf("%s: continued at %d of %d, %d bytes sent for %d", backend, last, have, sent, size)
		} else {
			t.Logf("S5: %s, killed twice at %d and %d: %.3f of the bytes sent", backend, 3<<20, have, float64(sent)/size)
		}
		if err := os.RemoveAll(filepath.Join(work, "out")); err != nil {
			t.Fatal(err)
		}
	}
}

// waitForBytes waits until some file of the cache has n bytes.
func waitForBytes(t *testing.T, home string, n int64) bool {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	patience := time.NewTimer(time.Minute)
	defer patience.Stop()
	for {
		found := false
		_ = filepath.WalkDir(filepath.Join(home, ".cache", "ds"), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() { // files come and go
				info, err := d.Info()
				found = found || (err == nil && info.Size() == n)
			}
			return nil
		})
		if found {
			return true
		}
		select {
		case <-tick.C:
		case <-patience.C:
			return false
		}
	}
}
