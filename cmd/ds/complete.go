package main

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/delivery-station/ds/config"
	"github.com/delivery-station/ds/internal/term"
	"github.com/delivery-station/ds/plugin"
)

// completeFlags proposes the values of the global flags that set an enumerated key.
func completeFlags(root *cobra.Command) {
	values := make(map[string][]string)
	for _, k := range config.Keys() {
		values[k.Name] = k.Values
	}
	values["ui.format"] = term.Formats()
	for _, f := range keyFlags {
		if v := values[f.key]; len(v) > 0 {
			_ = root.RegisterFlagCompletionFunc(f.name, cobra.FixedCompletions(v, cobra.ShellCompDirectiveNoFileComp)) // the flag is there, once
		}
	}
}

// pluginNames proposes the installed plugins, for every word or, with first, for the first only. Nothing is
// started.
func (a *app) pluginNames(first bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if first && len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var out []string
		for p, err := range a.parts.store().All(cmd.Context()) {
			text := string(p.Name)
			if err == nil && p.Manifest.Description != "" {
				text += "\t" + term.Clean(p.Manifest.Description, 80)
			}
			out = append(out, text)
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// configKeys proposes the keys of the configuration.
func configKeys(_ *cobra.Command, args []string, word string) (out []string, _ cobra.ShellCompDirective) {
	for _, k := range config.Keys() {
		if len(args) == 0 && strings.HasPrefix(k.Name, word) {
			out = append(out, k.Name+"\t"+k.Doc)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// dynamic asks a plugin for values of something that it declares complete: dynamic. It is the only completion
// that starts a plugin; one that fails has nothing to propose.
func (a *app) dynamic(name plugin.Name) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		words, err := newGlobals().parse(a.words[1:]) // as typed: cobra has taken the flags out
		m, merr := a.parts.manager()
		if err != nil || merr != nil || len(words) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var out bytes.Buffer
		err = m.Run(cmd.Context(), name, &plugin.Invocation{
			Args: append([]string{"__complete"}, words[1:]...), Kind: plugin.KindComplete, Stdin: strings.NewReader(""), Stdout: &out, Stderr: io.Discard,
			Dir: a.wd, Env: a.environ, NoInput: true, Offline: a.cfg.Bool("registry.offline"), Deadline: time.Now().Add(a.completeTime),
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return candidates(out.String())
	}
}

// candidates reads "value\tdescription" lines and the directive that follows them, cobra's protocol.
func candidates(text string) (out []string, d cobra.ShellCompDirective) {
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if n, ok := strings.CutPrefix(line, ":"); ok {
			if v, err := strconv.Atoi(n); err == nil {
				return out, cobra.ShellCompDirective(v) &^ cobra.ShellCompDirectiveError
			}
		}
		value, about, described := strings.Cut(line, "\t")
		if value = term.Clean(value, 256); described {
			value += "\t" + term.Clean(about, 80)
		}
		out = append(out, value)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
