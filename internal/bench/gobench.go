package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// peersModule is where contenders live, relative to the source tree; it is a module of its own.
const peersModule = "testdata/peers"

// bench runs one Go benchmark for 100 ms. The test binary of its package is built at its first use.
func (f *fixture) bench(ctx context.Context, s Spec, m Metric) (float64, error) {
	bin, err := f.testBinary(ctx, s.Pkg)
	if err != nil {
		return 0, err
	}
	parts := strings.Split(s.Bench, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	cmd := exec.CommandContext(ctx, bin, "-test.run=^$", "-test.bench="+strings.Join(parts, "/"), "-test.benchtime=100ms", "-test.count=1", "-test.benchmem")
	cmd.Dir = filepath.Join(f.root, filepath.FromSlash(s.Pkg))
	cmd.Env = append(f.env(), "DS_BENCH_GUESTS="+f.guests, "DS_BENCH_PEERS="+f.peers, "DS_BENCH_TMP="+f.tmp)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%s %s: %w\n%s", s.Pkg, s.Bench, err, clip(string(out)))
	}
	return parseBench(string(out), s.Bench, m)
}

// testBinary builds the tests of a package once.
func (f *fixture) testBinary(ctx context.Context, pkg string) (string, error) {
	if bin, ok := f.tests[pkg]; ok {
		return bin, nil
	}
	dir, arg := f.root, "./"+pkg
	if rest, ok := strings.CutPrefix(pkg, peersModule+"/"); ok {
		dir, arg = filepath.Join(f.root, filepath.FromSlash(peersModule)), "./"+rest
	}
	bin := filepath.Join(f.tmp, strings.ReplaceAll(pkg, "/", "-")+".test")
	if err := f.goTool(ctx, dir, nil, "test", "-c", "-trimpath", "-tags=grpcnotrace", "-o", bin, arg); err != nil {
		return "", err
	}
	if _, err := os.Stat(bin); err != nil {
		return "", fmt.Errorf("%s has no tests", pkg)
	}
	f.tests[pkg] = bin
	return bin, nil
}

// parseBench finds the one line of a benchmark and the metric in it.
func parseBench(out, name string, m Metric) (float64, error) {
	var found [][]string
	for s := bufio.NewScanner(strings.NewReader(out)); s.Scan(); {
		w := strings.Fields(s.Text())
		if len(w) >= 4 && (w[0] == name || trimProcs(w[0]) == name) {
			found = append(found, w)
		}
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("%s: %d results, want 1\n%s", name, len(found), clip(out))
	}
	w := found[0]
	for i := 3; i < len(w); i += 2 {
		if w[i] == string(m) {
			return strconv.ParseFloat(w[i-1], 64)
		}
	}
	return 0, fmt.Errorf("%s: no %s in %q", name, m, strings.Join(w, " "))
}

// trimProcs cuts GOMAXPROCS off the name of a benchmark.
func trimProcs(name string) string {
	if i := strings.LastIndexByte(name, '-'); i > 0 {
		if _, err := strconv.Atoi(name[i+1:]); err == nil {
			return name[:i]
		}
	}
	return name
}
