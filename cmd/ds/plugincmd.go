package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/term"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/store"
	"github.com/delivery-station/ds/sandbox"
)

// pluginCommand is ds plugin: the installed set. Nothing below it starts a plugin but exec.
func (a *app) pluginCommand() *cobra.Command {
	return group("plugin", "Install, list and manage plugins", append(a.toggles(),
		a.pluginInstall(), a.pluginList(), a.pluginInfo(), a.pluginUpgrade(), a.pluginRollback(), a.pluginLock(), a.pluginSync(), a.pluginRun(), a.pluginRemove(),
		a.pluginPackage(), a.pluginKeygen(), a.pluginPush(), a.pluginSign(), a.pluginVerify(), a.pluginGrant(), a.pluginRevoke(), a.pluginExec())...)
}

// listed is one row of ds plugin list.
type listed struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Kind    string `json:"kind"`
	Signed  bool   `json:"signed"`
	Level   string `json:"level"`
	Caps    int    `json:"caps"`
	Upgrade string `json:"upgrade,omitempty"` // pinned, disabled, or the version that waits
	Newest  string `json:"newest,omitempty"`  // of its source, with --outdated
	Summary string `json:"summary"`
	Source  string `json:"source"`
	Problem string `json:"problem,omitempty"`
}

func kindsOf(p *plugin.Installed) string {
	var kinds []string
	for _, pr := range p.Programs {
		kinds = append(kinds, string(pr.Kind))
	}
	slices.Sort(kinds)
	return strings.Join(kinds, ",")
}

func (a *app) pluginList() *cobra.Command {
	var form string
	var outdated bool
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "Installed plugins", Args: wants(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var all []listed
			for p, err := range a.parts.store().All(cmd.Context()) {
				l := listed{
					Name: string(p.Name), Version: p.Version, Kind: kindsOf(p), Level: p.Level,
					Signed: p.Level != "" && p.Level != store.LevelUnsigned && p.Level != store.LevelLocal, Source: p.Repository,
				}
				switch {
				case p.Disabled:
					l.Upgrade = "disabled"
				case p.Pending != "":
					l.Upgrade = p.Pending + " waits"
				case p.Pinned:
					l.Upgrade = "pinned"
				}
				if p.Manifest != nil {
					l.Caps, l.Summary = len(sandbox.Requests(p)), p.Manifest.Description
				}
				if err != nil {
					e := hostabi.AsError(err)
					l.Problem = fmt.Sprintf("DS%04d %s", e.Number(), e.Msg)
					l.Summary = "not usable: " + l.Problem
				}
				all = append(all, l)
			}
			slices.SortStableFunc(all, func(x, y listed) int { return strings.Compare(x.Name, y.Name) })
			columns, failed := []string{"name", "version", "kind", "signed", "caps", "upgrade", "source=SOURCE,wide", "summary"}, error(nil)
			if outdated {
				columns = slices.Insert(columns, 2, "newest")
				all, failed = a.outdated(cmd.Context(), all)
			}
			r, err := term.RowsOf(columns, all...)
			if err == nil {
				err = a.term.Rows(a.std.out, map[string]string{"": "", "table": "table", "simple": "name"}[form], r)
			}
			if err != nil {
				return err
			}
			return failed
		},
	}
	c.Flags().BoolVar(&outdated, "outdated", false, "only plugins whose source has a newer version; asks the registries")
	c.Flags().StringVarP(&form, "format", "f", "", "table or simple, as the original had it")
	_ = c.Flags().MarkHidden("format") // --format before the command is the one to use
	return c
}

// outdated keeps the plugins that an upgrade would change, or would if they were not pinned or disabled. Nothing but
// tags is asked for.
func (a *app) outdated(ctx context.Context, all []listed) (old []listed, err error) {
	from := sources{a.parts.registry}
	source := make(map[string]store.Source)
	var names []string
	for _, l := range all {
		// What was placed by hand has no receipt; that one is damaged, the list without --outdated says.
		if r, err := a.parts.store().Receipt(plugin.Name(l.Name)); err == nil && r.Dev == "" {
			source[l.Name], names = r.Source, append(names, l.Name)
		}
	}
	err = a.each(names, func(name string) error {
		tag, err := plugin.PickVersion(from.Tags(ctx, source[name].Repository), source[name].Constraint)
		if err != nil {
			return err
		}
		l := all[slices.IndexFunc(all, func(l listed) bool { return l.Name == name })]
		if l.Newest = plugin.VersionOf(tag); l.Newest != "" && plugin.CompareVersions(l.Newest, l.Version) > 0 {
			old = append(old, l)
		}
		return nil
	})
	return old, err
}

