package cache_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/delivery-station/ds/cache"
	"github.com/delivery-station/ds/hostabi"
)

func TestOpenRefusesUnsafeRoots(t *testing.T) {
	safe := t.TempDir()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := func(mode os.FileMode, version string) string {
		d := filepath.Join(t.TempDir(), "cache")
		if err := errors.Join(os.MkdirAll(filepath.Join(d, ".ds"), 0o700), os.WriteFile(filepath.Join(d, ".ds/VERSION"), []byte(version), 0o600), os.Chmod(d, mode)); err != nil {
			t.Fatal(err)
		}
		return d
	}
	for name, c := range map[string]struct {
		dir  string
		want hostabi.Reason
	}{
		"fine":         {dir(0o700, "1\n"), ""},
		"readable":     {dir(0o755, "1\n"), ""},
		"missing":      {filepath.Join(safe, "a/b/c"), ""},
		"newer":        {dir(0o700, "2\n"), hostabi.ReasonConfigVersion},
		"no directory": {file, hostabi.ReasonUnsafeDir},
		"relative":     {"cache", hostabi.ReasonUsage},
		"group":        {dir(0o770, "1\n"), hostabi.ReasonUnsafeDir},
		"others":       {dir(0o707, "1\n"), hostabi.ReasonUnsafeDir},
	} {
		if runtime.GOOS == "windows" && (name == "group" || name == "others") {
			continue
		}
		_, err := cache.Open(t.Context(), cache.Options{Dir: c.dir})
		if got := hostabi.ReasonOf(err); got != c.want {
			t.Errorf("%s: %v", name, err)
		}
		if e, ok := errors.AsType[*hostabi.Error](err); ok && c.want == hostabi.ReasonUnsafeDir && e.Number() != 1112 {
			t.Errorf("%s: number %d", name, e.Number())
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := cache.Open(ended, cache.Options{Dir: safe}); hostabi.ReasonOf(err) != hostabi.ReasonInterrupted {
		t.Errorf("ended: %v", err)
	}
}

// A root that became unsafe after Open is not written to either.
func TestFirstWriteChecksTheRootAgain(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes are not access rights on Windows")
	}
	h := newStore(t, cache.Options{})
	h.must(os.Mkdir(h.dir, 0o700))
	h.must(os.Chmod(h.dir, 0o777)) // the point of the test
	_, err := h.s.Create(t.Context(), hostabi.Descriptor{})
	h.want(err, hostabi.ReasonUnsafeDir)
	_, err = h.s.Create(t.Context(), hostabi.Descriptor{Digest: hostabi.DigestOf(nil)})
	h.want(err, hostabi.ReasonUnsafeDir)
}

func TestRootMayBeALink(t *testing.T) {
	h := newStore(t, cache.Options{})
	other := t.TempDir()
	h.must(os.MkdirAll(filepath.Dir(h.dir), 0o700))
	if err := os.Symlink(other, h.dir); err != nil {
		t.Skipf("no links here: %v", err)
	}
	h.s = h.another()
	d := h.simple("x")
	if _, err := os.Lstat(filepath.Join(other, "artifacts", d.Hex(), "blob")); err != nil {
		t.Error(err)
	}
}

// flip changes one byte of a blob and puts the times back.
func (h *harness) flip(d hostabi.Digest) {
	h.Helper()
	fi, err := os.Stat(h.blob(d))
	h.must(err)
	h.must(os.Chmod(h.blob(d), 0o600))
	f, err := os.OpenFile(h.blob(d), os.O_RDWR, 0)
	h.must(err)
	b := make([]byte, 1)
	_, err = f.ReadAt(b, 0)
	h.must(err)
	b[0] ^= 1
	_, err = f.WriteAt(b, 0)
	h.must(errors.Join(err, f.Close(), os.Chmod(h.blob(d), fi.Mode()), os.Chtimes(h.blob(d), time.Time{}, fi.ModTime())))
}

func TestCorruptBlobIsAMiss(t *testing.T) {
	for name, damage := range map[string]func(*harness, hostabi.Digest){
		"flipped byte": (*harness).flip,
		"short":        func(h *harness, d hostabi.Digest) { h.must(os.Truncate(h.blob(d), 3)) },
		"zero":         func(h *harness, d hostabi.Digest) { h.must(os.Truncate(h.blob(d), 0)) },
		"replaced": func(h *harness, d hostabi.Digest) {
			h.must(errors.Join(os.Remove(h.blob(d)), os.WriteFile(h.blob(d), []byte("other"), 0o400)))
		},
		"empty metadata": func(h *harness, d hostabi.Digest) { h.must(os.Truncate(h.meta(d), 0)) },
		"no JSON": func(h *harness, d hostabi.Digest) {
			h.must(os.WriteFile(h.meta(d), []byte(strings.Repeat("x", 300)), 0o600))
		},
		"foreign metadata": func(h *harness, d hostabi.Digest) {
			other := h.simple("other")
			b, err := os.ReadFile(h.meta(other))
			h.must(err)
			b[0] = ' ' // so that the head alone does not do
			h.must(os.WriteFile(h.meta(d), b, 0o600))
		},
	} {
		for how, get := range map[string]func(*harness, hostabi.Digest) error{
			"stat": func(h *harness, d hostabi.Digest) error { _, err := h.s.Stat(h.Context(), d); return err },
			"open": func(h *harness, d hostabi.Digest) error { _, err := h.s.Open(h.Context(), d); return err },
			"path": func(h *harness, d hostabi.Digest) error {
				_, err := h.s.View("porter", "").Path(h.Context(), d)
				return err
			},
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				h := newStore(t, cache.Options{})
				data := content(1, 5000)
				d := h.put(h.s, data, true, 0)
				damage(h, d)
				h.want(get(h, d), hostabi.ReasonNotCached)
				h.want(get(h, d), hostabi.ReasonNotCached)
				if names := readNames(t, filepath.Join(h.dir, ".ds/quarantine")); len(names) != 1 || !strings.HasPrefix(names[0], d.Hex()+"-") {
					t.Errorf("quarantine holds %v", names)
				}
				if len(h.events) != 1 || h.events[0].Topic != "cache.corrupt" || !strings.Contains(string(h.events[0].Data), string(d)) {
					t.Errorf("events %+v", h.events)
				}
				h.put(h.s, data, true, 0)
				h.has(d, data)
				h.exact()
			})
		}
	}
}

