package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/yamlfile"
)

// loader gathers the layers of one Load and every problem on the way.
type loader struct {
	in       Input
	env0     map[string]string // the environment, for ${VAR}
	used     map[string]bool   // variables that a file uses as ${VAR}
	read     []string
	problems []Problem
	warnings []Warning
}

func newLoader(in Input) *loader {
	if in.Read == nil {
		in.Read = readFile
	}
	l := &loader{in: in, env0: make(map[string]string), used: make(map[string]bool)}
	for _, kv := range in.Env {
		k, v, _ := strings.Cut(kv, "=")
		l.env0[k] = v
	}
	return l
}

// readFile reads one byte more than a file may have, so that the parser refuses what goes on for ever.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read-only
	return io.ReadAll(io.LimitReader(f, int64(yamlfile.DefaultLimits().Bytes)+1))
}

func (l *loader) problem(p Problem) { l.problems = append(l.problems, p) }

func (l *loader) warn(hint, format string, a ...any) {
	w := Warning{fmt.Sprintf(format, a...), hint}
	if !slices.Contains(l.warnings, w) {
		l.warnings = append(l.warnings, w)
	}
}

func (l *loader) sorted() Errors {
	sortProblems(l.problems)
	return l.problems
}

// defaults is the lowest layer.
func (l *loader) defaults() map[string]Value {
	p := l.in.Paths
	dirs := strings.NewReplacer("<config>", p.Config, "<data>", p.Data, "<cache>", p.Cache, "<state>", p.State)
	values := make(map[string]Value, len(keys))
	for i := range keys {
		k, text := &keys[i], keys[i].Default
		if strings.Contains(text, "<") {
			text = dirs.Replace(text)
		}
		if k.Name == "auth.docker_config" && l.env0["DOCKER_CONFIG"] != "" {
			text = filepath.Join(l.env0["DOCKER_CONFIG"], "config.json")
		}
		v := Value{Key: k.Name, Raw: text, Secret: k.Secret}
		var err error
		if text == "" && k.Type == TypeObjects {
			v.Effective = []map[string]any{}
		} else if text == "" && k.Type == TypeList {
			v.Effective = []string{}
		} else if v.Effective, err = k.parse(text, p.Home, p.Home); err != nil {
			l.problem(Problem{Reason: hostabi.ReasonConfigValue, Msg: fmt.Sprintf("default of %s %v", k.Name, err)})
		}
		values[k.Name] = v
	}
	return values
}

// flags is the highest layer; two different values for one key are a conflict.
func (l *loader) flags() map[string]Value {
	values := make(map[string]Value)
	for _, f := range l.in.Flags {
		if old, ok := values[f.Key]; ok && old.Raw != f.Value {
			l.problem(Problem{Reason: hostabi.ReasonUsage, Msg: fmt.Sprintf("%s and %s set %s to different values", old.Origin.Name, f.Flag, f.Key)})
			continue
		}
		l.set(values, f.Key, f.Value, Origin{Layer: Flag, Name: f.Flag}, l.in.WorkDir, nil)
	}
	return values
}

// files is the layer of configuration files, merged left to right.
func (l *loader) files() map[string]Value {
	values := make(map[string]Value)
	var all []source
	for _, name := range l.in.Files {
		all = append(all, l.open(name))
	}
	if len(l.in.Files) == 0 {
		all = l.userFiles()
	}
	for _, s := range all {
		if s.err != nil {
			l.problem(Problem{Reason: hostabi.ReasonConfigFile, File: l.in.Paths.Shorten(s.name), Msg: reasonText(s.err), Hint: "ds config path"})
			continue
		}
		l.read = append(l.read, s.name)
		f := &file{l: l, name: s.name, shown: l.in.Paths.Shorten(s.name), data: s.data, values: values}
		f.load()
	}
	return values
}

// source is a configuration file as it was read, once.
type source struct {
	name string
	data []byte
	err  error
}

func (l *loader) open(name string) source {
	data, err := l.in.Read(name)
	return source{name, data, err}
}

