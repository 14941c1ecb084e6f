package faulttest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/internal/atomicfile"
)

// Scenario is one piece of work of a store.
type Scenario struct {
	Name string
	// Setup makes what is there before, on a file system without faults.
	Setup func(t *testing.T, f atomicfile.FS, dir string)
	// Run does the work in one goroutine and calls ack after each thing that it was told to be done.
	Run func(ctx context.Context, f atomicfile.FS, dir string, ack func(item string)) error
	// Check looks at what is left as a new process would.
	Check func(t *testing.T, r Result)
}

// Result is how a Run ended.
type Result struct {
	Dir   string
	FS    atomicfile.FS // for looking: the real one; after a power cut one that remembers who each file was
	Acked []string
	Err   error // of Run; nil if it was killed
	Cut   bool  // the power was cut: what was not synced may be lost
	Full  bool  // Run went to its end without any fault
}

// Scale picks how much a row does: smoke within make test, more by DS_TORTURE=ci or full.
func Scale(smoke, ci, full int) int {
	switch os.Getenv("DS_TORTURE") {
	case "ci":
		return ci
	case "full":
		return full
	}
	return smoke
}

// Seed is where the random numbers of a row begin: always the same within make test, new ones by DS_TORTURE=ci or
// full; DS_TORTURE_SEED repeats a run.
func Seed(t *testing.T) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(os.Getenv("DS_TORTURE_SEED"), 10, 64)
	if err != nil {
		n = uint64(Scale(1, int(time.Now().UnixNano()), int(time.Now().UnixNano())))
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with DS_TORTURE=%s DS_TORTURE_SEED=%d go test -run '^%s$'", os.Getenv("DS_TORTURE"), n, t.Name())
		}
	})
	return n
}

// faultEnv tells a child its scenario, operation and kind; its directory is in faultDir.
const (
	faultEnv = "DS_TORTURE_FAULT"
	faultDir = "DS_TORTURE_FAULT_DIR"
)

// Loop runs s once for every operation and every kind that can hit it, each time in a fresh directory, and checks
// what is left. Without DS_TORTURE it takes a sample. It fails if s has fewer changing operations than
// testdata/boundaries.txt says: then code has begun to bypass the file system interface. The test that calls it is
// run again in a child for the kinds that kill, so nothing expensive should precede it.
func Loop(t *testing.T, s Scenario) {
	t.Helper()
	if spec := os.Getenv(faultEnv); spec != "" {
		child(t, s, spec)
		return
	}
	ops := dryRun(t, s)
	boundaries := 0
	for _, o := range ops {
		if o.Mutates {
			boundaries++
		}
	}
	floor(t, s.Name, boundaries)
	cases := casesOf(ops, rand.New(rand.NewPCG(Seed(t), 2)))
	count := make(map[bool]int)
	for _, c := range cases {
		count[c.Kind.Kills()]++
		what := fmt.Sprintf("%s: operation %d (%s) %s", s.Name, c.N, ops[c.N-1], c.Kind)
		if !one(t, s, c, what) {
			return
		}
	}
	t.Logf("R2: %s %d boundaries x %d kinds ok: %d errors, %d deaths", s.Name, boundaries, len(Kinds()), count[false], count[true])
}

// dryRun lists the operations of s; nothing goes wrong.
func dryRun(t *testing.T, s Scenario) []Op {
	t.Helper()
	dir := tempDir(t)
	s.Setup(t, atomicfile.OS(), dir)
	f := Fault(atomicfile.OS(), Plan{})
	r := Result{Dir: dir, FS: atomicfile.OS(), Full: true}
	if r.Err = s.Run(t.Context(), f, dir, func(item string) { r.Acked = append(r.Acked, item) }); r.Err != nil {
		t.Fatalf("%s without a fault: %v", s.Name, r.Err)
	}
	s.Check(t, r)
	if t.Failed() {
		t.Fatalf("%s without a fault; directory kept: %s", s.Name, dir)
	}
	if err := removeAll(dir); err != nil {
		t.Error(err)
	}
	return f.Ops()
}

