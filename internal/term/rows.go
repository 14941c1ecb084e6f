package term

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"unicode/utf8"

	"github.com/itchyny/gojq"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/yamlfile"
)

// Formats are the values of --format; go-template takes its text after "=".
func Formats() []string {
	return []string{"table", "wide", "json", "ndjson", "yaml", "name", "go-template"}
}

// CheckFormat checks a value of --format; the error has reason FORMAT.
func CheckFormat(format string) error {
	name, text, ok := strings.Cut(format, "=")
	if !slices.Contains(Formats(), name) || ok != (name == "go-template") {
		return hostabi.Errorf(hostabi.ReasonFormat, "format %q is not one of %s", Clean(format, 40), strings.Join(Formats(), ", ")+"=TEXT")
	}
	if ok {
		if _, err := template.New("format").Parse(text); err != nil {
			return hostabi.Errorf(hostabi.ReasonFormat, "%w", err)
		}
	}
	return nil
}

// Rows renders r in format, or in the user's --format when that is empty; --jq wins over both. JSON keeps
// the members of each row as they came; a table shows the columns.
func (t *Terminal) Rows(w io.Writer, format string, r hostabi.Rows) error {
	if format == "" {
		format = t.o.Format
	}
	if t.o.JQ != "" {
		return t.filter(w, r)
	}
	if format == "" {
		format = "table"
	}
	if err := CheckFormat(format); err != nil {
		return err
	}
	name, text, _ := strings.Cut(format, "=")
	switch name {
	case "json":
		return writeJSON(w, r)
	case "ndjson":
		return eachRow(r, func(row json.RawMessage) error { return writeLine(w, row) })
	case "yaml":
		return writeYAML(w, r)
	case "name":
		return eachRow(r, func(row json.RawMessage) error { return t.writeName(w, r, row) })
	case "go-template":
		return writeTemplate(w, text, r)
	}
	return t.table(w, r, name == "wide")
}

// RowsOf makes rows of Go values with json tags; columns as in hostabi.Rows.
func RowsOf[T any](columns []string, values ...T) (hostabi.Rows, error) {
	r := hostabi.Rows{Columns: columns, End: true, JSON: make([]string, 0, len(values))}
	for _, v := range values {
		b, err := marshal(v)
		if err != nil {
			return r, err
		}
		r.JSON = append(r.JSON, string(b))
	}
	return r, nil
}

// ObjectOf is RowsOf for one value that is a document of its own.
func ObjectOf[T any](columns []string, value T) (hostabi.Rows, error) {
	r, err := RowsOf(columns, value)
	r.Single = true
	return r, err
}

func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

func eachRow(r hostabi.Rows, f func(json.RawMessage) error) error {
	for i, text := range r.JSON {
		if !json.Valid([]byte(text)) {
			return hostabi.Errorf(hostabi.ReasonBadMessage, "row %d is not JSON", i+1)
		}
		if err := f(json.RawMessage(text)); err != nil {
			return err
		}
	}
	return nil
}

// document is the one JSON value of r: the row itself or the list of rows.
func document(r hostabi.Rows) (json.RawMessage, error) {
	var all []json.RawMessage
	if err := eachRow(r, func(row json.RawMessage) error { all = append(all, row); return nil }); err != nil {
		return nil, err
	}
	if r.Single && len(all) == 1 {
		return all[0], nil
	}
	if all == nil {
		all = []json.RawMessage{}
	}
	return marshal(all)
}

func writeJSON(w io.Writer, r hostabi.Rows) error {
	doc, err := document(r)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, doc, "", "  "); err != nil {
		return err
	}
	return writeLine(w, escape(b.Bytes()))
}

func writeLine(w io.Writer, row []byte) error {
	_, err := w.Write(append(slices.Clip(escape(row)), '\n'))
	return err
}

// escape writes C1 and bidirectional controls of JSON text as \u sequences; C0 are escaped already.
func escape(b []byte) []byte {
	if bytes.IndexFunc(b, func(r rune) bool { return r >= 0x7f && unsafe(r) && r != utf8.RuneError }) < 0 {
		return b
	}
	var out []byte
	for _, r := range string(b) {
		switch {
		case r >= 0x10000 && unsafe(r):
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		case r >= 0x7f && unsafe(r):
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			out = utf8.AppendRune(out, r)
		}
	}
	return out
}

func writeYAML(w io.Writer, r hostabi.Rows) error {
	v, err := decoded(r)
	if err != nil {
		return err
	}
	b, err := yamlfile.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// decoded is the document as Go values; integers stay integers.
func decoded(r hostabi.Rows) (v any, err error) {
	doc, err := document(r)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	err = dec.Decode(&v)
	return numbers(v), err
}

func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := strconv.Atoi(v.String()); err == nil {
			return i
		}
		f, _ := v.Float64()
		return f
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	}
	return v
}

func writeTemplate(w io.Writer, text string, r hostabi.Rows) error {
	tmpl, err := template.New("format").Parse(unescape(text))
	if err != nil {
		return hostabi.Errorf(hostabi.ReasonFormat, "%w", err)
	}
	v, err := decoded(r)
	if err != nil {
		return err
	}
	if err := tmpl.Execute(w, v); err != nil {
		return hostabi.Errorf(hostabi.ReasonFormat, "%w", err)
	}
	return nil
}

