package main

import (
	"context"
	"errors"
	"os"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/pkg/client"
	"github.com/delivery-station/ds/pkg/client/ocilayout"
)

func importCommand() client.Command {
	return client.Command{
		Name: "import", Summary: "Put the blobs of a tar into the cache",
		Help: "Reads an OCI image layout in a plain tar, of export or of another tool. Each blob is hashed on its way; one that\n" +
			"does not have its digest ends the import with DS2101, those before it stay. Tags and trust do not travel: a\n" +
			"pull still asks the registry what a name means, and then fetches nothing that is here.",
		Examples: []string{"ds cache import cache.tar", "ds cache import --dry-run cache.tar"},
		Args:     []client.Arg{{Name: "file", Summary: "tar to read", Type: "path", Mode: "read", Required: true}},
		Flags:    []client.Flag{{Name: "dry-run", Summary: "only hash what is in it", Type: "bool"}},
		Run:      load,
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
	types, err := l.MediaTypes()
	if err != nil {
		return client.FileError(name, err)
	}
	out := imported{Path: name}
	for _, d := range l.Digests() {
		size, _ := l.Size(d)
		out.Blobs++
		out.Size += size
		fresh, err := one(ctx, in, l, d, types[d])
		if err != nil {
			return client.FileError(name, err)
		}
		if fresh {
			out.New++
		}
	}
	return in.Rows(out)
}

// one brings one blob into the cache; fresh says that it was not there.
func one(ctx context.Context, in *client.Invocation, l *ocilayout.Layout, d client.Digest, mediaType string) (fresh bool, err error) {
	size, _ := l.Size(d)
	stat := func() (bool, error) {
		_, err := in.Cache().Stat(ctx, d)
		if errors.Is(err, client.ErrNotFound) {
			return true, nil
		}
		return false, err
	}
	if in.Bool("dry-run") {
		if err := l.Check(ctx, d); err != nil {
			return false, err
		}
		return stat()
	}
	if fresh, err = stat(); err != nil || !fresh {
		return false, err
	}
	r, err := l.Blob(d)
	if err != nil {
		return false, err
	}
	_, err = in.Cache().Put(ctx, ocilayout.Until(ctx, r), client.WithExpected(d, size), client.WithMediaType(mediaType))
	switch {
	case errors.Is(err, client.ErrExists):
		return false, nil // meanwhile
	case errors.Is(err, client.ErrDigest):
		return false, l.Check(ctx, d) // in the words of the file
	}
	return err == nil, err
}
