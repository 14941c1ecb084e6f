package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestContract(t *testing.T) {
	seen := make(map[string]bool)
	known := groupNames()
	for _, r := range contract() {
		if r.ID == "" || seen[r.ID] {
			t.Errorf("id %q is not unique", r.ID)
		}
		seen[r.ID] = true
		if !slices.Contains(known, r.Group) {
			t.Errorf("%s: no group %q", r.ID, r.Group)
		}
		if r.Goal <= 0 && !r.Context || r.Context && r.Note == "" {
			t.Errorf("%s: a promise needs a goal, context a note", r.ID)
		}
		for _, s := range []Spec{r.Ours, r.Against} {
			if s.Label == "" && len(s.Argv)+len(s.Bench) == 0 && r.Metric == Allocs {
				continue
			}
			if s.Label == "" || (len(s.Argv) == 0) == (s.Bench == "") {
				t.Errorf("%s: %+v is not one command or benchmark with a label", r.ID, s)
			}
		}
		// Without the contenders there is no registry either, and then its rows are not run.
		if ours := strings.Join(r.Ours.Argv, " "); strings.Contains(ours, "${peers}") && !r.Ours.needsServer() {
			t.Errorf("%s: our side needs a contender", r.ID)
		}
	}
	for _, id := range []string{"S2", "S3", "S7", "S15", "S16", "H1", "R1", "R2", "R3", "R4", "R5", "R6", "R7", "R8", "R9", "S18", "H8", "B1", "B3"} {
		o := options{groups: []string{"all"}, ids: []string{id}}
		if len(o.rows()) == 0 {
			t.Errorf("no row %s", id)
		}
	}
}

// TestRowsByID: S1 is not S15, H1 is all of H1.
func TestRowsByID(t *testing.T) {
	for id, want := range map[string]string{"S1": "S1", "S12": "S12.c S12.go", "H1": "H1a.64 H1a.1024 H1.sdk H1b.64k H1b.1m", "H1a": "H1a.64 H1a.1024", "X": ""} {
		var got []string
		for _, r := range (options{groups: []string{"all"}, ids: []string{id}}).rows() {
			got = append(got, r.ID)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", id, got, want)
		}
	}
}

