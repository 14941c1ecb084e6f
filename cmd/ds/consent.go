package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/term"
	"github.com/delivery-station/ds/internal/yamlfile"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

// consent asks the user for what a plugin wants: by flags, else on a terminal, else not at all
// (capabilities.md section 8). --yes never grants.
type consent struct {
	a     *app
	flags sandbox.Consent
	ref   string // as the user typed it
	opt   installFlags
	exact bool // ref names one package already, such as one of a bundle
}

// grantFlags are --grant, --deny and DS_GRANT.
func (a *app) grantFlags(grant, deny []string) sandbox.Consent {
	return sandbox.Consent{Grant: append(slices.Clone(grant), strings.Fields(a.env("DS_GRANT"))...), Deny: deny}
}

// Ask implements install.Consent.
func (c consent) Ask(ctx context.Context, p, active *plugin.Installed) (func(context.Context) error, error) {
	grants, err := c.a.parts.grants()
	if err != nil {
		return nil, err
	}
	policy, err := grants.Policy()
	if err == nil {
		err = policy.AllowSource(p.Repository)
	}
	if err == nil {
		err = policy.AllowSigner(p.Signer)
	}
	if err != nil {
		return nil, err
	}
	if err := policy.Allow(p); err != nil {
		return nil, err
	}
	old, err := grantBefore(grants, p)
	if err != nil {
		return nil, err
	}
	g, err := c.flags.ApplyTo(p, old)
	if err != nil {
		return nil, err
	}
	d := sandbox.CompareTo(p, g)
	needed := d.Required()
	if policy.Decides() { // the administrator's file grants, but who signs is still a question
		d, needed = sandbox.Diff{}, nil
	}
	switch {
	case !d.Wider() && !isNew(p):
	case active != nil && len(needed) == 0 && !isNew(p):
		c.a.optional(d)
	case c.a.term.Facts().Prompts:
		if g, err = c.prompt(ctx, p, active, d, g); err != nil {
			return nil, err
		}
		d = sandbox.CompareTo(p, g)
	}
	if missing := d.Required(); len(missing) > 0 && !policy.Decides() {
		if active != nil {
			return nil, waits(p, active, sandbox.CompareTo(p, old))
		}
		return nil, c.refused(p, len(missing), needed)
	}
	if len(sandbox.Requests(p)) == 0 || policy.Decides() {
		return nil, nil
	}
	g.RequestDigest = p.RequestDigest
	return func(ctx context.Context) error { return grants.Grant(ctx, g) }, nil
}

// grantBefore is the grant of p, or of the signer before who named the one that p has.
func grantBefore(grants *sandbox.Store, p *plugin.Installed) (sandbox.Grant, error) {
	g, ok, err := grants.Lookup(p)
	if ok || err != nil || p.News == nil || p.News.RotatedFrom == "" {
		return g, err
	}
	g, _, err = grants.LookupKey(sandbox.Key{Plugin: p.Repository, Signer: p.News.RotatedFrom})
	g.Key = sandbox.KeyOf(p)
	return g, err
}

// isNew reports whether the user has to accept the signer of p too.
func isNew(p *plugin.Installed) bool { return p.News != nil && p.News.New }

// refused is the error when required requests stay ungranted: with the exact words that grant what is needed
// beside what is on record and in flags. Answers of a prompt that failed are not kept.
func (c consent) refused(p *plugin.Installed, missing int, needed []sandbox.Change) error {
	n, were := fmt.Sprintf("%d capabilities", missing), "they were not granted"
	if missing == 1 {
		n, were = "1 capability", "it was not granted"
	}
	why := "there is no terminal to ask on"
	if c.a.term.Facts().Prompts {
		why = were
	}
	e := hostabi.Errorf(hostabi.ReasonGrantMissing, "%s %s asks for %s and %s; nothing was installed", p.Name, p.Version, n, why)
	ref := c.ref
	if p.Index != "" && !c.exact { // what was shown is what the pasted command installs
		ref = p.Repository + "@" + string(p.Index)
		if p.Legacy() && strings.HasPrefix(p.Requested, p.Repository+":") && !strings.Contains(p.Requested, "@") {
			ref = p.Requested + "@" + string(p.Index) // its version may be in the tag only
		}
	}
	return e.WithFix("%s %s\naccept everything it asks for: --grant manifest", installLine(ref, c.opt), sandbox.Flags(needed))
}

