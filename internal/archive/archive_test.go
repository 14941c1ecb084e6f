package archive_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/delivery-station/ds/internal/archive"
)

type member struct {
	name string
	kind byte // 0 = file
	mode int64
	body string
	link string
	pax  map[string]string
}

func tarOf(t testing.TB, ms ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range ms {
		if m.kind == 0 {
			m.kind = tar.TypeReg
		}
		if m.mode == 0 {
			m.mode = 0o644
		}
		h := &tar.Header{Name: m.name, Typeflag: m.kind, Mode: m.mode, Size: int64(len(m.body)), Linkname: m.link, PAXRecords: m.pax}
		must(t, w.WriteHeader(h))
		_, err := io.WriteString(w, m.body)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

func unpack(t testing.TB, ctx context.Context, r io.Reader, l archive.Limits) (map[string]string, error) {
	t.Helper()
	dir := t.TempDir()
	in := filepath.Join(dir, "in")
	must(t, os.Mkdir(in, 0o700))
	root, err := os.OpenRoot(in)
	must(t, err)
	defer func() { _ = root.Close() }()
	uerr := archive.UnpackTar(ctx, r, root, l)
	got := make(map[string]string)
	must(t, filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(in, p)
		switch {
		case err != nil:
			return err
		case p == dir || p == in:
		case strings.HasPrefix(rel, ".."):
			t.Fatalf("%s was written outside", rel)
		case e.IsDir():
			got[filepath.ToSlash(rel)] = "dir"
		case !e.Type().IsRegular():
			t.Fatalf("%s is %v", rel, e.Type())
		default:
			b, err := os.ReadFile(p)
			got[filepath.ToSlash(rel)] = string(b)
			return err
		}
		return nil
	}))
	return got, uerr
}

func TestUnpackTar(t *testing.T) {
	data := tarOf(t,
		member{name: "./", kind: tar.TypeDir},
		member{name: "bin/tool", body: "#!/bin/sh\n", mode: 0o6777},
		member{name: "bin", kind: tar.TypeDir, mode: 0o500},
		member{name: "./doc/ä/" + strings.Repeat("x", 150), body: "text", mode: 0o001},
		member{name: "empty/", kind: tar.TypeDir},
	)
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer func() { _ = root.Close() }()
	must(t, archive.UnpackTar(t.Context(), bytes.NewReader(data), root, archive.Limits{}))
	for name, want := range map[string]fs.FileMode{"bin/tool": 0o755, "doc/ä/" + strings.Repeat("x", 150): 0o601, "empty": fs.ModeDir | 0o700, "bin": fs.ModeDir | 0o700} {
		fi, err := root.Stat(name)
		must(t, err)
		if runtime.GOOS != "windows" && fi.Mode()&^umask(t) != want&^umask(t) {
			t.Errorf("%s has mode %v, want %v", name, fi.Mode(), want)
		}
	}
	b, err := root.ReadFile("bin/tool")
	if err != nil || string(b) != "#!/bin/sh\n" {
		t.Errorf("content %q, %v", b, err)
	}
}

// umask is the bits that this process may not set.
func umask(t *testing.T) fs.FileMode {
	name := filepath.Join(t.TempDir(), "x")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDONLY, 0o777)
	must(t, err)
	must(t, f.Close())
	fi, err := os.Stat(name)
	must(t, err)
	return 0o777 &^ fi.Mode().Perm()
}