func TestCorruptBlobIsReplacedByPut(t *testing.T) {
	for _, known := range []bool{true, false} {
		h := newStore(t, cache.Options{})
		data := content(1, 5000)
		d := h.put(h.s, data, true, 0)
		h.flip(d)
		h.put(h.s, data, known, 0)
		h.has(d, data)
	}
}

func TestStamp(t *testing.T) {
	data := content(1, 5000)
	d := hostabi.DigestOf(data)
	for name, c := range map[string]struct {
		o      cache.Options
		before func(*harness)
		hashed int64 // bytes, over two opens
	}{
		"untouched":         {cache.Options{}, func(*harness) {}, 0},
		"other boot":        {cache.Options{}, func(h *harness) { h.o.BootID = "other" }, 5000},
		"durable":           {cache.Options{Durable: true}, func(h *harness) { h.o.BootID = "other" }, 0},
		"no boot id":        {cache.Options{FS: noBoot{realFS()}}, func(*harness) {}, 0},
		"boot id is gone":   {cache.Options{}, func(h *harness) { h.o.FS = noBoot{realFS()} }, 5000},
		"directory touched": {cache.Options{}, func(h *harness) { h.age(d, time.Hour) }, 0},
		"chmod":             {cache.Options{}, func(h *harness) { h.must(os.Chmod(h.blob(d), 0o440)) }, 5000},
		"stamp torn":        {cache.Options{}, func(h *harness) { h.rewrite(d, 20, "0000") }, 5000},
		"stamp unknown":     {cache.Options{}, func(h *harness) { h.rewrite(d, 16, strings.Repeat("0", 64)) }, 5000},
		"other form":        {cache.Options{}, func(h *harness) { h.indent(d) }, 5000},
		"verify always":     {cache.Options{Verify: cache.VerifyAlways}, func(*harness) {}, 10000},
	} {
		t.Run(name, func(t *testing.T) {
			h := newStore(t, c.o)
			h.put(h.s, data, true, 0)
			c.before(h)
			h.s = h.another()
			h.has(d, data)
			h.s = h.another() // nothing in memory helps
			h.has(d, data)
			if n := h.metric("hashed_bytes{why=stamp}") + h.metric("hashed_bytes{why=always}"); n != c.hashed {
				t.Errorf("%d bytes hashed, want %d", n, c.hashed)
			}
			info, err := h.s.Stat(t.Context(), d)
			if err != nil || info.MediaType != "text/plain" {
				t.Errorf("%+v, %v", info, err)
			}
		})
	}
}

