package plugin

import (
	"slices"
	"strings"

	"github.com/delivery-station/ds/internal/yamlfile"
)

const (
	maxCommands     = 256 // of one level
	maxCommandDepth = 8
	maxHelp         = 16 << 10
)

var argTypes = []string{"string", "bool", "int", "float", "duration", "size", "enum", "path", "ref", "url", "digest"}

func (d *decoder) commandsOrGenerated(n *yamlfile.Node, m *Manifest) {
	if n.Kind == yamlfile.String && n.Text == "generated" {
		m.Generated = true
		return
	}
	m.Commands = d.commands(n, 1)
}

func (d *decoder) commands(n *yamlfile.Node, level int) []Command {
	if level > maxCommandDepth {
		d.errorf(n, "commands are nested deeper than %d levels", maxCommandDepth)
		return nil
	}
	var out []Command
	seen := make(map[string]bool)
	d.list(n, "commands", maxCommands, func(n *yamlfile.Node) {
		if c, ok := d.command(n, level); ok {
			for _, name := range append([]string{c.Name}, c.Aliases...) {
				if seen[name] {
					d.errorf(n, "command or alias %q is declared twice", name)
				}
				seen[name] = true
			}
			out = append(out, c)
		}
	})
	return out
}

func (d *decoder) command(n *yamlfile.Node, level int) (Command, bool) {
	var c Command
	ok := d.object(n, "a command", false,
		d.text("name", 64, &c.Name),
		d.words("aliases", 16, &c.Aliases),
		d.text("summary", 120, &c.Summary),
		d.longText("help", maxHelp, &c.Help),
		d.words("examples", 32, &c.Examples),
		d.boolean("hidden", &c.Hidden),
		word(d, "output", &c.Output, "raw", "rows"),
		field{"args", func(n *yamlfile.Node) { c.Args = d.args(n) }},
		field{"flags", func(n *yamlfile.Node) { c.Flags = d.flags(n) }},
		field{"commands", func(n *yamlfile.Node) { c.Commands = d.commands(n, level+1) }},
	)
	if !ok || !d.required(n, "name") {
		return c, false
	}
	for _, name := range append([]string{c.Name}, c.Aliases...) {
		if !commandName(name) {
			d.errorf(n, "command name %q is not [A-Za-z0-9][A-Za-z0-9._:-]{0,63}", clip(name, 40))
		}
	}
	return c, true
}

// commandName keeps names apart from flags, from what ds itself appends, and from the separator of paths.
func commandName(s string) bool {
	const alnum = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	return s != "" && len(s) <= 64 && strings.Contains(alnum, s[:1]) && strings.Trim(s, alnum+"._:-") == ""
}

func (d *decoder) args(n *yamlfile.Node) []Arg {
	var out []Arg
	seen := make(map[string]bool)
	d.list(n, "args", 32, func(n *yamlfile.Node) {
		var a Arg
		if !d.object(n, "an argument", false, d.argFields(&a)...) || !d.argument(n, &a) {
			return
		}
		if len(out) > 0 && out[len(out)-1].Repeat {
			d.errorf(n, "argument %s follows one that repeats", a.Name)
		}
		if seen[a.Name] {
			d.errorf(n, "argument %s is declared twice", a.Name)
		}
		seen[a.Name] = true
		out = append(out, a)
	})
	return out
}

func (d *decoder) flags(n *yamlfile.Node) []Flag {
	var out []Flag
	seen := make(map[string]bool)
	d.list(n, "flags", 128, func(n *yamlfile.Node) {
		var f Flag
		if !d.object(n, "a flag", false, append(d.argFields(&f.Arg), d.text("short", 1, &f.Short))...) || !d.argument(n, &f.Arg) {
			return
		}
		for _, name := range []string{f.Name, f.Short} {
			if name != "" && seen[name] {
				d.errorf(n, "flag %s is declared twice", name)
			}
			seen[name] = true
		}
		out = append(out, f)
	})
	return out
}

func (d *decoder) argFields(a *Arg) []field {
	return []field{
		d.text("name", 64, &a.Name),
		d.text("summary", 120, &a.Summary),
		word(d, "type", &a.Type, argTypes...),
		word(d, "mode", &a.Mode, "read", "write", "readwrite"),
		d.words("enum", 256, &a.Enum),
		d.text("default", 1024, &a.Default),
		word(d, "complete", &a.Complete, "none", "files", "dynamic"),
		d.boolean("repeat", &a.Repeat),
		d.boolean("required", &a.Required),
	}
}

