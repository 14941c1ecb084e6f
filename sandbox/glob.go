package sandbox

import "strings"

// seg is one element of a pattern: a literal, a glob with * inside, or the whole-element wildcards.
type seg struct {
	kind segKind
	text string // of literal and glob
}

type segKind uint8

const (
	literal segKind = iota
	glob            // text holds at least one *, each any run of characters
	one             // * as a whole element
	deep            // **
)

func parseSegs(parts []string) []seg {
	out := make([]seg, len(parts))
	for i, p := range parts {
		out[i] = parseSeg(p)
	}
	return out
}

func parseSeg(p string) seg {
	switch {
	case p == "**":
		return seg{kind: deep}
	case p == "*":
		return seg{kind: one}
	case strings.Contains(p, "*"):
		return seg{glob, p}
	}
	return seg{literal, p}
}

func literalSegs(parts []string) []seg {
	out := make([]seg, len(parts))
	for i, p := range parts {
		out[i] = seg{literal, p}
	}
	return out
}

// coversOne reports whether each element that b can be is one that a can be. It may say no when unsure.
func (a seg) coversOne(b seg, fold bool) bool {
	switch {
	case a.kind == one:
		return b.kind != deep
	case a.kind == deep || b.kind == deep || b.kind == one:
		return a.kind == deep
	case a.kind == literal:
		return b.kind == literal && equal(a.text, b.text, fold)
	}
	return starMatch(a.text, b.text, b.kind == glob, fold)
}

// starMatch reports whether s matches pattern, in which each * is any run. With star, each * of s stands for
// any run too and only a * of pattern takes it in. Time is the product of both lengths.
func starMatch(pattern, s string, star, fold bool) bool {
	if fold {
		pattern, s = strings.ToLower(pattern), strings.ToLower(s)
	}
	p, back, from := 0, -1, 0
	for i := 0; i < len(s); {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			back, from = p, i
			p++
		case p < len(pattern) && pattern[p] == s[i] && (!star || s[i] != '*'):
			p++
			i++
		case back >= 0:
			from++
			p, i = back+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// coversPath reports whether a covers b where ** is zero or more whole elements (slashed names). A literal b
// makes it a match.
func coversPath(a, b []seg, fold bool) bool { return coverSegs(a, b, 0, fold) }

// coversDots is coversPath where ** is one or more elements (dotted names).
func coversDots(a, b []seg) bool { return coverSegs(a, b, 1, false) }

// coverSegs walks all ways to lay a over b at once: row[i] says that a[:i] covers b up to here. A ** of b can
// only be taken in by a ** of a.
func coverSegs(a, b []seg, least int, fold bool) bool {
	row := make([]bool, len(a)+1)
	row[0] = true
	skip(row, a, least)
	for _, e := range b {
		next := make([]bool, len(a)+1)
		for i, p := range a {
			switch {
			case p.kind != deep:
				next[i+1] = next[i+1] || row[i] && p.coversOne(e, fold)
			default:
				next[i+1] = next[i+1] || row[i] || row[i+1] // ** begins here or goes on
			}
		}
		skip(next, a, least)
		row = next
	}
	return row[len(a)]
}

// skip lets each ** that may stand for nothing be nothing.
func skip(row []bool, a []seg, least int) {
	if least > 0 {
		return
	}
	for i, p := range a {
		if p.kind == deep && row[i] {
			row[i+1] = true
		}
	}
}

func equal(a, b string, fold bool) bool { return a == b || fold && strings.EqualFold(a, b) }
