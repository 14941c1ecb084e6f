package config

import (
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
)

// Secret is a value that prints as ***; it leaves by Reveal only.
type Secret string

const redacted = "***"

// Reveal is the value itself.
func (s Secret) Reveal() string { return string(s) }

// String is "***", or "" when there is no secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString is String.
func (s Secret) GoString() string { return s.String() }

// Format writes String whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) } // as fmt does

// LogValue is String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is String.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON is String.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + s.String() + `"`), nil }

// holdsSecret reports whether a value has a key somewhere inside that names a secret, as in a list of servers
// with a password each. Such a value is a secret as a whole.
func holdsSecret(v any) bool {
	switch v := v.(type) {
	case []any:
		return slices.ContainsFunc(v, holdsSecret)
	case map[string]any:
		for name, inner := range v {
			if secretName(name) || holdsSecret(inner) {
				return true
			}
		}
	}
	return false
}

// Secrets lists the text of every secret of every layer, also those in the address of a proxy, for whoever
// keeps them out of logs.
func (c *Config) Secrets() (out []string) {
	for key, layers := range c.layers {
		for _, v := range layers {
			for _, x := range []any{v.Effective, v.Raw} {
				out = appendSecrets(out, x, secretName(key))
			}
		}
	}
	return out
}

// Texts lists the strings in a value of a secret.
func Texts(v any) []string { return appendSecrets(nil, v, true) }

// appendSecrets adds the strings of v that are secrets: all of them if v is one.
func appendSecrets(out []string, v any, secret bool) []string {
	switch v := v.(type) {
	case string:
		if secret && v != "" {
			return append(out, v)
		}
		return append(out, URLPasswords(v)...)
	case []any:
		for _, x := range v {
			out = appendSecrets(out, x, secret)
		}
	case []map[string]any:
		for _, x := range v {
			out = appendSecrets(out, x, secret)
		}
	case map[string]any:
		for name, x := range v {
			out = appendSecrets(out, x, secret || secretName(name))
		}
	}
	return out
}

// URLPasswords is the password in a URL, as it is written and decoded; none if there is no user in it.
func URLPasswords(s string) []string {
	user, _, ok := cutUser(s)
	if !ok {
		return nil
	}
	_, password, _ := strings.Cut(user, ":")
	if plain, err := url.PathUnescape(password); err == nil && plain != password {
		return []string{password, plain}
	}
	return []string{password}
}

// WithoutUser is s with *** for the user and password of a URL.
func WithoutUser(s string) string {
	user, at, ok := cutUser(s)
	if !ok {
		return s
	}
	return s[:at] + redacted + s[at+len(user):]
}

// cutUser finds what stands between the scheme of a URL and the last @ of its authority; a password may hold
// any character.
func cutUser(s string) (user string, at int, ok bool) {
	at = strings.Index(s, "://")
	if at < 0 {
		return "", 0, false
	}
	at += len("://")
	i := strings.LastIndexByte(s[at:], '@')
	if i < 0 {
		return "", 0, false
	}
	return s[at : at+i], at, true
}

// telling are words in a line of a configuration file whose value is not shown in an excerpt. They are more
// than the names of secrets: the line is one that ds did not understand.
var telling = []string{"auth", "credential", "passw", "token", "secret", "key", "prox"}

// masked is a line of a file, without its value if the line or one that it belongs to may be about a secret.
func masked(lines []string, i int) string {
	if !tells(lines, i) {
		return lines[i]
	}
	trimmed := strings.TrimLeft(lines[i], " \t-")
	if end := strings.IndexAny(trimmed, ":="); end >= 0 && !strings.ContainsAny(trimmed[:end], `"'{[`) {
		if strings.TrimSpace(trimmed[end+1:]) == "" {
			return lines[i]
		}
		return lines[i][:len(lines[i])-len(trimmed)+end+1] + " " + redacted
	}
	if trimmed == "" || strings.HasPrefix(trimmed, "[") && strings.HasSuffix(strings.TrimSpace(trimmed), "]") && !strings.ContainsAny(trimmed, `"':, `) {
		return lines[i] // a table of TOML
	}
	return lines[i][:len(lines[i])-len(trimmed)] + redacted
}

// tells looks at line i, at the lines that it belongs to by its indentation, and, if it has no key of its own,
// at those above it up to the next key: it may go on with a text that began there.
func tells(lines []string, i int) bool {
	in, loose := indent(lines[i]), !strings.ContainsAny(lines[i], ":=")
	for j := i; j >= 0; j-- {
		table := strings.HasPrefix(lines[j], "[")
		if j < i && !table && !loose && (strings.TrimSpace(lines[j]) == "" || indent(lines[j]) >= in) {
			continue
		}
		low := strings.ToLower(lines[j])
		if _, _, user := cutUser(low); user || slices.ContainsFunc(telling, func(w string) bool { return strings.Contains(low, w) }) {
			return true
		}
		if j < i && table {
			return false
		}
		if strings.ContainsAny(lines[j], ":=") {
			loose = false
		}
		in = min(in, indent(lines[j]))
	}
	return false
}

// indent is where the text of a line begins; an item of a list is deeper than a key at its place.
func indent(s string) int {
	text := strings.TrimLeft(s, " \t")
	n := 2 * (len(s) - len(text))
	if strings.HasPrefix(text, "-") {
		n++
	}
	return n
}
