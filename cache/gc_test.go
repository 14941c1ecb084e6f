package cache_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/delivery-station/ds/cache"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

func realFS() atomicfile.FS { return atomicfile.OS() }

// fill puts n blobs of 4 KiB (8 KiB on disk); the first was used n hours ago, the last one hour ago.
func (h *harness) fill(n int) []hostabi.Digest {
	h.Helper()
	ds := make([]hostabi.Digest, n)
	for i := range ds {
		ago := time.Duration(n-i) * time.Hour
		h.at(-ago)
		ds[i] = h.put(h.s, content(uint64(1000+i), 4000), true, 0)
		h.age(ds[i], ago)
	}
	h.at(0)
	return ds
}

func TestEvict(t *testing.T) {
	for name, c := range map[string]struct {
		o    hostabi.EvictOptions
		gone func(ds []hostabi.Digest, disk int64) []hostabi.Digest // of 6 used 6, 5, … 1 hours ago, one expired
	}{
		"all":              {hostabi.EvictOptions{}, func(ds []hostabi.Digest, _ int64) []hostabi.Digest { return ds }},
		"expired only":     {hostabi.EvictOptions{ExpiredOnly: true}, func(ds []hostabi.Digest, _ int64) []hostabi.Digest { return ds[6:] }},
		"expired, too old": {hostabi.EvictOptions{ExpiredOnly: true, OlderThan: time.Hour, MaxBytes: 1}, func(ds []hostabi.Digest, _ int64) []hostabi.Digest { return ds[6:] }},
		"older": {hostabi.EvictOptions{OlderThan: 150 * time.Minute}, func(ds []hostabi.Digest, _ int64) []hostabi.Digest {
			return append(slices.Clone(ds[:4]), ds[6])
		}},
		"down to half": {hostabi.EvictOptions{MaxBytes: 3 * 8192}, func(ds []hostabi.Digest, _ int64) []hostabi.Digest {
			return append(slices.Clone(ds[:3]), ds[6])
		}},
		"half, but only old": {hostabi.EvictOptions{MaxBytes: 1, OlderThan: 270 * time.Minute}, func(ds []hostabi.Digest, _ int64) []hostabi.Digest {
			return append(slices.Clone(ds[:2]), ds[6])
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newStore(t, cache.Options{})
			ds := append(h.fill(6), h.put(h.s, content(1, 4000), true, time.Hour))
			u, err := h.s.Usage(t.Context())
			h.must(err)
			if u.DiskBytes != 7*8192 {
				t.Skipf("the file system does not count in 4 KiB: %d bytes", u.DiskBytes)
			}
			h.at(61 * time.Minute)
			want := sorted(c.gone(ds, u.DiskBytes)...)
			c.o.OlderThan += 61 * time.Minute * time.Duration(min(1, int64(c.o.OlderThan)))
			dry := c.o
			dry.DryRun = true
			if got := h.evict(dry); !slices.Equal(keys(got), want) {
				t.Errorf("dry run names %d, want %d", len(got), len(want))
			}
			if n := len(readNames(t, filepath.Join(h.dir, "artifacts"))); n != 7 {
				t.Errorf("a dry run left %d entries", n)
			}
			got := h.evict(c.o)
			if !slices.Equal(keys(got), want) {
				t.Errorf("evicted %d, want %d", len(got), len(want))
			}
			for d, b := range got {
				if b.Size != 4000 || b.Used.IsZero() {
					t.Errorf("evicted %+v", b)
				}
				h.lacks(d)
			}
			h.exact()
			if h.staging() != 0 {
				t.Errorf("trash left: %v", h.files())
			}
			if ev := h.events; len(ev) != 1 || ev[0].Topic != "cache.evicted" || !strings.Contains(string(ev[0].Data), fmt.Sprintf(`"count":%d`, len(want))) {
				t.Errorf("events %+v", ev)
			}
		})
	}
}

