// Command ds finds, checks, starts and connects plugins that deliver OCI artifacts. Artifact work itself is
// done by plugins. The files here hold one built-in command each; wire.go is the only constructor and exit.go
// the only place that makes exit codes.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/delivery-station/ds/runtime/wasm"
)

// stdio are the streams of one call of ds.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

func main() {
	os.Exit(run(context.Background(), os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr}, os.Environ()))
}

// run is ds: it runs args and returns the exit code. Everything it starts has ended when it returns.
func run(ctx context.Context, args []string, std stdio, env []string) int {
	return newApp(std, env).run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	if len(args) == 2 && args[0] == wasm.CompileCommand {
		return compileModule(ctx, args[1], a.std)
	}
	ctx, stop := a.notify(ctx)
	defer stop()
	err := a.dispatch(ctx, args)
	a.endHandlers(ctx)
	return a.finish(err)
}

// compileModule is the compile worker: no environment, no configuration, one directory. A signal of the terminal
// reaches it too; its parent decides what that means and kills it.
func compileModule(ctx context.Context, dir string, std stdio) int {
	signal.Ignore(os.Interrupt)
	if err := wasm.Compile(ctx, dir, std.in, std.out); err != nil {
		fmt.Fprintln(std.err, err)
		return 1
	}
	return 0
}
