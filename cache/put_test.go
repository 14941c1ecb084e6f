package cache_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/delivery-station/ds/cache"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

func TestPutAndGet(t *testing.T) {
	for name, c := range map[string]struct {
		view  func(*cache.Store) hostabi.Sink
		known bool
		o     cache.Options
	}{
		"shared":           {func(s *cache.Store) hostabi.Sink { return s }, true, cache.Options{}},
		"private":          {func(s *cache.Store) hostabi.Sink { return s }, false, cache.Options{}},
		"plugin":           {func(s *cache.Store) hostabi.Sink { return s.View("porter", "") }, true, cache.Options{}},
		"pull":             {func(s *cache.Store) hostabi.Sink { return s.View("porter", "ghcr.io/a/b") }, true, cache.Options{}},
		"durable":          {func(s *cache.Store) hostabi.Sink { return s }, true, cache.Options{Durable: true}},
		"verify always":    {func(s *cache.Store) hostabi.Sink { return s }, true, cache.Options{Verify: cache.VerifyAlways}},
		"without boot id":  {func(s *cache.Store) hostabi.Sink { return s }, true, cache.Options{FS: noBoot{atomicfile.OS()}}},
		"private, durable": {func(s *cache.Store) hostabi.Sink { return s }, false, cache.Options{Durable: true}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newStore(t, c.o)
			for i, n := range []int{0, 1, 4096, 300_000} {
				data := content(uint64(i), n)
				d := h.put(c.view(h.s), data, c.known, 0)
				h.has(d, data)
				info, err := h.s.Stat(t.Context(), d)
				h.must(err)
				if info.Digest != d || info.Size != int64(n) || info.MediaType != "text/plain" || info.Annotations["k"] != "v" ||
					time.Since(info.Created) > time.Minute || time.Since(info.Used) > time.Minute || !info.Expires.IsZero() || info.Pinned {
					t.Errorf("info %+v", info)
				}
				if want := name == "pull"; slices.Equal(info.Sources, []string{"ghcr.io/a/b"}) != want {
					t.Errorf("sources %v", info.Sources)
				}
			}
			if n := h.metric("hashed_bytes{why=stamp}") + h.metric("hashed_bytes{why=boot}"); n != 0 && name != "verify always" {
				t.Errorf("%d bytes were hashed again", n)
			}
			if n := h.staging(); n != 0 {
				t.Errorf("staging or locks left: %v", h.files())
			}
			if got := len(h.listed("")); got != 4 {
				t.Errorf("%d blobs listed", got)
			}
			h.exact()
		})
	}
}

type noBoot struct{ atomicfile.FS }

func (noBoot) BootID() string { return "" }

// The layout and the first bytes of metadata.json are a format that other programs read.
func TestFormatOnDisk(t *testing.T) {
	h := newStore(t, cache.Options{BootID: "boot", AutoClean: true})
	expires := time.Hour
	d := h.put(h.s.View("porter", ""), []byte("hello"), false, expires)
	h.must(h.s.Pin(t.Context(), d, "porter", time.Now().Add(time.Hour)))
	h.must(h.s.SetRef(t.Context(), "ghcr.io/a/b:v1", hostabi.Descriptor{Digest: d, Size: 5}))
	b, err := os.ReadFile(h.meta(d))
	h.must(err)
	head, rest := string(b[:114]), string(b[114:])
	if !strings.HasPrefix(head, `{"v":1,"stamp":"`) || head[80:93] != `","expires":"` || head[113] != '"' {
		t.Errorf("head %q", head)
	}
	if at, err := time.Parse("2006-01-02T15:04:05Z", head[93:113]); err != nil || time.Until(at) > expires || time.Until(at) < expires-time.Minute {
		t.Errorf("expires %q: %v", head[93:113], err)
	}
	if !strings.HasPrefix(rest, `,"digest":"`+string(d)+`","size":5,"media_type":"text/plain","created":"`) ||
		!strings.HasSuffix(rest, `"durable":false,"sources":[],"annotations":{"k":"v"}}`+"\n") || strings.Count(rest, "\n") != 1 {
		t.Errorf("rest %q", rest)
	}
	h.must(h.s.Close())
	if runtime.GOOS == "windows" {
		return
	}
	for name, mode := range map[string]os.FileMode{
		".": os.ModeDir | 0o700, "artifacts": os.ModeDir | 0o700, "artifacts/" + d.Hex(): os.ModeDir | 0o700,
		"artifacts/" + d.Hex() + "/blob": 0o400, "artifacts/" + d.Hex() + "/metadata.json": 0o600,
		".ds": os.ModeDir | 0o700, ".ds/VERSION": 0o600, "README": 0o600, "index.json": 0o600, ".ds/snapshot": 0o600, ".ds/gc.lock": 0o600,
		".ds/owners/porter/" + d.Hex() + "-5": 0o600, ".ds/pins/" + d.Hex() + "/porter": 0o600,
	} {
		fi, err := os.Lstat(filepath.Join(h.dir, name))
		if err != nil || fi.Mode() != mode {
			t.Errorf("%s: mode %v, %v, want %v", name, fi.Mode(), err, mode)
		}
	}
	if v, _ := os.ReadFile(filepath.Join(h.dir, ".ds/VERSION")); string(v) != "1\n" {
		t.Errorf("VERSION %q", v)
	}
	if n := h.count(".ds/run/"); n != 1 { // the directory run itself
		t.Errorf("run directory is left: %v", h.files())
	}
}

