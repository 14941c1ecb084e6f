package client

import (
	"io"
	"strings"
)

// help prints what the words before --help have named.
func (r *run) help(p *parser) error {
	var b strings.Builder
	summary, text, group := r.app.Summary, "", r.app.Commands
	if c := p.command; c != nil {
		summary, text, group = c.Summary, c.Help, c.Commands
	}
	if summary != "" {
		b.WriteString(summary + "\n\n")
	}
	if text != "" {
		b.WriteString(strings.TrimSpace(text) + "\n\n")
	}
	b.WriteString("Usage:\n  " + usage(p) + "\n")
	var rows [][2]string
	for i := range group {
		if c := &group[i]; !c.Hidden {
			rows = append(rows, [2]string{strings.Join(append([]string{c.Name}, c.Aliases...), ", "), c.Summary})
		}
	}
	table(&b, "Commands", rows)
	if c := p.command; c != nil {
		rows = nil
		for _, a := range c.Args {
			rows = append(rows, [2]string{strings.ToUpper(a.Name), a.Summary})
		}
		table(&b, "Arguments", rows)
		rows = nil
		for i := range c.Flags {
			rows = append(rows, c.Flags[i].help())
		}
		table(&b, "Flags", rows)
		if len(c.Examples) > 0 {
			b.WriteString("\nExamples:\n  " + strings.Join(c.Examples, "\n  ") + "\n")
		}
	}
	_, err := io.WriteString(r.std.Out, b.String())
	return err
}

func usage(p *parser) string {
	c := p.command
	if c == nil || c.Run == nil {
		return p.name() + " COMMAND"
	}
	words := []string{p.name()}
	if len(c.Flags) > 0 {
		words = append(words, "[flags]")
	}
	for _, a := range c.Args {
		w := strings.ToUpper(a.Name)
		if a.Repeat {
			w += "..."
		}
		if !a.Required {
			w = "[" + w + "]"
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

func (f *Flag) help() [2]string {
	left := "    --" + f.Name
	if f.Short != "" {
		left = "-" + f.Short + ", --" + f.Name
	}
	right := f.Summary
	switch f.Type {
	case "bool":
	case "enum":
		left += " " + strings.Join(f.Values, "|")
	case "":
		left += " string"
	default:
		left += " " + f.Type
	}
	if f.Default != "" {
		right = strings.TrimSpace(right + " (default " + f.Default + ")")
	}
	if f.Required {
		right = strings.TrimSpace(right + " (required)")
	}
	return [2]string{left, right}
}

func table(b *strings.Builder, head string, rows [][2]string) {
	if len(rows) == 0 {
		return
	}
	width := 0
	for _, r := range rows {
		width = max(width, len(r[0]))
	}
	b.WriteString("\n" + head + ":\n")
	for _, r := range rows {
		line := "  " + r[0] + strings.Repeat(" ", width-len(r[0])) + "  " + r[1]
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}
