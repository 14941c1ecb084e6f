package host

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/plugin"
)

// maxPin bounds how long a plugin may keep a blob from eviction.
const maxPin = 365 * 24 * time.Hour

type cacheService struct {
	hostv1.UnimplementedCacheServer
}

// NewCache serves Cache from Options.Cache.
func NewCache() hostv1.CacheServer { return cacheService{} }

// digested are the requests that name one blob.
type digested interface{ GetDigest() string }

// gateBlobRead lets pass what the session may read. Without any cache.read the denial names the right that is
// missing, for present and absent blobs alike; with one, a foreign blob is a missing blob.
func gateBlobRead(c *call, req any) error {
	d, err := hostabi.ParseDigest(req.(digested).GetDigest())
	if err != nil {
		return err
	}
	if !c.s.blobs.allowed(d) && !c.s.box.Has(hostabi.CacheRead) {
		return c.need(hostabi.CacheRead, "own")
	}
	_, err = c.s.readable(c, d)
	return err
}

// gatePin needs own for a blob that the plugin committed, pulled or was handed, else any.
func gatePin(c *call, req any) error {
	d := hostabi.Digest(req.(digested).GetDigest())
	return c.needBlob(d, c.s.blobs.allowed(d))
}

// gateRemove needs own for a blob that the plugin committed, else any: what was pulled, others have too.
func gateRemove(c *call, req any) error {
	return c.needBlob(hostabi.Digest(req.(digested).GetDigest()), false)
}

// needBlob needs cache.write own if the plugin committed d or mine, else any; what it may not read is missing.
func (c *call) needBlob(d hostabi.Digest, mine bool) error {
	if _, err := hostabi.ParseDigest(string(d)); err != nil {
		return err
	}
	if !c.s.box.Has(hostabi.CacheWrite) {
		return c.need(hostabi.CacheWrite, "own")
	}
	view, err := c.s.cache()
	if err != nil {
		return err
	}
	info, err := c.s.readable(c, d)
	if err != nil {
		return err
	}
	if mine || c.s.owns(c, view, info) {
		return c.need(hostabi.CacheWrite, "own")
	}
	return c.need(hostabi.CacheWrite, "any")
}

// gateCreate needs any to say where a blob is from: that decides who may read it. Whoever says so brings the bytes, so
// nothing is lifted out of the cache by it.
func gateCreate(c *call, req any) error {
	if req.(*hostv1.CreateBlobRequest).GetSource() != "" {
		return c.need(hostabi.CacheWrite, "any")
	}
	return c.need(hostabi.CacheWrite, "own")
}

func gateVerify(c *call, req any) error {
	r := req.(*hostv1.VerifyRequest)
	if len(r.GetDigests()) == 0 && !c.s.box.Has(hostabi.CacheRead) {
		return c.need(hostabi.CacheRead, "own")
	}
	for _, text := range r.GetDigests() {
		if err := gateVerifyOne(c, text); err != nil {
			return err
		}
	}
	if r.GetRepair() {
		return c.need(hostabi.CacheWrite, "any")
	}
	return nil
}

// gateVerifyOne is gateBlobRead, except that it does not look at the blob for who may read any: looking hashes a
// suspect and takes it away, and then nothing would be left to verify.
func gateVerifyOne(c *call, text string) error {
	if _, err := hostabi.ParseDigest(text); err != nil {
		return err
	}
	if c.s.allows(hostabi.CacheRead, "any") {
		return nil
	}
	return gateBlobRead(c, &hostv1.BlobRef{Digest: text})
}

// Stat implements hostv1.CacheServer.
func (cacheService) Stat(ctx context.Context, req *hostv1.BlobRef) (*hostv1.BlobInfo, error) {
	info, err := sessionOf(ctx).readable(ctx, hostabi.Digest(req.GetDigest()))
	if err != nil {
		return nil, err
	}
	return blobInfo(info), nil
}

