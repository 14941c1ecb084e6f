// Package term is everything between ds and the person at the terminal: facts about the streams, colour,
// progress, prompts, cleaning of strangers' text, and the rendering of structured output. It decides no
// policy and never writes to a stream that a plugin inherited. Start with New.
package term

import (
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"

	"github.com/delivery-station/ds/hostabi"
)

// Options configure a Terminal. Streams are the process's own; Env looks a variable up.
type Options struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Env            func(string) string

	Color    string // auto, always, never; empty = auto
	Format   string // --format, empty = table
	JQ       string // --jq; implies json
	Progress string // auto, plain, json, none; empty = auto
	NoInput  bool   // never prompt
	Yes      bool   // confirm prompts answer yes
	Quiet    bool   // no bars
}

// Terminal is safe for concurrent use; writes to stderr through it never tear the progress display.
type Terminal struct {
	o      Options
	facts  hostabi.Terminal
	colour struct{ out, err bool }
	prompt sync.Mutex // one question at a time
	bars   *bars
}

// New looks at the streams once. It starts nothing; bars appear with the first report.
func New(o Options) *Terminal {
	if o.Env == nil {
		o.Env = func(string) string { return "" }
	}
	t := &Terminal{o: o}
	f := &t.facts
	f.StdinTTY, f.StdoutTTY, f.StderrTTY = isTTY(o.Stdin), isTTY(o.Stdout), isTTY(o.Stderr)
	f.Columns, f.Rows = size(o.Stdout, o.Stderr)
	t.colour.out, t.colour.err = t.colours(f.StdoutTTY), t.colours(f.StderrTTY)
	f.Color = t.colour.out
	f.Prompts = f.StdinTTY && f.StderrTTY && !o.NoInput && o.Env("CI") == "" && o.Env("DS_NO_INPUT") == ""
	f.Format, f.Progress = o.Format, t.progressMode()
	t.bars = newBars(t)
	return t
}

// Facts is what plugins are told (Describe.terminal).
func (t *Terminal) Facts() hostabi.Terminal { return t.facts }

// ColorErr reports whether stderr takes colour.
func (t *Terminal) ColorErr() bool { return t.colour.err }

// Stderr writes lines above the progress display.
func (t *Terminal) Stderr() io.Writer { return t.bars }

// Close ends the progress display.
func (t *Terminal) Close() { t.bars.close() }

// colours is the decision for one stream, highest first: --color, NO_COLOR, CLICOLOR_FORCE, CLICOLOR, a
// terminal that is not dumb (cli.md section 4; no-color.org, bixense.com/clicolors).
func (t *Terminal) colours(tty bool) bool {
	switch {
	case t.o.Color == "always":
		return true
	case t.o.Color == "never", t.o.Env("NO_COLOR") != "":
		return false
	case t.o.Env("CLICOLOR_FORCE") != "" && t.o.Env("CLICOLOR_FORCE") != "0":
		return true
	case t.o.Env("CLICOLOR") == "0":
		return false
	}
	return tty && t.o.Env("TERM") != "dumb"
}

func (t *Terminal) progressMode() string {
	switch t.o.Progress {
	case "plain", "json", "none":
		return t.o.Progress
	}
	if t.facts.StderrTTY && !t.o.Quiet {
		return "bars"
	}
	return "none"
}

func isTTY(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && f != nil && term.IsTerminal(int(f.Fd()))
}

func size(streams ...io.Writer) (columns, rows int) {
	for _, s := range streams {
		if f, ok := s.(*os.File); ok && f != nil {
			if c, r, err := term.GetSize(int(f.Fd())); err == nil {
				return c, r
			}
		}
	}
	return 0, 0
}

// Clean makes a stranger's text safe to show: invalid UTF-8, control characters, escape, bidirectional
// controls, zero-width and tag characters become U+FFFD, newlines and tabs become spaces, and what is longer
// than limit runes is cut with "…" (limit 0 = no cut). capabilities.md section 10.
func Clean(s string, limit int) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if limit > 0 && n == limit {
			b.WriteRune('…')
			break
		}
		n++
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			r = ' '
		case unsafe(r):
			r = '\uFFFD'
		}
		b.WriteRune(r)
	}
	return b.String()
}

func unsafe(r rune) bool {
	return r < 0x20 || r >= 0x7f && r < 0xa0 || // C0, DEL, C1
		r == 0x061c || r >= 0x200b && r <= 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x2060 && r <= 0x2069 ||
		r == 0x2028 || r == 0x2029 || r == 0xfeff || r >= 0xfff9 && r <= 0xfffb || r >= 0xe0000 && r <= 0xe007f
}