// argument checks what argument and flag have in common and fills defaults.
func (d *decoder) argument(n *yamlfile.Node, a *Arg) bool {
	if !d.required(n, "name") {
		return false
	}
	if !commandName(a.Name) || strings.ContainsAny(a.Name, ":.") {
		d.errorf(n, "name %q is not [A-Za-z0-9][A-Za-z0-9_-]{0,63}", clip(a.Name, 40))
		return false
	}
	if a.Type == "" {
		a.Type = "string"
	}
	switch {
	case a.Mode != "" && a.Type != "path":
		d.errorf(n, "%s: mode belongs to type path", a.Name)
	case a.Type == "path" && a.Mode == "":
		a.Mode = "read"
	}
	switch {
	case a.Type == "enum" && len(a.Enum) == 0:
		d.errorf(n, "%s: type enum needs enum: [...]", a.Name)
	case a.Type != "enum" && len(a.Enum) > 0:
		d.errorf(n, "%s: enum belongs to type enum", a.Name)
	case a.Type == "enum" && a.Default != "" && !slices.Contains(a.Enum, a.Default):
		d.errorf(n, "%s: default %q is not in enum", a.Name, clip(a.Default, 40))
	}
	return true
}

func find(commands []Command, word string) *Command {
	for i := range commands {
		if commands[i].Name == word || slices.Contains(commands[i].Aliases, word) {
			return &commands[i]
		}
	}
	return nil
}

func names(commands []Command) []string {
	out := make([]string, len(commands))
	for i := range commands {
		out[i] = commands[i].Name
	}
	return out
}

// Command is the deepest declared command that the first words of args select, with its path of names
// (aliases resolved); nil when the first word is none.
func (m *Manifest) Command(args []string) (path []string, c *Command) {
	commands := m.Commands
	for _, word := range args {
		next := find(commands, word)
		if next == nil {
			break
		}
		c, commands = next, next.Commands
		path = append(path, c.Name)
	}
	return path, c
}

// Parse finds what the user typed for the declared arguments and flags of type path, ref, url and digest, in
// the order of args, and the command path ("bundle create"). It never fails: the plugin itself reports wrong
// words. Flags may stand anywhere; a flag that is not declared takes no value, but --format; "--" ends flags.
// An empty word and "-" are no paths.
func (m *Manifest) Parse(args []string) (command string, typed []Typed) {
	path, c := m.Command(args)
	if c == nil {
		return "", nil
	}
	values := c.values(args, len(path))
	positional := 0
	for i := range values {
		if values[i].positional {
			positional++
		}
	}
	declared := c.positionals(positional)
	for _, v := range values {
		if v.positional && len(declared) > 0 {
			v.arg, declared = declared[0], declared[1:]
		}
		if v.arg == nil || v.text == "" || v.text == "-" {
			continue
		}
		switch v.arg.Type {
		case "path", "ref", "url", "digest":
			typed = append(typed, Typed{Index: v.index, Type: v.arg.Type, Mode: v.arg.Mode, Value: v.text})
		}
	}
	return strings.Join(path, " "), typed
}

// value is one word that is an argument or the value of a declared flag.
type value struct {
	index      int
	text       string
	arg        *Arg // nil: a positional, or of a flag that is not declared
	positional bool
}

// values finds the arguments and the values of flags in args from the word at start on.
func (c *Command) values(args []string, start int) (out []value) {
	for i := start; i < len(args); i++ {
		word := args[i]
		if word == "--" {
			for i++; i < len(args); i++ {
				out = append(out, value{index: i, text: args[i], positional: true})
			}
			break
		}
		if len(word) < 2 || word[0] != '-' {
			out = append(out, value{index: i, text: word, positional: true})
			continue
		}
		name, text, hasValue := strings.Cut(word, "=")
		f, takes := c.flag(name)
		switch {
		case hasValue:
			out = append(out, value{index: i, text: text, arg: f})
		case takes && i+1 < len(args):
			i++
			out = append(out, value{index: i, text: args[i], arg: f})
		}
	}
	return out
}

// positionals are the declared arguments of n words. An optional argument gets a word only if enough are left
// for the required ones after it, so "push [SRC] REF" has its REF with one word too; the last argument takes
// all that follow if it repeats.
func (c *Command) positionals(n int) []*Arg {
	out := make([]*Arg, 0, len(c.Args))
	for i := range c.Args {
		needed := 0
		for _, later := range c.Args[i+1:] {
			if later.Required {
				needed++
			}
		}
		if left := n - len(out); left > 0 && (c.Args[i].Required || left > needed) {
			out = append(out, &c.Args[i])
		}
	}
	if last := len(c.Args) - 1; last >= 0 && c.Args[last].Repeat {
		for len(out) < n {
			out = append(out, &c.Args[last])
		}
	}
	return out
}

// flag is the declared flag of a word such as --bucket or -b; takes says that its value is the next word.
func (c *Command) flag(word string) (f *Arg, takes bool) {
	name, long := strings.CutPrefix(word, "--")
	for i := range c.Flags {
		if long && c.Flags[i].Name == name || !long && c.Flags[i].Short != "" && c.Flags[i].Short == word[1:] {
			return &c.Flags[i].Arg, c.Flags[i].Type != "bool"
		}
	}
	return nil, word == "--format" // taken by the SDK in every command
}
