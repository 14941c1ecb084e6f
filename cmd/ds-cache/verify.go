package main

import (
	"cmp"
	"context"
	"slices"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/pkg/client"
)

func verifyCommand() client.Command {
	return client.Command{
		Name: "verify", Summary: "Hash blobs and list those that are damaged",
		Help: "Reads and hashes all blobs, or those that are named, whatever their stamps say. A damaged one makes it fail with\n" +
			"DS2103, exit 7. With --repair damaged ones go into quarantine, so that they are fetched again when needed; ds\n" +
			"itself does that when it comes across one.",
		Examples: []string{"ds cache verify", "ds cache verify --repair"},
		Args:     digestArg("digest, or its first digits (default: all)", false),
		Flags:    []client.Flag{{Name: "repair", Type: "bool", Summary: "put damaged blobs into quarantine"}},
		Run:      verify,
	}
}

// damage is one blob that is not what its digest says.
type damage struct {
	ID       string        `json:"id" ds:"ID"`
	Digest   client.Digest `json:"digest" ds:"DIGEST,wide"`
	Problem  string        `json:"problem" ds:"PROBLEM"`
	Repaired bool          `json:"repaired" ds:"REPAIRED"`
}

func verify(ctx context.Context, in *client.Invocation) error {
	ds, err := digests(ctx, in, in.Args)
	if err != nil {
		return err
	}
	repair := in.Bool("repair")
	bad, checked := []damage{}, 0
	for v, err := range in.Cache().Verify(ctx, repair, ds...) {
		if err != nil {
			return err
		}
		checked++
		if !v.OK {
			bad = append(bad, damage{ID: id(v.Digest), Digest: v.Digest, Problem: v.Problem, Repaired: repair && gone(ctx, in, v.Digest)})
		}
	}
	slices.SortFunc(bad, func(a, b damage) int { return cmp.Compare(a.Digest, b.Digest) })
	if len(bad) == 0 {
		return report(ctx, in, bad, "Verified %d blobs, all are what their digests say\n", checked)
	}
	if err := in.Rows(bad); err != nil {
		return err
	}
	e := hostabi.Errorf(hostabi.ReasonCacheCorrupt, "%d of %d blobs are damaged", len(bad), checked)
	if !repair {
		return e.WithFix("ds cache verify --repair")
	}
	return e
}

// gone reports whether a damaged blob is out of the way.
func gone(ctx context.Context, in *client.Invocation, d client.Digest) bool {
	_, err := in.Cache().Stat(ctx, d)
	return hostabi.ReasonOf(err) == hostabi.ReasonNotCached
}

// report hands rows to the host and says on standard error what they mean together. An empty table says it alone.
func report[T any](ctx context.Context, in *client.Invocation, rows []T, format string, a ...any) error {
	chosen, err := in.Format(ctx)
	if err != nil {
		return err
	}
	in.Printf(format, a...)
	if len(rows) == 0 && (chosen == "" || chosen == "table" || chosen == "wide") {
		return nil
	}
	return in.Rows(rows)
}
