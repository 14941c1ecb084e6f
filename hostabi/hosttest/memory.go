package hosttest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/host"
)

// MemoryCache is a small cache for tests of handlers: blobs are files of one directory, what is known of them
// is in memory.
type MemoryCache struct {
	dir    string
	mu     sync.Mutex
	blobs  map[hostabi.Digest]*hostabi.BlobInfo
	owners map[hostabi.Digest][]hostabi.PluginName
}

// NewMemoryCache makes a cache with its blobs in dir.
func NewMemoryCache(dir string) *MemoryCache {
	return &MemoryCache{dir: dir, blobs: make(map[hostabi.Digest]*hostabi.BlobInfo), owners: make(map[hostabi.Digest][]hostabi.PluginName)}
}

// View is the function for host.Options.Cache.
func (c *MemoryCache) View(owner hostabi.PluginName, source string) (host.Cache, error) {
	return &memoryView{c: c, owner: owner, source: source}, nil
}

type memoryView struct {
	c      *MemoryCache
	owner  hostabi.PluginName
	source string
	quota  int64
}

func (v *memoryView) Close() error      { return nil }
func (v *memoryView) Limit(bytes int64) { v.quota = bytes }

func notCached(d hostabi.Digest) error {
	return hostabi.Errorf(hostabi.ReasonNotCached, "blob %s: not in the cache", d)
}

func (v *memoryView) Stat(_ context.Context, d hostabi.Digest) (hostabi.BlobInfo, error) {
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	if b := v.c.blobs[d]; b != nil {
		return *b, nil
	}
	return hostabi.BlobInfo{}, notCached(d)
}

func (v *memoryView) Open(_ context.Context, d hostabi.Digest) (*os.File, error) {
	f, err := os.Open(filepath.Join(v.c.dir, d.Hex()))
	if err != nil {
		return nil, notCached(d)
	}
	return f, nil
}

func (v *memoryView) Owned(_ context.Context, owner hostabi.PluginName, d hostabi.Digest, _ int64) bool {
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	return slices.Contains(v.c.owners[d], owner)
}

func (v *memoryView) List(_ context.Context, owner hostabi.PluginName) iter.Seq2[hostabi.BlobInfo, error] {
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	var all []hostabi.BlobInfo
	for _, d := range slices.Sorted(maps.Keys(v.c.blobs)) {
		if owner == "" || slices.Contains(v.c.owners[d], owner) {
			all = append(all, *v.c.blobs[d])
		}
	}
	return func(yield func(hostabi.BlobInfo, error) bool) {
		for _, b := range all {
			if !yield(b, nil) {
				return
			}
		}
	}
}

func (v *memoryView) Pin(_ context.Context, d hostabi.Digest, _ hostabi.PluginName, until time.Time) error {
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	if v.c.blobs[d] == nil {
		return notCached(d)
	}
	v.c.blobs[d].Pinned = !until.IsZero()
	return nil
}

func (v *memoryView) Usage(context.Context) (u hostabi.CacheUsage, err error) {
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	for _, b := range v.c.blobs {
		u.Entries++
		u.Bytes += b.Size
		if b.Pinned {
			u.PinnedBytes += b.Size
		}
	}
	u.DiskBytes = u.Bytes
	return u, nil
}

func (v *memoryView) Remove(_ context.Context, _ hostabi.PluginName, d hostabi.Digest) error {
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	delete(v.c.blobs, d)
	return os.Remove(filepath.Join(v.c.dir, d.Hex()))
}

// Evict removes what is not pinned. Nothing grows old here, and there is no limit.
func (v *memoryView) Evict(ctx context.Context, o hostabi.EvictOptions) iter.Seq2[hostabi.BlobInfo, error] {
	return func(yield func(hostabi.BlobInfo, error) bool) {
		for b, err := range v.List(ctx, "") {
			if o.ExpiredOnly || o.Policy || b.Pinned {
				continue
			}
			if err == nil && !o.DryRun {
				err = v.Remove(ctx, "", b.Digest)
			}
			if !yield(b, err) {
				return
			}
		}
	}
}

func (v *memoryView) Verify(ctx context.Context, ds []hostabi.Digest, repair bool) iter.Seq2[hostabi.Verdict, error] {
	return func(yield func(hostabi.Verdict, error) bool) {
		for _, d := range ds {
			b, err := os.ReadFile(filepath.Join(v.c.dir, d.Hex()))
			verdict := hostabi.Verdict{Digest: d, OK: err == nil && hostabi.DigestOf(b) == d}
			if !verdict.OK {
				verdict.Problem = "content differs"
			}
			if err == nil && !verdict.OK && repair {
				_ = v.Remove(ctx, "", d)
			}
			if !yield(verdict, nil) {
				return
			}
		}
	}
}

