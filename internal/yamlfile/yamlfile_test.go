package yamlfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
)

func TestParsePositions(t *testing.T) {
	n, err := Parse("f.yaml", []byte("\xEF\xBB\xBFa: 1\nb:\n  - x: \"ü\"\n    y: {z: [true, ~]}\n"), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path      []string
		kind      Kind
		text      string
		line, col int
	}{
		{[]string{"a"}, Int, "1", 1, 4},
		{[]string{"b"}, List, "", 3, 3},
		{[]string{"b", "0"}, Map, "", 3, 5},
		{[]string{"b", "0", "x"}, String, "ü", 3, 8},
		{[]string{"b", "0", "y", "z", "0"}, Bool, "true", 4, 13},
		{[]string{"b", "0", "y", "z", "1"}, Null, "~", 4, 19},
	} {
		got := n.At(c.path...)
		if got == nil || got.Kind != c.kind || got.Text != c.text || got.Line != c.line || got.Col != c.col {
			t.Errorf("%v: got %+v, want %v %q at %d:%d", c.path, got, c.kind, c.text, c.line, c.col)
		}
	}
	if n.At("b", "1") != nil || n.At("b", "x") != nil || n.At("a", "q") != nil {
		t.Error("At finds what is not there")
	}
	if got := n.Pointer("/b/0/y/missing"); got != n.At("b", "0", "y") {
		t.Errorf("Pointer of a missing value is %+v, want its parent", got)
	}
}

func TestKinds(t *testing.T) {
	for text, want := range map[string]any{
		"": nil, "~": nil, "null": nil, "NULL": nil, "nUll": "nUll", "true": true, "FALSE": false, "yes": "yes", "on": "on",
		"0": int64(0), "-12": int64(-12), "+3": int64(3), "0x1F": int64(31), "0o17": int64(15), "017": int64(17), "0b1": "0b1", "1_000": "1_000",
		"18446744073709551615": uint64(math.MaxUint64), "99999999999999999999999": json.Number("99999999999999999999999"),
		"1.5": 1.5, ".5": .5, "1.": 1.0, "1e3": 1000.0, "-1.5E-2": -0.015, "1e": "1e", ".": ".", "-": nil, "+": "+", ".inf": math.Inf(1), "-.Inf": math.Inf(-1),
		"2020-01-01": "2020-01-01", "1.2.3": "1.2.3", `"1"`: "1", "'true'": "true", "!!str 12": "12", "!!float 1": 1.0, "1:30": "1:30",
	} {
		if text == "-" {
			continue
		}
		n, err := Parse("f", []byte(text), Limits{})
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := n.Value(); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %#v, want %#v", text, got, want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	deep := strings.Repeat("[", 70) + strings.Repeat("]", 70)
	block := strings.Builder{}
	for i := range 70 {
		fmt.Fprintf(&block, "%sa:\n", strings.Repeat(" ", i))
	}
	bomb := strings.Builder{}
	bomb.WriteString("a0: &a0 [x, x]\n")
	for i := 1; i < 20; i++ {
		fmt.Fprintf(&bomb, "a%d: &a%d [*a%d, *a%d]\n", i, i, i-1, i-1)
	}
	for name, c := range map[string]struct {
		text string
		l    Limits
		want string
	}{
		"duplicate":       {"a: 1\nb: 2\na: 3\n", Limits{}, `f.yaml:3:1: key "a" again, first in line 1`},
		"quoted twin":     {"a: 1\n\"a\": 3\n", Limits{}, `f.yaml:2:1: key "a" again`},
		"syntax":          {"a: [1\n", Limits{}, "f.yaml:2"},
		"tab":             {"a:\n\tb: 1\n", Limits{}, "f.yaml:2:1"},
		"two documents":   {"a: 1\n---\nb: 2\n", Limits{}, "a second document"},
		"foreign tag":     {"a: !env HOME\n", Limits{}, "f.yaml:1:4: tag !env"},
		"binary":          {"a: !!binary aGk=\n", Limits{}, "f.yaml:1:4: tag !!binary"},
		"set":             {"a: !!set {x}\n", Limits{}, "f.yaml:1:4: tag !!set"},
		"wrong tag":       {"a: !!int x\n", Limits{}, `f.yaml:1:4: "x" is not a int`},
		"merge":           {"a: &a {x: 1}\nb:\n  <<: *a\n", Limits{}, "f.yaml:3:3: merge keys"},
		"complex key":     {"? [a]\n: 1\n", Limits{}, "f.yaml:1:3: a key must be a scalar"},
		"alias":           {"a: &a 1\nb: *a\n", Limits{NoAliases: true}, "f.yaml:2:4: alias *a"},
		"unknown alias":   {"b: *a\n", Limits{}, "f.yaml:1"},
		"alias bomb":      {bomb.String(), Limits{}, "more than 10000 values"},
		"alias cycle":     {"a: &a [*a]\n", Limits{}, "f.yaml:1"},
		"depth":           {deep, Limits{}, "deeper than 64"},
		"block depth":     {block.String(), Limits{}, "deeper than 64"},
		"nodes":           {"[" + strings.Repeat("a,", 10_000) + "]", Limits{}, "more than 10000 values"},
		"bytes":           {strings.Repeat("a", 101), Limits{Bytes: 100}, "101 bytes, at most 100"},
		"not UTF-8":       {"a: 1\nb: \xff\n", Limits{}, "f.yaml:2: not UTF-8"},
		"UTF-16":          {"\xff\xfea\x00", Limits{}, "f.yaml:1: not UTF-8"},
		"control":         {"a: \x01\n", Limits{}, "f.yaml"},
		"unclosed string": {"a: \"x\nb: 1", Limits{}, "f.yaml:"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("f.yaml", []byte(c.text), c.l)
			e, ok := errors.AsType[*Error](err)
			if !ok {
				t.Fatalf("got %v, want an *Error", err)
			}
			if !strings.Contains(e.Error(), c.want) {
				t.Errorf("got %q, want %q in it", e, c.want)
			}
		})
	}
}

