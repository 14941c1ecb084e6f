package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/internal/term"
	"github.com/delivery-station/ds/internal/trust"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/install"
	"github.com/delivery-station/ds/plugin/store"
	"github.com/delivery-station/ds/sandbox"
)

// installFlags are the flags of ds plugin install.
type installFlags struct {
	grant, deny                  []string
	version, backend, trustKey   string
	allowUnsigned, force, dryRun bool
	downgrade, pin               bool
}

func (a *app) pluginInstall() *cobra.Command {
	var f installFlags
	c := &cobra.Command{
		Use: "install REF...", Short: "Install plugins from a registry, an OCI layout or a directory", Args: wants(1, -1, "references"),
		Long: "Install plugins. REF is NAME[@CONSTRAINT], HOST/REPOSITORY[:TAG][@DIGEST], oci-layout:DIR[:TAG], or a directory ./DIR\n" +
			"(an OCI layout, or a plugin directory, which is run in place). Digests are verified; what a plugin may do is shown and granted.",
		Example: "  ds plugin install ghcr.io/delivery-station/porter:0.1.0 --allow-unsigned\n  ds plugin install ./hello --grant manifest",
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.backend == "" && a.g.sets("plugins.backend") {
				f.backend = a.cfg.String("plugins.backend")
			}
			if f.allowUnsigned && len(args) > 1 {
				return hostabi.Errorf(hostabi.ReasonUsage, "--allow-unsigned takes exactly one reference")
			}
			if f.trustKey != "" {
				if _, err := trust.ParseKeyID(f.trustKey); err != nil {
					return err
				}
			}
			err := a.each(args, func(ref string) error { return a.install(cmd.Context(), ref, f) })
			if !f.dryRun {
				a.sweep(cmd.Context())
			}
			return err
		},
	}
	fl := c.Flags()
	fl.StringArrayVar(&f.grant, "grant", nil, "grant CAP=SCOPE, or manifest = all it asks for (repeatable)")
	fl.StringArrayVar(&f.deny, "deny", nil, "deny CAP=SCOPE (repeatable)")
	fl.StringVar(&f.version, "version", "", "version or constraint")
	fl.StringVar(&f.backend, "backend", "", "kind to install: auto, wasm, native, both")
	fl.BoolVar(&f.allowUnsigned, "allow-unsigned", false, "accept this unsigned package")
	fl.StringVar(&f.trustKey, "trust-key", "", "trust the key with this id for the repository")
	fl.BoolVar(&f.downgrade, "allow-downgrade", false, "accept a version below one that was seen")
	fl.BoolVar(&f.force, "force", false, "install again even if it is intact, or has other content than before")
	fl.BoolVar(&f.pin, "pin", false, "keep this version: upgrades skip it")
	fl.BoolVar(&f.dryRun, "dry-run", false, "say what would be done")
	return c
}

func (a *app) install(ctx context.Context, ref string, f installFlags) error {
	ref, linked := a.place(ref)
	if linked {
		return a.link(ctx, ref, f)
	}
	if file, name, ok := a.splitBundle(ref); ok {
		b, err := a.openBundle(ctx, file)
		if err != nil {
			return err
		}
		if len(b.plugins) > 0 {
			return a.installBundle(ctx, b, name, f)
		}
		if ref = "oci-layout:" + file; name != "" {
			ref += ":" + name
		}
	}
	return a.installFrom(ctx, nil, ref, f)
}

