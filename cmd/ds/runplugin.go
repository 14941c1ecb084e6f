package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/delivery-station/ds/config"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/term"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

// plugin runs ds NAME ARGS. The words are the plugin's, unchanged; only help for declared commands is printed
// by the host, from the plugin manifest.
func (a *app) plugin(ctx context.Context, name plugin.Name, args []string) error {
	if _, err := a.configured(); err != nil {
		return &plugin.RunError{Name: name, Stage: plugin.StagePrepare, Err: err}
	}
	if a.g.noPlugins || slices.Contains(plugin.Reserved(), string(name)) {
		return &plugin.RunError{Name: name, Stage: plugin.StageFind, Err: a.unknown(ctx, name)}
	}
	if n := helpWord(args); n >= 0 {
		if p, err := a.parts.store().Lookup(ctx, name); err == nil && len(p.Manifest.Commands) > 0 {
			if path, c := p.Manifest.Command(args[:n]); len(path) == n {
				return a.pluginHelp(p, path, c)
			}
		}
	}
	return a.runPlugin(ctx, name, args, "")
}

// helpWord is the index of --help or -h if every word before it could name a command, else -1.
func helpWord(args []string) int {
	for i, w := range args {
		if w == "--help" || w == "-h" {
			return i
		}
		if strings.HasPrefix(w, "-") {
			return -1
		}
	}
	return -1
}

// runPlugin runs the plugin with the streams, signals and terminal of this call.
func (a *app) runPlugin(ctx context.Context, name plugin.Name, args []string, kind string) error {
	m, err := a.parts.manager()
	if err != nil {
		return &plugin.RunError{Name: name, Stage: plugin.StagePrepare, Err: err}
	}
	inv := &plugin.Invocation{
		Args: args, Kind: kind, Stdin: a.std.in, Stdout: a.std.out, Stderr: a.std.err, Dir: a.wd, Env: a.environ,
		Terminal: a.terminal(), NoInput: !a.term.Facts().Prompts, Offline: a.cfg.Bool("registry.offline"),
		LogLevel: a.cfg.String("logging.level"), Signals: a.signals,
	}
	if a.g.timeout != "" {
		d, _ := config.ParseDuration(a.g.timeout) // checked when it was read
		inv.Deadline = time.Now().Add(d)
	}
	a.running = string(name)
	a.forward.Store(true)
	defer a.forward.Store(false)
	err = m.Run(ctx, name, inv)
	a.noteWaiting(name, kind)
	if r := hostabi.ReasonOf(err); r == hostabi.ReasonPluginNotFound {
		if run, ok := err.(*plugin.RunError); ok && run.Stage == plugin.StageFind { //nolint:errorlint // the outermost error decides
			return &plugin.RunError{Name: name, Stage: plugin.StageFind, Err: a.unknown(ctx, name)}
		}
	}
	return err
}

// noteWaiting tells on a terminal that a newer version waits for consent.
func (a *app) noteWaiting(name plugin.Name, kind string) {
	if kind == plugin.KindComplete || !a.term.Facts().Prompts {
		return
	}
	if r, err := a.parts.store().Pending(name); err == nil {
		fmt.Fprintf(a.stderr(), "note: %s %s waits for consent: ds plugin grant %s\n", name, term.Clean(r.PluginVersion, 40), name)
	}
}

// terminal is what plugins are told of the terminal. It names a format only if the user chose one: some
// plugins have another default than a table.
func (a *app) terminal() hostabi.Terminal {
	t := a.term.Facts()
	if a.g.jq != "" {
		t.Format = "json"
	} else if v, ok := a.cfg.Get("ui.format"); ok && v.Origin.Layer == config.Default {
		t.Format = ""
	}
	return t
}

// unknown is the error for a word that is no command: what it may have meant, and how to install it.
func (a *app) unknown(ctx context.Context, name plugin.Name) error {
	e := hostabi.Errorf(hostabi.ReasonPluginNotFound, "no plugin or command %q", string(name))
	names := slices.Clone(builtins)
	if !a.g.noPlugins {
		for p, err := range a.parts.store().All(ctx) {
			if err == nil { // a broken one is no suggestion
				names = append(names, string(p.Name))
			}
		}
	}
	if near := plugin.Suggest(string(name), names); len(near) > 0 {
		return e.WithFix("ds %s", strings.Join(near, "   or   ds "))
	}
	return e.WithFix("ds plugin list")
}

// denied tells the user, after a plugin failed, what it was refused and what would allow it.
func (a *app) denied(name plugin.Name, denials []sandbox.Denial) {
	if a.dev != nil && a.dev.Name == name {
		a.proposed(denials)
		return
	}
	for _, d := range denials {
		line := fmt.Sprintf("denied: %s %s %s (%s)", name, d.Cap, term.Clean(d.Resource, 300), d.Why)
		if d.Fix != "" {
			line += "; to allow: " + term.Clean(d.Fix, 500)
		}
		fmt.Fprintln(a.stderr(), line)
	}
}
