package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// errNoLoad says that a schema refers to something outside its text.
var errNoLoad = errors.New("a schema must not refer to other files or URLs")

// Compile reads a JSON Schema, draft 2020-12 unless its $schema names draft-07. name is for error texts. Keywords
// that the draft does not have are annotations, like format. Refused are references to other texts, dynamic
// references, schemas inside with an own $id, references that lead back to themselves, and what is over a limit.
func Compile(name string, text []byte) (*Schema, error) {
	s, err := compile(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

func compile(text []byte) (*Schema, error) {
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("schema has %d bytes, at most %d", len(text), MaxBytes)
	}
	doc, err := decode(text)
	if err != nil {
		return nil, fmt.Errorf("schema is not JSON: %w", err)
	}
	if depth(doc) > maxDepth {
		return nil, fmt.Errorf("schema is nested deeper than %d levels", maxDepth)
	}
	if n, bad := hugeNumber(doc); bad {
		return nil, fmt.Errorf("number %.40s is too large", n)
	}
	root, ok := doc.(map[string]any)
	if !ok {
		return nil, errors.New("schema is not an object")
	}
	c := &compiler{doc: root, nodes: make(map[string]*node), anchors: make(map[string]*node)}
	if err := c.draft(root["$schema"]); err != nil {
		return nil, err
	}
	c.id, _ = root["$id"].(string)
	c.id = strings.TrimSuffix(c.id, "#")
	s := &Schema{root: c.node("", root)}
	c.references()
	if c.err != nil {
		return nil, c.err
	}
	if bad := loop(c.nodes); bad != nil {
		return nil, fmt.Errorf("%s leads back to itself", where(bad.at))
	}
	if s.properties, ok = s.root.leaves(); !ok {
		return nil, fmt.Errorf("schema declares more than %d properties", maxProperties)
	}
	s.track = c.track
	return s, nil
}

func decode(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var doc any
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows the value")
	}
	return doc, nil
}

// compiler turns a JSON text into nodes. It keeps the first error.
type compiler struct {
	doc     any
	id      string // $id of the text
	draft07 bool
	nodes   map[string]*node // by JSON pointer
	anchors map[string]*node
	refs    []reference
	size    int // of all patterns
	track   bool
	err     error
}

type reference struct {
	from *node
	to   string
}

func (c *compiler) draft(v any) error {
	name, ok := v.(string)
	switch strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(name, "https:"), "http:"), "#") {
	case "//json-schema.org/draft/2020-12/schema":
		return nil
	case "//json-schema.org/draft-07/schema":
		c.draft07 = true
		return nil
	}
	if v == nil {
		return nil
	}
	if !ok {
		return errors.New("$schema: want a string")
	}
	return fmt.Errorf("$schema: %.200q is not known, want draft 2020-12 or draft-07", name)
}

func (c *compiler) fail(at, format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%s: %w", where(at), fmt.Errorf(format, args...))
	}
}

// where names a place in the schema text.
func where(at string) string {
	if at == "" {
		return "the schema"
	}
	return at
}

// node compiles the schema v at the pointer at, once. It returns a usable node also after an error.
func (c *compiler) node(at string, v any) *node {
	if n := c.nodes[at]; n != nil {
		return n
	}
	n := &node{at: at}
	if len(at) > maxPointer {
		c.fail(at[:100]+"…", "names are too long: the way to a schema inside is at most %d bytes", maxPointer)
		return n
	}
	c.nodes[at] = n
	switch v := v.(type) {
	case bool:
		n.never = !v
	case map[string]any:
		c.fill(n, v)
	default:
		c.fail(at, "want a schema, got %s", kindOf(v).name)
	}
	return n
}

func (c *compiler) fill(n *node, m map[string]any) {
	k := keywords{c, n.at, m}
	n.secret = m["x-ds-secret"] == true
	n.description, _ = m["description"].(string)
	n.def, n.hasDefault = m["default"]
	k.identity(n)
	if ref, ok := k.text("$ref"); ok {
		c.refs = append(c.refs, reference{n, ref})
		if c.draft07 {
			return // draft-07, core section 8.3: siblings are ignored
		}
	}
	k.schemas("$defs")
	k.schemas("definitions")
	k.combinations(n)
	k.assertions(n)
	k.arrays(n)
	k.objects(n)
}

// references connects every $ref with its target, which is compiled if it was not in a place for schemas.
func (c *compiler) references() {
	for len(c.refs) > 0 && c.err == nil {
		refs := c.refs
		c.refs = nil
		for _, r := range refs {
			if r.from.ref = c.target(r); c.err != nil {
				return
			}
		}
	}
}

