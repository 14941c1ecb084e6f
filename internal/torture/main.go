// Command torture runs the rows of the reliability scoreboard that exist: tests named TestR<n>_, TestS<n>_ and
// TestREG<nnn>_, at the scale of DS_TORTURE. It prints what each row counted and exits 1 if one missed. It uses
// nothing but the standard library; rows.go is the scoreboard, find.go finds the tests, run.go runs them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

type options struct {
	only, level string
	seed        uint64
	root        string
}

// run is main without the process: 0 all rows hold, 1 one missed, 2 usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o := options{}
	fs := flag.NewFlagSet("torture", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.only, "only", "", "one row: R1, S8, REG or REG001")
	fs.StringVar(&o.level, "level", "ci", "scale: ci or full")
	fs.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "beginning of the random numbers")
	fs.StringVar(&o.root, "root", ".", "source tree")
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil || fs.NArg() > 0 || o.level != "ci" && o.level != "full" {
		fmt.Fprintln(stderr, "torture: takes -only ROW, -level ci|full, -seed N, -root DIR")
		return 2
	}
	tests, err := find(os.DirFS(o.root))
	if err != nil {
		fmt.Fprintln(stderr, "torture:", err)
		return 2
	}
	held := true
	var results []result
	var missing []string
	for _, r := range rows {
		list := r.of(tests, o.only)
		switch {
		case !r.wanted(o.only):
		case len(list) == 0:
			missing = append(missing, r.id)
		default:
			fmt.Fprintf(stderr, "torture: %s, %d tests\n", r.id, len(list))
			res := runRow(ctx, o, r, list, stderr)
			held = held && res.ok
			results = append(results, res)
		}
	}
	if len(results) == 0 {
		fmt.Fprintf(stderr, "torture: no tests for row %q\n", o.only)
		return 1
	}
	report(stdout, o, results, missing)
	if !held {
		return 1
	}
	return 0
}

// report prints the scoreboard.
func report(w io.Writer, o options, results []result, missing []string) {
	fmt.Fprintf(w, "\nscale %s, seed %d\n\n", o.level, o.seed)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "row\tresult\ttime\ttarget")
	for _, r := range results {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", r.row.id, r.word(), strconv.FormatFloat(r.took.Seconds(), 'f', 1, 64)+" s", r.row.target)
	}
	_ = t.Flush() // nobody to tell
	fmt.Fprintln(w)
	for _, r := range results {
		for _, line := range r.counts {
			fmt.Fprintf(w, "%s  %s\n", r.row.id, line)
		}
	}
	if len(missing) > 0 {
		fmt.Fprintf(w, "no tests yet: %s\n", strings.Join(missing, " "))
	}
}
