package yamlfile

import (
	"bytes"
	"errors"
	"maps"
	"reflect"
	"strings"
	"unicode/utf8"
)

// ErrManual says that a place of a file cannot be edited without touching the rest: anchors, aliases, tags,
// block scalars, keys in odd forms. The user writes Block there by hand.
var ErrManual = errors.New("cannot be changed without touching the rest of the file")

// Set returns data with the value at path set and every other byte kept: a scalar is replaced in place, a
// missing key becomes a line after the last child of its deepest existing parent. Lists and maps are written
// in flow style. The result is parsed and must differ in that value only, else the error is ErrManual.
func Set(name string, data []byte, l Limits, value any, path ...string) ([]byte, error) {
	text, err := flowText(value)
	if err != nil {
		return nil, err
	}
	return edit(name, data, l, func(e *editor, root *Node) bool { return e.set(root, text, path) }, func(tree any) any {
		parsed, err := Parse(name, []byte(text), l)
		if err != nil {
			return nil
		}
		return setIn(tree, parsed.Value(), path)
	})
}

// Unset returns data without the entry at path and without parents that it leaves empty. A path that is not
// there changes nothing.
func Unset(name string, data []byte, l Limits, path ...string) ([]byte, error) {
	return edit(name, data, l, func(e *editor, root *Node) bool { return e.unset(root, path) }, func(tree any) any { return unsetIn(tree, path) })
}

// Block is the text that a user writes by hand to set value at path.
func Block(value any, path ...string) (string, error) {
	text, err := flowText(value)
	if err != nil {
		return "", err
	}
	return block(path, text, 0, "\n"), nil
}

func edit(name string, data []byte, l Limits, change func(*editor, *Node) bool, want func(tree any) any) ([]byte, error) {
	root, err := Parse(name, data, l)
	if err != nil {
		return nil, err
	}
	if oddBreaks(data) {
		return nil, ErrManual
	}
	e := newEditor(data)
	if !change(e, root) {
		return nil, ErrManual
	}
	after, err := Parse(name, e.data, l)
	if err != nil || !reflect.DeepEqual(after.Value(), want(root.Value())) {
		return nil, ErrManual
	}
	return e.data, nil
}

// oddBreaks reports line breaks of YAML that editors do not count as such; positions would be misread.
func oddBreaks(data []byte) bool {
	return bytes.Count(data, []byte("\r")) != bytes.Count(data, []byte("\r\n")) || bytes.ContainsAny(data, "\u0085\u2028\u2029")
}

type editor struct {
	data  []byte
	lines []int // offset of each line
	eol   string
	bom   int
}

func newEditor(data []byte) *editor {
	e := &editor{data: data, eol: "\n"}
	if bytes.HasPrefix(data, []byte("\xEF\xBB\xBF")) {
		e.bom = 3
	}
	if bytes.Contains(data, []byte("\r\n")) {
		e.eol = "\r\n"
	}
	e.lines = []int{e.bom}
	for i, c := range data {
		if c == '\n' {
			e.lines = append(e.lines, i+1)
		}
	}
	return e
}

// splice replaces data[from:to].
func (e *editor) splice(from, to int, text string) bool {
	e.data = bytes.Join([][]byte{e.data[:from], e.data[to:]}, []byte(text))
	return true
}

// at is the offset of a position, whose columns count characters.
func (e *editor) at(n *Node) int {
	off := e.lines[n.Line-1]
	for range n.Col - 1 {
		_, size := utf8.DecodeRune(e.data[off:])
		off += size
	}
	return off
}

// lineEnd is the offset of the line break of the line that holds off.
func (e *editor) lineEnd(off int) int {
	i := bytes.IndexByte(e.data[off:], '\n')
	if i < 0 {
		return len(e.data)
	}
	if off+i > 0 && e.data[off+i-1] == '\r' && off < off+i {
		i--
	}
	return off + i
}

