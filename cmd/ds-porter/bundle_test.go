//go:build !wasip1

package main_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	porter "github.com/delivery-station/ds/cmd/ds-porter"
	"github.com/delivery-station/ds/hostabi"
)

// TestBundleIsALayout: what a bundle holds can be pulled from it, platforms and referrers included, and making it
// again gives the same bytes.
func TestBundleIsALayout(t *testing.T) {
	s := newStation(t)
	root := s.multi(s.ref("team/app:1.0.0"))
	referrer := imageOf(descriptor("text/plain", "signature", ""))
	referrer["subject"] = map[string]any{"mediaType": index, "digest": root, "size": s.size(s.ref("team/app:1.0.0"))}
	signature := s.publish(s.ref("team/app:sig"), nil, []any{referrer}, "{}", "signature")
	s.write("ds.lock", "version: 1\nplugins:\n  app:\n    source: x\n    index: "+string(root)+"\n")
	d := document[struct {
		Artifacts int
		Size      int64
	}](s, "bundle", "create", "-o", "a.tar", "--lock", "ds.lock", s.ref("team/app:1.0.0"))
	first, err := os.ReadFile("a.tar")
	if err != nil || d.Artifacts != 1 || d.Size != int64(len(first)) {
		t.Fatalf("%+v, %d bytes, %v", d, len(first), err)
	}
	s.run("bundle", "create", "-o", "b.tar", "--lock", "ds.lock", s.ref("team/app:1.0.0"))
	if again, err := os.ReadFile("b.tar"); err != nil || string(again) != string(first) {
		t.Errorf("%d and %d bytes, %v", len(first), len(again), err)
	}
	for _, digest := range []hostabi.Digest{root, signature} {
		if r := s.run("pull", "--all-arch", "-o", "out-"+digest.Hex()[:6], "oci-layout:./a.tar@"+string(digest)); r.exit != 0 {
			t.Errorf("%s: exit %d, %s", digest, r.exit, r.stderr)
		}
	}
	if !strings.Contains(string(first), s.ref("team/app:1.0.0")) {
		t.Error("the name is not listed")
	}
}

func TestBundleRefuses(t *testing.T) {
	s := newStation(t)
	s.app(s.ref("team/app:1"))
	s.write("other.lock", "    index: "+string(hostabi.DigestOf(nil))+"\n")
	for name, c := range map[string]struct {
		args []string
		exit int
		text string
	}{
		"no output":       {[]string{s.ref("team/app:1")}, 2, "--output"},
		"not there":       {[]string{"-o", "x.tar", s.ref("team/none:1")}, 3, "DS2002"},
		"not in the lock": {[]string{"-o", "x.tar", "--lock", "other.lock", s.ref("team/app:1")}, 2, "is not in the bundle"},
		"no lock file":    {[]string{"-o", "x.tar", "--lock", "none.lock", s.ref("team/app:1")}, 2, "no such file"},
	} {
		r := s.run(append([]string{"bundle", "create"}, c.args...)...)
		if r.exit != c.exit || !strings.Contains(r.stderr, c.text) {
			t.Errorf("%s: exit %d, %s", name, r.exit, r.stderr)
		}
		if _, err := os.Stat("x.tar"); err == nil {
			t.Errorf("%s: a file was written", name)
		}
	}
}

// size is that of the manifest that ref names.
func (s *station) size(ref string) int64 {
	s.t.Helper()
	d, err := s.client.Resolve(s.t.Context(), ref)
	if err != nil {
		s.t.Fatal(err)
	}
	return d.Size
}

// testKey is an Ed25519 key; its id is the digest of the DER within.
const testKey = `-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
`

type bundleInfo struct {
	Path      string
	Artifacts []struct {
		Reference  string
		Digest     hostabi.Digest
		Platforms  []string
		Size       int64
		Signatures int
		Referrers  []struct{ Digest hostabi.Digest }
	}
	Platforms, Locked, Problems []string
	Keys                        []struct{ ID, PEM string }
	Blobs                       int
	Verified                    bool
}