// installFrom installs from a bundle, or with nil from where ref says.
func (a *app) installFrom(ctx context.Context, b *bundle, ref string, f installFlags) error {
	base, constraint := splitConstraint(ref)
	if f.version != "" {
		constraint = f.version
	}
	req := install.Request{
		Ref: base, Constraint: constraint, AllowUnsigned: f.allowUnsigned, TrustKey: f.trustKey, Downgrade: f.downgrade, Force: f.force, Pin: f.pin,
		DryRun: f.dryRun,
	}
	switch f.backend {
	case "", "auto":
	case "both":
		req.Both = true
	case string(plugin.WASM), string(plugin.Native):
		req.Kind = plugin.Kind(f.backend)
	default:
		return hostabi.Errorf(hostabi.ReasonUsage, "--backend is %q, want auto, wasm, native or both", f.backend)
	}
	if b != nil {
		ref = b.refOf(ref)
		req.Via = b.path
		req.Check = func(p *plugin.Installed, _ map[string]hostabi.Digest) error { return b.check(a, p) }
	}
	c := consent{a: a, flags: a.grantFlags(f.grant, f.deny), ref: ref, opt: f, exact: b != nil}
	r, err := a.parts.installerFrom(b, c).Install(ctx, req)
	if hostabi.ReasonOf(err) == hostabi.ReasonRefNotFound && b == nil && !strings.ContainsAny(base, "/:.") {
		long := req
		long.Ref = "ds-" + base // the original DS named repositories so
		if r2, err2 := a.parts.newInstaller(c).Install(ctx, long); hostabi.ReasonOf(err2) != hostabi.ReasonRefNotFound {
			r, err = r2, err2
		}
	}
	if err != nil {
		return trustHint(err, ref, f)
	}
	if r.Already && !f.dryRun && len(f.grant)+len(f.deny) > 0 { // what was said counts, also when nothing is installed
		commit, err := c.Ask(ctx, r.Plugin, nil)
		if err != nil {
			return err
		}
		if commit != nil {
			if err := commit(ctx); err != nil {
				return err
			}
		}
	}
	if !f.dryRun {
		a.relock(ctx, r.Plugin.Name)
	}
	return a.installed(r, f.dryRun)
}

// trustHint completes the hint of a refusal that a flag can answer with everything that the user has typed.
func trustHint(err error, ref string, f installFlags) error {
	e := hostabi.AsError(err)
	if e.Fix == "" {
		return err
	}
	switch {
	case e.Reason == hostabi.ReasonUnsigned:
		f.allowUnsigned = true
	case e.Reason == hostabi.ReasonSignerUntrusted:
		f.trustKey = e.Meta["key"]
	case e.Meta["flag"] == "--allow-downgrade":
		f.downgrade = true
	case e.Meta["flag"] == "--force":
		f.force = true
	default:
		return err
	}
	return e.WithFix("%s", installLine(ref, f))
}

// installLine is the command for a hint, complete with what the user has typed, quoted for a shell.
func installLine(ref string, f installFlags) string {
	words := []string{"ds plugin install", sandbox.Quote(ref)}
	if f.version != "" && !strings.Contains(ref, "@sha256:") {
		words = append(words, "--version", sandbox.Quote(f.version))
	}
	if f.backend != "" {
		words = append(words, "--backend", f.backend)
	}
	if f.allowUnsigned {
		words = append(words, "--allow-unsigned")
	}
	if f.trustKey != "" {
		words = append(words, "--trust-key", f.trustKey)
	}
	if f.downgrade {
		words = append(words, "--allow-downgrade")
	}
	if f.force {
		words = append(words, "--force")
	}
	if f.pin {
		words = append(words, "--pin")
	}
	for _, g := range f.grant {
		words = append(words, "--grant", sandbox.Quote(g))
	}
	for _, d := range f.deny {
		words = append(words, "--deny", sandbox.Quote(d))
	}
	return strings.Join(words, " ")
}

// installed says what happened.
func (a *app) installed(r install.Result, dryRun bool) error {
	p := r.Plugin
	switch {
	case r.Already:
		fmt.Fprintf(a.std.out, "%s %s is installed and intact (%s)\n", p.Name, p.Version, kindsOf(p))
	case dryRun:
		return a.wouldInstall(r)
	default:
		if p.Level == store.LevelUnsigned {
			fmt.Fprintf(a.stderr(), "warning: %s %s is not signed; accepted for this digest only\n", p.Name, p.Version)
		}
		a.tell("plugin.installed", p.Name, p.Version, p.Index)
		fmt.Fprintf(a.std.out, "Installed %s %s (%s).   Try: ds %s --help\n", p.Name, p.Version, kindsOf(p), p.Name)
	}
	return nil
}