func TestNothingIsCreatedBeforeTheFirstWrite(t *testing.T) {
	h := newStore(t, cache.Options{AutoClean: true, MaxSize: 1})
	ctx := t.Context()
	d := hostabi.DigestOf([]byte("x"))
	v := h.s.View("porter", "ghcr.io/a/b")
	_, err := v.Stat(ctx, d)
	h.want(err, hostabi.ReasonNotCached)
	_, err = v.Open(ctx, d)
	h.want(err, hostabi.ReasonNotCached)
	_, err = v.Path(ctx, d)
	h.want(err, hostabi.ReasonNotCached)
	h.want(h.s.Pin(ctx, d, "porter", time.Now().Add(time.Hour)), hostabi.ReasonNotCached)
	h.want(h.s.Remove(ctx, "porter", d), hostabi.ReasonNotCached)
	h.want(h.s.Remove(ctx, "", d), hostabi.ReasonNotCached)
	h.must(h.s.Pin(ctx, d, "porter", time.Time{}))
	h.must(h.s.Retire("porter"))
	_, _, err = h.s.Ref(ctx, "ghcr.io/a/b:v1")
	h.want(err, hostabi.ReasonNotCached)
	if got := append(h.listed(""), h.listed("porter")...); len(got) != 0 {
		t.Errorf("listed %v", got)
	}
	if got := h.evict(hostabi.EvictOptions{}); len(got) != 0 {
		t.Errorf("evicted %v", got)
	}
	for v, err := range h.s.Verify(ctx, nil, true) {
		t.Errorf("verdict %+v, %v", v, err)
	}
	if u, err := h.s.Usage(ctx); err != nil || u != (hostabi.CacheUsage{MaxBytes: 1}) {
		t.Errorf("usage %+v, %v", u, err)
	}
	if p, err := h.s.Check(ctx, true); err != nil || len(p) != 0 {
		t.Errorf("problems %v, %v", p, err)
	}
	h.must(v.Close())
	h.must(h.s.Close())
	if _, err := os.Lstat(h.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("created: %v", h.files())
	}
}

