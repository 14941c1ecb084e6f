package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/pkg/client"
	"github.com/delivery-station/ds/pkg/client/ocilayout"
)

func importCommand() client.Command {
	return client.Command{
		Name: "import", Summary: "Put the blobs of a tar into the cache",
		Help: "Reads an OCI image layout in a plain tar, of export or of another tool. Each blob is hashed on its way; one that\n" +
			"does not have its digest ends the import with DS2101, those before it stay. Tags and trust do not travel: a\n" +
			"pull still asks the registry what a name means. With --sources artifacts count as pulled from the repositories\n" +
			"that the file names: a pull from there then fetches nothing that is here, and plugins may read it that may read\n" +
			"what is from there. Say so of files that you believe.",
		Examples: []string{"ds cache import --sources cache.tar", "ds cache import --dry-run cache.tar"},
		Args:     []client.Arg{{Name: "file", Summary: "tar to read", Type: "path", Mode: "read", Required: true}},
		Flags: []client.Flag{
			{Name: "sources", Summary: "believe the file where artifacts were pulled from", Type: "bool"},
			{Name: "dry-run", Summary: "only hash what is in it", Type: "bool"},
		},
		Run: load,
	}
}

// imported is what import says.
type imported struct {
	Path  string `json:"path" ds:"PATH"`
	Blobs int    `json:"blobs" ds:"BLOBS"`
	New   int    `json:"new" ds:"NEW"` // that were not in the cache
	Size  int64  `json:"size" ds:"SIZE,size"`
}

func load(ctx context.Context, in *client.Invocation) (err error) {
	host, err := in.Describe(ctx)
	if err != nil {
		return err
	}
	name := host.Typed(in.Args[0])
	f, err := os.Open(in.Args[0])
	if err != nil {
		return fileError(host, hostabi.FSRead, name, err)
	}
	defer func() { _ = f.Close() }() // read only
	l, err := ocilayout.Open(f, name)
	if err != nil {
		return client.FileError(name, err)
	}
	t := tarball{in: in, l: l}
	if t.types, err = l.Graph(l.Entries()); err != nil {
		return err
	}
	if in.Bool("sources") {
		if t.sources, err = sources(l); err != nil {
			return err
		}
	}
	out := imported{Path: name}
	for _, d := range l.Digests() {
		size, _ := l.Size(d)
		out.Blobs++
		out.Size += size
		fresh, err := t.take(ctx, d)
		if err != nil {
			return client.FileError(name, err)
		}
		if fresh {
			out.New++
		}
	}
	return in.Rows(out)
}

// maxSources bounds the different lists of repositories in one file: each is one walk over manifests.
const maxSources = 1000

// sources are the repositories of each blob: those of the artifacts that it belongs to.
func sources(l *ocilayout.Layout) (map[client.Digest][]string, error) {
	groups := make(map[string][]ocilayout.Entry)
	for _, e := range l.Entries() {
		if s := e.Annotations[sourcesKey]; s != "" {
			groups[s] = append(groups[s], e)
		}
	}
	if len(groups) > maxSources {
		return nil, hostabi.Errorf(hostabi.ReasonBadLayout, "the index names repositories in %d ways, at most %d", len(groups), maxSources)
	}
	all := make(map[client.Digest][]string)
	for names, entries := range groups {
		below, err := l.Graph(entries)
		if err != nil {
			return nil, err
		}
		for d := range below {
			all[d] = append(all[d], strings.Fields(names)...)
		}
	}
	return all, nil
}

// tarball is a file whose blobs come in.
type tarball struct {
	in      *client.Invocation
	l       *ocilayout.Layout
	types   map[client.Digest]string
	sources map[client.Digest][]string
}

// take brings one blob into the cache; fresh says that it was not there.
func (t *tarball) take(ctx context.Context, d client.Digest) (fresh bool, err error) {
	info, err := t.in.Cache().Stat(ctx, d)
	if fresh = errors.Is(err, client.ErrNotFound); err != nil && !fresh {
		return false, err
	}
	if t.in.Bool("dry-run") {
		return fresh, t.l.Check(ctx, d)
	}
	from := slices.DeleteFunc(slices.Compact(slices.Sorted(slices.Values(t.sources[d]))), func(s string) bool { return slices.Contains(info.Sources, s) })
	if fresh && len(from) == 0 {
		from = []string{""}
	}
	for _, repository := range from {
		if err := t.put(ctx, d, repository); err != nil {
			return false, err
		}
	}
	return fresh, nil
}

// put stores the bytes as what a plugin made, or as what was pulled from a repository. The host hashes them each time: who
// says where a blob is from has it.
func (t *tarball) put(ctx context.Context, d client.Digest, repository string) error {
	r, err := t.l.Blob(d)
	if err != nil {
		return err
	}
	opts := []client.BlobOption{client.WithExpected(d, r.Size()), client.WithMediaType(t.types[d])}
	if repository != "" {
		opts = append(opts, client.WithRepository(repository))
	}
	_, err = t.in.Cache().Put(ctx, ocilayout.Until(ctx, r), opts...)
	switch {
	case errors.Is(err, client.ErrExists):
		return nil // meanwhile
	case errors.Is(err, client.ErrDigest):
		if cerr := t.l.Check(ctx, d); cerr != nil {
			return cerr // in the words of the file
		}
	}
	return err
}