// place is ref with a layout directory written as such; linked says that it is a plugin directory.
func (a *app) place(ref string) (string, bool) {
	if !a.isDir(ref) {
		return ref, false
	}
	if _, err := os.Stat(filepath.Join(a.absolute(ref), "oci-layout")); err != nil {
		return ref, true
	}
	return "oci-layout:" + a.absolute(ref), false
}

// linked is the plugin of a plugin directory.
func (a *app) linked(ref string) (*plugin.Installed, error) {
	dir := a.absolute(ref)
	m, err := store.ReadDir(atomicfile.OS(), dir)
	if err != nil {
		return nil, err
	}
	if err := plugin.CheckName(m.Name); err != nil {
		return nil, err
	}
	if err := store.CheckDir(dir); err != nil {
		return nil, err
	}
	p := &plugin.Installed{
		Name: m.Name, Version: m.Version, Manifest: m, Repository: "dir:" + dir, Signer: "none", Level: store.LevelLocal, Requested: ref,
		RequestDigest: plugin.RequestDigest(m.Capabilities), Programs: store.DirPrograms(m, dir),
	}
	if len(p.Programs) == 0 {
		return nil, hostabi.Errorf(hostabi.ReasonPlatformUnsupported, "%s has no program for this platform; build it first", dir)
	}
	return p, nil
}

// link installs a plugin directory in place: nothing is copied, plugin.yaml is read again at every start.
func (a *app) link(ctx context.Context, ref string, f installFlags) error {
	p, err := a.linked(ref)
	if err != nil {
		return err
	}
	dir, m := a.absolute(ref), p.Manifest
	if f.dryRun {
		return a.installed(install.Result{Plugin: p}, true)
	}
	commit, err := consent{a: a, flags: a.grantFlags(f.grant, f.deny), ref: ref, opt: f}.Ask(ctx, p, nil)
	if err != nil {
		return err
	}
	s := a.parts.store()
	unlock, err := s.Lock(ctx, m.Name)
	if err != nil {
		return err
	}
	defer func() { _ = unlock() }() // the lock ends with the descriptor
	if commit != nil {
		if err := commit(ctx); err != nil {
			return err
		}
	}
	err = s.Record(&store.Receipt{
		Name: m.Name, PluginVersion: m.Version, Source: store.Source{Requested: dir, Repository: p.Repository}, Dev: dir, ABI: m.ABI,
		RequestDigest: p.RequestDigest, Pinned: f.pin, Trust: store.Trust{Level: store.LevelLocal, VerifiedAt: time.Now().UTC().Truncate(time.Second)},
	})
	if err != nil {
		return err
	}
	return a.installed(install.Result{Plugin: p}, false)
}

// capability is one row of ds plugin info --capabilities.
type capability struct {
	Cap      string   `json:"capability"`
	Scope    []string `json:"scope"`
	State    string   `json:"state"` // granted, denied, not granted
	Enforced string   `json:"enforced_by"`
	Reason   string   `json:"reason"`
	Optional bool     `json:"optional"`
}

// capabilities shows every request of p and what became of it.
func (a *app) capabilities(p *plugin.Installed) error {
	grants, err := a.parts.grants()
	if err != nil {
		return err
	}
	g, _, err := grants.Lookup(p)
	if err != nil {
		return err
	}
	sockets := hasSockets(p, g)
	var rows []capability
	for _, r := range sandbox.Requests(p) {
		for _, s := range shownScopes(p, g, r) {
			rows = append(rows, capability{
				Cap: string(r.Cap), Scope: []string{s}, State: stateOf(p, g, r.Cap, s), Enforced: a.enforcedBy(p, r.Cap, sockets), Reason: r.Reason, Optional: r.Optional,
			})
		}
	}
	if err := a.rows(term.RowsOf([]string{"capability", "scope", "state", "enforced_by", "reason=REASON,wide"}, rows...)); err != nil {
		return err
	}
	if a.cfg.String("ui.format") != "table" || a.g.jq != "" {
		return nil
	}
	if s := a.enforcement(p, sockets); s != "" {
		fmt.Fprintln(a.std.out, s)
	}
	for _, line := range a.limitsOf(p, sockets) {
		fmt.Fprintln(a.std.out, line)
	}
	return nil
}

