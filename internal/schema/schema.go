// Package schema compiles JSON Schema texts of strangers and validates JSON-like values with them. Problems
// carry JSON pointers; who has the file turns them into lines. Nothing is ever loaded from a URL or a file.
// Start with Compile.
package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// MaxBytes bounds a schema text.
const MaxBytes = 64 << 10

// Schema is a compiled schema. It is immutable and safe for concurrent use.
type Schema struct {
	compiled *jsonschema.Schema
	root     map[string]any
}

// Problem is one way in which a value breaks its schema.
type Problem struct {
	Pointer string // JSON pointer into the value, "" = the value itself
	Msg     string
}

// Property is one leaf of a schema: a property that is not an object with declared properties.
type Property struct {
	Path        []string
	Type        string // "" = any or several
	Secret      bool   // x-ds-secret
	Default     any    // nil = none
	Enum        []any
	Description string
}

// errNoLoad says that a schema refers to something outside its text.
var errNoLoad = errors.New("a schema must not refer to other files or URLs")

type noLoader struct{}

func (noLoader) Load(string) (any, error) { return nil, errNoLoad }

// Compile reads a JSON Schema, draft 2020-12 unless it says otherwise. name is for error texts.
func Compile(name string, text []byte) (s *Schema, err error) {
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("%s: schema has %d bytes, at most %d", name, len(text), MaxBytes)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s: schema is not JSON: %w", name, err)
	}
	if depth(doc) > 64 {
		return nil, fmt.Errorf("%s: schema is nested deeper than 64 levels", name)
	}
	if n, bad := hugeNumber(doc); bad {
		return nil, fmt.Errorf("%s: number %.40s is too large", name, n)
	}
	root, ok := doc.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s: schema is not an object", name)
	}
	defer func() { // the compiler is fed by strangers
		if r := recover(); r != nil {
			s, err = nil, fmt.Errorf("%s: schema cannot be compiled", name)
		}
	}()
	c := jsonschema.NewCompiler()
	c.UseLoader(noLoader{})
	const url = "ds:///settings.schema.json"
	if err := c.AddResource(url, doc); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	compiled, err := c.Compile(url)
	if err != nil {
		if errors.Is(err, errNoLoad) {
			return nil, fmt.Errorf("%s: %w", name, errNoLoad)
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &Schema{compiled: compiled, root: root}, nil
}

// Validate lists what is wrong with v, made of nil, bool, numbers, string, []any and map[string]any, sorted by
// pointer. No problems means that v is valid.
func (s *Schema) Validate(v any) []Problem {
	err := s.compiled.Validate(normal(v))
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return []Problem{{Msg: err.Error()}}
	}
	var out []Problem
	p := message.NewPrinter(language.English)
	collect(e, func(leaf *jsonschema.ValidationError) {
		out = append(out, Problem{pointer(leaf.InstanceLocation), leaf.ErrorKind.LocalizedString(p)})
	})
	slices.SortStableFunc(out, func(a, b Problem) int { return strings.Compare(a.Pointer, b.Pointer) })
	return slices.Compact(out)
}

func collect(e *jsonschema.ValidationError, f func(*jsonschema.ValidationError)) {
	if len(e.Causes) == 0 {
		f(e)
		return
	}
	for _, c := range e.Causes {
		collect(c, f)
	}
}

func pointer(path []string) string {
	var b strings.Builder
	for _, p := range path {
		b.WriteByte('/')
		b.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(p))
	}
	return b.String()
}

// normal turns v into what the validator takes; numbers it does not know become json.Number.
func normal(v any) any {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = normal(v[i])
		}
		return out
	case []string:
		out := make([]any, len(v))
		for i := range v {
			out[i] = v[i]
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k := range v {
			out[k] = normal(v[k])
		}
		return out
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Sprint(v) // JSON has no such number; as a string it fails every numeric type
		}
	case int, int64, uint64:
		return json.Number(fmt.Sprint(v))
	}
	return v
}

// Properties lists the leaves of the schema in the order of their paths. Local references are followed,
// combinations (anyOf, if …) are not: what only they declare is not listed.
func (s *Schema) Properties() []Property {
	var out []Property
	s.walk(s.root, nil, 0, func(p Property) { out = append(out, p) })
	slices.SortFunc(out, func(a, b Property) int { return slices.Compare(a.Path, b.Path) })
	return out
}

// Secret reports whether the value at path is a secret: it or something above it is marked x-ds-secret.
func (s *Schema) Secret(path ...string) bool {
	node := s.resolve(s.root)
	for _, p := range path {
		if marked(node) {
			return true
		}
		node = s.child(node, p)
		if node == nil {
			return false
		}
	}
	return marked(node)
}

// Default is the default that the schema declares for the value at path.
func (s *Schema) Default(path ...string) (v any, ok bool) {
	node := s.resolve(s.root)
	for _, p := range path {
		if node = s.child(node, p); node == nil {
			return nil, false
		}
	}
	v, ok = node["default"]
	return v, ok
}

func (s *Schema) walk(node map[string]any, path []string, level int, f func(Property)) {
	node = s.resolve(node)
	props, _ := node["properties"].(map[string]any)
	if level > 16 || len(path) > 0 && (len(props) == 0 || marked(node)) {
		p := Property{Path: path, Secret: marked(node), Default: node["default"]}
		p.Type, _ = node["type"].(string)
		p.Enum, _ = node["enum"].([]any)
		p.Description, _ = node["description"].(string)
		f(p)
		return
	}
	for name, sub := range props {
		if m, ok := sub.(map[string]any); ok {
			s.walk(m, append(slices.Clip(path), name), level+1, f)
		}
	}
}

func (s *Schema) child(node map[string]any, name string) map[string]any {
	props, _ := node["properties"].(map[string]any)
	for _, c := range []any{props[name], node["additionalProperties"], node["items"]} {
		if m, ok := c.(map[string]any); ok {
			return s.resolve(m)
		}
	}
	return nil
}

// resolve follows local references of the form #/a/b.
func (s *Schema) resolve(node map[string]any) map[string]any {
	for range 16 {
		ref, _ := node["$ref"].(string)
		rest, ok := strings.CutPrefix(ref, "#/")
		if !ok {
			return node
		}
		next := s.root
		for part := range strings.SplitSeq(rest, "/") {
			next, _ = next[strings.NewReplacer("~1", "/", "~0", "~").Replace(part)].(map[string]any)
		}
		if next == nil {
			return node
		}
		if marked(node) && !marked(next) {
			next = withSecret(next)
		}
		node = next
	}
	return node
}

func withSecret(node map[string]any) map[string]any {
	out := make(map[string]any, len(node)+1)
	for k, v := range node {
		out[k] = v
	}
	out["x-ds-secret"] = true
	return out
}

func marked(node map[string]any) bool { return node["x-ds-secret"] == true }

// hugeNumber finds a number that the validator, which computes exactly, could not hold in memory.
func hugeNumber(v any) (json.Number, bool) {
	switch v := v.(type) {
	case json.Number:
		f, err := v.Float64()
		return v, err != nil || len(v) > 400 || f == 0 && strings.ContainsAny(string(v), "eE")
	case []any:
		for _, e := range v {
			if n, bad := hugeNumber(e); bad {
				return n, true
			}
		}
	case map[string]any:
		for _, e := range v {
			if n, bad := hugeNumber(e); bad {
				return n, true
			}
		}
	}
	return "", false
}

func depth(v any) int {
	d := 0
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			d = max(d, depth(e))
		}
	case map[string]any:
		for _, e := range v {
			d = max(d, depth(e))
		}
	default:
		return 0
	}
	return d + 1
}
