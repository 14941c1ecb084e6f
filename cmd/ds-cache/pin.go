package main

import (
	"context"
	"time"

	"github.com/delivery-station/ds/pkg/client"
)

// maxPin is how long a pin may last.
const maxPin = 365 * 24 * time.Hour

func pinCommand() client.Command {
	return client.Command{
		Name: "pin", Summary: "Keep blobs whatever is pruned",
		Help: "A pinned blob stays until the pin ends or unpin takes it away. To keep an artifact, pin its manifest and its\n" +
			"layers: ds cache ls --source REPOSITORY names them.",
		Examples: []string{"ds cache pin --for 30d 9f2c41aa"},
		Args:     digestArg("digest, or its first digits", true),
		Flags:    []client.Flag{{Name: "for", Type: "duration", Default: "365d", Summary: "how long, at most 365d"}},
		Run:      pin,
	}
}

// pinned is a blob whose pin was changed.
type pinned struct {
	ID     string        `json:"id" ds:"ID"`
	Digest client.Digest `json:"digest" ds:"DIGEST,wide"`
	Pinned bool          `json:"pinned" ds:"PINNED"` // by anybody
	Until  time.Time     `json:"until,omitzero" ds:"UNTIL"`
}

func pin(ctx context.Context, in *client.Invocation) error {
	d := in.Duration("for")
	if d <= 0 || d > maxPin {
		return client.Usagef("--for is more than 0 and at most 365d, not %s", in.Value("for"))
	}
	return setPin(ctx, in, d)
}

func unpinCommand() client.Command {
	return client.Command{
		Name: "unpin", Summary: "Take pins of this plugin away",
		Help: "Pins of other plugins stay, and so does the blob then.",
		Args: digestArg("digest, or its first digits", true),
		Run:  func(ctx context.Context, in *client.Invocation) error { return setPin(ctx, in, 0) },
	}
}

func setPin(ctx context.Context, in *client.Invocation, d time.Duration) error {
	ds, err := digests(ctx, in, in.Args)
	if err != nil {
		return err
	}
	all := make([]pinned, 0, len(ds))
	for _, digest := range ds {
		if err := in.Cache().Pin(ctx, digest, d); err != nil {
			return err
		}
		b, err := in.Cache().Stat(ctx, digest)
		if err != nil {
			return err
		}
		p := pinned{ID: id(digest), Digest: digest, Pinned: b.Pinned}
		if d > 0 {
			p.Until = seconds(time.Now().Add(d).UTC())
		}
		all = append(all, p)
	}
	return in.Rows(all)
}
