package term

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
)

type record struct {
	Name string   `json:"name"`
	Size int64    `json:"size"`
	OK   bool     `json:"ok"`
	Tags []string `json:"tags"`
	Note string   `json:"note"`
}

var items = []record{{"a", 12, true, []string{"x", "y"}, "first"}, {"bbbb", 3, false, nil, "<b>\x1b[31m\u202e"}}

func render(t *testing.T, o Options, format string, r hostabi.Rows) string {
	t.Helper()
	var b bytes.Buffer
	o.Stdout, o.Stderr = &b, &b
	if err := New(o).Rows(&b, format, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestRows(t *testing.T) {
	rows, err := RowsOf([]string{"name", "size=BYTES", "ok", "tags=TAGS,wide", "note"}, items...)
	if err != nil {
		t.Fatal(err)
	}
	one, err := ObjectOf([]string{"name", "size"}, items[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		o      Options
		format string
		rows   hostabi.Rows
		want   string
	}{
		"table":        {Options{}, "", rows, "NAME  BYTES  OK   NOTE\na     12     yes  first\nbbbb  3      no   <b>\uFFFD[31m\uFFFD\n"},
		"wide":         {Options{}, "wide", rows, "NAME  BYTES  OK   TAGS  NOTE\na     12     yes  x,y   first\nbbbb  3      no         <b>\uFFFD[31m\uFFFD\n"},
		"name":         {Options{}, "name", rows, "a\nbbbb\n"},
		"user format":  {Options{Format: "name"}, "", rows, "a\nbbbb\n"},
		"own wins":     {Options{Format: "json"}, "name", rows, "a\nbbbb\n"},
		"ndjson":       {Options{}, "ndjson", one, `{"name":"a","size":12,"ok":true,"tags":["x","y"],"note":"first"}` + "\n"},
		"object table": {Options{}, "", one, "NAME  a\nSIZE  12\n"},
		"yaml":         {Options{}, "yaml", one, "name: a\nnote: first\nok: true\nsize: 12\ntags:\n  - x\n  - y\n"},
		"template":     {Options{}, `go-template={{range .}}{{.name}}={{.size}}\n{{end}}`, rows, "a=12\nbbbb=3\n"},
		"jq":           {Options{JQ: ".[].name"}, "", rows, "a\nbbbb\n"},
		"jq numbers":   {Options{JQ: "map(.size)|add"}, "", rows, "15\n"},
		"empty json":   {Options{}, "json", hostabi.Rows{Columns: []string{"x"}}, "[]\n"},
		"empty table":  {Options{}, "", hostabi.Rows{Columns: []string{"x_y"}}, "X Y\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := render(t, c.o, c.format, c.rows); got != c.want {
				t.Errorf("got\n%q\nwant\n%q", got, c.want)
			}
		})
	}
}

func TestJSONIsOneSafeDocument(t *testing.T) {
	rows, _ := RowsOf(nil, items...)
	out := render(t, Options{}, "json", rows)
	var back []record
	if err := json.Unmarshal([]byte(out), &back); err != nil || len(back) != 2 || back[1].Note != items[1].Note {
		t.Errorf("%v: %s", err, out)
	}
	if strings.ContainsAny(out, "\x1b\u202e") || !strings.Contains(out, "<b>") {
		t.Errorf("controls pass, or HTML is escaped: %q", out)
	}
	one, _ := ObjectOf(nil, items[0])
	if out := render(t, Options{}, "json", one); !strings.HasPrefix(out, "{") {
		t.Errorf("a single object is printed as %s", out)
	}
}

func TestBadFormats(t *testing.T) {
	rows, _ := RowsOf([]string{"name"}, items...)
	for name, c := range map[string]struct {
		o      Options
		format string
		want   hostabi.Reason
	}{
		"unknown":      {Options{}, "xml", hostabi.ReasonFormat},
		"no template":  {Options{}, "go-template", hostabi.ReasonFormat},
		"bad template": {Options{}, "go-template={{", hostabi.ReasonFormat},
		"failing":      {Options{}, "go-template={{index . 9}}", hostabi.ReasonFormat},
		"bad jq":       {Options{JQ: ".["}, "", hostabi.ReasonFormat},
		"failing jq":   {Options{JQ: ".name"}, "", hostabi.ReasonFormat},
	} {
		var b bytes.Buffer
		c.o.Stdout = &b
		if got := hostabi.ReasonOf(New(c.o).Rows(&b, c.format, rows)); got != c.want {
			t.Errorf("%s: reason %q, want %q", name, got, c.want)
		}
	}
	var b bytes.Buffer
	bad := hostabi.Rows{Columns: []string{"x"}, JSON: []string{"{"}}
	if got := hostabi.ReasonOf(New(Options{}).Rows(&b, "json", bad)); got != hostabi.ReasonBadMessage {
		t.Errorf("a row that is no JSON: %q", got)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain ä": "plain ä", "a\nb\tc": "a b c", "\x1b[31mred": "\uFFFD[31mred", "\u202eevil\u2069": "\uFFFDevil\uFFFD",
		"\xff": "\uFFFD", "zero\u200bwidth": "zero\uFFFDwidth", "\u0085": "\uFFFD", "tag\U000E0041": "tag\uFFFD",
	} {
		if got := Clean(in, 0); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
	if got := Clean("abcdef", 3); got != "abc…" {
		t.Errorf("cut to %q", got)
	}
	if got := Clean("abc", 3); got != "abc" {
		t.Errorf("cut to %q", got)
	}
}

func TestColour(t *testing.T) {
	for name, c := range map[string]struct {
		color string
		env   map[string]string
		tty   bool
		want  bool
	}{
		"terminal":        {"auto", nil, true, true},
		"pipe":            {"", nil, false, false},
		"dumb":            {"", map[string]string{"TERM": "dumb"}, true, false},
		"never":           {"never", map[string]string{"CLICOLOR_FORCE": "1"}, true, false},
		"always":          {"always", map[string]string{"NO_COLOR": "1"}, false, true},
		"NO_COLOR":        {"", map[string]string{"NO_COLOR": "1", "CLICOLOR_FORCE": "1"}, true, false},
		"CLICOLOR_FORCE":  {"", map[string]string{"CLICOLOR_FORCE": "1"}, false, true},
		"CLICOLOR off":    {"", map[string]string{"CLICOLOR": "0"}, true, false},
		"forced off is 0": {"", map[string]string{"CLICOLOR_FORCE": "0"}, false, false},
	} {
		term := New(Options{Color: c.color, Env: func(k string) string { return c.env[k] }})
		if got := term.colours(c.tty); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestPromptWithoutTerminal(t *testing.T) {
	var b bytes.Buffer
	term := New(Options{Stdin: strings.NewReader("y\n"), Stdout: &b, Stderr: &b})
	if _, _, err := term.Prompt(t.Context(), hostabi.Prompt{Kind: "line", Text: "name?"}); hostabi.ReasonOf(err) != hostabi.ReasonNoTerminal {
		t.Errorf("asked a pipe: %v", err)
	}
	answer, defaulted, err := term.Prompt(t.Context(), hostabi.Prompt{Kind: "line", Text: "name?", Fallback: "x"})
	if answer != "x" || !defaulted || err != nil {
		t.Errorf("fallback gives %q, %v, %v", answer, defaulted, err)
	}
	yes := New(Options{Yes: true})
	if answer, defaulted, err := yes.Prompt(t.Context(), hostabi.Prompt{Kind: "confirm", Text: "sure?"}); answer != "yes" || defaulted || err != nil {
		t.Errorf("--yes gives %q, %v, %v", answer, defaulted, err)
	}
	if b.Len() != 0 {
		t.Errorf("wrote %q", b.String())
	}
}

func TestAccept(t *testing.T) {
	for _, c := range []struct {
		p    hostabi.Prompt
		line string
		want string
		ok   bool
	}{
		{hostabi.Prompt{Kind: "confirm"}, "Y", "yes", true},
		{hostabi.Prompt{Kind: "confirm"}, "", "no", true},
		{hostabi.Prompt{Kind: "confirm", Fallback: "yes"}, "", "yes", true},
		{hostabi.Prompt{Kind: "confirm"}, "maybe", "", false},
		{hostabi.Prompt{Kind: "choose", Choices: []string{"a", "b"}}, "b", "b", true},
		{hostabi.Prompt{Kind: "choose", Choices: []string{"a"}}, "c", "c", false},
		{hostabi.Prompt{Kind: "line"}, "anything", "anything", true},
	} {
		if got, ok := accept(c.p, c.line); got != c.want || ok != c.ok {
			t.Errorf("%+v %q: %q, %v", c.p, c.line, got, ok)
		}
	}
	term := New(Options{})
	if q := term.question(hostabi.Prompt{Kind: "confirm", Text: "delete\x1b[2J?", Plugin: "s3"}); q != "[s3] delete\uFFFD[2J? [y/N] " {
		t.Errorf("asks %q", q)
	}
}

func TestProgress(t *testing.T) {
	done := hostabi.Progress{ID: "1", Label: "app\x1b.tar", Current: 10, Total: 10, State: hostabi.ProgressDone, Transfer: &hostabi.Transfer{How: hostabi.ByNetwork, Descriptor: hostabi.Descriptor{Digest: "sha256:00"}}}
	for mode, want := range map[string]string{
		"none":  "",
		"plain": "network app\uFFFD.tar sha256:00 10 0.0\n",
		"json":  `{"event":"progress","name":"app` + "\uFFFD" + `.tar","current":5,"total":10,"state":"run"}` + "\n" + `{"event":"progress","name":"app` + "\uFFFD" + `.tar","current":10,"total":10,"state":"done"}` + "\n",
	} {
		var b bytes.Buffer
		term := New(Options{Stderr: &b, Progress: mode})
		term.Report(hostabi.Progress{ID: "1", Label: "app\x1b.tar", Current: 5, Total: 10, State: hostabi.ProgressRun})
		term.Report(hostabi.Progress{ID: "1", Label: "app\x1b.tar", Current: 6, Total: 10, State: hostabi.ProgressRun})
		term.Report(done)
		term.Close()
		if b.String() != want {
			t.Errorf("%s: %q, want %q", mode, b.String(), want)
		}
	}
}

func TestOffTerminalNothingButText(t *testing.T) {
	var b bytes.Buffer
	term := New(Options{Stdin: strings.NewReader(""), Stdout: &b, Stderr: &b})
	term.Report(hostabi.Progress{ID: "1", Label: "x", State: hostabi.ProgressDone})
	if _, err := term.Stderr().Write([]byte("line\n")); err != nil {
		t.Fatal(err)
	}
	term.Close()
	if b.String() != "line\n" {
		t.Errorf("wrote %q", b.String())
	}
	if f := term.Facts(); f.StdoutTTY || f.Prompts || f.Color || f.Progress != "none" {
		t.Errorf("facts of a pipe: %+v", f)
	}
}

// TestSizeColumn: sizes are for people in tables and bytes for programs.
func TestSizeColumn(t *testing.T) {
	type item struct {
		Size  int64 `json:"size"`
		Limit any   `json:"limit"`
	}
	rows, err := RowsOf([]string{"size=SIZE,size", "limit=LIMIT,wide,size"}, item{91 << 20, nil}, item{1023, 1536}, item{-1, "none"}, item{math.MaxInt64, 0})
	if err != nil {
		t.Fatal(err)
	}
	for format, want := range map[string]string{
		"table": "SIZE\n91.0 MiB\n1023 B\n-1 B\n8.0 EiB\n",
		"wide":  "SIZE      LIMIT\n91.0 MiB\n1023 B    1.5 KiB\n-1 B      none\n8.0 EiB   0 B\n",
		"name":  "95420416\n1023\n-1\n9223372036854775807\n",
	} {
		var out bytes.Buffer
		if err := New(Options{}).Rows(&out, format, rows); err != nil || out.String() != want {
			t.Errorf("%s: %v\n%s\nwant\n%s", format, err, out.String(), want)
		}
	}
}
