package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/delivery-station/ds/config"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/scrub"
	"github.com/delivery-station/ds/internal/term"
	"github.com/delivery-station/ds/plugin"
)

// app is one call of ds: streams, environment, configuration and the parts that wire.go makes when first
// asked for.
type app struct {
	std     stdio
	environ []string
	g       *globals
	paths   config.Paths
	cfg     *config.Config
	cfgErr  error
	term    *term.Terminal
	log     *slog.Logger
	secrets scrub.Scrubber
	clean   []*scrub.Writer // where messages and log records go, without secrets; the first is stderr
	parts   *parts
	running string            // plugin of this call
	dev     *plugin.Installed // of ds plugin run: a directory that need not be installed
	words   []string
	traceID string
	wd      string

	policy       string        // the administrator's file; tests have their own
	completeTime time.Duration // how long a plugin may take to propose something; tests have more

	signals   chan os.Signal // to the backend while forward is set
	catching  chan struct{}  // closed when signals are caught; nothing is done before that could be left half done
	forward   atomic.Bool
	signalled atomic.Int32  // last signal that asked ds to end
	ending    chan struct{} // closed by the first of them
}

func newApp(std stdio, env []string) *app {
	a := &app{
		std: std, environ: env, g: newGlobals(), completeTime: 300 * time.Millisecond, signals: make(chan os.Signal, 8), ending: make(chan struct{}),
		catching: make(chan struct{}), log: slog.New(slog.DiscardHandler),
	}
	a.policy = policyPath(a.env)
	return a
}

// env looks a variable up.
func (a *app) env(name string) string {
	for i := len(a.environ) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(a.environ[i], name+"="); ok {
			return v
		}
	}
	return ""
}

// stderr is where messages go: above the progress display once there is one.
func (a *app) stderr() io.Writer {
	if len(a.clean) > 0 {
		return a.clean[0]
	}
	return a.std.err
}

// scrubbed is w without the secrets that this process knows.
func (a *app) scrubbed(w io.Writer) io.Writer {
	s := a.secrets.Writer(w)
	a.clean = append(a.clean, s)
	return s
}

// errorFormat is known even when the configuration is not: from flags, then the variable.
func (a *app) errorFormat() string {
	if a.cfg != nil && a.cfgErr == nil {
		return a.cfg.String("ui.error_format")
	}
	for _, o := range a.g.overrides {
		if o.Key == "ui.error_format" {
			return o.Value
		}
	}
	return a.env("DS_UI_ERROR_FORMAT")
}

// dispatch runs args: flags of ds, then a built-in command or a plugin (cli.md section 1).
func (a *app) dispatch(ctx context.Context, args []string) error {
	words, err := a.g.parse(args)
	if err != nil {
		return err
	}
	if err := a.configure(); err != nil {
		return err
	}
	<-a.catching
	ctx, cancel, err := a.deadline(ctx, words)
	if err != nil {
		return err
	}
	defer cancel()
	switch {
	case a.g.version:
		words = []string{"version"}
	case a.g.help || len(words) == 0:
		words = append([]string{"help"}, words...)
	}
	if isBuiltin(words[0]) {
		return a.builtin(ctx, words)
	}
	return a.plugin(ctx, plugin.Name(words[0]), words[1:])
}

