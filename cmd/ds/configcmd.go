package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/delivery-station/ds/config"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/term"
)

// configCommand is ds config: everything reads, nothing changes a file.
func (a *app) configCommand() *cobra.Command {
	return group("config", "Show and check the configuration",
		a.configShow(), a.configGet(), a.configExplain(), a.configPath(), a.configValidate())
}

// shownValue is one key of ds config show and explain.
type shownValue struct {
	Key    string `json:"key"`
	Value  any    `json:"value"`
	Origin string `json:"origin"`
	Raw    any    `json:"raw,omitempty"` // what the file says, where ${VAR} made it something else
	secret bool
}

func (a *app) shown(ctx context.Context, v config.Value, secrets bool) shownValue {
	v.Secret = v.Secret || a.parts.schemas().secret(ctx, v.Key, v.Effective)
	s := shownValue{Key: v.Key, Value: v.Effective, Origin: v.Origin.String()}
	if s.secret = v.Secret; v.Secret && !secrets {
		if v.Origin.Layer != config.Default {
			s.Value = config.Secret("set").String()
		}
		return s
	}
	if raw, ok := v.Raw.(string); ok && strings.Contains(raw, "${") {
		s.Raw = config.WithoutUser(raw)
	}
	if text, ok := v.Effective.(string); ok && !secrets { // of a proxy
		s.Value = config.WithoutUser(text)
	}
	if d, ok := v.Effective.(fmt.Stringer); ok { // durations
		s.Value = d.String()
	}
	return s
}

func (a *app) configShow() *cobra.Command {
	var defaults, secrets bool
	c := &cobra.Command{
		Use: "show [KEY]", Short: "Values in effect and where they come from", Args: wants(0, 1, "at most one key"), ValidArgsFunction: configKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.cfgErr != nil {
				return a.cfgErr
			}
			if secrets && !a.term.Facts().StdoutTTY && !a.g.yes {
				return hostabi.Errorf(hostabi.ReasonUsage, "--show-secrets needs a terminal").WithFix("ds -y config show --show-secrets")
			}
			prefix := ""
			if len(args) == 1 {
				prefix = args[0]
			}
			var all []shownValue
			for _, v := range a.cfg.All() {
				under := prefix == "" || v.Key == prefix || strings.HasPrefix(v.Key, prefix+".")
				if under && (defaults || prefix != "" || v.Origin.Layer != config.Default) {
					all = append(all, a.shown(cmd.Context(), v, secrets))
				}
			}
			if prefix != "" && len(all) == 0 {
				return unknownKey(prefix)
			}
			return a.rows(term.RowsOf([]string{"key", "value", "origin"}, all...))
		},
	}
	c.Flags().BoolVar(&defaults, "defaults", false, "also keys at their default")
	c.Flags().Bool("origin", true, "show where each value comes from (always on)")
	c.Flags().BoolVar(&secrets, "show-secrets", false, "print secrets instead of ***")
	return c
}

func unknownKey(key string) error {
	e := hostabi.Errorf(hostabi.ReasonConfigKey, "unknown key %q", key)
	for _, k := range config.Keys() {
		if strings.HasSuffix(k.Name, "."+key) || strings.HasPrefix(k.Name, key) {
			return e.WithFix("ds config get %s", k.Name)
		}
	}
	return e.WithFix("ds config show --defaults")
}

func (a *app) configGet() *cobra.Command {
	return &cobra.Command{
		Use: "get KEY", Short: "One value, as text", Args: wants(1, 1, "one key"), ValidArgsFunction: configKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.cfgErr != nil {
				return a.cfgErr
			}
			v, ok := a.cfg.Get(args[0])
			if !ok {
				return unknownKey(args[0])
			}
			s := a.shown(cmd.Context(), v, false)
			if a.g.jq != "" || a.cfg.String("ui.format") != "table" {
				return a.rows(term.ObjectOf([]string{"key", "value", "origin"}, s))
			}
			_, err := fmt.Fprintln(a.std.out, textOf(s.Value))
			return err
		},
	}
}

// textOf writes a list one element a line.
func textOf(v any) string {
	if l, ok := v.([]string); ok {
		return strings.Join(l, "\n")
	}
	return fmt.Sprint(v)
}

func (a *app) configExplain() *cobra.Command {
	return &cobra.Command{
		Use: "explain KEY", Short: "What a key means and every layer that sets it", Args: wants(1, 1, "one key"), ValidArgsFunction: configKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			var key *config.Key
			for _, k := range config.Keys() {
				if k.Name == args[0] {
					key = &k
				}
			}
			layers := a.cfg.Explain(args[0])
			if key == nil && len(layers) == 0 {
				return unknownKey(args[0])
			}
			if key != nil {
				fmt.Fprintf(a.std.out, "%s   %s   default %s   env %s\n%s\n", key.Name, key.Type, textOf(key.Default), key.Env(), key.Doc)
			}
			for i, v := range layers {
				mark := ""
				if i == 0 {
					mark = "   ← in effect"
				}
				s := a.shown(cmd.Context(), v, false)
				if written, ok := v.Raw.(string); ok && !s.secret {
					s.Value = config.WithoutUser(written) // 3GiB, not the bytes
				}
				fmt.Fprintf(a.std.out, "  %-20s %s%s\n", textOf(s.Value), s.Origin, mark)
			}
			return nil
		},
	}
}

type shownPath struct {
	Name string `json:"name"`
	Path string `json:"path"`
}

func (a *app) configPath() *cobra.Command {
	return &cobra.Command{
		Use: "path", Short: "Directories and files of ds", Args: wants(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			p := a.paths
			all := []shownPath{{"config", p.Config}, {"data", p.Data}, {"cache", p.Cache}, {"state", p.State}}
			if a.cfgErr == nil {
				all[2].Path, all[3].Path = a.cfg.String("cache.dir"), a.cfg.String("state.dir")
				all = append(all, shownPath{"plugins", a.cfg.String("plugins.dir")})
			}
			for _, f := range a.cfg.Files() {
				all = append(all, shownPath{"file", f})
			}
			return a.rows(term.RowsOf([]string{"name", "path"}, all...))
		},
	}
}

func (a *app) configValidate() *cobra.Command {
	return &cobra.Command{
		Use: "validate [FILE]", Short: "Check the configuration, every problem at once", Args: wants(0, 1, "at most one file"),
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, err := a.cfg, a.cfgErr
			if len(args) == 1 {
				name := args[0]
				if !filepath.IsAbs(name) {
					name = filepath.Join(a.wd, name)
				}
				cfg, err = config.Load(config.Input{Env: a.environ, Files: []string{name}, WorkDir: a.wd, Paths: a.paths})
			}
			if err != nil {
				if errs, ok := errors.AsType[config.Errors](err); ok {
					return errs
				}
				return err
			}
			files := cfg.Files()
			if len(files) == 0 {
				fmt.Fprintln(a.stderr(), "note: no configuration file; defaults, variables and flags are valid")
				return nil
			}
			for _, f := range files {
				fmt.Fprintf(a.std.out, "%s: valid\n", a.paths.Shorten(f))
			}
			return nil
		},
	}
}
