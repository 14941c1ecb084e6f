package main

import (
	"errors"
	"io"
	"strings"

	"github.com/spf13/pflag"

	"github.com/delivery-station/ds/config"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/term"
	"github.com/delivery-station/ds/plugin"
)

// globals are the flags before the first word. They belong to ds; every word after a plugin's name is the
// plugin's.
type globals struct {
	set       *pflag.FlagSet
	overrides []config.Override
	configs   []string
	jq        string
	yes       bool
	noPlugins bool
	timeout   string
	help      bool
	version   bool
	verbose   int
	quiet     bool
}

// keyFlags are the flags that set a configuration key.
var keyFlags = []struct{ name, key, usage string }{
	{"backend", "plugins.backend", "kind of plugin to run or install: auto, wasm, native"},
	{"registry", "registry.default", "base of short names; may be oci-layout:DIR"},
	{"cache-dir", "cache.dir", "directory of the content-addressed cache"},
	{"plugin-dir", "plugins.dir", "directory of the installed plugins"},
	{"log-level", "logging.level", "trace, debug, info, warn, error"},
	{"log-format", "logging.format", "text, json"},
	{"format", "ui.format", "table, wide, json, ndjson, yaml, name, go-template=TEXT"},
	{"color", "ui.color", "auto, always, never"},
	{"progress", "ui.progress", "auto, plain, json, none"},
	{"error-format", "ui.error_format", "text, json"},
}

// newGlobals declares the global flags.
func newGlobals() *globals {
	g := &globals{set: pflag.NewFlagSet("ds", pflag.ContinueOnError)}
	f := g.set
	f.SetInterspersed(false)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	for _, k := range keyFlags {
		f.Var(&keyValue{g: g, key: k.key, flag: "--" + k.name}, k.name, k.usage)
	}
	f.Var(&setValue{g}, "set", "set any configuration key, KEY=VALUE (repeatable)")
	f.VarPF(&keyValue{g: g, key: "ui.color", flag: "--no-color", value: "never"}, "no-color", "", "same as --color never").NoOptDefVal = "true"
	f.VarPF(&keyValue{g: g, key: "registry.offline", flag: "--offline", value: "true"}, "offline", "", "zero requests, zero name lookups").NoOptDefVal = "true"
	f.VarPF(&keyValue{g: g, key: "sandbox.native", flag: "--require-sandbox", value: "require"}, "require-sandbox", "", "refuse to run what the system cannot confine").NoOptDefVal = "true"
	f.StringArrayVar(&g.configs, "config", nil, "configuration file instead of the user's (repeatable)")
	f.StringVar(&g.jq, "jq", "", "filter over the JSON form of the output")
	f.BoolVarP(&g.yes, "yes", "y", false, "answer yes to questions; never grants, never trusts")
	f.BoolVar(&g.noPlugins, "no-plugins", false, "ignore all plugins")
	f.StringVar(&g.timeout, "timeout", "", "deadline, like 90s or 10m")
	f.CountVarP(&g.verbose, "verbose", "v", "more log records: -v info, -vv debug, -vvv trace")
	f.BoolVarP(&g.quiet, "quiet", "q", false, "errors only, no progress")
	f.BoolVarP(&g.help, "help", "h", false, "help")
	f.BoolVar(&g.version, "version", false, "version of ds")
	return g
}

// parse reads the flags before the first word and returns the words.
func (g *globals) parse(args []string) ([]string, error) {
	if err := g.set.Parse(args); err != nil {
		return nil, g.flagError(err)
	}
	words := g.set.Args()
	if g.set.ArgsLenAtDash() == 0 && len(words) > 0 {
		return nil, hostabi.Errorf(hostabi.ReasonUnknownCommand, "unknown command %q", "--").WithFix("ds %s", strings.Join(words, " "))
	}
	if level := [...]string{"", "info", "debug", "trace"}[min(g.verbose, 3)]; level != "" && !g.sets("logging.level") {
		g.overrides = append(g.overrides, config.Override{Key: "logging.level", Value: level, Flag: "-v"})
	}
	if g.quiet && !g.sets("logging.level") {
		g.overrides = append(g.overrides, config.Override{Key: "logging.level", Value: "error", Flag: "-q"})
	}
	return words, nil
}

func (g *globals) sets(key string) bool {
	for _, o := range g.overrides {
		if o.Key == key {
			return true
		}
	}
	return false
}

// flagError says which flag is unknown and what may have been meant.
func (g *globals) flagError(err error) error {
	if ne, ok := errors.AsType[*pflag.NotExistError](err); ok {
		return unknownFlag(ne.GetSpecifiedName(), g.set)
	}
	if e, ok := errors.AsType[*hostabi.Error](err); ok {
		return e
	}
	if ve, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return hostabi.Errorf(hostabi.ReasonUsage, "--%s: %w", ve.GetFlag().Name, ve.Unwrap())
	}
	return hostabi.Errorf(hostabi.ReasonUsage, "%w", err)
}

// unknownFlag is the error for a flag that set does not have. -o gets a hint of its own: it is never a format.
func unknownFlag(name string, set *pflag.FlagSet) error {
	if name == "o" {
		return hostabi.Errorf(hostabi.ReasonUsage, "-o is not a flag of ds; the output format is --format").WithFix("--format json")
	}
	e := hostabi.Errorf(hostabi.ReasonUnknownCommand, "unknown flag %s", dashed(name))
	var names []string
	set.VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	if near := plugin.Suggest(name, names); len(near) > 0 {
		return e.WithFix("--%s", near[0])
	}
	return e
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// keyValue is a flag that sets one key; value is what a flag without argument sets.
type keyValue struct {
	g          *globals
	key, flag  string
	value, now string
}

func (v *keyValue) String() string { return v.now }

func (v *keyValue) Type() string {
	if v.value != "" {
		return "bool"
	}
	return "string"
}

func (v *keyValue) Set(s string) error {
	if v.value != "" {
		if s == "false" {
			return nil
		}
		s = v.value
	}
	if v.key == "ui.format" {
		if err := term.CheckFormat(s); err != nil {
			return err
		}
	}
	v.now = s
	v.g.overrides = append(v.g.overrides, config.Override{Key: v.key, Value: s, Flag: v.flag})
	return nil
}

// setValue is --set KEY=VALUE.
type setValue struct{ g *globals }

func (v *setValue) String() string { return "" }
func (v *setValue) Type() string   { return "KEY=VALUE" }

func (v *setValue) Set(s string) error {
	key, value, ok := strings.Cut(s, "=")
	if !ok || key == "" {
		return errors.New("want KEY=VALUE")
	}
	v.g.overrides = append(v.g.overrides, config.Override{Key: key, Value: value, Flag: "--set " + key})
	return nil
}