// Open implements hostv1.CacheServer.
func (cacheService) Open(ctx context.Context, req *hostv1.OpenBlobRequest) (*hostv1.OpenedBlob, error) {
	s, d := sessionOf(ctx), hostabi.Digest(req.GetDigest())
	id, h, err := s.blobs.open(func(id uint32) (handle, error) {
		f, err := s.openBlob(ctx, d)
		if err != nil {
			return nil, err
		}
		return &blobReader{s: s, id: id, f: f}, nil
	})
	if err != nil {
		return nil, err
	}
	out, err := s.opened(ctx, h.(*blobReader), d, req.GetWantFd())
	if err != nil {
		s.ignored("close blob", h.Close())
		return nil, err
	}
	out.Handle = id
	return out, nil
}

// opened says where the plugin finds the bytes (host-abi.md section 8). A carrier that passes descriptors
// takes the file from the handle and says so itself.
func (s *Session) opened(ctx context.Context, h *blobReader, d hostabi.Digest, wantFD bool) (*hostv1.OpenedBlob, error) {
	info, err := h.f.Stat()
	if err != nil {
		return nil, err
	}
	out := &hostv1.OpenedBlob{Digest: string(d), Size: info.Size()}
	_, confined := s.dirs()
	switch {
	case s.kind() == plugin.WASM:
		out.Path = "/ds/blob/sha256/" + d.Hex()
	case !confined:
		out.Path = h.f.Name()
	case !wantFD:
		out.Path, err = s.copyBlob(ctx, h.f, d)
	}
	return out, err
}

// Create implements hostv1.CacheServer. The writer never learns the digest before Commit: a plugin that opens
// a sink and waits must not hold up a pull of the same blob, and knowing a digest is no way to read it.
func (cacheService) Create(ctx context.Context, req *hostv1.CreateBlobRequest) (*hostv1.OpenedBlob, error) {
	s := sessionOf(ctx)
	want := hostabi.Descriptor{Digest: hostabi.Digest(req.GetDigest()), Size: req.GetSize(), MediaType: req.GetMediaType()}
	if want.Digest != "" && !want.Digest.Valid() {
		_, err := hostabi.ParseDigest(req.GetDigest())
		return nil, err
	}
	if want.Size < 0 || req.GetTtl() < 0 {
		return nil, hostabi.Errorf(hostabi.ReasonBadMessage, "size and ttl of a blob are not negative")
	}
	view, err := s.sinkView(req.GetSource())
	if err != nil {
		return nil, err
	}
	ttl := time.Duration(req.GetTtl()) * time.Millisecond
	id, h, err := s.blobs.open(func(id uint32) (handle, error) { return s.newSink(view, id, want, ttl) })
	if err != nil {
		return nil, err
	}
	out := &hostv1.OpenedBlob{Handle: id, Digest: string(want.Digest), Size: want.Size}
	if name := h.(*sink).file; name != "" {
		dir, _ := s.dirs()
		out.Path = filepath.Join(dir, name)
	} else if s.kind() == plugin.WASM {
		out.Path = "/ds/sink/" + strconv.FormatUint(uint64(id), 10)
	}
	return out, nil
}

// sinkView is where the session writes: as itself, or as a pull from source.
func (s *Session) sinkView(source string) (Cache, error) {
	if source == "" {
		return s.cache()
	}
	repo, err := s.canonical(source)
	if err != nil {
		return nil, err
	}
	if repo != source {
		return nil, hostabi.Errorf(hostabi.ReasonRef, "source %q: not a repository in its canonical form, which is %s", clean(source, 200), repo)
	}
	into, err := s.pullSink(repo)
	if err != nil {
		return nil, err
	}
	return into.source, nil
}

