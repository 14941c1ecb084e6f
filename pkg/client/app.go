package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// flushTime is how long batches may take after the command has ended.
const flushTime = 500 * time.Millisecond

// App is a program made of commands. It is data: one list drives parsing, help, completion, documentation
// and the plugin manifest.
type App struct {
	Name, Version, Summary string
	Commands               []Command
	Options                []Option // of the Client
}

// Command is one command, or with Commands a group of them.
type Command struct {
	Name, Summary, Help string
	Aliases, Examples   []string
	Args                []Arg
	Flags               []Flag
	Commands            []Command
	Hidden              bool
	// Events are topics: the command is the handler of events.subscribe and runs once for each event, with
	// Invocation.Event set.
	Events []string
	Run    func(ctx context.Context, in *Invocation) error
	// Complete proposes values for word, "value\ttext"; it marks the arguments complete: dynamic.
	Complete func(ctx context.Context, in *Invocation, word string) ([]string, error)
}

// Arg is one positional argument. Type is string (default), bool, int, float, duration, size, path, ref, url
// or digest; Mode of a path is read, write or readwrite. Repeat is for the last one.
type Arg struct {
	Name, Summary, Type, Mode string
	Required, Repeat          bool
}

// Flag is one flag, --name or -s; its types are those of Arg and enum, one of Values. A bool flag never
// takes the next word.
type Flag struct {
	Name, Short, Summary, Type, Mode, Default string
	Values                                    []string
	Repeat, Required                          bool
}

// Stdio are the standard streams of a run.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
}

// Invocation is one run of a command. It is a Client.
type Invocation struct {
	*Client
	Command        string   // path, "bundle create"
	Args           []string // positional arguments
	Event          *Event   // of a handler
	Stdin          io.Reader
	Stdout, Stderr io.Writer

	command *Command
	values  map[string][]string // of flags that were given
}

// Value is the value of a flag, the last one if it was given several times, else its default.
func (in *Invocation) Value(flag string) string {
	if v := in.values[flag]; len(v) > 0 {
		return v[len(v)-1]
	}
	if f := in.flag(flag); f != nil {
		return f.Default
	}
	return ""
}

// Values are all values of a flag, or its default.
func (in *Invocation) Values(flag string) []string {
	if v := in.values[flag]; len(v) > 0 {
		return v
	}
	if d := in.Value(flag); d != "" {
		return []string{d}
	}
	return nil
}

// Bool is the value of a bool flag.
func (in *Invocation) Bool(flag string) bool {
	v, _ := strconv.ParseBool(in.Value(flag))
	return v
}

// Int is the value of an int flag, or the bytes of a size.
func (in *Invocation) Int(flag string) int64 {
	text := in.Value(flag)
	if f := in.flag(flag); f != nil && f.Type == "size" {
		n, _ := parseSize(text)
		return n
	}
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}

// Duration is the value of a duration flag.
func (in *Invocation) Duration(flag string) time.Duration {
	d, _ := hostabi.ParseDuration(in.Value(flag))
	return d
}

// Changed reports whether the flag was given.
func (in *Invocation) Changed(flag string) bool { return len(in.values[flag]) > 0 }

func (in *Invocation) flag(name string) *Flag {
	if in.command == nil {
		return nil
	}
	for i := range in.command.Flags {
		if in.command.Flags[i].Name == name {
			return &in.command.Flags[i]
		}
	}
	return nil
}

// Printf writes a notice to standard error. While the host draws progress for this program it goes through
// the host, which does not tear the bars.
func (in *Invocation) Printf(format string, a ...any) {
	text := fmt.Sprintf(format, a...)
	if in.drawn() && in.notice(text) == nil {
		return
	}
	_, _ = io.WriteString(in.Stderr, text)
}

// Run runs the program with argv, the words after its name, and returns its exit code. s carries host calls;
// nil = what the environment says. Main is Run and os.Exit.
func (a App) Run(ctx context.Context, std Stdio, s hostabi.Session, argv ...string) (exit int) {
	if s == nil {
		return a.main(ctx, std, argv)
	}
	a.Options = append(a.Options[:len(a.Options):len(a.Options)], WithSession(s))
	c, err := NewClient(a.Options...)
	r := &run{app: &a, c: c, std: std.complete(), kind: func() string {
		d, err := c.Describe(ctx)
		if err != nil {
			return ""
		}
		return d.Invocation.Kind
	}}
	return r.run(ctx, argv, err)
}