func TestCommitRefusesWrongContent(t *testing.T) {
	good := []byte("hello, world")
	d := hostabi.DigestOf(good)
	for name, c := range map[string]struct {
		want   hostabi.Descriptor
		expect hostabi.Descriptor
		write  string
	}{
		"digest":           {hostabi.Descriptor{Digest: d, Size: 12}, hostabi.Descriptor{}, "hello, World"},
		"short":            {hostabi.Descriptor{Digest: d, Size: 12}, hostabi.Descriptor{}, "hello"},
		"long":             {hostabi.Descriptor{Digest: d, Size: 12}, hostabi.Descriptor{}, "hello, world!"},
		"size is wrong":    {hostabi.Descriptor{Digest: d, Size: 13}, hostabi.Descriptor{}, "hello, world"},
		"empty is known":   {hostabi.Descriptor{Digest: hostabi.DigestOf(nil)}, hostabi.Descriptor{}, "x"},
		"late digest":      {hostabi.Descriptor{}, hostabi.Descriptor{Digest: d}, "hello, World"},
		"late size":        {hostabi.Descriptor{}, hostabi.Descriptor{Digest: d, Size: 11}, "hello, world"},
		"other late digst": {hostabi.Descriptor{Digest: d, Size: 12}, hostabi.Descriptor{Digest: hostabi.DigestOf(nil)}, "hello, world"},
	} {
		for kind, sink := range map[string]func(*cache.Store) hostabi.Sink{
			"host": func(s *cache.Store) hostabi.Sink { return s }, "plugin": func(s *cache.Store) hostabi.Sink { return s.View("porter", "") },
		} {
			t.Run(name+" "+kind, func(t *testing.T) {
				h := newStore(t, cache.Options{})
				w, err := sink(h.s).Create(t.Context(), c.want)
				h.must(err)
				_, werr := w.Write([]byte(c.write))
				if over := c.want.Digest != "" && len(c.write) > int(c.want.Size); (werr != nil) != over {
					t.Errorf("write: %v", werr)
				}
				w.(interface {
					Expect(hostabi.Descriptor, time.Duration)
				}).Expect(c.expect, 0)
				_, err = w.Commit(t.Context())
				h.want(err, hostabi.ReasonDigestMismatch)
				if _, err := w.Write([]byte("x")); err == nil {
					t.Error("a closed writer took more")
				}
				if _, err := w.Commit(t.Context()); err == nil {
					t.Error("committed twice")
				}
				h.must(w.Abort())
				h.lacks(d)
				if n := h.count("blob") + h.count("owners/porter/") + h.count(".lock"); n > 1 { // the owner's empty directory may be there
					t.Errorf("left: %v", h.files())
				}
			})
		}
	}
}

func TestBadNamesNeverBecomePaths(t *testing.T) {
	h := newStore(t, cache.Options{})
	ctx := t.Context()
	for _, d := range []hostabi.Digest{"sha256:../../x", "x", hostabi.Digest("sha256:" + strings.Repeat("A", 64))} {
		_, err := h.s.Stat(ctx, d)
		h.want(err, hostabi.ReasonBadDigest)
		_, err = h.s.Open(ctx, d)
		h.want(err, hostabi.ReasonBadDigest)
		_, err = h.s.View("porter", "a/b").Stat(ctx, d)
		h.want(err, hostabi.ReasonBadDigest)
		_, err = h.s.Create(ctx, hostabi.Descriptor{Digest: d})
		h.want(err, hostabi.ReasonBadDigest)
		h.want(h.s.Pin(ctx, d, "porter", time.Now()), hostabi.ReasonBadDigest)
		h.want(h.s.Remove(ctx, "porter", d), hostabi.ReasonBadDigest)
		h.want(h.s.SetRef(ctx, "a/b:c", hostabi.Descriptor{Digest: d}), hostabi.ReasonBadDigest)
		for _, err := range h.s.Verify(ctx, []hostabi.Digest{d}, true) {
			h.want(err, hostabi.ReasonBadDigest)
		}
		if h.s.Owned(ctx, "porter", d, 1) {
			t.Errorf("%s is owned", d)
		}
	}
	good := h.simple("x")
	for _, owner := range []hostabi.PluginName{"../x", "A", "_", "porter~1"} {
		_, err := h.s.View(owner, "").Create(ctx, hostabi.Descriptor{})
		h.want(err, hostabi.ReasonUsage)
		h.want(h.s.Pin(ctx, good, owner, time.Now().Add(time.Hour)), hostabi.ReasonUsage)
		h.want(h.s.Remove(ctx, owner, good), hostabi.ReasonUsage)
		h.want(h.s.Retire(owner), hostabi.ReasonUsage)
		for _, err := range h.s.List(ctx, owner) {
			h.want(err, hostabi.ReasonUsage)
		}
	}
}