// tempDir makes a directory that stays when the test fails, in memory where that is easy: thousands of syncs.
func tempDir(t *testing.T) string {
	t.Helper()
	parent := ""
	if runtime.GOOS == "linux" && os.Getenv("TMPDIR") == "" {
		parent = "/dev/shm"
	}
	dir, err := os.MkdirTemp(parent, "ds-fault-")
	if err != nil {
		dir, err = os.MkdirTemp("", "ds-fault-")
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// casesOf are the plans for ops, all of them or a sample.
func casesOf(ops []Op, random *rand.Rand) []Plan {
	var errs, kills []Plan
	for i, o := range ops {
		for _, k := range Kinds() {
			switch {
			case !o.hits(k):
			case k.Kills():
				kills = append(kills, Plan{N: i + 1, Kind: k})
			default:
				errs = append(errs, Plan{N: i + 1, Kind: k, Sticky: k == ENOSPC || k == EROFS})
			}
		}
	}
	if runtime.GOOS == "windows" || runtime.GOARCH == "wasm" {
		kills = nil // acks travel over an inherited descriptor
	}
	if n := Scale(5, len(errs), len(errs)); n < len(errs) {
		random.Shuffle(len(errs), func(i, j int) { errs[i], errs[j] = errs[j], errs[i] })
		errs = errs[:n]
	}
	if n := Scale(1, len(kills), len(kills)); n < len(kills) {
		random.Shuffle(len(kills), func(i, j int) { kills[i], kills[j] = kills[j], kills[i] })
		kills = kills[:n]
	}
	return append(errs, kills...)
}

// one runs one case; false = it failed.
func one(t *testing.T, s Scenario, p Plan, what string) bool {
	t.Helper()
	dir := tempDir(t)
	s.Setup(t, atomicfile.OS(), dir)
	r := Result{Dir: dir, FS: atomicfile.OS()}
	if p.Kind.Kills() {
		r.Acked = killed(t, s, p, dir)
	} else {
		f := Fault(atomicfile.OS(), p)
		r.Err = s.Run(t.Context(), f, dir, func(item string) { r.Acked = append(r.Acked, item) })
	}
	s.Check(t, r)
	if t.Failed() {
		t.Errorf("%s\nRun: %v\nacknowledged: %q\ndirectory kept: %s", what, r.Err, r.Acked, dir)
		return false
	}
	if err := removeAll(dir); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	return true
}

// removeAll also removes what a sealed version directory holds.
func removeAll(dir string) error {
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, 0o700)
		}
		return err
	})
	return errors.Join(err, os.RemoveAll(dir))
}

// killed runs s in a child that dies as p says and returns what the child acknowledged.
func killed(t *testing.T, s Scenario, p Plan, dir string) (acked []string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	var name []string
	for part := range strings.SplitSeq(t.Name(), "/") {
		name = append(name, "^"+regexp.QuoteMeta(part)+"$")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run="+strings.Join(name, "/"), "-test.v")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s:%d:%s", faultEnv, s.Name, p.N, p.Kind), faultDir+"="+dir)
	cmd.ExtraFiles = []*os.File{w}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		_ = w.Close()
		t.Fatal(err)
	}
	_ = w.Close() // the child has its own
	for in := bufio.NewScanner(r); in.Scan(); {
		acked = append(acked, in.Text())
	}
	// A run that takes another path than the first one may end before its death.
	if err := cmd.Wait(); err == nil && !strings.Contains(out.String(), "PASS") || err != nil && !strings.Contains(err.Error(), "killed") {
		t.Errorf("child of %s: %v\n%s", s.Name, err, &out)
	}
	return acked
}

// child is the process that dies.
func child(t *testing.T, s Scenario, spec string) {
	name, rest, _ := strings.Cut(spec, ":")
	n, kind, _ := strings.Cut(rest, ":")
	if name != s.Name {
		return // the next Loop of this test
	}
	at, err := strconv.Atoi(n)
	if err != nil {
		t.Fatal(err)
	}
	acks := os.NewFile(3, "acks")
	f := Fault(atomicfile.OS(), Plan{N: at, Kind: Kind(kind)})
	if err := s.Run(t.Context(), f, os.Getenv(faultDir), func(item string) { fmt.Fprintln(acks, item) }); err != nil {
		t.Fatal(err)
	}
}

// floor compares with testdata/boundaries.txt: lines of a scenario and a number.
func floor(t *testing.T, name string, boundaries int) {
	t.Helper()
	b, err := os.ReadFile("testdata/boundaries.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var what string
		var least int
		if n, _ := fmt.Sscan(line, &what, &least); n == 2 && what == name {
			if boundaries < least {
				t.Errorf("%s has %d changing operations, testdata/boundaries.txt wants %d: does something bypass atomicfile.FS?", name, boundaries, least)
			}
			return
		}
	}
	t.Errorf("testdata/boundaries.txt lacks the line %q", fmt.Sprint(name, " ", boundaries))
}
