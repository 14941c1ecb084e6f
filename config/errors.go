package config

import (
	"fmt"
	"strings"

	"github.com/delivery-station/ds/hostabi"
)

// maxProblems is how many problems one error prints; the rest is counted.
const maxProblems = 20

// Problem is one thing wrong at one place.
type Problem struct {
	Reason    hostabi.Reason
	File      string // as shown; empty for flags and variables
	Line, Col int
	Msg, Hint string
	Excerpt   []string // the lines around the place, the marked one and the caret
}

// Error is the problem in one line.
func (p Problem) Error() string {
	switch {
	case p.File == "":
		return p.Msg
	case p.Line == 0:
		return p.File + ": " + p.Msg
	}
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Col, p.Msg)
}

// Errors is every problem that Load found, sorted by file and position.
type Errors []Problem

func (e Errors) Error() string {
	if len(e) == 1 {
		return e[0].Error()
	}
	return fmt.Sprintf("%s (and %d more)", e[0].Error(), len(e)-1)
}

// Unwrap gives the problems as *hostabi.Error.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, p := range e {
		err := hostabi.Errorf(p.Reason, "%s", p.Error())
		err.Fix = p.Hint
		out[i] = err
	}
	return out
}

// Shown is what is printed: at most maxProblems problems and how many were left out.
func (e Errors) Shown() (shown []Problem, more int) {
	if len(e) > maxProblems {
		return e[:maxProblems], len(e) - maxProblems
	}
	return e, 0
}

// excerpt is the line before, the line itself with a mark and a caret below width characters at col. Values of
// lines that may be about a secret are not shown.
func excerpt(data []byte, line, col, width int) (out []string) {
	lines := strings.Split(string(data), "\n")
	if line < 1 || line > len(lines) {
		return nil
	}
	if line > 1 {
		out = append(out, fmt.Sprintf("%5d | %s", line-1, show(masked(lines, line-2))))
	}
	text := show(masked(lines, line-1))
	out = append(out, fmt.Sprintf(">%4d | %s", line, text))
	var pad strings.Builder
	length := 0
	for i, r := range []rune(text) {
		length++
		if i >= col-1 {
			continue
		}
		if r != '\t' {
			r = ' '
		}
		pad.WriteRune(r)
	}
	return append(out, "      | "+pad.String()+strings.Repeat("^", max(min(width, length-col+1), 1)))
}

// show makes a line of a file safe for a terminal and not too long.
func show(s string) string {
	s = strings.Map(func(r rune) rune {
		if r != '\t' && (r < 0x20 || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069) {
			return '\uFFFD'
		}
		return r
	}, strings.TrimRight(s, "\r"))
	if r := []rune(s); len(r) > 120 {
		return string(r[:119]) + "…"
	}
	return s
}
