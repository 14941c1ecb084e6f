package install_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/internal/trust"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/install"
	"github.com/delivery-station/ds/plugin/publish"
	"github.com/delivery-station/ds/plugin/store"
	"github.com/delivery-station/ds/registry"
)

// judge is internal/trust as cmd/ds uses it, with a policy of the test.
type judge struct {
	pins   *trust.Pins
	policy *trust.Policy
}

func (j judge) Verify(_ context.Context, e install.Evidence) (install.Verdict, error) {
	pin, err := j.pins.Get(e.Repository)
	if err != nil {
		return install.Verdict{}, err
	}
	in := trust.Input{
		Ref: e.Ref, Repository: e.Repository, Index: e.Index, Name: e.Name, Version: e.Version, Bundles: e.Bundles, Policy: j.policy, Pin: pin, Now: time.Now(),
		TrustKey: trust.KeyID(e.TrustKey), AllowUnsigned: e.Accepted, AllowDowngrade: e.Downgrade || e.Active, Force: e.Force || e.Active,
	}
	v, err := trust.Evaluate(in)
	signer := "none"
	if v.Key != "" {
		signer = string(v.Key)
	}
	return install.Verdict{
		Level: v.Level, Signer: signer, Rule: v.Rule, Bundle: v.Bundle, New: v.Ask, Accepted: v.AllowUnsigned, RotatedFrom: string(v.RotatedFrom),
		Record: func(ctx context.Context) error { return j.pins.Record(ctx, in, v) },
	}, err
}

func (w *world) installSigned(j judge, req install.Request) (install.Result, error) {
	w.t.Helper()
	w.verifier = j
	return w.install(req)
}

