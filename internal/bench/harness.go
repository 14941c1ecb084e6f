package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	maxRounds = 60   // of a row whose goal lies between its quartiles
	quietLow  = 0.95 // the median of a program compared with itself
	quietHigh = 1.05
)

// Verdict is what a row came to.
type Verdict string

const (
	OK     Verdict = "ok"
	Missed Verdict = "MISSED"
	NotRun Verdict = "not run"
	Broken Verdict = "BROKEN" // a side failed or printed something else
	Info   Verdict = "-"      // a row without a promise
)

// result is what was measured of a row.
type result struct {
	row           Row
	ours, against []float64 // one for each round, in the units of the metric
	err           error     // of the side that ended the row
	byOurs        bool      // that side is ours
}

// ratios are ours divided by the contender's, round by round; without a contender they are the values.
func (r *result) ratios() []float64 {
	if len(r.against) == 0 {
		return r.ours
	}
	out := make([]float64, len(r.against))
	for i := range r.against {
		if out[i] = r.ours[i] / r.against[i]; r.row.Above {
			out[i] = r.ours[i] - r.against[i]
		}
	}
	return out
}

func (r *result) spread() spread { return spreadOf(r.ratios()) }

func (r *result) verdict() Verdict {
	switch {
	case errors.Is(r.err, errMissing) && !r.byOurs, errors.Is(r.err, errNoServer):
		return NotRun
	case r.err != nil || len(r.ours) == 0:
		return Broken
	case r.row.Context:
		return Info
	case r.spread().median <= r.row.Goal:
		return OK
	}
	return Missed
}

// groupResult is what was measured of a group.
type groupResult struct {
	Group
	results []*result
	aa      []float64 // ratios of the anchor to itself
	aaErr   error
}

// noisy reports whether the anchor differed from itself, or could not show that it did not.
func (g *groupResult) noisy() bool {
	m := spreadOf(g.aa).median
	return !(m >= quietLow && m <= quietHigh) // also NaN
}

// harness runs rows.
type harness struct {
	o        options
	fix      *fixture
	progress io.Writer
	rounds   io.Writer // JSON lines, may be nil
}

// group measures rows; if the machine was noisy it does so once more.
func (h *harness) group(ctx context.Context, g Group, rows []Row) groupResult {
	begin := time.Now()
	defer func() { fmt.Fprintf(h.progress, "%s: took %s\n", g.Name, time.Since(begin).Round(time.Second)) }()
	out := h.rowsOf(ctx, g, rows)
	if out.noisy() && out.aaErr == nil && !h.o.quick && ctx.Err() == nil {
		fmt.Fprintf(h.progress, "%s: noisy, once more\n", g.Name)
		out = h.rowsOf(ctx, g, rows)
	}
	return out
}

func (h *harness) rowsOf(ctx context.Context, g Group, rows []Row) groupResult {
	out := groupResult{Group: g}
	for _, r := range rows {
		out.results = append(out.results, &result{row: r})
	}
	fmt.Fprintf(h.progress, "%s: %d rows\n", g.Name, len(rows))
	for k := range h.o.warmup + h.o.n {
		counted := k >= h.o.warmup
		for _, r := range out.results {
			if r.row.N == 0 || len(r.ours) < r.row.N {
				h.round(ctx, r, k, counted)
			}
		}
		h.anchor(ctx, &out, counted)
	}
	if h.o.quick {
		return out
	}
	for k := h.o.warmup + h.o.n; h.undecided(&out) && ctx.Err() == nil; k++ {
		for _, r := range out.results {
			if open(r, h.o.n) {
				h.round(ctx, r, k, true)
			}
		}
		h.anchor(ctx, &out, true)
	}
	return out
}

func (h *harness) undecided(g *groupResult) bool {
	for _, r := range g.results {
		if open(r, h.o.n) {
			return true
		}
	}
	return false
}

// open reports whether r needs more rounds: it is in the middle of a doubling, or its goal lies between its
// quartiles. n is the number of rounds that rows start with.
func open(r *result, n int) bool {
	have := len(r.ours)
	if r.err != nil || r.row.N > 0 || r.row.Context || have >= maxRounds {
		return false
	}
	for stage := n; stage < have; stage *= 2 {
		if have < min(2*stage, maxRounds) {
			return true
		}
	}
	return r.spread().holds(r.row.Goal)
}

// round runs both sides of a row once. Odd rounds start with the contender.
func (h *harness) round(ctx context.Context, r *result, k int, counted bool) {
	if r.err != nil || ctx.Err() != nil {
		return
	}
	sides := []Spec{r.row.Ours, r.row.Against}
	if r.row.Against.Label == "" {
		sides = sides[:1]
	}
	values := make([]float64, 2)
	for i := range sides {
		at := (i + k) % len(sides)
		v, err := h.fix.once(ctx, sides[at], r.row.Metric)
		if err != nil {
			r.err, r.byOurs = err, at == 0
			return
		}
		values[at] = v
	}
	h.write(r.row.ID, k, counted, values[:len(sides)])
	if !counted {
		return
	}
	r.ours = append(r.ours, values[0])
	if len(sides) == 2 {
		r.against = append(r.against, values[1])
	}
}

// anchor runs the group's anchor twice.
func (h *harness) anchor(ctx context.Context, g *groupResult, counted bool) {
	if g.aaErr != nil || ctx.Err() != nil {
		return
	}
	var values [2]float64
	for i := range values {
		if values[i], g.aaErr = h.fix.once(ctx, g.Anchor, g.Metric); g.aaErr != nil {
			return
		}
	}
	if counted {
		g.aa = append(g.aa, values[0]/values[1])
	}
}

func (h *harness) write(id string, k int, counted bool, values []float64) {
	if h.rounds == nil {
		return
	}
	line, _ := json.Marshal(struct { // numbers and words: cannot fail
		ID      string    `json:"id"`
		Round   int       `json:"round"`
		Counted bool      `json:"counted"`
		Values  []float64 `json:"values"`
	}{id, k, counted, values})
	fmt.Fprintf(h.rounds, "%s\n", line)
}