// waits is the error when an upgrade asks for more than was granted: the old version goes on, the command
// activates the new one.
func waits(p, active *plugin.Installed, d sandbox.Diff) error {
	return hostabi.Errorf(hostabi.ReasonPluginInactive, "%s %s is installed but inactive; %s keeps running", p.Name, p.Version, active.Version).
		WithFix("%s", d.Command(d.Required()))
}

// optional tells what an upgrade could use and works without.
func (a *app) optional(d sandbox.Diff) {
	changes := append(slices.Clone(d.Added), d.Widened...)
	fmt.Fprintf(a.stderr(), "note: %s %s can also use %s; to allow: %s\n", d.Name, term.Clean(d.Version, 40), a.inWordsAll(changes), term.Clean(d.Command(changes), 4000))
}

func (a *app) inWordsAll(changes []sandbox.Change) string {
	var out []string
	for _, ch := range changes {
		out = append(out, string(ch.Cap)+" "+a.inWords(ch))
	}
	return strings.Join(out, ", ")
}

// prompt shows what is asked for and grants what the user says.
func (c consent) prompt(ctx context.Context, p, active *plugin.Installed, d sandbox.Diff, g sandbox.Grant) (sandbox.Grant, error) {
	text, question := c.a.asks(p, active, d), "Grant and install?"
	switch {
	case isNew(p):
		question = "Trust this signer, grant and install?"
	case active != nil && !d.First:
		question = "Grant the additions?"
	}
	for {
		answer, _, err := c.a.term.Prompt(ctx, hostabi.Prompt{
			Kind: "line", Text: text + "  " + question + "  [y] all  [s] select  [d] details  [n] no  (default n)", Fallback: "n",
		})
		if err != nil {
			return g, err
		}
		switch strings.ToLower(answer) {
		case "y":
			return c.all(p, d, g)
		case "s":
			return c.each(ctx, p, d, g)
		case "d":
			text = c.a.details(p, d)
		case "n", "":
			if isNew(p) {
				return g, hostabi.Errorf(hostabi.ReasonSignerUntrusted, "%s %s is signed by %s, which you did not trust; nothing was installed", p.Name, p.Version, p.Signer)
			}
			return g, nil
		default:
			text = ""
		}
	}
}

func (c consent) all(p *plugin.Installed, d sandbox.Diff, g sandbox.Grant) (sandbox.Grant, error) {
	words := sandbox.Words(append(slices.Clone(d.Added), d.Widened...))
	return sandbox.Consent{Grant: words}.ApplyTo(p, g)
}

// each asks for one change after the other; an optional one that is refused is recorded as denied.
func (c consent) each(ctx context.Context, p *plugin.Installed, d sandbox.Diff, g sandbox.Grant) (sandbox.Grant, error) {
	for _, ch := range append(slices.Clone(d.Added), d.Widened...) {
		text := fmt.Sprintf("  %s %s %q [y/N]", ch.Cap, c.a.inWords(ch), term.Clean(ch.Reason, 120))
		answer, _, err := c.a.term.Prompt(ctx, hostabi.Prompt{Kind: "line", Text: text, Fallback: "n"}) // no confirm: --yes never grants
		if err != nil {
			return g, err
		}
		one := []sandbox.Change{ch}
		if a := strings.ToLower(answer); a == "y" || a == "yes" {
			if g, err = (sandbox.Consent{Grant: sandbox.Words(one)}).ApplyTo(p, g); err != nil {
				return g, err
			}
		} else if ch.Optional {
			g.Refuse(one)
		}
	}
	return g, nil
}

func (a *app) inWords(ch sandbox.Change) string {
	s := term.Clean(sandbox.InWords(ch.Cap, ch.Scope), 200)
	if slices.ContainsFunc(ch.Scope, func(x string) bool { return sandbox.Sensitive(ch.Cap, x) }) {
		s = "! " + s
	}
	return s
}