// end is the offset after the text of n; false if it cannot be told.
func (e *editor) end(n *Node) (int, bool) {
	if n.alias {
		return 0, false
	}
	at := e.at(n)
	rest := e.data[at:]
	switch {
	case n.Kind == Map && !n.flow:
		last := n.Pairs[len(n.Pairs)-1]
		if last.Value.Kind == Null && last.Value.Text == "" {
			return e.colon(last.Key)
		}
		return e.end(last.Value)
	case n.Kind == List && !n.flow:
		return e.end(n.Items[len(n.Items)-1])
	case n.Kind == Map, n.Kind == List:
		return closing(e.data, at)
	case n.Plain:
		return at + len(n.Text), n.Text != "" && bytes.HasPrefix(rest, []byte(n.Text))
	case len(rest) > 0 && (rest[0] == '"' || rest[0] == '\''):
		return quotedEnd(e.data, at)
	}
	return 0, false // block scalars, tags
}

// colon is the offset after the colon of a key.
func (e *editor) colon(key *Node) (int, bool) {
	end, ok := e.end(key)
	if !ok {
		return 0, false
	}
	for end < len(e.data) && (e.data[end] == ' ' || e.data[end] == '\t') {
		end++
	}
	return end + 1, end < len(e.data) && e.data[end] == ':'
}

func quotedEnd(data []byte, at int) (int, bool) {
	q := data[at]
	for i := at + 1; i < len(data); i++ {
		switch {
		case data[i] == '\\' && q == '"':
			i++
		case data[i] == q && q == '\'' && i+1 < len(data) && data[i+1] == q:
			i++
		case data[i] == q:
			return i + 1, true
		}
	}
	return 0, false
}

// closing is the offset after the bracket that closes the one at at.
func closing(data []byte, at int) (int, bool) {
	depth := 0
	for i := at; i < len(data); i++ {
		switch c := data[i]; {
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			if depth--; depth == 0 {
				return i + 1, true
			}
		case (c == '"' || c == '\'') && strings.IndexByte(" \t\r\n,[{:", data[i-1]) >= 0:
			end, ok := quotedEnd(data, i)
			if !ok {
				return 0, false
			}
			i = end - 1
		case c == '#' && strings.IndexByte(" \t\r\n", data[i-1]) >= 0:
			next := bytes.IndexByte(data[i:], '\n')
			if next < 0 {
				return 0, false
			}
			i += next
		}
	}
	return 0, false
}

func (e *editor) set(root *Node, text string, path []string) bool {
	n := root
	for i, key := range path {
		if n.alias || n.Kind != Map && n.Kind != Null {
			return false
		}
		next, name := n.Get(key), n.key(key)
		switch {
		case n.Kind == Null: // only at the root: an empty document
			return e.append(block(path, text, 0, e.eol))
		case next == nil:
			return e.insert(n, path[i:], text)
		case next.alias:
			return false
		case next.Kind == Null && i < len(path)-1:
			return e.replace(name, next, "{"+flowPath(path[i+1:], text)+"}")
		case i == len(path)-1:
			return e.replace(name, next, text)
		}
		n = next
	}
	return false
}

// key is the node of a key of a map.
func (n *Node) key(text string) *Node {
	for _, p := range n.Pairs {
		if p.Key.Text == text {
			return p.Key
		}
	}
	return nil
}

// replace writes text as the value of key.
func (e *editor) replace(key, value *Node, text string) bool {
	colon, ok := e.colon(key)
	if !ok {
		return false
	}
	if value.Kind == Null && value.Text == "" {
		return e.splice(colon, colon, " "+text)
	}
	from := e.at(value)
	to, ok := e.end(value)
	if !ok {
		return false
	}
	if value.Line != key.Line { // a block collection below its key
		return e.splice(colon, to, " "+text)
	}
	return e.splice(from, to, text)
}

// insert adds path below the map n, which does not have its first key.
func (e *editor) insert(n *Node, path []string, text string) bool {
	if n.flow {
		end, ok := closing(e.data, e.at(n))
		if !ok {
			return false
		}
		entry := flowPath(path, text)
		if len(n.Pairs) > 0 {
			entry = ", " + entry
		}
		at := end - 1
		for len(n.Pairs) > 0 && (e.data[at-1] == ' ' || e.data[at-1] == '\t') {
			at--
		}
		return e.splice(at, at, entry)
	}
	end, ok := e.end(n)
	if !ok {
		return false
	}
	at := e.lineEnd(end)
	return e.splice(at, at, e.eol+strings.TrimSuffix(block(path, text, n.Pairs[0].Key.Col-1, e.eol), e.eol))
}

