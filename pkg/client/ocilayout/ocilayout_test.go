package ocilayout_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/pkg/client/ocilayout"
)

// pack writes a layout of these blobs, which it lists all.
func pack(t testing.TB, texts ...string) []byte {
	t.Helper()
	blobs, content := make(map[hostabi.Digest]int64), make(map[hostabi.Digest]string)
	var entries []ocilayout.Entry
	for _, text := range texts {
		d := hostabi.DigestOf([]byte(text))
		blobs[d], content[d] = int64(len(text)), text
		entries = append(entries, ocilayout.Entry{MediaType: "text/plain", Digest: d, Size: int64(len(text)), Annotations: map[string]string{"b": "2", "a": "1"}})
	}
	var out bytes.Buffer
	err := ocilayout.Write(t.Context(), &out, entries, blobs, func(d hostabi.Digest) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(content[d])), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestWriteThenOpen: what was written is read, from memory and from a file, and the bytes do not depend on the run.
func TestWriteThenOpen(t *testing.T) {
	texts := []string{"one", "", strings.Repeat("large ", 50_000)}
	text := pack(t, texts...)
	if !bytes.Equal(text, pack(t, texts...)) {
		t.Error("the same content gives other bytes")
	}
	name := filepath.Join(t.TempDir(), "x.tar")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, from := range []ocilayout.File{bytes.NewReader(text), f} {
		l, err := ocilayout.Open(from, "x.tar")
		if err != nil {
			t.Fatal(err)
		}
		if len(l.Digests()) != len(texts) || !slices.IsSorted(l.Digests()) || len(l.Entries()) != len(texts) {
			t.Fatalf("%v, %v", l.Digests(), l.Entries())
		}
		for i, want := range texts {
			d := hostabi.DigestOf([]byte(want))
			if e := l.Entries()[i]; e.Digest != d || e.Size != int64(len(want)) || !reflect.DeepEqual(e.Annotations, map[string]string{"a": "1", "b": "2"}) {
				t.Errorf("entry %d is %+v", i, e)
			}
			if n, ok := l.Size(d); !ok || n != int64(len(want)) {
				t.Errorf("%s has %d bytes, %t", d, n, ok)
			}
			r, err := l.Blob(d)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(r); err != nil || string(b) != want {
				t.Errorf("blob %d: %d bytes, %v", i, len(b), err)
			}
			if b, err := l.Content(d, int64(len(want))); err != nil || string(b) != want {
				t.Errorf("content %d: %d bytes, %v", i, len(b), err)
			}
		}
		big := hostabi.DigestOf([]byte(texts[2]))
		if _, err := l.Content(big, 100); hostabi.ReasonOf(err) != hostabi.ReasonBadLayout {
			t.Errorf("over the limit: %v", err)
		}
		absent := hostabi.DigestOf([]byte("absent"))
		_, err = l.Blob(absent)
		_, err2 := l.Content(absent, 1)
		if _, ok := l.Size(absent); ok || err == nil || err2 == nil {
			t.Error("a blob that is not there was found")
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	d := hostabi.DigestOf([]byte("four"))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		ctx    context.Context
		blobs  map[hostabi.Digest]int64
		open   func(hostabi.Digest) (io.ReadCloser, error)
		reason hostabi.Reason
	}{
		"short":       {t.Context(), map[hostabi.Digest]int64{d: 5}, reads("four"), hostabi.ReasonDigestMismatch},
		"long":        {t.Context(), map[hostabi.Digest]int64{d: 3}, reads("four"), hostabi.ReasonDigestMismatch},
		"no digest":   {t.Context(), map[hostabi.Digest]int64{"sha256:../x": 4}, reads("four"), hostabi.ReasonBadLayout},
		"interrupted": {ended, map[hostabi.Digest]int64{d: 4}, reads("four"), hostabi.ReasonInterrupted},
		"unreadable":  {t.Context(), map[hostabi.Digest]int64{d: 4}, func(hostabi.Digest) (io.ReadCloser, error) { return nil, broken }, ""},
	} {
		err := ocilayout.Write(c.ctx, io.Discard, nil, c.blobs, c.open)
		if err == nil || hostabi.ReasonOf(err) != c.reason {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func reads(text string) func(hostabi.Digest) (io.ReadCloser, error) {
	return func(hostabi.Digest) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
}

const hex = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae" // of foo

// whole is a layout of one blob, without the entries that a case brings itself.
func whole() []tar.Header {
	return []tar.Header{
		{Typeflag: tar.TypeReg, Name: "oci-layout", Linkname: `{"imageLayoutVersion":"1.0.0"}`},
		{Typeflag: tar.TypeReg, Name: "index.json", Linkname: `{"manifests":[]}`},
		{Typeflag: tar.TypeReg, Name: "blobs/sha256/" + hex, Linkname: "foo"},
	}
}

// tarOf writes entries; for a regular file Linkname is its content.
func tarOf(t testing.TB, entries []tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range entries {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content, h.Linkname, h.Size = h.Linkname, "", int64(len(h.Linkname))
		}
		h.Mode = 0o644
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestOpenHostile: what strangers put into a tar, and what other tools do.
func TestOpenHostile(t *testing.T) {
	file := func(name, content string) tar.Header {
		return tar.Header{Typeflag: tar.TypeReg, Name: name, Linkname: content}
	}
	for name, c := range map[string]struct {
		without string // entry of whole that is left out
		with    []tar.Header
		text    string // of the error, empty = none
	}{
		"as it should be":       {"", nil, ""},
		"of other tools":        {"", []tar.Header{file("manifest.json", "[]"), {Typeflag: tar.TypeDir, Name: "blobs/"}, {Typeflag: tar.TypeDir, Name: "./"}}, ""},
		"begins with a dot":     {"oci-layout", []tar.Header{file("./oci-layout", `{"imageLayoutVersion":"1.0.0"}`)}, ""},
		"parent":                {"", []tar.Header{file("../x", "")}, "leads elsewhere"},
		"parent below blobs":    {"", []tar.Header{file("blobs/sha256/../../../x", "")}, "leads elsewhere"},
		"absolute":              {"", []tar.Header{file("/etc/passwd", "")}, "leads elsewhere"},
		"backslashes":           {"", []tar.Header{file(`..\x`, "")}, "leads elsewhere"},
		"symbolic link":         {"", []tar.Header{{Typeflag: tar.TypeSymlink, Name: "x", Linkname: "/etc/passwd"}}, "no regular file"},
		"hard link":             {"", []tar.Header{{Typeflag: tar.TypeLink, Name: "x", Linkname: "index.json"}}, "no regular file"},
		"device":                {"", []tar.Header{{Typeflag: tar.TypeChar, Name: "x"}}, "no regular file"},
		"pipe":                  {"", []tar.Header{{Typeflag: tar.TypeFifo, Name: "x"}}, "no regular file"},
		"blob twice":            {"", []tar.Header{file("blobs/sha256/"+hex, "foo")}, "twice"},
		"index twice":           {"", []tar.Header{file("./index.json", "{}")}, "twice"},
		"other algorithm":       {"", []tar.Header{file("blobs/sha512/"+hex, "foo")}, "no sha256 digest"},
		"upper case":            {"", []tar.Header{file("blobs/sha256/"+strings.ToUpper(hex), "foo")}, "no sha256 digest"},
		"blob below a blob":     {"", []tar.Header{file("blobs/sha256/x/"+hex, "foo")}, "no sha256 digest"},
		"no version":            {"oci-layout", nil, "holds no oci-layout"},
		"other version":         {"oci-layout", []tar.Header{file("oci-layout", `{"imageLayoutVersion":"2"}`)}, `version "2"`},
		"no index":              {"index.json", nil, "holds no index.json"},
		"index is no JSON":      {"index.json", []tar.Header{file("index.json", "{")}, "no JSON"},
		"index is too big":      {"index.json", []tar.Header{file("index.json", strings.Repeat(" ", 4<<20+1))}, "at most"},
		"lists no digest":       {"index.json", []tar.Header{file("index.json", `{"manifests":[{"digest":"md5:1"}]}`)}, "index.json lists"},
		"lists a negative size": {"index.json", []tar.Header{file("index.json", `{"manifests":[{"size":-1,"digest":"sha256:`+hex+`"}]}`)}, "index.json lists"},
	} {
		entries := slices.DeleteFunc(whole(), func(h tar.Header) bool { return h.Name == c.without })
		l, err := ocilayout.Open(bytes.NewReader(tarOf(t, append(entries, c.with...))), "x.tar")
		if c.text == "" {
			if err != nil || len(l.Digests()) != 1 {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if hostabi.ReasonOf(err) != hostabi.ReasonBadLayout || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), "x.tar") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOpenDamaged: files that are no tar, are cut, or lie about sizes.
func TestOpenDamaged(t *testing.T) {
	good := tarOf(t, whole())
	at := bytes.Index(good, []byte("foo"))
	sparse := slices.Concat(good[:at-512], tarOf(t, []tar.Header{{
		Typeflag: tar.TypeReg, Name: "x", PAXRecords: map[string]string{"DS.sparse": "1"}, Format: tar.FormatPAX,
	}}))
	sparse = bytes.Replace(sparse, []byte("DS.sparse=1"), []byte("GNU.sparse."), 1)
	for name, c := range map[string]struct{ text, want string }{
		"empty":     {"", "holds no oci-layout"},
		"no tar":    {strings.Repeat("no tar ", 200), "no plain tar"},
		"gzip":      {"\x1f\x8b\x08\x00", "compressed"},
		"zstd":      {"\x28\xb5\x2f\xfd", "compressed"},
		"cut":       {string(good[:at+1]), ""},
		"in header": {string(good[:at-100]), "no plain tar"},
		"sparse":    {string(sparse), ""},
	} {
		_, err := ocilayout.Open(strings.NewReader(c.text), "x.tar")
		if hostabi.ReasonOf(err) != hostabi.ReasonBadLayout || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	lies := bytes.Replace(good, []byte("foo"), []byte("bar"), 1)
	l, err := ocilayout.Open(bytes.NewReader(lies), "x.tar")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Content("sha256:"+hex, 10); hostabi.ReasonOf(err) != hostabi.ReasonDigestMismatch {
		t.Errorf("other content: %v", err)
	}
}

// FuzzOpen: no tar makes Open panic, take memory beyond its limits, or hand out bytes from outside of the file.
func FuzzOpen(f *testing.F) {
	good := tarOf(f, whole())
	f.Add(good)
	f.Add(pack(f, "one", "two"))
	f.Add(bytes.Replace(good, []byte("ustar\x0000"), []byte("ustar  \x00"), 1))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := ocilayout.Open(bytes.NewReader(text), "x.tar")
		if err != nil {
			if hostabi.ReasonOf(err) != hostabi.ReasonBadLayout {
				t.Fatalf("%v has no reason", err)
			}
			return
		}
		if _, err := l.Graph(l.Entries()); err != nil && hostabi.ReasonOf(err) == "" {
			t.Fatalf("%v has no reason", err)
		}
		for _, d := range l.Digests() {
			r, err := l.Blob(d)
			if err != nil || !d.Valid() {
				t.Fatal(d, err)
			}
			b, err := io.ReadAll(r)
			if size, _ := l.Size(d); err != nil || int64(len(b)) != size {
				t.Fatalf("%s: %d of %d bytes, %v", d, len(b), size, err)
			}
		}
	})
}

// TestGraph: a blob has the type that the manifests above it say, each manifest is looked into once, and what is no
// manifest though it is called one does no harm.
func TestGraph(t *testing.T) {
	digest := func(text string) string { return string(hostabi.DigestOf([]byte(text))) }
	manifest := `{"artifactType":"a/t","config":{"mediaType":"a/config","digest":"` + digest("config") + `"},"layers":[{"mediaType":"a/layer","digest":"` + digest("layer") +
		`"},{"mediaType":"a/absent","digest":"` + digest("absent") + `"}]}`
	index := `{"manifests":[{"mediaType":"` + ocilayout.MediaManifest + `","digest":"` + digest(manifest) + `"},{"mediaType":"` + ocilayout.MediaManifest + `","digest":"` + digest("no JSON") + `"}]}`
	texts := []string{"config", "layer", manifest, index, "no JSON", "loose"}
	var out bytes.Buffer
	blobs, content := make(map[hostabi.Digest]int64), make(map[hostabi.Digest]string)
	for _, text := range texts {
		blobs[hostabi.DigestOf([]byte(text))], content[hostabi.DigestOf([]byte(text))] = int64(len(text)), text
	}
	root := ocilayout.Entry{MediaType: ocilayout.MediaIndex, Digest: hostabi.DigestOf([]byte(index)), Size: int64(len(index))}
	err := ocilayout.Write(t.Context(), &out, []ocilayout.Entry{root, root}, blobs, func(d hostabi.Digest) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(content[d])), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := ocilayout.Open(bytes.NewReader(out.Bytes()), "x.tar")
	if err != nil {
		t.Fatal(err)
	}
	got, err := l.Graph(l.Entries())
	want := map[hostabi.Digest]string{
		hostabi.DigestOf([]byte("config")): "a/config", hostabi.DigestOf([]byte("layer")): "a/layer", hostabi.DigestOf([]byte("no JSON")): ocilayout.MediaManifest,
		hostabi.DigestOf([]byte(manifest)): ocilayout.MediaManifest, root.Digest: ocilayout.MediaIndex,
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n%v\nwant\n%v", err, got, want)
	}
	leaf := []ocilayout.Entry{{MediaType: "a/leaf", Digest: hostabi.DigestOf([]byte("layer"))}, {Digest: hostabi.DigestOf([]byte("absent"))}}
	if below, err := l.Graph(leaf); err != nil || len(below) != 1 || below[leaf[0].Digest] != "a/leaf" {
		t.Errorf("below a leaf: %v, %v", below, err)
	}
	if m, err := ocilayout.ParseManifest([]byte(manifest)); err != nil || m.ArtifactType != "a/t" || len(m.Children()) != 3 {
		t.Errorf("%+v, %v", m, err)
	}
	for _, text := range texts {
		if err := l.Check(t.Context(), hostabi.DigestOf([]byte(text))); err != nil {
			t.Error(err)
		}
	}
	lies, err := ocilayout.Open(bytes.NewReader(bytes.Replace(out.Bytes(), []byte("a/layer"), []byte("a/liar!"), 1)), "x.tar")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lies.Graph(lies.Entries()); hostabi.ReasonOf(err) != hostabi.ReasonDigestMismatch {
		t.Error(err)
	}
	if err := lies.Check(t.Context(), hostabi.DigestOf([]byte(manifest))); hostabi.ReasonOf(err) != hostabi.ReasonDigestMismatch {
		t.Error(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Check(ended, root.Digest); hostabi.ReasonOf(err) != hostabi.ReasonInterrupted {
		t.Error(err)
	}
}

// TestWriteFile: what cannot be finished leaves an empty file.
func TestWriteFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "x.tar")
	d := hostabi.DigestOf([]byte("four"))
	size, err := ocilayout.WriteFile(t.Context(), name, nil, map[hostabi.Digest]int64{d: 4}, reads("four"))
	if fi, serr := os.Stat(name); err != nil || serr != nil || fi.Size() != size || size == 0 {
		t.Errorf("%d bytes, %v %v", size, err, serr)
	}
	_, err = ocilayout.WriteFile(t.Context(), name, nil, map[hostabi.Digest]int64{d: 5}, reads("four"))
	if fi, serr := os.Stat(name); err == nil || serr != nil || fi.Size() != 0 {
		t.Errorf("%v %v", err, serr)
	}
}