func (a *app) pluginRemove() *cobra.Command {
	var force, dryRun, purge bool
	c := &cobra.Command{
		Use: "remove NAME...", Aliases: []string{"rm", "uninstall", "delete"}, Short: "Remove plugins", Args: wants(1, -1, "plugin names"),
		ValidArgsFunction: a.pluginNames(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(args, func(name string) error {
				if dryRun {
					p, err := a.parts.store().Receipt(plugin.Name(name))
					if err == nil {
						_, err = fmt.Fprintf(a.std.out, "Would remove %s %s\n", p.Name, p.PluginVersion)
					}
					return err
				}
				r, err := a.parts.store().Remove(cmd.Context(), plugin.Name(name))
				if force && hostabi.ReasonOf(err) == hostabi.ReasonPluginNotFound {
					return nil
				}
				if err != nil {
					return err
				}
				version := ""
				if r != nil {
					version = " " + r.PluginVersion
				}
				if purge {
					if err := a.purge(cmd.Context(), plugin.Name(name), r); err != nil {
						return err
					}
				}
				a.removed(plugin.Name(name), r)
				fmt.Fprintf(a.std.out, "Removed %s%s\n", name, version)
				a.sweep(cmd.Context())
				return nil
			})
		},
	}
	c.Flags().BoolVar(&purge, "purge", false, "also forget its grants, its signer and its state")
	c.Flags().BoolVarP(&force, "force", "f", false, "no error for a plugin that is not installed")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be done")
	return c
}

// removed tells that a plugin is gone; r is nil if its receipt was damaged.
func (a *app) removed(name plugin.Name, r *store.Receipt) {
	if r == nil {
		r = &store.Receipt{}
	}
	a.tell("plugin.removed", name, r.PluginVersion, r.Index)
}

// sweep collects what no receipt names any more and forgets its compiled code. What was asked for is done: what
// cannot be collected is a matter for the next time.
func (a *app) sweep(ctx context.Context) {
	gone, err := a.parts.store().Sweep(ctx)
	for _, d := range gone {
		err = errors.Join(err, a.parts.wasm().Forget(d))
	}
	if err != nil {
		a.log.Warn("old versions were not removed", "err", err)
	}
}

// each runs f for every item; with several, failures are reported and counted at the end.
func (a *app) each(items []string, f func(string) error) error {
	if len(items) == 1 {
		return f(items[0])
	}
	failed := 0
	for _, it := range items {
		if err := f(it); err != nil {
			a.reportText(err)
			failed++
		}
	}
	if failed > 0 {
		return &partialError{failed, len(items)}
	}
	return nil
}

func (a *app) pluginExec() *cobra.Command {
	return &cobra.Command{
		Use: "exec NAME [ARGS...]", Short: "Run a plugin whose name a built-in command has", DisableFlagParsing: true,
		ValidArgsFunction: a.pluginNames(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || args[0] == "--help" || args[0] == "-h" {
				return cmd.Help()
			}
			return a.runPlugin(cmd.Context(), plugin.Name(args[0]), args[1:], "")
		},
	}
}

// absolute joins the working directory and expands ~/.
func (a *app) absolute(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		return filepath.Join(a.paths.Home, rest)
	}
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(a.wd, path)
}

// isDir reports whether ref is written as a directory that exists: ".", "./x", "../x", "/x", "~/x".
func (a *app) isDir(ref string) bool {
	if ref != "." && ref != ".." && !strings.HasPrefix(ref, "./") && !strings.HasPrefix(ref, "../") && !strings.HasPrefix(ref, "~/") && !filepath.IsAbs(ref) {
		return false
	}
	info, err := os.Stat(a.absolute(ref))
	return err == nil && info.IsDir()
}
