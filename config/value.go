package config

import (
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// parse makes the typed value of a key from what a layer says: a Go value of a file or the text of a flag or
// variable. base is the directory that relative paths start from.
func (k *Key) parse(raw any, base, home string) (any, error) {
	switch k.Type {
	case TypeList:
		return parseList(raw)
	case TypeObjects:
		return k.parseObjects(raw)
	case TypeAny:
		return raw, nil
	case TypeBool:
		return parseBool(raw)
	case TypeInt:
		return k.bounded(parseInt(raw))
	case TypeSize:
		return parseSize(raw)
	case TypeFloat:
		f, err := parseFloat(raw)
		if err == nil && (f < float64(k.Min) || f > float64(k.Max)) {
			err = fmt.Errorf("is %v, want %d to %d", f, k.Min, k.Max)
		}
		return f, err
	case TypeDuration:
		return ParseDuration(raw)
	}
	s, err := text(raw)
	if err != nil {
		return nil, err
	}
	switch k.Type {
	case TypeEnum:
		if !k.accepts(s) {
			return nil, fmt.Errorf("is %q, want one of %s", s, strings.Join(k.Values, ", "))
		}
	case TypePath:
		return absolute(s, base, home, k.Plain), nil
	}
	return s, nil
}

// accepts reports whether an enum takes s; a value that ends in "=" takes text after it.
func (k *Key) accepts(s string) bool {
	return slices.ContainsFunc(k.Values, func(v string) bool {
		return v == s || strings.HasSuffix(v, "=") && strings.HasPrefix(s, v)
	})
}

func (k *Key) bounded(n int64, err error) (any, error) {
	if err == nil && k.Max > 0 && (n < k.Min || n > k.Max) {
		err = fmt.Errorf("is %d, want %d to %d", n, k.Min, k.Max)
	}
	return n, err
}

func (k *Key) parseObjects(raw any) (any, error) {
	if s, ok := raw.(string); ok {
		var list []any
		if err := json.Unmarshal([]byte(s), &list); err != nil {
			return nil, fmt.Errorf("is no JSON list of objects")
		}
		raw = list
	}
	list, ok := raw.([]any)
	if !ok {
		return nil, fmt.Errorf("is %s, want a list", describe(raw))
	}
	out := make([]map[string]any, 0, len(list))
	for i, item := range list {
		if s, ok := item.(string); ok && k.Short != "" { // plugins.sources: ["host/ns"]
			item = map[string]any{k.Short: s}
		}
		m, ok := item.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("has %s at %d, want a map", describe(item), i)
		}
		for field := range m {
			if !slices.Contains(k.Fields, field) {
				return nil, fmt.Errorf("has the unknown field %q at %d, want %s", field, i, strings.Join(k.Fields, ", "))
			}
		}
		out = append(out, m)
	}
	return out, nil
}

func parseList(raw any) ([]string, error) {
	switch v := raw.(type) {
	case []any:
		out := make([]string, len(v))
		for i, e := range v {
			s, err := text(e)
			if err != nil {
				return nil, fmt.Errorf("has %s at %d, want a string", describe(e), i)
			}
			out[i] = s
		}
		return out, nil
	case string:
		if strings.HasPrefix(v, "[") {
			var list []string
			if err := json.Unmarshal([]byte(v), &list); err != nil {
				return nil, fmt.Errorf("starts like a JSON list of strings but is none")
			}
			return list, nil
		}
		out := []string{}
		for s := range strings.SplitSeq(v, ",") {
			if s = strings.TrimSpace(s); s != "" {
				out = append(out, s)
			}
		}
		return out, nil
	}
	return nil, fmt.Errorf("is %s, want a list", describe(raw))
}

func parseBool(raw any) (bool, error) {
	switch v := raw.(type) {
	case bool:
		return v, nil
	case string:
		switch v {
		case "true", "1":
			return true, nil
		case "false", "0":
			return false, nil
		}
	}
	return false, fmt.Errorf("is %s, want true or false", describe(raw))
}

func parseInt(raw any) (int64, error) {
	switch v := raw.(type) {
	case int64:
		return v, nil
	case string:
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("is %s, want an integer", describe(raw))
}

func parseFloat(raw any) (float64, error) {
	switch v := raw.(type) {
	case float64:
		return v, nil
	case int64:
		return float64(v), nil
	case string:
		if f, err := strconv.ParseFloat(v, 64); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
			return f, nil
		}
	}
	return 0, fmt.Errorf("is %s, want a number", describe(raw))
}

var sizeUnits = []struct {
	suffix string
	factor int64
}{
	{"kib", 1 << 10},
	{"mib", 1 << 20},
	{"gib", 1 << 30},
	{"tib", 1 << 40},
	{"kb", 1e3},
	{"mb", 1e6},
	{"gb", 1e9},
	{"tb", 1e12},
	{"b", 1},
	{"", 1},
}

// parseSize reads bytes: an integer with an optional B, KB … TB (10^3) or KiB … TiB (2^10), case ignored.
func parseSize(raw any) (int64, error) {
	s, err := text(raw)
	if err != nil {
		return 0, err
	}
	low := strings.ToLower(strings.TrimSpace(s))
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(low, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.factor {
			break
		}
		return n * u.factor, nil
	}
	return 0, fmt.Errorf("is %q, want a size like 512MiB or 10GB", s)
}

// ParseDuration reads Go's syntax plus d (24h) and w (7d), as in 1d12h; a bare number must be 0.
func ParseDuration(raw any) (time.Duration, error) {
	s, err := text(raw)
	if err != nil {
		return 0, err
	}
	d, err := hostabi.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("is %q, want a duration like 90s, 12h or 7d", s)
	}
	return d, nil
}

// text is a scalar as a string.
func text(raw any) (string, error) {
	switch v := raw.(type) {
	case string:
		return v, nil
	case bool, int64, uint64, float64:
		return fmt.Sprint(v), nil
	}
	return "", fmt.Errorf("is %s, want a string", describe(raw))
}

func describe(raw any) string {
	switch v := raw.(type) {
	case nil:
		return "null"
	case string:
		if len(v) > 40 {
			v = v[:40] + "…"
		}
		return strconv.Quote(v)
	case []any:
		return "a list"
	case map[string]any:
		return "a map"
	}
	return fmt.Sprint(raw)
}

// absolute expands ~/ and joins base; plain words (stderr, an oci-layout reference) and "" stay as they are.
func absolute(s, base, home string, plain []string) string {
	if s == "" || slices.Contains(plain, s) {
		return s
	}
	if rest, ok := strings.CutPrefix(s, "~/"); ok {
		return filepath.Join(home, rest)
	}
	if filepath.IsAbs(s) {
		return filepath.Clean(s)
	}
	return filepath.Join(base, s)
}
