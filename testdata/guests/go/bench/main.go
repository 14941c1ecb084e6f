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

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1lite"
	"github.com/delivery-station/ds/pkg/client"
)

func app() client.App {
	return client.App{Name: "bench", Version: "0.1.0", Summary: "Work that is measured", Commands: []client.Command{
		{Name: "hello", Summary: "one host call, then print hello", Run: hello},
		{Name: "calls", Summary: "time many host calls", Args: []client.Arg{{Name: "key", Required: true}, {Name: "n", Type: "int", Required: true}}, Run: calls},
		{Name: "files", Summary: "time many host calls through /ds/call", Args: []client.Arg{{Name: "key", Required: true}, {Name: "n", Type: "int", Required: true}}, Run: files},
		{Name: "blob", Summary: "put a blob and time reading it", Args: []client.Arg{{Name: "bytes", Type: "int", Required: true}, {Name: "way", Required: true}}, Run: blob},
		{Name: "file", Summary: "the same with a file and no host", Args: []client.Arg{{Name: "bytes", Type: "int", Required: true}}, Run: file},
		{Name: "flood", Summary: "write many bytes to stdout", Args: []client.Arg{{Name: "bytes", Type: "int", Required: true}}, Run: flood},
	}}
}

// setting is the full key of a setting of this plugin.
func setting(name string) string { return "settings." + os.Getenv("DS_PLUGIN") + "." + name }

// invoke makes one call and leaves the reply as the host encoded it: contenders decode no JSON either.
func invoke(ctx context.Context, in *client.Invocation, method string, req interface{ AppendProto([]byte) []byte }, reply interface{ ParseProto([]byte) error }) error {
	s, err := in.Session()
	if err != nil {
		return err
	}
	b, err := s.Invoke(ctx, hostabi.Call{Method: method, Req: req.AppendProto(nil)})
	if err != nil {
		return err
	}
	return reply.ParseProto(b)
}

func hello(ctx context.Context, in *client.Invocation) error {
	var v json.RawMessage
	if err := in.ConfigValue(ctx, setting("v64"), &v); err != nil {
		return err
	}
	_, err := fmt.Fprintln(in.Stdout, "hello")
	return err
}

func calls(ctx context.Context, in *client.Invocation) error {
	req := &hostv1lite.GetConfigRequest{Key: setting(in.Args[0])}
	return measure(in, func() (int, error) {
		var v hostv1lite.ConfigValue
		err := invoke(ctx, in, hostv1lite.ConfigGet, req, &v)
		return len(v.Json), err
	})
}

// files makes the same call with files alone: write, close, open, read.
func files(_ context.Context, in *client.Invocation) error {
	const path = "/ds/call/Config/Get"
	req, err := json.Marshal(map[string]string{"key": setting(in.Args[0])})
	if err != nil {
		return err
	}
	return measure(in, func() (int, error) {
		if err := os.WriteFile(path, req, 0o600); err != nil {
			return 0, err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return 0, err
		}
		var v struct{ JSON string }
		err = json.Unmarshal(b, &v)
		return len(v.JSON), err
	})
}

// measure makes calls in blocks of 100 and prints what one call of the median block took: clocks of guests are
// coarse. A call returns the length of a JSON string.
func measure(in *client.Invocation, call func() (int, error)) error {
	const block = 100
	n, err := strconv.Atoi(in.Args[1])
	if err != nil {
		return err
	}
	var times []int64
	bytes := 0
	for done := 0; done < n; done += block {
		at := time.Now()
		for range block {
			size, err := call()
			if err != nil {
				return err
			}
			bytes += size - len(`""`)
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