// TestBundleTells: inspect shows what was put in, verify that it is whole, also with some platforms left out.
func TestBundleTells(t *testing.T) {
	s := newStation(t)
	root := s.multi(s.ref("team/app:1.0.0"))
	referrer := imageOf(descriptor("application/vnd.dev.sigstore.bundle.v0.3+json", "signature", ""))
	referrer["artifactType"] = "application/vnd.dev.sigstore.bundle.v0.3+json"
	referrer["subject"] = map[string]any{"mediaType": index, "digest": root, "size": s.size(s.ref("team/app:1.0.0"))}
	signature := s.publish(s.ref("team/app:sig"), nil, []any{referrer}, "{}", "signature")
	s.write("ds.lock", "version: 1\nplugins:\n  app:\n    source: x\n    index: "+string(root)+"\n")
	s.write("key.pem", testKey)
	s.run("bundle", "create", "-o", "all.tar", "--lock", "ds.lock", "--key", "key.pem", s.ref("team/app:1.0.0"))
	s.run("bundle", "create", "-o", "one.tar", "--platform", "linux/amd64", s.ref("team/app:1.0.0"))

	all := document[bundleInfo](s, "bundle", "inspect", "all.tar")
	if len(all.Artifacts) != 1 || all.Verified || len(all.Platforms) != 0 || all.Path != "all.tar" {
		t.Fatalf("%+v", all)
	}
	a := all.Artifacts[0]
	if a.Reference != s.ref("team/app:1.0.0") || a.Digest != root || a.Signatures != 1 || a.Referrers[0].Digest != signature || len(a.Platforms) < 2 {
		t.Errorf("%+v", a)
	}
	if !slices.Equal(all.Locked, []string{"x@" + string(root)}) || len(all.Keys) != 1 || all.Keys[0].PEM != testKey || !strings.HasPrefix(all.Keys[0].ID, "ed25519:") {
		t.Errorf("%+v", all)
	}
	if r := s.run("bundle", "inspect", "--keys", "all.tar"); r.exit != 0 || r.stdout != testKey {
		t.Errorf("exit %d, %q", r.exit, r.stdout)
	}
	for _, name := range []string{"all.tar", "one.tar"} {
		if v := document[bundleInfo](s, "bundle", "verify", name); !v.Verified || v.Blobs == 0 || len(v.Problems) > 0 {
			t.Errorf("%s: %+v", name, v)
		}
	}
	one := document[bundleInfo](s, "bundle", "inspect", "one.tar")
	if !slices.Equal(one.Platforms, []string{"linux/amd64"}) || !slices.Equal(one.Artifacts[0].Platforms, one.Platforms) || one.Artifacts[0].Size >= a.Size {
		t.Errorf("%+v", one)
	}
	if r := s.run("pull", "--platform", "linux/amd64", "-o", "out", "oci-layout:./one.tar@"+string(root)); r.exit != 0 {
		t.Errorf("exit %d, %s", r.exit, r.stderr)
	}
	r := s.run("bundle", "load", "one.tar", "--to", s.ref("other/app"))
	if r.exit != 7 || !strings.Contains(r.stderr, "for linux/amd64 only") {
		t.Errorf("exit %d, %s", r.exit, r.stderr)
	}
	if r := s.run("bundle", "create", "-o", "none.tar", "--platform", "plan9/mips", s.ref("team/app:1.0.0")); r.exit != 3 {
		t.Errorf("exit %d, %s", r.exit, r.stderr)
	}
}

