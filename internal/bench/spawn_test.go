//go:build unix

package main_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/runtime/native"
	"github.com/delivery-station/ds/sandbox"
)

// BenchmarkSpawn is rows S15 to S17: from spawn to exit inside one warm host, beside os/exec of a program that
// prints the same. DS_BENCH_GUESTS is the directory of the fixture's plugins; dsbench sets it.
func BenchmarkSpawn(b *testing.B) {
	guests := os.Getenv("DS_BENCH_GUESTS")
	if guests == "" {
		b.Skip("run by dsbench: DS_BENCH_GUESTS is not set")
	}
	raw, sdk := filepath.Join(guests, "raw", "native"), filepath.Join(guests, "guest", "native")
	b.Run("exec", func(b *testing.B) {
		out := stdout(b)
		for b.Loop() {
			cmd := exec.Command(raw)
			var errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = out, &errs
			if err := cmd.Run(); err != nil || errs.Len() > 0 {
				b.Fatal(err, errs.String())
			}
		}
	})
	b.Run("unconfined", func(b *testing.B) { newWarm(b, "raw", raw, "off").loop(b) })
	b.Run("confined", func(b *testing.B) { newWarm(b, "raw", raw, "").loop(b) })
	b.Run("call", func(b *testing.B) { newWarm(b, "guest", sdk, "").loop(b, "hello") })
}

// stdout is where the programs print: the same file for every side.
func stdout(b *testing.B) *os.File {
	b.Helper()
	f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close() })
	return f
}

// warm is a host in which one plugin has run.
type warm struct {
	host    *host.Registrar
	backend *native.Backend
	p       *plugin.Installed
	env     []string
	dir     string
}

func newWarm(b *testing.B, name, path, confine string) *warm {
	b.Helper()
	file, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = file.Close() })
	dir := b.TempDir()
	w := &warm{
		host: host.New(host.Options{}), dir: dir, env: []string{"HOME=" + dir, "PATH=/usr/bin:/bin"},
		backend: native.New(native.Options{Confine: confine, RunDir: func() (string, error) { return dir, nil }}),
		p: &plugin.Installed{
			Name: plugin.Name(name), Version: "0.1.0", Repository: "dir:" + filepath.Dir(path), Signer: "none",
			Manifest: &plugin.Manifest{
				APIVersion: plugin.APIVersion, Name: plugin.Name(name), Version: "0.1.0", ABI: hostabi.ABI,
				Capabilities: []plugin.Request{{Cap: hostabi.ConfigRead, Scope: []string{"own"}, Reason: "the value to read"}},
			},
			Program: &plugin.Program{Kind: plugin.Native, Mode: plugin.Direct, Path: path, File: file},
		},
	}
	hostv1.RegisterMetaServer(w.host, host.NewMeta())
	hostv1.RegisterConfigServer(w.host, host.NewConfig(value(strings.Repeat("x", 64))))
	return w
}

func (w *warm) loop(b *testing.B, words ...string) {
	out := stdout(b)
	var errs bytes.Buffer
	if err := w.run(b.Context(), out, &errs, words); err != nil {
		b.Fatal(err, errs.String())
	}
	for b.Loop() {
		if err := w.run(b.Context(), out, &errs, words); err != nil {
			b.Fatal(err, errs.String())
		}
	}
}

// run is one run with a box and a session of its own, like every run of the manager.
func (w *warm) run(ctx context.Context, out *os.File, errs *bytes.Buffer, words []string) (err error) {
	inv := &plugin.Invocation{
		ID: strings.Repeat("1", 32), Kind: plugin.KindRun, Args: words, Env: w.env, Dir: w.dir, Stdout: out, Stderr: errs,
	}
	box, err := sandbox.NewBox(sandbox.BoxOptions{
		Plugin: w.p, Invocation: inv, Home: w.dir, Granted: map[hostabi.Capability]sandbox.Scopes{hostabi.ConfigRead: {Scope: []string{"own"}}},
	})
	if err != nil {
		return err
	}
	s, err := w.host.Open(w.p, box, inv)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return w.backend.Run(ctx, w.p, box, inv, s)
}

// value is a configuration in which every key has the same value.
type value string

func (v value) Get(_ context.Context, _ hostabi.PluginName, key string) (hostabi.ConfigValue, error) {
	return hostabi.ConfigValue{Key: key, JSON: `"` + string(v) + `"`}, nil
}

func (v value) List(context.Context, hostabi.PluginName, string) ([]hostabi.ConfigValue, error) {
	return nil, nil
}