// userFiles is the user's one configuration file, if there is one; both formats side by side are an error.
func (l *loader) userFiles() (found []source) {
	for _, base := range []string{"config.yaml", "config.toml"} {
		if t := l.open(filepath.Join(l.in.Paths.Config, base)); t.err == nil || !errors.Is(t.err, fs.ErrNotExist) {
			found = append(found, t)
		}
	}
	if len(found) > 1 {
		first, second := found[0].name, found[1].name
		l.problem(Problem{
			Reason: hostabi.ReasonConfigFile, File: l.in.Paths.Shorten(first),
			Msg: "exists beside " + l.in.Paths.Shorten(second) + "; which one counts is not defined", Hint: "mv " + second + " " + second + ".old",
		})
	}
	return found
}

func reasonText(err error) string {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err.Error()
	}
	return err.Error()
}

// set types one value and puts it into a layer. at adds the place to a problem; nil = flags and variables.
func (l *loader) set(values map[string]Value, name string, raw any, o Origin, base string, at func(Problem) Problem) {
	if at == nil {
		at = func(p Problem) Problem { p.Msg = o.Name + ": " + p.Msg; return p }
	}
	k := findKey(name)
	if k == nil && strings.HasPrefix(name, settingsPrefix) && strings.Count(name, delimiter) >= 3 {
		k = &Key{Name: name, Type: TypeAny, Secret: secretName(name)}
	}
	switch {
	case name == "config_version":
		l.problem(at(Problem{Reason: hostabi.ReasonUsage, Msg: "config_version belongs into a file"}))
		return
	case k == nil:
		p := Problem{Reason: hostabi.ReasonConfigKey, Msg: fmt.Sprintf("unknown key %q", name)}
		if near := nearest(name, allKeyNames()); near != "" {
			p.Hint = "did you mean " + near + "?"
		}
		l.problem(at(p))
		return
	}
	v, err := k.parse(raw, base, l.in.Paths.Home)
	if err != nil {
		msg := fmt.Sprintf("%s %v", name, err)
		if k.Secret {
			msg = name + " has a value of the wrong type"
		}
		l.problem(at(Problem{Reason: hostabi.ReasonConfigValue, Msg: msg}))
		return
	}
	if name == "logging.output" && v == "stdout" {
		l.warn("logging.output: stderr", "logging.output: stdout is treated as stderr, stdout is data")
		v = "stderr"
	}
	values[name] = Value{Key: name, Raw: raw, Effective: v, Origin: o, Secret: k.Secret || k.Type == TypeAny && holdsSecret(v)}
}

func allKeyNames() []string {
	names := make([]string, len(keys))
	for i := range keys {
		names[i] = keys[i].Name
	}
	return names
}

// file is one configuration file while it is read.
type file struct {
	l      *loader
	name   string // path
	shown  string
	data   []byte
	values map[string]Value
}

func (f *file) load() {
	root, err := f.parse()
	if err != nil {
		p := Problem{Reason: hostabi.ReasonConfigSyntax, File: f.shown, Msg: err.Error()}
		if y, ok := errors.AsType[*yamlfile.Error](err); ok {
			p.Line, p.Col, p.Msg = y.Line, y.Col, y.Msg
		} else if t, ok := errors.AsType[*toml.DecodeError](err); ok {
			p.Line, p.Col = t.Position()
			p.Msg = strings.TrimPrefix(t.Error(), "toml: ")
		}
		p.Excerpt = excerpt(f.data, p.Line, p.Col, 1)
		f.l.problem(p)
		return
	}
	switch root.Kind {
	case yamlfile.Null:
	case yamlfile.Map:
		f.walk("", root)
	default:
		f.report(hostabi.ReasonConfigSyntax, root, "", "configuration is %s, want a map of keys", root.Kind)
	}
}

// parse gives the tree of the file; a TOML tree has no positions.
func (f *file) parse() (*yamlfile.Node, error) {
	if filepath.Ext(f.name) != ".toml" {
		return yamlfile.Parse(f.shown, f.data, yamlfile.DefaultLimits())
	}
	if limit := yamlfile.DefaultLimits().Bytes; len(f.data) > limit {
		return nil, fmt.Errorf("has %d bytes, at most %d", len(f.data), limit)
	}
	var v map[string]any
	if err := toml.Unmarshal(f.data, &v); err != nil {
		return nil, err
	}
	// Through JSON, so that values meet one parser and one set of limits; positions are lost on the way.
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	root, err := yamlfile.Parse(f.shown, b, yamlfile.DefaultLimits())
	if err == nil {
		strip(root)
	}
	return root, err
}