func TestAliasExpands(t *testing.T) {
	n, err := Parse("f", []byte("a: &x {k: [1]}\nb: *x\n"), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(n.Value()); got != "map[a:map[k:[1]] b:map[k:[1]]]" {
		t.Errorf("got %s", got)
	}
}

func TestAccessors(t *testing.T) {
	n, err := Parse("f", []byte("s: x\nn: 5\nb: true\nl: [a, 1]\nm: {}\nbad: [[a]]\nz:\nbig: 99999999999999999999\n"), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := n.Get("n").Str("f", "n"); s != "5" || err != nil {
		t.Errorf("Str: %q %v", s, err)
	}
	if v, err := n.Get("b").Bool("f", "b"); !v || err != nil {
		t.Errorf("Bool: %v %v", v, err)
	}
	if v, err := n.Get("n").Int("f", "n"); v != 5 || err != nil {
		t.Errorf("Int: %v %v", v, err)
	}
	for key, want := range map[string][]string{"l": {"a", "1"}, "s": {"x"}, "z": nil} {
		if got, err := n.Get(key).Strings("f", key); !reflect.DeepEqual(got, want) || err != nil {
			t.Errorf("Strings of %s: %q %v", key, got, err)
		}
	}
	for want, f := range map[string]func() error{
		`f:5:4: m is a map, want a string`:             func() error { _, err := n.Get("m").Str("f", "m"); return err },
		`f:1:4: s is "x", want true or false`:          func() error { _, err := n.Get("s").Bool("f", "s"); return err },
		`f:4:4: l is a list, want an integer`:          func() error { _, err := n.Get("l").Int("f", "l"); return err },
		`f:7:3: z is null, want an integer`:            func() error { _, err := n.Get("z").Int("f", "z"); return err },
		`f:5:4: m is a map, want a list of strings`:    func() error { _, err := n.Get("m").Strings("f", "m"); return err },
		`f:6:7: an item of bad is a list, want a`:      func() error { _, err := n.Get("bad").Strings("f", "bad"); return err },
		`big is "99999999999999999999", want an integ`: func() error { _, err := n.Get("big").Int("f", "big"); return err },
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if (&Error{File: "f", Msg: "m"}).Error() != "f: m" || (*Node)(nil).Get("x") != nil || (*Node)(nil).Value() != nil {
		t.Error("zero values")
	}
}

func TestMarshal(t *testing.T) {
	v := Ordered{
		{"version", 1},
		{"list", []any{"a", Ordered{{"x", []string{"**"}}, {"y", map[string]any{"b": 1.0, "a": nil}}}, []any{}, []any{1, 2}, map[string]int{}}},
		{"empty", ""},
		{"odd key: #", "true"},
		{"num", json.Number("12")},
		{"strings", []string{"https://x.y:80/z", "- a", "a: b", "a #b", "yes", "0x1", "2020-01-01", "multi\nline", "tab\t", "ünï", "\u202e", "*", "12", "[x]", "a]", "x:", "1e3", "a,b"}},
	}
	b, err := Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	want := `version: 1
list:
  - a
  - x:
      - "**"
    y:
      a: null
      b: 1.0
  - []
  - - 1
    - 2
  - {}
empty: ""
"odd key: #": "true"
num: 12
strings:
  - https://x.y:80/z
  - "- a"
  - "a: b"
  - "a #b"
  - "yes"
  - "0x1"
  - "2020-01-01"
  - "multi\nline"
  - "tab\t"
  - ünï
  - "\u202e"
  - "*"
  - "12"
  - "[x]"
  - "a]"
  - "x:"
  - "1e3"
  - "a,b"
`
	if string(b) != want {
		t.Errorf("got:\n%s", b)
	}
	n, err := Parse("f", b, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Marshal(n); err != nil || string(again) != want {
		t.Errorf("the parsed tree gives %s %v", again, err)
	}
	if _, err := Marshal(map[string]any{"f": func() {}}); err == nil {
		t.Error("a function can be written")
	}
	for _, f := range []float64{math.Inf(1), math.Inf(-1), math.NaN(), 1e300, -0.5, 3} {
		b, _ := Marshal(f)
		n, err := Parse("f", b, Limits{})
		if err != nil || fmt.Sprint(n.Value()) != fmt.Sprint(f) {
			t.Errorf("%v is written as %q, read as %v (%v)", f, b, n, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"a: 1\n", "- [x, {y: !!str z}]", "&a [*a]", "? a\n: b", "'x': |\n  y\n", "{\"a\":[1,2,null]}", "%YAML 1.2\n---\na", "a: b: c", "...\n---\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := Parse("f", b, Limits{Bytes: 64 << 10})
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Fatalf("error %T", err)
			}
			return
		}
		out, err := Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse("f", out, Limits{Bytes: 1 << 30, Nodes: 1 << 30, Depth: 1000})
		if err != nil {
			t.Fatalf("%q is written as %q: %v", b, out, err)
		}
		if got, want := fmt.Sprintf("%#v", again.Value()), fmt.Sprintf("%#v", n.Value()); got != want {
			t.Fatalf("%q is written as %q: %s, want %s", b, out, got, want)
		}
	})
}
