// Package dstest holds real servers for tests and for the demo: they listen on 127.0.0.1:0, live in memory
// and need nothing outside the process. Nothing that ships imports it. Start with StartRegistry.
package dstest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
)

// RegistryOptions choose what a test registry is like. The zero value is an open registry with the referrers
// API, over plain HTTP.
type RegistryOptions struct {
	NoReferrers   bool   // no referrers API: clients must use the fallback tag
	Username      string // with Password: every request needs them
	Password      string
	Token         bool // bearer tokens from a token server instead of Basic
	AnonymousPull bool // with Token: tokens for pulling need no password
	TLS           bool // the certificate is signed by nobody: see RegistryServer.CertPEM
	NoRanges      bool // answers a Range request with the whole blob
}

// RegistryServer is a running registry. It is safe for concurrent use.
type RegistryServer struct {
	Host string // 127.0.0.1:PORT
	URL  string // http://127.0.0.1:PORT

	opt    RegistryOptions
	inner  http.Handler
	server *httptest.Server
	blobs  *blobs
	tokens tokens

	stranger *stranger // behind log and faults, instead of all others

	mu       sync.Mutex
	faults   []*armed
	requests []*Request
}

// Request is one entry of the request log.
type Request struct {
	Method, Path, Query string
	Range               string
	Authorization       string
	Status              int
	Sent                int64 // body bytes
}

// Registry starts a registry that ends with the test.
func Registry(tb testing.TB, o RegistryOptions) *RegistryServer {
	tb.Helper()
	r, err := StartRegistry(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(r.Close)
	return r
}

// StartRegistry starts a registry; the caller closes it.
func StartRegistry(o RegistryOptions) (*RegistryServer, error) {
	r := &RegistryServer{opt: o, blobs: newBlobs()}
	r.inner = registry.New(
		registry.Logger(log.New(io.Discard, "", 0)),
		registry.WithBlobHandler(r.blobs),
		registry.WithReferrersSupport(!o.NoReferrers),
	)
	if err := r.start(); err != nil {
		return nil, err
	}
	return r, nil
}

// start listens and serves.
func (r *RegistryServer) start() error {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("test registry: %w", err)
	}
	r.server = &httptest.Server{Listener: l, Config: &http.Server{ // without time limits: a slow client is a test case
		Handler: r, ErrorLog: log.New(io.Discard, "", 0),
	}}
	r.Host = l.Addr().String()
	if r.opt.TLS {
		r.URL = "https://" + r.Host
		r.server.StartTLS()
	} else {
		r.URL = "http://" + r.Host
		r.server.Start()
	}
	return nil
}

// Close ends the server and every connection.
func (r *RegistryServer) Close() {
	r.server.CloseClientConnections()
	r.server.Close()
	if r.stranger != nil {
		r.stranger.close()
	}
}

// Requests is a copy of the log: everything since the start or the last Forget.
func (r *RegistryServer) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Request, len(r.requests))
	for i, q := range r.requests {
		list[i] = *q
	}
	return list
}

// Forget empties the log.
func (r *RegistryServer) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = nil
}

// Count is the number of logged requests of the method ("" = any) whose path contains part.
func (r *RegistryServer) Count(method, part string) (n int) {
	for _, q := range r.Requests() {
		if (method == "" || q.Method == method) && strings.Contains(q.Path, part) {
			n++
		}
	}
	return n
}

// Sent is the number of body bytes answered to GET requests whose path contains part.
func (r *RegistryServer) Sent(part string) (n int64) {
	for _, q := range r.Requests() {
		if q.Method == http.MethodGet && strings.Contains(q.Path, part) {
			n += q.Sent
		}
	}
	return n
}

// ServeHTTP is the registry itself behind log, faults and authentication, in this order.
func (r *RegistryServer) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	rec := &recorder{ResponseWriter: w, r: r, head: q.Method == http.MethodHead, entry: &Request{
		Method: q.Method, Path: q.URL.Path, Query: q.URL.RawQuery, Range: q.Header.Get("Range"), Authorization: q.Header.Get("Authorization"),
	}}
	r.mu.Lock()
	r.requests = append(r.requests, rec.entry)
	r.mu.Unlock()
	if f, ok := r.fault(q); ok {
		if !f.serve(rec, q) {
			return
		}
	}
	if r.stranger != nil {
		r.inner.ServeHTTP(rec, q)
		return
	}
	if q.URL.Path == "/token" {
		r.serveToken(rec, q)
		return
	}
	if !r.allowed(rec, q) {
		return
	}
	switch {
	case (q.Method == http.MethodGet || q.Method == http.MethodHead) && strings.Contains(q.URL.Path, "/blobs/sha256:"):
		r.blobs.serve(rec, q, r.opt.NoRanges)
	case q.Method == http.MethodPost && q.URL.Query().Get("mount") != "" && r.blobs.mount(q):
		rec.Header().Set("Docker-Content-Digest", q.URL.Query().Get("mount"))
		rec.WriteHeader(http.StatusCreated)
	case q.Method == http.MethodPut && strings.Contains(q.URL.Path, "/manifests/"):
		r.putManifest(rec, q)
	default:
		r.inner.ServeHTTP(rec, q)
	}
}

// putManifest adds what a registry with the referrers API answers, which the engine leaves out.
func (r *RegistryServer) putManifest(w http.ResponseWriter, q *http.Request) {
	b, err := io.ReadAll(io.LimitReader(q.Body, 4<<20+1))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	var m struct {
		Subject *struct {
			Digest string `json:"digest"`
		} `json:"subject"`
	}
	if json.Unmarshal(b, &m) == nil && m.Subject != nil && !r.opt.NoReferrers {
		w.Header().Set("OCI-Subject", m.Subject.Digest)
	}
	q.Body = io.NopCloser(bytes.NewReader(b))
	r.inner.ServeHTTP(w, q)
}

// recorder notes status and size of an answer in its log entry, before the client can see them, and applies
// the faults that concern its body.
type recorder struct {
	http.ResponseWriter
	r     *RegistryServer
	entry *Request
	head  bool
	sent  int64
	cutAt int64 // 0 = never
	flip  bool
	gone  <-chan struct{} // not nil: instead of cutting, wait for it
}

func (w *recorder) WriteHeader(status int) {
	w.r.mu.Lock()
	w.entry.Status = status
	w.r.mu.Unlock()
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.entry.Status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.flip && len(b) > 0 {
		b = bytes.Clone(b)
		b[0] ^= 0xff
		w.flip = false
	}
	if w.cutAt == 0 || w.sent+int64(len(b)) < w.cutAt {
		return w.write(b)
	}
	_, _ = w.write(b[:w.cutAt-w.sent]) // the connection ends here anyway
	_ = http.NewResponseController(w.ResponseWriter).Flush()
	if w.gone != nil {
		<-w.gone
	}
	panic(http.ErrAbortHandler)
}

func (w *recorder) write(b []byte) (int, error) {
	w.sent += int64(len(b))
	w.r.mu.Lock()
	w.entry.Sent = w.sent
	w.r.mu.Unlock()
	return w.ResponseWriter.Write(b)
}
