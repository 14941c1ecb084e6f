package schema

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

const text = `{
  "type": "object", "additionalProperties": false, "required": ["bucket"],
  "properties": {
    "bucket": {"type": "string", "minLength": 3, "description": "where"},
    "retries": {"type": "integer", "minimum": 0, "default": 5},
    "mode": {"enum": ["a", "b"]},
    "credentials": {"type": "object", "properties": {"access_key_id": {"type": "string"}, "blob": {"$ref": "#/$defs/secret"}}},
    "token": {"$ref": "#/$defs/any", "x-ds-secret": true},
    "vault": {"type": "object", "x-ds-secret": true, "properties": {"a": {"type": "string"}}},
    "hosts": {"type": "array", "items": {"type": "object", "properties": {"key": {"x-ds-secret": true}}}}
  },
  "$defs": {"secret": {"type": "string", "x-ds-secret": true}, "any": {"type": "string"}}
}`

const draft07 = `"$schema": "http://json-schema.org/draft-07/schema#"`

func compiled(t *testing.T, text string) *Schema {
	t.Helper()
	s, err := Compile("settings.schema.json", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func value(t *testing.T, text string) any {
	t.Helper()
	v, err := decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestValidate(t *testing.T) {
	s := compiled(t, text)
	if got := s.Validate(map[string]any{"bucket": "abc", "retries": int64(3), "mode": "a", "hosts": []any{map[string]any{"key": 1.5}}}); got != nil {
		t.Errorf("valid value: %v", got)
	}
	got := s.Validate(map[string]any{
		"bucket": "a", "retries": uint64(1), "mode": "c", "extra": nil,
		"credentials": map[string]any{"access_key_id": int64(1)}, "hosts": []any{map[string]any{}, "x"},
	})
	want := []Problem{
		{"/bucket", "want at least 3 characters, got 1"},
		{"/credentials/access_key_id", "want string, got integer"},
		{"/extra", "unknown property"},
		{"/hosts/1", "want object, got string"},
		{"/mode", `want one of "a", "b"`},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := s.Validate(nil); len(got) != 1 {
		t.Errorf("null: %v", got)
	}
}

// TestGoValues covers the forms of values that parsers of configuration give.
func TestGoValues(t *testing.T) {
	for name, c := range map[string]struct {
		schema string
		v      any
		want   string // "" = valid
	}{
		"int":              {`{"type": "integer", "minimum": 3}`, 2, "is below the minimum 3"},
		"float integer":    {`{"type": "integer"}`, 2.0, ""},
		"float":            {`{"type": "integer"}`, 2.5, "want integer, got number"},
		"tenth":            {`{"multipleOf": 0.1}`, 0.3, ""},
		"large":            {`{"maximum": 9007199254740992}`, int64(9007199254740993), "is above the maximum 9007199254740992"},
		"strings":          {`{"items": {"maxLength": 1}}`, []string{"a", "bc"}, "want at most 1 character, got 2"},
		"strings open":     {`{"unevaluatedItems": false}`, []string{"a"}, "is not allowed"},
		"strings constant": {`{"const": ["a"]}`, []string{"a"}, ""},
		"not a number":     {`{"type": "number"}`, math.NaN(), "is a number that JSON does not have"},
		"infinite":         {`{}`, math.Inf(1), "is a number that JSON does not have"},
		"huge":             {`{}`, json.Number("1e999999999"), "is a number that is too large"},
		"no number":        {`{}`, json.Number("x"), "is a number that is too large"},
		"foreign":          {`{}`, time.Second, "is a time.Duration"},
	} {
		got := compiled(t, c.schema).Validate(c.v)
		if c.want == "" && got != nil || c.want != "" && (len(got) != 1 || got[0].Msg != c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// TestNoValues proves that messages never repeat a value, which may be a secret.
func TestNoValues(t *testing.T) {
	const secret = "hunter2"
	for _, text := range []string{
		`{"type": "integer"}`, `{"enum": [1]}`, `{"const": 1}`, `{"pattern": "^x"}`, `{"maxLength": 1}`, `{"not": {}}`,
		`{"anyOf": [{"type": "null"}, {"maxLength": 1}]}`, `{"oneOf": [{}, {}]}`, `{"allOf": [false]}`,
	} {
		got := compiled(t, `{"items": `+text+`}`).Validate([]any{secret})
		if len(got) != 1 || got[0].Pointer != "/0" || strings.Contains(got[0].Msg, secret) {
			t.Errorf("%s: %q", text, got)
		}
	}
}

func TestMaxProblems(t *testing.T) {
	s := compiled(t, `{"items": {"anyOf": [{"properties": {"a": {"type": "null"}}}, false]}}`)
	list := make([]any, 3*MaxProblems)
	for i := range list {
		list[i] = map[string]any{"a": i}
	}
	if got := s.Validate(list); len(got) != MaxProblems {
		t.Errorf("%d problems", len(got))
	}
}

func TestProperties(t *testing.T) {
	s := compiled(t, text)
	var got []string
	for _, p := range s.Properties() {
		got = append(got, fmt.Sprintf("%s %s %t %v", strings.Join(p.Path, "."), p.Type, p.Secret, p.Default))
	}
	want := []string{
		"bucket string false <nil>", "credentials.access_key_id string false <nil>", "credentials.blob string true <nil>",
		"hosts array false <nil>", "mode  false <nil>", "retries integer false 5", "token string true <nil>", "vault object true <nil>",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	for _, p := range s.Properties() {
		if name := p.Path[0]; name == "bucket" && p.Description != "where" || name == "mode" && len(p.Enum) != 2 {
			t.Errorf("%+v", p)
		}
	}
}

func TestSecret(t *testing.T) {
	s := compiled(t, text)
	for path, want := range map[string]bool{
		"bucket": false, "credentials.blob": true, "token": true, "vault.a": true, "vault": true, "hosts.0.key": true, "nothing.here": false,
	} {
		if s.Secret(strings.Split(path, ".")...) != want {
			t.Errorf("Secret(%s) is not %t", path, want)
		}
	}
	s = compiled(t, `{
	  "allOf": [{"properties": {"a": {"x-ds-secret": true}}}],
	  "if": true, "then": {"properties": {"b": {"anyOf": [{"type": "null"}, {"x-ds-secret": true}]}}},
	  "properties": {"list": {"prefixItems": [{}, {"x-ds-secret": true}]}, "plain": {}},
	  "patternProperties": {"^key_": {"x-ds-secret": true}},
	  "unevaluatedProperties": {"properties": {"deep": {"x-ds-secret": true}}}
	}`)
	for path, want := range map[string]bool{"a": true, "b": true, "list.1": true, "key_x": true, "else.deep": true, "plain": false, "list": false} {
		if s.Secret(strings.Split(path, ".")...) != want {
			t.Errorf("combinations: Secret(%s) is not %t", path, want)
		}
	}
}

func TestDefault(t *testing.T) {
	s := compiled(t, `{"properties": {
	  "retries": {"default": 5}, "null": {"default": null},
	  "near": {"$ref": "#/$defs/d", "default": "near"}, "far": {"$ref": "#/$defs/d"},
	  "in": {"$ref": "#/$defs/o"}
	}, "$defs": {"d": {"default": "far"}, "o": {"properties": {"x": {"default": true}}}}}`)
	for path, want := range map[string]string{"retries": "5", "null": "<nil>", "near": "near", "far": "far", "in.x": "true"} {
		if v, ok := s.Default(strings.Split(path, ".")...); !ok || fmt.Sprint(v) != want {
			t.Errorf("%s: got %v %t, want %s", path, v, ok, want)
		}
	}
	for _, path := range []string{"none", "in", "in.none"} {
		if v, ok := s.Default(strings.Split(path, ".")...); ok {
			t.Errorf("%s has a default %v", path, v)
		}
	}
}

func FuzzCompile(f *testing.F) {
	f.Add([]byte(text), []byte(`{"a": "x"}`))
	f.Add([]byte(`{"$ref": "#", "properties": {"a": {"$ref": "#/properties/a"}}}`), []byte(`"a"`))
	f.Add([]byte(`{`+draft07+`, "items": [{"$ref": "#/definitions/x%25"}], "definitions": {"x%": {"$id": "#y"}}, "dependencies": {"a": ["b"]}}`), []byte(`[1]`))
	f.Add([]byte(`{"properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}, "unevaluatedProperties": false, "contains": {"pattern": "a{9}"}}`), []byte(`{"a": {"c": []}}`))
	for _, c := range keywordCases {
		f.Add([]byte(c.schema), []byte(c.bad))
	}
	f.Fuzz(func(t *testing.T, b, v []byte) {
		s, err := Compile("s", b)
		if err != nil {
			return
		}
		s.Properties()
		s.Secret("a", "b")
		s.Default("a", "b")
		val, err := decode(v)
		if err != nil {
			val = map[string]any{"a": string(v), "bucket": []any{string(v)}}
		}
		start := time.Now()
		got := s.Validate(val)
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("took %s", took)
		}
		if len(got) > MaxProblems {
			t.Errorf("%d problems", len(got))
		}
		for _, p := range got {
			if p.Msg == "" {
				t.Errorf("%s has no message", p.Pointer)
			}
		}
	})
}