func strip(n *yamlfile.Node) {
	n.Line, n.Col = 0, 0
	for _, i := range n.Items {
		strip(i)
	}
	for _, p := range n.Pairs {
		strip(p.Key)
		strip(p.Value)
	}
}

func (f *file) report(r hostabi.Reason, at *yamlfile.Node, hint, format string, a ...any) {
	p := Problem{Reason: r, File: f.shown, Line: at.Line, Col: at.Col, Msg: fmt.Sprintf(format, a...), Hint: hint}
	p.Excerpt = excerpt(f.data, p.Line, p.Col, len([]rune(at.Text)))
	f.l.problem(p)
}

// walk visits a map whose keys continue prefix.
func (f *file) walk(prefix string, n *yamlfile.Node) {
	for _, pair := range n.Pairs {
		f.visit(prefix+pair.Key.Text, pair.Key, pair.Value)
	}
}

func (f *file) visit(name string, key, n *yamlfile.Node) {
	if to, ok := renamed[name]; ok {
		f.l.warn(to, "%s is called %s in %s", name, to, f.shown)
		name = to
	}
	if rest, ok := strings.CutPrefix(name, "settings."); ok {
		name = settingsPrefix + strings.TrimPrefix(strings.TrimPrefix(rest, "ds-"), "ds_")
	}
	switch {
	case name == "config_version":
		if v, err := n.Int(f.shown, name); err != nil || v < 1 {
			f.report(hostabi.ReasonConfigValue, n, "", "config_version is %q, want 1", n.Text)
		} else if v > 1 {
			f.report(hostabi.ReasonConfigVersion, n, "", "written for a newer ds (config_version %d, this ds reads 1)", v)
		}
	case isIgnored(name):
		f.l.warn("", "%s in %s has no effect", name, f.shown)
	case findKey(name) != nil:
		if name == "plugins.signature.mode" && n.Text != "strict" {
			f.l.warn("", "%s: %s in %s has no effect", name, n.Text, f.shown)
		}
		f.leaf(name, n)
	case n.Kind == yamlfile.Map && isPrefix(name):
		f.walk(name+delimiter, n)
	case strings.HasPrefix(name, settingsPrefix) && strings.Count(name, delimiter) >= 3:
		if n.Kind == yamlfile.Map {
			f.walk(name+delimiter, n)
			return
		}
		f.leaf(name, n)
	case n.Kind == yamlfile.Null && isPrefix(name):
	default:
		parent, _ := cutLast(name)
		f.report(hostabi.ReasonConfigKey, key, f.meant(name), "unknown key %q%s", key.Text, inParent(parent))
	}
}

// leaf takes one value; null resets the key to its default.
func (f *file) leaf(name string, n *yamlfile.Node) {
	if n.Kind == yamlfile.Null {
		delete(f.values, name)
		return
	}
	raw, ok := f.expand(n)
	if !ok {
		return
	}
	o := Origin{Layer: File, Name: f.shown, Line: n.Line, Col: n.Col}
	f.l.set(f.values, name, raw, o, filepath.Dir(f.name), func(p Problem) Problem {
		p.File, p.Line, p.Col = f.shown, n.Line, n.Col
		p.Excerpt = excerpt(f.data, n.Line, n.Col, len([]rune(n.Text)))
		return p
	})
	if v, ok := f.values[name]; ok && v.Origin == o {
		v.Raw = n.Value()
		f.values[name] = v
	}
}