// TestBundleLoads: what is loaded has the digests, tags and referrers that it had.
func TestBundleLoads(t *testing.T) {
	s := newStation(t)
	app, tool := s.multi(s.ref("team/app:1.0.0")), s.app(s.ref("team/tool:1"))
	s.app(s.ref("team/tool:2"))
	referrer := imageOf(descriptor("text/plain", "signature", ""))
	referrer["subject"] = map[string]any{"mediaType": index, "digest": app, "size": s.size(s.ref("team/app:1.0.0"))}
	signature := s.publish(s.ref("team/app:sig"), nil, []any{referrer}, "{}", "signature")
	s.run("bundle", "create", "-o", "b.tar", s.ref("team/app:1.0.0"), s.ref("team/tool:1"), s.ref("team/tool:2"))
	s.run("bundle", "create", "-o", "app.tar", s.ref("team/app:1.0.0"))

	docs := document[[]struct {
		Reference string
		Digest    hostabi.Digest
	}](s, "bundle", "load", "b.tar", "--to", s.ref("far/app"), "--to", s.ref("far/tool"))
	if len(docs) != 3 || docs[0].Reference != s.ref("far/app:1.0.0") || docs[0].Digest != app || docs[1].Digest != tool {
		t.Errorf("%+v", docs)
	}
	for ref, want := range map[string]hostabi.Digest{"far/app:1.0.0": app, "far/tool:1": tool, "far/app@" + string(signature): signature} {
		if d, err := s.client.Resolve(t.Context(), s.ref(ref)); err != nil || d.Digest != want {
			t.Errorf("%s: %s, %v", ref, d.Digest, err)
		}
	}
	for d, err := range s.client.Referrers(t.Context(), s.ref("far/app"), app, "") {
		if err != nil || d.Digest != signature {
			t.Errorf("%s, %v", d.Digest, err)
		}
	}
	if r := s.run("bundle", "load", "app.tar", "--to", "oci-layout:./any:other"); r.exit != 0 {
		t.Errorf("exit %d, %s", r.exit, r.stderr)
	}
	if d, err := s.client.Resolve(t.Context(), "oci-layout:./any:other"); err != nil || d.Digest != app {
		t.Errorf("%s, %v", d.Digest, err)
	}
	for name, c := range map[string]struct {
		args []string
		text string
	}{
		"no target":    {[]string{"b.tar"}, "--to REF says where"},
		"other name":   {[]string{"b.tar", "--to", s.ref("far/none")}, "fits 0 of the repositories"},
		"twice":        {[]string{"b.tar", "--to", s.ref("x/app"), "--to", s.ref("y/app")}, "fits 1 of the repositories"},
		"one tag":      {[]string{"b.tar", "--to", s.ref("far/tool:9")}, "has 2 versions"},
		"no artifacts": {[]string{"empty.tar", "--to", s.ref("far/tool")}, "lists no artifacts"},
		"no file":      {[]string{"none.tar", "--to", s.ref("far/tool")}, "no such file"},
	} {
		s.write("empty.tar", string(tarOf(t, map[string]string{"oci-layout": `{"imageLayoutVersion":"1.0.0"}`, "index.json": "{}"})))
		if r := s.run(append([]string{"bundle", "load"}, c.args...)...); r.exit != 2 || !strings.Contains(r.stderr, c.text) {
			t.Errorf("%s: exit %d, %s", name, r.exit, r.stderr)
		}
	}
}