func (v *memoryView) Create(ctx context.Context, want hostabi.Descriptor) (hostabi.BlobWriter, error) {
	if want.Digest != "" {
		if _, err := v.Stat(ctx, want.Digest); err == nil {
			return nil, hostabi.Errorf(hostabi.ReasonExists, "blob %s: exists", want.Digest)
		}
	}
	return &memoryWriter{v: v, want: want}, nil
}

type memoryWriter struct {
	v    *memoryView
	want hostabi.Descriptor
	ttl  time.Duration
	buf  bytes.Buffer
}

func (w *memoryWriter) Offset() int64 { return 0 }
func (w *memoryWriter) Abort() error  { return nil }

func (w *memoryWriter) Expect(want hostabi.Descriptor, ttl time.Duration) { w.want, w.ttl = want, ttl }

func (w *memoryWriter) Write(p []byte) (int, error) {
	if w.v.quota > 0 && w.v.used()+int64(w.buf.Len()+len(p)) > w.v.quota {
		return 0, hostabi.Errorf(hostabi.ReasonQuota, "over the quota of %d bytes", w.v.quota)
	}
	return w.buf.Write(p)
}

// used is what the owner has committed.
func (v *memoryView) used() (n int64) {
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	for d, b := range v.c.blobs {
		if slices.Contains(v.c.owners[d], v.owner) {
			n += b.Size
		}
	}
	return n
}

func (w *memoryWriter) Commit(context.Context) (hostabi.BlobInfo, error) {
	d := hostabi.DigestOf(w.buf.Bytes())
	if w.want.Digest != "" && w.want.Digest != d || w.want.Size != 0 && w.want.Size != int64(w.buf.Len()) {
		return hostabi.BlobInfo{}, hostabi.Errorf(hostabi.ReasonDigestMismatch, "blob is %s", d)
	}
	c := w.v.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.blobs[d] == nil {
		if err := os.WriteFile(filepath.Join(c.dir, d.Hex()), w.buf.Bytes(), 0o400); err != nil {
			return hostabi.BlobInfo{}, err
		}
		c.blobs[d] = &hostabi.BlobInfo{Digest: d, Size: int64(w.buf.Len()), MediaType: w.want.MediaType, Annotations: w.want.Annotations}
	}
	if w.v.source != "" {
		if !slices.Contains(c.blobs[d].Sources, w.v.source) {
			c.blobs[d].Sources = append(c.blobs[d].Sources, w.v.source)
		}
	} else {
		c.owners[d] = append(c.owners[d], w.v.owner)
	}
	return *c.blobs[d], nil
}

// MemoryRegistry is a small registry for tests of handlers, puller and pusher in one.
type MemoryRegistry struct {
	Offline bool

	mu    sync.Mutex
	tags  map[string]map[string]hostabi.Descriptor // repository, tag
	blobs map[string]map[hostabi.Digest][]byte     // repository
}

// NewMemoryRegistry makes an empty registry.
func NewMemoryRegistry() *MemoryRegistry {
	return &MemoryRegistry{tags: make(map[string]map[string]hostabi.Descriptor), blobs: make(map[string]map[hostabi.Digest][]byte)}
}

// Canonical implements host.Puller.
func (r *MemoryRegistry) Canonical(ref string) (string, error) {
	repo, _, err := split(ref)
	return repo, err
}

func split(ref string) (repo, tag string, err error) {
	if repo, d, ok := strings.Cut(ref, "@"); ok {
		return repo, d, nil
	}
	repo, tag = ref, "latest"
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		repo, tag = ref[:i], ref[i+1:]
	}
	if repo == "" || tag == "" || strings.ToLower(repo) != repo || strings.HasSuffix(repo, ":") {
		return "", "", hostabi.Errorf(hostabi.ReasonRef, "reference %q: bad", ref)
	}
	return repo, tag, nil
}

