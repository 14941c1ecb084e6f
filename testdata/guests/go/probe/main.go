// Command probe is the Go plugin of scripts and of the demo: one source, both kinds. Each command shows one
// thing that a plugin can do or meets, in words that are the same for both kinds.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/delivery-station/ds/pkg/client"
)

// app is the whole program but what runs without the SDK.
func app() client.App {
	a := client.App{Name: "probe", Version: "0.1.0", Summary: "Show what a plugin meets", Commands: []client.Command{
		{Name: "config", Summary: "print the setting greeting", Run: config},
		{Name: "state", Summary: "count runs in the state store", Run: state},
		{Name: "cache", Summary: "put a blob and read it back", Run: cache},
		{Name: "resolve", Summary: "print the digest of a reference", Args: []client.Arg{{Name: "ref", Type: "ref", Required: true}}, Run: resolve, Complete: references},
		{Name: "call", Summary: "call another plugin and print what it says", Args: []client.Arg{{Name: "plugin", Required: true}, {Name: "words", Repeat: true}}, Run: call},
		{Name: "relay", Summary: "listen, have another plugin publish, print its event", Args: []client.Arg{{Name: "plugin", Required: true}, {Name: "words", Repeat: true}}, Run: relay},
		{Name: "publish", Summary: "publish <own name>.said", Args: []client.Arg{{Name: "text", Required: true}}, Run: publish},
		{Name: "rows", Summary: "structured output", Run: rows},
		{Name: "fail", Summary: "fail with a host error", Run: fail},
		{Name: "wait", Summary: "wait for an event that never comes", Run: wait},
		{Name: "ask", Summary: "ask on the terminal", Run: ask},
		{Name: "heard", Summary: "note an event, or print what was noted", Events: []string{"artifact.pulled", "*.said"}, Run: heard},
	}}
	for name, f := range raw {
		a.Commands = append(a.Commands, client.Command{
			Name: name, Summary: "see plugin.yaml", Args: []client.Arg{{Name: "words", Repeat: true}},
			Run: func(_ context.Context, in *client.Invocation) error {
				if code := f(in.Args); code != 0 {
					return &client.ExitError{Code: code}
				}
				return nil
			},
		})
	}
	return a
}

// raw are the commands that use nothing of the SDK. Without a server around them they get their words before
// any parser does.
var raw = map[string]func([]string) int{
	"args": func(a []string) int {
		fmt.Println(strings.Join(os.Args[:1], ""), len(a), fmt.Sprintf("%q", a))
		return 0
	},
	"exit":   func(a []string) int { n, _ := strconv.Atoi(a[0]); return n },
	"env":    env,
	"isatty": isatty,
	"cat":    func([]string) int { _, _ = io.Copy(os.Stdout, os.Stdin); return 0 },
	"line":   line,
	"flood":  flood,
	"stderr": func(a []string) int { fmt.Fprintln(os.Stderr, strings.Join(a, " ")); return 0 },
	"panic":  func([]string) int { panic("probe panics") },
	"hang":   func([]string) int { fmt.Println("hanging"); <-time.After(time.Hour); return 0 },
	"sleep":  func(a []string) int { d, _ := time.ParseDuration(a[0]); <-time.After(d); return 0 },
}

// env prints the names of the environment that are not part of every run.
func env(names []string) int {
	if len(names) == 0 {
		for _, kv := range os.Environ() {
			fmt.Println(kv)
		}
		return 0
	}
	for _, n := range names {
		fmt.Printf("%s=%s\n", n, os.Getenv(n))
	}
	return 0
}

func isatty([]string) int {
	for i, f := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		info, err := f.Stat()
		fmt.Println(i, err == nil && info.Mode()&os.ModeCharDevice != 0)
	}
	return 0
}

// line reads one line and leaves the rest for who comes next.
func line([]string) int {
	var b [1]byte
	var s strings.Builder
	for {
		n, err := os.Stdin.Read(b[:])
		if n == 1 && b[0] != '\n' {
			s.WriteByte(b[0])
			continue
		}
		if n == 1 || err != nil {
			fmt.Println("line:", s.String())
			return 0
		}
	}
}

// flood writes N bytes, byte i is i % 251.
func flood(a []string) int {
	n, err := strconv.Atoi(a[0])
	if err != nil {
		return 2
	}
	block := make([]byte, 251*256)
	for i := range block {
		block[i] = byte(i % 251)
	}
	for n > 0 {
		b := block[:min(n, len(block))]
		if _, err := os.Stdout.Write(b); err != nil {
			return 1
		}
		n -= len(b)
	}
	return 0
}

func config(ctx context.Context, in *client.Invocation) error {
	var s struct{ Greeting string }
	if err := in.Config(ctx, &s); err != nil {
		return err
	}
	fmt.Fprintln(in.Stdout, "greeting:", s.Greeting)
	return nil
}

func state(ctx context.Context, in *client.Invocation) error {
	n, rev, err := client.GetJSON[int](ctx, in.Client, "runs")
	if err != nil && !errors.Is(err, client.ErrNotFound) {
		return err
	}
	if _, err := client.SetJSON(ctx, in.Client, "runs", n+1, client.IfRevision(rev)); err != nil {
		return err
	}
	fmt.Fprintln(in.Stdout, "runs:", n+1)
	return nil
}