func TestEvictSparesWhatIsPinnedOrLeased(t *testing.T) {
	h := newStore(t, cache.Options{})
	ds := h.fill(4)
	h.must(h.s.Pin(t.Context(), ds[0], "porter", time.Now().Add(time.Hour)))
	other := h.another() // as another process
	v := other.View("porter", "")
	path, err := v.Path(t.Context(), ds[1])
	h.must(err)
	pull := other.View("porter", "a/b")
	if _, err := pull.Stat(t.Context(), ds[2]); err != nil || !pull.Touched(ds[2]) || pull.Touched(ds[3]) {
		t.Errorf("found through a sink: %v", err)
	}
	if got := keys(h.evict(hostabi.EvictOptions{})); !slices.Equal(got, ds[3:]) {
		t.Errorf("evicted %v", got)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("a path that was handed out is gone: %v", err)
	}
	h.must(errors.Join(v.Close(), v.Close(), pull.Close()))
	if got := keys(h.evict(hostabi.EvictOptions{})); !slices.Equal(got, sorted(ds[1:3]...)) {
		t.Errorf("after the leases evicted %v", got)
	}
	h.must(h.s.Pin(t.Context(), ds[0], "porter", time.Time{}))
	if got := keys(h.evict(hostabi.EvictOptions{})); len(got) != 1 {
		t.Errorf("after the pin evicted %v", got)
	}
}

// Leases end with their process, also when it is killed: the lock of its log is what counts.
func TestLeasesOfADeadProcess(t *testing.T) {
	h := newStore(t, cache.Options{})
	d := h.simple("x")
	other := h.another()
	_, err := other.View("porter", "").Path(t.Context(), d)
	h.must(err)
	if got := h.evict(hostabi.EvictOptions{}); len(got) != 0 {
		t.Errorf("evicted %v", got)
	}
	h.must(other.Close())
	if got := h.evict(hostabi.EvictOptions{}); len(got) != 1 {
		t.Errorf("evicted %v", got)
	}
}