func TestSpread(t *testing.T) {
	for name, c := range map[string]struct {
		in   []float64
		want spread
	}{
		"one":      {[]float64{3}, spread{3, 3, 3}},
		"odd":      {[]float64{5, 1, 3}, spread{2, 3, 4}},
		"even":     {[]float64{4, 1, 3, 2}, spread{1.75, 2.5, 3.25}},
		"outliers": {[]float64{1, 1, 1, 1, 900}, spread{1, 1, 1}},
	} {
		if got := spreadOf(c.in); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if s := spreadOf(nil); !math.IsNaN(s.median) || s.holds(1) {
		t.Errorf("of nothing: %v", s)
	}
}

func TestOutput(t *testing.T) {
	for name, c := range map[string]struct {
		printed string
		want    Output
		ok      bool
	}{
		"exact":       {"hello\n", hello, true},
		"other":       {"hallo\n", hello, false},
		"more":        {"hello\nhello\n", hello, false},
		"nothing":     {"", hello, false},
		"not nothing": {"x", Output{}, false},
		"prefix":      {"ds version 1", Output{Text: "ds version ", Prefix: true}, true},
		"not prefix":  {"version", Output{Text: "ds version ", Prefix: true}, false},
		"bytes":       {strings.Repeat("x", 9000), Output{Bytes: 9000}, true},
		"lost a byte": {strings.Repeat("x", 8999), Output{Bytes: 9000}, false},
	} {
		var o output
		if _, err := io.Copy(&o, strings.NewReader(c.printed)); err != nil {
			t.Fatal(err)
		}
		if err := o.check(c.want); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReported(t *testing.T) {
	want := Output{Text: "calls 100 bytes 6400 ns ", Prefix: true}
	for text, ns := range map[string]float64{want.Text + "250\n": 250, want.Text + "0\n": 0, want.Text + "\n": 0, want.Text + "1\n2\n": 0} {
		var o output
		_, _ = o.Write([]byte(text))
		if v, err := o.reported(want); v != ns || (err == nil) != (ns > 0) {
			t.Errorf("%q: %v, %v", text, v, err)
		}
	}
}

func TestParseBench(t *testing.T) {
	const out = "goos: linux\nBenchmarkX/size=64-8   \t  1000\t      1234.5 ns/op\t     640 B/op\t       6 allocs/op\nBenchmarkX/size=640-8  10 9 ns/op\nPASS\n"
	for _, c := range []struct {
		name string
		m    Metric
		want float64
		ok   bool
	}{
		{"BenchmarkX/size=64", PerOp, 1234.5, true},
		{"BenchmarkX/size=64", Allocs, 6, true},
		{"BenchmarkX/size=640", PerOp, 9, true},
		{"BenchmarkX/size=640", Allocs, 0, false},
		{"BenchmarkX/size", PerOp, 0, false},
		{"BenchmarkY", PerOp, 0, false},
	} {
		v, err := parseBench(out, c.name, c.m)
		if v != c.want || (err == nil) != c.ok {
			t.Errorf("%s %s: %v, %v", c.name, c.m, v, err)
		}
	}
	if v, err := parseBench("BenchmarkX 5 7 ns/op\n", "BenchmarkX", PerOp); v != 7 || err != nil {
		t.Errorf("on one core: %v, %v", v, err)
	}
}

// script is a contender that is a shell script.
func script(t *testing.T, dir, name, body string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}

// shell is a harness whose ds and contenders are shell scripts.
func shell(t *testing.T) *harness {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("contenders are shell scripts")
	}
	dir := t.TempDir()
	script(t, dir, "ds", "echo hello")
	script(t, dir, "good", "echo hello")
	script(t, dir, "other", "echo hallo")
	script(t, dir, "false", "echo hello; exit 1")
	f := &fixture{tmp: dir, home: dir, peers: dir, guests: dir, ds: filepath.Join(dir, "ds"), root: dir, tests: map[string]string{}}
	return &harness{o: options{n: 3, warmup: 1, quick: true}, fix: f, progress: io.Discard}
}

func against(name string) Row {
	return Row{
		ID: "T1", Group: "start", Workload: "hello", Metric: Wall, Goal: 1000, Ours: ds("hello", hello),
		Against: Spec{Label: name, Argv: []string{"${peers}/" + name}, Want: hello},
	}
}

// TestBrokenSides: a side that fails, prints other text or is not there never counts as measured.
func TestBrokenSides(t *testing.T) {
	t.Parallel()
	h := shell(t)
	quiet := Group{Name: "start", Title: "Start", Anchor: Spec{Label: "good", Argv: []string{"${peers}/good"}, Want: hello}, Metric: Wall}
	broken := against("good")
	broken.Ours.Want = Output{Text: "something else\n"}
	gone := against("good")
	gone.Ours.Argv = []string{"${peers}/absent"}
	for name, c := range map[string]struct {
		row  Row
		want Verdict
		code int
	}{
		"good":         {against("good"), OK, exitOK},
		"false":        {against("false"), Broken, exitBroken},
		"other text":   {against("other"), Broken, exitBroken},
		"absent":       {against("absent"), NotRun, exitOK},
		"ours differs": {broken, Broken, exitBroken},
		"ours absent":  {gone, Broken, exitBroken},
	} {
		g := h.group(t.Context(), quiet, []Row{c.row})
		r := g.results[0]
		if r.verdict() != c.want {
			t.Errorf("%s: %s (%v), want %s", name, r.verdict(), r.err, c.want)
		}
		if measured := len(r.ours) == 3 && len(r.against) == 3; measured != (c.want == OK) {
			t.Errorf("%s: %d and %d rounds", name, len(r.ours), len(r.against))
		}
		rep := report{groups: []groupResult{g}, quick: true}
		if code, err := rep.exit(options{quick: true}); code != c.code || (err == nil) != (c.code == exitOK) {
			t.Errorf("%s: exit %d, %v", name, code, err)
		}
		if text := strings.Join(r.cells(), "|"); strings.Contains(text, "make bench-peers") != (c.want == NotRun) {
			t.Errorf("%s: row %s", name, text)
		}
	}
	g := h.group(t.Context(), Group{Name: "start", Anchor: Spec{Label: "false", Argv: []string{"${peers}/false"}, Want: hello}, Metric: Wall}, []Row{against("good")})
	rep := report{groups: []groupResult{g}}
	if code, _ := rep.exit(options{}); code != exitBroken {
		t.Errorf("a broken anchor: exit %d", code)
	}
}

// measured is a result with these ratios.
func measured(id string, ratios ...float64) *result {
	r := &result{row: Row{ID: id, Workload: "w", Against: Spec{Label: "c"}, Metric: Wall, Goal: 1}}
	for _, x := range ratios {
		r.ours, r.against = append(r.ours, x*2e6), append(r.against, 2e6)
	}
	return r
}

// TestExit: what weighs more than what, and what is written.
func TestExit(t *testing.T) {
	still, shaky := []float64{1, 1, 1.01}, []float64{1.2, 1.3, 1.1}
	slow := measured("S9", 2, 2, 2)
	failed := &result{row: Row{ID: "S8", Goal: 1}, err: errors.New("boom"), byOurs: true}
	absent := &result{row: Row{ID: "S8", Goal: 1}, err: fmt.Errorf("x: %w", errMissing)}
	for name, c := range map[string]struct {
		aa            []float64
		overloaded    bool
		results       []*result
		check, force  bool
		code          int
		written, mark bool
	}{
		"met":             {aa: still, results: []*result{measured("S1", 0.5)}, check: true, written: true},
		"missed":          {aa: still, results: []*result{slow}, written: true},
		"missed, checked": {aa: still, results: []*result{slow}, check: true, code: exitMissed, written: true},
		"absent, checked": {aa: still, results: []*result{absent}, check: true, code: exitMissed, written: true},
		"noisy":           {aa: shaky, results: []*result{slow}, check: true, code: exitNoisy},
		"noisy, forced":   {aa: shaky, results: []*result{slow}, force: true, code: exitNoisy, written: true, mark: true},
		"loaded":          {aa: still, overloaded: true, results: []*result{slow}, code: exitNoisy},
		"broken":          {aa: shaky, results: []*result{slow, failed}, force: true, code: exitBroken},
	} {
		out := filepath.Join(t.TempDir(), "b.md")
		rep := &report{overloaded: c.overloaded, groups: []groupResult{{Group: Group{Name: "start", Title: "T"}, results: c.results, aa: c.aa}}}
		code, err := finish(options{check: c.check, force: c.force, out: out}, rep)
		if code != c.code || (err == nil) != (code == exitOK) {
			t.Errorf("%s: exit %d, %v", name, code, err)
		}
		text, err := os.ReadFile(out)
		if (err == nil) != c.written || strings.Contains(string(text), "**Noisy**") != c.mark {
			t.Errorf("%s: written %t, text %s", name, err == nil, text)
		}
	}
}

func TestMarkdown(t *testing.T) {
	slow := measured("S9", 1.9, 2, 2.1)
	slow.row.Note = "because"
	rep := &report{machine: machine{date: "2026-01-02", commit: "abc", cpu: "CPU", cores: 2, versions: []string{"go1"}}, groups: []groupResult{
		{Group: Group{Name: "start", Title: "Start-up"}, results: []*result{measured("S1", 0.5, 0.5), slow}, aa: []float64{1}},
	}}
	text := rep.markdown()
	for _, want := range []string{
		"| date | 2026-01-02 |", "| CPU | CPU, 2 cores |", "## Start-up", "| S1 | w | c | 1.0 ms | 2.0 ms | 0.5 | 0.5 to 0.5 | 2 | 1 | ok |\n",
		"| S9 | w | c | 4.0 ms | 2.0 ms | 2 | 1.95 to 2.05 | 3 | 1 | MISSED |\n", "- S9: because.",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	var out strings.Builder
	rep.print(&out)
	if !strings.Contains(out.String(), "MISSED") {
		t.Errorf("terminal:\n%s", out.String())
	}
}

// TestMoreRounds: rounds are doubled while the goal lies between the quartiles, up to 60.
func TestMoreRounds(t *testing.T) {
	between := func(n int) *result {
		r := measured("S1")
		for i := range n {
			r.ours, r.against = append(r.ours, 0.5+float64(i%2)), append(r.against, 1)
		}
		return r
	}
	for _, c := range []struct {
		r    *result
		want bool
	}{{between(15), true}, {between(16), true}, {between(30), true}, {between(60), false}, {measured("S1", slices.Repeat([]float64{2}, 15)...), false}, {measured("S1", slices.Repeat([]float64{2}, 17)...), true}} {
		if got := open(c.r, 15); got != c.want {
			t.Errorf("%d rounds: open %t, want %t", len(c.r.ours), got, c.want)
		}
	}
}

func TestFlags(t *testing.T) {
	for name, args := range map[string][]string{
		"group": {"-group", "nope"}, "id": {"-id", "Q1"}, "n": {"-n", "0"}, "word": {"S1"}, "flag": {"-x"},
	} {
		var errs strings.Builder
		if code := run(t.Context(), args, io.Discard, &errs); code != exitBroken || errs.Len() == 0 {
			t.Errorf("%s: exit %d, %q", name, code, errs.String())
		}
	}
	if code := run(t.Context(), []string{"-h"}, io.Discard, io.Discard); code != exitOK {
		t.Errorf("-h: exit %d", code)
	}
	o, err := parse([]string{"-quick", "-n", "9", "-out", "f", "-check", "-group", "cache, bus"}, io.Discard)
	if err != nil || o.n != 5 || o.out != "" || o.check || len(o.rows()) != 6 {
		t.Errorf("quick: %+v, %v", o, err)
	}
}

func TestLoadAverage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "loadavg")
	if err := os.WriteFile(path, []byte("3.25 1.00 0.50 1/99 1234\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if v := loadAverage(path); v != 3.25 {
		t.Errorf("got %v", v)
	}
	if v := loadAverage(path + "x"); !math.IsNaN(v) {
		t.Errorf("of no file: %v", v)
	}
}

// TestLinkfloor: L links the third-party packages that ds imports, at the same versions.
func TestLinkfloor(t *testing.T) {
	if testing.Short() {
		t.Skip("lists the imports of ds")
	}
	list := func(dir string, args ...string) []string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...)
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Skipf("go list in %s: %v", dir, err)
		}
		return slices.Compact(slices.Sorted(strings.FieldsSeq(string(out))))
	}
	root := filepath.Join("..", "..")
	foreign := func(all []string) (out []string) {
		for _, p := range all {
			if first, _, _ := strings.Cut(p, "/"); strings.Contains(first, ".") && !strings.HasPrefix(p, "github.com/delivery-station/") {
				out = append(out, p)
			}
		}
		return out
	}
	ours := foreign(list(root, "-deps", "-f", `{{if .Module}}{{if .Module.Main}}{{join .Imports "\n"}}{{end}}{{end}}`, "./cmd/ds"))
	floor := foreign(list(filepath.Join(root, peersModule), "-f", `{{join .Imports "\n"}}`, "./linkfloor"))
	if !slices.Equal(ours, floor) {
		t.Errorf("testdata/peers/linkfloor imports\n%s\nds imports\n%s", strings.Join(floor, "\n"), strings.Join(ours, "\n"))
	}
	const versions = `{{with .Module}}{{.Path}}@{{.Version}}{{end}}`
	ours = list(root, append([]string{"-f", versions}, floor...)...)
	floor = list(filepath.Join(root, peersModule), append([]string{"-f", versions}, floor...)...)
	if !slices.Equal(ours, floor) {
		t.Errorf("testdata/peers uses\n%s\nds uses\n%s", strings.Join(floor, "\n"), strings.Join(ours, "\n"))
	}
}

