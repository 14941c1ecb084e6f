package publish_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/publish"
	"github.com/delivery-station/ds/plugin/store"
)

// source writes a plugin directory with two platforms, a module and assets.
func source(t *testing.T) (string, *plugin.Manifest) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"plugin.yaml": "apiVersion: ds.plugin/v2\nname: hello\nversion: 1.0.0+b1\nabi: ds.host/v1\nassets: app\nlicense: MIT\ndescription: Greets\n" +
			"run:\n  wasm: {artifact: hello.wasm}\n  native: {linux/amd64: ds-hello, darwin/arm64: ds-hello-mac}\n",
		"hello.wasm": "module", "ds-hello": "\x7fELF program", "ds-hello-mac": "another program", "app/main.py": "print()\n", "app/lib/x.py": "x = 1\n",
	} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m, err := store.ReadDir(atomicfile.OS(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir, m
}

func tarOf(t *testing.T, o publish.Options) []byte {
	t.Helper()
	dir, m := source(t)
	p, err := o.Build(t.Context(), dir, m)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	var b bytes.Buffer
	if err := p.WriteTar(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestTwoPackagingsAreIdentical(t *testing.T) {
	at := publish.Options{Created: time.Unix(1_700_000_000, 0)}
	if !bytes.Equal(tarOf(t, at), tarOf(t, at)) {
		t.Error("two tars of the same source differ")
	}
	if bytes.Equal(tarOf(t, at), tarOf(t, publish.Options{})) {
		t.Error("the time does not count")
	}
}

// original finds what the original DS would install: the first child of the platform, layer 0. ok is false where it
// stops, because the layer has a signature that is not base64.
func original(t *testing.T, p *publish.Package, os, arch string) (program []byte, ok bool) {
	t.Helper()
	read := func(d string) []byte {
		r, err := p.Open(t.Context(), hostabi.Digest(d))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var index, child plugin.OCIDocument
	if err := json.Unmarshal(read(string(p.Root.Digest)), &index); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(index.Manifests, func(d plugin.OCIDescriptor) bool {
		return d.Platform != nil && d.Platform.OS == os && d.Platform.Architecture == arch
	})
	if err := json.Unmarshal(read(index.Manifests[i].Digest), &child); err != nil {
		t.Fatal(err)
	}
	layer := child.Layers[0]
	if sig, signed := layer.Annotations[plugin.LegacySignature]; signed {
		if _, err := base64.StdEncoding.DecodeString(sig); err != nil {
			return nil, false
		}
	}
	return read(layer.Digest), true
}

func TestOriginalInstallsTheLegacyChildOnly(t *testing.T) {
	dir, m := source(t)
	for _, legacy := range []bool{false, true} {
		p, err := publish.Options{Legacy: legacy}.Build(t.Context(), dir, m)
		if err != nil {
			t.Fatal(err)
		}
		program, ok := original(t, p, "linux", "amd64")
		if ok != legacy || legacy && string(program) != "\x7fELF program" {
			t.Errorf("legacy %v: %q, %v", legacy, program, ok)
		}
		_ = p.Close()
	}
}

func TestReleaseOrder(t *testing.T) {
	broken := errors.New("broken")
	all := []string{"send", "attach a", "attach b", "check", "tag 1.0.0", "tag latest"}
	for fail := -1; fail < len(all); fail++ {
		var done []string
		step := func(name string) error {
			if fail >= 0 && name == all[fail] {
				return broken
			}
			done = append(done, name)
			return nil
		}
		r := publish.Release{
			Send:   func(context.Context) error { return step("send") },
			Attach: func(_ context.Context, a publish.Attachment) error { return step("attach " + a.Type) },
			Check:  func(context.Context) error { return step("check") },
			Tag:    func(_ context.Context, tag string) error { return step("tag " + tag) },
		}
		err := r.Publish(t.Context(), []publish.Attachment{{Type: "a"}, {Type: "b"}}, []string{"1.0.0", "latest"})
		want := all
		if fail >= 0 {
			want = all[:fail]
		}
		if !slices.Equal(done, want) || (fail >= 0) != errors.Is(err, broken) {
			t.Errorf("failing at %d: %v, %v", fail, done, err)
		}
	}
}

func TestBuildRefusesWhatIsNotThere(t *testing.T) {
	dir, m := source(t)
	if err := os.Remove(filepath.Join(dir, "ds-hello")); err != nil {
		t.Fatal(err)
	}
	for _, o := range []publish.Options{{}, {Legacy: true}} {
		if _, err := o.Build(t.Context(), dir, m); hostabi.ReasonOf(err) != hostabi.ReasonManifest {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := publish.Build(t.Context(), filepath.Join(dir, "gone"), m, time.Time{}); hostabi.ReasonOf(err) != hostabi.ReasonNotAPlugin {
		t.Errorf("no directory: %v", err)
	}
}
