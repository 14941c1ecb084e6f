// Package yamlfile reads YAML of strangers and users: one document under limits, into a tree in which every
// node knows its line and column, so that an error can point at what is wrong. It also writes values as YAML
// and changes single values of a file without touching the rest. It knows no keys and no meaning. Start with
// Parse.
package yamlfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// Limits bound one document; zero fields take the value of DefaultLimits. A document that goes beyond one is
// an error, never cut.
type Limits struct {
	Bytes, Nodes, Depth int
	NoAliases           bool // refuse aliases instead of expanding them
}

// DefaultLimits are those of security.md section 8 for files of users; a plugin manifest has fewer bytes and
// no aliases.
func DefaultLimits() Limits { return Limits{Bytes: 1 << 20, Nodes: 10_000, Depth: 64} }

// Kind is the type of a node by the core schema of YAML 1.2.
type Kind uint8

// The kinds.
const (
	Null Kind = iota
	Bool
	Int
	Float
	String
	List
	Map
)

var kindNames = [...]string{"null", "bool", "int", "float", "string", "list", "map"}

// String is the name of k as messages use it.
func (k Kind) String() string { return kindNames[k] }

// Node is one value of a document. It is not changed after Parse. A value that came through an alias has the
// position of the anchored text.
type Node struct {
	Kind Kind
	Text string // a scalar's value without quotes; for a plain scalar exactly what was written
	// Plain says that a scalar was written without quotes or block marker.
	Plain     bool
	Line, Col int // from 1; Col counts characters

	Items []*Node // of a list
	Pairs []Pair  // of a map, in the order of the file; keys are unique

	flow  bool
	alias bool // shared with an anchor, or is one: not editable
}

// Pair is one entry of a map. A key is a scalar; its Text names the entry whatever its kind.
type Pair struct{ Key, Value *Node }

// Get is the value of key in a map, or nil.
func (n *Node) Get(key string) *Node {
	if n == nil {
		return nil
	}
	for i := range n.Pairs {
		if n.Pairs[i].Key.Text == key {
			return n.Pairs[i].Value
		}
	}
	return nil
}

// Error is one problem at one place. Line 0 means that the place is not known.
type Error struct {
	File      string
	Line, Col int
	Msg       string
}

func (e *Error) Error() string {
	switch {
	case e.Line == 0:
		return e.File + ": " + e.Msg
	case e.Col == 0:
		return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Msg)
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Msg)
}

// Errorf makes an *Error at n of the file name.
func (n *Node) Errorf(name, format string, a ...any) *Error {
	return &Error{File: name, Line: n.Line, Col: n.Col, Msg: fmt.Sprintf(format, a...)}
}

// Parse reads the one document in data; name is for errors, which are always *Error. JSON is YAML, so it may
// be JSON. An empty document is a Null node. Refused are: bytes that are not UTF-8, a second document,
// duplicate keys, keys that are not scalars, merge keys, tags outside the core schema, and whatever goes beyond l.
func Parse(name string, data []byte, l Limits) (*Node, error) {
	d := DefaultLimits()
	l.Bytes, l.Nodes, l.Depth = or(l.Bytes, d.Bytes), or(l.Nodes, d.Nodes), or(l.Depth, d.Depth)
	if len(data) > l.Bytes {
		return nil, &Error{File: name, Msg: fmt.Sprintf("%d bytes, at most %d are read", len(data), l.Bytes)}
	}
	data = bytes.TrimPrefix(data, []byte("\xEF\xBB\xBF"))
	if line := invalidLine(data); line > 0 {
		return nil, &Error{File: name, Line: line, Msg: "not UTF-8 text"}
	}
	doc, err := load(data, l)
	if err != nil {
		return nil, loadError(name, err)
	}
	if doc == nil {
		return &Node{Kind: Null, Plain: true, Line: 1, Col: 1}, nil
	}
	c := converter{name: name, limits: l}
	return c.node(doc, 1, false)
}

// load composes the document, nil for an empty one. The depth is bound while parsing; nodes cannot be, but
// the bytes bound them.
func load(data []byte, l Limits) (*yaml.Node, error) {
	loader, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithPlugin(limiter{l.Depth}))
	if err != nil {
		return nil, err
	}
	var doc, second yaml.Node
	if err := loader.Load(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, err
	}
	switch err := loader.Load(&second); {
	case err == nil:
		return nil, &yaml.LoadError{Mark: yaml.Mark{Line: second.Line, Column: second.Column}, Message: "a second document; one is read"}
	case !errors.Is(err, io.EOF):
		return nil, err
	}
	return &doc, nil
}

// limiter bounds the depth; aliases are counted by converter, which expands them.
type limiter struct{ depth int }

func (l limiter) CheckDepth(depth int, _ *yaml.DepthContext) error {
	if depth > l.depth {
		return fmt.Errorf("nested deeper than %d levels", l.depth)
	}
	return nil
}

func (limiter) CheckAlias(int, int) error { return nil }

func loadError(name string, err error) *Error {
	if e, ok := errors.AsType[*yaml.LoadError](err); ok {
		return &Error{File: name, Line: e.Mark.Line, Col: e.Mark.Column, Msg: e.Message}
	}
	return &Error{File: name, Msg: err.Error()}
}

// invalidLine is the first line that is not UTF-8 or holds a NUL, or 0.
func invalidLine(data []byte) int {
	if utf8.Valid(data) && bytes.IndexByte(data, 0) < 0 {
		return 0
	}
	line := 0
	for l := range bytes.Lines(data) {
		line++
		if !utf8.Valid(l) || bytes.IndexByte(l, 0) >= 0 {
			return line
		}
	}
	return line
}

func or(v, d int) int {
	if v == 0 {
		return d
	}
	return v
}
