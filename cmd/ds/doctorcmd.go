package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/internal/state"
	"github.com/delivery-station/ds/internal/term"
)

// finding is one row of ds doctor.
type finding struct {
	Check  string `json:"check"`
	Status string `json:"status"` // ok, repaired, skipped, error
	What   string `json:"what"`
	Path   string `json:"path,omitempty"`
	Fix    string `json:"fix,omitempty"`
}

// examination is one check: what it found, and when that is nothing, what to say instead.
type examination struct {
	name string
	look func(ctx context.Context, fix bool) (found []finding, fine string)
}

func (c examination) examine(ctx context.Context, fix bool) []finding {
	found, fine := c.look(ctx, fix)
	if len(found) == 0 {
		return []finding{{Status: "ok", What: fine}}
	}
	return found
}

// doctorCommand looks for what is broken and, with --fix, mends what can be mended without losing anything. It
// starts no plugin and asks no network.
func (a *app) doctorCommand() *cobra.Command {
	checks := []examination{{"config", a.examineConfig}, {"plugins", a.examinePlugins}, {"cache", a.examineCache}, {"state", a.examineState}}
	names := make([]string, len(checks))
	for i, c := range checks {
		names[i] = c.name
	}
	var fix bool
	c := &cobra.Command{
		Use: "doctor [CHECK...]", Short: "Look for what is broken: " + strings.Join(names, ", "), ValidArgs: names,
		Example: "  ds doctor\n  ds doctor cache --fix",
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, word := range args {
				if !slices.Contains(names, word) {
					return hostabi.Errorf(hostabi.ReasonUsage, "no check is called %q, want %s", word, strings.Join(names, ", "))
				}
			}
			var all []finding
			for _, c := range checks {
				if len(args) > 0 && !slices.Contains(args, c.name) {
					continue
				}
				found := []finding{{Status: "skipped", What: "the configuration is broken"}}
				if a.cfgErr == nil || c.name == "config" {
					found = c.examine(cmd.Context(), fix)
				}
				for _, f := range found {
					f.Check = c.name
					all = append(all, f)
				}
			}
			if err := a.rows(term.RowsOf([]string{"check", "status", "what", "path", "fix"}, all...)); err != nil {
				return err
			}
			bad := slices.DeleteFunc(slices.Clone(all), func(f finding) bool { return f.Status != "error" })
			if len(bad) > 0 {
				return &partialError{len(bad), len(all)}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&fix, "fix", false, "mend what can be mended: damaged files are put aside, leftovers removed")
	return c
}

func failure(err error) []finding {
	e := hostabi.AsError(err)
	return []finding{{Status: "error", What: fmt.Sprintf("DS%04d %s", e.Number(), message(err)), Fix: e.Fix}}
}

// findings are the problems of a store.
func findings(problems []atomicfile.Problem, err error) (found []finding) {
	for _, p := range problems {
		f := finding{Status: "error", What: p.What, Path: p.Path, Fix: p.Fix}
		if strings.HasSuffix(p.What, " (repaired)") {
			f.Status, f.What = "repaired", strings.TrimSuffix(p.What, " (repaired)")
		}
		found = append(found, f)
	}
	if err != nil {
		found = append(found, failure(err)...)
	}
	return found
}

func (a *app) examineConfig(context.Context, bool) ([]finding, string) {
	if a.cfgErr != nil {
		f := failure(a.cfgErr)
		f[0].Fix = "ds config validate"
		return f, ""
	}
	if files := a.cfg.Files(); len(files) > 0 {
		return nil, "valid: " + strings.Join(files, ", ")
	}
	return nil, "no file; defaults, variables and flags are valid"
}

func (a *app) examinePlugins(ctx context.Context, _ bool) (found []finding, fine string) {
	n := 0
	for p, err := range a.parts.store().All(ctx) {
		n++
		if err != nil {
			f := failure(err)
			if name := string(p.Name); !strings.Contains(f[0].What, name) {
				f[0].What = name + ": " + f[0].What
			}
			found = append(found, f...)
		}
	}
	return found, fmt.Sprintf("%d installed", n)
}

func (a *app) examineCache(ctx context.Context, fix bool) ([]finding, string) {
	c, err := a.parts.cache()
	if err != nil {
		return failure(err), ""
	}
	if found := findings(c.Check(ctx, fix)); len(found) > 0 {
		return found, ""
	}
	u, err := c.Usage(ctx)
	if err != nil {
		return failure(err), ""
	}
	fine := fmt.Sprintf("%d entries, %s on disk", u.Entries, hostabi.SizeText(u.DiskBytes))
	if u.MaxBytes > 0 {
		fine += " of " + hostabi.SizeText(u.MaxBytes)
	}
	return nil, fine
}

// examineState looks at files; over NATS there are none.
func (a *app) examineState(ctx context.Context, fix bool) ([]finding, string) {
	if _, err := a.parts.safeState(); err != nil {
		return failure(err), ""
	}
	s, ok := a.parts.state().(*state.Store)
	if !ok {
		return nil, "kept on NATS; not looked at"
	}
	return findings(s.Check(ctx, fix)), "no damaged files"
}