func (h *harness) rewrite(d hostabi.Digest, at int64, s string) {
	h.Helper()
	f, err := os.OpenFile(h.meta(d), os.O_RDWR, 0)
	h.must(err)
	_, err = f.WriteAt([]byte(s), at)
	h.must(errors.Join(err, f.Close()))
}

// indent gives metadata.json another form with the same content.
func (h *harness) indent(d hostabi.Digest) {
	h.Helper()
	b, err := os.ReadFile(h.meta(d))
	h.must(err)
	var m map[string]any
	h.must(json.Unmarshal(b, &m))
	b, err = json.MarshalIndent(m, "", "  ")
	h.must(err)
	h.must(os.WriteFile(h.meta(d), b, 0o600))
}

func TestUnstampedBlobIsHashedOnceForAll(t *testing.T) {
	h := newStore(t, cache.Options{})
	data := content(1, 1<<20)
	d := h.put(h.s, data, true, 0)
	h.o.BootID = "other"
	h.s = h.another()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { h.has(d, data) })
	}
	wg.Wait()
	if n := h.metric("hashed_bytes{why=stamp}"); n != 1<<20 {
		t.Errorf("%d bytes hashed, want each once", n)
	}
}

func TestCancelledHash(t *testing.T) {
	h := newStore(t, cache.Options{})
	data := content(1, 1<<20)
	d := h.put(h.s, data, true, 0)
	h.o.BootID = "other"
	h.s = h.another()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := h.s.Stat(ended, d)
	h.want(err, hostabi.ReasonInterrupted)
	h.has(d, data)
}

func TestHitsWriteNothing(t *testing.T) {
	h := newStore(t, cache.Options{})
	d := h.simple("x")
	h.must(h.s.Close())
	writes := 0
	spy := readOnly()
	deny := spy.change
	spy.change = func(op, name string) error { writes++; return deny(op, name) }
	h.o.FS = spy
	h.s = h.another()
	for range 3 {
		h.has(d, []byte("x"))
		if _, err := h.s.Stat(t.Context(), d); err != nil {
			t.Error(err)
		}
	}
	if writes != 0 {
		t.Errorf("%d writes", writes)
	}
}

func TestTouchAtMostHourly(t *testing.T) {
	h := newStore(t, cache.Options{})
	d := h.simple("x")
	used := func() time.Time {
		info, err := h.s.Stat(t.Context(), d)
		h.must(err)
		return info.Used
	}
	h.age(d, 50*time.Minute)
	if ago := time.Since(used()); ago < 49*time.Minute {
		t.Errorf("touched after 50 minutes: %v", ago)
	}
	h.at(15 * time.Minute)
	h.has(d, []byte("x"))
	if ago := time.Since(used()); ago > -14*time.Minute {
		t.Errorf("not touched a quarter of an hour later: %v", ago)
	}
	h.age(d, 2*time.Hour)
	other := h.another()
	_, err := other.Stat(t.Context(), d)
	h.must(err)
	if ago := time.Since(used()); ago > time.Minute {
		t.Errorf("not touched after two hours: %v", ago)
	}
}

