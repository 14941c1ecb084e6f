package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// result is what a row came to.
type result struct {
	row     row
	ok      bool
	passed  int
	failed  int
	skipped int
	took    time.Duration
	counts  []string
}

func (r result) word() string {
	switch {
	case r.ok:
		return "ok"
	case r.failed == 0 && r.skipped > 0:
		return "skipped"
	case r.failed+r.passed == 0:
		return "BROKEN" // does not build: nothing was tried
	}
	return "MISSED"
}

// runRow runs the tests of a row, each package by itself, one after the other: rows measure.
func runRow(ctx context.Context, o options, r row, tests []test, stderr io.Writer) result {
	res := result{row: r}
	begin := time.Now()
	byDir := make(map[string][]string)
	var dirs []string
	for _, t := range tests {
		if !slices.Contains(dirs, t.dir) {
			dirs = append(dirs, t.dir)
		}
		byDir[t.dir] = append(byDir[t.dir], t.name)
	}
	broken := false
	for _, dir := range dirs {
		args := []string{"test", "-json", "-count=1", "-timeout=30m", "-run", "^(" + strings.Join(byDir[dir], "|") + ")$", "./" + dir}
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = o.root
		cmd.Env = append(os.Environ(), "DS_TORTURE="+o.level, "DS_TORTURE_SEED="+strconv.FormatUint(o.seed, 10))
		cmd.Stderr = stderr
		out, err := cmd.Output()
		seen, text := res.read(strings.NewReader(string(out)), byDir[dir])
		if err != nil || seen < len(byDir[dir]) {
			broken = true
			fmt.Fprintf(stderr, "%s\ntorture: %s missed in %s; repeat: DS_TORTURE=%s DS_TORTURE_SEED=%d go test -count=1 -run '%s' ./%s\n",
				text, r.id, dir, o.level, o.seed, "^("+strings.Join(byDir[dir], "|")+")$", dir)
		}
	}
	res.took = time.Since(begin)
	res.ok = !broken && res.failed == 0 && res.passed > 0
	return res
}

// countLine is a log line of a test that begins with its row: "    x_test.go:12: S1: 346 probes".
var countLine = regexp.MustCompile(`^\s*\S+_test\.go:\d+: (?:R\d+|S\d+|REG-\d+): `)

// read takes the events of go test -json: how many of the tests ended, and all that was printed.
func (r *result) read(events io.Reader, names []string) (seen int, text string) {
	var all strings.Builder
	sc := bufio.NewScanner(events)
	sc.Buffer(nil, 16<<20)
	for sc.Scan() {
		var e struct{ Action, Test, Output string }
		if json.Unmarshal(sc.Bytes(), &e) != nil {
			all.WriteString(sc.Text() + "\n")
			continue
		}
		top := slices.Contains(names, e.Test)
		switch e.Action {
		case "build-output": // why there is no test at all
			all.WriteString(e.Output)
		case "output":
			all.WriteString(e.Output)
			if loc := countLine.FindStringIndex(e.Output); loc != nil {
				_, line, _ := strings.Cut(e.Output, "_test.go:")
				_, line, _ = strings.Cut(line, ": ")
				_, sub, _ := strings.Cut(e.Test, "/")
				if sub != "" {
					line = strings.TrimSpace(line) + " (" + sub + ")"
				}
				r.counts = append(r.counts, strings.TrimSpace(line))
			}
		case "pass":
			if top {
				r.passed++
				seen++
			}
		case "fail":
			if top {
				r.failed++
				seen++
			}
		case "skip":
			if top {
				r.skipped++
				seen++
			}
		}
	}
	return seen, all.String()
}