func TestResume(t *testing.T) {
	data := content(7, 100_000)
	d := hostabi.DigestOf(data)
	want := hostabi.Descriptor{Digest: d, Size: int64(len(data))}
	for name, c := range map[string]struct {
		prefix []byte
		offset int64
		sealed bool
		ok     bool // the rest of the data completes it
	}{
		"nothing":        {nil, 0, false, true},
		"one byte":       {data[:1], 1, false, true},
		"half":           {data[:50_000], 50_000, false, true},
		"all":            {data, 100_000, false, true},
		"sealed":         {data, 100_000, true, true},
		"too long":       {append(slices.Clone(data), 'x'), 0, false, true},
		"wrong bytes":    {content(8, 50_000), 50_000, false, false},
		"wrong and full": {content(8, 100_000), 100_000, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newStore(t, cache.Options{})
			h.simple("makes the layout")
			dir := filepath.Join(h.dir, ".ds/flight", d.Hex())
			if c.prefix != nil {
				h.must(os.Mkdir(dir, 0o700))
				h.must(os.WriteFile(filepath.Join(dir, "blob"), c.prefix, 0o600))
			}
			if c.sealed {
				h.must(os.Chmod(filepath.Join(dir, "blob"), 0o400))
				h.must(os.WriteFile(filepath.Join(dir, "metadata.json"), []byte("half"), 0o600))
			}
			w, err := h.s.Create(t.Context(), want)
			h.must(err)
			if w.Offset() != c.offset {
				t.Errorf("offset %d, want %d", w.Offset(), c.offset)
			}
			_, err = w.Write(data[w.Offset():])
			h.must(err)
			_, err = w.Commit(t.Context())
			if c.ok {
				h.must(err)
				h.has(d, data)
				return
			}
			h.want(err, hostabi.ReasonDigestMismatch)
			w, err = h.s.Create(t.Context(), want) // from the start, the wrong prefix is gone
			h.must(err)
			if w.Offset() != 0 {
				t.Errorf("offset %d after a mismatch", w.Offset())
			}
			h.must(w.Abort())
		})
	}
}

func TestAbort(t *testing.T) {
	data := content(1, 1000)
	d := hostabi.DigestOf(data)
	want := hostabi.Descriptor{Digest: d, Size: 1000}
	for name, c := range map[string]struct {
		sink func(*harness) hostabi.Sink
		end  func(context.Context, hostabi.BlobWriter) error
		keep int64
	}{
		"host keeps":     {func(h *harness) hostabi.Sink { return h.s }, func(_ context.Context, w hostabi.BlobWriter) error { return w.Abort() }, 400},
		"pull keeps":     {func(h *harness) hostabi.Sink { return h.s.View("porter", "a/b") }, func(_ context.Context, w hostabi.BlobWriter) error { return w.Abort() }, 400},
		"plugin deletes": {func(h *harness) hostabi.Sink { return h.s.View("porter", "") }, func(_ context.Context, w hostabi.BlobWriter) error { return w.Abort() }, 0},
		"cancelled": {func(h *harness) hostabi.Sink { return h.s }, func(ctx context.Context, w hostabi.BlobWriter) error {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			_, err := w.Commit(ctx)
			if hostabi.ReasonOf(err) != hostabi.ReasonInterrupted {
				return fmt.Errorf("commit after the end: %w", err)
			}
			return nil
		}, 400},
	} {
		t.Run(name, func(t *testing.T) {
			h := newStore(t, cache.Options{})
			w, err := c.sink(h).Create(t.Context(), want)
			h.must(err)
			_, err = w.Write(data[:400])
			h.must(err)
			h.must(c.end(t.Context(), w))
			h.must(w.Abort()) // again
			h.lacks(d)
			if n := h.staging(); n > 1 || n == 1 && c.keep == 0 {
				t.Errorf("left: %v", h.files())
			}
			w, err = h.s.Create(t.Context(), want)
			h.must(err)
			if w.Offset() != c.keep {
				t.Errorf("offset %d, want %d", w.Offset(), c.keep)
			}
			h.must(w.Abort())
		})
	}
}

