package host

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"

	"google.golang.org/grpc"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
)

type registryService struct {
	hostv1.UnimplementedRegistryServer
	pusher func() (Pusher, error)
}

// NewRegistry serves Registry from Options.Puller and Options.Cache; pusher is called at the first push, nil
// means that this host only pulls. The host moves every byte: a plugin sees digests and progress.
func NewRegistry(pusher func() (Pusher, error)) hostv1.RegistryServer {
	return &registryService{pusher: pusher}
}

func (r *registryService) push() (Pusher, error) {
	if r.pusher == nil {
		return nil, missing("registry to push to")
	}
	return r.pusher()
}

func (s *Session) puller() (Puller, error) {
	if s.r.o.Puller == nil {
		return nil, missing("registry")
	}
	return s.r.o.Puller()
}

// referenced are the requests that name a reference.
type referenced interface{ GetRef() string }

func gatePull(c *call, req any) error {
	ref := ""
	switch r := req.(type) {
	case referenced:
		ref = r.GetRef()
	case *hostv1.ListTagsRequest:
		ref = r.GetRepository()
	}
	return c.needRepository(hostabi.RegistryPull, ref)
}

func gatePush(c *call, req any) error {
	if r, ok := req.(*hostv1.PushRequest); ok {
		if err := checkTags(r.GetTags()); err != nil {
			return err
		}
		if _, err := hostabi.ParseDigest(r.GetDigest()); err != nil {
			return err
		}
	}
	if r, ok := req.(*hostv1.TagRequest); ok {
		if err := checkTags([]string{r.GetTag()}); err != nil {
			return err
		}
	}
	return c.needRepository(hostabi.RegistryPush, req.(referenced).GetRef())
}

// needRepository asks the Box for the canonical repository of ref, the one that the client will use.
func (c *call) needRepository(cp hostabi.Capability, ref string) error {
	repo, err := c.s.canonical(ref)
	if err != nil {
		return err
	}
	if err := c.need(cp, repo); err != nil {
		return err
	}
	c.public = c.s.box.Wildcard(cp, repo)
	return nil
}

func (s *Session) canonical(ref string) (string, error) {
	p, err := s.puller()
	if err != nil {
		return "", err
	}
	repo, err := p.Canonical(ref)
	if err == nil || hostabi.ReasonOf(err) != "" {
		return repo, err
	}
	return "", hostabi.Errorf(hostabi.ReasonRef, "reference %q: %w", clean(ref, 200), err)
}

// checkTags checks the OCI grammar of tags.
func checkTags(tags []string) error {
	const first = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"
	for _, t := range tags {
		if t == "" || len(t) > 128 || strings.IndexByte(first, t[0]) < 0 || strings.Trim(t, first+".-") != "" {
			return hostabi.Errorf(hostabi.ReasonRef, "tag %q: not [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", clean(t, 80))
		}
	}
	return nil
}

// Resolve implements hostv1.RegistryServer.
func (*registryService) Resolve(ctx context.Context, req *hostv1.RefRequest) (*hostv1.Descriptor, error) {
	s := sessionOf(ctx)
	p, err := s.puller()
	if err != nil {
		return nil, err
	}
	var d hostabi.Descriptor
	if req.GetFresh() {
		d, err = resolveFresh(ctx, p, req.GetRef())
	} else {
		d, err = p.Resolve(ctx, req.GetRef())
	}
	if err == nil && req.GetPlatform() != nil && isIndex(d.MediaType) {
		d, err = s.resolvePlatform(ctx, p, d, req)
	}
	if err != nil {
		return nil, err
	}
	return descriptor(d), nil
}

// resolveFresh is p.Resolve without the memory of tags, if p has one.
func resolveFresh(ctx context.Context, p Puller, ref string) (hostabi.Descriptor, error) {
	if f, ok := p.(FreshResolver); ok {
		return f.ResolveFresh(ctx, ref)
	}
	return p.Resolve(ctx, ref)
}

// resolvePlatform finds the manifest of one platform below the index root. Which one fits is the client's to
// say: the host pulls that manifest, which is small, and takes what came.
func (s *Session) resolvePlatform(ctx context.Context, p Puller, root hostabi.Descriptor, req *hostv1.RefRequest) (hostabi.Descriptor, error) {
	repo, err := s.canonical(req.GetRef())
	if err != nil {
		return root, err
	}
	into, err := s.pullSink(repo)
	if err != nil {
		return root, err
	}
	want := platform(req.GetPlatform())
	found := hostabi.Descriptor{}
	o := hostabi.PullOptions{Platforms: []hostabi.Platform{want}, ManifestsOnly: true}
	_, err = p.Pull(ctx, repo+"@"+string(root.Digest), o, into, func(pr hostabi.Progress) {
		if t := pr.Transfer; t != nil && !isIndex(t.Descriptor.MediaType) {
			found = t.Descriptor
		}
	})
	if err == nil && found.Digest == "" {
		err = hostabi.Errorf(hostabi.ReasonRefNotFound, "reference %s: has nothing for %s", clean(req.GetRef(), 200), want)
	}
	if found.Platform == nil {
		found.Platform = &want
	}
	found.Ref = root.Ref
	return found, err
}

