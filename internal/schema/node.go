package schema

import (
	"math/big"
	"slices"
)

// node is one compiled schema. References make nodes a graph, which may lead back to itself but not without going
// into the value: the compiler refuses that.
type node struct {
	at    string // JSON pointer in the schema text
	never bool   // the schema false

	// What else applies to the same value.
	ref                 *node
	allOf, anyOf, oneOf []*node
	not                 *node
	when, then, other   *node // if, then, else
	dependentSchemas    map[string]*node

	types []string
	allow *allowed // enum
	only  *allowed // const

	minimum, maximum, above, below, multipleOf *big.Rat // nil = none, also below
	minLength, maxLength                       *int
	pattern                                    *pattern

	prefixItems              []*node
	items                    *node // the rest
	contains                 *node
	minContains, maxContains *int
	minItems, maxItems       *int
	unique                   bool
	unevaluatedItems         *node

	properties                   map[string]*node
	patternProperties            []patternProperty
	additionalProperties         *node
	propertyNames                *node
	required                     []string
	dependentRequired            map[string][]string
	minProperties, maxProperties *int
	unevaluatedProperties        *node

	secret      bool // x-ds-secret
	hasDefault  bool
	def         any
	enumValues  []any
	description string
}

type patternProperty struct {
	pattern *pattern
	node    *node
}

// inPlace lists the nodes that apply to the same value as n.
func (n *node) inPlace() []*node {
	out := slices.Concat(n.allOf, n.anyOf, n.oneOf)
	for _, sub := range []*node{n.ref, n.not, n.when, n.then, n.other} {
		if sub != nil {
			out = append(out, sub)
		}
	}
	for _, sub := range n.dependentSchemas {
		out = append(out, sub)
	}
	return out
}

// loop finds a node that applies to a value again and again, nil if there is none.
func loop(nodes map[string]*node) *node {
	const open, closed = 1, 2
	state := make(map[*node]int, len(nodes))
	var visit func(n *node) *node
	visit = func(n *node) *node {
		switch state[n] {
		case open:
			return n
		case closed:
			return nil
		}
		state[n] = open
		for _, sub := range n.inPlace() {
			if bad := visit(sub); bad != nil {
				return bad
			}
		}
		state[n] = closed
		return nil
	}
	for _, n := range nodes {
		if bad := visit(n); bad != nil {
			return bad
		}
	}
	return nil
}
