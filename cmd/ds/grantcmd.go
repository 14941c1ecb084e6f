package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/trust"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/install"
	"github.com/delivery-station/ds/plugin/store"
	"github.com/delivery-station/ds/sandbox"
)

func (a *app) pluginGrant() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "grant NAME|REF [CAP=SCOPE...]", Short: "Allow a plugin what it asks for", Args: wants(1, -1, "a plugin and what to grant"),
		Long: "Allow a plugin what it asks for, before or after it is installed. Without words everything that is not settled is asked on\n" +
			"the terminal. An upgrade that waits for consent becomes the active version as soon as everything it needs is granted.",
		ValidArgsFunction: a.pluginNames(true),
		Example:           "  ds plugin grant porter 'registry.pull=ghcr.io/acme/**'\n  ds plugin grant porter manifest",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.grant(cmd.Context(), args[0], args[1:], dryRun)
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be granted")
	return c
}

func (a *app) pluginRevoke() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "revoke NAME|REF CAP=SCOPE...", Short: "Take a grant back", Args: wants(2, -1, "a plugin and what to revoke"),
		ValidArgsFunction: a.pluginNames(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.grantee(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			grants, err := a.parts.grants()
			if err != nil {
				return err
			}
			if dryRun {
				if _, err := grants.Without(p, args[1:]...); err != nil {
					return err
				}
				_, err := fmt.Fprintf(a.std.out, "Would take from %s %s: %s\n", p.Name, p.Version, strings.Join(args[1:], " "))
				return err
			}
			if err := grants.Revoke(cmd.Context(), p, args[1:]...); err != nil {
				return err
			}
			return a.capabilities(p)
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be revoked")
	return c
}

// grantee is the plugin that a grant is about: an installed one, also a disabled one, or what a reference names.
func (a *app) grantee(ctx context.Context, arg string) (*plugin.Installed, error) {
	if a.isDir(arg) || strings.ContainsAny(arg, "/:@") {
		return a.named(ctx, arg)
	}
	if r, err := a.parts.store().Receipt(plugin.Name(arg)); err == nil {
		return a.parts.store().Installed(r)
	}
	return a.parts.store().Lookup(ctx, plugin.Name(arg))
}

// named is the plugin that a reference names, which need not be installed.
func (a *app) named(ctx context.Context, ref string) (*plugin.Installed, error) {
	ref, linked := a.place(ref)
	if linked {
		return a.linked(ref)
	}
	base, constraint := splitConstraint(ref)
	// A grant installs nothing, and that of an unsigned package is for its digest only.
	r, err := a.parts.newInstaller(consent{a: a}).Install(ctx, install.Request{
		Ref: base, Constraint: constraint, AllowUnsigned: true, Downgrade: true, Force: true, DryRun: true,
	})
	return r.Plugin, err
}

// grant records words, or what the user says on the terminal, and activates the version that waited for it.
func (a *app) grant(ctx context.Context, arg string, words []string, dryRun bool) error {
	p, err := a.grantee(ctx, arg)
	if err != nil {
		return err
	}
	grants, err := a.parts.grants()
	if err != nil {
		return err
	}
	var pending, active *plugin.Installed
	if r, err := a.parts.store().Pending(plugin.Name(arg)); err == nil {
		if pending, err = a.parts.store().Installed(r); err != nil {
			return err
		}
	}
	old, _, err := grants.Lookup(p)
	if err != nil {
		return err
	}
	g, err := sandbox.Consent{Grant: words}.ApplyTo(p, old)
	if pending != nil {
		have, _, lerr := grants.Lookup(pending)
		if lerr != nil {
			return lerr
		}
		// What only the active version asks for is granted to it, everything else to the version that waits.
		if next, perr := (sandbox.Consent{Grant: words}).ApplyTo(pending, have); perr == nil || err != nil {
			active, p, old, g, err = p, pending, have, next, perr
		}
	}
	if err != nil {
		return err
	}
	if d := sandbox.CompareTo(p, g); len(words) == 0 && d.Wider() {
		if !a.term.Facts().Prompts {
			return hostabi.Errorf(hostabi.ReasonGrantMissing, "%s %s: say what to grant, there is no terminal to ask on", p.Name, p.Version).
				WithFix("%s", d.Command(append(d.Added, d.Widened...)))
		}
		if g, err = (consent{a: a}).prompt(ctx, p, active, d, g); err != nil {
			return err
		}
	}
	missing := sandbox.CompareTo(p, g)
	if dryRun {
		return a.wouldGrant(p, active, sandbox.CompareTo(p, old), missing)
	}
	if err := grants.Grant(ctx, g); err != nil {
		return err
	}
	a.tell("plugin.granted", p.Name, p.Version, p.Index)
	if active != nil {
		if len(missing.Required()) > 0 {
			return waits(p, active, missing)
		}
		if _, err := a.parts.store().Activate(ctx, p.Name, p.Index); err != nil {
			return err
		}
		a.tell("plugin.installed", p.Name, p.Version, p.Index)
		a.relock(ctx, p.Name)
		fmt.Fprintf(a.stderr(), "note: %s %s is active now, %s is kept for ds plugin rollback %s\n", p.Name, p.Version, active.Version, p.Name)
	}
	return a.capabilities(p)
}

// wouldGrant says what a grant would settle and what would be left.
func (a *app) wouldGrant(p, active *plugin.Installed, before, after sandbox.Diff) error {
	open := func(d sandbox.Diff) []string { return sandbox.Words(append(d.Added, d.Widened...)) }
	left := open(after)
	fmt.Fprintf(a.std.out, "Would grant %s %s:\n", p.Name, p.Version)
	for _, w := range open(before) {
		if !slices.Contains(left, w) {
			fmt.Fprintf(a.std.out, "  + %s\n", w)
		}
	}
	if active != nil && len(after.Required()) == 0 {
		fmt.Fprintf(a.std.out, "%s %s would become active\n", p.Name, p.Version)
	}
	return nil
}

// wouldInstall says what an installation would do and what it would ask for.
func (a *app) wouldInstall(r install.Result) error {
	p := r.Plugin
	fmt.Fprintf(a.std.out, "Would install %s %s from %s@%s; it asks for %d capabilities\n", p.Name, p.Version, p.Repository, p.Index, len(sandbox.Requests(p)))
	d, err := a.asked(p)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(a.std.out, a.changes(d))
	return err
}

// asked is what p asks for beyond what was granted.
func (a *app) asked(p *plugin.Installed) (sandbox.Diff, error) {
	grants, err := a.parts.grants()
	if err != nil {
		return sandbox.Diff{}, err
	}
	g, _, err := grants.Lookup(p)
	return sandbox.CompareTo(p, g), err
}

// purge forgets everything about a removed plugin: what it was granted, what it kept, whose its name was.
func (a *app) purge(ctx context.Context, name plugin.Name, r *store.Receipt) error {
	if r != nil {
		grants, err := a.parts.grants()
		if err != nil {
			return err
		}
		if err := grants.Purge(ctx, r.Source.Repository); err != nil {
			return err
		}
		if err := a.parts.pins().Edit(ctx, func(all map[string]*trust.Pin) error {
			delete(all, r.Source.Repository)
			return nil
		}); err != nil {
			return err
		}
	}
	c, err := a.parts.cache()
	if err != nil {
		return err
	}
	if err := c.Retire(name); err != nil {
		return err
	}
	if _, err := a.parts.safeState(); err != nil {
		return err
	}
	if err := a.parts.state().Remove(ctx, name); err != nil {
		return err
	}
	return a.parts.store().Disown(ctx, name)
}
