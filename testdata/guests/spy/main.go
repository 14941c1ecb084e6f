// Command spy is the hostile plugin of tests: it prints everything it can lay hands on.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1lite"
	"github.com/delivery-station/ds/pkg/client"
)

func main() {
	client.Main(client.App{Name: "spy", Version: "0.1.0", Commands: []client.Command{
		{Name: "dump", Args: []client.Arg{{Name: "keys", Repeat: true}}, Run: dump},
		{Name: "fetch", Args: []client.Arg{{Name: "url", Required: true}}, Run: fetch},
		{Name: "tell", Args: []client.Arg{{Name: "key", Required: true}}, Run: tell},
		{Name: "remember", Args: []client.Arg{{Name: "text"}}, Run: remember},
		{Name: "steal", Args: []client.Arg{{Name: "digest", Required: true}}, Run: steal},
	}})
}

// dump prints environment, arguments, what the kernel shows of this process, its description and the
// configuration, as a whole and key by key.
func dump(ctx context.Context, in *client.Invocation) error {
	fmt.Fprintln(in.Stdout, os.Args, os.Environ())
	for _, name := range []string{"environ", "cmdline"} {
		b, err := os.ReadFile("/proc/self/" + name)
		fmt.Fprintln(in.Stdout, name, string(b), err != nil)
	}
	d, err := in.Describe(ctx)
	fmt.Fprintln(in.Stdout, show(d), err)
	s, err := in.Session()
	if err != nil {
		return err
	}
	for _, prefix := range []string{"", "settings.", "plugins.", "auth.", "proxy."} {
		req := hostv1lite.ListConfigRequest{Prefix: prefix}
		b, err := s.Invoke(ctx, hostabi.Call{Method: hostv1lite.ConfigList, Req: req.AppendProto(nil)})
		fmt.Fprintln(in.Stdout, "list", prefix, string(b), err)
	}
	for _, key := range in.Args {
		v, err := in.Secret(ctx, key)
		fmt.Fprintln(in.Stdout, "get", key, v, err)
	}
	return nil
}

func show(v any) string {
	b, err := json.Marshal(v)
	return fmt.Sprint(string(b), err)
}

// fetch prints what a server answers, which may be what it was sent.
func fetch(ctx context.Context, in *client.Invocation) error {
	r, err := in.Do(ctx, &client.HTTPRequest{URL: in.Args[0]})
	if err != nil {
		return err
	}
	defer r.Body.Close()
	fmt.Fprintln(in.Stdout, r.Status, r.Header)
	return nil
}

// tell reads a secret that it was granted and logs it in several forms.
func tell(ctx context.Context, in *client.Invocation) error {
	v, err := in.Secret(ctx, in.Args[0])
	if err != nil {
		return err
	}
	in.Logger().WarnContext(ctx, "the secret is "+v, "quoted", fmt.Sprintf("%q", v))
	return in.Logger().Handler().Handle(ctx, slog.Record{Level: slog.LevelError, Message: "bye " + v})
}

// remember prints what it remembers and remembers text instead, as state and as blob.
func remember(ctx context.Context, in *client.Invocation) error {
	old, _, err := client.GetJSON[string](ctx, in.Client, "text")
	fmt.Fprintln(in.Stdout, "remembered:", old, err)
	for b, err := range in.Cache().List(ctx) {
		fmt.Fprintln(in.Stdout, "blob:", b.Digest, err)
	}
	if len(in.Args) == 0 {
		return nil
	}
	if _, err = in.Cache().Put(ctx, strings.NewReader(in.Args[0])); err != nil {
		return err
	}
	_, err = client.SetJSON(ctx, in.Client, "text", in.Args[0])
	return err
}

// steal reads a blob by its digest.
func steal(ctx context.Context, in *client.Invocation) error {
	b, err := in.Cache().Open(ctx, client.Digest(in.Args[0]))
	if err != nil {
		return err
	}
	defer b.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(b)
	fmt.Fprintf(in.Stdout, "stolen: %s\n", text)
	return err
}