func TestCreateOfWhatIsThere(t *testing.T) {
	h := newStore(t, cache.Options{})
	ctx := t.Context()
	d := h.simple("x")
	_, err := h.s.Create(ctx, hostabi.Descriptor{Digest: d, Size: 1})
	h.want(err, hostabi.ReasonExists)
	pull := h.s.View("porter", "a/b")
	_, err = pull.Create(ctx, hostabi.Descriptor{Digest: d, Size: 1})
	h.want(err, hostabi.ReasonExists)
	if !pull.Touched(d) {
		t.Error("found through its sink, not touched")
	}
	// A plugin that names a digest learns nothing, pays for the bytes, and owns the blob then.
	plugin := h.s.View("porter", "")
	h.put(plugin, []byte("x"), true, 0)
	if !h.s.Owned(ctx, "porter", d, 1) || h.s.Owned(ctx, "porter", d, 2) || h.s.Owned(ctx, "other", d, 1) {
		t.Error("owned by the wrong one")
	}
	_, err = plugin.Create(ctx, hostabi.Descriptor{Digest: d, Size: 1})
	h.want(err, hostabi.ReasonExists)
	// A pull from another repository that brings the bytes notes its source.
	w, err := h.s.View("porter", "c/d").Create(ctx, hostabi.Descriptor{})
	h.must(err)
	_, err = w.Write([]byte("x"))
	h.must(err)
	info, err := w.Commit(ctx)
	h.must(err)
	if !slices.Equal(info.Sources, []string{"c/d"}) {
		t.Errorf("sources %v", info.Sources)
	}
	h.has(d, []byte("x"))
	if n := h.metric("hashed_bytes{why=stamp}"); n != 0 {
		t.Errorf("%d bytes hashed again after metadata.json was replaced", n)
	}
}

func TestOneDigestFromManyGoroutines(t *testing.T) {
	h := newStore(t, cache.Options{})
	data := content(3, 1<<20)
	var total atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		s := h.another()
		wg.Go(func() {
			n, err := fetch(t.Context(), s, data, 4096)
			if err != nil {
				t.Error(err)
			}
			total.Add(int64(n))
		})
	}
	wg.Wait()
	if total.Load() != 1<<20 {
		t.Errorf("%d bytes were fetched, want each once", total.Load())
	}
	h.has(hostabi.DigestOf(data), data)
}

func TestWaiterContinuesWhatWasAborted(t *testing.T) {
	h := newStore(t, cache.Options{})
	data := content(3, 10_000)
	want := hostabi.Descriptor{Digest: hostabi.DigestOf(data), Size: 10_000}
	w, err := h.s.Create(t.Context(), want)
	h.must(err)
	_, err = w.Write(data[:6000])
	h.must(err)
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = h.another().Create(short, want)
	h.want(err, hostabi.ReasonTimeout)
	got := make(chan int, 1)
	go func() {
		n, err := fetch(t.Context(), h.another(), data, 1000)
		if err != nil {
			t.Error(err)
		}
		got <- n
	}()
	h.must(w.Abort())
	if n := <-got; n != 4000 {
		t.Errorf("the next one wrote %d bytes, want the missing 4000", n)
	}
}

func TestOneDigestFromManyProcesses(t *testing.T) {
	h := newStore(t, cache.Options{})
	var mu sync.Mutex
	total := 0
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), "CACHE_CHILD=fetch", "CACHE_DIR="+h.dir)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Errorf("child: %v", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			total += mustInt(t, string(out))
		})
	}
	wg.Wait()
	if total != 3<<20 {
		t.Errorf("%d bytes were fetched, want each once", total)
	}
	data := content(1, 3<<20)
	h.has(hostabi.DigestOf(data), data)
	h.exact()
}

func TestPrivatePutsOfOneDigest(t *testing.T) {
	h := newStore(t, cache.Options{})
	data := content(3, 100_000)
	var wg sync.WaitGroup
	for i := range 8 {
		v := h.another().View(hostabi.PluginName(fmt.Sprintf("p%d", i)), "")
		wg.Go(func() { h.put(v, data, false, 0) })
	}
	wg.Wait()
	d := hostabi.DigestOf(data)
	h.has(d, data)
	for i := range 8 {
		if !h.s.Owned(t.Context(), hostabi.PluginName(fmt.Sprintf("p%d", i)), d, 100_000) {
			t.Errorf("p%d has no claim", i)
		}
	}
	if n := h.count("blob"); n != 1 {
		t.Errorf("staging left: %v", h.files())
	}
}