func (s *Session) newSink(view Cache, id uint32, want hostabi.Descriptor, ttl time.Duration) (handle, error) {
	w, err := view.Create(s.ctx, hostabi.Descriptor{Size: want.Size, MediaType: want.MediaType})
	if err != nil {
		return nil, err
	}
	k := &sink{s: s, id: id, want: want, ttl: ttl, w: w}
	if runDir, _ := s.dirs(); runDir != "" && s.kind() != plugin.WASM {
		if k.file, err = s.sinkFile(id); err != nil {
			return nil, errors.Join(err, w.Abort())
		}
	}
	return k, nil
}

// Commit implements hostv1.CacheServer. The handle is gone afterwards, also when it fails.
func (cacheService) Commit(ctx context.Context, req *hostv1.CommitRequest) (*hostv1.BlobInfo, error) {
	s := sessionOf(ctx)
	if d := req.GetDigest(); d != "" {
		if _, err := hostabi.ParseDigest(d); err != nil {
			return nil, err
		}
	}
	h, err := s.blobs.get(req.GetHandle())
	if err != nil {
		return nil, err
	}
	k, ok := h.(*sink)
	if !ok {
		return nil, badHandle(req.GetHandle())
	}
	if _, err := s.blobs.take(k.id); err != nil {
		return nil, err
	}
	info, err := k.commit(ctx, hostabi.Digest(req.GetDigest()), req.GetAnnotations())
	if err != nil {
		return nil, err
	}
	s.blobs.allow(info.Digest)
	return blobInfo(info), nil
}

// Close implements hostv1.CacheServer.
func (cacheService) Close(ctx context.Context, req *hostv1.HandleRef) (*hostv1.Empty, error) {
	h, err := sessionOf(ctx).blobs.take(req.GetHandle())
	if err != nil {
		return nil, err
	}
	return &hostv1.Empty{}, h.release()
}

// List implements hostv1.CacheServer. Its own blobs come first cheaply; with wider scopes all are looked at.
func (cacheService) List(req *hostv1.ListBlobsRequest, out grpc.ServerStreamingServer[hostv1.BlobInfo]) error {
	ctx := out.Context()
	s := sessionOf(ctx)
	view, err := s.cache()
	if err != nil {
		return err
	}
	for info, err := range view.List(ctx, "") {
		if err != nil {
			return err
		}
		if !listed(req, info) || !s.mayRead(ctx, view, info) {
			continue
		}
		if err := out.Send(blobInfo(info)); err != nil {
			return err
		}
	}
	return nil
}

func listed(req *hostv1.ListBlobsRequest, info hostabi.BlobInfo) bool {
	return (req.GetSource() == "" || slices.Contains(info.Sources, req.GetSource())) &&
		(req.GetMediaType() == "" || req.GetMediaType() == info.MediaType) &&
		(req.GetUsedBefore() == 0 || info.Used.UnixMilli() < req.GetUsedBefore())
}

// Pin implements hostv1.CacheServer.
func (cacheService) Pin(ctx context.Context, req *hostv1.PinRequest) (*hostv1.Empty, error) {
	s := sessionOf(ctx)
	ttl := time.Duration(req.GetTtl()) * time.Millisecond
	if req.GetTtl() < 0 || req.GetTtl() > maxPin.Milliseconds() {
		return nil, hostabi.Errorf(hostabi.ReasonBadMessage, "a pin lasts between 0 and %d days", maxPin/(24*time.Hour))
	}
	view, err := s.cache()
	if err != nil {
		return nil, err
	}
	var until time.Time
	if ttl > 0 {
		until = s.r.o.Clock().Add(ttl)
	}
	return &hostv1.Empty{}, view.Pin(ctx, hostabi.Digest(req.GetDigest()), s.p.Name, until)
}

// admin is the cache's housekeeping, if its owner has any.
func (s *Session) admin() (CacheAdmin, error) {
	view, err := s.cache()
	if err != nil {
		return nil, err
	}
	a, ok := view.(CacheAdmin)
	if !ok {
		return nil, missing("cache housekeeping")
	}
	return a, nil
}