// expand is the value of n with ${VAR} replaced in its strings, once and after parsing.
func (f *file) expand(n *yamlfile.Node) (any, bool) {
	switch n.Kind {
	case yamlfile.String:
		s, err := f.l.expand(n.Text)
		if err == nil {
			return s, true
		}
		reason := hostabi.ReasonConfigVariable
		if errors.Is(err, errUnterminated) {
			reason = hostabi.ReasonConfigSyntax
		}
		f.report(reason, n, "", "%v", err)
		return nil, false
	case yamlfile.List:
		out := make([]any, 0, len(n.Items))
		for _, item := range n.Items {
			v, ok := f.expand(item)
			if !ok {
				return nil, false
			}
			out = append(out, v)
		}
		return out, true
	case yamlfile.Map:
		out := make(map[string]any, len(n.Pairs))
		for _, p := range n.Pairs {
			v, ok := f.expand(p.Value)
			if !ok {
				return nil, false
			}
			out[p.Key.Text] = v
		}
		return out, true
	}
	return n.Value(), true
}

var errUnterminated = errors.New("${ without }")

// expand replaces ${VAR}, ${VAR:-default} and $$ (config.md section 6); $VAR without braces is literal.
func (l *loader) expand(s string) (string, error) {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i == len(s)-1 {
			b.WriteString(s)
			return b.String(), nil
		}
		b.WriteString(s[:i])
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			s = s[i+2:]
		case '{':
			end := strings.IndexByte(s[i:], '}')
			if end < 0 {
				return "", errUnterminated
			}
			name, def, hasDef := strings.Cut(s[i+2:i+end], ":-")
			l.used[name] = true
			v := l.env0[name]
			if _, set := l.env0[name]; !set && !hasDef {
				return "", fmt.Errorf("${%s} is not set", name)
			}
			if v == "" && hasDef {
				v = def
			}
			b.WriteString(v)
			s = s[i+end+1:]
		default:
			b.WriteByte('$')
			s = s[i+1:]
		}
	}
}

// renamed are keys of the original DS that have another name here.
var renamed = map[string]string{
	"logging.color":                   "ui.color",
	"communication.event_buffer_size": "events.buffer",
	"communication.state_ttl":         "state.default_ttl",
}

// ignored are keys of the original DS that have no effect here; a warning says so.
var ignored = []string{
	"plugins.auto_install", "plugins.context_enabled", "plugins.signature.allow_unsigned", "plugins.sources",
	"communication.events_enabled", "communication.state_enabled", "communication.enabled",
}

func isIgnored(name string) bool { return slices.Contains(ignored, name) }

// isPrefix reports whether name is the beginning of known keys or of plugin settings.
func isPrefix(name string) bool {
	if name == "plugins.settings" || name == "settings" || name == "communication" ||
		strings.HasPrefix(name, settingsPrefix) && strings.Count(name, delimiter) == 2 {
		return true
	}
	return slices.ContainsFunc(keys, func(k Key) bool { return strings.HasPrefix(k.Name, name+delimiter) })
}

// meant is a hint for an unknown key: the nearest key of the same parent, else of all.
func (f *file) meant(name string) string {
	parent, last := cutLast(name)
	siblings := make(map[string]bool)
	for i := range keys {
		if rest, ok := strings.CutPrefix(keys[i].Name, parent); ok {
			first, _, _ := strings.Cut(rest, delimiter)
			siblings[first] = true
		}
	}
	if near := nearest(last, slices.Sorted(maps.Keys(siblings))); near != "" {
		return "did you mean " + near + "?"
	}
	if near := nearest(name, allKeyNames()); near != "" {
		return "did you mean " + near + "?"
	}
	return ""
}

// cutLast splits name before its last segment; the parent keeps its dot.
func cutLast(name string) (parent, last string) {
	i := strings.LastIndexByte(name, '.')
	return name[:i+1], name[i+1:]
}

func inParent(parent string) string {
	if parent == "" {
		return ""
	}
	return " in " + strings.TrimSuffix(parent, delimiter)
}

// nearest is the candidate closest to word: edit distance at most a third of its length, else "".
func nearest(word string, candidates []string) string {
	best, bestD := "", max(2, len(word)/3)+1
	for _, c := range candidates {
		if d := distance(word, c); d < bestD {
			best, bestD = c, d
		}
	}
	return best
}

// distance is the Levenshtein distance of two short words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := prev
			if a[i] != b[j] {
				cost++
			}
			prev = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
