package yamlfile

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode"
)

// Ordered is a map for Marshal whose entries keep their order.
type Ordered []Entry

// Entry is one entry of Ordered.
type Entry struct {
	Key   string
	Value any
}

// Marshal writes v in block style with two spaces and LF: the same value always gives the same bytes, and
// Parse gives the value back. v is made of nil, bool, integers, floats, strings, json.Number, slices, maps
// with string keys (written sorted), Ordered and *Node.
func Marshal(v any) ([]byte, error) {
	var w writer
	if err := w.value(v, 0, false); err != nil {
		return nil, err
	}
	if w.b.Len() == 0 || w.b.String()[w.b.Len()-1] != '\n' {
		w.b.WriteByte('\n')
	}
	return []byte(strings.TrimPrefix(w.b.String(), " ")), nil
}

type writer struct{ b strings.Builder }

// value writes v after a "key:" or "-" when in a collection; inList says that the first entry of a map may
// follow the dash.
func (w *writer) value(v any, indent int, inList bool) error {
	if entries, ok := entriesOf(v); ok {
		return w.mapping(entries, indent, inList)
	}
	if items, ok := itemsOf(v); ok {
		return w.list(items, indent, inList)
	}
	s, err := scalar(v)
	if err != nil {
		return err
	}
	w.b.WriteString(" " + s + "\n")
	return nil
}

func (w *writer) mapping(entries Ordered, indent int, inList bool) error {
	if len(entries) == 0 {
		w.b.WriteString(" {}\n")
		return nil
	}
	pad := strings.Repeat(" ", indent)
	switch {
	case inList:
		w.b.WriteByte(' ')
	case indent > 0:
		w.b.WriteByte('\n')
	}
	for i, e := range entries {
		if i > 0 || !inList {
			w.b.WriteString(pad)
		}
		w.b.WriteString(quote(e.Key) + ":")
		if err := w.value(e.Value, indent+2, false); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) list(items []any, indent int, inList bool) error {
	if len(items) == 0 {
		w.b.WriteString(" []\n")
		return nil
	}
	pad := strings.Repeat(" ", indent)
	switch {
	case inList:
		w.b.WriteByte(' ')
	case indent > 0:
		w.b.WriteByte('\n')
	}
	for i, item := range items {
		if i > 0 || !inList {
			w.b.WriteString(pad)
		}
		w.b.WriteByte('-')
		if err := w.value(item, indent+2, true); err != nil {
			return err
		}
	}
	return nil
}

func entriesOf(v any) (Ordered, bool) {
	switch m := v.(type) {
	case Ordered:
		return m, true
	case *Node:
		if m == nil || m.Kind != Map {
			return nil, false
		}
		out := make(Ordered, len(m.Pairs))
		for i, p := range m.Pairs {
			out[i] = Entry{p.Key.Text, p.Value}
		}
		return out, true
	}
	r := reflect.ValueOf(v)
	if r.Kind() != reflect.Map || r.Type().Key().Kind() != reflect.String {
		return nil, false
	}
	out := make(Ordered, 0, r.Len())
	for it := r.MapRange(); it.Next(); {
		out = append(out, Entry{it.Key().String(), it.Value().Interface()})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Key < out[j].Key })
	return out, true
}

func itemsOf(v any) ([]any, bool) {
	if n, ok := v.(*Node); ok {
		if n == nil || n.Kind != List {
			return nil, false
		}
		out := make([]any, len(n.Items))
		for i, item := range n.Items {
			out[i] = item
		}
		return out, true
	}
	r := reflect.ValueOf(v)
	if r.Kind() != reflect.Slice && r.Kind() != reflect.Array {
		return nil, false
	}
	out := make([]any, r.Len())
	for i := range out {
		out[i] = r.Index(i).Interface()
	}
	return out, true
}

func scalar(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "null", nil
	case *Node:
		if v == nil || v.Kind == Null {
			return "null", nil
		}
		if v.Kind == String {
			return quote(v.Text), nil
		}
		return v.Text, nil
	case json.Number:
		return v.String(), nil
	}
	r := reflect.ValueOf(v)
	switch r.Kind() {
	case reflect.Bool:
		return strconv.FormatBool(r.Bool()), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.FormatInt(r.Int(), 10), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return strconv.FormatUint(r.Uint(), 10), nil
	case reflect.Float32, reflect.Float64:
		return float(r.Float()), nil
	case reflect.String:
		return quote(r.String()), nil
	}
	return "", fmt.Errorf("yaml: cannot write a %T", v)
}

func float(f float64) string {
	switch {
	case math.IsNaN(f):
		return ".nan"
	case math.IsInf(f, 1):
		return ".inf"
	case math.IsInf(f, -1):
		return "-.inf"
	}
	s := strconv.FormatFloat(f, 'g', -1, 64)
	if all(strings.TrimPrefix(s, "-"), digits) {
		s += ".0" // stays a float when read back
	}
	return s
}

// yaml11 are words that older readers take for something else; they are quoted for their sake.
var yaml11 = []string{"yes", "no", "on", "off"}

// quote writes s plain where every YAML reader sees the same string, else in double quotes.
func quote(s string) string {
	if !plainSafe(s) {
		return doubleQuote(s)
	}
	return s
}

func plainSafe(s string) bool {
	if s == "" || len(s) > 1024 || plainKind(s) != String || slices.Contains(yaml11, strings.ToLower(s)) {
		return false
	}
	if strings.ContainsAny(s[:1], "-?:,[]{}#&*!|>'\"%@`=<. \t") || s[len(s)-1] == ' ' || s[len(s)-1] == ':' {
		return false
	}
	if all(s, digits+"-+:_. TZtz") {
		return false // dates, times and other numbers of older readers
	}
	for i, c := range s {
		switch {
		case c < 0x20 || c == 0x7f || c > 0x7e && !unicode.IsPrint(c) || c == 0xFEFF:
			return false
		case strings.ContainsRune(",[]{}", c): // would end a plain scalar in flow style
			return false
		case c == '#' && s[i-1] == ' ', c == ':' && s[i+1] == ' ':
			return false
		}
	}
	return true
}

func doubleQuote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\t':
			b.WriteString(`\t`)
		case c == '\r':
			b.WriteString(`\r`)
		case c < 0x20 || c == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, c)
		case c > 0x7e && !unicode.IsPrint(c) && c <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, c)
		case c > 0xffff && !unicode.IsPrint(c):
			fmt.Fprintf(&b, `\U%08x`, c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
