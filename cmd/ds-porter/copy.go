package main

import (
	"context"
	"fmt"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/pkg/client"
)

func copyCommand() client.Command {
	return client.Command{
		Name:    "copy",
		Summary: "Copy an artifact with all its platforms to another place",
		Help: "Copies an artifact by way of the cache: blobs first, tags last. What the target has already is not\n" +
			"sent again.",
		Examples: []string{"ds porter copy ghcr.io/acme/app:1.4.0 registry.example.com/mirror/app:1.4.0"},
		Args: []client.Arg{
			{Name: "src", Summary: "what to copy", Type: "ref", Required: true},
			{Name: "dst", Summary: "where to", Type: "ref", Required: true},
		},
		Run: copyArtifact,
	}
}

func copyArtifact(ctx context.Context, in *client.Invocation) error {
	start := time.Now()
	root, err := in.Copy(ctx, in.Args[0], in.Args[1])
	if err != nil {
		return err
	}
	doc, err := storedDocument(ctx, in, root, in.Args[1])
	if err != nil {
		return err
	}
	return doc.print(ctx, in, fmt.Sprintf("Copied %s to %s   %s, %s", in.Args[0], doc.Reference, hostabi.SizeText(doc.Size), sinceText(start)))
}
