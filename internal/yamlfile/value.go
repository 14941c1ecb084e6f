package yamlfile

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Value is n as a JSON-like Go value: nil, bool, int64, uint64, float64, string, []any, map[string]any. An
// integer beyond uint64 is a json.Number.
func (n *Node) Value() any {
	if n == nil {
		return nil
	}
	switch n.Kind {
	case Null:
		return nil
	case Bool:
		return n.Text[0] == 't' || n.Text[0] == 'T'
	case Int:
		return intValue(n.Text)
	case Float:
		return floatValue(n.Text)
	case List:
		out := make([]any, len(n.Items))
		for i, item := range n.Items {
			out[i] = item.Value()
		}
		return out
	case Map:
		out := make(map[string]any, len(n.Pairs))
		for _, p := range n.Pairs {
			out[p.Key.Text] = p.Value.Value()
		}
		return out
	}
	return n.Text
}

func intValue(s string) any {
	t, base := s, 10
	switch {
	case strings.HasPrefix(s, "0x"):
		t, base = s[2:], 16
	case strings.HasPrefix(s, "0o"):
		t, base = s[2:], 8
	}
	if v, err := strconv.ParseInt(t, base, 64); err == nil {
		return v
	}
	if v, err := strconv.ParseUint(strings.TrimPrefix(t, "+"), base, 64); err == nil {
		return v
	}
	return json.Number(strings.TrimPrefix(s, "+"))
}

func floatValue(s string) float64 {
	sign := 1
	t := strings.TrimPrefix(s, "+")
	if strings.HasPrefix(t, "-") {
		sign, t = -1, t[1:]
	}
	switch strings.ToLower(t) {
	case ".inf":
		return math.Inf(sign)
	case ".nan":
		return math.NaN()
	}
	v, _ := strconv.ParseFloat(t, 64) // only a range error is left, and ±Inf is right for it
	return float64(sign) * v
}

// At is the node that path leads to from n: map keys, and list indexes as decimals. It is nil when there is
// none.
func (n *Node) At(path ...string) *Node {
	for _, p := range path {
		if n == nil {
			return nil
		}
		if n.Kind != List {
			n = n.Get(p)
			continue
		}
		i, err := strconv.Atoi(p)
		if err != nil || i < 0 || i >= len(n.Items) {
			return nil
		}
		n = n.Items[i]
	}
	return n
}

// Pointer is the node at a JSON pointer, or the deepest existing one on the way, so that a problem of a
// missing value points at its parent.
func (n *Node) Pointer(pointer string) *Node {
	for part := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		next := n.At(strings.NewReplacer("~1", "/", "~0", "~").Replace(part))
		if next == nil {
			return n
		}
		n = next
	}
	return n
}

// Str is the text of a string, number or bool; the error says what was found instead.
func (n *Node) Str(name, what string) (string, error) {
	switch n.Kind {
	case Null, List, Map:
		return "", n.Errorf(name, "%s is a %s, want a string", what, n.Kind)
	}
	return n.Text, nil
}

// Bool is the value of a bool.
func (n *Node) Bool(name, what string) (bool, error) {
	if n.Kind != Bool {
		return false, n.Errorf(name, "%s is %s, want true or false", what, n.describe())
	}
	return n.Value() == true, nil
}

// Int is the value of an int that fits int64.
func (n *Node) Int(name, what string) (int64, error) {
	v, ok := n.Value().(int64)
	if n.Kind != Int || !ok {
		return 0, n.Errorf(name, "%s is %s, want an integer", what, n.describe())
	}
	return v, nil
}

// Strings is a list of strings; one scalar counts as a list of one, null as an empty list.
func (n *Node) Strings(name, what string) ([]string, error) {
	switch n.Kind {
	case Null:
		return nil, nil
	case Map:
		return nil, n.Errorf(name, "%s is a map, want a list of strings", what)
	case List:
		out := make([]string, 0, len(n.Items))
		for _, item := range n.Items {
			s, err := item.Str(name, "an item of "+what)
			if err != nil {
				return nil, err
			}
			out = append(out, s)
		}
		return out, nil
	}
	return []string{n.Text}, nil
}

// describe is n in a message: its text if it is a scalar, else its kind.
func (n *Node) describe() string {
	switch n.Kind {
	case List, Map:
		return "a " + n.Kind.String()
	case Null:
		return "null"
	}
	return fmt.Sprintf("%q", clip(n.Text))
}
