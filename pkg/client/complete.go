package client

import (
	"context"
	"fmt"
	"strings"
)

// Directives of cobra's completion protocol, which shells' scripts understand.
const (
	completeFiles   = 0 // the shell completes file names if there are no candidates
	completeError   = 1
	completeNoFiles = 4
)

// complete answers __complete WORD… TOCOMPLETE: candidates, one a line, then the directive.
func (r *run) complete(ctx context.Context, words []string) error {
	last := ""
	if n := len(words); n > 0 {
		words, last = words[:n-1], words[n-1]
	}
	candidates, directive := r.candidates(ctx, words, last)
	for _, c := range candidates {
		if strings.HasPrefix(c, last) {
			if _, err := fmt.Fprintln(r.std.Out, strings.ReplaceAll(c, "\n", " ")); err != nil {
				return err
			}
		}
	}
	_, err := fmt.Fprintf(r.std.Out, ":%d\n", directive)
	return err
}

func (r *run) candidates(ctx context.Context, words []string, last string) ([]string, int) {
	p := parser{app: r.app, lenient: true}
	open, words := openFlag(r.app, words)
	if p.parse(words) != nil {
		return nil, completeError
	}
	if name, value, ok := strings.Cut(last, "="); ok && strings.HasPrefix(name, "--") {
		if f := p.flag(func(f *Flag) bool { return f.Name == name[2:] }); f != nil {
			out, directive := r.values(ctx, &p, f.Type, f.Values, value)
			for i := range out {
				out[i] = name + "=" + out[i]
			}
			return out, directive
		}
	}
	switch {
	case open != nil:
		return r.values(ctx, &p, open.Type, open.Values, last)
	case strings.HasPrefix(last, "-"):
		return p.flagNames(), completeNoFiles
	}
	if out := p.commandNames(); len(out) > 0 && len(p.args) == 0 {
		return out, completeNoFiles
	}
	if p.command == nil {
		return nil, completeNoFiles
	}
	if a := p.command.arg(len(p.args)); a != nil {
		return r.values(ctx, &p, a.Type, nil, last)
	}
	return nil, completeNoFiles
}

// openFlag finds a flag at the end of words whose value is being typed, and the words before it.
func openFlag(app *App, words []string) (*Flag, []string) {
	if len(words) == 0 {
		return nil, words
	}
	last, before := words[len(words)-1], words[:len(words)-1]
	if len(last) < 2 || last[0] != '-' || strings.Contains(last, "=") {
		return nil, words
	}
	p := parser{app: app, lenient: true}
	if p.parse(before) != nil {
		return nil, words
	}
	f := p.flag(func(f *Flag) bool { return last == "--"+f.Name || f.Short != "" && last == "-"+f.Short })
	if f == nil || f.Type == "bool" {
		return nil, words
	}
	return f, before
}

// values proposes values of a type.
func (r *run) values(ctx context.Context, p *parser, typ string, values []string, word string) ([]string, int) {
	switch typ {
	case "enum":
		return append([]string(nil), values...), completeNoFiles
	case "path":
		if p.command.Complete == nil {
			return nil, completeFiles
		}
	case "bool":
		return []string{"true", "false"}, completeNoFiles
	}
	if p.command.Complete == nil {
		return nil, completeNoFiles
	}
	out, err := p.command.Complete(ctx, r.invocation(p), word)
	if err != nil {
		return nil, completeError
	}
	return out, completeNoFiles
}

func (p *parser) commandNames() []string {
	var out []string
	for i := range p.group {
		if c := &p.group[i]; !c.Hidden {
			out = append(out, described(c.Name, c.Summary))
		}
	}
	return out
}

func (p *parser) flagNames() []string {
	if p.command == nil {
		return nil
	}
	var out []string
	for i := range p.command.Flags {
		f := &p.command.Flags[i]
		out = append(out, described("--"+f.Name, f.Summary))
	}
	return out
}

func described(value, text string) string {
	if text == "" {
		return value
	}
	return value + "\t" + text
}
