package registry_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/registry"
)

const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeEmpty    = "application/vnd.oci.empty.v1+json"
	typeLayer    = "application/vnd.example.layer.v1"
)

// clock is a time that only sleeping moves.
type clock struct {
	mu    sync.Mutex
	t     time.Time
	slept []time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
	c.slept = append(c.slept, d)
	return ctx.Err()
}

func (c *clock) total() (sum time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.slept {
		sum += d
	}
	return sum
}

func newClient(t *testing.T, o registry.Options) (*registry.Client, *clock) {
	t.Helper()
	c, err := registry.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	k := &clock{t: time.Now()}
	c.SetClock(k.now, k.sleep)
	return c, k
}

// sink is a hostabi.Sink in a directory: blobs, and prefixes that Abort keeps.
type sink struct {
	dir string
	mu  sync.Mutex
	// writes counts the bytes that were written, by digest.
	writes map[hostabi.Digest]int64
	// failAt makes writing the digest fail after so many bytes.
	failAt map[hostabi.Digest]int64
}

func newSink(t *testing.T) *sink {
	t.Helper()
	return &sink{dir: t.TempDir(), writes: make(map[hostabi.Digest]int64), failAt: make(map[hostabi.Digest]int64)}
}

func (s *sink) path(d hostabi.Digest) string { return filepath.Join(s.dir, d.Hex()) }

func (s *sink) Stat(_ context.Context, d hostabi.Digest) (hostabi.BlobInfo, error) {
	fi, err := os.Stat(s.path(d))
	if err != nil {
		return hostabi.BlobInfo{}, hostabi.Errorf(hostabi.ReasonNotCached, "no blob %s", d)
	}
	return hostabi.BlobInfo{Digest: d, Size: fi.Size()}, nil
}

func (s *sink) Open(_ context.Context, d hostabi.Digest) (*os.File, error) {
	f, err := os.Open(s.path(d))
	if err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonNotCached, "no blob %s", d)
	}
	return f, nil
}

// OpenFunc reads what the sink holds.
func (s *sink) OpenFunc(ctx context.Context, d hostabi.Digest) (io.ReadSeekCloser, error) {
	return s.Open(ctx, d)
}

func (s *sink) Create(_ context.Context, d hostabi.Descriptor) (hostabi.BlobWriter, error) {
	if _, err := os.Stat(s.path(d.Digest)); err == nil {
		return nil, hostabi.Errorf(hostabi.ReasonExists, "there is a blob %s", d.Digest)
	}
	f, err := os.OpenFile(s.path(d.Digest)+".part", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	at, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	return &sinkWriter{s: s, d: d, f: f, at: at}, nil
}

type sinkWriter struct {
	s  *sink
	d  hostabi.Descriptor
	f  *os.File
	at int64
}

func (w *sinkWriter) Offset() int64 { return w.at }

func (w *sinkWriter) Write(p []byte) (int, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	limit, limited := w.s.failAt[w.d.Digest]
	if limited && w.s.writes[w.d.Digest]+int64(len(p)) > limit {
		return 0, hostabi.Errorf(hostabi.ReasonNoSpace, "disk is full")
	}
	w.s.writes[w.d.Digest] += int64(len(p))
	return w.f.Write(p)
}

func (w *sinkWriter) Commit(context.Context) (hostabi.BlobInfo, error) {
	b, err := os.ReadFile(w.f.Name())
	if err := errors.Join(err, w.f.Close()); err != nil {
		return hostabi.BlobInfo{}, err
	}
	if int64(len(b)) != w.d.Size || hostabi.DigestOf(b) != w.d.Digest {
		_ = os.Remove(w.f.Name())
		return hostabi.BlobInfo{}, hostabi.Errorf(hostabi.ReasonDigestMismatch, "blob %s has other content", w.d.Digest)
	}
	return hostabi.BlobInfo{Digest: w.d.Digest, Size: w.d.Size}, os.Rename(w.f.Name(), w.s.path(w.d.Digest))
}

func (w *sinkWriter) Abort() error { return w.f.Close() }

// put stores b, as content to push.
func (s *sink) put(t *testing.T, mediaType string, b []byte) hostabi.Descriptor {
	t.Helper()
	d := hostabi.Descriptor{MediaType: mediaType, Digest: hostabi.DigestOf(b), Size: int64(len(b))}
	if err := os.WriteFile(s.path(d.Digest), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return d
}

func (s *sink) holds(d hostabi.Digest) bool {
	_, err := os.Stat(s.path(d))
	return err == nil
}

// noise is n bytes that are the same for the same seed.
func noise(seed uint64, n int) []byte {
	src := rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "%d", seed)))
	b := make([]byte, n)
	_, _ = src.Read(b)
	return b
}

type object = map[string]any

