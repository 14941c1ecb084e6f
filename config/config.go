// Package config loads the configuration of ds: built-in defaults, files, DS_* variables and flags, merged
// into one immutable value in which every key knows where it came from. It opens configuration files and
// nothing else. Start with Load; the keys are in keys.go.
package config

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	kmaps "github.com/knadh/koanf/maps"
	"github.com/knadh/koanf/v2"
)

// Layer is where a value comes from; a higher layer wins.
type Layer int

// The layers, lowest first.
const (
	Default Layer = iota
	File
	Env
	Flag
)

// Origin names the exact place of a value.
type Origin struct {
	Layer     Layer
	Name      string // file path, variable or flag
	Line, Col int    // of a file, from 1; 0 = unknown
}

// String is "default", "file PATH:LINE:COL", "env NAME" or "flag NAME".
func (o Origin) String() string {
	switch o.Layer {
	case File:
		if o.Line > 0 {
			return fmt.Sprintf("file %s:%d:%d", o.Name, o.Line, o.Col)
		}
		return "file " + o.Name
	case Env:
		return "env " + o.Name
	case Flag:
		return "flag " + o.Name
	}
	return "default"
}

// Value is one key of one layer. Effective is typed: string, bool, int64 (int and size), float64,
// time.Duration, []string, []map[string]any, or for plugin settings any JSON-like value.
type Value struct {
	Key       string
	Raw       any // as written, before ${VAR} and typing
	Effective any
	Origin    Origin
	Secret    bool
}

// Override is one flag that sets a key.
type Override struct{ Key, Value, Flag string }

// Input is everything Load looks at.
type Input struct {
	Flags   []Override
	Env     []string // "NAME=value"
	Files   []string // --config; replaces the user file; merged left to right
	WorkDir string   // base of relative paths in flags and variables
	Paths   Paths
	// Read opens a file; nil = the file system. A missing file is fs.ErrNotExist.
	Read func(name string) ([]byte, error)
}

// Config is the merged configuration. It is immutable and safe for concurrent use.
type Config struct {
	merged   *koanf.Koanf
	layers   map[string][]Value // key -> layers that have it, highest first; without defaults
	files    []string
	warnings []Warning
	paths    Paths
}

// delimiter separates the segments of a key.
const delimiter = "."

// Load reads and merges all layers. The error is Errors: every problem of every layer, in order.
func Load(in Input) (*Config, error) {
	l := newLoader(in)
	c := &Config{merged: koanf.New(delimiter), layers: make(map[string][]Value), paths: in.Paths}
	for _, values := range []map[string]Value{l.defaults(), l.files(), l.env(), l.flags()} {
		if err := c.merge(values); err != nil {
			l.problem(Problem{Reason: "CONFIG_VALUE", Msg: err.Error()})
		}
	}
	c.files, c.warnings = l.read, l.warnings
	if len(l.problems) > 0 {
		return c, l.sorted()
	}
	return c, nil
}

// merge puts one layer on top.
func (c *Config) merge(values map[string]Value) error {
	if len(values) == 0 {
		return nil
	}
	flat := make(layer, len(values))
	for key, v := range values {
		flat[key] = v.Effective
		if m, ok := v.Effective.(map[string]any); ok {
			flat[key] = kmaps.Copy(m) // a higher layer is merged into it
		}
		c.layers[key] = slices.Insert(c.layers[key], 0, v)
	}
	if err := c.merged.Load(flat, nil); err != nil {
		return fmt.Errorf("merge configuration: %w", err)
	}
	return nil
}

// layer gives koanf the values of one layer by their full names.
type layer map[string]any

// Read is for koanf.
func (l layer) Read() (map[string]any, error) { return kmaps.Unflatten(l, delimiter), nil }

// ReadBytes is for koanf, which never calls it without a parser.
func (layer) ReadBytes() ([]byte, error) { return nil, errors.ErrUnsupported }

// Get is the value in effect; ok is false for a key that is not set anywhere.
func (c *Config) Get(key string) (Value, bool) {
	if v := c.layers[key]; len(v) > 0 {
		return v[0], true
	}
	return Value{}, false
}

// Explain lists every layer that has the key, highest first, the default last.
func (c *Config) Explain(key string) []Value { return slices.Clone(c.layers[key]) }

// All lists every key in effect, sorted.
func (c *Config) All() []Value {
	all := make([]Value, 0, len(c.layers))
	for _, key := range slices.Sorted(maps.Keys(c.layers)) {
		all = append(all, c.layers[key][0])
	}
	return all
}

// Files lists the configuration files that were read, in order.
func (c *Config) Files() []string { return c.files }

// Warnings are problems that stop nothing, each once.
func (c *Config) Warnings() []Warning { return c.warnings }

// Paths are the directories of ds.
func (c *Config) Paths() Paths { return c.paths }

// Plugin lists the settings of a plugin, plugins.settings.NAME.*, sorted by key.
func (c *Config) Plugin(name string) (values []Value) {
	prefix := settingsPrefix + name + delimiter
	for _, v := range c.All() {
		if strings.HasPrefix(v.Key, prefix) {
			values = append(values, v)
		}
	}
	return values
}

// String is the value of a string, enum, path, ref or url key; "" when unset.
func (c *Config) String(key string) string { return c.merged.String(key) }

// Bool is the value of a bool key.
func (c *Config) Bool(key string) bool { return c.merged.Bool(key) }

// Int is the value of an int key, or of a size key in bytes.
func (c *Config) Int(key string) int64 { return c.merged.Int64(key) }

// Float is the value of a float key.
func (c *Config) Float(key string) float64 { return c.merged.Float64(key) }

// Duration is the value of a duration key.
func (c *Config) Duration(key string) time.Duration { return c.merged.Duration(key) }

// List is the value of a list key.
func (c *Config) List(key string) []string { return c.merged.Strings(key) }

// Secret is the value of a secret key.
func (c *Config) Secret(key string) Secret { return Secret(c.merged.String(key)) }

// Objects decodes a list-of-objects key into a pointer to a slice of structs with json tags.
func (c *Config) Objects(key string, into any) error {
	b, err := json.Marshal(c.merged.Get(key))
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return json.Unmarshal(b, into)
}

// Warning is one line for the user: Hint is the better spelling.
type Warning struct{ Msg, Hint string }

// sortProblems orders by file and position.
func sortProblems(p []Problem) {
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
}