func cache(ctx context.Context, in *client.Invocation) error {
	info, err := in.Cache().Put(ctx, strings.NewReader("left by a probe\n"))
	if err != nil {
		return err
	}
	b, err := in.Cache().Open(ctx, info.Digest)
	if err != nil {
		return err
	}
	defer b.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(b)
	if err != nil {
		return err
	}
	fmt.Fprintf(in.Stdout, "%s %d %q\n", info.Digest, info.Size, text)
	return nil
}

// references proposes what nobody could know without asking the plugin: its settings and whether it may write.
func references(ctx context.Context, in *client.Invocation, _ string) ([]string, error) {
	var s struct{ Greeting string }
	if err := in.Config(ctx, &s); err != nil {
		return nil, err
	}
	_, err := client.SetJSON(ctx, in.Client, "completed", true)
	return []string{"reg.example/app:1\tone", "reg.example/app:2\t" + s.Greeting, "other.example/x:1", fmt.Sprintf("reg.example/denied:%v", err != nil)}, nil
}

func resolve(ctx context.Context, in *client.Invocation) error {
	d, err := in.Resolve(ctx, in.Args[0])
	if err != nil {
		return err
	}
	fmt.Fprintln(in.Stdout, d.Digest)
	return nil
}

func call(ctx context.Context, in *client.Invocation) error {
	r, err := in.CallPlugin(ctx, in.Args[0], in.Args[1:])
	if r != nil {
		fmt.Fprintf(in.Stdout, "exit %d: %s", r.ExitCode, r.Stdout)
		_, _ = in.Stderr.Write(r.Stderr) // nobody else would see it
	}
	if _, ended := errors.AsType[*client.ExitError](err); ended {
		return nil
	}
	return err
}

func relay(ctx context.Context, in *client.Invocation) error {
	sub, err := in.Subscribe(ctx, in.Args[0]+".**")
	if err != nil {
		return err
	}
	defer sub.Close() //nolint:errcheck // nothing more is received
	_, err = in.CallPlugin(ctx, in.Args[0], in.Args[1:])
	if _, ended := errors.AsType[*client.ExitError](err); err != nil && !ended {
		return err
	}
	e, err := sub.Next(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(in.Stdout, "%s from %s: %s\n", e.Topic, e.Source, e.Data)
	return nil
}

func publish(ctx context.Context, in *client.Invocation) error {
	return in.Publish(ctx, os.Getenv("DS_PLUGIN")+".said", in.Args[0])
}

type row struct {
	Name string `json:"name" ds:"NAME"`
	Size int    `json:"size" ds:"SIZE"`
	Note string `json:"note" ds:"NOTE,wide"`
}

func rows(_ context.Context, in *client.Invocation) error {
	return in.Rows([]row{{"one", 1, "first"}, {"two", 22, "second"}})
}

func fail(ctx context.Context, in *client.Invocation) error {
	_, err := in.GetState(ctx, "no-such-key")
	return err
}

func wait(ctx context.Context, in *client.Invocation) error {
	sub, err := in.Subscribe(ctx, "probe.**")
	if err != nil {
		return err
	}
	defer sub.Close() //nolint:errcheck // nothing more is received
	fmt.Fprintln(in.Stdout, "waiting")
	_, err = sub.Next(ctx)
	return err
}

func ask(ctx context.Context, in *client.Invocation) error {
	name, err := in.Ask(ctx, "Your name?", false)
	if err != nil {
		return err
	}
	fmt.Fprintln(in.Stdout, "hello", name)
	return nil
}

// heard notes the events that start it, and then has the mood of its setting. As a command of the user it prints
// what was noted.
func heard(ctx context.Context, in *client.Invocation) error {
	notes, rev, err := client.GetJSON[[]string](ctx, in.Client, "heard")
	if err != nil && !errors.Is(err, client.ErrNotFound) {
		return err
	}
	if in.Event == nil {
		for _, n := range notes {
			fmt.Fprintln(in.Stdout, n)
		}
		return nil
	}
	var s struct{ Mood string }
	if err := in.Config(ctx, &s); err != nil {
		return err
	}
	notes = append(notes, fmt.Sprintf("%s from %s hops %d in %s %s", in.Event.Topic, in.Event.Source, in.Event.Hops, os.Getenv("DS_KIND"), in.Command))
	if _, err := client.SetJSON(ctx, in.Client, "heard", notes, client.IfRevision(rev)); err != nil {
		return err
	}
	fmt.Fprintln(in.Stdout, "heard", in.Event.Topic, s.Mood)
	switch s.Mood {
	case "crash":
		panic("the handler panics")
	case "hang":
		<-time.After(time.Hour)
	case "flood":
		for range 64 {
			fmt.Fprintln(in.Stdout, strings.Repeat("more ", 1<<14))
		}
	case "answer":
		return in.Publish(ctx, os.Getenv("DS_PLUGIN")+".said", in.Event.Topic)
	}
	return nil
}
