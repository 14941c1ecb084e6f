package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// report is everything that was measured.
type report struct {
	machine
	groups     []groupResult
	overloaded bool // others used the machine before the start
	quick      bool
}

// noise says what made the numbers worthless, "" = nothing.
func (r *report) noise() string {
	var why, bad []string
	if r.overloaded {
		why = append(why, fmt.Sprintf("load average %.2f on %d cores before the start", r.load, r.cores))
	}
	for _, g := range r.groups {
		if g.noisy() && g.aaErr == nil {
			bad = append(bad, fmt.Sprintf("%s (A/A %.2f)", g.Name, spreadOf(g.aa).median))
		}
	}
	if len(bad) > 0 {
		why = append(why, "a program differed from itself in "+strings.Join(bad, ", "))
	}
	return strings.Join(why, "; ")
}

// exit is the exit code and the error that explains it. A side that fails weighs more than noise, noise more
// than a goal.
func (r *report) exit(o options) (int, error) {
	var broken []error
	missed, absent := 0, 0
	for _, g := range r.groups {
		if g.aaErr != nil && !errors.Is(g.aaErr, errMissing) && !errors.Is(g.aaErr, errNoServer) {
			broken = append(broken, fmt.Errorf("%s: %w", g.Name, g.aaErr))
		}
		for _, res := range g.results {
			switch res.verdict() {
			case Broken:
				broken = append(broken, fmt.Errorf("%s: %w", res.row.ID, res.err))
			case Missed:
				missed++
			case NotRun:
				absent++
			case OK, Info:
			}
		}
	}
	if len(broken) > 0 {
		return exitBroken, errors.Join(broken...)
	}
	if o.quick {
		return exitOK, nil
	}
	if noise := r.noise(); noise != "" {
		return exitNoisy, errors.New("noisy: " + noise)
	}
	if o.check && missed+absent > 0 {
		return exitMissed, fmt.Errorf("%d goals missed, %d rows not run", missed, absent)
	}
	return exitOK, nil
}

// cells are the columns of a row, in the order of columns.
func (r *result) cells() []string {
	with := r.row.Against.Label
	if with == "" {
		with = "-"
	}
	c := []string{r.row.ID, r.row.Workload, with}
	goal := "-"
	if !r.row.Context {
		goal = trim(r.row.Goal)
	}
	verdict := string(r.verdict())
	if r.verdict() == NotRun {
		verdict += " (make bench-peers)"
	}
	if r.err != nil || len(r.ours) == 0 {
		return append(c, "", "", "", "", "", goal, verdict)
	}
	s, against := r.spread(), ""
	ratio, quartiles := trim(s.median), trim(s.q1)+" to "+trim(s.q3)
	if len(r.against) > 0 {
		against = r.row.Metric.text(spreadOf(r.against).median)
	}
	return append(c, r.row.Metric.text(spreadOf(r.ours).median), against, ratio, quartiles, fmt.Sprint(len(r.ours)), goal, verdict)
}

var columns = []string{"id", "workload", "contender", "ds", "contender's", "ratio", "quartiles", "n", "goal", "verdict"} //nolint:gochecknoglobals // a constant

// trim prints a ratio with three significant digits.
func trim(v float64) string { return fmt.Sprintf("%.3g", v) }

// text prints a value of the metric with its unit.
func (m Metric) text(v float64) string {
	switch {
	case m == Allocs:
		return fmt.Sprintf("%.0f", v)
	case m == Peak:
		return fmt.Sprintf("%.1f MiB", v)
	case v >= 1e9:
		return fmt.Sprintf("%.2f s", v/1e9)
	case v >= 1e6:
		return fmt.Sprintf("%.1f ms", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%.1f µs", v/1e3)
	}
	return fmt.Sprintf("%.0f ns", v)
}

// print writes the table for a terminal.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s\n", r.machine)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, g := range r.groups {
		fmt.Fprintf(t, "\n%s%s\n%s\n", g.Title, g.aaText(), strings.Join(columns, "\t"))
		for _, res := range g.results {
			c := res.cells()
			if r.quick && (res.verdict() == OK || res.verdict() == Missed) {
				c[len(c)-2], c[len(c)-1] = "-", "ran"
			}
			fmt.Fprintln(t, strings.Join(c, "\t"))
		}
	}
	_ = t.Flush() // like the lines above
}

func (g *groupResult) aaText() string {
	if len(g.aa) == 0 {
		return ", no A/A: its anchor did not run"
	}
	s := spreadOf(g.aa)
	return fmt.Sprintf(", A/A %.2f (%.2f to %.2f)", s.median, s.q1, s.q3)
}

// markdown is docs/benchmarks.md.
func (r *report) markdown() string {
	var b strings.Builder
	b.WriteString(`# Benchmarks

Written by ` + "`make bench`" + `; do not edit. Each row compares ds with a named contender that does the same work: both run in turns, the
order changes every round, and the ratio is the median of the rounds' ratios (time of ds / time of the contender, lower is better).
Absolute times belong to the machine below and mean little elsewhere. R is a static Go program that prints hello; L a program that
links the third-party packages of ds and does nothing, L+raw then runs R. A/A is a program compared with itself in the same minutes:
its distance from 1 is the noise. MISSED means that the promise is not kept.

`)
	fmt.Fprintf(&b, "| | |\n|---|---|\n| date | %s |\n| commit | %s |\n| CPU | %s, %d cores |\n| kernel | Linux %s |\n| native plugins | %s |\n| load before | %.2f |\n| versions | %s |\n",
		r.date, r.commit, r.cpu, r.cores, r.kernel, r.native, r.load, strings.Join(r.versions, "; "))
	if noise := r.noise(); noise != "" {
		fmt.Fprintf(&b, "\n**Noisy**: %s. Read these numbers as a first impression only.\n", noise)
	}
	for _, g := range r.groups {
		fmt.Fprintf(&b, "\n## %s\n\n%s.\n\n| %s |\n|%s\n", g.Title, strings.TrimPrefix(g.aaText(), ", "), strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
		for _, res := range g.results {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(res.cells(), " | "))
		}
		between := "\n"
		for _, res := range g.results {
			if res.row.Note != "" {
				fmt.Fprintf(&b, "%s- %s: %s.\n", between, res.row.ID, res.row.Note)
				between = ""
			}
		}
	}
	return b.String()
}