func isIndex(mediaType string) bool { return mediaType == mediaIndex || mediaType == dockerList }

// Pull implements hostv1.RegistryServer.
func (*registryService) Pull(req *hostv1.PullRequest, out grpc.ServerStreamingServer[hostv1.PullEvent]) error {
	s := sessionOf(out.Context())
	p, err := s.puller()
	if err != nil {
		return err
	}
	repo, err := s.canonical(req.GetRef())
	if err != nil {
		return err
	}
	into, err := s.pullSink(repo)
	if err != nil {
		return err
	}
	o := hostabi.PullOptions{
		AllPlatforms: req.GetAllPlatforms(), MediaTypes: req.GetMediaTypes(),
		ManifestsOnly: req.GetManifestsOnly(), Referrers: req.GetReferrers(),
	}
	for _, p := range req.GetPlatforms() {
		o.Platforms = append(o.Platforms, platform(p))
	}
	var root hostabi.Descriptor
	var fetched, cached int64 // bytes
	err = conflate(out.Context(), func(ctx context.Context, report func(hostabi.Progress)) error {
		d, err := p.Pull(ctx, req.GetRef(), o, into, report)
		root = d
		return err
	}, func(pr *hostabi.Progress) error {
		if pr.Transfer == nil {
			return out.Send(&hostv1.PullEvent{Event: &hostv1.PullEvent_Progress{Progress: progress(*pr)}})
		}
		if pr.Transfer.How == hostabi.ByNetwork {
			fetched += pr.Transfer.Descriptor.Size
		} else {
			cached += pr.Transfer.Descriptor.Size
		}
		return out.Send(&hostv1.PullEvent{Event: &hostv1.PullEvent_Blob{Blob: transfer(*pr.Transfer)}})
	})
	if err != nil {
		return err
	}
	s.hostEvent(out.Context(), "artifact.pulled", map[string]any{
		"ref": req.GetRef(), "digest": root.Digest, "media_type": root.MediaType, "artifact_type": root.ArtifactType,
		"size": root.Size, "fetched": fetched, "cached": cached,
	})
	return out.Send(&hostv1.PullEvent{Event: &hostv1.PullEvent_Root{Root: descriptor(root)}})
}

// pullSink is where a pull from repo puts its blobs. Its view stays open as long as the session, whose plugin
// may read what was pulled, and serves later pulls from there.
func (s *Session) pullSink(repo string) (*pulled, error) {
	view, err := s.cache()
	if err != nil {
		return nil, err
	}
	source, err := s.blobs.source(repo, func() (Cache, error) { return s.r.o.Cache(s.p.Name, repo) })
	if err != nil {
		return nil, err
	}
	return &pulled{s: s, repo: repo, view: view, source: source}, nil
}

// pulled is the sink of one pull. What passes through it the session may read: so a blob that another
// repository left in the cache counts as present only if this session may read it anyway. Else it is fetched
// again from the repository, which proves that it is there; a manifest cannot lift a private blob out of
// the cache (capabilities.md section 2).
type pulled struct {
	s      *Session
	repo   string
	view   Cache // the session's, without a source
	source Cache // adds repo to the sources of a blob
}

// Stat implements hostabi.Sink.
func (p *pulled) Stat(ctx context.Context, d hostabi.Digest) (hostabi.BlobInfo, error) {
	info, err := p.source.Stat(ctx, d)
	if err != nil {
		return info, err
	}
	if !slices.Contains(info.Sources, p.repo) && !p.s.mayRead(ctx, p.view, info) {
		return hostabi.BlobInfo{}, notCached(d)
	}
	p.s.blobs.allow(d)
	return info, nil
}

// Open gives back what Stat finds: a manifest that is there is not fetched again.
func (p *pulled) Open(ctx context.Context, d hostabi.Digest) (*os.File, error) {
	if _, err := p.Stat(ctx, d); err != nil {
		return nil, err
	}
	return p.source.Open(ctx, d)
}

// Bring implements Bringer.
func (p *pulled) Bring(ctx context.Context, d hostabi.Descriptor) error {
	if b, ok := p.source.(Bringer); ok {
		return b.Bring(ctx, d)
	}
	return notCached(d.Digest)
}

