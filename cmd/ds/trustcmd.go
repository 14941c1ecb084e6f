package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/term"
	"github.com/delivery-station/ds/internal/trust"
	"github.com/delivery-station/ds/plugin"
)

// trustCommand is ds trust: whose signatures count.
func (a *app) trustCommand() *cobra.Command {
	return group("trust", "Whose signatures count: keys, rules and the signers seen before",
		a.trustList(), a.trustShow(), a.trustAdd(), a.trustRemove(), a.trustRotate())
}

// trusted is one row of ds trust list: a rule of trust.yaml, a key without one, or a pin.
type trusted struct {
	For     string `json:"for"` // pattern of a rule, or repository of a pin
	Key     string `json:"key"`
	Name    string `json:"name"` // of the key in trust.yaml
	How     string `json:"how"`  // "rule: signature", or how the pin came to be
	Since   string `json:"since,omitempty"`
	Highest string `json:"highest"` // version seen of the repository
}

func (a *app) trustList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "Rules, keys and pinned signers", Args: wants(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			rows, err := a.trusted()
			if err != nil {
				return err
			}
			short := slices.Clone(rows)
			if a.cfg.String("ui.format") == "table" && a.g.jq == "" {
				for i := range short {
					short[i].Key = trust.KeyID(short[i].Key).Short()
				}
			}
			return a.rows(term.RowsOf([]string{"for", "key", "name", "how", "since=SINCE,wide", "highest"}, short...))
		},
	}
}

func (a *app) trusted() ([]trusted, error) {
	p, err := trust.LoadPolicy(a.paths.Config)
	if err != nil {
		return nil, err
	}
	pins, err := a.parts.pins().All()
	if err != nil {
		return nil, err
	}
	var rows []trusted
	used := make(map[trust.KeyID]bool)
	for _, r := range p.Rules {
		for _, k := range r.Keys {
			used[k.ID()] = true
			rows = append(rows, trusted{For: r.Match, Key: string(k.ID()), Name: nameOf(p, k.ID()), How: "rule: " + r.Require})
		}
		if len(r.Keys) == 0 {
			rows = append(rows, trusted{For: r.Match, How: "rule: " + r.Require})
		}
	}
	for _, k := range p.Keys {
		if !used[k.Key.ID()] {
			rows = append(rows, trusted{Key: string(k.Key.ID()), Name: k.Name, How: "no rule"})
		}
	}
	for _, repo := range slices.Sorted(maps.Keys(pins)) {
		pin := pins[repo]
		rows = append(rows, trusted{repo, string(pin.Key), nameOf(p, pin.Key), pin.How, pin.FirstSeen.UTC().Format(time.RFC3339), pin.Highest})
	}
	return rows, nil
}

func nameOf(p *trust.Policy, id trust.KeyID) string {
	if k := p.Find(string(id)); k != nil {
		return k.Name
	}
	return ""
}

func (a *app) trustShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID|NAME|REPOSITORY", Short: "One key: where it counts, and its text", Args: wants(1, 1, "a key or repository"),
		RunE: func(_ *cobra.Command, args []string) error {
			rows, err := a.trusted()
			if err != nil {
				return err
			}
			i := slices.IndexFunc(rows, func(r trusted) bool {
				return args[0] == r.Key || args[0] == r.Name || args[0] == r.For || len(args[0]) >= 12 && strings.HasPrefix(r.Key, strings.TrimSuffix(args[0], "…"))
			})
			if i < 0 || rows[i].Key == "" {
				return notTrusted(args[0])
			}
			id := trust.KeyID(rows[i].Key)
			key, err := a.keyOf(id)
			if err != nil {
				return err
			}
			out := struct {
				Key  string   `json:"key"`
				Name string   `json:"name"`
				For  []string `json:"for"`
				PEM  string   `json:"pem"`
			}{string(id), rows[i].Name, []string{}, string(key.PEM())}
			for _, r := range rows {
				if r.Key == out.Key && r.For != "" {
					out.For = append(out.For, r.For+" ("+r.How+")")
				}
			}
			return a.rows(term.ObjectOf([]string{"key", "name", "for", "pem"}, out))
		},
	}
}

func notTrusted(what string) error {
	return hostabi.Errorf(hostabi.ReasonUsage, "no key %q is trusted", what).WithFix("ds trust list")
}

// keyOf is a trusted key by its id: of trust.yaml or of a pin.
func (a *app) keyOf(id trust.KeyID) (*trust.Key, error) {
	p, err := trust.LoadPolicy(a.paths.Config)
	if err != nil {
		return nil, err
	}
	if k := p.Find(string(id)); k != nil {
		return k.Key, nil
	}
	pins, err := a.parts.pins().All()
	if err != nil {
		return nil, err
	}
	for _, pin := range pins {
		if pin.Key == id {
			return trust.NewKey(pin.SPKI)
		}
	}
	return nil, notTrusted(string(id))
}