// main is Run for what the environment says. It is apart because a program that only has Main does not link
// Describe then.
func (a App) main(ctx context.Context, std Stdio, argv []string) int {
	c, err := NewClient(a.Options...)
	if c != nil && env("DS_PLUGIN") == "" {
		c.name = a.Name
	}
	r := &run{app: &a, c: c, std: std.complete(), kind: func() string { return env("DS_KIND") }}
	return r.run(ctx, argv, err)
}

// run runs and ends one invocation; err is why it cannot.
func (r *run) run(ctx context.Context, argv []string, err error) int {
	if err != nil {
		return r.exit(ctx, err)
	}
	err = r.protected(ctx, argv)
	if ferr := r.close(); err == nil {
		err = ferr
	}
	return r.exit(ctx, err)
}

func (s Stdio) complete() Stdio {
	if s.In == nil {
		s.In = eof{}
	}
	if s.Out == nil {
		s.Out = io.Discard
	}
	if s.Err == nil {
		s.Err = io.Discard
	}
	return s
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// run is one App.Run.
type run struct {
	app  *App
	c    *Client
	std  Stdio
	kind func() string // DS_KIND
}

// crash is a panic of the program, already printed.
type crash struct{}

func (crash) Error() string { return "panic" }

func (r *run) protected(ctx context.Context, argv []string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(r.std.Err, "panic: %v\n\n%s", p, debug.Stack())
			err = crash{}
		}
	}()
	return r.dispatch(ctx, argv)
}

// close sends what is batched, as long as that takes no longer than a user would wait for nothing.
func (r *run) close() error {
	if hostBlocks {
		return r.c.Close()
	}
	done := make(chan error, 1)
	go func() { done <- r.c.Close() }()
	timer := time.NewTimer(flushTime)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return nil
	}
}

// dispatch finds out what argv asks for.
func (r *run) dispatch(ctx context.Context, argv []string) error {
	if len(argv) == 1 && argv[0] == "--ds-describe" {
		_, err := r.std.Out.Write(append(r.app.appendTree(nil), '\n'))
		return err
	}
	if len(argv) > 0 && argv[0] == "__complete" {
		return r.complete(ctx, argv[1:])
	}
	p := parser{app: r.app}
	if err := p.parse(argv); err != nil {
		return err
	}
	switch {
	case p.version:
		_, err := fmt.Fprintf(r.std.Out, "%s %s\n", r.app.Name, r.app.Version)
		return err
	case p.help:
		return r.help(&p)
	}
	r.c.format = p.format
	in := r.invocation(&p)
	if len(p.command.Events) > 0 && r.kind() == "event" {
		return r.events(ctx, in)
	}
	return p.command.Run(ctx, in)
}

func (r *run) invocation(p *parser) *Invocation {
	return &Invocation{
		Client: r.c, Command: p.path, Args: p.args, Stdin: r.std.In, Stdout: r.std.Out, Stderr: r.std.Err,
		command: p.command, values: p.values,
	}
}

// exit prints err and maps it to the exit code.
func (r *run) exit(ctx context.Context, err error) int {
	if err == nil {
		return 0
	}
	if _, ok := errors.AsType[crash](err); ok {
		return 1
	}
	if e, ok := errors.AsType[*ExitError](err); ok {
		if e.Err != nil {
			r.print(e.Err)
		}
		return e.Code
	}
	e, host := errors.AsType[*Error](err)
	if s, ok := errors.AsType[signalError](context.Cause(ctx)); ok {
		if errors.Is(err, context.Canceled) || host && e.Code == hostabi.Cancelled {
			return 128 + s.Signal()
		}
	}
	r.print(err)
	if host {
		return e.Reason.Info().Exit
	}
	return 1
}

// print writes err in the form of ds's own errors (cli.md section 6).
func (r *run) print(err error) {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		fmt.Fprintf(r.std.Err, "Error: %v\n", err)
		return
	}
	n := e.Number()
	fmt.Fprintf(r.std.Err, "Error DS%04d: %v\n", n, err)
	if e.Fix != "" {
		fmt.Fprintf(r.std.Err, "  hint   %s\n", e.Fix)
	}
	trace := env("DS_TRACE_ID")
	if trace != "" {
		trace = "   trace " + trace
	}
	fmt.Fprintf(r.std.Err, "  more   ds explain DS%04d%s\n", n, trace)
}

// signalError is the cause of a context that a signal has cancelled, whoever carried the signal.
type signalError interface {
	error
	Signal() int
}
