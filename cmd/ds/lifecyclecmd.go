package main

import (
	"cmp"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/term"
	"github.com/delivery-station/ds/internal/trust"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/install"
	"github.com/delivery-station/ds/plugin/store"
	"github.com/delivery-station/ds/sandbox"
)

// upgradeFlags are the flags of ds plugin upgrade.
type upgradeFlags struct {
	grant, deny   []string
	to            string
	all           bool
	trustKey      string
	allowUnsigned bool
	downgrade     bool
	force         bool
	dryRun        bool
}

func (a *app) pluginUpgrade() *cobra.Command {
	var f upgradeFlags
	c := &cobra.Command{
		Use: "upgrade {NAME...|--all}", Aliases: []string{"update"}, Short: "Bring plugins to their newest version", Args: cobra.ArbitraryArgs,
		Long: "Bring plugins to the newest version of their source that their constraint allows. Pinned, disabled and local plugins are\n" +
			"skipped. A version that asks for more than was granted is installed but waits; the old one goes on until it is granted.",
		Example:           "  ds plugin upgrade --all --dry-run\n  ds plugin upgrade porter --to 1.4.0",
		ValidArgsFunction: a.pluginNames(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.all == (len(args) > 0) {
				return hostabi.Errorf(hostabi.ReasonUsage, "ds plugin upgrade takes plugin names or --all").WithFix("ds plugin upgrade --all")
			}
			if (f.allowUnsigned || f.to != "" || f.trustKey != "") && len(args) != 1 {
				return hostabi.Errorf(hostabi.ReasonUsage, "--to, --trust-key and --allow-unsigned take exactly one plugin")
			}
			if f.trustKey != "" {
				if _, err := trust.ParseKeyID(f.trustKey); err != nil {
					return err
				}
			}
			if f.all {
				args = a.upgradable(cmd.Context())
			}
			defer func() { a.sweep(cmd.Context()) }()
			return a.each(args, func(name string) error { return a.upgrade(cmd.Context(), plugin.Name(name), f) })
		},
	}
	fl := c.Flags()
	fl.BoolVar(&f.all, "all", false, "every plugin that came from a registry or layout")
	fl.StringVar(&f.to, "to", "", "version or constraint, this time only")
	fl.StringArrayVar(&f.grant, "grant", nil, "grant CAP=SCOPE, or manifest = all it asks for (repeatable)")
	fl.StringArrayVar(&f.deny, "deny", nil, "deny CAP=SCOPE (repeatable)")
	fl.BoolVar(&f.allowUnsigned, "allow-unsigned", false, "accept this unsigned package")
	fl.StringVar(&f.trustKey, "trust-key", "", "trust the key with this id for the repository")
	fl.BoolVar(&f.downgrade, "allow-downgrade", false, "accept a version below the installed one")
	fl.BoolVar(&f.force, "force", false, "accept other content under the same version")
	fl.BoolVar(&f.dryRun, "dry-run", false, "say what would be done")
	return c
}

// upgradable lists the installed plugins; those that are skipped are told one by one.
func (a *app) upgradable(ctx context.Context) (names []string) {
	for p, err := range a.parts.store().All(ctx) {
		if err != nil || !p.HandPlaced { // what is wrong with it is told in its turn
			names = append(names, string(p.Name))
		}
	}
	return names
}

func (a *app) upgrade(ctx context.Context, name plugin.Name, f upgradeFlags) error {
	r, err := a.parts.store().Receipt(name)
	if err != nil {
		if p, lerr := a.parts.store().Lookup(ctx, name); lerr == nil && p.HandPlaced {
			return a.skip(name, "placed by hand")
		}
		return err
	}
	switch {
	case r.Dev != "":
		return a.skip(name, "run in place from "+r.Dev)
	case r.Pinned:
		return a.skip(name, "pinned at "+r.PluginVersion+"; to free it: ds plugin unpin "+string(name))
	case r.Disabled:
		return a.skip(name, "disabled; to enable it: ds plugin enable "+string(name))
	}
	req := install.Request{
		Ref: r.Source.Repository, Constraint: r.Source.Constraint, To: f.to, TrustKey: f.trustKey, AllowUnsigned: f.allowUnsigned, Force: f.force,
		Downgrade: f.downgrade, DryRun: f.dryRun,
	}
	if len(r.Kinds) == 1 {
		req.Kind = r.Kinds[0].Kind
	} else {
		req.Both = true
	}
	res, err := a.parts.newInstaller(consent{a: a, flags: a.grantFlags(f.grant, f.deny), ref: req.Ref}).Install(ctx, req)
	if err != nil {
		return upgradeHint(err, name, f)
	}
	if !f.dryRun {
		a.relock(ctx, name)
	}
	return a.upgraded(r.PluginVersion, res, f.dryRun)
}