func (a *app) trustAdd() *cobra.Command {
	var pattern, name string
	var dryRun bool
	c := &cobra.Command{
		Use: "add KEYFILE", Short: "Trust a public key, for the repositories that --for names", Args: wants(1, 1, "one key file"),
		Long: "Copy a public key beside the configuration and name it in trust.yaml. With --for, repositories that match must be signed\n" +
			"with it from now on.",
		Example: "  ds trust add acme.pem --for 'ghcr.io/acme/**'",
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := a.readFile(args[0], maxKey)
			if err != nil {
				return err
			}
			key, err := trust.ParseKey(text)
			if err != nil {
				e := hostabi.AsError(err)
				e.Op = args[0]
				return e
			}
			if dryRun {
				fmt.Fprintf(a.std.out, "Would trust %s%s\n", key.ID(), forWhat(pattern))
				return nil
			}
			if err := trust.AddKey(cmd.Context(), a.paths.Config, cmp.Or(name, base(args[0])), key, pattern); err != nil {
				return err
			}
			if pattern == "" {
				fmt.Fprintln(a.stderr(), "note: no rule uses the key yet; --for 'HOST/REPOSITORY/**' makes one")
			}
			fmt.Fprintf(a.std.out, "Trusted %s%s\n", key.ID(), forWhat(pattern))
			return nil
		},
	}
	c.Flags().StringVar(&pattern, "for", "", "repositories that must be signed with it: HOST/PATH with * or **")
	c.Flags().StringVar(&name, "name", "", "name in trust.yaml; else that of the file")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be done")
	return c
}

func forWhat(pattern string) string {
	if pattern == "" {
		return ""
	}
	return " for " + pattern
}

func (a *app) trustRemove() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "remove ID|NAME", Aliases: []string{"rm"}, Short: "Forget a key: in trust.yaml, and where it is pinned", Args: wants(1, 1, "one key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.distrust(cmd.Context(), args[0], dryRun)
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be done")
	return c
}

func (a *app) distrust(ctx context.Context, what string, dryRun bool) error {
	p, err := trust.LoadPolicy(a.paths.Config)
	if err != nil {
		return err
	}
	id := trust.KeyID(what)
	if k := p.Find(what); k != nil {
		id = k.Key.ID()
	}
	var pinned []string
	forget := func(all map[string]*trust.Pin) error {
		pinned = nil
		for repo, pin := range all {
			if pin.Key == id {
				pinned = append(pinned, repo)
				delete(all, repo)
			}
		}
		return nil
	}
	removed := p.Find(what) != nil
	if !dryRun {
		if removed, err = trust.RemoveKey(ctx, a.paths.Config, what); err != nil {
			return err
		}
	}
	if err := a.editPins(ctx, forget, dryRun); err != nil {
		return err
	}
	if !removed && len(pinned) == 0 {
		return notTrusted(what)
	}
	verb := "Removed"
	if dryRun {
		verb = "Would remove"
	}
	slices.Sort(pinned)
	fmt.Fprintf(a.std.out, "%s %s\n", verb, id)
	for _, repo := range pinned {
		fmt.Fprintf(a.std.out, "  pin of %s\n", repo)
	}
	return nil
}

func (a *app) trustRotate() *cobra.Command {
	var to string
	var dryRun bool
	c := &cobra.Command{
		Use: "rotate NAME|REPOSITORY --to KEYFILE", Short: "Accept another signer for a plugin, by hand", Args: wants(1, 1, "one plugin"),
		Long: "Move the pin of a plugin's repository to another public key. Grants stay with the signer that has them: the plugin of\n" +
			"the new one asks again. Compare the key with its publisher first.",
		ValidArgsFunction: a.pluginNames(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			if to == "" {
				return hostabi.Errorf(hostabi.ReasonUsage, "--to KEYFILE is required").WithFix("ds trust rotate %s --to KEYFILE", args[0])
			}
			return a.rotate(cmd.Context(), args[0], to, dryRun)
		},
	}
	c.Flags().StringVar(&to, "to", "", "public key file of the new signer")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be done")
	return c
}

func (a *app) rotate(ctx context.Context, what, file string, dryRun bool) error {
	text, err := a.readFile(file, maxKey)
	if err != nil {
		return err
	}
	key, err := trust.ParseKey(text)
	if err != nil {
		e := hostabi.AsError(err)
		e.Op = file
		return e
	}
	repo := what
	if !strings.Contains(what, "/") {
		r, err := a.parts.store().Receipt(plugin.Name(what))
		if err != nil {
			return err
		}
		repo = r.Source.Repository
	}
	var from trust.KeyID
	move := func(all map[string]*trust.Pin) error {
		pin := all[repo]
		if pin == nil {
			return hostabi.Errorf(hostabi.ReasonUsage, "no signer is pinned for %s", repo).WithFix("ds trust list")
		}
		moved := *pin
		from, moved.Key, moved.SPKI, moved.How, moved.FirstSeen = pin.Key, key.ID(), key.DER(), trust.HowRotation, time.Now().UTC().Truncate(time.Second)
		all[repo] = &moved
		return nil
	}
	if err := a.editPins(ctx, move, dryRun); err != nil {
		return err
	}
	verb := "Moved"
	if dryRun {
		verb = "Would move"
	}
	fmt.Fprintf(a.std.out, "%s %s from %s to %s\n", verb, repo, from, key.ID())
	return nil
}

// editPins changes pins, or only tries what would happen.
func (a *app) editPins(ctx context.Context, change func(map[string]*trust.Pin) error, dryRun bool) error {
	if !dryRun {
		return a.parts.pins().Edit(ctx, change)
	}
	all, err := a.parts.pins().All()
	if err != nil {
		return err
	}
	return change(all)
}

// base is a file name without its directories and its last extension.
func base(file string) string {
	name := filepath.Base(file)
	return strings.TrimSuffix(strings.TrimSuffix(name, filepath.Ext(name)), ".pem")
}