func newSigner(t *testing.T) *trust.PrivateKey {
	t.Helper()
	k, err := trust.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sign attaches a signature of k to a package of source.
func (w *world) sign(k *trust.PrivateKey, repo string, root hostabi.Descriptor, version string) {
	w.t.Helper()
	b, err := trust.SignRelease(k, root.Digest, trust.Release{Name: "hello", Version: version, Repository: repo, CreatedAt: time.Now(), ABI: hostabi.ABI})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.client.Attach(w.t.Context(), repo, root, registry.Referrer{ArtifactType: plugin.BundleType, MediaType: plugin.BundleType, Blob: b}); err != nil {
		w.t.Fatal(err)
	}
}

// pack makes the package of a directory.
func (w *world) pack(dir string) (*publish.Package, *plugin.Manifest) {
	w.t.Helper()
	m, err := store.ReadDir(atomicfile.OS(), dir)
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := publish.Build(w.t.Context(), dir, m, time.Unix(0, 0))
	if err != nil {
		w.t.Fatal(err)
	}
	return p, m
}

// pushIndex names an index whose children are there.
func (w *world) pushIndex(ref string, doc plugin.OCIDocument) hostabi.Descriptor {
	w.t.Helper()
	text, err := json.Marshal(doc)
	if err != nil {
		w.t.Fatal(err)
	}
	root := hostabi.Descriptor{MediaType: plugin.OCIIndex, Digest: hostabi.DigestOf(text), Size: int64(len(text)), ArtifactType: doc.ArtifactType}
	repo, _ := strings.CutSuffix(ref, ":1.0.0")
	at, err := w.client.Repository(repo)
	if err != nil {
		w.t.Fatal(err)
	}
	open := func(ctx context.Context, d hostabi.Digest) (io.ReadSeekCloser, error) {
		b := text
		if d != root.Digest { // a child; its blobs are at the target
			i := slices.IndexFunc(doc.Manifests, func(c plugin.OCIDescriptor) bool { return c.Digest == string(d) })
			child, err := at.Manifest(ctx, hostabi.Descriptor{MediaType: plugin.OCIManifest, Digest: d, Size: doc.Manifests[i].Size})
			if err != nil {
				return nil, err
			}
			b = child
		}
		return struct {
			io.ReadSeeker
			io.Closer
		}{bytes.NewReader(b), io.NopCloser(nil)}, nil
	}
	if err := w.client.Push(w.t.Context(), ref, root, open, nil); err != nil {
		w.t.Fatal(err)
	}
	return root
}

func (w *world) nothingInstalled(what string) {
	w.t.Helper()
	for p := range w.store.All(w.t.Context()) {
		w.t.Errorf("%s: installed %s", what, p.Name)
	}
	for _, dir := range []string{".staging", "active"} {
		if left, _ := os.ReadDir(filepath.Join(w.store.Dir(), dir)); len(left) != 0 {
			w.t.Errorf("%s: left in %s: %v", what, dir, left)
		}
	}
}

func TestSignedInstallKeepsItsEvidence(t *testing.T) {
	w := newWorld(t)
	k := newSigner(t)
	repo := w.reg.Host + "/acme/hello"
	root := w.publish(source(t, "1.0.0", nil), repo)
	w.sign(k, repo, root, "1.0.0")
	j := judge{pins: trust.OpenPins(filepath.Join(t.TempDir(), "pins.json"))}
	if _, err := w.installSigned(j, install.Request{Ref: repo + ":1.0.0", TrustKey: string(newSigner(t).ID())}); hostabi.ReasonOf(err) != hostabi.ReasonSignerUntrusted {
		t.Errorf("another key named: %v", err)
	}
	w.nothingInstalled("another key named")
	r, err := w.installSigned(j, install.Request{Ref: repo + ":1.0.0", TrustKey: string(k.ID())})
	if err != nil {
		t.Fatal(err)
	}
	if p := r.Plugin; p.Level != trust.LevelPinned || p.Signer != string(k.ID()) {
		t.Errorf("level %s, signer %s", p.Level, p.Signer)
	}
	receipt, err := w.store.Receipt("hello")
	if err != nil || receipt.Trust.Key != string(k.ID()) || receipt.Trust.Rule != "default" || receipt.Trust.Bundle == "" || receipt.Trust.AllowUnsigned {
		t.Errorf("receipt %+v, %v", receipt.Trust, err)
	}
	index, bundles, err := w.store.Evidence(receipt)
	if err != nil || hostabi.DigestOf(index) != root.Digest || len(bundles) != 1 || string(hostabi.DigestOf(bundles[0])) != receipt.Trust.Bundle {
		t.Errorf("evidence: %d bundles, %v", len(bundles), err)
	}
	if changed := w.store.Changed(receipt); len(changed) != 0 {
		t.Errorf("changed: %v", changed)
	}
	dir := r.Plugin.Programs[0].Dir
	if err := os.WriteFile(filepath.Join(dir, "extra"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if changed := w.store.Changed(receipt); len(changed) != 1 || !strings.HasSuffix(changed[0], "/extra") {
		t.Errorf("changed: %v", changed)
	}
	// The same again asks for no blob: bundles are in the cache.
	w.reg.Forget()
	if r, err := w.installSigned(j, install.Request{Ref: repo + ":1.0.0"}); err != nil || !r.Already || w.reg.Count("GET", "/blobs/") != 0 {
		t.Errorf("again: %+v, %v, %d blobs", r, err, w.reg.Count("GET", "/blobs/"))
	}
}

// TestUnsignedHoldsForOneDigest: what the user accepted needs no flag again, and nothing else is accepted by it.
func TestUnsignedHoldsForOneDigest(t *testing.T) {
	w := newWorld(t)
	repo := w.reg.Host + "/acme/hello"
	w.publish(source(t, "1.0.0", nil), repo)
	j := judge{pins: trust.OpenPins(filepath.Join(t.TempDir(), "pins.json"))}
	if _, err := w.installSigned(j, install.Request{Ref: repo + ":1.0.0", AllowUnsigned: true}); err != nil {
		t.Fatal(err)
	}
	if r, err := w.installSigned(j, install.Request{Ref: repo + ":1.0.0"}); err != nil || !r.Already {
		t.Errorf("again: %+v, %v", r, err)
	}
	w.publish(source(t, "1.1.0", nil), repo)
	if _, err := w.installSigned(j, install.Request{Ref: repo + ":1.1.0"}); hostabi.ReasonOf(err) != hostabi.ReasonUnsigned {
		t.Errorf("another digest: %v", err)
	}
}

// TestOneChangedByte changes one byte of each file of a signed layout: index, children, layers, plugin manifest,
// bundle. Each is refused and nothing is written.
func TestOneChangedByte(t *testing.T) {
	w := newWorld(t)
	k := newSigner(t)
	dir := filepath.Join(t.TempDir(), "layout")
	repo := "oci-layout:" + dir
	root := w.publish(source(t, "1.0.0", nil), repo)
	w.sign(k, repo, root, "1.0.0")
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*"))
	if err != nil || len(blobs) < 10 {
		t.Fatalf("%d blobs, %v", len(blobs), err)
	}
	tampered := 0
	for _, name := range blobs {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if string(text) == "{}" || strings.Contains(string(text), "layerDigests") {
			continue // configs say nothing and are not read
		}
		changed := slices.Clone(text)
		changed[len(changed)/2] ^= 1
		write(t, name, changed)
		fresh := newWorld(t) // with an empty cache
		_, err = fresh.installSigned(judge{pins: trust.OpenPins(filepath.Join(t.TempDir(), "pins.json"))},
			install.Request{Ref: repo + ":1.0.0", TrustKey: string(k.ID()), Both: true, AllowUnsigned: true})
		if hostabi.ReasonOf(err) != hostabi.ReasonDigestMismatch {
			t.Errorf("%.80q: %v", text, err)
		}
		fresh.nothingInstalled(filepath.Base(name))
		write(t, name, text)
		tampered++
	}
	if tampered < 8 {
		t.Errorf("only %d files were tried", tampered)
	}
	if _, err := w.installSigned(judge{pins: trust.OpenPins(filepath.Join(t.TempDir(), "pins.json"))},
		install.Request{Ref: repo + ":1.0.0", TrustKey: string(k.ID()), Both: true}); err != nil {
		t.Errorf("unchanged: %v", err)
	}
}

func write(t *testing.T, name string, text []byte) {
	t.Helper()
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestStrippedAnnotations makes another index of a signed one, as a registry could serve it.
func TestStrippedAnnotations(t *testing.T) {
	w := newWorld(t)
	k := newSigner(t)
	repo := w.reg.Host + "/acme/hello"
	root := w.publish(source(t, "1.0.0", nil), repo)
	w.sign(k, repo, root, "1.0.0")
	j := judge{pins: trust.OpenPins(filepath.Join(t.TempDir(), "pins.json"))}
	at, err := w.client.Repository(repo)
	if err != nil {
		t.Fatal(err)
	}
	text, err := at.Manifest(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	var doc plugin.OCIDocument
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	doc.Annotations = nil
	stripped := w.pushIndex(repo+":1.0.0", doc)
	req := install.Request{Ref: repo + ":1.0.0", TrustKey: string(k.ID()), Force: true}
	if _, err := w.installSigned(j, req); hostabi.ReasonOf(err) != hostabi.ReasonUnsigned {
		t.Errorf("stripped: %v", err)
	}
	// The bundle of the signed index does not fit the other one.
	w.sign(k, repo, stripped, "1.0.0")
	if _, err := w.installSigned(j, req); hostabi.ReasonOf(err) != hostabi.ReasonSignature {
		t.Errorf("signed for a name that the index does not have: %v", err)
	}
	w.nothingInstalled("stripped")
}

// TestReaderNeverSeesATagWithoutSignature polls the tag while versions are published: whatever it points to is
// signed already.
func TestReaderNeverSeesATagWithoutSignature(t *testing.T) {
	w := newWorld(t)
	k := newSigner(t)
	repo := w.reg.Host + "/acme/hello"
	var done atomic.Bool
	seen := make(chan int)
	go func() {
		n := 0
		last := hostabi.Digest("")
		for !done.Load() {
			d, err := w.client.ResolveFresh(t.Context(), repo+":latest")
			if err != nil || d.Digest == last {
				continue // not there yet
			}
			signed := false
			for _, err := range w.client.Referrers(t.Context(), repo, d.Digest, plugin.BundleType) {
				signed = err == nil
			}
			if !signed {
				t.Errorf("%s has a tag and no signature", d.Digest)
			}
			last = d.Digest
			n++
		}
		seen <- n
	}()
	for _, version := range []string{"1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0"} {
		dir := source(t, version, nil)
		p, m := w.pack(dir)
		ref := repo + "@" + string(p.Root.Digest)
		err := publish.Release{
			Send: func(ctx context.Context) error { return w.client.Push(ctx, ref, p.Root, p.Open, nil) },
			Attach: func(context.Context, publish.Attachment) error {
				w.sign(k, repo, p.Root, m.Version)
				return nil
			},
			Tag: func(ctx context.Context, tag string) error { return w.client.Tag(ctx, ref, tag) },
		}.Publish(t.Context(), []publish.Attachment{{}}, []string{version, "latest"})
		if err != nil {
			t.Error(err)
		}
		_ = p.Close()
	}
	done.Store(true)
	if n := <-seen; n == 0 {
		t.Log("the reader saw no tag in time") // a slow machine; the order is what counts
	}
}
