// Command tour is the acceptance program in Go: every language of testdata/guests has the same one.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/delivery-station/ds/pkg/client"
)

// run is the whole tour; words are those of the user.
func run(ctx context.Context, in *client.Client, words []string, stdin io.Reader, stdout io.Writer) error {
	fmt.Fprintf(stdout, "args: %d", len(words))
	for _, w := range words {
		fmt.Fprintf(stdout, " [%s]", w)
	}
	data, err := io.ReadAll(stdin)
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(data), "\n")
	fmt.Fprintf(stdout, "\nstdin: %d bytes, %s\n", len(data), first)
	var settings struct{ Greeting string }
	if err := in.Config(ctx, &settings); err != nil {
		return err
	}
	fmt.Fprintln(stdout, "config:", settings.Greeting)
	for _, step := range []func(context.Context, *client.Client, []byte, io.Writer) error{cache, state, event(len(words)), call, denied} {
		if err := step(ctx, in, data, stdout); err != nil {
			return err
		}
	}
	return &client.ExitError{Code: 7}
}

func cache(ctx context.Context, in *client.Client, data []byte, stdout io.Writer) error {
	info, err := in.Cache().Put(ctx, bytes.NewReader(data), client.WithMediaType("text/plain"))
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, "cache: put", info.Digest)
	blob, err := in.Cache().Open(ctx, info.Digest)
	if err != nil {
		return err
	}
	defer blob.Close() //nolint:errcheck // only read
	back, err := io.ReadAll(blob)
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, "cache: got", same(back, data))
	return nil
}

func state(ctx context.Context, in *client.Client, _ []byte, stdout io.Writer) error {
	visits, revision := 0, uint64(0)
	e, err := in.GetState(ctx, "visits")
	switch {
	case err == nil:
		revision = e.Revision
		if visits, err = strconv.Atoi(string(e.Value)); err != nil {
			return err
		}
	case !errors.Is(err, client.ErrNotFound):
		return err
	}
	if _, err := in.SetState(ctx, "visits", strconv.AppendInt(nil, int64(visits+1), 10), client.IfRevision(revision)); err != nil {
		return err
	}
	if e, err = in.GetState(ctx, "visits"); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "state: visits = %s\n", e.Value)
	return nil
}

func event(words int) func(context.Context, *client.Client, []byte, io.Writer) error {
	return func(ctx context.Context, in *client.Client, _ []byte, stdout io.Writer) error {
		topic := os.Getenv("DS_PLUGIN") + ".done"
		if err := in.Publish(ctx, topic, map[string]int{"words": words}, client.WithAttribute("language", "any")); err != nil {
			return err
		}
		fmt.Fprintln(stdout, "event: published", topic)
		return nil
	}
}

func call(ctx context.Context, in *client.Client, data []byte, stdout io.Writer) error {
	r, err := in.CallPlugin(ctx, "demo", []string{"echo"}, client.WithStdin(bytes.NewReader(data)))
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "call: demo echo ended with %d and gave %s\n", r.ExitCode, same(r.Stdout, data))
	r, err = in.CallPlugin(ctx, "demo", []string{"exit", "3"})
	if r == nil {
		return err
	}
	fmt.Fprintln(stdout, "call: demo exit ended with", r.ExitCode)
	return nil
}

func denied(ctx context.Context, in *client.Client, _ []byte, stdout io.Writer) error {
	_, err := in.Resolve(ctx, "ghcr.io/acme/app:1.4.0")
	if e, ok := errors.AsType[*client.Error](err); ok {
		fmt.Fprintf(stdout, "denied: code %d, %s: %s\n", e.Code, e.Reason, e.Msg)
		return nil
	}
	return err
}

func same(got, want []byte) string {
	if bytes.Equal(got, want) {
		return "the same"
	}
	return "SOMETHING ELSE"
}

func main() {
	client.Main(client.App{Name: "tour", Version: "0.1.0", Summary: "Show everything once", Commands: []client.Command{{
		Name: "one", Summary: "show everything once", Args: []client.Arg{{Name: "words", Repeat: true}},
		Run: func(ctx context.Context, in *client.Invocation) error {
			return run(ctx, in.Client, append([]string{"one"}, in.Args...), in.Stdin, in.Stdout)
		},
	}}})
}
