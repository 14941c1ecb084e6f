package schema

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
)

// TestLoops: a reference that leads back without going into the value would never end.
func TestLoops(t *testing.T) {
	for _, text := range []string{
		`{"$ref": "#"}`,
		`{"allOf": [{"$ref": "#"}]}`,
		`{"anyOf": [{}, {"$ref": "#/anyOf/1"}]}`,
		`{"oneOf": [{"not": {"if": {"$ref": "#"}}}]}`,
		`{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"dependentSchemas": {"x": {"$ref": "#/$defs/a"}}}}}`,
		`{"$defs": {"unused": {"then": true, "if": {"else": {"$ref": "#/$defs/unused"}, "if": true}}}}`,
		`{"$ref": "#a", "$defs": {"a": {"$anchor": "a", "$ref": "#a"}}}`,
	} {
		if _, err := Compile("s", []byte(text)); err == nil || !strings.Contains(err.Error(), "leads back to itself") {
			t.Errorf("%s: %v", text, err)
		}
	}
	compiled(t, `{"properties": {"a": {"$ref": "#"}}, "items": {"$ref": "#"}, "additionalProperties": {"$ref": "#"}}`)
}

// TestWork: a schema whose unfolding is exponential gives up instead of running for years.
func TestWork(t *testing.T) {
	fan := func(keyword string) string {
		var b strings.Builder
		b.WriteString(`{"$ref": "#/$defs/a0", "$defs": {`)
		for i := range 60 {
			fmt.Fprintf(&b, `"a%d": {%q: [{"$ref": "#/$defs/a%d"}, {"$ref": "#/$defs/a%d"}]},`, i, keyword, i+1, i+1)
		}
		return b.String() + `"a60": {"required": ["x"]}}}`
	}
	deep := `{"$defs": {"a": {"allOf": [` + strings.TrimSuffix(strings.Repeat(`{"properties": {"x": {"$ref": "#/$defs/a"}}},`, 20), ",") + `]}}, "$ref": "#/$defs/a"}`
	nested := strings.Repeat(`{"x":`, 30) + "{}" + strings.Repeat("}", 30)
	for name, c := range map[string]struct{ schema, value string }{
		"allOf":      {fan("allOf"), `{"x": 1}`},
		"anyOf":      {fan("anyOf"), `{}`},
		"oneOf":      {fan("oneOf"), `{"x": 1}`},
		"properties": {deep, nested},
		"patterns":   {`{"items": {"pattern": "^(a?){1000}$"}}`, `["` + strings.Repeat("a", 100_000) + `"]`},
	} {
		got := compiled(t, c.schema).Validate(value(t, c.value))
		if len(got) != 1 || got[0].Pointer != "" || !strings.Contains(got[0].Msg, "takes too long") {
			t.Errorf("%s: %.200q", name, fmt.Sprint(got))
		}
	}
	deepValue := strings.Repeat("[", 1000) + strings.Repeat("]", 1000)
	if got := compiled(t, `{"items": {"$ref": "#"}}`).Validate(value(t, deepValue)); len(got) != 1 || !strings.Contains(got[0].Msg, "nested too deeply") {
		t.Errorf("deep value: %v", got)
	}
}

// TestChains: references may follow each other, but not through so many values that the stack grows without end.
func TestChains(t *testing.T) {
	var b strings.Builder
	for i := range 800 {
		fmt.Fprintf(&b, `"a%d": {"$ref": "#/$defs/a%d"},`, i, i+1)
	}
	s := compiled(t, `{"$ref": "#/$defs/a0", "$defs": {`+b.String()+`"a800": {"properties": {"x": {"$ref": "#/$defs/a0"}}, "maxProperties": 1}}}`)
	if got := s.Validate(map[string]any{"a": 1, "b": 2}); len(got) != 1 || got[0].Msg != "want at most 1 property, got 2" {
		t.Errorf("one value: %v", got)
	}
	if got := s.Validate(value(t, `{"x": {"x": {}}}`)); len(got) != 1 || !strings.Contains(got[0].Msg, "nested too deeply") {
		t.Errorf("three values: %v", got)
	}
}

// TestPatterns: regular expressions are bounded in text, program and character ranges, one by one and together.
func TestPatterns(t *testing.T) {
	long := strings.Repeat("a", maxPattern+1)
	ranges := strings.Repeat(`\\pL`, 250)
	repeats := strings.Repeat("a{1000}", 90)
	var many strings.Builder
	for i := range 100 {
		fmt.Fprintf(&many, `"p%d": {"pattern": "%d[a-z]{1000}"},`, i, i)
	}
	for name, text := range map[string]string{
		"long": `{"pattern": "` + long + `"}`, "ranges": `{"pattern": "` + ranges + `"}`, "repeats": `{"pattern": "` + repeats + `"}`,
		"many": `{"properties": {` + many.String() + `"z": {}}}`,
	} {
		if _, err := Compile("s", []byte(text)); err == nil || !strings.Contains(err.Error(), "pattern") {
			t.Errorf("%s: %v", name, err)
		}
	}
	compiled(t, `{"pattern": "^[\\p{L}\\p{N}_.-]{1,64}$", "propertyNames": {"pattern": "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"}}`)
}

// TestManyProperties: the leaves of a schema that refers to itself or fans out are bounded.
func TestManyProperties(t *testing.T) {
	s := compiled(t, `{"properties": {"a": {"$ref": "#"}, "b": {"properties": {"c": {"$ref": "#/properties/b"}}}}}`)
	var got []string
	for _, p := range s.Properties() {
		got = append(got, strings.Join(p.Path, "."))
	}
	if strings.Join(got, " ") != "a b.c" {
		t.Errorf("got %q", got)
	}
	var b strings.Builder
	for i := range 40 {
		fmt.Fprintf(&b, `"a%d": {"properties": {"x": {"$ref": "#/$defs/a%d"}, "y": {"$ref": "#/$defs/a%d"}}},`, i, i+1, i+1)
	}
	if _, err := Compile("s", []byte(`{"$ref": "#/$defs/a0", "$defs": {`+b.String()+`"a40": {}}}`)); err == nil || !strings.Contains(err.Error(), "more than 4096") {
		t.Errorf("fan: %v", err)
	}
}

// TestConcurrent: a Schema is safe for concurrent use.
func TestConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := compiled(t, text)
		for range 8 {
			go func() {
				for range 50 {
					if got := s.Validate(map[string]any{"bucket": "a"}); len(got) != 1 {
						t.Errorf("got %v", got)
					}
					s.Secret("hosts", "0", "key")
					s.Properties()
				}
			}()
		}
	})
}