// asks is the prompt of capabilities.md section 8, in one piece. Of an upgrade it shows what changes.
func (a *app) asks(p, active *plugin.Installed, d sandbox.Diff) string {
	var b strings.Builder
	if active != nil && !d.First && !isNew(p) {
		fmt.Fprintf(&b, "  %s %s → %s asks for more:\n%s", p.Name, term.Clean(active.Version, 40), term.Clean(p.Version, 40), a.changes(d))
		return b.String()
	}
	source := p.Repository
	if p.Index != "" {
		source += "@" + string(p.Index)
	}
	fmt.Fprintf(&b, "  %s %s  %s   %s\n", p.Name, term.Clean(p.Version, 40), programs(p), term.Clean(source, 400))
	if isNew(p) {
		fmt.Fprintf(&b, "  ! signed by %s%s: the first signature from %s\n", p.Signer, signedOn(p.News.SignedAt), term.Clean(p.Repository, 400))
	} else if p.Signer != "none" {
		fmt.Fprintf(&b, "  signed by %s (%s)\n", p.Signer, p.Level)
	}
	if !d.Wider() {
		return b.String()
	}
	verb := "asks for"
	if !d.First {
		verb = "asks for more"
	}
	if active != nil {
		verb = fmt.Sprintf("%s → %s %s", term.Clean(active.Version, 40), term.Clean(p.Version, 40), verb)
	}
	fmt.Fprintf(&b, "  %s %s:\n", p.Name, verb)
	for _, ch := range append(slices.Clone(d.Added), d.Widened...) {
		optional := ""
		if ch.Optional {
			optional = "   (optional)"
		}
		fmt.Fprintf(&b, "    %-16s %-34s %q%s\n", ch.Cap, a.inWords(ch), term.Clean(ch.Reason, 120), optional)
	}
	if !p.Legacy() { // of the others nothing else can be limited
		fmt.Fprintf(&b, "  It will NOT get: %s.\n", withheld(p.Manifest))
	}
	if s := a.enforcement(p, asksSockets(p)); s != "" {
		fmt.Fprintf(&b, "  %s\n", s)
	}
	return b.String()
}

func signedOn(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " on " + t.UTC().Format(time.DateOnly)
}

// changes is one line for each change of d.
func (a *app) changes(d sandbox.Diff) string {
	var b strings.Builder
	line := func(sign string, ch sandbox.Change, what string) {
		fmt.Fprintf(&b, "  %s %-16s %s", sign, ch.Cap, what)
		if ch.Reason != "" {
			fmt.Fprintf(&b, "   %q", term.Clean(ch.Reason, 120))
		}
		if ch.Optional {
			b.WriteString("   (optional)")
		}
		b.WriteByte('\n')
	}
	for _, ch := range d.Added {
		line("+", ch, a.inWords(ch))
	}
	for _, ch := range d.Widened {
		what := "any host, TCP and UDP, by its own sockets"
		if ch.WasQuota != ch.Quota {
			to := "no limit"
			if ch.Quota > 0 {
				to = yamlfile.FormatSize(ch.Quota)
			}
			what = fmt.Sprintf("quota %s → %s", yamlfile.FormatSize(ch.WasQuota), to)
		}
		line("~", ch, what)
	}
	for _, ch := range d.Removed {
		line("-", ch, a.inWords(ch))
	}
	return b.String()
}

// programs names the kinds that will be installed and their size, "wasm 412 KiB".
func programs(p *plugin.Installed) string {
	var out []string
	for _, pr := range p.Programs {
		text := string(pr.Kind)
		if pr.Size > 0 {
			text += fmt.Sprintf(" %d KiB", (pr.Size+1023)>>10)
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

// details shows every scope as it is written.
func (a *app) details(p *plugin.Installed, d sandbox.Diff) string {
	var b strings.Builder
	for _, ch := range append(slices.Clone(d.Added), d.Widened...) {
		for _, s := range ch.Scope {
			fmt.Fprintf(&b, "    %s=%s\n", ch.Cap, term.Clean(s, 512))
		}
	}
	l := p.Manifest.Limits
	if l.Memory > 0 || l.Time > 0 {
		fmt.Fprintf(&b, "    limits: memory %d bytes, time %s\n", l.Memory, l.Time)
	}
	return b.String()
}

// withheld names the families of rights that the manifest does not ask for at all.
func withheld(m *plugin.Manifest) string {
	families := []struct {
		word string
		caps []hostabi.Capability
	}{
		{"files", []hostabi.Capability{hostabi.FSRead, hostabi.FSWrite}},
		{"hosts", []hostabi.Capability{hostabi.NetHTTP}},
		{"environment", []hostabi.Capability{hostabi.EnvRead}},
		{"secrets", []hostabi.Capability{hostabi.SecretRead}},
		{"other plugins", []hostabi.Capability{hostabi.PluginsCall}},
	}
	var out []string
	for _, f := range families {
		if !slices.ContainsFunc(m.Capabilities, func(r plugin.Request) bool { return slices.Contains(f.caps, r.Cap) }) {
			out = append(out, f.word)
		}
	}
	return strings.Join(append(out, "credentials"), ", ")
}