func TestRefs(t *testing.T) {
	h := newStore(t, cache.Options{})
	ctx := t.Context()
	a, b := hostabi.DigestOf([]byte("a")), hostabi.DigestOf([]byte("b"))
	const name = "ghcr.io/acme/app:v1"
	for _, d := range []hostabi.Digest{a, b} { // a moved tag overwrites
		h.must(h.s.SetRef(ctx, name, hostabi.Descriptor{Digest: d, Size: 7, MediaType: "m/t"}))
		got, seen, err := h.s.Ref(ctx, name)
		h.must(err)
		if got.Digest != d || got.Size != 7 || got.MediaType != "m/t" || time.Since(seen) > time.Minute {
			t.Errorf("%+v, seen %v", got, seen)
		}
	}
	_, _, err := h.s.Ref(ctx, "ghcr.io/acme/app:v2")
	h.want(err, hostabi.ReasonNotCached)
	files, err := filepath.Glob(filepath.Join(h.dir, ".ds/refs/*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v, %v", files, err)
	}
	for _, bad := range []string{"", "{", `{"name":"other","digest":"` + string(a) + `"}`, `{"name":"` + name + `","digest":"x"}`, strings.Repeat(" ", 70_000)} {
		h.must(os.WriteFile(files[0], []byte(bad), 0o600))
		_, _, err := h.s.Ref(ctx, name)
		h.want(err, hostabi.ReasonNotCached)
		if _, err := os.Lstat(files[0]); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("damaged file %q is left", bad)
		}
	}
}

func TestOwners(t *testing.T) {
	h := newStore(t, cache.Options{})
	ctx := t.Context()
	a, b := h.s.View("a", ""), h.s.View("b", "")
	both := h.put(a, []byte("both"), false, 0)
	h.put(b, []byte("both"), true, 0)
	mine := h.put(a, []byte("mine"), false, 0)
	h.must(errors.Join(a.Close(), b.Close()))
	if got := h.listed("a"); !slices.Equal(got, sorted(both, mine)) {
		t.Errorf("a owns %v", got)
	}
	h.want(h.s.Remove(ctx, "b", mine), hostabi.ReasonNotCached) // another's
	h.has(mine, []byte("mine"))
	h.must(h.s.Remove(ctx, "a", both))
	h.has(both, []byte("both"))
	h.must(h.s.Remove(ctx, "b", both))
	h.lacks(both)
	h.must(h.s.Pin(ctx, mine, "b", time.Now().Add(time.Hour)))
	h.must(h.s.Remove(ctx, "a", mine))
	h.has(mine, []byte("mine")) // b pins it
	h.must(h.s.Pin(ctx, mine, "b", time.Time{}))
	h.must(h.s.Remove(ctx, "", mine))
	h.lacks(mine)
	h.exact()

	again := h.put(a, []byte("mine"), false, 0)
	h.must(h.s.Retire("a"))
	h.put(a, []byte("second life"), false, 0)
	h.must(h.s.Retire("a")) // twice in a second
	if h.s.Owned(ctx, "a", again, 4) || len(h.listed("a")) != 0 {
		t.Error("a claim was inherited")
	}
	h.has(again, []byte("mine"))
}

