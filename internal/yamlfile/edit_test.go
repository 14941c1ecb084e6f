package yamlfile

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

const messy = `# top
cache:   {dir: "/x",  ttl: 7d } # flow
registry:
    default:   ghcr.io/acme   # ours

    mirrors:
    - a
    - "b"   # second
ui:
  color: 'auto'
  empty:
  text: |
    block
    text
logging: {}
`

func TestSet(t *testing.T) {
	for name, c := range map[string]struct {
		in    string
		path  string
		value any
		want  [2]string // old and new text of the one place that changes; old "" = ErrManual
	}{
		"plain":           {messy, "registry.default", "ghcr.io/other", [2]string{"ghcr.io/acme ", "ghcr.io/other "}},
		"quoted":          {messy, "ui.color", "never", [2]string{"'auto'", "never"}},
		"needs quotes":    {messy, "ui.color", "true", [2]string{"'auto'", `"true"`}},
		"in flow":         {messy, "cache.dir", "/y z", [2]string{`"/x"`, "/y z"}},
		"flow last":       {messy, "cache.ttl", 5, [2]string{"7d }", "5 }"}},
		"new in flow":     {messy, "cache.verify", "always", [2]string{"7d }", "7d, verify: always }"}},
		"deep in flow":    {messy, "cache.remote.ref", "x/y", [2]string{"7d }", "7d, remote: {ref: x/y} }"}},
		"new in empty":    {messy, "logging.level", "debug", [2]string{"logging: {}", "logging: {level: debug}"}},
		"new in block":    {messy, "registry.concurrency", 3, [2]string{"\"b\"   # second\n", "\"b\"   # second\n    concurrency: 3\n"}},
		"empty value":     {messy, "ui.empty", true, [2]string{"empty:\n", "empty: true\n"}},
		"below empty":     {messy, "ui.empty.x", 1, [2]string{"empty:\n", "empty: {x: 1}\n"}},
		"list":            {messy, "registry.mirrors", []string{"c", "d e", "f,g"}, [2]string{"mirrors:\n    - a\n    - \"b\" ", "mirrors: [c, d e, \"f,g\"] "}},
		"map":             {messy, "cache", map[string]any{"dir": "/z"}, [2]string{`{dir: "/x",  ttl: 7d }`, "{dir: /z}"}},
		"new at the end":  {messy, "state.dir", "/s", [2]string{"logging: {}\n", "logging: {}\nstate:\n  dir: /s\n"}},
		"block scalar":    {messy, "ui.text", "x", [2]string{}},
		"after block":     {messy, "ui.more", "x", [2]string{}},
		"through scalar":  {messy, "ui.color.x", "x", [2]string{}},
		"empty file":      {"", "a.b", 1, [2]string{"", "a:\n  b: 1\n"}},
		"only a comment":  {"# c", "a", 1, [2]string{"# c", "# c\na: 1\n"}},
		"no line break":   {"a: 1", "b", 2, [2]string{"a: 1", "a: 1\nb: 2"}},
		"CRLF":            {"a: 1\r\nb:\r\n  c: 2\r\n", "b.d", 3, [2]string{"c: 2\r\n", "c: 2\r\n  d: 3\r\n"}},
		"BOM":             {"\xEF\xBB\xBFa: 1\n", "a", 2, [2]string{"a: 1", "a: 2"}},
		"anchor":          {"a: &x {b: 1}\nc: *x\n", "a.b", 2, [2]string{}},
		"alias":           {"a: &x {b: 1}\nc: *x\n", "c.b", 2, [2]string{}},
		"tag":             {"a: !!str 5\n", "a", 2, [2]string{}},
		"characters":      {"ü: {ö: 'ä'}\n", "ü.ö", "é", [2]string{"'ä'", "é"}},
		"two lines":       {"a: x\n  y\nb: 1\n", "a", "z", [2]string{}},
		"JSON":            {`{"a": {"b": 1}}`, "a.b", "c", [2]string{`"b": 1`, `"b": c`}},
		"quotes in flow":  {"a: [\"]\", 'it''s', x] # y\n", "a", 1, [2]string{"[\"]\", 'it''s', x]", "1"}},
		"comment in flow": {"a: [x, # ]\n  y]\n", "a", 1, [2]string{"[x, # ]\n  y]", "1"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Set("f", []byte(c.in), Limits{}, c.value, strings.Split(c.path, ".")...)
			if c.want == [2]string{} {
				if !errors.Is(err, ErrManual) || got != nil {
					t.Fatalf("got %q %v", got, err)
				}
				if text, err := Block(c.value, strings.Split(c.path, ".")...); err != nil || !strings.HasSuffix(text, "\n") {
					t.Errorf("Block: %q %v", text, err)
				}
				return
			}
			want := strings.Replace(c.in, c.want[0], c.want[1], 1)
			if err != nil || string(got) != want {
				t.Errorf("got %v\n%s\nwant\n%s", err, got, want)
			}
		})
	}
	if _, err := Set("f", []byte("a: ["), Limits{}, 1, "a"); err == nil || errors.Is(err, ErrManual) {
		t.Errorf("a damaged file: %v", err)
	}
	if _, err := Set("f", nil, Limits{}, func() {}, "a"); err == nil {
		t.Error("a function is a value")
	}
}

