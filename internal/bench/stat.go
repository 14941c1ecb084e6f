package main

import (
	"math"
	"slices"
)

// spread is the middle of values.
type spread struct{ q1, median, q3 float64 }

// spreadOf takes the quartiles of values, with linear interpolation between neighbours; of none they are NaN.
func spreadOf(values []float64) spread {
	s := slices.Sorted(slices.Values(values))
	return spread{quantile(s, 0.25), quantile(s, 0.5), quantile(s, 0.75)}
}

func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 == len(sorted) {
		return sorted[i]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// holds reports whether x lies between the quartiles, so that more rounds may change the verdict.
func (s spread) holds(x float64) bool { return s.q1 <= x && x <= s.q3 }