func (e *editor) append(text string) bool {
	if n := len(e.data); n > e.bom && e.data[n-1] != '\n' {
		text = e.eol + text
	}
	return e.splice(len(e.data), len(e.data), text)
}

func (e *editor) unset(root *Node, path []string) bool {
	n, holder, key := root, root, ""
	for _, p := range path { // the outermost entry that would be left empty goes as a whole
		next := n.Get(p)
		if next == nil {
			return n.Kind != List
		}
		if n.alias {
			return false
		}
		if len(n.Pairs) > 1 || key == "" {
			holder, key = n, p
		}
		n = next
	}
	return key != "" && e.remove(holder, key)
}

func (e *editor) remove(n *Node, text string) bool {
	i := 0
	for n.Pairs[i].Key.Text != text {
		i++
	}
	p := n.Pairs[i]
	end, ok := e.colon(p.Key)
	if absent := p.Value.Kind == Null && p.Value.Text == ""; ok && !absent {
		end, ok = e.end(p.Value)
	}
	if !ok {
		return false
	}
	from := e.at(p.Key)
	if n.flow {
		switch {
		case i+1 < len(n.Pairs):
			end = e.at(n.Pairs[i+1].Key)
		case i > 0:
			for from > 0 && e.data[from-1] != ',' {
				from--
			}
			from--
		}
		return e.splice(from, end, "")
	}
	start := e.lines[p.Key.Line-1]
	if strings.TrimSpace(string(e.data[start:from])) != "" {
		return false // the first key of a list item
	}
	end = e.lineEnd(end)
	if end < len(e.data) {
		end += bytes.IndexByte(e.data[end:], '\n') + 1
	}
	return e.splice(start, end, "")
}

// block is path with its value in block style.
func block(path []string, text string, indent int, eol string) string {
	var b strings.Builder
	for i, key := range path {
		b.WriteString(strings.Repeat(" ", indent+2*i) + quote(key) + ":")
		if i == len(path)-1 {
			b.WriteString(" " + text)
		}
		b.WriteString(eol)
	}
	return b.String()
}

func flowPath(path []string, text string) string {
	out := quote(path[len(path)-1]) + ": " + text
	for i := len(path) - 2; i >= 0; i-- {
		out = quote(path[i]) + ": {" + out + "}"
	}
	return out
}

// flowText writes a value on one line.
func flowText(v any) (string, error) {
	if entries, ok := entriesOf(v); ok {
		parts := make([]string, len(entries))
		for i, e := range entries {
			s, err := flowText(e.Value)
			if err != nil {
				return "", err
			}
			parts[i] = quote(e.Key) + ": " + s
		}
		return "{" + strings.Join(parts, ", ") + "}", nil
	}
	if items, ok := itemsOf(v); ok {
		parts := make([]string, len(items))
		for i, item := range items {
			s, err := flowText(item)
			if err != nil {
				return "", err
			}
			parts[i] = s
		}
		return "[" + strings.Join(parts, ", ") + "]", nil
	}
	return scalar(v)
}

// setIn is tree with one value changed; maps on the way are copied.
func setIn(tree, value any, path []string) any {
	if len(path) == 0 {
		return value
	}
	old, _ := tree.(map[string]any)
	out := maps.Clone(old)
	if out == nil {
		out = make(map[string]any, 1)
	}
	out[path[0]] = setIn(old[path[0]], value, path[1:])
	return out
}

// unsetIn is tree without the entry at path and without parents that are empty then; nil at the end.
func unsetIn(tree any, path []string) any {
	old, ok := tree.(map[string]any)
	if !ok || len(path) == 0 {
		return tree
	}
	child, ok := old[path[0]]
	if !ok {
		return tree
	}
	out := make(map[string]any, len(old))
	for k, v := range old {
		out[k] = v
	}
	if len(path) > 1 {
		out[path[0]] = unsetIn(child, path[1:])
	}
	if len(path) == 1 || out[path[0]] == nil && child != nil {
		delete(out, path[0])
	}
	if len(out) == 0 {
		return nil
	}
	return out
}
