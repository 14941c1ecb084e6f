package cache_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/delivery-station/ds/cache"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/internal/atomicfile"
)

// What hosts need of a view.
var (
	_ host.Cache      = (*cache.View)(nil)
	_ host.CacheAdmin = (*cache.View)(nil)
	_ host.Owner      = (*cache.View)(nil)
	_ host.Limiter    = (*cache.View)(nil)
	_ hostabi.Sink    = (*cache.Store)(nil)
)

// TestMain lets a test run this binary again as another process.
func TestMain(m *testing.M) {
	job, ok := os.LookupEnv("CACHE_CHILD")
	if !ok {
		os.Exit(m.Run())
	}
	if err := child(context.Background(), job, os.Getenv("CACHE_DIR")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child fetches one blob (fetch), or works until it is killed (work).
func child(ctx context.Context, job, dir string) error {
	s, err := cache.Open(ctx, cache.Options{Dir: dir, AutoClean: true, MaxSize: 1 << 20})
	if err != nil {
		return err
	}
	switch job {
	case "fetch":
		data := content(1, 3<<20)
		n, err := fetch(ctx, s, data, 16<<10)
		if err != nil {
			return err
		}
		fmt.Println(n)
		return s.Close()
	case "work":
		return work(ctx, s)
	}
	return fmt.Errorf("no job %q", job)
}

// content is n bytes that seed alone decides.
func content(seed uint64, n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	b := make([]byte, n)
	_, _ = r.Read(b)
	return b
}

// fetch brings data into the cache as a pull does, and tells how many bytes it had to write.
func fetch(ctx context.Context, s hostabi.Sink, data []byte, chunk int) (written int, err error) {
	d := hostabi.DigestOf(data)
	w, err := s.Create(ctx, hostabi.Descriptor{Digest: d, Size: int64(len(data)), MediaType: "text/plain"})
	if hostabi.ReasonOf(err) == hostabi.ReasonExists {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	for c := range slices.Chunk(data[w.Offset():], chunk) {
		n, err := w.Write(c)
		written += n
		if err != nil {
			return written, errors.Join(err, w.Abort())
		}
	}
	_, err = w.Commit(ctx)
	return written, err
}

type harness struct {
	*testing.T
	dir string
	s   *cache.Store
	o   cache.Options
	now time.Time // of the injected clock, if set

	mu      sync.Mutex
	metrics map[string]int64
	events  []hostabi.Event
}

// newStore opens a store in a directory of its own; o may set any option.
func newStore(t *testing.T, o cache.Options) *harness {
	t.Helper()
	h := &harness{T: t, dir: filepath.Join(t.TempDir(), "cache"), metrics: make(map[string]int64)}
	if o.Dir == "" {
		o.Dir = h.dir
	}
	o.Observe = func(m cache.Metric) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.metrics[m.Name+"{"+m.Label+"="+m.Value+"}"] += m.N
	}
	o.Publish = func(topic string, data map[string]any) {
		text, err := json.Marshal(data)
		if err != nil {
			t.Error(err)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.events = append(h.events, hostabi.Event{Topic: topic, Data: text})
	}
	o.Clock = func() time.Time {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.now.IsZero() {
			return time.Now()
		}
		return h.now
	}
	h.o = o
	h.s = h.another()
	return h
}

// another opens the same directory as another process would.
func (h *harness) another() *cache.Store {
	h.Helper()
	s, err := cache.Open(h.Context(), h.o)
	h.must(err)
	h.Cleanup(func() { _ = s.Close() })
	return s
}

// at moves the clock to so long from the real time.
func (h *harness) at(later time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = time.Now().Add(later)
}

func (h *harness) metric(name string) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.metrics["ds.cache."+name]
}

func (h *harness) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *harness) want(err error, r hostabi.Reason) {
	h.Helper()
	if e, ok := err.(*hostabi.Error); !ok || e.Reason != r { //nolint:errorlint // the type itself is the promise
		h.Errorf("error is %v (%T), want %s", err, err, r)
	}
	if r == hostabi.ReasonNotCached && !errors.Is(err, fs.ErrNotExist) {
		h.Errorf("%v is not fs.ErrNotExist", err)
	}
}

// put commits data through sink, with its digest known or not.
func (h *harness) put(sink hostabi.Sink, data []byte, known bool, ttl time.Duration) hostabi.Digest {
	h.Helper()
	want := hostabi.Descriptor{MediaType: "text/plain"}
	if known {
		want.Digest, want.Size = hostabi.DigestOf(data), int64(len(data))
	}
	w, err := sink.Create(h.Context(), want)
	h.must(err)
	n, err := w.Write(data)
	if err != nil || n != len(data) {
		h.Fatalf("wrote %d of %d bytes: %v", n, len(data), err)
	}
	w.(host.Expecter).Expect(hostabi.Descriptor{Annotations: map[string]string{"k": "v"}}, ttl)
	info, err := w.Commit(h.Context())
	h.must(err)
	if d := hostabi.DigestOf(data); info.Digest != d || info.Size != int64(len(data)) {
		h.Fatalf("committed %+v, want %s", info, d)
	}
	return info.Digest
}

// simple puts a few bytes by the host.
func (h *harness) simple(text string) hostabi.Digest {
	h.Helper()
	return h.put(h.s, []byte(text), true, 0)
}

func (h *harness) has(d hostabi.Digest, data []byte) {
	h.Helper()
	f, err := h.s.Open(h.Context(), d)
	h.must(err)
	defer func() { _ = f.Close() }()
	got, err := io.ReadAll(f)
	if err != nil || !bytes.Equal(got, data) {
		h.Errorf("%s has %d bytes, want %d: %v", d, len(got), len(data), err)
	}
}

func (h *harness) lacks(d hostabi.Digest) {
	h.Helper()
	f, err := h.s.Open(h.Context(), d)
	if err == nil {
		_ = f.Close()
		h.Errorf("%s is there", d)
		return
	}
	h.want(err, hostabi.ReasonNotCached)
}

func (h *harness) blob(d hostabi.Digest) string {
	return filepath.Join(h.dir, "artifacts", d.Hex(), "blob")
}

func (h *harness) meta(d hostabi.Digest) string {
	return filepath.Join(h.dir, "artifacts", d.Hex(), "metadata.json")
}

// files lists all below the cache, directories with a slash; run directories and digests are shortened.
func (h *harness) files() []string {
	h.Helper()
	var all []string
	err := filepath.WalkDir(h.dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || p == h.dir {
			return err
		}
		rel, _ := filepath.Rel(h.dir, p)
		rel = filepath.ToSlash(rel)
		if e.IsDir() {
			rel += "/"
		}
		all = append(all, rel)
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.Fatal(err)
	}
	return all
}

// count is how many paths below the cache contain part.
func (h *harness) count(part string) (n int) {
	h.Helper()
	for _, f := range h.files() {
		if strings.Contains(f, part) {
			n++
		}
	}
	return n
}

// staging is how many blobs, trash and unfinished files there are in run directories and flights.
func (h *harness) staging() (n int) {
	h.Helper()
	for _, pattern := range []string{"run/*/[stn]*", "flight/*", "run/*/inv"} {
		found, err := filepath.Glob(filepath.Join(h.dir, ".ds", pattern))
		h.must(err)
		n += len(found)
	}
	return n
}

func (h *harness) evict(o hostabi.EvictOptions) map[hostabi.Digest]hostabi.BlobInfo {
	h.Helper()
	got := make(map[hostabi.Digest]hostabi.BlobInfo)
	for b, err := range h.s.Evict(h.Context(), o) {
		h.must(err)
		got[b.Digest] = b
	}
	return got
}

func (h *harness) listed(owner hostabi.PluginName) []hostabi.Digest {
	h.Helper()
	var ds []hostabi.Digest
	for b, err := range h.s.List(h.Context(), owner) {
		h.must(err)
		ds = append(ds, b.Digest)
	}
	slices.Sort(ds)
	return ds
}

// exact compares the usage with the files.
func (h *harness) exact() {
	h.Helper()
	u, err := h.s.Usage(h.Context())
	h.must(err)
	want := hostabi.CacheUsage{MaxBytes: h.o.MaxSize, PinnedBytes: u.PinnedBytes}
	dirs, err := os.ReadDir(filepath.Join(h.dir, "artifacts"))
	h.must(err)
	for _, e := range dirs {
		want.Entries++
		for _, n := range []string{"blob", "metadata.json"} {
			fi, err := os.Lstat(filepath.Join(h.dir, "artifacts", e.Name(), n))
			h.must(err)
			want.DiskBytes += atomicfile.DiskBytes(fi)
			if n == "blob" {
				want.Bytes += fi.Size()
			}
		}
	}
	if u != want {
		h.Errorf("usage is %+v, files say %+v", u, want)
	}
}

// age sets the time of last use.
func (h *harness) age(d hostabi.Digest, ago time.Duration) {
	h.Helper()
	t := time.Now().Add(-ago)
	h.must(os.Chtimes(filepath.Dir(h.blob(d)), t, t))
}

func sorted(ds ...hostabi.Digest) []hostabi.Digest { return slices.Sorted(slices.Values(ds)) }

func keys(m map[hostabi.Digest]hostabi.BlobInfo) []hostabi.Digest {
	return slices.Sorted(maps.Keys(m))
}

// faultFS fails what its functions say.
type faultFS struct {
	atomicfile.FS
	change func(op, name string) error // before mkdir, create, rename, remove, chtimes, lock
	write  func(name string) error     // before each write; a short half is written then
}

func (f *faultFS) fail(op, name string) error {
	if f.change == nil {
		return nil
	}
	return f.change(op, name)
}

func (f *faultFS) Mkdir(name string, perm fs.FileMode) error {
	if err := f.fail("mkdir", name); err != nil {
		return err
	}
	return f.FS.Mkdir(name, perm)
}

func (f *faultFS) Rename(from, to string) error {
	if err := f.fail("rename", to); err != nil {
		return err
	}
	return f.FS.Rename(from, to)
}

func (f *faultFS) Remove(name string) error {
	if err := f.fail("remove", name); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

func (f *faultFS) Chtimes(name string, t time.Time) error {
	if err := f.fail("chtimes", name); err != nil {
		return err
	}
	return f.FS.Chtimes(name, t)
}

func (f *faultFS) Lock(ctx context.Context, name string) (func() error, error) {
	if err := f.fail("lock", name); err != nil {
		return nil, err
	}
	return f.FS.Lock(ctx, name)
}

func (f *faultFS) Open(name string, flag int, perm fs.FileMode) (atomicfile.File, error) {
	if flag&(os.O_WRONLY|os.O_RDWR) != 0 {
		if err := f.fail("open", name); err != nil {
			return nil, err
		}
	}
	file, err := f.FS.Open(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &faultFile{file, f, name}, nil
}

type faultFile struct {
	atomicfile.File
	fs   *faultFS
	name string
}

func (f *faultFile) Write(p []byte) (int, error) {
	if f.fs.write != nil {
		if err := f.fs.write(f.name); err != nil {
			n, _ := f.File.Write(p[:len(p)/2])
			return n, err
		}
	}
	return f.File.Write(p)
}

func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	if f.fs.write != nil {
		if err := f.fs.write(f.name); err != nil {
			n, _ := f.File.WriteAt(p[:len(p)/2], off)
			return n, err
		}
	}
	return f.File.WriteAt(p, off)
}

// readOnly refuses all changes as a read-only mount does.
func readOnly() *faultFS {
	return &faultFS{FS: atomicfile.OS(), change: func(op, name string) error { return &fs.PathError{Op: op, Path: name, Err: syscall.EROFS} }}
}

func mustInt(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
