package yamlfile

import (
	"strings"

	"go.yaml.in/yaml/v4"
)

// converter turns composed nodes into ours; it checks what the composer does not.
type converter struct {
	name   string
	limits Limits
	nodes  int
}

func (c *converter) node(y *yaml.Node, depth int, alias bool) (*Node, error) {
	at := &Node{Line: max(y.Line, 1), Col: max(y.Column, 1)}
	if y.Kind == yaml.DocumentNode {
		if len(y.Content) == 0 {
			return &Node{Kind: Null, Plain: true, Line: 1, Col: 1}, nil
		}
		return c.node(y.Content[0], depth, alias)
	}
	if c.nodes++; c.nodes > c.limits.Nodes {
		return nil, at.Errorf(c.name, "more than %d values", c.limits.Nodes)
	}
	if depth > c.limits.Depth {
		return nil, at.Errorf(c.name, "nested deeper than %d levels", c.limits.Depth)
	}
	switch y.Kind {
	case yaml.AliasNode:
		if c.limits.NoAliases {
			return nil, at.Errorf(c.name, "alias *%s; aliases are not allowed here", y.Value)
		}
		return c.node(y.Alias, depth+1, true)
	case yaml.ScalarNode:
		return c.scalar(y, alias)
	case yaml.SequenceNode:
		return c.list(y, depth, alias)
	case yaml.MappingNode:
		return c.mapping(y, depth, alias)
	}
	return nil, at.Errorf(c.name, "not a value")
}

func (c *converter) list(y *yaml.Node, depth int, alias bool) (*Node, error) {
	n := &Node{Kind: List, Line: y.Line, Col: y.Column, flow: y.Style&yaml.FlowStyle != 0, alias: alias || y.Anchor != ""}
	if y.Tag != "!!seq" && y.Tag != "" {
		return nil, n.Errorf(c.name, "tag %s on a list", y.Tag)
	}
	n.Items = make([]*Node, 0, len(y.Content))
	for _, item := range y.Content {
		v, err := c.node(item, depth+1, n.alias)
		if err != nil {
			return nil, err
		}
		n.Items = append(n.Items, v)
	}
	return n, nil
}

func (c *converter) mapping(y *yaml.Node, depth int, alias bool) (*Node, error) {
	n := &Node{Kind: Map, Line: y.Line, Col: y.Column, flow: y.Style&yaml.FlowStyle != 0, alias: alias || y.Anchor != ""}
	if y.Tag != "!!map" && y.Tag != "" {
		return nil, n.Errorf(c.name, "tag %s on a map", y.Tag)
	}
	n.Pairs = make([]Pair, 0, len(y.Content)/2)
	seen := make(map[string]int, len(y.Content)/2)
	for i := 0; i+1 < len(y.Content); i += 2 {
		k, err := c.node(y.Content[i], depth+1, n.alias)
		if err != nil {
			return nil, err
		}
		switch {
		case k.Kind == List || k.Kind == Map:
			return nil, k.Errorf(c.name, "a key must be a scalar, not a %s", k.Kind)
		case k.Plain && k.Text == "<<":
			return nil, k.Errorf(c.name, "merge keys (<<) are not part of the core schema")
		case seen[k.Text] > 0:
			return nil, k.Errorf(c.name, "key %q again, first in line %d", clip(k.Text), seen[k.Text])
		}
		seen[k.Text] = max(k.Line, 1)
		v, err := c.node(y.Content[i+1], depth+1, n.alias)
		if err != nil {
			return nil, err
		}
		n.Pairs = append(n.Pairs, Pair{k, v})
	}
	return n, nil
}

const quoted = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle

func (c *converter) scalar(y *yaml.Node, alias bool) (*Node, error) {
	n := &Node{Text: y.Value, Line: y.Line, Col: y.Column, Plain: y.Style&quoted == 0, alias: alias || y.Anchor != ""}
	n.Kind = String
	if n.Plain {
		n.Kind = plainKind(n.Text)
	}
	if y.Style&yaml.TaggedStyle == 0 {
		return n, nil
	}
	want, ok := coreTags[y.Tag]
	if !ok {
		return nil, n.Errorf(c.name, "tag %s is not part of the core schema", clip(y.Tag))
	}
	if want == String {
		n.Kind, n.Plain = String, false
		return n, nil
	}
	got := plainKind(n.Text)
	if got == want || want == Float && got == Int {
		n.Kind = want
		return n, nil
	}
	return nil, n.Errorf(c.name, "%q is not a %s", clip(n.Text), want)
}

var coreTags = map[string]Kind{"!!null": Null, "!!bool": Bool, "!!int": Int, "!!float": Float, "!!str": String, "!": String}

// plainKind resolves a plain scalar by the core schema (YAML 1.2.2, section 10.3.2).
func plainKind(s string) Kind {
	switch s {
	case "", "~", "null", "Null", "NULL":
		return Null
	case "true", "True", "TRUE", "false", "False", "FALSE":
		return Bool
	case ".nan", ".NaN", ".NAN":
		return Float
	}
	if h, ok := strings.CutPrefix(s, "0x"); ok && all(h, "0123456789abcdefABCDEF") {
		return Int
	}
	if o, ok := strings.CutPrefix(s, "0o"); ok && all(o, "01234567") {
		return Int
	}
	t := s
	if t[0] == '+' || t[0] == '-' {
		t = t[1:]
	}
	switch t {
	case "", ".", ".inf", ".Inf", ".INF":
		if strings.HasPrefix(t, ".i") || strings.HasPrefix(t, ".I") {
			return Float
		}
		return String
	}
	if all(t, digits) {
		return Int
	}
	if isFloat(t) {
		return Float
	}
	return String
}

const digits = "0123456789"

// isFloat matches ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?
func isFloat(t string) bool {
	mantissa, exp := t, ""
	if i := strings.IndexAny(t, "eE"); i >= 0 {
		mantissa, exp = t[:i], t[i+1:]
		if exp != "" && (exp[0] == '+' || exp[0] == '-') {
			exp = exp[1:]
		}
		if !all(exp, digits) {
			return false
		}
	}
	whole, frac, point := strings.Cut(mantissa, ".")
	switch {
	case whole == "":
		return all(frac, digits)
	case !point:
		return exp != "" && all(whole, digits)
	}
	return all(whole, digits) && (frac == "" || all(frac, digits))
}

// all reports whether s is not empty and has only characters of set.
func all(s, set string) bool { return s != "" && strings.Trim(s, set) == "" }

// clip cuts s for a message.
func clip(s string) string {
	if len(s) <= 60 {
		return s
	}
	return strings.ToValidUTF8(s[:60], "") + "…"
}
