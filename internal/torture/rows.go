package main

import "strings"

// row is one line of the scoreboard (reliability.md section 1). REG is every permanent regression.
type row struct{ id, target string }

var rows = []row{
	{"R1", "kill -9 in any store operation: nothing corrupt, half or lost"},
	{"R2", "every file operation fails or dies: all invariants hold"},
	{"R3", "power cut: no wrong byte, old or new records"},
	{"R4", "disk full: nothing corrupt, right error, next command works"},
	{"R5", "many processes: no errors, one download each, p99 < 10x alone"},
	{"R6", "a million cache entries"},
	{"R7", "cache beside its peers"},
	{"S1", ">= 150 probes on every mount and scope form: 0 escapes; the engine's own mount > 25"},
	{"S2", "hostile modules: no death of the host, RSS <= 256 MiB, verdict (goal 250 ms, or 63 ms per MiB above 4 MiB; fails at 3x)"},
	{"S3", "divergence ends after the deadline (goal 100 ms, fails at 2.1 s)"},
	{"S4", "hostile artifacts: nothing written outside, nothing unverified run or cached"},
	{"S5", "registry faults: right typed error, bounded time, no token elsewhere"},
	{"S6", "fuzz: 0 crashers; the rewriter changes no result"},
	{"S7", "credential canaries: 0 hits"},
	{"S8", "objects swapped between verification and use: 0 wins"},
	{"S9", "floods: RSS <= +64 MiB; only printed: a neighbour's p99 (goal 2x), exit (goal 1 s, fails at 9 s)"},
	{"S10", "no leaks of goroutines, descriptors, processes, mappings"},
	{"REG", "permanent regressions: the bare component fails, ours holds"},
}

// wanted reports whether -only asks for the row, or for a regression of it.
func (r row) wanted(only string) bool {
	return only == "" || r.id == only || r.id == "REG" && strings.HasPrefix(only, "REG")
}

// of picks the tests of the row.
func (r row) of(all []test, only string) []test {
	var out []test
	for _, t := range all {
		if t.row == r.id && (t.row != "REG" || only == "" || only == "REG" || strings.HasPrefix(t.name, "Test"+only+"_")) {
			out = append(out, t)
		}
	}
	return out
}
