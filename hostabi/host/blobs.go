package host

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/delivery-station/ds/hostabi"
)

// maxID is the last stream id or handle of a session; they are never used twice (host-abi.md section 2).
const maxID = 1<<31 - 1

// blobs is what a session holds of the cache: its views, its open handles, and the digests it may read because
// this run pulled, committed or was handed them.
type blobs struct {
	mu      sync.Mutex
	view    Cache            // without a source
	sources map[string]Cache // by repository
	last    uint32
	handles map[uint32]handle
	closed  bool
	own     map[hostabi.Digest]struct{}
}

// handle is an open blob or a sink.
type handle interface {
	io.ReadWriteCloser
	release() error // Close without the table
}

func (b *blobs) init(handed []hostabi.Digest) {
	b.handles = make(map[uint32]handle)
	b.own = make(map[hostabi.Digest]struct{}, len(handed))
	for _, d := range handed {
		b.own[d] = struct{}{}
	}
}

// cache is the session's view, opened at first use.
func (s *Session) cache() (Cache, error) {
	s.blobs.mu.Lock()
	defer s.blobs.mu.Unlock()
	switch {
	case s.blobs.closed:
		return nil, errClosed
	case s.blobs.view != nil:
		return s.blobs.view, nil
	case s.r.o.Cache == nil:
		return nil, missing("cache")
	}
	v, err := s.r.o.Cache(s.p.Name, "")
	if err != nil {
		return nil, err
	}
	if l, ok := v.(Limiter); ok {
		l.Limit(s.box.Quota(hostabi.CacheWrite))
	}
	s.blobs.view = v
	return v, nil
}

// source is the view that adds repo to the sources of what it commits, made with mk at first use.
func (b *blobs) source(repo string, mk func() (Cache, error)) (Cache, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errClosed
	}
	if v := b.sources[repo]; v != nil {
		return v, nil
	}
	v, err := mk()
	if err != nil {
		return nil, err
	}
	if b.sources == nil {
		b.sources = make(map[string]Cache)
	}
	b.sources[repo] = v
	return v, nil
}

// allow makes d readable for the rest of the session.
func (b *blobs) allow(d hostabi.Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.own[d] = struct{}{}
}

func (b *blobs) allowed(d hostabi.Digest) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.own[d]
	return ok
}

func (b *blobs) nextID() (uint32, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.next()
}

func (b *blobs) next() (uint32, error) {
	if b.last >= maxID {
		return 0, hostabi.Errorf(hostabi.ReasonTooMany, "the session has used all its handles")
	}
	b.last++
	return b.last, nil
}

// open gives h a number, or closes it.
func (b *blobs) open(mk func(id uint32) (handle, error)) (uint32, handle, error) {
	id, err := b.reserve()
	if err != nil {
		return 0, nil, err
	}
	h, err := mk(id)
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		delete(b.handles, id)
		return 0, nil, err
	}
	if b.closed {
		return 0, nil, errors.Join(errClosed, h.release())
	}
	b.handles[id] = h
	return id, h, nil
}

// reserve takes a number and a place, so that making the handle needs no lock.
func (b *blobs) reserve() (uint32, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, errClosed
	}
	if len(b.handles) >= hostabi.MaxHandles {
		return 0, hostabi.Errorf(hostabi.ReasonTooMany, "%d blobs are open, no more at once", hostabi.MaxHandles)
	}
	id, err := b.next()
	if err == nil {
		b.handles[id] = nil
	}
	return id, err
}

func (b *blobs) get(id uint32) (handle, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if h := b.handles[id]; h != nil {
		return h, nil
	}
	return nil, badHandle(id)
}

// take removes the handle from the table; the caller closes it.
func (b *blobs) take(id uint32) (handle, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.handles[id]
	if h == nil {
		return nil, badHandle(id)
	}
	delete(b.handles, id)
	return h, nil
}

