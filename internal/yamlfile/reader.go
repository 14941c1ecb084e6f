package yamlfile

import (
	"maps"
	"slices"
	"strings"
)

// Reader reads a file of a fixed form: maps whose keys are known. The first problem is kept, with its place; what
// is read after it does not matter.
type Reader struct {
	Name    string                                     // of the file, for messages
	Suggest func(word string, known []string) []string // what an unknown key may mean; nil = nothing
	err     error
}

// Err is the first problem.
func (r *Reader) Err() error { return r.err }

// Keep keeps err if it is the first problem; nil is none.
func (r *Reader) Keep(err error) {
	if r.err == nil {
		r.err = err
	}
}

// Errorf keeps a problem at n.
func (r *Reader) Errorf(n *Node, format string, a ...any) { r.Keep(n.Errorf(r.Name, format, a...)) }

// Object calls the function of each key of a map. Null is a map without keys; an unknown key is a problem.
func (r *Reader) Object(n *Node, what string, fields map[string]func(*Node)) {
	r.Map(n, what, func(key, value *Node) {
		set := fields[key.Text]
		if set == nil {
			hint := ""
			if r.Suggest != nil {
				if s := r.Suggest(key.Text, slices.Sorted(maps.Keys(fields))); len(s) > 0 {
					hint = "; did you mean " + s[0] + "?"
				}
			}
			r.Errorf(key, "unknown key %q in %s%s", clip(key.Text), what, hint)
			return
		}
		set(value)
	})
}

// Map calls f for each pair of a map whose keys are names. Null is a map without pairs.
func (r *Reader) Map(n *Node, what string, f func(key, value *Node)) {
	if n.Kind != Map && n.Kind != Null {
		r.Errorf(n, "%s must be a map, not a %s", what, n.Kind)
		return
	}
	for _, p := range n.Pairs {
		f(p.Key, p.Value)
	}
}

// List calls f for each item. Null is a list without items.
func (r *Reader) List(n *Node, what string, f func(*Node)) {
	if n.Kind != List && n.Kind != Null {
		r.Errorf(n, "%s must be a list, not a %s", what, n.Kind)
		return
	}
	for _, item := range n.Items {
		f(item)
	}
}

// Str is Node.Str.
func (r *Reader) Str(n *Node, what string) string { return kept(r, n, what, (*Node).Str) }

// Strings is Node.Strings.
func (r *Reader) Strings(n *Node, what string) []string { return kept(r, n, what, (*Node).Strings) }

// Bool is Node.Bool.
func (r *Reader) Bool(n *Node, what string) bool { return kept(r, n, what, (*Node).Bool) }

func kept[T any](r *Reader, n *Node, what string, get func(n *Node, name, what string) (T, error)) T {
	v, err := get(n, r.Name, what)
	r.Keep(err)
	return v
}

// Word is a string that is one of allowed.
func (r *Reader) Word(n *Node, what string, allowed ...string) string {
	s := r.Str(n, what)
	if !slices.Contains(allowed, s) {
		r.Errorf(n, "%s is %q, want one of %s", what, clip(s), strings.Join(allowed, ", "))
	}
	return s
}

// Version reads the number of the file's form: this ds knows version 1 of every file.
func (r *Reader) Version(n *Node) {
	if v, err := n.Int(r.Name, "version"); err != nil || v != 1 {
		r.Errorf(n, "version is %s, this ds reads 1", clip(n.Text))
	}
}
