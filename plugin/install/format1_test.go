package install_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/install"
	"github.com/delivery-station/ds/plugin/store"
)

const oldProgram = "#!/bin/sh\necho old\n"

func (w *world) pushLegacy(p dstest.LegacyPackage) string {
	w.t.Helper()
	if !strings.Contains(p.Repository, "/") {
		p.Repository = "acme/" + p.Repository
	}
	p.Repository = w.reg.Host + "/" + p.Repository
	if p.Tag == "" {
		p.Tag = "1.0.0"
	}
	if p.Program == nil {
		p.Program = []byte(oldProgram)
	}
	if err := dstest.PushLegacy(p); err != nil {
		w.t.Fatal(err)
	}
	return p.Repository + ":" + p.Tag
}

// TestFormat1 installs every form in which plugins of the original DS were published.
func TestFormat1(t *testing.T) {
	for name, c := range map[string]struct {
		push          dstest.LegacyPackage
		name, version string
	}{
		"index, raw":              {dstest.LegacyPackage{Repository: "old"}, "old", "1.0.0"},
		"index by annotations":    {dstest.LegacyPackage{Repository: "old", ByAnnotation: true}, "old", "1.0.0"},
		"index, archive":          {dstest.LegacyPackage{Repository: "old", Archive: true}, "old", "1.0.0"},
		"index, artifact archive": {dstest.LegacyPackage{Repository: "ds-old", Archive: true, Artifact: true}, "old", "1.0.0"},
		"single, raw":             {dstest.LegacyPackage{Repository: "old", Single: true}, "old", "1.0.0"},
		"single, artifact":        {dstest.LegacyPackage{Repository: "old", Single: true, Artifact: true}, "old", "1.0.0"},
		"single, archive":         {dstest.LegacyPackage{Repository: "old", Single: true, Archive: true, Inside: "./old"}, "old", "1.0.0"},
		"annotations name it":     {dstest.LegacyPackage{Repository: "old", Annotations: map[string]string{"name": "porter", "version": "2.0.0", "description": "says"}}, "porter", "2.0.0"},
		"of the manifest":         {dstest.LegacyPackage{Repository: "old", Single: true, Annotations: map[string]string{"name": "porter", "version": "2.0.0"}}, "porter", "2.0.0"},
		"a tag with v":            {dstest.LegacyPackage{Repository: "ds-old", Tag: "v3.1.0"}, "old", "3.1.0"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			r, err := w.install(install.Request{Ref: w.pushLegacy(c.push), AllowUnsigned: true})
			if err != nil {
				t.Fatal(err)
			}
			p := r.Plugin
			if string(p.Name) != c.name || p.Version != c.version || !p.Legacy() || p.Level != store.LevelUnsigned || w.granted != 1 {
				t.Errorf("installed %+v", p)
			}
			pr, err := w.store.Open(t.Context(), p, plugin.Native)
			if err != nil {
				t.Fatal(err)
			}
			defer pr.File.Close()
			b := make([]byte, 100)
			n, _ := pr.File.ReadAt(b, 0)
			if string(b[:n]) != oldProgram || pr.Mode != plugin.Protocol1 {
				t.Errorf("mode %s, holds %q", pr.Mode, b[:n])
			}
			if _, err := os.Stat(filepath.Join(pr.Dir, "README.md")); !os.IsNotExist(err) {
				t.Errorf("more of the archive is installed: %v", err)
			}
			again, err := w.install(install.Request{Ref: r.Plugin.Requested, AllowUnsigned: true})
			if err != nil || !again.Already {
				t.Errorf("again: %+v, %v", again, err)
			}
		})
	}
}