// close discards sinks, closes blobs and ends the leases of the view.
func (b *blobs) close(s *Session) {
	b.mu.Lock()
	open, views := b.handles, slices.Collect(maps.Values(b.sources))
	if b.view != nil {
		views = append(views, b.view)
	}
	b.handles, b.view, b.sources, b.closed = nil, nil, nil, true
	b.mu.Unlock()
	for _, h := range open {
		if h != nil {
			s.ignored("close handle", h.release())
		}
	}
	for _, v := range views {
		s.ignored("close cache view", v.Close())
	}
}

// ignored logs an error that changes nothing for the guest.
func (s *Session) ignored(what string, err error) {
	if err != nil {
		s.r.o.Log.Debug(what, "plugin", s.p.Name, "invocation", s.inv.ID, "err", err)
	}
}

func badHandle(id uint32) *hostabi.Error {
	return hostabi.Errorf(hostabi.ReasonBadHandle, "handle %d: not open in this session", id)
}

// notCached is the one answer for a blob that is absent and for one that the plugin may not read.
func notCached(d hostabi.Digest) *hostabi.Error {
	return hostabi.Errorf(hostabi.ReasonNotCached, "blob %s: not in the cache", d)
}

// readable is what the cache knows of d, if this session may read it; else it answers as for a missing blob.
func (s *Session) readable(ctx context.Context, d hostabi.Digest) (hostabi.BlobInfo, error) {
	view, err := s.cache()
	if err != nil {
		return hostabi.BlobInfo{}, err
	}
	info, err := view.Stat(ctx, d)
	if errors.Is(err, notCached(d)) || err == nil && !s.mayRead(ctx, view, info) {
		return hostabi.BlobInfo{}, notCached(d)
	}
	return info, err
}

// mayRead asks for each ground on which a blob may be read, the cheapest first (capabilities.md section 2).
func (s *Session) mayRead(ctx context.Context, view Cache, info hostabi.BlobInfo) bool {
	if s.blobs.allowed(info.Digest) {
		return true
	}
	if !s.box.Has(hostabi.CacheRead) {
		return false
	}
	if s.owns(ctx, view, info) && s.allows(hostabi.CacheRead, "own") {
		return true
	}
	fromSource := func(repo string) bool { return s.allows(hostabi.CacheRead, "artifact:"+repo) }
	return slices.ContainsFunc(info.Sources, fromSource) ||
		s.allows(hostabi.CacheRead, string(info.Digest)) || // scope args: a digest the user typed
		s.allows(hostabi.CacheRead, "any")
}

// owns reports whether the plugin committed the blob, in this run or another.
func (s *Session) owns(ctx context.Context, view Cache, info hostabi.BlobInfo) bool {
	o, ok := view.(Owner)
	return ok && o.Owned(ctx, s.p.Name, info.Digest, info.Size)
}

// openBlob opens a blob that the session may read.
func (s *Session) openBlob(ctx context.Context, d hostabi.Digest) (*os.File, error) {
	if _, err := s.readable(ctx, d); err != nil {
		return nil, err
	}
	view, err := s.cache()
	if err != nil {
		return nil, err
	}
	f, err := view.Open(ctx, d)
	if errors.Is(err, notCached(d)) { // gone since
		return nil, notCached(d)
	}
	return f, err
}

// blobReader is an open blob. Reads may run concurrently with Close.
type blobReader struct {
	s  *Session
	id uint32
	f  *os.File
}

func (r *blobReader) Read(p []byte) (int, error) { return r.f.Read(p) }

// ReadAt is for carriers that keep offsets themselves.
func (r *blobReader) ReadAt(p []byte, off int64) (int, error) { return r.f.ReadAt(p, off) }

func (r *blobReader) Write([]byte) (int, error) {
	return 0, hostabi.Errorf(hostabi.ReasonBadHandle, "handle %d: a blob is only read", r.id)
}

// File is the open descriptor, read-only.
func (r *blobReader) File() *os.File { return r.f }

func (r *blobReader) Close() error {
	if _, err := r.s.blobs.take(r.id); err != nil {
		return err
	}
	return r.release()
}

func (r *blobReader) release() error { return r.f.Close() }
