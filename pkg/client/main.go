package client

import (
	"context"
	"os"
)

// Main parses os.Args, runs the command and exits with its code: 0 for nil, an ExitError's code, 2 for a
// wrong command line, the code of ds's own commands for an error of the host, else 1. The first SIGINT or
// SIGTERM cancels the context, a second one kills. If ds dies, the context is cancelled and the program ends
// two seconds later.
func Main(app App) {
	ctx, stop := watch(context.Background())
	exit := app.main(ctx, Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, os.Args[1:])
	stop()
	os.Exit(exit)
}
