package trust

import (
	"errors"
	"regexp"
	"strings"
)

// pattern is a repository name with wildcards: * inside an element, ** across elements.
type pattern struct {
	re   *regexp.Regexp
	wild []string // the wildcards in order
}

func parsePattern(s string) (pattern, error) {
	if len(s) > 512 {
		return pattern{}, errors.New("longer than 512 bytes")
	}
	if strings.ContainsAny(s, " \t\r\n\\?[]") {
		return pattern{}, errors.New("want a repository with * or **, such as ghcr.io/acme/**")
	}
	lits, wild := split(s)
	var expr strings.Builder
	expr.WriteString("^" + regexp.QuoteMeta(lits[0]))
	for i, w := range wild {
		switch w {
		case "*":
			expr.WriteString("([^/]*)")
		case "**":
			expr.WriteString("(.+)")
		default:
			return pattern{}, errors.New("more than two stars in a row")
		}
		expr.WriteString(regexp.QuoteMeta(lits[i+1]))
	}
	re, err := regexp.Compile(expr.String() + "$")
	return pattern{re, wild}, err
}

// split cuts s at its runs of stars: lits[0] wild[0] lits[1] … wild[n-1] lits[n].
func split(s string) (lits, wild []string) {
	for {
		i := strings.IndexByte(s, '*')
		if i < 0 {
			return append(lits, s), wild
		}
		rest := strings.TrimLeft(s[i:], "*")
		lits, wild = append(lits, s[:i]), append(wild, s[i:len(s)-len(rest)])
		s = rest
	}
}

// parts is what the wildcards stand for in name, nil if p does not match it. Without wildcards it is empty.
func (p pattern) parts(name string) []string {
	m := p.re.FindStringSubmatch(name)
	if m == nil {
		return nil
	}
	return m[1:]
}

// fill puts parts in the place of the wildcards of a pattern that has as many.
func fill(s string, parts []string) string {
	lits, wild := split(s)
	var b strings.Builder
	for i := range wild {
		b.WriteString(lits[i] + parts[i])
	}
	return b.String() + lits[len(wild)]
}
