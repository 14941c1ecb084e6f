package main

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/term"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/install"
	"github.com/delivery-station/ds/plugin/store"
	"github.com/delivery-station/ds/sandbox"
)

// lockPath is the lock file: what the user names, else the one of this installation. Nothing in a working directory
// counts by itself.
func (a *app) lockPath(file string) string {
	if file == "" {
		return filepath.Join(a.paths.Data, "ds.lock")
	}
	return a.absolute(file)
}

func (a *app) pluginLock() *cobra.Command {
	var file string
	var check, dryRun bool
	c := &cobra.Command{
		Use: "lock", Short: "Write down exactly what is installed, for other machines", Args: wants(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path := a.lockPath(file)
			now, err := a.lockedNow(cmd.Context())
			if err != nil {
				return err
			}
			if check {
				return a.checkLock(path, now)
			}
			b, err := now.Format()
			if err != nil {
				return err
			}
			if dryRun {
				_, err := a.std.out.Write(b)
				return err
			}
			err = a.parts.store().EditLock(cmd.Context(), path, func(l store.LockFile) error {
				clear(l)
				maps.Copy(l, now)
				return nil
			})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.std.out, "Wrote %s (%s)\n", path, counted(len(now), "plugin"))
			return err
		},
	}
	c.Flags().StringVarP(&file, "file", "f", "", "lock file")
	c.Flags().BoolVar(&check, "check", false, "compare the lock file with what is installed")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "print what would be written")
	return c
}

// lockedNow is the lock file of what is installed.
func (a *app) lockedNow(ctx context.Context) (store.LockFile, error) {
	s, out := a.parts.store(), make(store.LockFile)
	for p, err := range s.All(ctx) {
		if p.HandPlaced {
			continue
		}
		if err != nil {
			return nil, err
		}
		r, err := s.Receipt(p.Name)
		if err != nil {
			return nil, err
		}
		l, ok, err := s.Locked(r)
		if err != nil {
			return nil, err
		}
		if !ok {
			fmt.Fprintf(a.stderr(), "note: %s is run in place from %s and is not locked\n", p.Name, term.Clean(r.Dev, 400))
			continue
		}
		out[p.Name] = l
	}
	return out, nil
}

func (a *app) checkLock(path string, now store.LockFile) error {
	want, err := a.parts.store().ReadLock(path)
	if err != nil {
		return err
	}
	count := 0
	for _, name := range slices.Sorted(maps.Keys(want)) {
		got, ok := now[name]
		lines := want[name].Differences(got)
		if !ok {
			lines = []string{"is not installed"}
		}
		for _, l := range lines {
			fmt.Fprintf(a.std.out, "%s %s\n", name, term.Clean(l, 400))
			count++
		}
	}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if _, ok := want[name]; !ok {
			fmt.Fprintf(a.std.out, "%s is installed, not locked\n", name)
			count++
		}
	}
	if count == 0 {
		return nil
	}
	return hostabi.Errorf(hostabi.ReasonLockDrift, "%s and what is installed differ in %s", path, counted(count, "place")).WithFix("ds plugin lock\nds plugin sync")
}

// syncFlags are the flags of ds plugin sync.
type syncFlags struct {
	file, trustKey                string
	grant                         []string
	frozen, prune, dryRun, inLock bool
}

func (a *app) pluginSync() *cobra.Command {
	var f syncFlags
	c := &cobra.Command{
		Use: "sync", Short: "Install exactly what a lock file says", Args: wants(0, 0, "no arguments"),
		Long: "Install exactly what a lock file says: the digests, the signers and what the plugins ask for. The file may be a bundle\n" +
			"of ds porter bundle, which holds a lock file and its plugins. A lock file grants and trusts nothing by itself:\n" +
			"--grant lock accepts the requests that it pins, --trust-key lock the signers and the unsigned digests.",
		Example: "  ds plugin sync -f ds.lock --frozen --grant lock --trust-key lock",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.trustKey != "" && f.trustKey != "lock" {
				return hostabi.Errorf(hostabi.ReasonUsage, "--trust-key of sync is %q, want lock", f.trustKey)
			}
			f.inLock = f.trustKey == "lock"
			return a.sync(cmd.Context(), f)
		},
	}
	fl := c.Flags()
	fl.StringVarP(&f.file, "file", "f", "", "lock file or bundle")
	fl.BoolVar(&f.frozen, "frozen", false, "change nothing if anything differs from the lock file")
	fl.BoolVar(&f.frozen, "locked", false, "the same as --frozen")
	fl.BoolVar(&f.prune, "prune", false, "remove installed plugins that are not listed")
	fl.StringArrayVar(&f.grant, "grant", nil, "lock = what the lock file pins, or CAP=SCOPE (repeatable)")
	fl.StringVar(&f.trustKey, "trust-key", "", "lock = trust the signers that the lock file names")
	fl.BoolVar(&f.dryRun, "dry-run", false, "say what would be done")
	return c
}

