package registry_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/registry"
)

var someDigest = hostabi.DigestOf([]byte("x"))

func TestParseReference(t *testing.T) {
	t.Parallel()
	d := string(someDigest)
	for in, want := range map[string]string{
		"ghcr.io/a/b":                   "ghcr.io/a/b",
		"oci://ghcr.io/a/b:v1":          "ghcr.io/a/b:v1",
		"GHCR.io/a/b":                   "ghcr.io/a/b",
		"ghcr.io:443/a/b":               "ghcr.io/a/b",
		"localhost/a":                   "localhost/a",
		"localhost:443/a":               "localhost:443/a",
		"reg:5000/a/b:v1":               "reg:5000/a/b:v1",
		"[::1]:5000/x":                  "[::1]:5000/x",
		"[0:0::1]/x":                    "[::1]/x",
		"docker.io/alpine":              "docker.io/library/alpine",
		"index.docker.io/a/b":           "docker.io/a/b",
		"registry-1.docker.io/alpine:3": "docker.io/library/alpine:3",
		"ghcr.io/a/b@" + d:              "ghcr.io/a/b@" + d,
		"ghcr.io/a/b:v1@" + d:           "ghcr.io/a/b:v1@" + d,
		"ghcr.io/a__b/c.d-e--f":         "ghcr.io/a__b/c.d-e--f",
	} {
		r, err := registry.ParseReference(in)
		if err != nil || r.String() != want {
			t.Errorf("%s: %q, %v, want %q", in, r, err, want)
		}
	}
	for _, in := range []string{
		"", "/", "ghcr.io", "ghcr.io/", "ghcr.io//a", "ghcr.io/a//b", "ghcr.io/A", "ghcr.io/a_", "ghcr.io/a___b", "ghcr.io/-a", "ghcr.io/a..b", "ghcr.io/a:",
		"ghcr.io/a:.x", "ghcr.io/a@sha256:short", "ghcr.io/a@sha512:" + strings.Repeat("0", 128), "ghcr.io/a@" + d + "x", "https://ghcr.io/a", "user:pw@ghcr.io/a",
		"ghcr.io/a?x=y", "ghcr.io/a#f", "ghcr.io./a", ".io/a", "-x.io/a", "a.io:0/b", "a.io:99999/b", "a.io:08/b", "a.io:/b", "[::1/x", "[zz]/x", "[1.2.3.4]/x", "[fe80::1%eth0]/x",
		"ghcr.io/a\nb", "ghcr.io/" + strings.Repeat("a", 300), "ghcr.io/a:" + strings.Repeat("t", 129), "a.b/" + strings.Repeat("x", 5000), "ü.io/a", "oci-layout:", "oci-layout::v1",
		"oci-layout:x@sha256:zz", "oci-layout:x:bad tag", "oci-layout:~/x",
	} {
		r, err := registry.ParseReference(in)
		if hostabi.ReasonOf(err) != hostabi.ReasonRef {
			t.Errorf("%q is %+v, %v", in, r, err)
		}
	}
	if _, err := registry.ParseReference("name:v1"); !errors.Is(err, registry.ErrShortName) {
		t.Errorf("a short name: %v", err)
	}
	for _, in := range []string{"user:" + canary + "@ghcr.io/a", "u:" + canary + "/x@ghcr.io/a", "https://u:" + canary + "@ghcr.io/a"} {
		if _, err := registry.ParseReference(in); err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
}

func TestParseLayout(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	odd := filepath.Join(dir, "odd:v1")
	if err := os.Mkdir(odd, 0o700); err != nil && runtime.GOOS != "windows" {
		t.Fatal(err)
	}
	d := string(someDigest)
	for in, want := range map[string]registry.Reference{
		dir:                  {Path: dir},
		dir + ":v1":          {Path: dir, Tag: "v1"},
		dir + "/new:v1":      {Path: filepath.Join(dir, "new"), Tag: "v1"},
		dir + "/x/../new:v1": {Path: filepath.Join(dir, "new"), Tag: "v1"},
		dir + "@" + d:        {Path: dir, Digest: someDigest},
		dir + ":v1@" + d:     {Path: dir, Tag: "v1", Digest: someDigest},
		dir + "/me@home:v1":  {Path: filepath.Join(dir, "me@home"), Tag: "v1"},
		dir + "/a:b/c":       {Path: filepath.Join(dir, "a:b", "c")},
		odd:                  {Path: odd},
		odd + ":v2":          {Path: odd, Tag: "v2"},
	} {
		if runtime.GOOS == "windows" && strings.Contains(want.Path[2:], ":") {
			continue
		}
		r, err := registry.ParseReference("oci-layout:" + in)
		if err != nil || r != want {
			t.Errorf("%s: %+v, %v", in, r, err)
		}
		if again, err := registry.ParseReference(r.String()); err != nil || again != r {
			t.Errorf("%s: parsed again it is %+v, %v", r, again, err)
		}
	}
	c, _ := newClient(t, registry.Options{Home: dir, Dir: odd, DefaultRegistry: "oci-layout:~/reg"})
	for in, want := range map[string]string{
		"oci-layout:~/x:v1": filepath.Join(dir, "x") + ":v1", "oci-layout:rel:v1": filepath.Join(odd, "rel") + ":v1", "app/b:v1": filepath.Join(dir, "reg", "app", "b") + ":v1",
		"app@" + d: filepath.Join(dir, "reg", "app") + "@" + d,
	} {
		if r, err := c.Parse(in); err != nil || r.String() != "oci-layout:"+want {
			t.Errorf("%s: %s, %v", in, r, err)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	for _, s := range []string{
		"ghcr.io/a/b:v1@" + string(someDigest), "docker.io/x", "[::1]:5000/x", "oci-layout:a/../b:v1", "oci-layout:C:\\x:v1", "x", "a.b:443/c", "u:p@h/x", "a:443/x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := registry.ParseReference(s)
		if err != nil {
			if hostabi.ReasonOf(err) != hostabi.ReasonRef {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		again, err := registry.ParseReference(r.String())
		if err != nil || again != r {
			t.Fatalf("%q is %+v, parsed again %+v, %v", s, r, again, err)
		}
		if r.IsLayout() != filepath.IsAbs(r.Path) || strings.ContainsAny(r.Name(), "\n\x00") {
			t.Fatalf("%q is %+v", s, r)
		}
	})
}

func TestParseRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for in, want := range map[string]time.Duration{
		"0": 0, "120": 2 * time.Minute, now.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second, now.Add(-time.Hour).Format(http.TimeFormat): 0,
		"": -1, "-5": -1, "1.5": -1, "99999999999": -1, "soon": -1,
	} {
		got, ok := registry.ParseRetryAfter(in, now)
		if ok != (want >= 0) || (ok && got != want) {
			t.Errorf("%q: %s, %v", in, got, ok)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("120")
	f.Add("Fri, 02 Jan 2026 03:04:05 GMT")
	f.Fuzz(func(t *testing.T, s string) {
		if d, ok := registry.ParseRetryAfter(s, time.Unix(1700000000, 0)); d < 0 || (!ok && d != 0) {
			t.Fatalf("%q: %s, %v", s, d, ok)
		}
	})
}

func TestParseContentRange(t *testing.T) {
	t.Parallel()
	type result struct {
		from, size int64
		ok         bool
	}
	for in, want := range map[string]result{
		"bytes 5-9/10": {5, 10, true}, "bytes 0-0/1": {0, 1, true}, "bytes 5-9/*": {5, -1, true},
		"": {}, "bytes 5-9": {}, "bytes 9-5/10": {}, "bytes 5-10/10": {}, "bytes */10": {}, "bytes=5-9/10": {}, "items 5-9/10": {}, "bytes -1-9/10": {}, "bytes 5-9/-1": {},
		"bytes 5-99999999999999999999/*": {},
	} {
		from, size, ok := registry.ParseContentRange(in)
		if (result{from, size, ok}) != want {
			t.Errorf("%q: %d, %d, %v", in, from, size, ok)
		}
	}
}

func FuzzContentRange(f *testing.F) {
	f.Add("bytes 5-9/10")
	f.Fuzz(func(t *testing.T, s string) {
		from, size, ok := registry.ParseContentRange(s)
		if from < 0 || (ok && size >= 0 && from >= size) || (!ok && from != 0) {
			t.Fatalf("%q: %d, %d, %v", s, from, size, ok)
		}
	})
}

func TestClean(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain text":                          "plain text",
		"get https://u:p@h/x?sig=1#f: no":     "get https://h/x no",
		"a http://h?x=1 b https://u@h2/p/q c": "a http://h b https://h2/p/q c",
		"\x1b[31mred\u202e":                   " [31mred ",
		"://":                                 "://",
		"https://h/a@b":                       "https://h/a@b",
		`PUT "http://h/v2/x?digest=sha256:1": status`: `PUT "http://h/v2/x": status`,
	} {
		if got := registry.Clean(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}
