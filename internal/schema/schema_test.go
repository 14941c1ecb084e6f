package schema

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
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

func compile(t *testing.T, text string) *Schema {
	t.Helper()
	s, err := Compile("settings.schema.json", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestValidate(t *testing.T) {
	s := compile(t, text)
	if got := s.Validate(map[string]any{"bucket": "abc", "retries": int64(3), "mode": "a", "hosts": []any{map[string]any{"key": 1.5}}}); got != nil {
		t.Errorf("valid value: %v", got)
	}
	got := s.Validate(map[string]any{
		"bucket": "a", "retries": uint64(1), "mode": "c", "extra": nil,
		"credentials": map[string]any{"access_key_id": int64(1)}, "hosts": []any{"x"},
	})
	var pointers []string
	for _, p := range got {
		if p.Msg == "" {
			t.Errorf("%s has no message", p.Pointer)
		}
		pointers = append(pointers, p.Pointer)
	}
	if want := []string{"", "/bucket", "/credentials/access_key_id", "/hosts/0", "/mode"}; !reflect.DeepEqual(pointers, want) {
		t.Errorf("got %q, want %q\n%v", pointers, want, got)
	}
	if got := s.Validate(map[string]any{"bucket": "abc", "retries": -1}); len(got) != 1 || !strings.Contains(got[0].Msg, "minimum") {
		t.Errorf("got %v", got)
	}
	if got := s.Validate(nil); len(got) != 1 {
		t.Errorf("null: %v", got)
	}
}

func TestProperties(t *testing.T) {
	s := compile(t, text)
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
	for path, want := range map[string]bool{
		"bucket": false, "credentials.blob": true, "token": true, "vault.a": true, "vault": true, "hosts.0.key": true, "nothing.here": false,
	} {
		if s.Secret(strings.Split(path, ".")...) != want {
			t.Errorf("Secret(%s) is not %t", path, want)
		}
	}
	if v, ok := s.Default("retries"); !ok || fmt.Sprint(v) != "5" {
		t.Errorf("default %v %t", v, ok)
	}
	if _, ok := s.Default("credentials", "none"); ok {
		t.Error("default of an unknown property")
	}
}

func TestCompileErrors(t *testing.T) {
	for name, text := range map[string]string{
		"not JSON":   `{`,
		"not object": `[]`,
		"bad type":   `{"type": 5}`,
		"remote ref": `{"$ref": "https://example.com/x.json"}`,
		"file ref":   `{"$ref": "file:///etc/passwd"}`,
		"no target":  `{"$ref": "#/$defs/none"}`,
		"regexp":     `{"pattern": "("}`,
		"deep":       strings.Repeat(`{"not":`, 70) + "{}" + strings.Repeat("}", 70),
		"large":      `{"title": "` + strings.Repeat("x", MaxBytes) + `"}`,
		"huge":       `{"minimum": 1e999999999}`,
		"tiny":       `{"minimum": 1e-999999999}`,
		"meta":       `{"$schema": "https://example.com/meta"}`,
	} {
		if s, err := Compile("s.json", []byte(text)); err == nil || s != nil || !strings.HasPrefix(err.Error(), "s.json: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzCompile(f *testing.F) {
	f.Add([]byte(text), []byte("x"))
	f.Add([]byte(`{"$ref": "#", "properties": {"a": {"$ref": "#/properties/a"}}}`), []byte("a"))
	f.Fuzz(func(t *testing.T, b, v []byte) {
		s, err := Compile("s", b)
		if err != nil {
			return
		}
		s.Properties()
		s.Secret("a", "b")
		s.Validate(map[string]any{"a": string(v), "bucket": []any{string(v)}})
	})
}
