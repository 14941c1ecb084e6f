package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1lite"
	"github.com/delivery-station/ds/pkg/client"
	"github.com/delivery-station/ds/plugin"
)

// tool is an App whose commands print what they were given.
func tool() client.App {
	show := func(_ context.Context, in *client.Invocation) error {
		_, err := fmt.Fprintf(in.Stdout, "%s %q b=%t n=%d s=%q d=%s z=%d m=%q e=%q changed=%t", in.Command, in.Args, in.Bool("bool"), in.Int("num"),
			in.Value("str"), in.Duration("dur"), in.Int("size"), in.Values("many"), in.Value("enum"), in.Changed("num"))
		return err
	}
	flags := []client.Flag{
		{Name: "bool", Short: "b", Type: "bool", Summary: "A switch"},
		{Name: "num", Short: "n", Type: "int", Default: "7"},
		{Name: "str", Short: "s"},
		{Name: "dur", Type: "duration"},
		{Name: "size", Type: "size"},
		{Name: "many", Short: "m", Repeat: true},
		{Name: "enum", Type: "enum", Values: []string{"red", "green"}},
		{Name: "float", Type: "float"},
		{Name: "digest", Type: "digest"},
		{Name: "file", Type: "path", Mode: "read"},
		{Name: "quiet", Short: "q", Type: "bool"},
	}
	return client.App{Name: "tool", Version: "1.2.3", Summary: "Shows things", Commands: []client.Command{
		{
			Name: "show", Aliases: []string{"sh"}, Summary: "Show arguments", Help: "Longer text.", Examples: []string{"ds tool show x"},
			Args: []client.Arg{{Name: "first", Required: true, Summary: "What"}, {Name: "rest", Repeat: true}}, Flags: flags, Run: show,
		},
		{Name: "bundle", Summary: "A group", Commands: []client.Command{
			{Name: "create", Run: show, Args: []client.Arg{{Name: "count", Type: "int"}}},
			{Name: "verify", Run: show},
		}},
		{Name: "must", Flags: []client.Flag{{Name: "key", Required: true}}, Run: show},
		{Name: "secret", Hidden: true, Run: show},
		{Name: "panics", Run: func(context.Context, *client.Invocation) error { panic("oh no") }},
		{Name: "fails", Args: []client.Arg{{Name: "how"}}, Run: func(_ context.Context, in *client.Invocation) error {
			switch in.Args[0] {
			case "plain":
				return errors.New("it broke")
			case "exit":
				return &client.ExitError{Code: 9}
			case "exit-text":
				return fmt.Errorf("wrapped: %w", &client.ExitError{Code: 9, Err: errors.New("why")})
			case "usage":
				return client.Usagef("no %s", "good")
			case "host":
				return fmt.Errorf("pull: %w", hostabi.Errorf(hostabi.ReasonOffline, "no network").WithFix("ds doctor"))
			}
			return nil
		}},
		{Name: "rows", Run: func(_ context.Context, in *client.Invocation) error {
			return in.Rows([]struct {
				A int `json:"a"`
			}{{1}})
		}},
		{Name: "notice", Run: func(_ context.Context, in *client.Invocation) error {
			in.Printf("plain %d\n", 1)
			p := in.Progress("bar", 2)
			in.Printf("through the host\n")
			p.Done(nil)
			return nil
		}},
		{
			Name: "on-event", Events: []string{"artifact.*", "kit.done"},
			Run: func(_ context.Context, in *client.Invocation) error {
				if in.Event == nil {
					return client.Usagef("no event")
				}
				if string(in.Event.Data) == "bad" {
					return errors.New("bad event")
				}
				_, err := fmt.Fprintf(in.Stdout, "%s %s\n", in.Event.Topic, in.Event.Data)
				return err
			},
		},
		{
			Name: "guess", Args: []client.Arg{{Name: "what"}, {Name: "file", Type: "path"}}, Flags: []client.Flag{{Name: "colour", Short: "c"}, {Name: "on", Type: "bool"}},
			Run: show, Complete: func(_ context.Context, in *client.Invocation, word string) ([]string, error) {
				if word == "fail" {
					return nil, errors.New("no")
				}
				return []string{"alpha\tfirst", "beta", fmt.Sprint("n", len(in.Args))}, nil
			},
		},
	}}
}