// configure finds the directories, loads the configuration and makes terminal and log. A configuration error
// is kept: commands that help to repair it run all the same.
func (a *app) configure() error {
	var err error
	home := a.env("HOME")
	if runtime.GOOS == "windows" {
		home = a.env("USERPROFILE")
	}
	if !filepath.IsAbs(home) { // it would be below the working directory, where strangers may have put files
		home = ""
	}
	if a.paths, err = config.FindPaths(a.env, home, runtime.GOOS); err != nil {
		return err
	}
	if a.wd, err = os.Getwd(); err != nil {
		return hostabi.Errorf(hostabi.ReasonUsage, "working directory: %w", err)
	}
	files := a.g.configs
	if v := a.env("DS_CONFIG"); v != "" && len(files) == 0 {
		files = filepath.SplitList(v)
	}
	for i, f := range files {
		if !filepath.IsAbs(f) {
			files[i] = filepath.Join(a.wd, f)
		}
	}
	a.cfg, a.cfgErr = config.Load(config.Input{
		Flags: a.g.overrides, Env: a.environ, Files: files, WorkDir: a.wd, Paths: a.paths,
	})
	a.term = term.New(term.Options{
		Stdin: a.std.in, Stdout: a.std.out, Stderr: a.std.err, Env: a.env, Color: a.cfg.String("ui.color"),
		Format: a.cfg.String("ui.format"), JQ: a.g.jq, Progress: a.cfg.String("ui.progress"),
		NoInput: a.cfg.String("ui.input") == "never", Yes: a.g.yes, Quiet: a.g.quiet,
	})
	a.secrets.Add(a.cfg.Secrets()...)
	if a.log, err = a.newLog(a.scrubbed(a.term.Stderr())); err != nil {
		return err
	}
	for _, w := range a.cfg.Warnings() {
		a.warn(w.Msg, w.Hint)
	}
	if v := a.env("DS_NO_PLUGINS"); v != "" && v != "0" {
		a.g.noPlugins = true
	}
	a.parts = newParts(a)
	return nil
}

// counted is n things in words.
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// warn prints one warning line, unless -q or --log-level error.
func (a *app) warn(msg, hint string) {
	if a.cfg.String("logging.level") == "error" {
		return
	}
	fmt.Fprintf(a.stderr(), "warning: %s\n", term.Clean(msg, 500))
	if hint != "" {
		fmt.Fprintf(a.stderr(), "  hint   %s\n", term.Clean(hint, 200))
	}
}

// deadline bounds ctx by --timeout for built-ins; a plugin gets it as the deadline of its run.
func (a *app) deadline(ctx context.Context, words []string) (context.Context, context.CancelFunc, error) {
	if a.g.timeout == "" {
		return ctx, func() {}, nil
	}
	d, err := config.ParseDuration(a.g.timeout)
	if err != nil {
		return ctx, nil, hostabi.Errorf(hostabi.ReasonUsage, "--timeout %w", err)
	}
	if len(words) > 0 && !isBuiltin(words[0]) {
		return ctx, func() {}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	return ctx, cancel, nil
}

// configured is the configuration, or what is wrong with it.
func (a *app) configured() (*config.Config, error) { return a.cfg, a.cfgErr }

// rows prints structured output in the user's format.
func (a *app) rows(r hostabi.Rows, err error) error {
	if err != nil {
		return err
	}
	return a.term.Rows(a.std.out, "", r)
}

func (a *app) newLog(stderr io.Writer) (*slog.Logger, error) {
	c, w := a.cfg, stderr
	if name := c.String("logging.output"); name != "" && name != "stderr" {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			return nil, hostabi.Errorf(hostabi.ReasonConfigValue, "logging.output: %w", err)
		}
		w = a.scrubbed(f) // open until the process ends, like stderr
	}
	levels := map[string]slog.Level{"trace": slog.LevelDebug - 4, "debug": slog.LevelDebug, "info": slog.LevelInfo, "error": slog.LevelError}
	level, ok := levels[c.String("logging.level")]
	if !ok {
		level = slog.LevelWarn
	}
	o := &slog.HandlerOptions{Level: level, AddSource: c.Bool("logging.show_caller")}
	if c.String("logging.format") == "json" {
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return slog.New(slog.NewTextHandler(w, o)), nil
}

// isBuiltin reports whether word is a built-in command or alias; words that start with - or _ never name a
// plugin.
func isBuiltin(word string) bool {
	return slices.Contains(builtins, word) || strings.HasPrefix(word, "_")
}

// interrupted gives an error that a signal or deadline caused the reason that says so.
func (a *app) interrupted(ctx context.Context, err error) error {
	switch {
	case err == nil || ctx.Err() == nil:
		return err
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return hostabi.Errorf(hostabi.ReasonTimeout, "stopped after %s (--timeout)", a.g.timeout)
	}
	return hostabi.Errorf(hostabi.ReasonInterrupted, "interrupted")
}