// Resolve implements host.Puller.
func (r *MemoryRegistry) Resolve(_ context.Context, ref string) (hostabi.Descriptor, error) {
	repo, tag, err := split(ref)
	if err != nil {
		return hostabi.Descriptor{}, err
	}
	if r.Offline {
		return hostabi.Descriptor{}, hostabi.Errorf(hostabi.ReasonOffline, "%s: offline", ref)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for t, d := range r.tags[repo] {
		if t == tag || string(d.Digest) == tag {
			return d, nil
		}
	}
	return hostabi.Descriptor{}, hostabi.Errorf(hostabi.ReasonRefNotFound, "%s: not found", ref)
}

// Pull implements host.Puller.
func (r *MemoryRegistry) Pull(ctx context.Context, ref string, _ hostabi.PullOptions, into hostabi.Sink, p func(hostabi.Progress)) (hostabi.Descriptor, error) {
	root, err := r.Resolve(ctx, ref)
	if err != nil {
		return root, err
	}
	repo, _, _ := split(ref)
	for _, d := range r.graph(repo, root) {
		how := hostabi.FromCache
		if _, err := into.Stat(ctx, d.Digest); err != nil {
			how = hostabi.ByNetwork
			if err := r.fetch(ctx, repo, d, into); err != nil {
				return root, err
			}
		}
		p(hostabi.Progress{ID: string(d.Digest), Current: d.Size, Total: d.Size, State: hostabi.ProgressRun})
		p(hostabi.Progress{ID: string(d.Digest), State: hostabi.ProgressDone, Transfer: &hostabi.Transfer{Descriptor: d, How: how}})
	}
	return root, nil
}

func (r *MemoryRegistry) fetch(ctx context.Context, repo string, d hostabi.Descriptor, into hostabi.Sink) error {
	w, err := into.Create(ctx, d)
	if err != nil {
		return err
	}
	r.mu.Lock()
	b := r.blobs[repo][d.Digest]
	r.mu.Unlock()
	if _, err := w.Write(b); err != nil {
		return cmp.Or(err, w.Abort())
	}
	_, err = w.Commit(ctx)
	return err
}

// graph is what root names, itself last.
func (r *MemoryRegistry) graph(repo string, root hostabi.Descriptor) []hostabi.Descriptor {
	var m struct {
		Config *hostabi.Descriptor
		Layers []hostabi.Descriptor
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = json.Unmarshal(r.blobs[repo][root.Digest], &m) // no manifest: a root without children
	all := m.Layers
	if m.Config != nil {
		all = append(all, *m.Config)
	}
	return append(all, root)
}

// Push implements host.Pusher.
func (r *MemoryRegistry) Push(ctx context.Context, ref string, root hostabi.Descriptor, from hostabi.OpenFunc, p func(hostabi.Progress)) error {
	repo, tag, err := split(ref)
	if err != nil {
		return err
	}
	if r.Offline {
		return hostabi.Errorf(hostabi.ReasonOffline, "%s: offline", ref)
	}
	take := func(d hostabi.Descriptor) error {
		f, err := from(ctx, d.Digest)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(f)
		r.mu.Lock()
		if r.blobs[repo] == nil {
			r.blobs[repo] = make(map[hostabi.Digest][]byte)
		}
		r.blobs[repo][d.Digest] = b
		r.mu.Unlock()
		p(hostabi.Progress{ID: string(d.Digest), State: hostabi.ProgressDone, Transfer: &hostabi.Transfer{Descriptor: d, How: hostabi.ByNetwork}})
		return cmp.Or(err, f.Close())
	}
	if err := take(root); err != nil {
		return err
	}
	for _, d := range r.graph(repo, root) {
		if err := take(d); err != nil {
			return err
		}
	}
	return r.tag(repo, tag, root)
}

func (r *MemoryRegistry) tag(repo, tag string, d hostabi.Descriptor) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tags[repo] == nil {
		r.tags[repo] = make(map[string]hostabi.Descriptor)
	}
	r.tags[repo][tag] = d
	return nil
}

// Tag implements host.Pusher.
func (r *MemoryRegistry) Tag(ctx context.Context, ref, tag string) error {
	d, err := r.Resolve(ctx, ref)
	if err != nil {
		return err
	}
	repo, _, _ := split(ref)
	return r.tag(repo, tag, d)
}

// Tags implements host.Puller.
func (r *MemoryRegistry) Tags(_ context.Context, repo string) iter.Seq2[string, error] {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := slices.Sorted(maps.Keys(r.tags[repo]))
	return func(yield func(string, error) bool) {
		for _, n := range names {
			if !yield(n, nil) {
				return
			}
		}
	}
}

// Referrers implements host.Puller.
func (r *MemoryRegistry) Referrers(_ context.Context, repo string, subject hostabi.Digest, artifactType string) iter.Seq2[hostabi.Descriptor, error] {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []hostabi.Descriptor
	for d, b := range r.blobs[repo] {
		var m struct {
			MediaType, ArtifactType string
			Subject                 hostabi.Descriptor
		}
		if json.Unmarshal(b, &m) == nil && m.Subject.Digest == subject && (artifactType == "" || artifactType == m.ArtifactType) {
			found = append(found, hostabi.Descriptor{MediaType: m.MediaType, Digest: d, Size: int64(len(b)), ArtifactType: m.ArtifactType})
		}
	}
	return func(yield func(hostabi.Descriptor, error) bool) {
		for _, d := range found {
			if !yield(d, nil) {
				return
			}
		}
	}
}
