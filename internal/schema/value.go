package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

var typeNames = []string{"null", "boolean", "integer", "number", "string", "array", "object"}

// kind says what a value is for JSON Schema.
type kind struct {
	name   string   // one of typeNames, or what the value is instead
	number *big.Rat // nil = not a number
}

// is reports whether k is of the type named: integers are numbers, and 1.0 is an integer.
func (k kind) is(typ string) bool { return k.name == typ || typ == "number" && k.number != nil }

func kindOf(v any) kind {
	switch v := v.(type) {
	case nil:
		return kind{name: "null"}
	case bool:
		return kind{name: "boolean"}
	case string:
		return kind{name: "string"}
	case []any, []string:
		return kind{name: "array"}
	case map[string]any:
		return kind{name: "object"}
	case int:
		return kind{"integer", new(big.Rat).SetInt64(int64(v))}
	case int64:
		return kind{"integer", new(big.Rat).SetInt64(v)}
	case uint64:
		return kind{"integer", new(big.Rat).SetUint64(v)}
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return kind{name: "a number that JSON does not have"}
		}
		return numberKind(strconv.FormatFloat(v, 'g', -1, 64)) // 0.1 means one tenth
	case json.Number:
		if _, bad := hugeNumber(v); bad {
			return kind{name: "a number that is too large"}
		}
		return numberKind(string(v))
	}
	return kind{name: fmt.Sprintf("a %T", v)}
}

func numberKind(text string) kind {
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return kind{name: "a number that JSON does not have"}
	}
	if r.IsInt() {
		return kind{"integer", r}
	}
	return kind{"number", r}
}

// hugeNumber finds a number that exact arithmetic could not hold in memory.
func hugeNumber(v any) (json.Number, bool) {
	switch v := v.(type) {
	case json.Number:
		f, err := v.Float64()
		return v, err != nil || len(v) > 400 || f == 0 && strings.ContainsAny(string(v), "eE")
	case []any:
		for _, e := range v {
			if n, bad := hugeNumber(e); bad {
				return n, true
			}
		}
	case map[string]any:
		for _, e := range v {
			if n, bad := hugeNumber(e); bad {
				return n, true
			}
		}
	}
	return "", false
}

// canonical writes v so that equal values, and only those, have equal texts.
func canonical(b *strings.Builder, v any) {
	switch v := v.(type) {
	case string:
		b.WriteString(strconv.Quote(v))
	case []string:
		canonical(b, elements(v))
	case []any:
		b.WriteByte('[')
		for _, e := range v {
			canonical(b, e)
			b.WriteByte(',')
		}
		b.WriteByte(']')
	case map[string]any:
		b.WriteByte('{')
		for _, key := range slices.Sorted(maps.Keys(v)) {
			b.WriteString(strconv.Quote(key))
			b.WriteByte(':')
			canonical(b, v[key])
			b.WriteByte(',')
		}
		b.WriteByte('}')
	default:
		k := kindOf(v)
		if k.number != nil {
			b.WriteString(k.number.RatString())
			return
		}
		fmt.Fprint(b, v)
	}
}

func elements(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}

// allowed is a set of constants.
type allowed struct {
	set  map[string]bool // canonical texts
	text string          // for messages
}

func newAllowed(values []any) *allowed {
	a := &allowed{set: make(map[string]bool, len(values))}
	var shown []string
	for _, v := range values {
		var b strings.Builder
		canonical(&b, v)
		if a.set[b.String()] {
			continue
		}
		a.set[b.String()] = true
		shown = append(shown, show(v))
	}
	a.text = clip(strings.Join(shown, ", "), 300)
	if len(shown) > 1 {
		a.text = "one of " + a.text
	}
	return a
}

// show is v as JSON; control characters are escaped there.
func show(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "?"
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + " …"
}

// escape writes one part of a JSON pointer.
func escape(part string) string {
	return strings.ReplaceAll(strings.ReplaceAll(part, "~", "~0"), "/", "~1")
}