func (c *compiler) target(r reference) *node {
	fragment, local := strings.CutPrefix(r.to, "#")
	if !local && c.id != "" {
		rest, same := strings.CutPrefix(r.to, c.id)
		if fragment, local = strings.CutPrefix(rest, "#"); same && rest == "" {
			fragment, local = "", true
		}
		local = local && same
	}
	if !local {
		c.fail(r.from.at, "$ref: %w", errNoLoad)
		return nil
	}
	fragment, err := url.PathUnescape(fragment)
	if err != nil {
		c.fail(r.from.at, "$ref: %w", err)
		return nil
	}
	if n := c.anchors[fragment]; n != nil {
		return n
	}
	if fragment == "" {
		return c.nodes[""]
	}
	if strings.HasPrefix(fragment, "/") {
		if at, v, ok := lookUp(c.doc, fragment); ok {
			return c.node(at, v)
		}
	}
	c.fail(r.from.at, "$ref: nothing in the schema is at %.200q", r.to)
	return nil
}

// lookUp follows a JSON pointer through doc and gives it back in its usual spelling.
func lookUp(doc any, pointer string) (at string, v any, ok bool) {
	for part := range strings.SplitSeq(pointer[1:], "/") {
		part = strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~")
		switch d := doc.(type) {
		case map[string]any:
			doc, ok = d[part]
		case []any:
			i, err := strconv.Atoi(part)
			if ok = err == nil && i >= 0 && i < len(d); ok {
				doc, part = d[i], strconv.Itoa(i)
			}
		default:
			ok = false
		}
		if !ok {
			return "", nil, false
		}
		at += "/" + escape(part)
	}
	return at, doc, true
}

// keywords reads the members of one schema. Each method reports what has the wrong form.
type keywords struct {
	c  *compiler
	at string
	m  map[string]any
}

func (k keywords) bad(name, want string, v any) {
	k.c.fail(k.at, "%s: want %s, got %s", name, want, kindOf(v).name)
}

func (k keywords) text(name string) (string, bool) {
	v, has := k.m[name]
	s, ok := v.(string)
	if has && !ok {
		k.bad(name, "a string", v)
	}
	return s, ok
}

func (k keywords) count(name string) *int {
	v, has := k.m[name]
	if !has {
		return nil
	}
	x := kindOf(v)
	if !x.is("integer") || x.number.Sign() < 0 || !x.number.Num().IsInt64() {
		k.bad(name, "a whole number from 0", v)
		return nil
	}
	n := int(min(x.number.Num().Int64(), 1<<31-1)) // no value is so long
	return &n
}

func (k keywords) number(name string) *big.Rat {
	v, has := k.m[name]
	if !has {
		return nil
	}
	x := kindOf(v)
	if x.number == nil {
		k.bad(name, "a number", v)
	}
	return x.number
}

func (k keywords) texts(name string) []string {
	v, has := k.m[name]
	if !has {
		return nil
	}
	return k.textList(name, v)
}

func (k keywords) textList(name string, v any) []string {
	list, ok := v.([]any)
	if !ok {
		k.bad(name, "a list of strings", v)
	}
	out := make([]string, 0, len(list))
	for _, e := range list {
		s, ok := e.(string)
		if !ok {
			k.bad(name, "a list of strings", e)
		}
		out = append(out, s)
	}
	return out
}

func (k keywords) schema(name string) *node {
	v, has := k.m[name]
	if !has {
		return nil
	}
	return k.c.node(k.at+"/"+name, v)
}

func (k keywords) list(name string) []*node {
	v, has := k.m[name]
	list, ok := v.([]any)
	if has && (!ok || len(list) == 0) {
		k.bad(name, "a list of schemas", v)
	}
	var out []*node
	for i, e := range list {
		out = append(out, k.c.node(fmt.Sprintf("%s/%s/%d", k.at, name, i), e))
	}
	return out
}

func (k keywords) object(name string) map[string]any {
	v, has := k.m[name]
	m, ok := v.(map[string]any)
	if has && !ok {
		k.bad(name, "an object", v)
	}
	return m
}

func (k keywords) schemas(name string) map[string]*node {
	m := k.object(name)
	if m == nil {
		return nil
	}
	out := make(map[string]*node, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		out[key] = k.c.node(k.at+"/"+name+"/"+escape(key), m[key])
	}
	return out
}

func (k keywords) regexp(name, text string) *pattern {
	p, size, err := newPattern(text)
	if err != nil {
		k.c.fail(k.at, "%s: %w", name, err)
		return nil
	}
	if k.c.size += size; k.c.size > maxPatterns {
		k.c.fail(k.at, "%s: the patterns of this schema are too large", name)
		return nil
	}
	return p
}

// identity notes the names that references use.
func (k keywords) identity(n *node) {
	for _, name := range []string{"$dynamicRef", "$dynamicAnchor", "$recursiveRef"} {
		if _, has := k.m[name]; has && !k.c.draft07 {
			k.c.fail(k.at, "%s is not supported", name)
		}
	}
	anchor, ok := "", false
	if k.c.draft07 {
		id, _ := k.m["$id"].(string)
		anchor, ok = strings.CutPrefix(id, "#")
	} else {
		anchor, ok = k.text("$anchor")
	}
	if ok && anchor != "" && !strings.HasPrefix(anchor, "/") {
		k.c.anchors[anchor] = n
	}
	id, ok := k.text("$id")
	_, hasRef := k.m["$ref"]
	if ok && k.at != "" && !strings.HasPrefix(id, "#") && (!hasRef || !k.c.draft07) {
		k.c.fail(k.at, "$id is supported only at the top of a schema")
	}
}