// What a view found stays until it is closed, however hard others evict.
func TestLeaseAgainstEvict(t *testing.T) {
	h := newStore(t, cache.Options{})
	data := make([][]byte, 4)
	for i := range data {
		data[i] = content(uint64(i), 1000)
	}
	stop := time.Now().Add(300 * time.Millisecond)
	var wg sync.WaitGroup
	for range 2 {
		s := h.another()
		wg.Go(func() {
			for time.Now().Before(stop) {
				for _, err := range s.Evict(t.Context(), hostabi.EvictOptions{}) {
					if err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	hits := make([]int, 4)
	for i := range hits {
		s := h.another()
		wg.Go(func() {
			for time.Now().Before(stop) {
				b := data[rand.N(len(data))]
				d := hostabi.DigestOf(b)
				v := s.View("porter", "a/b")
				if _, err := fetch(t.Context(), v, b, 1000); err != nil {
					t.Error(err)
				}
				path, err := v.Path(t.Context(), d)
				if err != nil {
					t.Errorf("fetched and gone: %v", err)
				} else if got, err := readPatiently(path); err != nil || string(got) != string(b) {
					t.Errorf("path that was handed out: %v", err)
				} else {
					hits[i]++
				}
				if err := v.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if slices.Min(hits) == 0 {
		t.Errorf("hits %v", hits)
	}
	h.evict(hostabi.EvictOptions{})
	h.exact()
	if h.staging() > 6 { // run directories of the stores that are still open hold no trash, flights none at all
		t.Errorf("left: %v", h.files())
	}
}

// readPatiently asks once more: gc may have the entry in its hands for a moment.
func readPatiently(path string) ([]byte, error) {
	for range 100 {
		b, err := os.ReadFile(path)
		if !errors.Is(err, os.ErrNotExist) {
			return b, err
		}
		<-time.After(time.Millisecond)
	}
	return os.ReadFile(path)
}

func TestCloseEvictsAboveMaxSize(t *testing.T) {
	h := newStore(t, cache.Options{MaxSize: 5 * 8192, Threshold: 0.6, AutoClean: true, TTL: 100 * time.Hour})
	ds := h.fill(7)
	h.must(h.s.Close())
	h.s = h.another()
	if got := h.listed(""); !slices.Equal(got, sorted(ds[4:]...)) {
		t.Errorf("%d of 7 are left, want the last 3", len(got))
	}
	if h.metric("evicted{reason=size}") != 4 {
		t.Errorf("metrics %v", h.metrics)
	}
	h.exact()
}

func TestCloseSparesWhatIsFresh(t *testing.T) {
	h := newStore(t, cache.Options{MaxSize: 8192, AutoClean: true})
	for i := range 4 {
		h.put(h.s, content(uint64(i), 4000), true, 0)
	}
	h.must(h.s.Close())
	h.s = h.another()
	if got := h.listed(""); len(got) != 4 {
		t.Errorf("%d of 4 are left: entries used within ten minutes go only when asked for", len(got))
	}
}

func TestCloseEvictsIdle(t *testing.T) {
	h := newStore(t, cache.Options{TTL: 150 * time.Minute, AutoClean: true})
	ds := h.fill(4)
	h.must(h.s.Close())
	h.s = h.another()
	if got := h.listed(""); !slices.Equal(got, sorted(ds[2:]...)) {
		t.Errorf("%d of 4 are left, want 2", len(got))
	}
}

// TestEvictByPolicy: asked for, gc does what Close would do, and a dry run says so before.
func TestEvictByPolicy(t *testing.T) {
	h := newStore(t, cache.Options{MaxSize: 3 * 8192, Threshold: 0.7, TTL: 330 * time.Minute})
	ds := h.fill(6)
	if u, err := h.s.Usage(t.Context()); err != nil || u.DiskBytes != 6*8192 {
		t.Skipf("the file system does not count in 4 KiB: %d bytes, %v", u.DiskBytes, err)
	}
	want := sorted(ds[:4]...) // one idle for too long, three to get below 70 % of the limit
	for _, o := range []hostabi.EvictOptions{{Policy: true, DryRun: true}, {Policy: true, ExpiredOnly: true, MaxBytes: 1}} {
		if got := keys(h.evict(o)); !slices.Equal(got, want) {
			t.Errorf("%+v evicts %d of 6, want %d", o, len(got), len(want))
		}
	}
	if got := h.listed(""); !slices.Equal(got, sorted(ds[4:]...)) {
		t.Errorf("%d of 6 are left, want 2", len(got))
	}
}

func TestCloseWithoutAutoCleanKeepsAll(t *testing.T) {
	h := newStore(t, cache.Options{MaxSize: 1, TTL: time.Minute})
	h.fill(4)
	h.must(h.s.Close())
	h.must(h.s.Close())
	h.s = h.another()
	if got := h.listed(""); len(got) != 4 {
		t.Errorf("%d of 4 are left", len(got))
	}
	if h.count("snapshot") != 0 {
		t.Error("gc ran")
	}
	h.exact()
}

// gc runs when it is due and not at the end of each command.
func TestGCIsDue(t *testing.T) {
	h := newStore(t, cache.Options{AutoClean: true, MaxSize: 1 << 30})
	lock := filepath.Join(h.dir, ".ds/gc.lock") // its time is that of the last gc
	for _, c := range []struct {
		name   string
		before time.Duration // since the last gc, 0 = never
		do     func()
		runs   bool
	}{
		{"never ran", 0, func() { h.simple("a") }, true},
		{"ran lately", time.Hour, func() { h.simple("b") }, false},
		{"ran yesterday", 25 * time.Hour, func() { h.simple("c") }, true},
		{"ran in the future", -25 * time.Hour, func() { h.simple("d") }, true},
		{"nothing written", 25 * time.Hour, func() { _, err := h.s.RunDir(); h.must(err) }, false},
		{"too big", time.Hour, func() { h.o.MaxSize = 1; h.s = h.another(); h.simple("e") }, true},
	} {
		if c.before != 0 {
			h.must(os.Chtimes(lock, time.Time{}, time.Now().Add(-c.before)))
		}
		c.do()
		h.must(h.s.Close())
		h.s = h.another()
		fi, err := os.Stat(lock)
		h.must(err)
		if ran := time.Since(fi.ModTime()).Abs() < time.Minute; ran != c.runs {
			t.Errorf("%s: ran %v, want %v", c.name, ran, c.runs)
		}
	}
}

func TestUsageIsExactWithoutDerivedFiles(t *testing.T) {
	h := newStore(t, cache.Options{AutoClean: true})
	ds := h.fill(5)
	h.evict(hostabi.EvictOptions{MaxBytes: 1 << 30})
	h.exact()
	for _, name := range []string{"index.json", ".ds/snapshot"} {
		for how, damage := range map[string]func(string) error{
			"deleted": os.Remove,
			"cut":     func(n string) error { return os.Truncate(n, 100) },
			"garbage": func(n string) error { return os.WriteFile(n, []byte(strings.Repeat("garbage", 50)), 0o600) },
		} {
			h.must(damage(filepath.Join(h.dir, name)))
			h.s = h.another()
			h.exact()
			if got := h.listed(""); !slices.Equal(got, sorted(ds...)) {
				t.Errorf("%s %s: listed %d", name, how, len(got))
			}
			h.evict(hostabi.EvictOptions{MaxBytes: 1 << 30})
			h.must(os.RemoveAll(filepath.Dir(h.blob(h.simple(name + how)))))
			h.at(25 * time.Hour) // the next reconcile notices what was removed by hand
			h.evict(hostabi.EvictOptions{MaxBytes: 1 << 30})
			h.exact()
			h.at(0)
			_ = os.Remove(filepath.Join(h.dir, ".ds/snapshot")) // written in the future
			h.evict(hostabi.EvictOptions{MaxBytes: 1 << 30})
		}
	}
}

func TestIndexFile(t *testing.T) {
	h := newStore(t, cache.Options{MaxSize: 1 << 30})
	ds := h.fill(3)
	expiring := h.put(h.s, []byte("x"), true, time.Hour)
	h.evict(hostabi.EvictOptions{MaxBytes: 1 << 30})
	b, err := os.ReadFile(filepath.Join(h.dir, "index.json"))
	h.must(err)
	var got struct {
		Version, Entries, Bytes int
		MaxBytes                int64 `json:"max_bytes"`
		DiskBytes               int64 `json:"disk_bytes"`
		Generated               time.Time
		Truncated               bool
		Artifacts               []struct {
			Digest  hostabi.Digest
			Size    int
			Used    time.Time
			Expires string
		}
	}
	h.must(json.Unmarshal(b, &got))
	if got.Version != 1 || got.Entries != 4 || got.Bytes != 12001 || got.MaxBytes != 1<<30 || got.DiskBytes == 0 || got.Truncated || time.Since(got.Generated) > time.Minute {
		t.Errorf("%s", b)
	}
	if a := got.Artifacts; len(a) != 4 || a[0].Digest != expiring || a[0].Expires == "" || a[1].Digest != ds[2] || a[1].Size != 4000 || a[1].Expires != "" {
		t.Errorf("%s", b)
	}
}

func TestSweep(t *testing.T) {
	h := newStore(t, cache.Options{})
	kept := h.put(h.s.View("porter", ""), []byte("kept"), false, 0)
	h.must(h.s.Pin(t.Context(), kept, "porter", time.Now().Add(time.Hour)))
	h.must(h.s.SetRef(t.Context(), "a/b:new", hostabi.Descriptor{Digest: kept}))
	hash := strings.Repeat("ab", 32)
	old := time.Now().Add(-40 * 24 * time.Hour)
	put := func(name string, when time.Time) {
		h.Helper()
		p := filepath.Join(h.dir, name)
		h.must(errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, []byte("x"), 0o600), os.Chtimes(p, when, when)))
	}
	stale := []string{
		".ds/flight/" + hash + "/blob", ".ds/flight/" + strings.Repeat("cd", 32) + ".lock", fmt.Sprintf(".ds/quarantine/%s-%d/blob", hash, old.UnixMilli()),
		".ds/pins/" + hash + "/porter", ".ds/refs/" + hash, ".ds/owners/porter/" + hash + "-7", ".ds/owners/gone/junk", ".ds/x.tmp", "index.json.y.tmp", ".ds/refs/z.tmp",
		".ds/run/1-dead/s1/blob", ".ds/run/1-dead/inv/2/sock",
	}
	fresh := []string{
		".ds/flight/" + strings.Repeat("ef", 32) + "/blob", fmt.Sprintf(".ds/quarantine/%s-%d/blob", hash, time.Now().UnixMilli()),
		".ds/owners/porter/" + strings.Repeat("ef", 32) + "-7", ".ds/y.tmp",
	}
	for _, n := range stale {
		put(n, old)
	}
	h.must(os.Chtimes(filepath.Join(h.dir, ".ds/run/1-dead"), old, old))
	for _, n := range fresh {
		put(n, time.Now())
	}
	h.evict(hostabi.EvictOptions{ExpiredOnly: true})
	for _, n := range stale {
		if _, err := os.Lstat(filepath.Join(h.dir, n)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left", n)
		}
	}
	if _, err := os.Lstat(filepath.Join(h.dir, ".ds/run/1-dead")); err == nil {
		t.Error("the dead run directory is left")
	}
	for _, n := range fresh {
		if _, err := os.Lstat(filepath.Join(h.dir, n)); err != nil {
			t.Errorf("%s is gone", n)
		}
	}
	h.has(kept, []byte("kept"))
	if info, err := h.s.Stat(t.Context(), kept); err != nil || !info.Pinned || !h.s.Owned(t.Context(), "porter", kept, 4) {
		t.Errorf("%+v, %v", info, err)
	}
	if _, _, err := h.s.Ref(t.Context(), "a/b:new"); err != nil {
		t.Error(err)
	}
}

func TestRunDir(t *testing.T) {
	h := newStore(t, cache.Options{})
	dir, err := h.s.RunDir()
	h.must(err)
	again, err := h.s.RunDir()
	if err != nil || again != dir || !filepath.IsAbs(dir) || filepath.Base(dir) != "inv" {
		t.Errorf("%s, %s, %v", dir, again, err)
	}
	h.must(os.Mkdir(filepath.Join(dir, "run1"), 0o700))

	// Another process that was killed: nobody holds its log.
	dead := filepath.Join(h.dir, ".ds/run/99-dead/inv/x")
	h.must(os.MkdirAll(dead, 0o700))
	h.must(os.WriteFile(filepath.Join(h.dir, ".ds/run/99-dead/log"), nil, 0o600))
	other := h.another()
	_, err = other.RunDir()
	h.must(err)
	if _, err := os.Lstat(dead); err != nil {
		t.Error("swept again within the hour")
	}
	h.at(2 * time.Hour)
	_, err = other.RunDir()
	h.must(err)
	if _, err := os.Lstat(dead); err == nil {
		t.Error("the run directory of a dead process is left")
	}
	if _, err := os.Lstat(filepath.Join(dir, "run1")); err != nil {
		t.Errorf("the run directory of a live process is gone: %v", err)
	}
	h.must(h.s.Close())
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("left after Close")
	}
}

func TestCheck(t *testing.T) {
	h := newStore(t, cache.Options{})
	d := h.simple("x")
	h.evict(hostabi.EvictOptions{ExpiredOnly: true})
	if p, err := h.s.Check(t.Context(), false); err != nil || len(p) != 0 {
		t.Errorf("healthy: %v, %v", p, err)
	}
	hash := strings.Repeat("ab", 32)
	h.must(os.MkdirAll(filepath.Join(h.dir, "artifacts", hash), 0o700))
	h.must(os.WriteFile(filepath.Join(h.dir, "artifacts", hash, "blob"), nil, 0o400))
	h.must(os.WriteFile(filepath.Join(filepath.Dir(h.blob(d)), "note.txt"), nil, 0o600))
	h.must(os.MkdirAll(filepath.Join(h.dir, ".ds/run/1-dead/s1"), 0o700))
	h.must(os.WriteFile(filepath.Join(h.dir, ".ds/run/1-dead/log"), nil, 0o600))
	found, err := h.s.Check(t.Context(), false)
	h.must(err)
	var what []string
	for _, p := range found {
		what = append(what, p.What)
	}
	slices.Sort(what)
	want := []string{"disagrees with the files", "does not belong into an entry", "lacks a file", "was left by a process that was killed"}
	if !slices.Equal(what, want) {
		t.Errorf("found %q", what)
	}
	if _, err := h.s.Check(t.Context(), true); err != nil {
		t.Error(err)
	}
	if p, err := h.s.Check(t.Context(), false); err != nil || len(p) != 0 {
		t.Errorf("after repair: %v, %v", p, err)
	}
	h.has(d, []byte("x"))
}

// A lease that is written when gc has decided already, but not yet renamed, still holds.
func TestLeaseAtTheLastMoment(t *testing.T) {
	for name, hold := range map[string]func(*harness, *cache.Store, hostabi.Digest) error{
		"lease": func(h *harness, s *cache.Store, d hostabi.Digest) error {
			_, err := s.View("porter", "").Path(h.Context(), d)
			return err
		},
		"pin": func(h *harness, s *cache.Store, d hostabi.Digest) error {
			return s.Pin(h.Context(), d, "porter", time.Now().Add(time.Hour))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newStore(t, cache.Options{})
			d := h.simple("x")
			other := h.another()
			held := false
			h.o.FS = &faultFS{FS: realFS(), change: func(op, to string) error {
				if op == "rename" && strings.HasPrefix(filepath.Base(to), "t") && !held {
					held = true
					return hold(h, other, d)
				}
				return nil
			}}
			h.s = h.another()
			if got := h.evict(hostabi.EvictOptions{}); len(got) != 0 || !held {
				t.Errorf("evicted %v, held %v", got, held)
			}
			h.has(d, []byte("x"))
			h.exact()
		})
	}
}

// The index may not know yet that an entry was used: the directory does.
func TestEvictSeesUseByOthers(t *testing.T) {
	h := newStore(t, cache.Options{})
	ds := h.fill(4)
	h.evict(hostabi.EvictOptions{MaxBytes: 1 << 30}) // the snapshot knows their order
	h.age(ds[0], time.Minute)
	u, err := h.s.Usage(t.Context())
	h.must(err)
	if got := keys(h.evict(hostabi.EvictOptions{MaxBytes: u.DiskBytes / 2})); !slices.Equal(got, sorted(ds[1:3]...)) {
		t.Errorf("evicted %v, want the second and third", got)
	}
	h.must(os.Chtimes(filepath.Dir(h.blob(ds[3])), time.Time{}, time.Now().Add(1000*time.Hour))) // the clock jumped
	if got := keys(h.evict(hostabi.EvictOptions{MaxBytes: u.DiskBytes / 4})); !slices.Equal(got, ds[:1]) {
		t.Errorf("evicted %v, want the first: a time in the future is now", got)
	}
}

// TestUsageAfterAKilledEviction evicts everything after a process took one entry away and died before it could
// write the record: its size is not known any more.
func TestUsageAfterAKilledEviction(t *testing.T) {
	h := newStore(t, cache.Options{})
	ds := h.fill(6)
	h.evict(hostabi.EvictOptions{MaxBytes: 1 << 30}) // the snapshot knows all six
	h.must(os.RemoveAll(filepath.Dir(h.blob(ds[0]))))
	h.age(ds[1], 48*time.Hour)
	h.must(h.s.Pin(t.Context(), ds[5], "porter", time.Now().Add(time.Hour)))
	h.evict(hostabi.EvictOptions{MaxBytes: 1})
	h.exact()
	h.s = h.another()
	h.exact()
}