func TestFormat1Refused(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		push dstest.LegacyPackage
		req  install.Request
		want hostabi.Reason
		text string
	}{
		"unsigned":         {dstest.LegacyPackage{Repository: "a"}, install.Request{}, hostabi.ReasonUnsigned, "is not signed"},
		"another type":     {dstest.LegacyPackage{Repository: "b", MediaType: "application/vnd.delivery-station.plugin.v1+zip", Annotations: map[string]string{"name": "b"}}, install.Request{AllowUnsigned: true}, hostabi.ReasonPackageInvalid, "is none of the original DS"},
		"single, another":  {dstest.LegacyPackage{Repository: "c", Single: true, MediaType: "application/vnd.delivery-station.x"}, install.Request{AllowUnsigned: true}, hostabi.ReasonPackageInvalid, "is none of the original DS"},
		"no plugin":        {dstest.LegacyPackage{Repository: "d", Single: true, MediaType: "application/x"}, install.Request{AllowUnsigned: true}, hostabi.ReasonNotAPlugin, "is no plugin package"},
		"bad name":         {dstest.LegacyPackage{Repository: "e", Annotations: map[string]string{"name": "../x"}}, install.Request{AllowUnsigned: true}, hostabi.ReasonPackageInvalid, "name"},
		"built-in name":    {dstest.LegacyPackage{Repository: "f", Annotations: map[string]string{"name": "config"}}, install.Request{AllowUnsigned: true}, hostabi.ReasonNameTaken, "belongs to ds"},
		"wasm":             {dstest.LegacyPackage{Repository: "g"}, install.Request{AllowUnsigned: true, Kind: plugin.WASM}, hostabi.ReasonPlatformUnsupported, "has no WASM program"},
		"not in archive":   {dstest.LegacyPackage{Repository: "h", Archive: true, Inside: "other"}, install.Request{AllowUnsigned: true}, hostabi.ReasonPackageInvalid, "has no file h"},
		"hostile archive":  {dstest.LegacyPackage{Repository: "i", Archive: true, Inside: "../i"}, install.Request{AllowUnsigned: true}, hostabi.ReasonPackageInvalid, "element"},
		"not an archive":   {dstest.LegacyPackage{Repository: "j", MediaType: "application/vnd.delivery-station.plugin.v1+archive.tar+gzip"}, install.Request{AllowUnsigned: true}, hostabi.ReasonPackageInvalid, "gzip"},
		"refused to grant": {dstest.LegacyPackage{Repository: "k"}, install.Request{AllowUnsigned: true}, hostabi.ReasonGrantMissing, "no"},
	} {
		t.Run(name, func(t *testing.T) {
			w.refuse = nil
			if c.want == hostabi.ReasonGrantMissing {
				w.refuse = hostabi.Errorf(hostabi.ReasonGrantMissing, "no")
			}
			c.req.Ref = w.pushLegacy(c.push)
			_, err := w.install(c.req)
			if hostabi.ReasonOf(err) != c.want || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %q %v, want %s with %q", hostabi.ReasonOf(err), err, c.want, c.text)
			}
			for p := range w.store.All(t.Context()) {
				t.Errorf("installed %s", p.Name)
			}
			if left, _ := os.ReadDir(filepath.Join(w.store.Dir(), ".staging")); len(left) != 0 {
				t.Errorf("left in staging: %v", left)
			}
		})
	}
}

// layers remembers the evidence that it is asked to judge.
type layers struct{ seen *install.Layer }

func (l *layers) Verify(_ context.Context, e install.Evidence) (install.Verdict, error) {
	l.seen = e.Layer
	return install.Verdict{Level: "legacy-signed", Signer: "rsa:1"}, nil
}

// TestFormat1Signature: the verifier gets the signature of the program's layer, never the one of a package of this
// ds, which is there to stop the original.
func TestFormat1Signature(t *testing.T) {
	w := newWorld(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	l := &layers{}
	w.verifier = l
	for name, p := range map[string]dstest.LegacyPackage{"single": {Repository: "one", Single: true, Key: key}, "index": {Repository: "two", Archive: true, Key: key, NoKeyID: true}} {
		r, err := w.install(install.Request{Ref: w.pushLegacy(p)})
		if err != nil || r.Plugin.Level != "legacy-signed" || r.Plugin.Signer != "rsa:1" {
			t.Fatalf("%s: %+v, %v", name, r.Plugin, err)
		}
		if l.seen == nil || l.seen.Signature == "" || !l.seen.Digest.Valid() || (l.seen.KeyID == "") != p.NoKeyID {
			t.Errorf("%s: evidence %+v", name, l.seen)
		}
	}
	w.publish(source(t, "1.0.0", nil), w.reg.Host+"/acme/hello")
	if _, err := w.install(install.Request{Ref: w.reg.Host + "/acme/hello:1.0.0", Kind: plugin.Native}); err != nil || l.seen != nil {
		t.Errorf("a package of this ds: %+v, %v", l.seen, err)
	}
}
