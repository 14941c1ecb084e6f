package main

import (
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/pkg/client"
)

func TestBaseName(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ title, want string }{
		{"app.tar.zst", "app.tar.zst"},
		{"release notes (final).txt", "release notes (final).txt"},
		{"café-Ω-日本.txt", "café-Ω-日本.txt"},
		{"COMET.txt", "COMET.txt"},
		{"com10", "com10"},
		{"bin/app", "app"},
		{`bin\app.exe`, "app.exe"},
		{"../../etc/passwd", "passwd"},
		{"/etc/cron.d/job", "job"},
		{`C:\Windows\x.dll`, "x.dll"},
		{`..\..\x`, "x"},
		{"", ""},
		{"dir/", ""},
		{".", ""},
		{"..", ""},
		{"a/..", ""},
		{".bashrc", ""},
		{"x/.ssh", ""},
		{"-rf", ""},
		{" lead", ""},
		{"trail ", ""},
		{"dot.", ""},
		{"a:stream", ""},
		{"a*b", ""},
		{"nul", ""},
		{"NUL.txt", ""},
		{"Con .txt", ""},
		{"lpt1.log", ""},
		{"SHA256-00", ""},
		{"COM¹", ""},
		{"CONIN$", ""},
		{"a\x00b", ""},
		{"a\nb", ""},
		{"a\x1b[2Jb", ""},
		{"exe\u202etxt.sh", ""},
		{"zero\u200bwidth", ""},
		{"nbsp\u00a0x", ""},
		{"\xff\xfe", ""},
		{strings.Repeat("n", 201), ""},
	} {
		if got := baseName(c.title); got != c.want {
			t.Errorf("%q: got %q, want %q", c.title, got, c.want)
		}
	}
}

func layer(title, content string) client.Layer {
	d := client.Descriptor{MediaType: "application/octet-stream", Digest: hostabi.DigestOf([]byte(content)), Size: int64(len(content))}
	return client.Layer{Descriptor: d, Title: title}
}

func artifact(p *client.Platform, layers ...client.Layer) client.Artifact {
	return client.Artifact{Manifest: client.Descriptor{Digest: hostabi.DigestOf([]byte(p.String() + "manifest")), Platform: p}, Layers: layers}
}

func platform(s string) *client.Platform {
	p, err := hostabi.ParsePlatform(s)
	if err != nil {
		panic(err)
	}
	return &p
}

func TestPlan(t *testing.T) {
	t.Parallel()
	hexA, hexB := "sha256-"+hostabi.DigestOf([]byte("a")).Hex(), "sha256-"+hostabi.DigestOf([]byte("b")).Hex()
	none := &client.Platform{}
	untyped := artifact(none)
	untyped.Manifest.Platform = nil
	for _, c := range []struct {
		name      string
		artifacts []client.Artifact
		several   bool
		want      []string
		refused   int
	}{
		{"titles", []client.Artifact{artifact(none, layer("a", "a"), layer("", "b"))}, false, []string{"a", hexB}, 0},
		{"one digest, two titles", []client.Artifact{artifact(none, layer("a", "a"), layer("b", "a"))}, false, []string{"a", "b"}, 0},
		{"same title", []client.Artifact{artifact(none, layer("x", "a"), layer("x", "b"))}, false, []string{"x", hexB}, 1},
		{"same title in another case", []client.Artifact{artifact(none, layer("x", "a"), layer("d/X", "b"))}, false, []string{"x", hexB}, 1},
		{"title that takes a digest's name", []client.Artifact{artifact(none, layer(hexB, "a"), layer("", "b"))}, false, []string{hexA, hexB}, 1},
		{"hostile title", []client.Artifact{artifact(none, layer("..", "a"), layer("../../x", "b"))}, false, []string{hexA, "x"}, 1},
		{"placeholder", []client.Artifact{artifact(none, client.Layer{Descriptor: client.Descriptor{MediaType: mediaEmpty}})}, false, nil, 0},
		{
			"two platforms",
			[]client.Artifact{artifact(platform("linux/amd64"), layer("x", "a")), artifact(platform("linux/arm64"), layer("x", "b"))},
			true,
			[]string{"linux/amd64/x", "linux/arm64/x"},
			0,
		},
		{
			"two variants",
			[]client.Artifact{artifact(platform("linux/arm/v6"), layer("x", "a")), artifact(platform("linux/arm/v7"), layer("x", "b"))},
			true,
			[]string{"linux/arm/x", "linux/arm/v7/x"},
			0,
		},
		{"one of several asked", []client.Artifact{artifact(platform("linux/amd64"), layer("x", "a"))}, true, []string{"linux/amd64/x"}, 0},
		{"one asked", []client.Artifact{artifact(platform("linux/amd64"), layer("x", "a"))}, false, []string{"x"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			files, refused := plan(c.artifacts, c.several)
			var got []string
			for _, f := range files {
				got = append(got, f.path)
			}
			if !slices.Equal(got, c.want) || len(refused) != c.refused {
				t.Errorf("got %q and %d refused, want %q and %d", got, len(refused), c.want, c.refused)
			}
		})
	}
}

// TestHostilePlatforms: an index chooses the names of directories, but no place outside of them.
func TestHostilePlatforms(t *testing.T) {
	t.Parallel()
	for _, p := range []client.Platform{
		{OS: "..", Architecture: ".."},
		{OS: "linux/../..", Architecture: "x"},
		{OS: "/etc", Architecture: "cron.d"},
		{OS: "linux", Architecture: `..\..`},
		{OS: "", Architecture: "amd64"},
		{OS: "nul", Architecture: "amd64"},
		{OS: "a\x00", Architecture: "b"},
	} {
		files, _ := plan([]client.Artifact{artifact(&p, layer("x", "a")), artifact(&p, layer("x", "b"))}, true)
		if len(files) == 0 {
			t.Errorf("%+v: no files", p)
		}
		for _, f := range files {
			if !strings.HasPrefix(f.path, "sha256-") || !filepath.IsLocal(filepath.FromSlash(f.path)) {
				t.Errorf("%+v: path %q", p, f.path)
			}
		}
	}
}

func FuzzPlan(f *testing.F) {
	f.Add("../x", "X", "linux", "amd64", "v1")
	f.Add("a", "a", "..", "/", "")
	f.Fuzz(func(t *testing.T, title1, title2, os, arch, variant string) {
		p := &client.Platform{OS: os, Architecture: arch, Variant: variant}
		files, _ := plan([]client.Artifact{artifact(p, layer(title1, "a"), layer(title2, "b")), artifact(p, layer(title1, "c"))}, true)
		seen := make(map[string]bool)
		for _, file := range files {
			key := strings.ToLower(file.path)
			if seen[key] || !filepath.IsLocal(filepath.FromSlash(file.path)) || path.Clean(file.path) != file.path {
				t.Errorf("path %q", file.path)
			}
			seen[key] = true
			for part := range strings.SplitSeq(file.path, "/") {
				if !plainName(part) && part != digestName(file.layer.Digest) && len(part) != len(digestName(file.layer.Digest)) {
					t.Errorf("path %q", file.path)
				}
			}
		}
	})
}

func TestTexts(t *testing.T) {
	t.Parallel()
	for x, want := range map[transfer]string{{5, 0}: "5 B", {0, 5}: "5 B, 5 B from cache", {1024, 1024}: "2.0 KiB, 1.0 KiB from cache"} {
		if got := x.String(); got != want {
			t.Errorf("%+v: got %s, want %s", x, got, want)
		}
	}
}