func (t *Terminal) filter(w io.Writer, r hostabi.Rows) error {
	q, err := gojq.Parse(t.o.JQ)
	if err != nil {
		return hostabi.Errorf(hostabi.ReasonFormat, "--jq: %w", err)
	}
	v, err := decoded(r)
	if err != nil {
		return err
	}
	for iter := q.Run(v); ; {
		v, ok := iter.Next()
		if !ok {
			return nil
		}
		if err, ok := v.(error); ok {
			return hostabi.Errorf(hostabi.ReasonFormat, "--jq: %w", err)
		}
		if s, ok := v.(string); ok {
			v = Clean(s, 0)
			if _, err := fmt.Fprintln(w, v); err != nil {
				return err
			}
			continue
		}
		b, err := gojq.Marshal(v)
		if err != nil {
			return err
		}
		if err := writeLine(w, b); err != nil {
			return err
		}
	}
}

// column is one parsed element of hostabi.Rows.Columns.
type column struct {
	key, header string
	wide        bool // only in format wide
	size        bool // bytes, for people
}

func columnsOf(r hostabi.Rows) (cols []column) {
	for _, c := range r.Columns {
		key, header, ok := strings.Cut(c, "=")
		if !ok {
			header = strings.ToUpper(strings.ReplaceAll(key, "_", " "))
		}
		header, size := strings.CutSuffix(header, ",size")
		header, wide := strings.CutSuffix(header, ",wide")
		cols = append(cols, column{key, header, wide, size})
	}
	return cols
}

func (t *Terminal) writeName(w io.Writer, r hostabi.Rows, row json.RawMessage) error {
	cols := columnsOf(r)
	if len(cols) == 0 {
		return hostabi.Errorf(hostabi.ReasonFormat, "format name needs output with columns")
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(row, &m); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, t.cell(m[cols[0].key]))
	return err
}

// table prints aligned columns; a single object prints one "HEADER  value" line a column.
func (t *Terminal) table(w io.Writer, r hostabi.Rows, wide bool) error {
	cols := slices.DeleteFunc(columnsOf(r), func(c column) bool { return c.wide && !wide })
	var lines [][]string
	if !r.Single && len(cols) > 0 {
		head := make([]string, len(cols))
		for i, c := range cols {
			head[i] = c.header
		}
		lines = append(lines, head)
	}
	err := eachRow(r, func(row json.RawMessage) error {
		var m map[string]json.RawMessage
		if err := json.Unmarshal(row, &m); err != nil {
			return hostabi.Errorf(hostabi.ReasonBadMessage, "row is not an object: %w", err)
		}
		line := make([]string, 0, len(cols))
		for _, c := range cols {
			if r.Single {
				lines = append(lines, []string{c.header, t.cellOf(c, m[c.key])})
				continue
			}
			line = append(line, t.cellOf(c, m[c.key]))
		}
		if !r.Single {
			lines = append(lines, line)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return t.align(w, lines)
}

func (t *Terminal) align(w io.Writer, lines [][]string) error {
	var widths []int
	for _, l := range lines {
		for i, cell := range l {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(t.line(l, widths))
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// line pads all cells but the last; on a terminal it is cut to the width.
func (t *Terminal) line(cells []string, widths []int) string {
	var b strings.Builder
	for i, cell := range cells {
		b.WriteString(cell)
		if i < len(cells)-1 {
			b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
	}
	line := strings.TrimRight(b.String(), " ")
	if t.facts.StdoutTTY && t.facts.Columns > 0 && utf8.RuneCountInString(line) > t.facts.Columns {
		return string([]rune(line)[:t.facts.Columns-1]) + "…"
	}
	return line
}

// cellOf is the text of a value in column c.
func (t *Terminal) cellOf(c column, raw json.RawMessage) string {
	if c.size {
		if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
			return hostabi.SizeText(n)
		}
	}
	return t.cell(raw)
}

// cell is one JSON value as table text; booleans are ✓ ✗ on a terminal, yes no elsewhere.
func (t *Terminal) cell(raw json.RawMessage) string {
	if len(raw) == 0 {
		return ""
	}
	var v any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if dec.Decode(&v) != nil {
		return ""
	}
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return Clean(v, 0)
	case bool:
		words := map[bool]string{true: "yes", false: "no"}
		if t.facts.StdoutTTY {
			words = map[bool]string{true: "✓", false: "✗"}
		}
		return words[v]
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			parts[i] = fmt.Sprint(e)
		}
		return Clean(strings.Join(parts, ","), 0)
	}
	return Clean(string(raw), 0)
}

// unescape makes \n and \t of a template what they mean, except in actions, whose strings do that themselves.
func unescape(text string) string {
	var b strings.Builder
	escapes := strings.NewReplacer(`\n`, "\n", `\t`, "\t")
	for text != "" {
		before, rest, _ := strings.Cut(text, "{{")
		b.WriteString(escapes.Replace(before))
		if len(before) == len(text) {
			break
		}
		action, after, closed := strings.Cut(rest, "}}")
		b.WriteString("{{" + action)
		if closed {
			b.WriteString("}}")
		}
		text = after
	}
	return b.String()
}
