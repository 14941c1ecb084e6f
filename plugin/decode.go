package plugin

import (
	"fmt"
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/yamlfile"
)

// Problem is one finding in a manifest at its place. Line 0 means that the place is not known.
type Problem struct {
	File      string
	Line, Col int
	Msg       string
}

// Warning is a Problem that does not refuse the manifest.
type Warning = Problem

func (p Problem) String() string {
	return (&yamlfile.Error{File: p.File, Line: p.Line, Col: p.Col, Msg: p.Msg}).Error()
}

// Problems is the cause of a MANIFEST error: everything that was found, in the order of the file.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return strings.Join(lines, "\n")
}

// decoder reads the tree of a manifest and collects what is wrong with it.
type decoder struct {
	file     string
	check    func(name Name, c hostabi.Capability, scope string) error // nil = scopes are not looked at
	problems Problems
	warnings []Warning
	unknown  *hostabi.Error // the first thing that only a newer ds may know
}

// field is one known key of an object and what to do with its value.
type field struct {
	key string
	set func(n *yamlfile.Node)
}

func (d *decoder) errorf(n *yamlfile.Node, format string, a ...any) {
	d.problems = append(d.problems, Problem{d.file, n.Line, n.Col, fmt.Sprintf(format, a...)})
}

func (d *decoder) warnf(n *yamlfile.Node, format string, a ...any) {
	d.warnings = append(d.warnings, Problem{d.file, n.Line, n.Col, fmt.Sprintf(format, a...)})
}

// object calls set for each known key of n. An unknown key is a warning, an error if strict. It reports
// whether n is an object at all; null counts as an absent one.
func (d *decoder) object(n *yamlfile.Node, what string, strict bool, fields ...field) bool {
	if n.Kind != yamlfile.Map {
		if n.Kind != yamlfile.Null {
			d.errorf(n, "%s must be a map, not a %s", what, n.Kind)
		}
		return false
	}
	for _, p := range n.Pairs {
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == p.Key.Text })
		if i >= 0 {
			if p.Value.Kind != yamlfile.Null {
				fields[i].set(p.Value)
			}
			continue
		}
		known := make([]string, len(fields))
		for i, f := range fields {
			known[i] = f.key
		}
		msg := fmt.Sprintf("unknown key %q in %s%s", clip(p.Key.Text, 40), what, didYouMean(p.Key.Text, known))
		if strict {
			d.errorf(p.Key, "%s", msg)
			continue
		}
		d.warnf(p.Key, "%s", msg)
	}
	return true
}

// list calls item for each item of a list.
func (d *decoder) list(n *yamlfile.Node, what string, most int, item func(n *yamlfile.Node)) {
	if n.Kind != yamlfile.List {
		d.errorf(n, "%s must be a list, not a %s", what, n.Kind)
		return
	}
	if len(n.Items) > most {
		d.errorf(n, "%s has %d entries, at most %d", what, len(n.Items), most)
		return
	}
	for _, i := range n.Items {
		item(i)
	}
}

// text sets a string of at most most characters without line breaks; longer help is read by longText.
func (d *decoder) text(key string, most int, to *string) field {
	return field{key, func(n *yamlfile.Node) {
		if s, ok := d.str(n, key, most); ok {
			if strings.ContainsAny(s, "\r\n") {
				d.errorf(n, "%s must be one line", key)
			}
			*to = s
		}
	}}
}

func (d *decoder) longText(key string, most int, to *string) field {
	return field{key, func(n *yamlfile.Node) { *to, _ = d.str(n, key, most) }}
}

func (d *decoder) str(n *yamlfile.Node, what string, most int) (string, bool) {
	s, err := n.Str(d.file, what)
	if err != nil {
		d.add(err)
		return "", false
	}
	if len(s) > most && len([]rune(s)) > most {
		d.errorf(n, "%s has %d characters, at most %d", what, len([]rune(s)), most)
		return "", false
	}
	return s, true
}

func (d *decoder) boolean(key string, to *bool) field {
	return field{key, func(n *yamlfile.Node) {
		v, err := n.Bool(d.file, key)
		if err != nil {
			d.add(err)
		}
		*to = v
	}}
}

func (d *decoder) size(key string, to *int64) field {
	return field{key, func(n *yamlfile.Node) {
		s, ok := d.str(n, key, 40)
		if !ok {
			return
		}
		v, err := yamlfile.ParseSize(s)
		if err != nil {
			d.errorf(n, "%s: %s", key, err)
			return
		}
		if v == 0 {
			d.errorf(n, "%s must be more than 0", key)
		}
		*to = v
	}}
}

// words sets a list of strings; one scalar counts as a list of one.
func (d *decoder) words(key string, most int, to *[]string) field {
	return field{key, func(n *yamlfile.Node) {
		v, err := n.Strings(d.file, key)
		if err != nil {
			d.add(err)
			return
		}
		if len(v) > most {
			d.errorf(n, "%s has %d entries, at most %d", key, len(v), most)
			return
		}
		*to = v
	}}
}

// word sets one of a few words.
func word[T ~string](d *decoder, key string, to *T, allowed ...T) field {
	return field{key, func(n *yamlfile.Node) {
		s, ok := d.str(n, key, 100)
		if !ok {
			return
		}
		if !slices.Contains(allowed, T(s)) {
			names := make([]string, len(allowed))
			for i := range allowed {
				names[i] = string(allowed[i])
			}
			d.errorf(n, "%s is %q, want one of %s%s", key, clip(s, 40), strings.Join(names, ", "), didYouMean(s, names))
			return
		}
		*to = T(s)
	}}
}

// path sets a clean relative path with slashes that stays below the manifest's directory.
func (d *decoder) path(key string, to *string) field {
	return field{key, func(n *yamlfile.Node) {
		s, ok := d.str(n, key, 240)
		if !ok {
			return
		}
		if !cleanPath(s) {
			d.errorf(n, "%s: %q is not a clean relative path with forward slashes", key, clip(s, 80))
			return
		}
		*to = s
	}}
}

func cleanPath(s string) bool {
	if s == "" || strings.ContainsAny(s, "\\:\x00") || strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return false
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	return true
}

func (d *decoder) add(err error) {
	if e, ok := err.(*yamlfile.Error); ok { //nolint:errorlint // made by a Node, never wrapped
		d.problems = append(d.problems, Problem{e.File, e.Line, e.Col, e.Msg})
		return
	}
	d.problems = append(d.problems, Problem{File: d.file, Msg: err.Error()})
}

// err is the error of everything collected, or nil.
func (d *decoder) err() error {
	if len(d.problems) == 0 {
		if d.unknown != nil {
			return d.unknown
		}
		return nil
	}
	msg := d.problems[0].String()
	if more := len(d.problems) - 1; more == 1 {
		msg += " (and one more problem)"
	} else if more > 1 {
		msg += fmt.Sprintf(" (and %d more problems)", more)
	}
	e := hostabi.Errorf(hostabi.ReasonManifest, "%s", msg)
	e.Err = d.problems
	return e
}

func didYouMean(word string, known []string) string {
	if s := Suggest(word, known); len(s) > 0 {
		return "; did you mean " + s[0] + "?"
	}
	return ""
}

// clip cuts s for a message.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
