package client

import (
	"bufio"
	"bytes"
	"context"
	"io"

	"github.com/delivery-station/ds/hostabi"
)

// events runs a handler once for each event on standard input, until that ends. A run that fails is printed
// and does not stop the next one; the first failure is the result.
func (r *run) events(ctx context.Context, in *Invocation) error {
	lines := bufio.NewReader(r.std.In)
	var first error
	for {
		line, err := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			if err := r.handle(ctx, in, line); err != nil {
				if first == nil {
					first = err
				} else {
					r.print(err)
				}
			}
		}
		if err == io.EOF {
			return first
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ended(ctx)
		}
	}
}

func (r *run) handle(ctx context.Context, in *Invocation, line []byte) error {
	e, err := parseEvent(line)
	if err != nil {
		return classify(hostabi.Errorf(hostabi.ReasonBadMessage, "event on standard input: %w", err))
	}
	one := *in
	one.Event, one.Stdin = &e, eof{}
	return in.command.Run(ctx, &one)
}
