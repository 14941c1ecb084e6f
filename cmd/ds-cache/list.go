package main

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/delivery-station/ds/pkg/client"
)

func listCommand() client.Command {
	return client.Command{
		Name: "ls", Aliases: []string{"list"}, Summary: "List what is in the cache",
		Help: "Lists the blobs that all filters let pass, the last used first. Nothing is hashed: see verify.",
		Examples: []string{
			"ds cache ls --unused-for 7d --larger-than 100MiB",
			"ds --jq 'map(.digest)' cache ls --source ghcr.io/acme/app",
		},
		Flags: []client.Flag{
			{Name: "long", Short: "l", Type: "bool", Summary: "whole digests and all times, as --format wide"},
			{Name: "unused-for", Type: "duration", Summary: "not used for so long, such as 7d"},
			{Name: "larger-than", Type: "size", Summary: "of more bytes, such as 100MiB"},
			{Name: "pinned", Type: "bool", Summary: "that are pinned; =false: that are not"},
			{Name: "source", Type: "string", Summary: "pulled from this repository"},
			{Name: "type", Type: "string", Summary: "whose media type begins so"},
			{Name: "sort", Type: "enum", Values: []string{"used", "size", "created", "digest"}, Default: "used", Summary: "order"},
		},
		Run: list,
	}
}

func list(ctx context.Context, in *client.Invocation) error {
	var opts []client.ListOption
	if s := in.Value("source"); s != "" {
		opts = append(opts, client.WithSource(s))
	}
	keep := filter(in, time.Now())
	all := []blob{}
	for b, err := range in.Cache().List(ctx, opts...) {
		if err != nil {
			return err
		}
		if keep(&b) {
			all = append(all, blobOf(b))
		}
	}
	slices.SortFunc(all, order(in.Value("sort")))
	if in.Bool("long") {
		if err := in.DefaultFormat(ctx, "wide"); err != nil {
			return err
		}
	}
	return in.Rows(all)
}

// filter is what the flags of ls ask for.
func filter(in *client.Invocation, now time.Time) func(b *client.BlobInfo) bool {
	unused, larger, mediaType := in.Duration("unused-for"), in.Int("larger-than"), in.Value("type")
	return func(b *client.BlobInfo) bool {
		return (!in.Changed("unused-for") || now.Sub(b.Used) >= unused) &&
			(!in.Changed("larger-than") || b.Size > larger) &&
			(!in.Changed("pinned") || b.Pinned == in.Bool("pinned")) &&
			strings.HasPrefix(b.MediaType, mediaType)
	}
}

// order compares by a column, large and late first; equal ones by digest.
func order(by string) func(a, b blob) int {
	return func(a, b blob) int {
		first := 0
		switch by {
		case "used":
			first = b.Used.Compare(a.Used)
		case "size":
			first = cmp.Compare(b.Size, a.Size)
		case "created":
			first = b.Created.Compare(a.Created)
		}
		return cmp.Or(first, cmp.Compare(a.Digest, b.Digest))
	}
}