func TestHalfEntriesAreReplaced(t *testing.T) {
	data := []byte("hello")
	d := hostabi.DigestOf(data)
	for name, files := range map[string][]string{"empty": nil, "only blob": {"blob"}, "only metadata": {"metadata.json"}} {
		t.Run(name, func(t *testing.T) {
			h := newStore(t, cache.Options{})
			h.simple("makes the layout")
			h.must(os.Mkdir(filepath.Dir(h.blob(d)), 0o700))
			for _, f := range files {
				h.must(os.WriteFile(filepath.Join(filepath.Dir(h.blob(d)), f), data, 0o600))
			}
			h.lacks(d)
			h.put(h.s, data, true, 0)
			h.has(d, data)
			h.must(os.RemoveAll(filepath.Join(filepath.Dir(h.blob(d)), "metadata.json")))
			h.lacks(d)
			h.put(h.s, data, false, 0)
			h.has(d, data)
		})
	}
}

func TestExpiry(t *testing.T) {
	h := newStore(t, cache.Options{})
	data := []byte("short-lived")
	d := h.put(h.s, data, true, time.Hour)
	h.has(d, data)
	h.at(2 * time.Hour)
	h.lacks(d)
	_, err := h.s.Stat(t.Context(), d)
	h.want(err, hostabi.ReasonNotCached)
	if got := h.listed(""); len(got) != 0 {
		t.Errorf("listed %v", got)
	}
	if h.metric("requests{result=expired}") != 2 {
		t.Errorf("metrics %v", h.metrics)
	}
	h.put(h.s, data, true, 0) // fetched again, for good
	h.has(d, data)
}

func TestDiskFull(t *testing.T) {
	full := &faultFS{FS: atomicfile.OS()}
	h := newStore(t, cache.Options{FS: full, MaxSize: 1 << 30})
	old := h.simple("old")
	h.age(old, time.Hour)
	leased := h.simple("leased")
	v := h.s.View("porter", "")
	f, err := v.Open(t.Context(), leased)
	h.must(err)
	defer func() { _ = f.Close() }()

	times := 1
	full.write = func(name string) error {
		if strings.HasSuffix(name, "blob") && times > 0 {
			times--
			return &os.PathError{Op: "write", Path: name, Err: syscall.ENOSPC}
		}
		return nil
	}
	data := content(1, 9999)
	d := h.put(h.s, data, true, 0) // repeated once after gc made room
	h.has(d, data)
	h.lacks(old)
	h.has(leased, []byte("leased"))
	if h.metric("evicted{reason=space}") != 1 {
		t.Errorf("metrics %v", h.metrics)
	}

	times = 1000
	for name, sink := range map[string]hostabi.Sink{"shared": h.s, "private": h.s.View("porter", "")} {
		data := []byte("no room for " + name)
		w, err := sink.Create(t.Context(), hostabi.Descriptor{Digest: hostabi.DigestOf(data), Size: int64(len(data))})
		h.must(err)
		_, err = w.Write(data)
		h.want(err, hostabi.ReasonNoSpace)
		if !strings.Contains(err.Error(), h.dir) || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("error %v", err)
		}
		_, err = w.Commit(t.Context())
		h.want(err, hostabi.ReasonNoSpace)
	}
	times = 0
	if h.staging() != 0 {
		t.Errorf("staging left: %v", h.files())
	}
	h.simple("the next command works")
}

