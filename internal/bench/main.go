// Command dsbench measures the performance contract: every row is a ratio between ds and a named contender that
// do the same work in the same minute. rows.go is the contract, run.go and gobench.go measure one side once,
// harness.go interleaves the sides, report.go prints. It runs from the root of the source tree, because it
// builds the guests. It uses nothing but the standard library; what it measures are other programs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
)

// Exit codes of dsbench.
const (
	exitOK     = 0
	exitMissed = 1 // with -check: a goal was missed, or a contender is not there
	exitBroken = 2 // a side could not run or printed something else
	exitNoisy  = 3 // the same program differed from itself: the numbers mean nothing
)

type options struct {
	groups, ids     []string
	n, warmup       int
	ds, peers       string
	out, json       string
	check           bool
	force, quick    bool
	loadavg, goTool string // replaced by tests
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if err == nil && runtime.GOOS != "linux" {
		err = errors.New("measures on Linux only")
	}
	if err != nil {
		fmt.Fprintln(stderr, "dsbench:", err)
		return exitBroken
	}
	code, err := measure(ctx, o, stdout)
	if err != nil {
		fmt.Fprintln(stderr, "dsbench:", err)
	}
	return code
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	o.loadavg, o.goTool = "/proc/loadavg", "go"
	f := flag.NewFlagSet("dsbench", flag.ContinueOnError)
	f.SetOutput(stderr)
	groups := f.String("group", "all", "groups of rows, comma separated: "+strings.Join(groupNames(), ","))
	ids := f.String("id", "", "rows, comma separated; H1 means all that start with it")
	f.IntVar(&o.n, "n", 15, "rounds")
	f.IntVar(&o.warmup, "warmup", 2, "rounds before that are not counted")
	f.StringVar(&o.ds, "ds", "bin/ds", "the ds to measure")
	f.StringVar(&o.peers, "peers", "bin/peers", "directory of the contenders")
	f.StringVar(&o.out, "out", "", "write the results to this file, as Markdown")
	f.StringVar(&o.json, "json", "", "write every round to this file, as JSON lines")
	f.BoolVar(&o.check, "check", false, "exit 1 if a goal is missed")
	f.BoolVar(&o.force, "force", false, "write -out even if the machine is noisy, and say so in it")
	f.BoolVar(&o.quick, "quick", false, "only see that everything still runs: n = 5, no goals, no file, noise does not matter")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.quick {
		o.n, o.out, o.check = min(o.n, 5), "", false
	}
	o.groups, o.ids = list(*groups), list(*ids)
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("unknown word %q", f.Arg(0))
	case o.n < 1 || o.warmup < 0:
		return o, errors.New("-n must be at least 1, -warmup at least 0")
	}
	for _, g := range o.groups {
		if g != "all" && !slices.Contains(groupNames(), g) {
			return o, fmt.Errorf("no group %q; there are %s", g, strings.Join(groupNames(), ", "))
		}
	}
	if len(o.rows()) == 0 {
		return o, errors.New("no row matches")
	}
	return o, nil
}

func list(s string) (out []string) {
	for w := range strings.SplitSeq(s, ",") {
		if w = strings.TrimSpace(w); w != "" {
			out = append(out, w)
		}
	}
	return out
}

// rows are the rows that the flags choose.
func (o options) rows() (out []Row) {
	for _, r := range contract() {
		group := slices.Contains(o.groups, "all") || slices.Contains(o.groups, r.Group)
		id := len(o.ids) == 0 || slices.ContainsFunc(o.ids, func(id string) bool { return r.is(id) })
		if group && id {
			out = append(out, r)
		}
	}
	return out
}

// measure builds the fixture, runs the rows and reports.
func measure(ctx context.Context, o options, stdout io.Writer) (int, error) {
	dir, err := os.MkdirTemp("", "dsbench-")
	if err != nil {
		return exitBroken, err
	}
	defer removeAll(dir)
	load := loadAverage(o.loadavg)
	fix, err := newFixture(ctx, dir, o)
	if err != nil {
		return exitBroken, err
	}
	defer fix.close()
	h := &harness{o: o, fix: fix, progress: stdout}
	if o.json != "" {
		f, err := os.Create(o.json)
		if err != nil {
			return exitBroken, err
		}
		defer f.Close()
		h.rounds = f
	}
	rep := report{machine: describe(ctx, o, fix, load), quick: o.quick}
	for _, g := range groups() {
		var rows []Row
		for _, r := range o.rows() {
			if r.Group == g.Name {
				rows = append(rows, r)
			}
		}
		if len(rows) == 0 {
			continue
		}
		rep.groups = append(rep.groups, h.group(ctx, g, rows))
		if ctx.Err() != nil {
			return exitBroken, errors.New("interrupted")
		}
	}
	rep.overloaded = load > float64(runtime.NumCPU())
	rep.print(stdout)
	return finish(o, &rep)
}

// finish writes the results file and gives the exit code.
func finish(o options, rep *report) (int, error) {
	code, err := rep.exit(o)
	noisy := code == exitNoisy
	if o.out != "" && code != exitBroken && (!noisy || o.force) {
		if err := os.WriteFile(o.out, []byte(rep.markdown()), 0o644); err != nil { //nolint:gosec // a document
			return exitBroken, err
		}
	}
	return code, err
}
