// Command demo is the tour of `make demo`: it runs bin/ds for real, against a registry in this process and an
// OCI layout on disk, and prints what happened and how long it took. It fails if anything is not as promised.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/delivery-station/ds/internal/dstest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// tour is the state that the steps share: a home of its own, a registry, and what was seen so far.
type tour struct {
	out      io.Writer
	ds       string
	home     string // of ds
	work     string // where the user is
	registry *dstest.RegistryServer
	layout   string
	ref      string // of the artifact
	files    map[string][32]byte
}

func run(ctx context.Context, out io.Writer) error {
	tmp, err := os.MkdirTemp("", "ds-demo-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // it lies in the temporary directory
	ds, err := filepath.Abs(filepath.Join("bin", "ds"))
	if err != nil {
		return err
	}
	registry, err := dstest.StartRegistry(dstest.RegistryOptions{})
	if err != nil {
		return err
	}
	defer registry.Close()
	t := &tour{
		out: out, ds: ds, home: filepath.Join(tmp, "home"), work: filepath.Join(tmp, "work"), registry: registry, layout: "oci-layout:" + filepath.Join(tmp, "layout"),
		ref: registry.Host + "/acme/app:1.0.0", files: make(map[string][32]byte),
	}
	for _, dir := range []string{t.home, t.work} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "Delivery Station demo: registry in this process at %s, OCI layout in a temporary directory\n\n", registry.Host)
	begin := time.Now()
	for _, s := range t.steps() {
		at := time.Now()
		said, err := s.do(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintf(out, "ok %6.0f ms  %s\n", float64(time.Since(at).Microseconds())/1000, s.name)
		for line := range strings.Lines(said) {
			fmt.Fprintf(out, "              %s\n", strings.TrimRight(line, "\n"))
		}
	}
	fmt.Fprintf(out, "\nAll of it worked in %.1f s.\n", time.Since(begin).Seconds())
	return nil
}

type step struct {
	name string
	do   func(context.Context) (string, error)
}

func (t *tour) steps() []step {
	return []step{
		{"build the plugins porter and probe, native and WASM from one source each", t.build},
		{"publish porter to an OCI layout and to the registry", t.publish},
		{"install porter with both kinds; its capabilities are granted explicitly", t.install},
		{"push an artifact of three files to the registry with the native porter", t.push},
		{"pull it with the native porter: the host moves every byte into the cache", t.pullNative},
		{"pull it again with the WASM porter: a cache hit that the native one left", t.pullWASM},
		{"run a C guest (WASM) and the Go plugin (native) through the same host calls", t.guests},
		{"a native plugin calls a WASM plugin and reads the event that it publishes", t.event},
		{"a plugin without the grant is refused, with the command that would allow it", t.denied},
		{"list what is installed; nothing is started for it", t.list},
	}
}

// result is what one call of ds gave.
type result struct {
	stdout, stderr string
	code           int
}

// call runs ds in the tour's home with nothing of the caller's environment.
func (t *tour) call(ctx context.Context, args ...string) (result, error) {
	cmd := exec.CommandContext(ctx, t.ds, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Dir = t.work
	cmd.Env = []string{"HOME=" + t.home, "USERPROFILE=" + t.home, "APPDATA=" + t.home, "LOCALAPPDATA=" + t.home, "PATH=" + os.Getenv("PATH"), "DS_PLUGINS_SETTINGS_DEMO_GREETING=Hello", "DS_PLUGINS_SETTINGS_PROBE_GREETING=Hello"}
	err := cmd.Run()
	r := result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	if _, exited := errors.AsType[*exec.ExitError](err); exited {
		err = nil
	}
	return r, err
}

// want runs ds and expects exit code 0.
func (t *tour) want(ctx context.Context, args ...string) (string, error) {
	r, err := t.call(ctx, args...)
	if err != nil {
		return "", err
	}
	if r.code != 0 {
		return "", fmt.Errorf("ds %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout, nil
}

func (t *tour) build(context.Context) (string, error) {
	for src, name := range map[string]string{"cmd/ds-porter": "porter", "testdata/guests/go/probe": "probe"} {
		if err := dstest.BuildPlugin(filepath.FromSlash(src), filepath.Join(t.work, name)); err != nil {
			return "", err
		}
	}
	return "", os.CopyFS(filepath.Join(t.work, "demo"), os.DirFS(filepath.FromSlash("testdata/guests/c/demo")))
}

func (t *tour) publish(ctx context.Context) (string, error) {
	for _, to := range []string{t.layout, t.registry.Host + "/delivery-station/porter"} {
		if _, err := t.want(ctx, "plugin", "push", "./porter", to, "--unsigned"); err != nil {
			return "", err
		}
	}
	return "", nil
}

func (t *tour) install(ctx context.Context) (string, error) {
	args := []string{"plugin", "install", t.layout + ":0.1.0", "--backend", "both", "--allow-unsigned"}
	r, err := t.call(ctx, args...)
	if err != nil {
		return "", err
	}
	if r.code != 125 {
		return "", fmt.Errorf("without a grant it exits %d, want 125\n%s", r.code, r.stderr)
	}
	if _, err := t.want(ctx, append(args, "--grant", "manifest")...); err != nil {
		return "", err
	}
	// The same version from the registry is another source: it gets a grant of its own.
	args[2] = t.registry.Host + "/delivery-station/porter:0.1.0"
	out, err := t.want(ctx, append(args, "--grant", "manifest")...)
	if err != nil {
		return "", err
	}
	for _, guest := range []string{"./probe", "./demo"} {
		if _, err := t.want(ctx, "plugin", "install", guest, "--grant", "manifest"); err != nil {
			return "", err
		}
	}
	return out, nil
}

// push makes three files of different sizes and pushes them as one artifact.
func (t *tour) push(ctx context.Context) (string, error) {
	if err := os.Mkdir(filepath.Join(t.work, "app"), 0o700); err != nil {
		return "", err
	}
	for name, size := range map[string]int{"app.bin": 8 << 20, "config.json": 2000, "notes.txt": 300_000} {
		data := make([]byte, size)
		_, _ = rand.Read(data) // never fails (crypto/rand)
		if err := os.WriteFile(filepath.Join(t.work, "app", name), data, 0o600); err != nil {
			return "", err
		}
		t.files[name] = sha256.Sum256(data)
	}
	_, err := t.want(ctx, "--backend", "native", "porter", "push", "./app", t.ref)
	return t.ref, err
}

func (t *tour) pullNative(ctx context.Context) (string, error) {
	// Another cache: what push left behind must not help.
	if err := os.RemoveAll(filepath.Join(t.home, ".cache", "ds", "artifacts")); err != nil {
		return "", err
	}
	t.registry.Forget()
	cached, err := t.pull(ctx, "native")
	if err != nil {
		return "", err
	}
	blobs := t.registry.Count("GET", "/blobs/")
	if cached || blobs < len(t.files) {
		return "", fmt.Errorf("cached=%v with %d blob requests: the pull did not come from the registry", cached, blobs)
	}
	return fmt.Sprintf("%d blob requests, %d files with the right digests", blobs, len(t.files)), nil
}

func (t *tour) pullWASM(ctx context.Context) (string, error) {
	t.registry.Forget()
	cached, err := t.pull(ctx, "wasm")
	if err != nil {
		return "", err
	}
	if blobs := t.registry.Count("GET", "/blobs/"); !cached || blobs != 0 {
		return "", fmt.Errorf("cached=%v with %d blob requests: the cache was not used", cached, blobs)
	}
	return "0 blob requests, the same files", nil
}

// pull pulls the artifact with one kind, checks every file and reports whether it came from the cache.
func (t *tour) pull(ctx context.Context, backend string) (cached bool, err error) {
	out := "out-" + backend
	text, err := t.want(ctx, "--backend", backend, "porter", "pull", t.ref, "-o", "./"+out)
	if err != nil {
		return false, err
	}
	var doc struct {
		Reference, Digest string
		Cached            bool
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		return false, fmt.Errorf("porter pull printed %q: %w", text, err)
	}
	for name, want := range t.files {
		data, err := os.ReadFile(filepath.Join(t.work, out, name))
		if err != nil {
			return false, err
		}
		if sha256.Sum256(data) != want {
			return false, fmt.Errorf("%s/%s has other content than what was pushed", out, name)
		}
	}
	return doc.Cached, nil
}

func (t *tour) guests(ctx context.Context) (string, error) {
	c, err := t.want(ctx, "demo", "config")
	if err != nil {
		return "", err
	}
	native, err := t.want(ctx, "--backend", "native", "probe", "config")
	if err != nil {
		return "", err
	}
	wasm, err := t.want(ctx, "--backend", "wasm", "probe", "config")
	if err != nil {
		return "", err
	}
	if native != wasm || !strings.Contains(c, "Hello") {
		return "", fmt.Errorf("the kinds disagree: %q, %q, %q", c, native, wasm)
	}
	if _, err := t.want(ctx, "demo", "cache"); err != nil {
		return "", err
	}
	return "demo (C): " + c + "probe (Go, both kinds): " + native, nil
}

func (t *tour) event(ctx context.Context) (string, error) {
	out, err := t.want(ctx, "--backend", "native", "probe", "relay", "demo", "event")
	if err == nil && !strings.Contains(out, "demo.greeted from /plugins/demo") {
		err = fmt.Errorf("read %q", out)
	}
	return out, err
}

// denied has a plugin try what it asked for and was not given, and repeats the call after the grant that the
// error names.
func (t *tour) denied(ctx context.Context) (string, error) {
	if _, err := t.want(ctx, "plugin", "revoke", "probe", "registry.pull=args"); err != nil {
		return "", err
	}
	for _, backend := range []string{"native", "wasm"} {
		r, err := t.call(ctx, "--backend", backend, "probe", "resolve", t.ref)
		if err != nil {
			return "", err
		}
		if r.code != 5 || !strings.Contains(r.stderr, "Error DS4001: probe may not use registry.pull") {
			return "", fmt.Errorf("%s: exit %d, said %q", backend, r.code, r.stderr)
		}
		if backend == "wasm" {
			_, err = t.want(ctx, "plugin", "grant", "probe", "registry.pull=args")
			if err == nil {
				_, err = t.want(ctx, "probe", "resolve", t.ref)
			}
			return r.stderr, err
		}
	}
	return "", nil
}

func (t *tour) list(ctx context.Context) (string, error) {
	return t.want(ctx, "plugin", "list")
}