func jsonDesc(d hostabi.Descriptor, more ...any) object {
	o := object{"mediaType": d.MediaType, "digest": d.Digest, "size": d.Size}
	for i := 0; i+1 < len(more); i += 2 {
		o[more[i].(string)] = more[i+1]
	}
	return o
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// artifact stores an artifact of layers in s and returns its manifest.
func (s *sink) artifact(t *testing.T, layers ...[]byte) hostabi.Descriptor {
	t.Helper()
	list := []object{}
	for i, l := range layers {
		d := s.put(t, typeLayer, l)
		list = append(list, jsonDesc(d, "annotations", object{"org.opencontainers.image.title": fmt.Sprintf("layer-%d", i)}))
	}
	config := s.put(t, typeEmpty, []byte("{}"))
	return s.put(t, typeManifest, marshal(t, object{
		"schemaVersion": 2, "mediaType": typeManifest, "artifactType": "application/vnd.example.v1", "config": jsonDesc(config), "layers": list,
	}))
}

// index stores an index of children, given as descriptor and platform "os/arch" in turn.
func (s *sink) index(t *testing.T, children ...any) hostabi.Descriptor {
	t.Helper()
	list := []object{}
	for i := 0; i < len(children); i += 2 {
		o := jsonDesc(children[i].(hostabi.Descriptor))
		if p := children[i+1].(string); p != "" {
			pl, err := hostabi.ParsePlatform(p)
			if err != nil {
				t.Fatal(err)
			}
			o["platform"] = object{"os": pl.OS, "architecture": pl.Architecture, "variant": pl.Variant}
		}
		list = append(list, o)
	}
	return s.put(t, typeIndex, marshal(t, object{"schemaVersion": 2, "mediaType": typeIndex, "manifests": list}))
}

// mustPush pushes root from s to ref.
func mustPush(t *testing.T, c *registry.Client, ref string, root hostabi.Descriptor, s *sink) {
	t.Helper()
	if err := c.Push(t.Context(), ref, root, s.OpenFunc, nil); err != nil {
		t.Fatalf("push %s: %v", ref, err)
	}
}

// transfers collects how each blob got there, and fails on reports that are not one at a time.
type transfers struct {
	t    *testing.T
	busy sync.Mutex
	how  map[hostabi.Digest]string
	last map[string]hostabi.Progress
}

func newTransfers(t *testing.T) *transfers {
	return &transfers{t: t, how: make(map[hostabi.Digest]string), last: make(map[string]hostabi.Progress)}
}

func (tr *transfers) report(p hostabi.Progress) {
	if !tr.busy.TryLock() {
		tr.t.Error("two reports at once")
		return
	}
	defer tr.busy.Unlock()
	if tr.last[p.ID].State == hostabi.ProgressDone {
		tr.t.Errorf("%s: a report after the last one", p.ID)
	}
	tr.last[p.ID] = p
	if p.Transfer != nil {
		tr.how[p.Transfer.Descriptor.Digest] = p.Transfer.How
	}
}

func wantReason(t *testing.T, err error, want hostabi.Reason) {
	t.Helper()
	if got := hostabi.ReasonOf(err); got != want {
		t.Fatalf("error is %v (%s), want %s", err, got, want)
	}
}

func collect[T any](t *testing.T, seq func(func(T, error) bool)) (list []T) {
	t.Helper()
	for v, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, v)
	}
	return list
}

// place is one kind of target that the suite runs over.
type place struct {
	name  string
	ref   func(t *testing.T) string // without tag, a fresh repository
	creds []registry.Credential
}

// client knows the credentials of p and of others.
func (p place) client(t *testing.T, others ...place) *registry.Client {
	t.Helper()
	o := registry.Options{Credentials: p.creds}
	for _, q := range others {
		o.Credentials = append(o.Credentials, q.creds...)
	}
	c, _ := newClient(t, o)
	return c
}

func places() []place {
	repo := func(o dstest.RegistryOptions) func(*testing.T) string {
		return func(t *testing.T) string { return dstest.Registry(t, o).Host + "/team/app" }
	}
	return []place{
		{name: "registry", ref: repo(dstest.RegistryOptions{})},
		{name: "registry without referrers", ref: repo(dstest.RegistryOptions{NoReferrers: true})},
		{name: "layout", ref: func(t *testing.T) string { return "oci-layout:" + filepath.Join(t.TempDir(), "layout") }},
		{name: "tar", ref: func(t *testing.T) string { return "oci-layout:" + filepath.Join(t.TempDir(), "layout.tar") }},
	}
}

func sameBytes(t *testing.T, s *sink, d hostabi.Digest, want []byte) {
	t.Helper()
	got, err := os.ReadFile(s.path(d))
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("blob %s is not what was pushed: %v", d, err)
	}
}