func TestQuota(t *testing.T) {
	h := newStore(t, cache.Options{})
	v := func() *cache.View {
		v := h.s.View("porter", "")
		v.Limit(100)
		return v
	}
	first := v()
	h.put(first, content(1, 60), false, 0)
	same := content(1, 60)
	_, err := first.Create(t.Context(), hostabi.Descriptor{Digest: hostabi.DigestOf(same), Size: 60})
	h.want(err, hostabi.ReasonExists) // costs nothing
	for name, view := range map[string]*cache.View{"same view": first, "next run": v()} {
		_, err := view.Create(t.Context(), hostabi.Descriptor{Size: 41})
		h.want(err, hostabi.ReasonQuota)
		w, err := view.Create(t.Context(), hostabi.Descriptor{})
		h.must(err)
		_, err = w.Write(content(2, 30))
		h.must(err)
		_, err = w.Write(content(3, 11))
		h.want(err, hostabi.ReasonQuota)
		_, err = w.Commit(t.Context())
		h.want(err, hostabi.ReasonQuota)
		if h.staging() != 0 {
			t.Errorf("%s: staging left", name)
		}
	}
	h.put(v(), content(4, 40), false, 0)
	h.put(h.s.View("porter", "a/b"), content(5, 500), true, 0) // a pull does not count
	h.put(h.s.View("other", ""), content(6, 500), false, 0)
}

func TestPin(t *testing.T) {
	h := newStore(t, cache.Options{})
	d := h.simple("x")
	pinned := func() bool {
		info, err := h.s.Stat(t.Context(), d)
		h.must(err)
		return info.Pinned
	}
	for _, owner := range []hostabi.PluginName{"", "a", "b"} {
		h.must(h.s.Pin(t.Context(), d, owner, time.Now().Add(time.Hour)))
	}
	for _, owner := range []hostabi.PluginName{"", "a"} {
		h.must(h.s.Pin(t.Context(), d, owner, time.Time{}))
		if !pinned() {
			t.Errorf("unpinned by %q, although others pin", owner)
		}
	}
	h.must(h.s.Pin(t.Context(), d, "b", time.Time{}))
	if pinned() || h.count("pins/") != 1 {
		t.Errorf("pins left: %v", h.files())
	}
	h.must(h.s.Pin(t.Context(), d, "a", time.Now().Add(time.Hour)))
	if u, err := h.s.Usage(t.Context()); err != nil || u.PinnedBytes != 1 {
		t.Errorf("usage %+v, %v", u, err)
	}
	h.at(2 * time.Hour)
	if pinned() {
		t.Error("a pin outlives its time")
	}
	h.want(h.s.Pin(t.Context(), d, "a", time.Now().Add(370*24*time.Hour)), hostabi.ReasonUsage)
}

func TestVerify(t *testing.T) {
	for _, repair := range []bool{false, true} {
		h := newStore(t, cache.Options{})
		good, bad := h.simple("good"), h.simple("bad")
		gone := hostabi.DigestOf([]byte("gone"))
		h.flip(bad)
		verdicts := func(ds ...hostabi.Digest) map[hostabi.Digest]hostabi.Verdict {
			got := make(map[hostabi.Digest]hostabi.Verdict)
			for v, err := range h.s.Verify(t.Context(), ds, repair) {
				h.must(err)
				got[v.Digest] = v
			}
			return got
		}
		got := verdicts()
		if len(got) != 2 || !got[good].OK || got[bad].OK || got[bad].Problem == "" {
			t.Errorf("repair %v: all: %+v", repair, got)
		}
		got = verdicts(bad, gone)
		if len(got) != 2 || got[bad].OK || got[gone].OK || got[gone].Problem == "" {
			t.Errorf("repair %v: asked: %+v", repair, got)
		}
		if n := len(readNames(t, filepath.Join(h.dir, ".ds/quarantine"))); (n == 1) != repair {
			t.Errorf("repair %v: %d in quarantine", repair, n)
		}
		h.lacks(bad)
		for range h.s.Verify(t.Context(), nil, repair) {
			break // must not hang
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for v, err := range h.s.Verify(ended, nil, repair) {
			if err == nil {
				t.Errorf("verdict after the end: %+v", v)
			}
		}
	}
}