func TestUnset(t *testing.T) {
	for name, c := range map[string]struct{ in, path, want string }{
		"block":        {messy, "registry.default", strings.Replace(messy, "    default:   ghcr.io/acme   # ours\n", "", 1)},
		"list":         {messy, "registry.mirrors", strings.Replace(messy, "    mirrors:\n    - a\n    - \"b\"   # second\n", "", 1)},
		"empty value":  {messy, "ui.empty", strings.Replace(messy, "  empty:\n", "", 1)},
		"flow first":   {messy, "cache.dir", strings.Replace(messy, `dir: "/x",  `, "", 1)},
		"flow last":    {messy, "cache.ttl", strings.Replace(messy, `,  ttl: 7d`, "", 1)},
		"not there":    {messy, "a.b", messy},
		"last child":   {"a:\n  b: 1\nc: 2\n", "a.b", "c: 2\n"},
		"the only one": {"# c\na:\n  b: 1\n", "a.b", "# c\n"},
		"no break":     {"a: 1\nb: 2", "b", "a: 1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Unset("f", []byte(c.in), Limits{}, strings.Split(c.path, ".")...)
			if err != nil || string(got) != c.want {
				t.Errorf("got %v\n%s\nwant\n%s", err, got, c.want)
			}
		})
	}
	for _, path := range []string{"ui.text", "list.x"} {
		if _, err := Unset("f", []byte(messy+"list: [x]\n"), Limits{}, strings.Split(path, ".")...); !errors.Is(err, ErrManual) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func FuzzSet(f *testing.F) {
	f.Add([]byte(messy), "ui", "color", "x")
	f.Add([]byte("{a: {b: c}}"), "a", "b", "d")
	f.Add([]byte("- a\n"), "a", "b", "d")
	f.Fuzz(func(t *testing.T, b []byte, k1, k2, v string) {
		l := Limits{Bytes: 64 << 10}
		before, err := Parse("f", b, l)
		if err != nil {
			return
		}
		got, err := Set("f", b, l, v, k1, k2)
		if err != nil {
			return
		}
		after, err := Parse("f", got, l)
		if err != nil {
			t.Fatalf("%q is set to %q: %v", b, got, err)
		}
		if !reflect.DeepEqual(after.Value(), setIn(before.Value(), after.At(k1, k2).Value(), []string{k1, k2})) {
			t.Fatalf("%q is set to %q", b, got)
		}
		if _, err := Unset("f", got, l, k1, k2); err != nil && !errors.Is(err, ErrManual) {
			t.Fatal(err)
		}
	})
}
