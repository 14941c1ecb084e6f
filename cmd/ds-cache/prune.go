package main

import (
	"context"

	"github.com/delivery-station/ds/pkg/client"
)

func pruneCommand() client.Command {
	return client.Command{
		Name: "prune", Summary: "Remove what is old, or more than should be kept",
		Help: "Removes expired blobs; with --older-than those that were not used for so long; with --max-size the least\n" +
			"recently used until so much is left on disk. With both only as much as --max-size asks for, and of that only\n" +
			"what is older. What is pinned or in use stays. What a command needs later it fetches again.",
		Examples: []string{"ds cache prune --older-than 30d", "ds cache prune --max-size 2GiB --dry-run"},
		Flags: []client.Flag{
			{Name: "older-than", Type: "duration", Summary: "not used for so long, such as 30d"},
			{Name: "max-size", Type: "size", Summary: "disk space that is left, such as 2GiB"},
			dryRun(),
		},
		Run: prune,
	}
}

func prune(ctx context.Context, in *client.Invocation) error {
	o := client.EvictOptions{OlderThan: in.Duration("older-than"), MaxBytes: in.Int("max-size")}
	if in.Changed("older-than") && o.OlderThan <= 0 || in.Changed("max-size") && o.MaxBytes <= 0 {
		return client.Usagef("--older-than and --max-size are more than 0; ds cache clear removes everything")
	}
	o.ExpiredOnly = o.OlderThan == 0 && o.MaxBytes == 0
	return evict(ctx, in, o)
}

func gcCommand() client.Command {
	return client.Command{
		Name: "gc", Summary: "Do now what ds does from time to time",
		Help: "Removes what is expired or was not used for cache.ttl and, if the cache is larger than cache.max_size, the least\n" +
			"recently used; sweeps what killed processes left. ds does the same at the end of commands, a second at most.",
		Flags: []client.Flag{dryRun()},
		Run: func(ctx context.Context, in *client.Invocation) error {
			return evict(ctx, in, client.EvictOptions{Policy: true})
		},
	}
}

func clearCommand() client.Command {
	return client.Command{
		Name: "clear", Summary: "Remove everything that is not pinned or in use",
		Flags: []client.Flag{dryRun()},
		Run: func(ctx context.Context, in *client.Invocation) error {
			return evict(ctx, in, client.EvictOptions{})
		},
	}
}

// evicted is one blob that went.
type evicted struct {
	blob
	Removed bool `json:"removed"` // false in a dry run
}

func evict(ctx context.Context, in *client.Invocation, o client.EvictOptions) error {
	o.DryRun = in.Bool("dry-run")
	all, size := []evicted{}, int64(0)
	for b, err := range in.Cache().Evict(ctx, o) {
		if err != nil {
			return err
		}
		size += b.Size
		all = append(all, evicted{blobOf(b), !o.DryRun})
	}
	word := "Removed"
	if o.DryRun {
		word = "Would remove"
	}
	return report(ctx, in, all, "%s %s\n", word, blobsText(len(all), size))
}
