package main

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/term"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/store"
	"github.com/delivery-station/ds/sandbox"
)

// pluginRun is for authors: it runs a plugin from its directory and says what its manifest lacks.
func (a *app) pluginRun() *cobra.Command {
	var grant, deny []string
	c := &cobra.Command{
		Use: "run DIR [-- ARGS...]", Short: "Run a plugin from its directory, and say what its manifest lacks", Args: wants(1, -1, "a directory and the plugin's words"),
		Long: "Run a plugin from its directory without installing it. Its grants belong to the directory. What it was refused is printed\n" +
			"as entries to add to plugin.yaml.",
		Example: "  ds plugin run ./hello --grant manifest -- greet world",
		RunE: func(cmd *cobra.Command, args []string) error {
			if !a.isDir(args[0]) {
				return hostabi.Errorf(hostabi.ReasonUsage, "%q is no directory, such as ./hello", args[0])
			}
			p, err := a.linked(args[0])
			if err != nil {
				return err
			}
			flags := a.grantFlags(grant, deny)
			if len(flags.Grant)+len(flags.Deny) > 0 || a.term.Facts().Prompts {
				commit, err := consent{a: a, flags: flags, ref: args[0], exact: true, opt: installFlags{grant: grant, deny: deny}}.Ask(cmd.Context(), p, nil)
				if err == nil && commit != nil {
					err = commit(cmd.Context())
				}
				if err != nil {
					return err
				}
			}
			a.dev = p
			err = a.runPlugin(cmd.Context(), p.Name, args[1:], "")
			if e := hostabi.AsError(err); err != nil && e.Reason == hostabi.ReasonGrantMissing {
				e.Fix = strings.Replace(e.Fix, "ds plugin grant "+string(p.Name), "ds plugin grant "+sandbox.Quote(args[0]), 1)
			}
			return err
		},
	}
	c.Flags().StringArrayVar(&grant, "grant", nil, "grant CAP=SCOPE, or manifest = all it asks for (repeatable)")
	c.Flags().StringArrayVar(&deny, "deny", nil, "deny CAP=SCOPE (repeatable)")
	return c
}

// developed is the installed set with one plugin of a directory before it.
type developed struct {
	*store.Store
	p *plugin.Installed
}

// Lookup finds the developed plugin under its name.
func (d developed) Lookup(ctx context.Context, name plugin.Name) (*plugin.Installed, error) {
	if name == d.p.Name {
		p := *d.p
		return &p, nil
	}
	return d.Store.Lookup(ctx, name)
}

// All yields the developed plugin first and hides an installed one of its name.
func (d developed) All(ctx context.Context) iter.Seq2[*plugin.Installed, error] {
	return func(yield func(*plugin.Installed, error) bool) {
		if !yield(d.p, nil) {
			return
		}
		for p, err := range d.Store.All(ctx) {
			if p.Name != d.p.Name && !yield(p, err) {
				return
			}
		}
	}
}

// proposed prints denials and, as entries of plugin.yaml, what would have been asked for.
func (a *app) proposed(denials []sandbox.Denial) {
	var b strings.Builder
	scopes := make(map[hostabi.Capability][]string)
	var caps []hostabi.Capability
	for _, d := range denials {
		times := ""
		if d.Count > 1 {
			times = fmt.Sprintf(" (%d times)", d.Count)
		}
		fmt.Fprintf(&b, "denied  %s %s   %s%s\n", d.Cap, term.Clean(d.Resource, 300), d.Why, times)
		if d.Fix != "" {
			fmt.Fprintf(&b, "  asked for already; to allow it: %s\n", term.Clean(d.Fix, 500))
			continue
		}
		if d.Scope == "" {
			continue
		}
		if !slices.Contains(caps, d.Cap) {
			caps = append(caps, d.Cap)
		}
		if !slices.Contains(scopes[d.Cap], d.Scope) {
			scopes[d.Cap] = append(scopes[d.Cap], d.Scope)
		}
	}
	if len(caps) > 0 {
		b.WriteString("add to plugin.yaml, or handle the error:\n")
	}
	for _, c := range caps {
		quoted := make([]string, len(scopes[c]))
		for i, s := range scopes[c] {
			quoted[i] = fmt.Sprintf("%q", term.Clean(s, 500))
		}
		fmt.Fprintf(&b, "  - {cap: %s, scope: [%s], reason: %q}\n", c, strings.Join(quoted, ", "), "why "+string(a.dev.Name)+" needs this")
	}
	fmt.Fprint(a.stderr(), b.String())
}