func TestReadOnly(t *testing.T) {
	h := newStore(t, cache.Options{BootID: "one"})
	data := content(1, 5000)
	d := h.put(h.s, data, true, 0)
	h.age(d, 48*time.Hour)
	h.must(h.s.Close())
	h.o.FS, h.o.BootID = readOnly(), "two" // rebooted: the stamp says nothing
	h.s = h.another()
	v := h.s.View("porter", "")
	for range 3 {
		h.has(d, data)
		f, err := v.Open(t.Context(), d)
		h.must(err)
		h.must(f.Close())
	}
	if n := h.metric("hashed_bytes{why=stamp}"); n != 5000 {
		t.Errorf("%d bytes hashed, want each once in this process", n)
	}
	h.must(v.Close())
	for name, sink := range map[string]hostabi.Sink{"shared": h.s, "private": v} {
		_, err := sink.Create(t.Context(), hostabi.Descriptor{Digest: hostabi.DigestOf([]byte(name)), Size: 9})
		h.want(err, hostabi.ReasonReadOnly)
		if !strings.Contains(err.Error(), "cache is read-only") {
			t.Errorf("error %v", err)
		}
	}
	_, err := h.s.RunDir()
	h.want(err, hostabi.ReasonReadOnly)
	h.want(h.s.SetRef(t.Context(), "a/b:c", hostabi.Descriptor{Digest: d}), hostabi.ReasonReadOnly)
	h.want(h.s.Pin(t.Context(), d, "porter", time.Now().Add(time.Hour)), hostabi.ReasonReadOnly)
}

func TestFailingFileSystemLeavesAMissOrABlob(t *testing.T) {
	data := content(1, 5000)
	for _, durable := range []bool{false, true} {
		for n := 0; ; n++ { // the n-th change fails
			left := n
			bad := &faultFS{FS: atomicfile.OS(), change: func(op, name string) error {
				if left--; left == -1 {
					return &os.PathError{Op: op, Path: name, Err: syscall.EIO}
				}
				return nil
			}}
			h := newStore(t, cache.Options{FS: bad, Durable: durable})
			_, err := fetch(t.Context(), h.s, data, 1000)
			hit := left < 0
			left = -1
			if err != nil && hostabi.ReasonOf(err) != hostabi.ReasonInternal {
				t.Errorf("operation %d: %v", n, err)
			}
			if err == nil {
				h.has(hostabi.DigestOf(data), data)
			} else if _, err := fetch(t.Context(), h.s, data, 1000); err != nil {
				t.Errorf("operation %d: the next fetch fails: %v", n, err)
			}
			h.has(hostabi.DigestOf(data), data)
			if !hit {
				if n < 10 {
					t.Errorf("a put has %d changes only: the test sees too little", n)
				}
				break
			}
		}
	}
}

func TestRemovedWhileRunning(t *testing.T) {
	h := newStore(t, cache.Options{AutoClean: true})
	v := h.s.View("porter", "a/b")
	data := []byte("hello")
	d := h.put(v, data, true, 0)
	f, err := v.Open(t.Context(), d)
	h.must(err)
	defer func() { _ = f.Close() }()
	open, err := h.s.Create(t.Context(), hostabi.Descriptor{})
	h.must(err)
	_, err = open.Write([]byte("staged"))
	h.must(err)
	h.must(os.RemoveAll(h.dir))
	h.lacks(d)
	if b := make([]byte, 5); func() bool { _, err := f.ReadAt(b, 0); return err != nil || string(b) != "hello" }() {
		t.Errorf("an open blob changed: %q", b)
	}
	if _, err := open.Commit(t.Context()); err == nil {
		t.Error("committed what was removed")
	}
	for _, known := range []bool{true, false} {
		h.put(h.s.View("porter", ""), []byte(fmt.Sprint("again", known)), known, 0)
		h.must(os.RemoveAll(h.dir))
	}
	dir, err := h.s.RunDir()
	h.must(err)
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
		t.Errorf("run directory: %v", err)
	}
	h.must(h.s.SetRef(t.Context(), "a/b:c", hostabi.Descriptor{Digest: d}))
	h.put(v, data, true, 0)
	h.has(d, data)
	h.must(v.Close())
}

func TestMetadataIsReadable(t *testing.T) {
	h := newStore(t, cache.Options{})
	d := h.put(h.s.View("porter", "ghcr.io/a/b"), []byte("x"), true, 0)
	b, err := os.ReadFile(h.meta(d))
	h.must(err)
	var m map[string]any
	h.must(json.Unmarshal(b, &m))
	if m["digest"] != string(d) || m["size"] != 1.0 || m["expires"] != "9999-12-31T23:59:59Z" {
		t.Errorf("metadata %v", m)
	}
}
