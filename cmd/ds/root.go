package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/term"
	"github.com/delivery-station/ds/plugin"
)

// builtins are the first words that ds answers itself.
var builtins = []string{"plugin", "registry", "trust", "config", "doctor", "version", "explain", "completion", "help"}

const usage = `{{with .Long}}{{.}}

{{end}}Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}}{{if not .HasParent}} [FLAGS]{{end}} COMMAND{{else}}{{.UseLine}}{{end}}
{{if .HasExample}}
Examples:
{{.Example}}
{{end}}{{if .HasAvailableSubCommands}}
Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name 12}} {{.Short}}{{end}}{{end}}
{{end}}{{if .HasAvailableLocalFlags}}
Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}
{{end}}
Exit status:
  0 ok, 1 failed, 2 usage or configuration, 3 not found, 4 authentication, 5 refused, 6 network, 7 integrity,
  8 batch partly failed, 125 consent needed, 130 interrupted. A plugin's own exit status passes unchanged.
`

// root is the tree of built-in commands. withPlugins adds what is installed, for help and completion; nothing
// is started to learn about it.
func (a *app) root(ctx context.Context, withPlugins bool) *cobra.Command {
	root := &cobra.Command{
		Use: "ds", Short: "Delivery Station: run plugins that deliver OCI artifacts",
		Long: "ds finds, checks, starts and connects plugins that deliver OCI artifacts.\n\n" +
			"  ds [FLAGS] PLUGIN [ARGS...]    run a plugin; flags before its name are of ds, every word after it is the plugin's",
		TraverseChildren: true, Args: cobra.ArbitraryArgs, SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.Flags().SetInterspersed(false)
	root.PersistentFlags().SortFlags = false
	a.g.set.VisitAll(func(f *pflag.Flag) { root.Flags().AddFlag(f) })
	root.SetOut(a.std.out)
	root.SetErr(a.stderr())
	root.SetIn(a.std.in)
	root.SetUsageTemplate(usage)
	root.SetHelpTemplate(`{{.UsageString}}`)
	root.SetHelpCommand(a.helpCommand(ctx))
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		g := globals{set: cmd.Flags()}
		return g.flagError(err)
	})
	root.AddCommand(a.pluginCommand(), a.registryCommand(), a.trustCommand(), a.configCommand(), a.doctorCommand(), a.versionCommand(), a.explainCommand(), a.completionCommand())
	completeFlags(root)
	if withPlugins && !a.g.noPlugins {
		a.addPlugins(ctx, root)
	}
	return root
}

// builtin runs a built-in command.
func (a *app) builtin(ctx context.Context, words []string) error {
	repairs := []string{"config", "doctor", "help", "version", "explain", "completion"}
	if a.cfgErr != nil && !slices.Contains(repairs, words[0]) {
		return a.cfgErr
	}
	complete := strings.HasPrefix(words[0], "__complete")
	a.words = slices.Clone(words) // cobra changes its own
	root := a.root(ctx, complete || words[0] == "help")
	root.SetArgs(words)
	return a.interrupted(ctx, root.ExecuteContext(ctx))
}

// group is a command that only holds others; an unknown word in it is DS1002.
func group(use, short string, sub ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, SilenceErrors: true, SilenceUsage: true}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		var names []string
		for _, s := range cmd.Commands() {
			names = append(append(names, s.Name()), s.Aliases...)
		}
		e := hostabi.Errorf(hostabi.ReasonUnknownCommand, "unknown command %q for %s", args[0], cmd.CommandPath())
		if near := plugin.Suggest(args[0], names); len(near) > 0 {
			return e.WithFix("%s %s", cmd.CommandPath(), near[0])
		}
		return e.WithFix("%s --help", cmd.CommandPath())
	}
	c.AddCommand(sub...)
	return c
}

// wants checks the number of arguments.
func wants(low, high int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= low && (high < 0 || len(args) <= high) {
			return nil
		}
		return hostabi.Errorf(hostabi.ReasonUsage, "%s takes %s, got %d words", cmd.CommandPath(), what, len(args)).
			WithFix("%s --help", cmd.CommandPath())
	}
}

// helpCommand prints help of built-ins and, from their manifests, of plugins.
func (a *app) helpCommand(ctx context.Context) *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND | PLUGIN [COMMAND]]", Short: "Help about a command or plugin", SilenceErrors: true, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, words []string) error {
			root := cmd.Root()
			if len(words) == 0 {
				return root.Help()
			}
			if isBuiltin(words[0]) {
				c, rest, err := root.Find(words)
				if err != nil || len(rest) > 0 {
					return hostabi.Errorf(hostabi.ReasonUnknownCommand, "no command %q", strings.Join(words, " ")).WithFix("ds help")
				}
				return c.Help()
			}
			p, err := a.parts.store().Lookup(ctx, plugin.Name(words[0]))
			if err != nil {
				if hostabi.ReasonOf(err) == hostabi.ReasonPluginNotFound {
					return a.unknown(ctx, plugin.Name(words[0]))
				}
				return err
			}
			path, c := p.Manifest.Command(words[1:])
			return a.pluginHelp(p, path, c)
		},
	}
}

