package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/delivery-station/ds/config"
	"github.com/delivery-station/ds/internal/term"
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