// TestBundleVerifyFinds: each thing that may be wrong with a bundle is found, and load does not push it.
func TestBundleVerifyFinds(t *testing.T) {
	s := newStation(t)
	root := s.multi(s.ref("team/app:1.0.0"))
	s.write("ds.lock", "    source: x\n    index: "+string(root)+"\n")
	s.run("bundle", "create", "-o", "good.tar", "--lock", "ds.lock", s.ref("team/app:1.0.0"))
	good := untar(t, "good.tar")
	blob := func(content string) string { return "blobs/sha256/" + hostabi.DigestOf([]byte(content)).Hex() }
	layer := ""
	for name, content := range good {
		if strings.HasPrefix(name, "blobs/") && !strings.HasPrefix(content, "{") && !strings.Contains(content, "index: ") {
			layer = name
		}
	}
	for name, c := range map[string]struct {
		change func(files map[string]string)
		text   string
	}{
		"changed":    {func(f map[string]string) { f[layer] = strings.Repeat("x", len(f[layer])) }, "has the content of"},
		"missing":    {func(f map[string]string) { delete(f, layer) }, "is missing"},
		"longer":     {func(f map[string]string) { f[layer] += "x" }, "has the content of"},
		"no root":    {func(f map[string]string) { delete(f, "blobs/sha256/"+root.Hex()) }, "holds no blob sha256:"},
		"other name": {func(f map[string]string) { f["index.json"] = strings.Replace(f["index.json"], ":1.0.0", "", 1) }, "want REPOSITORY:VERSION"},
		"no index":   {func(f map[string]string) { delete(f, "index.json") }, "holds no index.json"},
		"no JSON":    {func(f map[string]string) { f["index.json"] = "[" }, "is no JSON"},
		"no digest":  {func(f map[string]string) { f["index.json"] = `{"manifests":[{"digest":"sha256:../../x"}]}` }, "index.json lists"},
		"version":    {func(f map[string]string) { f["oci-layout"] = `{"imageLayoutVersion":"2"}` }, `version "2"`},
		"no manifest": {func(f map[string]string) {
			f[blob("[")] = "["
			f["index.json"] = strings.ReplaceAll(f["index.json"], string(root), string(hostabi.DigestOf([]byte("["))))
		}, "is no JSON"},
		"lock only": {func(f map[string]string) { f["index.json"] = withoutArtifacts(t, f["index.json"]) }, "the lock file pins x@"},
	} {
		files := make(map[string]string)
		for k, v := range good {
			files[k] = v
		}
		c.change(files)
		s.write("bad.tar", string(tarOf(t, files)))
		r := s.run("bundle", "verify", "bad.tar")
		if r.exit != 7 || !strings.Contains(r.stderr, c.text) {
			t.Errorf("%s: exit %d, %s", name, r.exit, r.stderr)
		}
		if name == "other name" || name == "lock only" {
			continue
		}
		if r := s.run("bundle", "load", "bad.tar", "--to", s.ref("bad/app")); r.exit == 0 {
			t.Errorf("%s was pushed", name)
		}
		if _, err := s.client.Resolve(t.Context(), s.ref("bad/app:1.0.0")); hostabi.ReasonOf(err) != hostabi.ReasonRefNotFound {
			t.Errorf("%s has a tag: %v", name, err)
		}
	}
	for name, text := range map[string]string{"private": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "text": "key", "empty": ""} {
		s.write("key.pem", text)
		if r := s.run("bundle", "create", "-o", "k.tar", "--key", "key.pem", s.ref("team/app:1.0.0")); r.exit != 2 {
			t.Errorf("%s: exit %d, %s", name, r.exit, r.stderr)
		}
	}
}

// withoutArtifacts keeps what has no name of an index.json.
func withoutArtifacts(t *testing.T, text string) string {
	var index struct {
		Manifests []map[string]any `json:"manifests"`
	}
	if err := json.Unmarshal([]byte(text), &index); err != nil {
		t.Fatal(err)
	}
	index.Manifests = slices.DeleteFunc(index.Manifests, func(m map[string]any) bool { return m["annotations"] != nil })
	b, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func tarOf(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func untar(t *testing.T, name string) map[string]string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := make(map[string]string)
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(b)
	}
}

// FuzzBundle: a bundle comes from anywhere. Whatever its bytes are, reading it ends with a verdict, and a file that
// lists only what it holds is never found broken for another reason than its bytes.
func FuzzBundle(f *testing.F) {
	image := `{"schemaVersion":2,"layers":[]}`
	d := hostabi.DigestOf([]byte(image))
	good := tarOf(f, map[string]string{
		"oci-layout": `{"imageLayoutVersion":"1.0.0"}`, "blobs/sha256/" + d.Hex(): image,
		"index.json": `{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + string(d) + `","size":31,"annotations":{"org.opencontainers.image.ref.name":"a.b/c:1"}}]}`,
	})
	f.Add(good)
	f.Add(good[:700])
	f.Add([]byte("\x1f\x8b"))
	name := f.TempDir() + "/b.tar"
	if err := os.WriteFile(name, good, 0o600); err != nil {
		f.Fatal(err)
	}
	if problems, err := porter.VerifyBundle(f.Context(), name); err != nil || len(problems) > 0 {
		f.Fatal(problems, err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		name := t.TempDir() + "/b.tar"
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := porter.VerifyBundle(t.Context(), name)
		if err != nil && hostabi.ReasonOf(err) == "" {
			t.Errorf("%v has no reason", err)
		}
	})
}