// pluginHelp prints help from the plugin manifest. c is nil for the plugin itself.
func (a *app) pluginHelp(p *plugin.Installed, path []string, c *plugin.Command) error {
	clean := func(s string) string { return term.Clean(s, 500) }
	var b strings.Builder
	sub, summary, line := p.Manifest.Commands, p.Manifest.Description, "ds "+string(p.Name)
	if c != nil {
		sub, summary = c.Commands, c.Summary
		line += " " + strings.Join(path, " ")
	}
	if summary != "" {
		fmt.Fprintf(&b, "%s\n\n", clean(summary))
	}
	if c != nil && c.Help != "" {
		for l := range strings.SplitSeq(c.Help, "\n") {
			fmt.Fprintln(&b, clean(l))
		}
		fmt.Fprintln(&b)
	}
	fmt.Fprintf(&b, "Usage:\n  %s%s\n", line, usageOf(c, len(sub) > 0))
	writeCommands(&b, sub, clean)
	if c != nil {
		writeFlags(&b, c, clean)
	}
	if c == nil {
		fmt.Fprintf(&b, "\n%s %s, %s; capabilities: ds plugin info %s --capabilities\n", p.Name, clean(p.Version), kindsOf(p), p.Name)
	}
	_, err := fmt.Fprint(a.std.out, b.String())
	return err
}

func usageOf(c *plugin.Command, group bool) string {
	if c == nil || group {
		return " COMMAND"
	}
	line := ""
	if len(c.Flags) > 0 {
		line = " [FLAGS]"
	}
	for _, arg := range c.Args {
		word := strings.ToUpper(arg.Name)
		if arg.Repeat {
			word += "..."
		}
		if !arg.Required {
			word = "[" + word + "]"
		}
		line += " " + word
	}
	return line
}

func writeCommands(b *strings.Builder, sub []plugin.Command, clean func(string) string) {
	if len(sub) == 0 {
		return
	}
	fmt.Fprintln(b, "\nCommands:")
	for _, s := range sub {
		if !s.Hidden {
			fmt.Fprintf(b, "  %-12s %s\n", clean(s.Name), clean(s.Summary))
		}
	}
}

func writeFlags(b *strings.Builder, c *plugin.Command, clean func(string) string) {
	for i, f := range c.Flags {
		if i == 0 {
			fmt.Fprintln(b, "\nFlags:")
		}
		name := "--" + f.Name
		if f.Short != "" {
			name = "-" + f.Short + ", " + name
		}
		if f.Type != "" && f.Type != "bool" {
			name += " " + strings.ToUpper(f.Type)
		}
		fmt.Fprintf(b, "  %-26s %s\n", clean(name), clean(f.Summary))
	}
	for i, e := range c.Examples {
		if i == 0 {
			fmt.Fprintln(b, "\nExamples:")
		}
		fmt.Fprintf(b, "  %s\n", clean(e))
	}
}

// addPlugins adds every usable plugin with its command tree.
func (a *app) addPlugins(ctx context.Context, root *cobra.Command) {
	for p, err := range a.parts.store().All(ctx) {
		if err != nil || slices.Contains(plugin.Reserved(), string(p.Name)) {
			continue
		}
		c := &cobra.Command{
			Use: string(p.Name), Short: term.Clean(p.Manifest.Description, 80), DisableFlagParsing: true,
			RunE: func(*cobra.Command, []string) error { return nil }, // plugins never run through this tree
		}
		a.addTree(c, p.Name, p.Manifest.Commands)
		root.AddCommand(c)
	}
}

func (a *app) addTree(parent *cobra.Command, name plugin.Name, tree []plugin.Command) {
	for _, t := range tree {
		c := &cobra.Command{
			Use: t.Name, Aliases: t.Aliases, Short: term.Clean(t.Summary, 80), Hidden: t.Hidden,
			RunE: func(*cobra.Command, []string) error { return nil },
		}
		for _, f := range t.Flags {
			usage := term.Clean(f.Summary, 80)
			if f.Type == "bool" {
				c.Flags().BoolP(f.Name, f.Short, false, usage)
				continue
			}
			c.Flags().StringP(f.Name, f.Short, "", usage)
			switch { // the flag was just made
			case len(f.Enum) > 0:
				_ = c.RegisterFlagCompletionFunc(f.Name, cobra.FixedCompletions(f.Enum, cobra.ShellCompDirectiveNoFileComp))
			case f.Complete == "dynamic":
				_ = c.RegisterFlagCompletionFunc(f.Name, a.dynamic(name))
			}
		}
		switch {
		case slices.ContainsFunc(t.Args, func(arg plugin.Arg) bool { return arg.Complete == "dynamic" }):
			c.ValidArgsFunction = a.dynamic(name)
		case !takesFiles(t):
			c.ValidArgsFunction = cobra.NoFileCompletions
		}
		a.addTree(c, name, t.Commands)
		parent.AddCommand(c)
	}
}

func takesFiles(t plugin.Command) bool {
	return slices.ContainsFunc(t.Args, func(arg plugin.Arg) bool { return arg.Type == "path" || arg.Complete == "files" })
}

// completionCommand prints cobra's script for a shell.
func (a *app) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use: "completion bash|zsh|fish|powershell", Short: "Print a completion script", Args: wants(1, 1, "one shell"), ValidArgs: shells,
		Example: "  source <(ds completion bash)",
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.std.out, true)
			case "zsh":
				return root.GenZshCompletion(a.std.out)
			case "fish":
				return root.GenFishCompletion(a.std.out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.std.out)
			}
			return hostabi.Errorf(hostabi.ReasonUsage, "no completion for %q, want %s", args[0], strings.Join(shells, ", "))
		},
	}
}
