//go:build !wasip1

package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/cache"
	program "github.com/delivery-station/ds/cmd/ds-cache"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/internal/term"
	"github.com/delivery-station/ds/pkg/client"
	"github.com/delivery-station/ds/pkg/client/ocilayout"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/registry"
	"github.com/delivery-station/ds/sandbox"
)

// station is a ds without processes: the real host, gate and cache around the plugin, which runs in process.
type station struct {
	t       *testing.T
	dir     string // of the cache
	store   *cache.Store
	ago     time.Duration // of the clock
	granted map[hostabi.Capability]sandbox.Scopes
}

func newStation(t *testing.T, o cache.Options) *station {
	t.Helper()
	s := &station{t: t, dir: t.TempDir(), granted: make(map[hostabi.Capability]sandbox.Scopes)}
	for _, r := range manifest(t).Capabilities {
		s.granted[r.Cap] = sandbox.Scopes{Scope: r.Scope, Quota: r.Quota}
	}
	if err := os.Chmod(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	o.Dir, o.Clock = s.dir, func() time.Time { return time.Now().Add(-s.ago) }
	var err error
	if s.store, err = cache.Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// put stores text as if it was pulled from source, last used ago.
func (s *station) put(source, mediaType, text string, ago time.Duration) hostabi.Digest {
	s.t.Helper()
	s.ago = ago
	defer func() { s.ago = 0 }()
	v := s.store.View("", source)
	defer v.Close()
	d := hostabi.DigestOf([]byte(text))
	w, err := v.Create(s.t.Context(), hostabi.Descriptor{Digest: d, Size: int64(len(text)), MediaType: mediaType})
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	if err == nil {
		_, err = w.Commit(s.t.Context())
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.used(d, ago)
	return d
}

// used makes d look as if it was last used ago.
func (s *station) used(d hostabi.Digest, ago time.Duration) {
	s.t.Helper()
	when := time.Now().Add(-ago)
	if err := os.Chtimes(filepath.Join(s.dir, "artifacts", d.Hex()), when, when); err != nil {
		s.t.Fatal(err)
	}
}

// damage changes the first byte of a blob and restores its times.
func (s *station) damage(d hostabi.Digest) {
	s.t.Helper()
	name := filepath.Join(s.dir, "artifacts", d.Hex(), "blob")
	fi, err := os.Stat(name)
	if err != nil {
		s.t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err == nil {
		b[0] ^= 1
		err = errors.Join(os.Chmod(name, 0o600), os.WriteFile(name, b, 0o600), os.Chmod(name, 0o400), os.Chtimes(name, fi.ModTime(), fi.ModTime()))
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

type result struct {
	exit           int
	stdout, stderr string
}

// run is one ds cache ARGS.
func (s *station) run(args ...string) result {
	s.t.Helper()
	m := manifest(s.t)
	var out, errs bytes.Buffer
	terminal := term.New(term.Options{Stdout: &out, Stderr: &errs})
	defer terminal.Close()
	names, err := registry.New(registry.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	r := host.New(host.Options{
		Version: "0.0.0", Puller: func() (host.Puller, error) { return names, nil },
		Cache: func(owner hostabi.PluginName, source string) (host.Cache, error) {
			return s.store.View(owner, source), nil
		},
	})
	hostv1.RegisterMetaServer(r, host.NewMeta())
	hostv1.RegisterCacheServer(r, host.NewCache())
	hostv1.RegisterTermServer(r, host.NewTerm(terminal))
	p := &plugin.Installed{Name: m.Name, Version: m.Version, Manifest: m, Program: &plugin.Program{Kind: plugin.Native}}
	inv := &plugin.Invocation{ID: strings.Repeat("0", 32), Args: args, Kind: plugin.KindRun, Stdout: &out, Stderr: &errs, NoInput: true}
	inv.Command, inv.Typed = m.Parse(args)
	box, err := sandbox.NewBox(sandbox.BoxOptions{Plugin: p, Invocation: inv, Granted: s.granted})
	if err != nil {
		s.t.Fatal(err)
	}
	session, err := r.Open(p, box, inv)
	if err != nil {
		s.t.Fatal(err)
	}
	exit := program.App().Run(s.t.Context(), client.Stdio{Out: &out, Err: &errs}, session, args...)
	if err := session.Close(); err != nil {
		s.t.Error(err)
	}
	return result{exit, out.String(), errs.String()}
}

// fails is run for a command that must end with exit and say text.
func (s *station) fails(exit int, text string, args ...string) {
	s.t.Helper()
	if r := s.run(args...); r.exit != exit || !strings.Contains(r.stderr, text) {
		s.t.Errorf("cache %s: exit %d, want %d and %q\n%s%s", strings.Join(args, " "), r.exit, exit, text, r.stdout, r.stderr)
	}
}

// row is what scripts read of all rows.
type row struct {
	ID, Digest, Problem           string
	Size                          int64
	Pinned, Repaired, Removed     bool
	MediaType                     string `json:"media_type"`
	Sources                       []string
	Until, Used                   time.Time
	Blobs, New, Artifacts         int
	Entries                       int64
	DiskBytes, MaxBytes, PinnedOf int64
}

// rows is run for a command that must succeed; what it prints as JSON is decoded.
func rows[T any](s *station, args ...string) (v T) {
	s.t.Helper()
	r := s.run(append(args, "--format", "json")...)
	if r.exit != 0 {
		s.t.Fatalf("cache %s: exit %d\n%s", strings.Join(args, " "), r.exit, r.stderr)
	}
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil {
		s.t.Fatalf("cache %s: %v in %s", strings.Join(args, " "), err, r.stdout)
	}
	return v
}

func digestsOf(rs []row) (ds []hostabi.Digest) {
	for _, r := range rs {
		ds = append(ds, hostabi.Digest(r.Digest))
	}
	return ds
}

const day = 24 * time.Hour

func TestList(t *testing.T) {
	s := newStation(t, cache.Options{})
	if r := s.run("ls"); r.exit != 0 || r.stderr != "" {
		t.Errorf("empty: %+v", r)
	}
	small := s.put("ghcr.io/acme/app", "text/plain", "small", time.Hour)
	old := s.put("ghcr.io/acme/app", "application/x", strings.Repeat("old", 1000), 10*day)
	other := s.put("ghcr.io/acme/other", "text/html", "other", 2*day)
	if err := s.store.Pin(t.Context(), other, "", time.Now().Add(day)); err != nil {
		t.Fatal(err)
	}
	s.used(other, 2*day) // pinning is a use
	for _, c := range []struct {
		args []string
		want []hostabi.Digest
	}{
		{nil, []hostabi.Digest{small, other, old}},
		{[]string{"--sort", "size"}, []hostabi.Digest{old}},
		{[]string{"--unused-for", "7d"}, []hostabi.Digest{old}},
		{[]string{"--unused-for", "1d", "--larger-than", "1KiB"}, []hostabi.Digest{old}},
		{[]string{"--larger-than", "3000"}, nil},
		{[]string{"--pinned"}, []hostabi.Digest{other}},
		{[]string{"--pinned=false"}, []hostabi.Digest{small, old}},
		{[]string{"--source", "ghcr.io/acme/app"}, []hostabi.Digest{small, old}},
		{[]string{"--source", "ghcr.io/acme"}, nil},
		{[]string{"--type", "text/"}, []hostabi.Digest{small, other}},
	} {
		got := digestsOf(rows[[]row](s, append([]string{"ls"}, c.args...)...))
		if len(got) > len(c.want) && slices.Contains(c.args, "--sort") {
			got = got[:len(c.want)]
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.args, got, c.want)
		}
	}
	table := s.run("list").stdout
	if lines := strings.Split(table, "\n"); len(lines) != 5 || !strings.HasPrefix(lines[0], "ID ") || !strings.Contains(lines[3], "2.9 KiB") || strings.Contains(table, string(old)) {
		t.Errorf("table:\n%s", table)
	}
	if long := s.run("ls", "--long").stdout; !strings.Contains(long, string(old)) || !strings.Contains(long, "CREATED") {
		t.Errorf("long:\n%s", long)
	}
	s.fails(2, "DS1001", "ls", "--unused-for", "soon")
	s.fails(2, "DS1001", "ls", "--sort", "colour")
	s.fails(2, "DS1001", "ls", "extra")
}

func TestDigests(t *testing.T) {
	s := newStation(t, cache.Options{})
	a := s.put("ghcr.io/acme/app", "text/plain", "a", 0)
	for _, word := range []string{string(a), a.Hex(), a.Hex()[:4], "sha256:" + a.Hex()[:9]} {
		if r := rows[row](s, "info", word); r.Digest != string(a) || r.Size != 1 || r.MediaType != "text/plain" || !slices.Equal(r.Sources, []string{"ghcr.io/acme/app"}) {
			t.Errorf("%s: %+v", word, r)
		}
	}
	if rs := rows[[]row](s, "info", string(a), a.Hex()[:5]); len(rs) != 2 {
		t.Errorf("two digests: %+v", rs)
	}
	s.fails(2, "is no digest and no beginning of one", "info", a.Hex()[:3])
	s.fails(2, "is no digest and no beginning of one", "info", "nonsense")
	s.fails(2, "is no digest and no beginning of one", "info", "sha512:"+a.Hex())
	s.fails(3, "DS5007", "info", "0000000")
	s.fails(3, "DS5007", "info", "sha256:"+strings.Repeat("0", 64))
	s.fails(2, "needs DIGEST", "info")
	// Until two digests begin alike: 65536 prefixes, so a few hundred blobs are enough.
	seen := map[string]bool{a.Hex()[:4]: true}
	for i := range 3000 {
		d := hostabi.DigestOf([]byte{byte(i), byte(i >> 8), 'x'})
		if seen[d.Hex()[:4]] {
			s.put("", "", string([]byte{byte(i), byte(i >> 8), 'x'}), 0)
			for j := range i {
				if e := hostabi.DigestOf([]byte{byte(j), byte(j >> 8), 'x'}); e.Hex()[:4] == d.Hex()[:4] {
					s.put("", "", string([]byte{byte(j), byte(j >> 8), 'x'}), 0)
				}
			}
			s.fails(2, "begins the digests of 2 blobs", "info", d.Hex()[:4])
			return
		}
		seen[d.Hex()[:4]] = true
	}
	t.Error("no two digests begin alike")
}

func TestStatus(t *testing.T) {
	s := newStation(t, cache.Options{MaxSize: 1 << 30})
	a := s.put("", "", strings.Repeat("a", 2048), 0)
	s.put("", "", "b", 0)
	s.run("pin", string(a))
	r := s.run("status")
	for _, want := range []string{"BLOBS    2\n", "SIZE     2.0 KiB\n", "LIMIT    1.0 GiB\n", "PINNED   2.0 KiB\n"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("%q is not in\n%s%s", want, r.stdout, r.stderr)
		}
	}
}

func TestVerify(t *testing.T) {
	s := newStation(t, cache.Options{})
	a, b := s.put("", "", "aaaa", 0), s.put("", "", "bbbb", 0)
	if r := s.run("verify"); r.exit != 0 || r.stdout != "" || r.stderr != "Verified 2 blobs, all are what their digests say\n" {
		t.Errorf("all right: %+v", r)
	}
	if rs := rows[[]row](s, "verify", string(a)); len(rs) != 0 {
		t.Errorf("%+v", rs)
	}
	s.damage(a)
	for range 2 { // looking does not change anything
		r := s.run("verify", "--format", "json")
		var rs []row
		if err := json.Unmarshal([]byte(r.stdout), &rs); err != nil || len(rs) != 1 || rs[0].Digest != string(a) || rs[0].Problem == "" || rs[0].Repaired {
			t.Errorf("%v %+v", err, rs)
		}
		if r.exit != 7 || !strings.Contains(r.stderr, "Error DS2103: 1 of 2 blobs are damaged\n  hint   ds cache verify --repair\n") {
			t.Errorf("exit %d, %s", r.exit, r.stderr)
		}
		s.fails(7, "1 of 1 blobs", "verify", string(a))
		s.fails(7, "1 of 1 blobs", "verify", a.Hex()[:8])
	}
	if r := s.run("verify", string(b)); r.exit != 0 {
		t.Errorf("the other: %+v", r)
	}
	r := s.run("verify", "--repair")
	if r.exit != 7 || !strings.Contains(r.stdout, "yes") {
		t.Errorf("repair: %+v", r)
	}
	if rs := rows[[]row](s, "verify"); len(rs) != 0 {
		t.Errorf("after the repair: %+v", rs)
	}
	if rs := rows[[]row](s, "ls"); !slices.Equal(digestsOf(rs), []hostabi.Digest{b}) {
		t.Errorf("after the repair: %+v", rs)
	}
	s.fails(7, "1 of 1 blobs", "verify", "sha256:"+strings.Repeat("0", 64))
}

func TestPrune(t *testing.T) {
	s := newStation(t, cache.Options{TTL: 20 * day})
	var ds []hostabi.Digest
	for i, ago := range []time.Duration{30 * day, 10 * day, 5 * day, 0} {
		ds = append(ds, s.put("", "", strings.Repeat(string(rune('a'+i)), 4000), ago))
	}
	pinned := rows[[]row](s, "pin", string(ds[1]))
	if len(pinned) != 1 || !pinned[0].Pinned {
		t.Fatalf("%+v", pinned)
	}
	left := func() []hostabi.Digest { return digestsOf(rows[[]row](s, "ls")) }
	for _, c := range []struct {
		args []string
		gone []hostabi.Digest
	}{
		{[]string{"prune"}, nil},
		{[]string{"gc"}, ds[:1]},
		{[]string{"prune", "--older-than", "7d"}, ds[:1]},
		{[]string{"prune", "--older-than", "1d"}, []hostabi.Digest{ds[0], ds[2]}},
		{[]string{"clear"}, []hostabi.Digest{ds[0], ds[2], ds[3]}},
	} {
		all := left()
		rs := rows[[]row](s, append(c.args, "--dry-run")...)
		got := digestsOf(rs)
		want := slices.Clone(c.gone)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) || slices.ContainsFunc(rs, func(r row) bool { return r.Removed || r.Size != 4000 }) {
			t.Errorf("%v --dry-run: %+v, want %v", c.args, rs, want)
		}
		if now := left(); !slices.Equal(now, all) {
			t.Errorf("%v --dry-run removed something: %v", c.args, now)
		}
	}
	r := s.run("prune", "--older-than", "1d")
	if r.exit != 0 || r.stderr != "Removed 2 blobs, 7.8 KiB\n" || !strings.Contains(r.stdout, ds[0].Hex()[:12]) {
		t.Errorf("%+v", r)
	}
	if got := left(); !slices.Equal(got, []hostabi.Digest{ds[3], ds[1]}) {
		t.Errorf("left: %v", got)
	}
	if r := s.run("prune", "--older-than", "1d"); r.stdout != "" || r.stderr != "Removed 0 blobs, 0 B\n" {
		t.Errorf("again: %+v", r)
	}
	if r := s.run("unpin", ds[1].Hex()[:10]); r.exit != 0 || !strings.Contains(r.stdout, "no") {
		t.Errorf("%+v", r)
	}
	if r := s.run("prune", "--max-size", "1B"); r.exit != 0 || len(left()) != 0 {
		t.Errorf("%+v, left %v", r, left())
	}
	s.fails(2, "more than 0", "prune", "--older-than", "0")
	s.fails(2, "more than 0", "prune", "--max-size", "0")
}

func TestPin(t *testing.T) {
	s := newStation(t, cache.Options{})
	a, b := s.put("", "", "a", 0), s.put("", "", "b", 0)
	rs := rows[[]row](s, "pin", "--for", "30d", string(a), string(b))
	if len(rs) != 2 || rs[0].Digest != string(a) || !rs[1].Pinned || rs[0].Until.Sub(time.Now().Add(30*day)).Abs() > time.Hour {
		t.Errorf("%+v", rs)
	}
	if err := s.store.Pin(t.Context(), b, "other", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if rs := rows[[]row](s, "unpin", string(a), string(b)); len(rs) != 2 || rs[0].Pinned || !rs[1].Pinned || !rs[1].Until.IsZero() {
		t.Errorf("the pin of another plugin stays: %+v", rs)
	}
	s.fails(2, "at most 365d", "pin", "--for", "366d", string(a))
	s.fails(2, "at most 365d", "pin", "--for", "0", string(a))
	s.fails(3, "DS5007", "pin", "sha256:"+strings.Repeat("0", 64))
}

// artifact stores an image of two platforms, with one layer each, and names all its blobs.
func (s *station) artifact() (index hostabi.Digest, all []hostabi.Digest) {
	add := func(mediaType, text string) map[string]any {
		d := s.put("ghcr.io/acme/app", mediaType, text, 0)
		all = append(all, d)
		return map[string]any{"mediaType": mediaType, "digest": d, "size": len(text)}
	}
	asText := func(v any) string { b, _ := json.Marshal(v); return string(b) }
	config := add("application/vnd.oci.empty.v1+json", "{}")
	var children []any
	for _, arch := range []string{"amd64", "arm64"} {
		layer := add("application/octet-stream", "program for "+arch)
		children = append(children, add(ocilayout.MediaManifest, asText(map[string]any{"artifactType": "application/x", "config": config, "layers": []any{layer}})))
	}
	add(ocilayout.MediaIndex, asText(map[string]any{"manifests": children}))
	return all[len(all)-1], all
}

// TestExportImport: what one station exports another one imports, with types, and twice is once.
func TestExportImport(t *testing.T) {
	t.Chdir(t.TempDir())
	from, to := newStation(t, cache.Options{}), newStation(t, cache.Options{})
	index, all := from.artifact()
	loose := from.put("", "text/plain", "loose", 0)

	if r := rows[row](from, "export", "-o", "app.tar", index.Hex()[:12]); r.Blobs != len(all) || r.Artifacts != 1 {
		t.Errorf("%+v", r)
	}
	if r := rows[row](from, "export", "-o", "all.tar"); r.Blobs != len(all)+1 || r.Artifacts != 1 {
		t.Errorf("%+v", r)
	}
	rows[row](from, "export", "-o", "again.tar")
	first, err1 := os.ReadFile("all.tar")
	again, err2 := os.ReadFile("again.tar")
	if err1 != nil || err2 != nil || !bytes.Equal(first, again) {
		t.Errorf("two exports differ: %v %v", err1, err2)
	}

	if r := rows[row](to, "import", "--dry-run", "app.tar"); r.Blobs != len(all) || r.New != len(all) || len(rows[[]row](to, "ls")) != 0 {
		t.Errorf("dry run: %+v", r)
	}
	if r := rows[row](to, "import", "app.tar"); r.Blobs != len(all) || r.New != len(all) {
		t.Errorf("%+v", r)
	}
	if r := rows[row](to, "import", "all.tar"); r.Blobs != len(all)+1 || r.New != 1 {
		t.Errorf("%+v", r)
	}
	for _, d := range append(all, loose) {
		want, got := rows[row](from, "info", string(d)), rows[row](to, "info", string(d))
		if d == loose {
			want.MediaType = "" // only manifests say what a blob is
		}
		if got.Size != want.Size || got.MediaType != want.MediaType {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	// The file is believed only if the user says so, and for the artifact's blobs only.
	if rs := rows[[]row](to, "ls", "--source", "ghcr.io/acme/app"); len(rs) != 0 {
		t.Errorf("believed: %+v", rs)
	}
	for range 2 {
		if r := rows[row](to, "import", "--sources", "all.tar"); r.New != 0 {
			t.Errorf("%+v", r)
		}
		if rs := rows[[]row](to, "ls", "--source", "ghcr.io/acme/app"); len(rs) != len(all) || slices.Contains(digestsOf(rs), loose) || len(rs[0].Sources) != 1 {
			t.Errorf("%d of %d: %+v", len(rs), len(all), rs)
		}
	}
	third := newStation(t, cache.Options{})
	if r := rows[row](third, "import", "--sources", "app.tar"); r.New != len(all) {
		t.Errorf("%+v", r)
	}
	if rs := rows[[]row](third, "ls", "--source", "ghcr.io/acme/app"); len(rs) != len(all) {
		t.Errorf("%+v", rs)
	}
	if r := to.run("verify"); r.exit != 0 {
		t.Errorf("%+v", r)
	}
	rows[row](to, "export", "-o", "back.tar", string(index))
	back, err := os.ReadFile("back.tar")
	app, err2 := os.ReadFile("app.tar")
	if err := errors.Join(err, err2); err != nil || !bytes.Equal(back, app) {
		t.Errorf("there and back differs: %v", err)
	}
}

// TestExportLeavesOut: a platform that was never pulled and a blob that is damaged are left out of a tar, not half in it.
func TestExportLeavesOut(t *testing.T) {
	t.Chdir(t.TempDir())
	s := newStation(t, cache.Options{})
	index, all := s.artifact()
	s.damage(all[1])
	for _, args := range [][]string{{string(index)}, nil} {
		r := s.run(append([]string{"export", "-o", "x.tar", "--format", "json"}, args...)...)
		if r.exit != 0 || len(args) > 0 && r.stderr != "note: left out, because they are not in the cache: 1\n" {
			t.Errorf("%+v", r)
		}
		f, err := os.Open("x.tar")
		if err != nil {
			t.Fatal(err)
		}
		l, err := ocilayout.Open(f, "x.tar")
		if err != nil || len(l.Digests()) != len(all)-1 {
			t.Errorf("%v", err)
		}
		f.Close()
	}
	s.fails(3, "DS5007", "export", "-o", "x.tar", string(all[1]))
	s.fails(2, "needs --output", "export")
	s.fails(2, "no such file or directory", "export", "-o", "none/x.tar")
}

func TestImportRefuses(t *testing.T) {
	t.Chdir(t.TempDir())
	s := newStation(t, cache.Options{})
	index, all := s.artifact()
	s.run("export", "-o", "good.tar", string(index))
	good, err := os.ReadFile("good.tar")
	if err != nil {
		t.Fatal(err)
	}
	layer := []byte("program for arm64")
	for name, c := range map[string]struct {
		text []byte
		exit int
		says string
	}{
		"other content":  {bytes.Replace(good, layer, []byte("program for evil!"), 1), 7, "DS2101"},
		"other manifest": {bytes.Replace(good, []byte(`application/x`), []byte(`application/y`), 1), 7, "DS2101"},
		"cut":            {good[:len(good)/2], 7, "DS2015"},
		"no tar":         {[]byte("text"), 7, "DS2015"},
		"compressed":     {[]byte("\x1f\x8b\x08"), 7, "is compressed"},
	} {
		to := newStation(t, cache.Options{})
		if err := os.WriteFile("x.tar", c.text, 0o600); err != nil {
			t.Fatal(err)
		}
		r := to.run("import", "x.tar")
		if r.exit != c.exit || !strings.Contains(r.stderr, c.says) {
			t.Errorf("%s: exit %d, %s", name, r.exit, r.stderr)
		}
		if r.exit == 7 && strings.Contains(r.stderr, "DS2101") {
			to.fails(7, "DS2101", "import", "--dry-run", "x.tar")
			s.fails(7, "DS2101", "import", "--dry-run", "x.tar") // also where the true blob is
		}
		if r := to.run("verify"); r.exit != 0 {
			t.Errorf("%s: left %+v", name, r)
		}
		if n := len(rows[[]row](to, "ls")); c.exit != 0 && n >= len(all) {
			t.Errorf("%s: %d blobs came in", name, n)
		}
	}
	s.fails(2, "no such file or directory", "import", "none.tar")
}

// TestGrants: each command needs what it should, and the refusal names it.
func TestGrants(t *testing.T) {
	t.Chdir(t.TempDir())
	s := newStation(t, cache.Options{})
	d := string(s.put("", "", "a", 0))
	s.run("export", "-o", "x.tar")
	all := s.granted
	for _, c := range []struct {
		without hostabi.Capability
		args    []string
		exit    int
	}{
		{hostabi.CacheRead, []string{"ls"}, 5},
		{hostabi.CacheRead, []string{"status"}, 5},
		{hostabi.CacheRead, []string{"verify"}, 5},
		{hostabi.CacheRead, []string{"info", d}, 5},
		{hostabi.CacheWrite, []string{"prune"}, 5},
		{hostabi.CacheWrite, []string{"clear", "--dry-run"}, 5},
		{hostabi.CacheWrite, []string{"gc"}, 5},
		{hostabi.CacheWrite, []string{"verify", "--repair"}, 5},
		{hostabi.CacheWrite, []string{"pin", d}, 5},
		{hostabi.CacheWrite, []string{"ls"}, 0},
		{hostabi.CacheWrite, []string{"verify"}, 0},
		{hostabi.CacheWrite, []string{"export", "-o", "y.tar"}, 0},
		{hostabi.CacheWrite, []string{"import", "--dry-run", "x.tar"}, 0},
		{hostabi.FSRead, []string{"import", "none.tar"}, 5},
		{hostabi.FSWrite, []string{"export", "-o", "none/x.tar"}, 5},
	} {
		s.granted = make(map[hostabi.Capability]sandbox.Scopes)
		for k, v := range all {
			if k != c.without {
				s.granted[k] = v
			}
		}
		says := ""
		if c.exit != 0 {
			says = "Error DS4001: cache may not use " + string(c.without)
		}
		s.fails(c.exit, says, c.args...)
	}
}
