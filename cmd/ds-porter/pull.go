package main

import (
	"context"
	"fmt"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/pkg/client"
)

func pullCommand() client.Command {
	return client.Command{
		Name: "pull", Aliases: []string{"fetch"},
		Summary: "Bring an artifact into the cache and write its files",
		Help: "Brings an artifact into the cache; what is there already is not fetched again. With --output its\n" +
			"layers are written as files below that directory, named by their titles. Several platforms go to\n" +
			"OUTPUT/<os>/<arch>/.",
		Examples: []string{"ds porter pull ghcr.io/acme/app:1.4.0 -o ./dist", "ds porter pull oci-layout:./mirror:1.4.0"},
		Args:     []client.Arg{{Name: "ref", Summary: "what to pull", Type: "ref", Required: true}},
		Flags: []client.Flag{
			{Name: "output", Short: "o", Type: "path", Mode: "write", Summary: "directory to write the files to"},
			{Name: "platform", Type: "string", Repeat: true, Summary: "platform to take, OS/ARCH (default: this one)"},
			{Name: "all-arch", Type: "bool", Summary: "take all platforms"},
		},
		Run: pull,
	}
}

func pull(ctx context.Context, in *client.Invocation) error {
	start := time.Now()
	opts, several, err := selection(in)
	if err != nil {
		return err
	}
	artifacts, err := in.Fetch(ctx, in.Args[0], opts...)
	if err != nil {
		return err
	}
	if len(artifacts) == 0 {
		return hostabi.Errorf(hostabi.ReasonRefNotFound, "%s names an index without artifacts", in.Args[0])
	}
	doc, moved := pulledDocument(artifacts)
	remember(ctx, in, &doc, moved.fetched > 0)
	line := "Pulled " + doc.Reference
	if in.Changed("output") {
		if err := doc.export(ctx, in, artifacts, several); err != nil {
			return err
		}
		line = fmt.Sprintf("Wrote %s to %s", counted(len(doc.ExportedFiles), "file"), doc.LocalPath)
	}
	doc.stamp(ctx, in)
	return doc.print(ctx, in, fmt.Sprintf("%s   %s, %s", line, moved, sinceText(start)))
}

// selection reads the platform flags; several says that the user asked for more than one.
func selection(in *client.Invocation) (opts []client.RefOption, several bool, err error) {
	platforms := in.Values("platform")
	if in.Bool("all-arch") {
		if len(platforms) > 0 {
			return nil, false, client.Usagef("--all-arch takes every platform; leave out --platform")
		}
		return []client.RefOption{client.AllPlatforms()}, true, nil
	}
	for _, p := range platforms {
		opts = append(opts, client.WithPlatform(p))
	}
	return opts, len(platforms) > 1, nil
}

// transfer counts where the bytes of a pull came from.
type transfer struct{ fetched, cached int64 }

func (t transfer) String() string {
	if t.cached == 0 {
		return hostabi.SizeText(t.fetched)
	}
	return fmt.Sprintf("%s, %s from cache", hostabi.SizeText(t.fetched+t.cached), hostabi.SizeText(t.cached))
}

// pulledDocument describes what a pull brought.
func pulledDocument(artifacts []client.Artifact) (document, transfer) {
	root := artifacts[0].Root
	ref := root.Ref // canonical; a layout's path is absolute in it
	if ref == "" {
		ref = artifacts[0].Ref
	}
	doc := newDocument(ref, root.Digest)
	var moved transfer
	seen := make(map[client.Digest]bool)
	for _, a := range artifacts {
		moved.fetched += a.FetchedBytes
		moved.cached += a.CachedBytes
		for _, l := range a.Layers {
			if !seen[l.Digest] {
				seen[l.Digest] = true
				doc.Size += l.Size
			}
		}
	}
	doc.Cached = moved.fetched == 0
	if len(artifacts) == 1 {
		doc.Metadata = artifacts[0].Annotations
	}
	return doc, moved
}
