// Command bench is the plugin that internal/bench measures: one source, both kinds and both launch modes.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/delivery-station/ds/pkg/client"
)

func app() client.App {
	return client.App{Name: "bench", Version: "0.1.0", Summary: "Work that is measured", Commands: []client.Command{
		{Name: "hello", Summary: "one host call, then print hello", Run: hello},
		{Name: "calls", Summary: "time many host calls", Args: []client.Arg{{Name: "key", Required: true}, {Name: "n", Type: "int", Required: true}}, Run: calls},
		{Name: "flood", Summary: "write many bytes to stdout", Args: []client.Arg{{Name: "bytes", Type: "int", Required: true}}, Run: flood},
	}}
}

// setting is the full key of a setting of this plugin.
func setting(name string) string { return "settings." + os.Getenv("DS_PLUGIN") + "." + name }

// get reads a value; the host has encoded it, nothing here decodes it.
func get(ctx context.Context, in *client.Invocation, key string) (json.RawMessage, error) {
	var v json.RawMessage
	err := in.ConfigValue(ctx, key, &v)
	return v, err
}

func hello(ctx context.Context, in *client.Invocation) error {
	if _, err := get(ctx, in, setting("v64")); err != nil {
		return err
	}
	_, err := fmt.Fprintln(in.Stdout, "hello")
	return err
}

// calls makes n calls in blocks of 100 and prints what one call of the median block took: clocks of guests are
// coarse.
func calls(ctx context.Context, in *client.Invocation) error {
	const block = 100
	n, err := strconv.Atoi(in.Args[1])
	if err != nil {
		return err
	}
	key := setting(in.Args[0])
	var times []int64
	bytes := 0
	for done := 0; done < n; done += block {
		at := time.Now()
		for range block {
			v, err := get(ctx, in, key)
			if err != nil {
				return err
			}
			bytes += len(v) - len(`""`)
		}
		times = append(times, time.Since(at).Nanoseconds()/block)
	}
	slices.Sort(times)
	_, err = fmt.Fprintf(in.Stdout, "calls %d bytes %d ns %d\n", len(times)*block, bytes, times[len(times)/2])
	return err
}

func flood(_ context.Context, in *client.Invocation) error {
	left, err := strconv.Atoi(in.Args[0])
	if err != nil {
		return err
	}
	b := make([]byte, 64<<10)
	for left > 0 {
		n, err := in.Stdout.Write(b[:min(left, len(b))])
		if err != nil {
			return err
		}
		left -= n
	}
	return nil
}
