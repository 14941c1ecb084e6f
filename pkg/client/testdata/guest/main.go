// Command guest uses most of the SDK. The tests run it natively and as a module and compare.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/delivery-station/ds/pkg/client"
)

func main() {
	client.Main(client.App{Name: "kit", Version: "1.2.3", Commands: []client.Command{
		{Name: "state", Run: state},
		{Name: "cache", Run: cache},
		{Name: "registry", Args: []client.Arg{{Name: "ref", Required: true}}, Run: registry},
		{Name: "plugins", Run: plugins},
		{Name: "events", Run: events},
		{Name: "terminal", Run: terminal},
		{Name: "errors", Run: failures},
		{Name: "rows", Run: rows},
		{Name: "parallel", Run: parallel},
		{Name: "fail", Run: func(ctx context.Context, in *client.Invocation) error {
			_, err := in.Secret(ctx, "settings.kit.locked.password")
			return err
		}},
		{Name: "exit", Run: func(context.Context, *client.Invocation) error { return &client.ExitError{Code: 42} }},
		{Name: "cat", Run: func(_ context.Context, in *client.Invocation) error {
			_, err := io.Copy(in.Stdout, in.Stdin)
			return err
		}},
	}})
}

func state(ctx context.Context, in *client.Invocation) error {
	for i := range 40 {
		if _, err := client.SetJSON(ctx, in.Client, fmt.Sprintf("k/%02d", i), i); err != nil {
			return err
		}
	}
	sum := 0
	for e, err := range in.ListState(ctx, "k/") {
		if err != nil {
			return err
		}
		n, _, err := client.GetJSON[int](ctx, in.Client, e.Key)
		if err != nil {
			return err
		}
		sum += n
	}
	_, err := in.SetState(ctx, "k/00", nil, client.IfRevision(99))
	fmt.Fprintln(in.Stdout, sum, errors.Is(err, client.ErrConflict))
	return in.DeleteState(ctx, "k/00")
}

func cache(ctx context.Context, in *client.Invocation) error {
	content := bytes.Repeat([]byte("0123456789"), 90_000)
	info, err := in.Cache().Put(ctx, bytes.NewReader(content), client.WithMediaType("text/x"))
	if err != nil {
		return err
	}
	b, err := in.Cache().Open(ctx, info.Digest)
	if err != nil {
		return err
	}
	got, err := io.ReadAll(b)
	if err != nil {
		return err
	}
	part := make([]byte, 4)
	if _, err := b.ReadAt(part, 123_456); err != nil {
		return err
	}
	fmt.Fprintln(in.Stdout, info.Digest, len(got), bytes.Equal(got, content), string(part))
	if err := b.Close(); err != nil {
		return err
	}
	w, err := in.Cache().Create(ctx, client.WithExpected(info.Digest, 0))
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, "other"); err != nil {
		return err
	}
	_, err = w.Commit(ctx)
	fmt.Fprintln(in.Stdout, errors.Is(err, client.ErrDigest), w.Close())
	for i, err := range in.Cache().List(ctx) {
		fmt.Fprintln(in.Stdout, i.Digest, i.MediaType, err)
	}
	return nil
}

func registry(ctx context.Context, in *client.Invocation) error {
	if err := in.Push(ctx, in.Args[0], strings.NewReader("a layer"), "text/plain"); err != nil {
		return err
	}
	var out bytes.Buffer
	if err := in.Pull(ctx, in.Args[0], &out); err != nil {
		return err
	}
	a, err := in.Fetch(ctx, in.Args[0])
	if err != nil {
		return err
	}
	fmt.Fprintln(in.Stdout, out.String(), a[0].Manifest.Digest, a[0].FetchedBytes, a[0].CachedBytes > 0)
	return nil
}

func plugins(ctx context.Context, in *client.Invocation) error {
	text := strings.Repeat("some input for the other plugin\n", 60_000)
	r, err := in.CallPlugin(ctx, "cat", []string{"run"}, client.WithStdin(strings.NewReader(text)))
	if err != nil {
		return err
	}
	fmt.Fprintln(in.Stdout, r.String() == text)
	r, err = in.CallPlugin(ctx, "exit", []string{"with", "3"})
	fmt.Fprintln(in.Stdout, r.ExitCode, err)
	list, err := in.Plugins(ctx)
	fmt.Fprintln(in.Stdout, list, err)
	return nil
}

func events(ctx context.Context, in *client.Invocation) error {
	s, err := in.Subscribe(ctx, "flood.*")
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := in.CallPlugin(ctx, "flood", []string{"wait", "flood.x"}); err != nil {
		return err
	}
	if _, err := in.CallPlugin(ctx, "flood", []string{"flood.x", "30"}); err != nil {
		return err
	}
	for range 30 {
		e, err := s.Next(ctx)
		if err != nil {
			return err
		}
		fmt.Fprint(in.Stdout, string(e.Data))
	}
	fmt.Fprintln(in.Stdout)
	return in.Publish(ctx, "kit.done", map[string]int{"n": 1})
}

func terminal(ctx context.Context, in *client.Invocation) error {
	yes, err := in.Confirm(ctx, "yes or no", false)
	fmt.Fprintln(in.Stdout, yes, err)
	p := in.Progress("item", 10)
	p.Add(10)
	p.Done(nil)
	in.Logger().Warn("a warning", "n", 1)
	d, err := in.Describe(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(in.Stdout, d.ABI, d.Invocation.Plugin, d.Has("ds.host.v1.Cache/Open"))
	return nil
}

func failures(ctx context.Context, in *client.Invocation) error {
	_, err := in.Secret(ctx, "settings.other.greeting")
	fmt.Fprintln(in.Stdout, errors.Is(err, client.ErrDenied), err)
	_, err = in.GetState(ctx, "absent")
	fmt.Fprintln(in.Stdout, errors.Is(err, client.ErrNotFound), err)
	_, err = in.SetState(ctx, "large", make([]byte, 5<<20))
	fmt.Fprintln(in.Stdout, errors.Is(err, client.ErrQuota))
	_, err = in.CallPlugin(ctx, "nobody", []string{"run"})
	fmt.Fprintln(in.Stdout, errors.Is(err, client.ErrDenied))
	for _, err := range in.ListState(ctx, "", client.WithOwner("other")) {
		fmt.Fprintln(in.Stdout, err)
	}
	return nil
}

func rows(_ context.Context, in *client.Invocation) error {
	type row struct {
		Name string `json:"name" ds:"NAME"`
		N    int    `json:"n"`
	}
	return in.Rows([]row{{"a", 1}, {"b", 2}})
}

func parallel(ctx context.Context, in *client.Invocation) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	n := 0
	for i := range 40 {
		wg.Go(func() {
			if _, err := in.SetState(ctx, fmt.Sprint("p", i), nil); err == nil {
				mu.Lock()
				defer mu.Unlock()
				n++
			}
		})
	}
	wg.Wait()
	fmt.Fprintln(in.Stdout, n)
	return nil
}