// TestRegistryWords: rows of the registry are not run without one, each push goes to a place of its own, and an
// output that must contain a digest is refused without it.
func TestRegistryWords(t *testing.T) {
	dir := t.TempDir()
	f := &fixture{tmp: dir, home: dir, ds: "/bin/echo"}
	s := Spec{Label: "echo", Argv: []string{"${ds}", "${registry}/x", "${digest.one}"}, Want: Output{Contains: "${digest.one}"}}
	if _, err := f.once(t.Context(), s, Wall); !errors.Is(err, errNoServer) {
		t.Errorf("without a server: %v", err)
	}
	r := result{err: errNoServer, byOurs: true}
	if r.verdict() != NotRun {
		t.Errorf("verdict %s", r.verdict())
	}
	f.server = &server{host: "h:1", digests: map[string]string{"one": "sha256:abc"}}
	if a, b := f.expand("${fresh}"), f.expand("${fresh}"); a == b || !strings.HasPrefix(a, "h:1/") {
		t.Errorf("fresh places %s and %s", a, b)
	}
	if runtime.GOOS == "windows" {
		return
	}
	if _, err := f.once(t.Context(), s, Wall); err != nil {
		t.Error(err)
	}
	if v, err := f.once(t.Context(), s, Peak); err != nil || v <= 0 {
		t.Errorf("peak %v, %v", v, err)
	}
	s.Argv = s.Argv[:2]
	if _, err := f.once(t.Context(), s, Wall); err == nil {
		t.Error("an output without the digest was accepted")
	}
	above := result{row: Row{Above: true, Goal: 40}, ours: []float64{50}, against: []float64{20}}
	if got := above.ratios()[0]; got != 30 || above.verdict() != OK {
		t.Errorf("above: %v, %s", got, above.verdict())
	}
}