func TestUnpackTarRefuses(t *testing.T) {
	file := func(name string) []member { return []member{{name: name, body: "x"}} }
	for name, ms := range map[string][]member{
		"absolute":            file("/etc/x"),
		"parent":              file("../x"),
		"parent inside":       file("a/../../x"),
		"dot inside":          file("a/./x"),
		"empty element":       file("a//x"),
		"backslash":           file(`a\x`),
		"colon":               file("c:x"),
		"control":             file("a\x1bx"),
		"not UTF-8":           file("a\xffx"),
		"trailing dot":        file("a./x"),
		"trailing space":      file("a /x"),
		"device":              file("a/NUL.txt"),
		"device lower case":   file("com1"),
		"device superscript":  file("LPT¹"),
		"long path":           file(strings.Repeat(strings.Repeat("a", 100)+"/", 3) + "x"),
		"long element":        file(strings.Repeat("a", 201)),
		"deep":                file(strings.Repeat("a/", 16) + "x"),
		"symlink":             {{name: "l", kind: tar.TypeSymlink, link: "/etc"}},
		"symlink then member": {{name: "l", kind: tar.TypeSymlink, link: ".."}, {name: "l/x", body: "x"}},
		"hard link":           {{name: "a", body: "x"}, {name: "l", kind: tar.TypeLink, link: "a"}},
		"fifo":                {{name: "f", kind: tar.TypeFifo}},
		"device node":         {{name: "f", kind: tar.TypeChar}},
		"duplicate":           {{name: "a", body: "x"}, {name: "a", body: "y"}},
		"duplicate with ./":   {{name: "a", body: "x"}, {name: "./a", body: "y"}},
		"duplicate directory": {{name: "a", kind: tar.TypeDir}, {name: "a/", kind: tar.TypeDir}},
		"case":                {{name: "a", body: "x"}, {name: "A", body: "y"}},
		"case of parent":      {{name: "a/x", body: "x"}, {name: "A/y", body: "y"}},
		"kelvin sign":         {{name: "k", body: "x"}, {name: "\u212a", body: "y"}},
		"normal form":         {{name: "\u00e4", body: "x"}, {name: "a\u0308", body: "y"}},
		"file then directory": {{name: "a", body: "x"}, {name: "a", kind: tar.TypeDir}},
		"file as parent":      {{name: "a", body: "x"}, {name: "a/b", body: "y"}},
		"parent as file":      {{name: "a/b", body: "x"}, {name: "a", body: "y"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := unpack(t, t.Context(), bytes.NewReader(tarOf(t, ms...)), archive.Limits{})
			if _, ok := errors.AsType[*archive.Error](err); !ok {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func TestUnpackTarLimits(t *testing.T) {
	two := tarOf(t, member{name: "a/b", body: "x"}, member{name: "c", body: strings.Repeat("y", 2000)})
	for name, c := range map[string]struct {
		l  archive.Limits
		ok bool
	}{
		"defaults":        {archive.Limits{}, true},
		"all exact":       {archive.Limits{Bytes: int64(len(two)), Entries: 2, Path: 3, Element: 1, Depth: 2}, true},
		"bytes":           {archive.Limits{Bytes: int64(len(two)) - 1}, false},
		"bytes in a file": {archive.Limits{Bytes: 2000}, false},
		"entries":         {archive.Limits{Entries: 1}, false},
		"path":            {archive.Limits{Path: 2}, false},
		"depth":           {archive.Limits{Depth: 1}, false},
	} {
		_, err := unpack(t, t.Context(), bytes.NewReader(two), c.l)
		if _, ours := errors.AsType[*archive.Error](err); c.ok && err != nil || !c.ok && !ours {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnpackTarStream(t *testing.T) {
	good := tarOf(t, member{name: "a", body: "0123456789"})
	boom := errors.New("boom")
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(boom)
	for name, c := range map[string]struct {
		ctx  context.Context
		in   io.Reader
		want error // nil = *archive.Error
		ok   bool
	}{
		"zero padding":   {t.Context(), io.MultiReader(bytes.NewReader(good), bytes.NewReader(make([]byte, 9000))), nil, true},
		"hidden data":    {t.Context(), io.MultiReader(bytes.NewReader(good), bytes.NewReader(make([]byte, 9000)), strings.NewReader("x")), nil, false},
		"second archive": {t.Context(), io.MultiReader(bytes.NewReader(good), bytes.NewReader(good)), nil, false},
		"cut in a file":  {t.Context(), bytes.NewReader(good[:515]), nil, false},
		"cut in a head":  {t.Context(), bytes.NewReader(good[:100]), nil, false},
		"no tar":         {t.Context(), strings.NewReader(strings.Repeat("x", 1024)), nil, false},
		"reader fails":   {t.Context(), io.MultiReader(bytes.NewReader(good[:515]), iotest.ErrReader(boom)), boom, false},
		"cancelled":      {ended, bytes.NewReader(good), boom, false},
	} {
		_, err := unpack(t, c.ctx, c.in, archive.Limits{})
		_, ours := errors.AsType[*archive.Error](err)
		switch {
		case c.ok && err != nil, !c.ok && c.want == nil && !ours, c.want != nil && !errors.Is(err, c.want):
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnpackTarRefusesSparse(t *testing.T) {
	data := tarOf(t, member{name: "s", body: "x", pax: map[string]string{"comment": strings.Repeat("y", 40)}})
	// The writer makes no sparse records, so one of the same length is put in.
	data = bytes.Replace(data, []byte("comment="+strings.Repeat("y", 40)), []byte("GNU.sparse.name="+strings.Repeat("y", 32)), 1)
	_, err := unpack(t, t.Context(), bytes.NewReader(data), archive.Limits{})
	if _, ok := errors.AsType[*archive.Error](err); !ok || !strings.Contains(err.Error(), "sparse") {
		t.Errorf("error is %v", err)
	}
}

func TestPackTarIsDeterministicAndUnpacks(t *testing.T) {
	build := func(order []string) []byte {
		t.Helper()
		dir := t.TempDir()
		for _, n := range order {
			p := filepath.Join(dir, n)
			must(t, os.MkdirAll(filepath.Dir(p), 0o750))
			mode := fs.FileMode(0o600)
			if strings.HasPrefix(n, "bin") {
				mode = 0o700
			}
			must(t, os.WriteFile(p, []byte(n), mode))
		}
		must(t, os.MkdirAll(filepath.Join(dir, "void"), 0o700))
		root, err := os.OpenRoot(dir)
		must(t, err)
		defer func() { _ = root.Close() }()
		var b bytes.Buffer
		must(t, archive.PackTar(t.Context(), &b, root, time.Unix(1, 999)))
		return b.Bytes()
	}
	a := build([]string{"bin/x", "a", "doc/" + strings.Repeat("ü", 90)})
	b := build([]string{"doc/" + strings.Repeat("ü", 90), "a", "bin/x"})
	if sha256.Sum256(a) != sha256.Sum256(b) {
		t.Error("same tree, other bytes")
	}
	got, err := unpack(t, t.Context(), bytes.NewReader(a), archive.Limits{})
	must(t, err)
	long := "doc/" + strings.Repeat("ü", 90)
	want := map[string]string{"bin": "dir", "bin/x": "bin/x", "a": "a", "doc": "dir", long: long, "void": "dir"}
	if !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestPackTarRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/etc", filepath.Join(dir, "l")); err != nil {
		t.Skipf("no links here: %v", err)
	}
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer func() { _ = root.Close() }()
	err = archive.PackTar(t.Context(), io.Discard, root, time.Time{})
	if _, ok := errors.AsType[*archive.Error](err); !ok {
		t.Errorf("link: %v", err)
	}
	w := archive.NewTarWriter(io.Discard, time.Time{})
	for name, err := range map[string]error{"bad name": w.Dir("../x"), "case": errors.Join(w.Dir("a"), w.Dir("A")), "short": w.File("s", false, 2, strings.NewReader("x"))} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func zstdOf(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := archive.ZstdWriter(&out)
	must(t, err)
	_, err = w.Write(b)
	must(t, err)
	must(t, w.Close())
	return out.Bytes()
}

func gzipOf(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	must(t, err)
	must(t, w.Close())
	return out.Bytes()
}

var readers = map[string]struct {
	open   func(io.Reader, int64) (io.ReadCloser, error)
	encode func(testing.TB, []byte) []byte
}{"zstd": {archive.ZstdReader, zstdOf}, "gzip": {archive.GzipReader, gzipOf}}

func decode(open func(io.Reader, int64) (io.ReadCloser, error), r io.Reader, limit int64) ([]byte, error) {
	d, err := open(r, limit)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(d)
	return b, errors.Join(err, d.Close())
}

func TestDecoders(t *testing.T) {
	boom := errors.New("boom")
	text := []byte(strings.Repeat("all work and no play ", 20_000))
	random := make([]byte, 300_000)
	for i := range random {
		random[i] = byte(i * i >> 3 * i)
	}
	for kind, k := range readers {
		for name, want := range map[string][]byte{"empty": {}, "text": text, "random": random, "zeros": make([]byte, 1<<20)} {
			packed := k.encode(t, want)
			got, err := decode(k.open, iotest.OneByteReader(bytes.NewReader(packed)), int64(len(want)))
			if len(want) == 0 {
				got, err = decode(k.open, bytes.NewReader(packed), 1)
			}
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s %s: %d of %d bytes, %v", kind, name, len(got), len(want), err)
			}
			if again := k.encode(t, want); !bytes.Equal(again, packed) {
				t.Errorf("%s %s: same input, other bytes", kind, name)
			}
		}
		packed := k.encode(t, text)
		flipped := bytes.Clone(packed)
		flipped[len(flipped)-1] ^= 1 // in the checksum or length
		for name, c := range map[string]struct {
			in    io.Reader
			limit int64
			want  error
		}{
			"over the limit": {bytes.NewReader(packed), int64(len(text)) - 1, nil},
			"bomb":           {bytes.NewReader(k.encode(t, make([]byte, 16<<20))), 1 << 20, nil},
			"second stream":  {io.MultiReader(bytes.NewReader(packed), bytes.NewReader(packed)), 0, nil},
			"trailing byte":  {io.MultiReader(bytes.NewReader(packed), strings.NewReader("x")), 0, nil},
			"cut":            {bytes.NewReader(packed[:len(packed)-1]), 0, nil},
			"cut in half":    {bytes.NewReader(packed[:len(packed)/2]), 0, nil},
			"flipped":        {bytes.NewReader(flipped), 0, nil},
			"nothing":        {strings.NewReader(""), 0, nil},
			"other format":   {strings.NewReader("not compressed at all"), 0, nil},
			"reader fails":   {io.MultiReader(bytes.NewReader(packed[:len(packed)/2]), iotest.ErrReader(boom)), 0, boom},
		} {
			_, err := decode(k.open, c.in, c.limit)
			_, ours := errors.AsType[*archive.Error](err)
			if c.want == nil && !ours || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%s %s: %v", kind, name, err)
			}
		}
	}
}

func TestZstdReaderRefusesWindowAndDictionary(t *testing.T) {
	var wide bytes.Buffer
	w, err := zstd.NewWriter(&wide, zstd.WithWindowSize(16<<20))
	must(t, err)
	_, err = w.Write(make([]byte, 17<<20))
	must(t, err)
	must(t, w.Close())
	dict := zstdOf(t, []byte("hello"))
	dict[4] |= 1
	for name, b := range map[string][]byte{"window of 16 MiB": wide.Bytes(), "dictionary": dict, "skippable frame": append([]byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0}, zstdOf(t, []byte("x"))...)} {
		_, err := decode(archive.ZstdReader, bytes.NewReader(b), 0)
		if _, ok := errors.AsType[*archive.Error](err); !ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzUnpackTar(f *testing.F) {
	f.Add(tarOf(f, member{name: "a/b", body: "x"}, member{name: "a", kind: tar.TypeDir}))
	f.Add(tarOf(f, member{name: "../x", body: "x"}))
	f.Add(tarOf(f, member{name: "l", kind: tar.TypeSymlink, link: "/tmp"}, member{name: "l/x", body: "x"}))
	f.Add(tarOf(f, member{name: strings.Repeat("ü/", 12), kind: tar.TypeDir, pax: map[string]string{"comment": "x"}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := unpack(t, t.Context(), bytes.NewReader(b), archive.Limits{Bytes: 1 << 16, Entries: 32})
		if _, ok := errors.AsType[*archive.Error](err); err != nil && !ok {
			t.Errorf("not a fault of the archive: %v", err)
		}
	})
}

func FuzzZstdReader(f *testing.F) {
	f.Add(zstdOf(f, []byte("hello")))
	f.Add(append(zstdOf(f, nil), zstdOf(f, make([]byte, 70_000))...))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decode(archive.ZstdReader, bytes.NewReader(b), 1<<16)
		if _, ok := errors.AsType[*archive.Error](err); err != nil && !ok {
			t.Errorf("not a fault of the stream: %v", err)
		}
		if err != nil {
			return
		}
		d, derr := zstd.NewReader(nil)
		must(t, derr)
		defer d.Close()
		want, derr := d.DecodeAll(b, nil)
		if derr != nil || !bytes.Equal(got, want) {
			t.Errorf("the plain decoder says %v, %d and not %d bytes", derr, len(want), len(got))
		}
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