// Create implements hostabi.Sink.
func (p *pulled) Create(ctx context.Context, want hostabi.Descriptor) (hostabi.BlobWriter, error) {
	w, err := p.source.Create(ctx, want)
	if errors.Is(err, hostabi.Errorf(hostabi.ReasonExists, "")) {
		if _, serr := p.Stat(ctx, want.Digest); serr == nil {
			return nil, err
		}
		// Someone else's blob: staged apart, without its digest, and compared at Commit.
		w, err = p.source.Create(ctx, hostabi.Descriptor{Size: want.Size, MediaType: want.MediaType})
		if e, ok := w.(Expecter); ok && err == nil {
			e.Expect(want, 0)
		}
	}
	if err != nil {
		return nil, err
	}
	return &pulledWriter{BlobWriter: w, s: p.s, want: want.Digest}, nil
}

type pulledWriter struct {
	hostabi.BlobWriter
	s    *Session
	want hostabi.Digest
}

// Commit implements hostabi.BlobWriter.
func (w *pulledWriter) Commit(ctx context.Context) (hostabi.BlobInfo, error) {
	info, err := w.BlobWriter.Commit(ctx)
	if err == nil && w.want != "" && info.Digest != w.want {
		err = mismatch(w.want, info.Digest)
	}
	if err == nil {
		w.s.blobs.allow(info.Digest)
	}
	return info, err
}

// Tag implements hostv1.RegistryServer.
func (r *registryService) Tag(ctx context.Context, req *hostv1.TagRequest) (*hostv1.Descriptor, error) {
	s := sessionOf(ctx)
	pusher, err := r.push()
	if err != nil {
		return nil, err
	}
	p, err := s.puller()
	if err != nil {
		return nil, err
	}
	repo, err := s.canonical(req.GetRef())
	if err != nil {
		return nil, err
	}
	d, err := resolveFresh(ctx, p, req.GetRef()) // what it is now gets the tag
	if err != nil {
		return nil, err
	}
	if err := pusher.Tag(ctx, repo+"@"+string(d.Digest), req.GetTag()); err != nil {
		return nil, err
	}
	d.Ref = repo + ":" + req.GetTag()
	return descriptor(d), nil
}

// ListTags implements hostv1.RegistryServer.
func (*registryService) ListTags(req *hostv1.ListTagsRequest, out grpc.ServerStreamingServer[hostv1.TagName]) error {
	p, err := sessionOf(out.Context()).puller()
	if err != nil {
		return err
	}
	for tag, err := range p.Tags(out.Context(), req.GetRepository()) {
		if err != nil {
			return err
		}
		if err := out.Send(&hostv1.TagName{Name: tag}); err != nil {
			return err
		}
	}
	return nil
}

// Referrers implements hostv1.RegistryServer.
func (*registryService) Referrers(req *hostv1.ReferrersRequest, out grpc.ServerStreamingServer[hostv1.Descriptor]) error {
	ctx := out.Context()
	s := sessionOf(ctx)
	p, err := s.puller()
	if err != nil {
		return err
	}
	repo, err := s.canonical(req.GetRef())
	if err != nil {
		return err
	}
	subject, err := p.Resolve(ctx, req.GetRef())
	if err != nil {
		return err
	}
	for d, err := range p.Referrers(ctx, repo, subject.Digest, req.GetArtifactType()) {
		if err != nil {
			return err
		}
		if err := out.Send(descriptor(d)); err != nil {
			return err
		}
	}
	return nil
}

func descriptor(d hostabi.Descriptor) *hostv1.Descriptor {
	out := &hostv1.Descriptor{
		MediaType: d.MediaType, Digest: string(d.Digest), Size: d.Size, ArtifactType: d.ArtifactType,
		Annotations: d.Annotations, Ref: d.Ref,
	}
	if p := d.Platform; p != nil {
		out.Platform = &hostv1.Platform{Os: p.OS, Architecture: p.Architecture, Variant: p.Variant, OsVersion: p.OSVersion}
	}
	return out
}

func platform(p *hostv1.Platform) hostabi.Platform {
	return hostabi.Platform{OS: p.GetOs(), Architecture: p.GetArchitecture(), Variant: p.GetVariant(), OSVersion: p.GetOsVersion()}
}

func transfer(t hostabi.Transfer) *hostv1.Transfer {
	return &hostv1.Transfer{Descriptor_: descriptor(t.Descriptor), How: t.How}
}

func progress(p hostabi.Progress) *hostv1.Progress {
	return &hostv1.Progress{Id: p.ID, Label: p.Label, Current: p.Current, Total: p.Total, State: p.State}
}