func (a *app) sync(ctx context.Context, f syncFlags) error {
	path, s := a.lockPath(f.file), a.parts.store()
	b, want, err := a.lockSource(ctx, path)
	if err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(want))
	if f.frozen { // everything is checked before anything changes
		for _, name := range names {
			e := want[name]
			if e.Index == "" {
				return hostabi.Errorf(hostabi.ReasonLockDrift, "%s: the lock file names no index; nothing was changed", name).WithFix("ds plugin sync -f %s", sandbox.Quote(path))
			}
			if _, err := a.syncOne(ctx, b, name, e, f, true); err != nil {
				return err
			}
		}
	}
	items := make([]string, len(names))
	for i, n := range names {
		items[i] = string(n)
	}
	completed := make(store.LockFile)
	err = a.each(items, func(item string) error {
		name := plugin.Name(item)
		r, err := a.syncOne(ctx, b, name, want[name], f, f.dryRun)
		if err != nil {
			return err
		}
		if want[name].Index == "" && !f.dryRun {
			if completed[name], _, err = a.lockedOf(r.Plugin); err != nil {
				return err
			}
		}
		return a.installed(r, f.dryRun)
	})
	if len(completed) > 0 && b == nil {
		if lerr := s.EditLock(ctx, path, func(l store.LockFile) error { maps.Copy(l, completed); return nil }); err == nil {
			err = lerr
		}
	}
	if f.prune && err == nil {
		err = a.prune(ctx, want, f.dryRun)
	}
	if !f.dryRun {
		a.sweep(ctx)
	}
	return err
}

// lockSource reads a lock file; of a bundle also where its plugins are.
func (a *app) lockSource(ctx context.Context, path string) (*bundle, store.LockFile, error) {
	file, _, ok := a.splitBundle(path)
	if !ok {
		want, err := a.parts.store().ReadLock(path)
		return nil, want, err
	}
	b, err := a.openBundle(ctx, file)
	if err != nil {
		return nil, nil, err
	}
	want, err := b.lock(ctx)
	return b, want, err
}

func (a *app) lockedOf(p *plugin.Installed) (store.Locked, bool, error) {
	r, err := a.parts.store().Receipt(p.Name)
	if err != nil {
		return store.Locked{}, false, err
	}
	return a.parts.store().Locked(r)
}

// syncOne brings one plugin to what its entry says, or checks whether it could.
func (a *app) syncOne(ctx context.Context, b *bundle, name plugin.Name, e store.Locked, f syncFlags, dryRun bool) (install.Result, error) {
	req := install.Request{Ref: e.Source, Constraint: e.Constraint, DryRun: dryRun}
	if e.Index != "" {
		req.Ref, req.Exact = e.Source+"@"+string(e.Index), true
		if f.inLock {
			req.AllowUnsigned = e.Signer == "none"
			if !req.AllowUnsigned {
				req.TrustKey, req.TrustHow = e.Signer, "lock"
			}
		}
	}
	if r, err := a.parts.store().Receipt(name); err == nil && r.Dev == "" {
		req.Both = len(r.Kinds) > 1
		if len(r.Kinds) == 1 {
			req.Kind = r.Kinds[0].Kind
		}
	}
	req.Check = func(p *plugin.Installed, artifacts map[string]hostabi.Digest) error {
		if p.Name != name {
			return drift(name, []string{"the package is called " + string(p.Name)})
		}
		if b != nil {
			if err := b.check(a, p); err != nil {
				return err
			}
		}
		if e.Index == "" {
			return nil
		}
		return drift(name, e.Differences(store.Locked{
			Source: p.Repository, Version: p.Version, Index: p.Index, Artifacts: artifacts, Signer: p.Signer, Level: p.Level, Capabilities: p.RequestDigest,
		}))
	}
	c := consent{a: a, flags: a.grantFlags(f.grant, nil), ref: req.Ref}
	c.flags.Lock = e.Capabilities
	if b != nil {
		req.Via, c.ref, c.exact = b.path, b.refOf(e.Source), true
	}
	r, err := a.parts.installerFrom(b, c).Install(ctx, req)
	if err == nil && dryRun && f.frozen && !a.term.Facts().Prompts {
		_, err = c.Ask(ctx, r.Plugin, nil) // nothing may fail half way for want of a grant
	}
	if err != nil || !r.Already || dryRun {
		return r, err
	}
	commit, err := c.Ask(ctx, r.Plugin, nil) // what is installed already needs its grants too
	if err == nil && commit != nil {
		err = commit(ctx)
	}
	return r, err
}

func drift(name plugin.Name, lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	return hostabi.Errorf(hostabi.ReasonLockDrift, "%s differs from the lock file: %s", name, strings.Join(lines, "; "))
}

// prune removes installed plugins that the lock file does not list.
func (a *app) prune(ctx context.Context, want store.LockFile, dryRun bool) error {
	var gone []string
	for p, err := range a.parts.store().All(ctx) {
		if _, ok := want[p.Name]; !ok && !p.HandPlaced && (err != nil || !strings.HasPrefix(p.Repository, "dir:")) {
			gone = append(gone, string(p.Name))
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return a.each(gone, func(name string) error {
		word := "Would remove"
		if !dryRun {
			word = "Removed"
			r, err := a.parts.store().Remove(ctx, plugin.Name(name))
			if err != nil {
				return err
			}
			a.removed(plugin.Name(name), r)
		}
		_, err := fmt.Fprintf(a.std.out, "%s %s\n", word, name)
		return err
	})
}

// relock brings the entries of changed plugins in the lock file of this installation up to date, if it lists them.
func (a *app) relock(ctx context.Context, names ...plugin.Name) {
	path, s := a.lockPath(""), a.parts.store()
	have, err := s.ReadLock(path)
	if err != nil || !slices.ContainsFunc(names, func(n plugin.Name) bool { _, ok := have[n]; return ok }) {
		return // there is none, or it says nothing of them; a damaged one is told by lock --check
	}
	err = s.EditLock(ctx, path, func(l store.LockFile) error {
		for _, name := range names {
			r, err := s.Receipt(name)
			if _, listed := l[name]; !listed || err != nil {
				continue
			}
			if e, ok, err := s.Locked(r); err == nil && ok {
				l[name] = e
			}
		}
		return nil
	})
	if err != nil {
		a.log.Warn("the lock file was not updated", "path", path, "err", err)
	}
}
