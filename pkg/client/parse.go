package client

import (
	"slices"
	"strconv"
	"strings"

	"github.com/delivery-station/ds/hostabi"
)

// parser reads the words of one run.
type parser struct {
	app *App

	group   []Command // commands that the next word may name
	command *Command  // nil while no word has named one
	path    string
	args    []string
	values  map[string][]string
	format  string // --format of the SDK
	help    bool
	version bool
	lenient bool // completion: wrong and missing values are no errors
}

// parse reads argv: commands first, then flags and arguments in any order; -- ends the flags.
func (p *parser) parse(argv []string) error {
	p.group, p.values = p.app.Commands, make(map[string][]string)
	for len(argv) > 0 && !p.help {
		word := argv[0]
		argv = argv[1:]
		var err error
		switch {
		case word == "--":
			p.args = append(p.args, argv...)
			argv = nil
		case strings.HasPrefix(word, "--"):
			argv, err = p.long(word[2:], argv)
		case len(word) > 1 && word[0] == '-' && !p.negative(word):
			argv, err = p.short(word[1:], argv)
		default:
			err = p.word(word, &argv)
		}
		if err != nil {
			return err
		}
	}
	if p.help || p.version || p.lenient {
		return nil
	}
	if p.command == nil || p.command.Run == nil {
		if len(p.args) > 0 {
			return p.unknownCommand(p.args[0])
		}
		p.help = true
		return nil
	}
	return p.check()
}

// word takes a word that is no flag: a command, or an argument of the one that was named.
func (p *parser) word(word string, rest *[]string) error {
	if len(p.args) == 0 {
		if c := find(p.group, word); c != nil {
			p.enter(c)
			return nil
		}
	}
	if p.command != nil && p.command.Run != nil {
		p.args = append(p.args, word)
		return nil
	}
	if p.command == nil {
		switch word {
		case "help": // help COMMAND… is COMMAND… --help
			for _, w := range *rest {
				c := find(p.group, w)
				if c == nil {
					return p.unknownCommand(w)
				}
				p.enter(c)
			}
			p.help = true
			return nil
		case "version":
			p.version, *rest = true, nil
			return nil
		}
	}
	return p.unknownCommand(word)
}

func (p *parser) enter(c *Command) {
	p.command, p.group = c, c.Commands
	p.path = strings.TrimPrefix(p.path+" "+c.Name, " ")
}

func find(group []Command, word string) *Command {
	for i := range group {
		if group[i].Name == word || slices.Contains(group[i].Aliases, word) {
			return &group[i]
		}
	}
	return nil
}

// negative reports whether word is a number and no flag.
func (p *parser) negative(word string) bool {
	if word[1] < '0' || word[1] > '9' {
		return false
	}
	return p.flag(func(f *Flag) bool { return f.Short == word[1:2] }) == nil
}

func (p *parser) flag(match func(*Flag) bool) *Flag {
	if p.command == nil {
		return nil
	}
	for i := range p.command.Flags {
		if match(&p.command.Flags[i]) {
			return &p.command.Flags[i]
		}
	}
	return nil
}

// long takes --name, --name=value or --name value.
func (p *parser) long(text string, rest []string) ([]string, error) {
	name, value, given := strings.Cut(text, "=")
	f := p.flag(func(f *Flag) bool { return f.Name == name })
	switch {
	case f != nil:
	case name == "help" && !given:
		p.help = true
		return rest, nil
	case name == "version" && !given && p.command == nil:
		p.version = true
		return nil, nil
	case name == "format":
		f = &Flag{Name: name}
	default:
		return nil, p.unknownFlag("--" + name)
	}
	if f.Type == "bool" && !given {
		value, given = "true", true
	}
	if !given {
		var ok bool
		if value, rest, ok = next(rest); !ok {
			return nil, p.noValue("--" + name)
		}
	}
	return rest, p.set(f, value)
}

// short takes -x, -xVALUE, -x VALUE, and bool flags in one word.
func (p *parser) short(text string, rest []string) ([]string, error) {
	for text != "" {
		letter := text[:1]
		text = text[1:]
		f := p.flag(func(f *Flag) bool { return f.Short == letter })
		switch {
		case f == nil && letter == "h":
			p.help = true
			return rest, nil
		case f == nil:
			return nil, p.unknownFlag("-" + letter)
		case f.Type == "bool" && !strings.HasPrefix(text, "="):
			if err := p.set(f, "true"); err != nil {
				return nil, err
			}
			continue
		}
		value := strings.TrimPrefix(text, "=")
		if text == "" {
			var ok bool
			if value, rest, ok = next(rest); !ok {
				return nil, p.noValue("-" + letter)
			}
		}
		return rest, p.set(f, value)
	}
	return rest, nil
}

func next(rest []string) (string, []string, bool) {
	if len(rest) == 0 {
		return "", nil, false
	}
	return rest[0], rest[1:], true
}

func (p *parser) set(f *Flag, value string) error {
	if f.Name == "format" && p.flag(func(g *Flag) bool { return g == f }) == nil {
		p.format = value
		return nil
	}
	if !p.lenient {
		if what := wrong(f.Type, f.Values, value); what != "" {
			return Usagef("--%s %q: %s", f.Name, value, what)
		}
	}
	p.values[f.Name] = append(p.values[f.Name], value)
	return nil
}

// missing says what the command needs and where its help is.
func (p *parser) missing(what string) error {
	return classify(hostabi.Errorf(hostabi.ReasonUsage, "%s needs %s", p.name(), what).WithFix("%s --help", p.name()))
}

