package dstest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// blobs keeps the blobs of each repository apart, which the engine's own store does not, and serves ranges.
type blobs struct {
	mu sync.Mutex
	m  map[string][]byte // "REPOSITORY@DIGEST"
}

func newBlobs() *blobs { return &blobs{m: make(map[string][]byte)} }

var errDigest = errors.New("digest does not match")

// Get implements registry.BlobHandler.
func (s *blobs) Get(_ context.Context, repo string, h v1.Hash) (io.ReadCloser, error) {
	b, ok := s.get(repo, h.String())
	if !ok {
		return nil, registry.ErrNotFound
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// Put implements registry.BlobPutHandler.
func (s *blobs) Put(_ context.Context, repo string, h v1.Hash, r io.ReadCloser) error {
	defer func() { _ = r.Close() }()
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != h.Hex {
		return errDigest
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[strings.TrimSuffix(repo, "/blobs")+"@"+h.String()] = b // the engine names uploads so
	return nil
}

func (s *blobs) get(repo, digest string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.m[repo+"@"+digest]
	return b, ok
}

// mount copies a blob from another repository and reports whether it was there.
func (s *blobs) mount(q *http.Request) bool {
	repo, _, _ := strings.Cut(strings.TrimPrefix(q.URL.Path, "/v2/"), "/blobs/")
	digest := q.URL.Query().Get("mount")
	b, ok := s.get(q.URL.Query().Get("from"), digest)
	if !ok {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[repo+"@"+digest] = b
	return true
}

// serve answers GET and HEAD of one blob as registries before a CDN do: with ranges.
func (s *blobs) serve(w http.ResponseWriter, q *http.Request, noRanges bool) {
	repo, _, _ := strings.Cut(strings.TrimPrefix(q.URL.Path, "/v2/"), "/blobs/")
	digest := path.Base(q.URL.Path)
	b, ok := s.get(repo, digest)
	if !ok {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"errors":[{"code":"BLOB_UNKNOWN","message":"no such blob"}]}`)
		return
	}
	if noRanges {
		q.Header.Del("Range")
	}
	w.Header().Set("Docker-Content-Digest", digest)
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, q, "", time.Time{}, bytes.NewReader(b))
}