// Remove implements hostv1.CacheServer. What another plugin claims stays.
func (cacheService) Remove(ctx context.Context, req *hostv1.BlobRef) (*hostv1.Empty, error) {
	s, d := sessionOf(ctx), hostabi.Digest(req.GetDigest())
	a, err := s.admin()
	if err != nil {
		return nil, err
	}
	view, err := s.cache()
	if err != nil {
		return nil, err
	}
	info, err := s.readable(ctx, d)
	if err != nil {
		return nil, err
	}
	owner := s.p.Name
	if !s.owns(ctx, view, info) {
		owner = "" // the host's right, which the gate asked for
	}
	return &hostv1.Empty{}, a.Remove(ctx, owner, d)
}

// Usage implements hostv1.CacheServer.
func (cacheService) Usage(ctx context.Context, _ *hostv1.UsageRequest) (*hostv1.UsageReply, error) {
	a, err := sessionOf(ctx).admin()
	if err != nil {
		return nil, err
	}
	u, err := a.Usage(ctx)
	if err != nil {
		return nil, err
	}
	return &hostv1.UsageReply{
		Bytes: u.Bytes, Entries: u.Entries, MaxBytes: u.MaxBytes, PinnedBytes: u.PinnedBytes, DiskBytes: u.DiskBytes,
	}, nil
}

// Evict implements hostv1.CacheServer.
func (cacheService) Evict(req *hostv1.EvictRequest, out grpc.ServerStreamingServer[hostv1.BlobInfo]) error {
	a, err := sessionOf(out.Context()).admin()
	if err != nil {
		return err
	}
	o := hostabi.EvictOptions{
		OlderThan: time.Duration(req.GetOlderThan()) * time.Millisecond, MaxBytes: req.GetMaxBytes(),
		ExpiredOnly: req.GetExpiredOnly(), DryRun: req.GetDryRun(), Policy: req.GetPolicy(),
	}
	for info, err := range a.Evict(out.Context(), o) {
		if err != nil {
			return err
		}
		if err := out.Send(blobInfo(info)); err != nil {
			return err
		}
	}
	return nil
}

// Verify implements hostv1.CacheServer.
func (cacheService) Verify(req *hostv1.VerifyRequest, out grpc.ServerStreamingServer[hostv1.VerifyEvent]) error {
	ctx := out.Context()
	s := sessionOf(ctx)
	a, err := s.admin()
	if err != nil {
		return err
	}
	digests := make([]hostabi.Digest, 0, len(req.GetDigests()))
	for _, d := range req.GetDigests() {
		digests = append(digests, hostabi.Digest(d))
	}
	if len(digests) == 0 {
		if digests, err = s.allReadable(ctx); err != nil || len(digests) == 0 {
			return err
		}
	}
	for v, err := range a.Verify(ctx, digests, req.GetRepair()) {
		if err != nil {
			return err
		}
		if err := out.Send(&hostv1.VerifyEvent{Digest: string(v.Digest), Ok: v.OK, Problem: v.Problem}); err != nil {
			return err
		}
	}
	return nil
}

func (s *Session) allReadable(ctx context.Context) (all []hostabi.Digest, err error) {
	view, err := s.cache()
	if err != nil {
		return nil, err
	}
	for info, err := range view.List(ctx, "") {
		if err != nil {
			return nil, err
		}
		if s.mayRead(ctx, view, info) {
			all = append(all, info.Digest)
		}
	}
	return all, nil
}

func blobInfo(b hostabi.BlobInfo) *hostv1.BlobInfo {
	return &hostv1.BlobInfo{
		Digest: string(b.Digest), Size: b.Size, MediaType: b.MediaType, Created: millis(b.Created), Used: millis(b.Used),
		Expires: millis(b.Expires), Pinned: b.Pinned, Sources: b.Sources, Annotations: b.Annotations,
	}
}

// millis is t on the wire, 0 for the zero time.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
