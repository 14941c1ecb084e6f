package sandbox

import (
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/yamlfile"
	"github.com/delivery-station/ds/plugin"
)

// reader reads files of record. The first problem is kept; unknown keys are problems.
type reader struct {
	name string
	err  error
}

func (r *reader) errorf(n *yamlfile.Node, format string, a ...any) {
	if r.err == nil {
		r.err = n.Errorf(r.name, format, a...)
	}
}

func (r *reader) keep(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) object(n *yamlfile.Node, what string, fields map[string]func(*yamlfile.Node)) {
	if n.Kind == yamlfile.Null {
		return
	}
	if n.Kind != yamlfile.Map {
		r.errorf(n, "%s must be a map, not a %s", what, n.Kind)
		return
	}
	for _, p := range n.Pairs {
		set := fields[p.Key.Text]
		if set == nil {
			known := make([]string, 0, len(fields))
			for k := range fields {
				known = append(known, k)
			}
			hint := ""
			if s := plugin.Suggest(p.Key.Text, known); len(s) > 0 {
				hint = "; did you mean " + s[0] + "?"
			}
			r.errorf(p.Key, "unknown key %q in %s%s", clip(p.Key.Text), what, hint)
			continue
		}
		set(p.Value)
	}
}

func (r *reader) capabilities(n *yamlfile.Node, what string, f func(c hostabi.Capability, n *yamlfile.Node)) {
	fields := make(map[string]func(*yamlfile.Node), 16)
	for _, c := range hostabi.Capabilities() {
		fields[string(c)] = func(n *yamlfile.Node) { f(c, n) }
	}
	r.object(n, what, fields)
}

func (r *reader) version(n *yamlfile.Node) {
	if v, err := n.Int(r.name, "version"); err != nil || v != 1 {
		r.errorf(n, "version is %s, this ds reads 1", clip(n.Text))
	}
}

func (r *reader) str(n *yamlfile.Node, what string) string {
	s, err := n.Str(r.name, what)
	if err != nil {
		r.keep(err)
	}
	return s
}

func (r *reader) strings(n *yamlfile.Node, what string) []string {
	s, err := n.Strings(r.name, what)
	if err != nil {
		r.keep(err)
	}
	return s
}

func (r *reader) boolean(n *yamlfile.Node, what string) bool {
	v, err := n.Bool(r.name, what)
	if err != nil {
		r.keep(err)
	}
	return v
}

func (r *reader) word(n *yamlfile.Node, what string, allowed ...string) string {
	s := r.str(n, what)
	if !slices.Contains(allowed, s) {
		r.errorf(n, "%s is %q, want one of %s", what, clip(s), strings.Join(allowed, ", "))
	}
	return s
}

func (r *reader) size(n *yamlfile.Node, what string) int64 {
	v, err := yamlfile.ParseSize(r.str(n, what))
	if err != nil {
		r.errorf(n, "%s: %s", what, err)
	}
	return v
}