// check is what can only be said at the end.
func (p *parser) check() error {
	c := p.command
	for i := range c.Flags {
		if f := &c.Flags[i]; f.Required && len(p.values[f.Name]) == 0 {
			return p.missing("--" + f.Name)
		}
	}
	needed := 0
	for _, a := range c.Args {
		if a.Required {
			needed++
		}
		if needed > len(p.args) {
			return p.missing(strings.ToUpper(a.Name))
		}
	}
	declared := c.bind(len(p.args))
	for i, word := range p.args {
		a := declared[i]
		if a == nil {
			return Usagef("%s takes %d arguments, %q is one too many", p.name(), len(c.Args), word)
		}
		if what := wrong(a.Type, nil, word); what != "" {
			return Usagef("%s %q: %s", strings.ToUpper(a.Name), word, what)
		}
	}
	return nil
}

// arg is the declaration of the i-th argument, nil if there is none.
func (c *Command) arg(i int) *Arg {
	if i < len(c.Args) {
		return &c.Args[i]
	}
	if n := len(c.Args); n > 0 && c.Args[n-1].Repeat {
		return &c.Args[n-1]
	}
	return nil
}

// bind gives the declarations of n arguments, nil for one too many. An optional argument gets a word only if
// enough are left for the required ones after it: "push [SRC] REF" has its REF with one word too.
func (c *Command) bind(n int) []*Arg {
	out := make([]*Arg, 0, n)
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
	for i := len(out); i < n; i++ {
		var more *Arg
		if last := len(c.Args) - 1; last >= 0 && c.Args[last].Repeat {
			more = &c.Args[last]
		}
		out = append(out, more)
	}
	return out
}

// wrong says what is wrong with a value of a type, if anything is.
func wrong(typ string, values []string, v string) string {
	var err error
	switch typ {
	case "bool":
		_, err = strconv.ParseBool(v)
	case "int":
		_, err = strconv.ParseInt(v, 10, 64)
	case "float":
		_, err = strconv.ParseFloat(v, 64)
	case "duration":
		if _, err = hostabi.ParseDuration(v); err != nil {
			return "not a duration such as 90s, 1h30m or 7d"
		}
	case "size":
		if _, ok := parseSize(v); !ok {
			return "not a size such as 512KiB or 10MB"
		}
	case "digest":
		if !Digest(v).Valid() {
			return "not sha256: and 64 lower-case hex digits"
		}
	case "enum":
		if !slices.Contains(values, v) {
			return "not one of " + strings.Join(values, ", ")
		}
	}
	if err != nil {
		return "not a " + map[string]string{"bool": "bool", "int": "whole number", "float": "number"}[typ]
	}
	return ""
}

// parseSize reads bytes with an optional unit: B, kB … TB (1000) or KiB … TiB (1024).
func parseSize(s string) (int64, bool) {
	digits := strings.TrimRight(s, "BKMGTikmgt")
	factor := int64(1)
	switch unit := strings.ToLower(s[len(digits):]); unit {
	case "", "b":
	default:
		base := int64(1000)
		if len(unit) == 3 && unit[1:] == "ib" {
			base = 1024
		} else if len(unit) > 2 || len(unit) == 2 && unit[1] != 'b' {
			return 0, false
		}
		i := strings.IndexByte("kmgt", unit[0])
		if i < 0 {
			return 0, false
		}
		for range i + 1 {
			factor *= base
		}
	}
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || n < 0 || n*float64(factor) > 1<<62 {
		return 0, false
	}
	return int64(n * float64(factor)), true
}

// name is the command as the user types it.
func (p *parser) name() string { return strings.TrimSpace("ds " + p.app.Name + " " + p.path) }

func (p *parser) noValue(flag string) error {
	return Usagef("%s: %s needs a value", p.name(), flag)
}

func (p *parser) unknownCommand(word string) error {
	var names []string
	for i := range p.group {
		if !p.group[i].Hidden {
			names = append(append(names, p.group[i].Name), p.group[i].Aliases...)
		}
	}
	e := hostabi.Errorf(hostabi.ReasonUnknownCommand, "%s has no command %q", p.name(), word)
	if s := nearest(word, names); s != "" {
		e.Msg += ", the nearest is " + s
		return classify(e.WithFix("%s %s", p.name(), s))
	}
	return classify(e.WithFix("%s --help", p.name()))
}

func (p *parser) unknownFlag(flag string) error {
	e := hostabi.Errorf(hostabi.ReasonUnknownCommand, "%s has no flag %s", p.name(), flag)
	var names []string
	if p.command != nil {
		for i := range p.command.Flags {
			names = append(names, "--"+p.command.Flags[i].Name)
		}
	}
	if s := nearest(flag, append(names, "--format", "--help")); s != "" && strings.HasPrefix(flag, "--") {
		e.Msg += ", the nearest is " + s
	}
	return classify(e.WithFix("%s --help", p.name()))
}

// nearest is the name that word most likely means: at most two edits away, or one that it begins.
func nearest(word string, names []string) string {
	best, found := 3, ""
	for _, n := range names {
		d := distance(word, n)
		if len(word) > 2 && strings.HasPrefix(n, word) {
			d = min(d, 2)
		}
		if d < best && d < len(word) {
			best, found = d, n
		}
	}
	return found
}

// distance counts the single-byte edits between a and b (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