func runTool(t *testing.T, s hostabi.Session, stdin string, argv ...string) (exit int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	exit = tool().Run(t.Context(), client.Stdio{In: strings.NewReader(stdin), Out: &out, Err: &errs}, s, argv...)
	return exit, out.String(), errs.String()
}

func TestParse(t *testing.T) {
	const none = ` b=false n=7 s="" d=0s z=0 m=[] e="" changed=false`
	for _, c := range []struct{ argv, want string }{
		{"show x", `show ["x"]` + none},
		{"sh x y z", `show ["x" "y" "z"]` + none},
		{"show x --num 3 -b", `show ["x"] b=true n=3 s="" d=0s z=0 m=[] e="" changed=true`},
		{"show -b x", `show ["x"] b=true n=7 s="" d=0s z=0 m=[] e="" changed=false`},
		{"show --bool=false -n=4 x", `show ["x"] b=false n=4 s="" d=0s z=0 m=[] e="" changed=true`},
		{"show -n5 -bq -sabc x", `show ["x"] b=true n=5 s="abc" d=0s z=0 m=[] e="" changed=true`},
		{"show -bs v x", `show ["x"] b=true n=7 s="v" d=0s z=0 m=[] e="" changed=false`},
		{"show -m 1 --many=2 -m3 x", `show ["x"] b=false n=7 s="" d=0s z=0 m=["1" "2" "3"] e="" changed=false`},
		{"show --dur 1h30m --size 1.5KiB --enum green x", `show ["x"] b=false n=7 s="" d=1h30m0s z=1536 m=[] e="green" changed=false`},
		{"show -- -b --num", `show ["-b" "--num"]` + none},
		{"show - -5", `show ["-" "-5"]` + none},
		{"show --str= x", `show ["x"]` + none},
		{"show --str --bool x", `show ["x"] b=false n=7 s="--bool" d=0s z=0 m=[] e="" changed=false`},
		{"show show bundle", `show ["show" "bundle"]` + none},
		{"bundle create 3", `bundle create ["3"]` + strings.Replace(none, "n=7", "n=0", 1)},
		{"--format json bundle verify", `bundle verify []` + strings.Replace(none, "n=7", "n=0", 1)},
	} {
		exit, out, errs := runTool(t, nil, "", strings.Fields(c.argv)...)
		if exit != 0 || out != c.want || errs != "" {
			t.Errorf("%s:\ngot  %s%s (%d)\nwant %s", c.argv, out, errs, exit, c.want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct{ argv, number, want string }{
		{"shwo x", "DS1002", `ds tool has no command "shwo", the nearest is show`},
		{"bun", "DS1002", `ds tool has no command "bun", the nearest is bundle`},
		{"zzzzz", "DS1002", `ds tool has no command "zzzzz"` + "\n"},
		{"bundle craete", "DS1002", `ds tool bundle has no command "craete", the nearest is create`},
		{"bundle x y", "DS1002", `ds tool bundle has no command "x"`},
		{"secre", "DS1002", `ds tool has no command "secre"` + "\n"},
		{"show x --nmu 3", "DS1002", "ds tool show has no flag --nmu, the nearest is --num"},
		{"show x -x", "DS1002", "ds tool show has no flag -x\n"},
		{"--num 3 show", "DS1002", "ds tool has no flag --num"},
		{"show", "DS1001", "ds tool show needs FIRST"},
		{"must", "DS1001", "ds tool must needs --key"},
		{"must --key", "DS1001", "ds tool must: --key needs a value"},
		{"must --key v extra", "DS1001", `ds tool must takes 0 arguments, "extra" is one too many`},
		{"show x -n", "DS1001", "-n needs a value"},
		{"show x -n abc", "DS1001", `--num "abc": not a whole number`},
		{"show x --bool=perhaps", "DS1001", `--bool "perhaps": not a bool`},
		{"show x --dur 5", "DS1001", "not a duration"},
		{"show x --size 5XB", "DS1001", "not a size"},
		{"show x --float y", "DS1001", "not a number"},
		{"show x --digest sha256:1", "DS1001", "not sha256:"},
		{"show x --enum blue", "DS1001", "not one of red, green"},
		{"bundle create many", "DS1001", `COUNT "many": not a whole number`},
		{"help nothing", "DS1002", `ds tool has no command "nothing"`},
	} {
		exit, out, errs := runTool(t, nil, "", strings.Fields(c.argv)...)
		if exit != 2 || out != "" || !strings.HasPrefix(errs, "Error "+c.number+": ") || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit %d, stdout %q, stderr %q, want 2 and %s %q", c.argv, exit, out, errs, c.number, c.want)
		}
	}
}

func TestHelp(t *testing.T) {
	_, root, _ := runTool(t, nil, "")
	for _, words := range [][]string{{"--help"}, {"-h"}, {"help"}} {
		if exit, out, errs := runTool(t, nil, "", words...); exit != 0 || out != root || errs != "" {
			t.Errorf("%v: exit %d, %q, %q", words, exit, out, errs)
		}
	}
	if !strings.HasPrefix(root, "Shows things\n\nUsage:\n  ds tool COMMAND\n\nCommands:\n  show, sh  Show arguments\n") || strings.Contains(root, "secret") {
		t.Errorf("root help:\n%s", root)
	}
	want := `Show arguments

Longer text.

Usage:
  ds tool show [flags] FIRST [REST...]

Arguments:
  FIRST  What
  REST

Flags:
  -b, --bool            A switch
  -n, --num int         (default 7)
  -s, --str string
      --dur duration
      --size size
  -m, --many string
      --enum red|green
      --float float
      --digest digest
      --file path
  -q, --quiet

Examples:
  ds tool show x
`
	for _, words := range [][]string{{"show", "--help"}, {"show", "x", "-h"}, {"help", "show"}, {"show", "--help", "--nonsense"}} {
		if exit, out, _ := runTool(t, nil, "", words...); exit != 0 || out != want {
			t.Errorf("%v: exit %d\n%s", words, exit, out)
		}
	}
	if _, out, _ := runTool(t, nil, "", "bundle"); !strings.Contains(out, "create") {
		t.Errorf("group help:\n%s", out)
	}
	for _, words := range [][]string{{"version"}, {"--version"}} {
		if exit, out, _ := runTool(t, nil, "", words...); exit != 0 || out != "tool 1.2.3\n" {
			t.Errorf("%v: %d, %q", words, exit, out)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		how  string
		exit int
		want string
	}{
		{"nothing", 0, ""},
		{"plain", 1, "Error: it broke\n"},
		{"exit", 9, ""},
		{"exit-text", 9, "Error: why\n"},
		{"usage", 2, "Error DS1001: no good\n  more   ds explain DS1001\n"},
		{"host", 6, "Error DS2003: pull: no network\n  hint   ds doctor\n  more   ds explain DS2003   trace abc\n"},
	} {
		t.Run(c.how, func(t *testing.T) {
			if c.how == "host" {
				t.Setenv("DS_TRACE_ID", "abc")
			}
			if exit, _, errs := runTool(t, nil, "", "fails", c.how); exit != c.exit || errs != c.want {
				t.Errorf("exit %d, %q, want %d, %q", exit, errs, c.exit, c.want)
			}
		})
	}
	exit, _, errs := runTool(t, nil, "", "panics")
	if exit != 1 || !strings.HasPrefix(errs, "panic: oh no\n") || !strings.Contains(errs, "app_test.go") {
		t.Errorf("panic: exit %d, %q", exit, errs)
	}
	if exit := (client.App{Name: "empty"}).Run(t.Context(), client.Stdio{}, nil); exit != 0 {
		t.Errorf("empty app: exit %d", exit)
	}
}

func TestRowsFormat(t *testing.T) {
	w := newWorld(t)
	if exit, _, errs := runTool(t, w.session, "", "rows", "--format", "yaml"); exit != 0 || errs != "" {
		t.Errorf("exit %d, %q", exit, errs)
	}
	if got := w.Stdout.String(); got != "rows \"yaml\" [a] {\"a\":1}\n" {
		t.Errorf("host drew %q", got)
	}
}

func TestPrintf(t *testing.T) {
	w := newWorld(t)
	if exit, _, errs := runTool(t, w.session, "", "notice"); exit != 0 || errs != "plain 1\n" {
		t.Errorf("exit %d, stderr %q", exit, errs)
	}
	if lines := w.Log.Plugin(); len(lines) != 1 || !strings.Contains(lines[0], "through the host") {
		t.Errorf("host log %q", lines)
	}
	t.Setenv("DS_HOST_FD", "")
	if _, _, errs := runTool(t, nil, "", "notice"); errs != "plain 1\nthrough the host\n" {
		t.Errorf("without a host: stderr %q", errs)
	}
}

func TestTree(t *testing.T) {
	exit, out, _ := runTool(t, nil, "", "--ds-describe")
	if exit != 0 {
		t.Fatal(exit)
	}
	var tree struct {
		plugin.Command
		Version string
		Events  plugin.Events
	}
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&tree); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if tree.Name != "tool" || tree.Version != "1.2.3" || tree.Summary != "Shows things" || len(tree.Commands) != len(tool().Commands) {
		t.Errorf("%+v", tree)
	}
	show := tree.Commands[0]
	if !slices.Equal(show.Aliases, []string{"sh"}) || show.Help != "Longer text." || len(show.Examples) != 1 ||
		!show.Args[0].Required || !show.Args[1].Repeat || show.Args[0].Complete != "" {
		t.Errorf("%+v", show)
	}
	if f := show.Flags[6]; f.Name != "enum" || f.Type != "enum" || !slices.Equal(f.Enum, []string{"red", "green"}) {
		t.Errorf("%+v", f)
	}
	if f := show.Flags[1]; f.Short != "n" || f.Default != "7" || f.Type != "int" {
		t.Errorf("%+v", f)
	}
	if f := show.Flags[9]; f.Mode != "read" {
		t.Errorf("%+v", f)
	}
	if c := tree.Commands[1].Commands; len(c) != 2 || c[0].Name != "create" {
		t.Errorf("%+v", c)
	}
	if !tree.Commands[3].Hidden || !tree.Commands[2].Flags[0].Required {
		t.Errorf("%+v", tree.Commands[3])
	}
	guess := tree.Commands[len(tree.Commands)-1]
	if guess.Args[0].Complete != "dynamic" || guess.Flags[0].Complete != "dynamic" || guess.Flags[1].Complete != "" {
		t.Errorf("%+v", guess)
	}
	want := []plugin.Subscription{{Topic: "artifact.*", Handler: "on-event"}, {Topic: "kit.done", Handler: "on-event"}}
	if !slices.Equal(tree.Events.Subscribe, want) {
		t.Errorf("%+v", tree.Events)
	}
	odd := client.App{Name: "odd", Summary: "\"\\\n\x01é\xff"}
	var b bytes.Buffer
	odd.Run(t.Context(), client.Stdio{Out: &b}, nil, "--ds-describe")
	var c plugin.Command
	if err := json.Unmarshal(b.Bytes(), &c); err != nil || c.Summary != "\"\\\n\x01é\uFFFD" {
		t.Errorf("%q, %v in %s", c.Summary, err, b.Bytes())
	}
}

func TestComplete(t *testing.T) {
	for _, c := range []struct {
		words []string
		want  string
	}{
		{[]string{""}, "show\tShow arguments\nbundle\tA group\nmust\npanics\nfails\nrows\nnotice\non-event\nguess\n:4\n"},
		{[]string{"s"}, "show\tShow arguments\n:4\n"},
		{[]string{"bundle", ""}, "create\nverify\n:4\n"},
		{[]string{"show", "--b"}, "--bool\tA switch\n:4\n"},
		{[]string{"show", "--enum", ""}, "red\ngreen\n:4\n"},
		{[]string{"show", "--enum=g"}, "--enum=green\n:4\n"},
		{[]string{"show", "--file", ""}, ":0\n"},
		{[]string{"show", "-s", ""}, ":4\n"},
		{[]string{"show", "x", "-b", ""}, ":4\n"},
		{[]string{"guess", ""}, "alpha\tfirst\nbeta\nn0\n:4\n"},
		{[]string{"guess", "a"}, "alpha\tfirst\n:4\n"},
		{[]string{"guess", "x", ""}, "alpha\tfirst\nbeta\nn1\n:4\n"},
		{[]string{"guess", "-c", "b"}, "beta\n:4\n"},
		{[]string{"guess", "x", "y", ""}, ":4\n"},
		{[]string{"guess", "fail"}, ":1\n"},
		{[]string{"nothing", ""}, ":1\n"},
		{[]string{"--"}, ":4\n"},
		{nil, "show\tShow arguments\nbundle\tA group\nmust\npanics\nfails\nrows\nnotice\non-event\nguess\n:4\n"},
	} {
		exit, out, errs := runTool(t, nil, "", append([]string{"__complete"}, c.words...)...)
		if exit != 0 || out != c.want || errs != "" {
			t.Errorf("%q: exit %d\ngot  %q%s\nwant %q", c.words, exit, out, errs, c.want)
		}
	}
}

func TestHandler(t *testing.T) {
	w := newWorld(t)
	w.script(t, hostv1lite.MetaDescribe, func([]byte) hostv1lite.Message {
		return &hostv1lite.DescribeResponse{Invocation: &hostv1lite.Invocation{Kind: "event"}}
	})
	line := func(topic, data string) string {
		return fmt.Sprintf(`{"id":"1-2","topic":%q,"time":"1700000000123","data":%q,"hops":1,"dropped":"5","blobs":["sha256:x"],"attributes":{"k":"v"},"more":[{"x":null}]}`+"\n", topic, base64Of(data))
	}
	in := line("kit.done", "one") + "\n" + line("kit.done", "bad") + "not json\n" + strings.TrimSuffix(line("artifact.pulled", "two"), "\n")
	exit, out, errs := runTool(t, w.scripts, in, "on-event")
	if exit != 1 || out != "kit.done one\nartifact.pulled two\n" {
		t.Errorf("exit %d, stdout %q", exit, out)
	}
	if !strings.Contains(errs, "event on standard input: not an event") || !strings.Contains(errs, "Error: bad event\n") {
		t.Errorf("stderr %q", errs)
	}
	if exit, _, errs := runTool(t, nil, in, "on-event"); exit != 2 || !strings.Contains(errs, "no event") {
		t.Errorf("typed by a user: exit %d, %q", exit, errs)
	}
}

func base64Of(s string) string {
	b, _ := json.Marshal([]byte(s))
	return strings.Trim(string(b), `"`)
}

type signalCause struct{}

func (signalCause) Error() string { return "signal" }
func (signalCause) Signal() int   { return 15 }

func TestSignalExit(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	app := client.App{Name: "x", Commands: []client.Command{{Name: "wait", Run: func(ctx context.Context, _ *client.Invocation) error {
		cancel(signalCause{})
		return fmt.Errorf("stopped: %w", ctx.Err())
	}}}}
	var errs bytes.Buffer
	if exit := app.Run(ctx, client.Stdio{Err: &errs}, nil, "wait"); exit != 143 || errs.Len() > 0 {
		t.Errorf("exit %d, %q", exit, errs.String())
	}
}

// wire is a scripted streaming call.
type wire struct {
	failed
	sent    [][]byte
	answers []hostv1lite.Message
	closed  bool
}

func (w *wire) Stream(context.Context, string, hostabi.Encoding) (hostabi.Stream, error) {
	return &wireStream{w}, nil
}

type wireStream struct{ w *wire }

func (s *wireStream) Send(b []byte) error { s.w.sent = append(s.w.sent, bytes.Clone(b)); return nil }
func (s *wireStream) CloseSend() error    { return nil }
func (s *wireStream) Close() error        { s.w.closed = true; return nil }
func (s *wireStream) Recv() ([]byte, error) {
	if len(s.w.answers) == 0 {
		return nil, io.EOF
	}
	m := s.w.answers[0]
	s.w.answers = s.w.answers[1:]
	return m.AppendProto(nil), nil
}

func TestHTTP(t *testing.T) {
	w := &wire{answers: []hostv1lite.Message{
		&hostv1lite.HttpResponse{Status: &hostv1lite.HttpStatus{Code: 404, Url: "https://x/y", Headers: []hostv1lite.Header{{Name: "content-TYPE", Value: "text/x"}, {Name: "X-A", Value: "1"}, {Name: "x-a", Value: "2"}}}},
		&hostv1lite.HttpResponse{Body: []byte("hello ")},
		&hostv1lite.HttpResponse{Body: []byte("world")},
		&hostv1lite.HttpResponse{End: &hostv1lite.HttpEnd{Bytes: 11}},
	}}
	c, err := client.NewClient(client.WithSession(w))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := c.Do(ctx, &client.HTTPRequest{URL: "https://x", Header: map[string][]string{"A": {"b", "c"}}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != 404 || r.URL != "https://x/y" || r.Header["Content-Type"][0] != "text/x" || len(r.Header["X-A"]) != 2 {
		t.Errorf("%+v", r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || string(body) != "hello world" {
		t.Errorf("%q, %v", body, err)
	}
	if err := r.Body.Close(); err != nil || !w.closed {
		t.Errorf("close: %v, stream closed %t", err, w.closed)
	}
	var head hostv1lite.HttpRequest
	if err := head.ParseProto(w.sent[0]); err != nil || head.Head.Method != "GET" || len(head.Head.Headers) != 2 || head.Head.Timeout < 50_000 { //nolint:usestdlibvars // guests do without net/http
		t.Errorf("%+v, %v", head.Head, err)
	}
	for name, w := range map[string]*wire{
		"no status": {answers: []hostv1lite.Message{&hostv1lite.HttpResponse{Body: []byte("x")}}},
		"nothing":   {},
	} {
		c, _ := client.NewClient(client.WithSession(w))
		if _, err := c.Do(ctx, &client.HTTPRequest{URL: "https://x"}); hostabi.ReasonOf(err) != hostabi.ReasonProtocol {
			t.Errorf("%s: %v", name, err)
		}
	}
	cut := &wire{answers: []hostv1lite.Message{&hostv1lite.HttpResponse{Status: &hostv1lite.HttpStatus{Code: 200}}, &hostv1lite.HttpResponse{Body: []byte("x")}}}
	c, _ = client.NewClient(client.WithSession(cut))
	if r, err = c.Do(ctx, &client.HTTPRequest{URL: "https://x"}); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r.Body); err != io.ErrUnexpectedEOF || string(b) != "x" {
		t.Errorf("cut body: %q, %v", b, err)
	}
	_ = r.Body.Close()
	if _, err := r.Body.Read(make([]byte, 1)); err == nil {
		t.Error("read after close")
	}
	world := newWorld(t)
	if _, err := world.Do(ctx, &client.HTTPRequest{URL: "https://x"}); err == nil {
		t.Error("ungranted request went through")
	}
}
