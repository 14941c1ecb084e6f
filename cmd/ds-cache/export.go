package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/pkg/client"
	"github.com/delivery-station/ds/pkg/client/ocilayout"
)

func exportCommand() client.Command {
	return client.Command{
		Name: "export", Summary: "Write blobs into one tar, for another machine",
		Help: "Writes an OCI image layout in a tar, which import and other tools read: all blobs, or those that are named with\n" +
			"what their manifests list as far as it is cached. Each manifest is listed with the repositories that it was pulled\n" +
			"from. The same blobs give the same bytes.",
		Examples: []string{"ds cache export -o cache.tar", "ds cache export -o app.tar 9f2c41aa"},
		Args:     digestArg("digest, or its first digits (default: all)", false),
		Flags:    []client.Flag{{Name: "output", Short: "o", Type: "path", Mode: "write", Required: true, Summary: "file to write"}},
		Run:      export,
	}
}

// sourcesKey is the annotation of a manifest in the index with the repositories that it was pulled from, separated by
// spaces.
const sourcesKey = "delivery-station.io/cache.sources"

// exported is what export says.
type exported struct {
	Path      string `json:"path" ds:"PATH"`
	Blobs     int    `json:"blobs" ds:"BLOBS"`
	Artifacts int    `json:"artifacts" ds:"ARTIFACTS"` // that the index lists
	Size      int64  `json:"size" ds:"SIZE,size"`
}

func export(ctx context.Context, in *client.Invocation) error {
	named, err := digests(ctx, in, in.Args)
	if err != nil {
		return err
	}
	s := selection{in: in, blobs: make(map[client.Digest]int64), child: make(map[client.Digest]bool)}
	if len(named) > 0 {
		err = s.closure(ctx, named)
	} else {
		err = s.all(ctx)
	}
	if err != nil {
		return err
	}
	host, err := in.Describe(ctx)
	if err != nil {
		return err
	}
	name := in.Value("output")
	entries := s.roots()
	size, err := ocilayout.WriteFile(ctx, name, entries, s.blobs, func(d client.Digest) (io.ReadCloser, error) {
		return in.Cache().Open(ctx, d)
	})
	if err != nil {
		return fileError(host, hostabi.FSWrite, host.Typed(name), err)
	}
	if s.missing > 0 {
		in.Printf("note: left out, because they are not in the cache: %d\n", s.missing)
	}
	return in.Rows(exported{host.Typed(name), len(s.blobs), len(entries), size})
}

// selection is what goes into a tar.
type selection struct {
	in        *client.Invocation
	blobs     map[client.Digest]int64
	manifests []ocilayout.Entry
	child     map[client.Digest]bool // listed by another manifest
	missing   int
}

// all selects everything that the cache lists and can hand out.
func (s *selection) all(ctx context.Context) error {
	for b, err := range s.in.Cache().List(ctx) {
		if err != nil {
			return err
		}
		if _, err := s.take(ctx, b.Digest); err != nil {
			return err
		}
	}
	return nil
}

// closure selects ds, which must be there, and what their manifests list, as far as it is.
func (s *selection) closure(ctx context.Context, ds []client.Digest) error {
	for n := len(ds); len(ds) > 0; n-- {
		d := ds[0]
		if _, done := s.blobs[d]; !done {
			if n > 0 { // named by the user
				if _, err := s.in.Cache().Stat(ctx, d); err != nil {
					return err
				}
			}
			children, err := s.take(ctx, d)
			if err != nil {
				return err
			}
			ds = append(ds, children...)
		}
		ds = ds[1:]
	}
	return nil
}

// take selects d if it is there, and tells what it lists if it is a manifest. Stat looks at suspects before their size
// is promised to the tar.
func (s *selection) take(ctx context.Context, d client.Digest) (children []client.Digest, err error) {
	info, err := s.in.Cache().Stat(ctx, d)
	if errors.Is(err, client.ErrNotFound) {
		s.missing++
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s.blobs[d] = info.Size
	if !ocilayout.IsManifest(info.MediaType) || info.Size > ocilayout.MaxManifest {
		return nil, nil
	}
	r, err := s.in.Cache().Open(ctx, d)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	e := ocilayout.Entry{MediaType: info.MediaType, Digest: d, Size: info.Size}
	if len(info.Sources) > 0 {
		e.Annotations = map[string]string{sourcesKey: strings.Join(slices.Sorted(slices.Values(info.Sources)), " ")}
	}
	if m, err := ocilayout.ParseManifest(b); err == nil { // else a blob like any other
		e.ArtifactType = m.ArtifactType
		for _, c := range m.Children() {
			if c.Digest.Valid() {
				s.child[c.Digest] = true
				children = append(children, c.Digest)
			}
		}
	}
	s.manifests = append(s.manifests, e)
	return children, nil
}

// roots are the manifests that no other one lists, sorted.
func (s *selection) roots() (roots []ocilayout.Entry) {
	for _, e := range s.manifests {
		if !s.child[e.Digest] {
			roots = append(roots, e)
		}
	}
	slices.SortFunc(roots, func(a, b ocilayout.Entry) int { return cmp.Compare(a.Digest, b.Digest) })
	return roots
}
