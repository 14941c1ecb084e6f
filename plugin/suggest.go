package plugin

import (
	"cmp"
	"slices"
	"strings"
)

// Suggest is what the user may have meant by word: up to three candidates that start with it or differ in at
// most two letters, nearest first.
func Suggest(word string, candidates []string) []string {
	if word == "" || len(word) > 64 {
		return nil
	}
	type near struct {
		name string
		dist int
	}
	var found []near
	lower := strings.ToLower(word)
	for _, c := range candidates {
		d := distance(lower, strings.ToLower(c), 2)
		if d > 2 || 2*d > len(word) { // two changes make any short words equal
			if !strings.HasPrefix(strings.ToLower(c), lower) {
				continue
			}
			d = 2
		}
		found = append(found, near{c, d})
	}
	slices.SortFunc(found, func(a, b near) int { return cmp.Or(cmp.Compare(a.dist, b.dist), cmp.Compare(a.name, b.name)) })
	found = slices.Compact(found)
	out := make([]string, 0, 3)
	for _, f := range found[:min(3, len(found))] {
		out = append(out, f.name)
	}
	return out
}

// distance is the number of letters to insert, delete, change or swap with their neighbour to turn a into b,
// or a number above most.
func distance(a, b string, most int) int {
	if len(a)-len(b) > most || len(b)-len(a) > most {
		return most + 1
	}
	before, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, prev, row = prev, row, before
	}
	return prev[len(b)]
}