// shownScopes are the scopes of a request as consent knows them, and what was granted within one that is only a
// bound.
func shownScopes(p *plugin.Installed, g sandbox.Grant, r plugin.Request) []string {
	out := slices.Clone(r.Proposed())
	if r.Propose == nil {
		return out
	}
	for _, s := range g.Granted[r.Cap].Scope {
		asked := func(bound string) bool { return sandbox.Covers(r.Cap, p.Name, bound, s) }
		if !slices.Contains(out, s) && slices.ContainsFunc(r.Scope, asked) {
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		return r.Scope
	}
	return out
}

func stateOf(p *plugin.Installed, g sandbox.Grant, c hostabi.Capability, scope string) string {
	for _, d := range g.Denied[c] {
		if sandbox.Covers(c, p.Name, d, scope) {
			return "denied"
		}
	}
	for _, s := range g.Granted[c].Scope {
		if sandbox.Covers(c, p.Name, s, scope) {
			return "granted"
		}
	}
	return "not granted"
}

// info is ds plugin info.
type info struct {
	Name        string         `json:"name"`
	Version     string         `json:"version"`
	Description string         `json:"description,omitempty"`
	Kinds       string         `json:"kinds"`
	Mode        string         `json:"mode,omitempty"`
	Source      string         `json:"source"`
	Index       hostabi.Digest `json:"index,omitempty"`
	Level       string         `json:"level"`
	Signer      string         `json:"signer"`
	License     string         `json:"license,omitempty"`
	ABI         string         `json:"abi"`
	Commands    []string       `json:"commands,omitempty"`
	Caps        int            `json:"caps"`
	Path        string         `json:"path"`
	InstalledAt string         `json:"installed_at,omitempty"`
	Enforcement string         `json:"enforcement"`
}

func (a *app) pluginInfo() *cobra.Command {
	var caps, manifest bool
	c := &cobra.Command{
		Use: "info NAME", Short: "What a plugin is and what it may do", Args: wants(1, 1, "one plugin"),
		ValidArgsFunction: a.pluginNames(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.parts.store().Lookup(cmd.Context(), plugin.Name(args[0]))
			if err != nil {
				return err
			}
			switch {
			case caps:
				return a.capabilities(p)
			case manifest:
				b, err := p.Manifest.JSON()
				if err != nil {
					return err
				}
				return a.term.Rows(a.std.out, a.formatOr("json"), hostabi.Rows{JSON: []string{string(b)}, Single: true, End: true})
			}
			return a.rows(term.ObjectOf([]string{
				"name", "version", "description", "kinds", "mode", "source", "index", "level", "signer", "license", "abi", "commands", "caps", "path", "installed_at",
				"enforcement",
			}, a.infoOf(p)))
		},
	}
	c.Flags().BoolVar(&caps, "capabilities", false, "requests, grants and what enforces them")
	c.Flags().BoolVar(&manifest, "manifest", false, "the plugin manifest")
	return c
}

// formatOr is the user's format, or another default than table.
func (a *app) formatOr(other string) string {
	if f := a.cfg.String("ui.format"); f != "table" {
		return f
	}
	return other
}

func (a *app) infoOf(p *plugin.Installed) info {
	i := info{
		Name: string(p.Name), Version: p.Version, Description: p.Manifest.Description, Kinds: kindsOf(p), Source: p.Repository, Index: p.Index,
		Level: p.Level, Signer: p.Signer, License: p.Manifest.License, ABI: p.Manifest.ABI, Caps: len(sandbox.Requests(p)), Enforcement: a.enforcement(p, a.grantedSockets(p)),
	}
	for _, c := range p.Manifest.Commands {
		if !c.Hidden {
			i.Commands = append(i.Commands, c.Name)
		}
	}
	if pr := p.Find(plugin.Native); pr != nil {
		i.Mode = string(pr.Mode)
	}
	if len(p.Programs) > 0 {
		i.Path = p.Programs[0].Path
	}
	if !p.InstalledAt.IsZero() {
		i.InstalledAt = p.InstalledAt.UTC().Format(time.RFC3339)
	}
	return i
}
