package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What a linked package may do before main, at every start of ds.
const (
	maxInitBytes = 100 << 10
	maxInitMs    = 2.0 // of the fastest run; bytes decide, this only finds a package that computes without allocating
)

// costlyInits are the packages that may allocate more, each with the reason. A package that has become cheap
// fails the test too, so that the list stays short.
var costlyInits = map[string]string{
	"github.com/Masterminds/semver/v3":             "regular expressions; version constraints as people know them",
	"github.com/itchyny/gojq":                      "tables of its language; --jq",
	"google.golang.org/protobuf/reflect/protodesc": "descriptors of protobuf itself; grpc needs them",
	"oras.land/oras-go/v2/registry":                "regular expressions of references; the registry client",
}

var initLine = regexp.MustCompile(`(?m)^init (\S+) @\S+ ms, (\S+) ms clock, (\d+) bytes`)

// TestInitCost counts what the packages that ds links do before main, and that a start which needs no directory
// makes none.
func TestInitCost(t *testing.T) {
	if testing.Short() {
		t.Skip("builds ds")
	}
	ds := buildDS(t)
	home := t.TempDir()
	cost := make(map[string]initCost)
	for range 5 {
		for pkg, c := range initsOf(t, ds, home) {
			if old, ok := cost[pkg]; ok {
				c = initCost{min(c.bytes, old.bytes), min(c.ms, old.ms)}
			}
			cost[pkg] = c
		}
	}
	if len(cost) < 50 {
		t.Fatalf("the trace names only %d packages", len(cost))
	}
	for _, bad := range tooCostly(cost, costlyInits) {
		t.Error(bad)
	}
	entries, err := os.ReadDir(home)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("ds version made %s in the home directory", e.Name())
	}
}

// TestInitCostFails proves that a costly package is found.
func TestInitCostFails(t *testing.T) {
	cost := map[string]initCost{
		"fmt": {1 << 20, 9}, "vendor/golang.org/x/net/idna": {1 << 20, 9}, "internal/x": {1 << 20, 9},
		"example.com/fine": {maxInitBytes, 0.1}, "example.com/big": {maxInitBytes + 1, 0.1}, "example.com/slow": {0, 3},
		"example.com/known": {1 << 20, 0.1}, "example.com/cheap": {1, 0.1}, "main": {maxInitBytes + 1, 0.1},
	}
	listed := map[string]string{"example.com/known": "", "example.com/cheap": "", "example.com/gone": ""}
	got := tooCostly(cost, listed)
	for i, want := range []string{"example.com/big ", "example.com/cheap ", "example.com/gone ", "example.com/slow ", "main "} {
		if len(got) != 5 || !strings.HasPrefix(got[i], want) {
			t.Fatalf("got %q", got)
		}
	}
}

type initCost struct {
	bytes int
	ms    float64
}

// tooCostly says which packages outside the standard library cost too much and which are listed in vain.
func tooCostly(cost map[string]initCost, listed map[string]string) (bad []string) {
	for pkg, c := range cost {
		first, _, _ := strings.Cut(pkg, "/")
		if _, ok := listed[pkg]; ok || pkg != "main" && !strings.Contains(first, ".") {
			continue
		}
		if c.bytes > maxInitBytes || c.ms > maxInitMs {
			bad = append(bad, fmt.Sprintf("%s costs %d bytes and %g ms before main, at every start of ds", pkg, c.bytes, c.ms))
		}
	}
	for pkg := range listed {
		if c := cost[pkg]; c.bytes <= maxInitBytes {
			bad = append(bad, fmt.Sprintf("%s costs only %d bytes before main and needs no exception", pkg, c.bytes))
		}
	}
	slices.Sort(bad)
	return bad
}

// buildDS builds ds as it is released, apart from the flags for its size.
func buildDS(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "ds.exe")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-tags", "grpcnotrace", "-o", out, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return out
}

func initsOf(t *testing.T, ds, home string) map[string]initCost {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), ds, "version")
	var trace bytes.Buffer
	cmd.Stderr = &trace
	cmd.Env = []string{"GODEBUG=inittrace=1", "HOME=" + home, "USERPROFILE=" + home, "SystemRoot=" + os.Getenv("SystemRoot")}
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, trace.String())
	}
	out := make(map[string]initCost)
	for _, m := range initLine.FindAllStringSubmatch(trace.String(), -1) {
		ms, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(m[3])
		if err != nil {
			t.Fatal(err)
		}
		out[m[1]] = initCost{n, ms}
	}
	return out
}