// upgradeHint makes the hint of a refusal that a flag can answer one for upgrade.
func upgradeHint(err error, name plugin.Name, f upgradeFlags) error {
	e := hostabi.AsError(err)
	line := "ds plugin upgrade " + string(name)
	if f.to != "" {
		line += " --to " + sandbox.Quote(f.to)
	}
	switch {
	case e.Fix == "":
		return err
	case e.Reason == hostabi.ReasonUnsigned:
		line += " --allow-unsigned"
	case e.Reason == hostabi.ReasonSignerUntrusted:
		line += " --trust-key " + e.Meta["key"]
	default:
		return err
	}
	return e.WithFix("%s", line)
}

func (a *app) skip(name plugin.Name, why string) error {
	_, err := fmt.Fprintf(a.std.out, "%s is skipped: %s\n", name, term.Clean(why, 400))
	return err
}

// upgraded says what an upgrade did or would do.
func (a *app) upgraded(from string, r install.Result, dryRun bool) error {
	p := r.Plugin
	step := fmt.Sprintf("%s %s → %s", p.Name, term.Clean(from, 40), term.Clean(p.Version, 40))
	switch {
	case r.Already:
		_, err := fmt.Fprintf(a.std.out, "%s %s is the newest version\n", p.Name, p.Version)
		return err
	case !dryRun:
		a.tell("plugin.installed", p.Name, p.Version, p.Index)
		_, err := fmt.Fprintf(a.std.out, "Upgraded %s (%s)\n", step, kindsOf(p))
		return err
	}
	d, err := a.asked(p)
	if err != nil {
		return err
	}
	what := "capabilities unchanged"
	switch {
	case len(d.Required()) > 0:
		what = "will wait for consent"
	case len(d.Removed) > 0 || d.Wider():
		what = "capabilities change"
	}
	_, err = fmt.Fprintf(a.std.out, "%s   %s\n%s", step, what, a.changes(d))
	return err
}

func (a *app) pluginRollback() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "rollback NAME", Short: "Go back to the version before the last upgrade, and pin it", Args: wants(1, 1, "one plugin"),
		ValidArgsFunction: a.pluginNames(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, name := a.parts.store(), plugin.Name(args[0])
			if dryRun {
				to, err := s.Previous(name)
				if err == nil {
					_, err = fmt.Fprintf(a.std.out, "Would go back to %s %s\n", name, to.PluginVersion)
				}
				return err
			}
			from, to, err := s.Rollback(cmd.Context(), name)
			if err != nil {
				return err
			}
			was := "a damaged receipt"
			if from != nil {
				was = from.PluginVersion
			}
			fmt.Fprintf(a.std.out, "%s %s → %s, pinned; to upgrade again: ds plugin unpin %s\n", name, was, to.PluginVersion, name)
			a.tell("plugin.installed", name, to.PluginVersion, to.Index)
			a.relock(cmd.Context(), name)
			a.sweep(cmd.Context())
			return nil
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be done")
	return c
}

// toggle makes one of pin, unpin, enable and disable.
func (a *app) toggle(word, short, done string, change func(*store.Receipt)) *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: word + " NAME...", Short: short, Args: wants(1, -1, "plugin names"), ValidArgsFunction: a.pluginNames(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(args, func(arg string) (err error) {
				var r *store.Receipt
				if dryRun {
					r, err = a.parts.store().Receipt(plugin.Name(arg))
				} else {
					r, err = a.parts.store().Change(cmd.Context(), plugin.Name(arg), change)
				}
				if err != nil {
					return err
				}
				would := ""
				if dryRun {
					would = "would be "
				}
				_, err = fmt.Fprintf(a.std.out, "%s %s %s%s\n", r.Name, cmp.Or(r.PluginVersion, "?"), would, done)
				return err
			})
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be done")
	return c
}

func (a *app) toggles() []*cobra.Command {
	return []*cobra.Command{
		a.toggle("pin", "Keep the version: upgrades skip it", "pinned", func(r *store.Receipt) { r.Pinned = true }),
		a.toggle("unpin", "Let upgrades change the version again", "not pinned", func(r *store.Receipt) { r.Pinned = false }),
		a.toggle("disable", "Do not run a plugin until it is enabled", "disabled", func(r *store.Receipt) { r.Disabled = true }),
		a.toggle("enable", "Run a disabled plugin again", "enabled", func(r *store.Receipt) { r.Disabled = false }),
	}
}
