// Package schema compiles JSON Schema texts of strangers and validates JSON-like values with them. It knows the
// drafts 2020-12 and 07 without references to other texts: nothing is ever loaded from a URL or a file. Problems
// carry JSON pointers; who has the file turns them into lines. They never show the value itself, which may be a
// secret. Start with Compile.
package schema

import (
	"cmp"
	"slices"
)

// MaxBytes bounds a schema text.
const MaxBytes = 64 << 10

// MaxProblems bounds what Validate lists.
const MaxProblems = 100

const (
	maxDepth      = 64      // nesting of a schema text
	maxPointer    = 1 << 10 // bytes of a JSON pointer into it; every schema inside has one
	maxProperties = 4096    // leaves of a schema
	maxSteps      = 1 << 19 // work of one Validate, well below a second; 10 000 values need 50 000
	maxNesting    = 1000    // schemas that are at work at once: in the value, and by reference for one place of it
	maxLevel      = 16      // nesting of listed properties
)

// Schema is a compiled schema. It is immutable and safe for concurrent use.
type Schema struct {
	root       *node
	properties []Property
	track      bool // unevaluatedItems or unevaluatedProperties are used
}

// Problem is one way in which a value breaks its schema.
type Problem struct {
	Pointer string // JSON pointer into the value, "" = the value itself; it may name a property that must not be there
	Msg     string
}

// Property is one leaf of a schema: a property that is not an object with declared properties.
type Property struct {
	Path        []string
	Type        string // "" = any or several
	Secret      bool   // x-ds-secret
	Default     any    // nil = none; numbers are json.Number
	Enum        []any
	Description string
}

// Validate lists what is wrong with v, made of nil, bool, numbers, string, []any, []string and map[string]any,
// sorted by pointer, at most MaxProblems. No problems means that v is valid. A schema that would take too long is
// one problem, so the work is bounded whatever the schema is.
func (s *Schema) Validate(v any) []Problem {
	e := &evaluation{track: s.track, steps: maxSteps}
	e.check(s.root, v, nil, nil)
	if e.gaveUp != "" {
		return []Problem{{Msg: e.gaveUp}}
	}
	var out []Problem
	for _, f := range e.found {
		out = append(out, Problem{f.place.pointer(), f.msg})
	}
	slices.SortStableFunc(out, func(a, b Problem) int { return cmp.Compare(a.Pointer, b.Pointer) })
	return slices.Compact(out)
}

// Properties lists the leaves of the schema in the order of their paths. Local references are followed,
// combinations (anyOf, if …) are not: what only they declare is not listed. Where a schema leads back to itself
// is a leaf.
func (s *Schema) Properties() []Property { return slices.Clone(s.properties) }

// Secret reports whether the value at path is a secret: it or something above it is marked x-ds-secret, wherever
// the schema says so, also in an alternative that does not apply.
func (s *Schema) Secret(path ...string) bool {
	at := everything([]*node{s.root})
	for _, name := range path {
		if slices.ContainsFunc(at, isSecret) {
			return true
		}
		var next []*node
		for _, n := range at {
			next = append(next, n.children(name)...)
		}
		at = everything(next)
	}
	return slices.ContainsFunc(at, isSecret)
}

func isSecret(n *node) bool { return n.secret }

// Default is the default that the schema declares for the value at path.
func (s *Schema) Default(path ...string) (v any, ok bool) {
	n := s.root
	for _, name := range path {
		if n = n.child(name); n == nil {
			return nil, false
		}
	}
	for ; n != nil; n = n.ref {
		if n.hasDefault {
			return n.def, true
		}
	}
	return nil, false
}

// everything is nodes and what also applies to the same value, each once.
func everything(nodes []*node) []*node {
	seen := make(map[*node]bool)
	var out []*node
	for len(nodes) > 0 {
		n := nodes[len(nodes)-1]
		nodes = nodes[:len(nodes)-1]
		if seen[n] {
			continue
		}
		seen[n] = true
		out = append(out, n)
		nodes = append(nodes, n.inPlace()...)
	}
	return out
}

// children are the schemas that may apply to the member name of a value of n.
func (n *node) children(name string) []*node {
	var out []*node
	if p := n.properties[name]; p != nil {
		out = append(out, p)
	}
	for _, p := range n.patternProperties {
		if p.pattern.MatchString(name) {
			out = append(out, p.node)
		}
	}
	for _, other := range []*node{n.additionalProperties, n.unevaluatedProperties} {
		if other != nil && n.properties[name] == nil {
			out = append(out, other)
		}
	}
	for _, item := range append([]*node{n.items, n.contains, n.unevaluatedItems}, n.prefixItems...) {
		if item != nil {
			out = append(out, item)
		}
	}
	return out
}

// child is the schema that n declares for its member name, nil if it does not.
func (n *node) child(name string) *node {
	for ; n != nil; n = n.ref {
		for _, c := range []*node{n.properties[name], n.additionalProperties, n.items} {
			if c != nil {
				return c
			}
		}
	}
	return nil
}

// leaves lists the leaves under n. It fails if there are too many of them.
func (n *node) leaves() (out []Property, ok bool) {
	above := make(map[*node]bool)
	var walk func(n *node, path []string) bool
	walk = func(n *node, path []string) bool {
		p := Property{Path: path}
		var chain []*node
		var declared map[string]*node
		for r := n; r != nil; r = r.ref {
			chain = append(chain, r)
			p.describe(r)
			if declared == nil {
				declared = r.properties
			}
		}
		back := slices.ContainsFunc(chain, func(r *node) bool { return above[r] })
		if len(path) > 0 && (len(declared) == 0 || p.Secret || back || len(path) > maxLevel) {
			out = append(out, p)
			return len(out) <= maxProperties
		}
		for _, r := range chain {
			above[r] = true
			defer delete(above, r)
		}
		for name, sub := range declared {
			if !walk(sub, append(slices.Clip(path), name)) {
				return false
			}
		}
		return true
	}
	if !walk(n, nil) {
		return nil, false
	}
	slices.SortFunc(out, func(a, b Property) int { return slices.Compare(a.Path, b.Path) })
	return out, true
}

// describe adds what n says and nothing before it said.
func (p *Property) describe(n *node) {
	p.Secret = p.Secret || n.secret
	if p.Type == "" && len(n.types) == 1 {
		p.Type = n.types[0]
	}
	if p.Default == nil {
		p.Default = n.def
	}
	if p.Enum == nil {
		p.Enum = n.enumValues
	}
	if p.Description == "" {
		p.Description = n.description
	}
}