func (k keywords) combinations(n *node) {
	n.allOf, n.anyOf, n.oneOf = k.list("allOf"), k.list("anyOf"), k.list("oneOf")
	n.not = k.schema("not")
	when, then, other := k.schema("if"), k.schema("then"), k.schema("else")
	if when != nil {
		n.when, n.then, n.other = when, then, other
	}
	if k.c.draft07 {
		k.dependencies(n)
		return
	}
	n.dependentSchemas = k.schemas("dependentSchemas")
	for name, v := range k.object("dependentRequired") {
		n.require(name, k.textList("dependentRequired", v))
	}
}

// dependencies is what draft-07 has instead of dependentSchemas and dependentRequired.
func (k keywords) dependencies(n *node) {
	for name, v := range k.object("dependencies") {
		if _, ok := v.([]any); ok {
			n.require(name, k.textList("dependencies", v))
			continue
		}
		if n.dependentSchemas == nil {
			n.dependentSchemas = make(map[string]*node)
		}
		n.dependentSchemas[name] = k.c.node(k.at+"/dependencies/"+escape(name), v)
	}
}

func (n *node) require(name string, others []string) {
	if n.dependentRequired == nil {
		n.dependentRequired = make(map[string][]string)
	}
	n.dependentRequired[name] = others
}

func (k keywords) assertions(n *node) {
	k.types(n)
	if v, has := k.m["const"]; has {
		n.only = newAllowed([]any{v})
	}
	if v, has := k.m["enum"]; has {
		list, ok := v.([]any)
		if !ok {
			k.bad("enum", "a list", v)
		}
		n.allow, n.enumValues = newAllowed(list), list
	}
	n.minimum, n.maximum = k.number("minimum"), k.number("maximum")
	n.above, n.below = k.number("exclusiveMinimum"), k.number("exclusiveMaximum")
	if n.multipleOf = k.number("multipleOf"); n.multipleOf != nil && n.multipleOf.Sign() <= 0 {
		k.c.fail(k.at, "multipleOf: want a number above 0")
	}
	n.minLength, n.maxLength = k.count("minLength"), k.count("maxLength")
	if text, ok := k.text("pattern"); ok {
		n.pattern = k.regexp("pattern", text)
	}
}

func (k keywords) types(n *node) {
	switch v := k.m["type"].(type) {
	case nil:
		if _, has := k.m["type"]; has {
			k.bad("type", "the name of a type", v)
		}
	case string:
		n.types = []string{v}
	default:
		n.types = k.textList("type", v)
	}
	if n.types != nil && len(n.types) == 0 || len(n.types) > len(typeNames) {
		k.c.fail(k.at, "type: want 1 to %d names, got %d", len(typeNames), len(n.types))
	}
	for _, t := range n.types {
		if !slices.Contains(typeNames, t) {
			k.c.fail(k.at, "type: %.100q is not one of %s", t, strings.Join(typeNames, ", "))
		}
	}
}

func (k keywords) arrays(n *node) {
	n.minItems, n.maxItems = k.count("minItems"), k.count("maxItems")
	n.contains = k.schema("contains")
	n.unique = k.m["uniqueItems"] == true
	if v, isBool := k.m["uniqueItems"].(bool); !isBool && k.m["uniqueItems"] != nil {
		k.bad("uniqueItems", "true or false", v)
	}
	if _, isList := k.m["items"].([]any); isList && k.c.draft07 {
		if len(k.m["items"].([]any)) > 0 {
			n.prefixItems = k.list("items")
		}
		n.items = k.schema("additionalItems")
		return
	}
	n.items = k.schema("items")
	if k.c.draft07 {
		return
	}
	n.prefixItems = k.list("prefixItems")
	n.minContains, n.maxContains = k.count("minContains"), k.count("maxContains")
	n.unevaluatedItems = k.schema("unevaluatedItems")
	k.c.track = k.c.track || n.unevaluatedItems != nil
}

func (k keywords) objects(n *node) {
	n.properties = k.schemas("properties")
	patterns := k.schemas("patternProperties")
	for _, text := range slices.Sorted(maps.Keys(patterns)) {
		if p := k.regexp("patternProperties", text); p != nil {
			n.patternProperties = append(n.patternProperties, patternProperty{p, patterns[text]})
		}
	}
	n.additionalProperties = k.schema("additionalProperties")
	n.propertyNames = k.schema("propertyNames")
	n.required = k.texts("required")
	n.minProperties, n.maxProperties = k.count("minProperties"), k.count("maxProperties")
	if !k.c.draft07 {
		n.unevaluatedProperties = k.schema("unevaluatedProperties")
		k.c.track = k.c.track || n.unevaluatedProperties != nil
	}
}

// depth is the nesting of v; a scalar has none.
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
