//go:build unix

package native_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/delivery-station/ds/runtime/native"
)

// BenchmarkStart measures the rows S15 to S17 of performance.md: os/exec of a small Go program, the same in mode
// direct unconfined and confined, and confined with one host call. The four take turns, so that a busy machine
// slows all of them; metrics are ratios of medians. Run the compiled test as an ordinary user and as root.
func BenchmarkStart(b *testing.B) {
	program := buildStarter(b)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	run := func(confine string, args ...string) func() error {
		c := call{
			name: "starter", args: args, path: program, stdin: null, stdout: null, stderr: null, rundir: b.TempDir(),
			options: native.Options{Confine: confine},
		}
		return func() error { return c.run(b.Context()) }
	}
	ways := []func() error{
		func() error {
			cmd := exec.Command(program)
			cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = null, null, null, []string{"PATH=/usr/bin:/bin"}
			return cmd.Run()
		},
		run("off"), run("auto"), run("auto", "call"),
	}
	took := make([][]time.Duration, len(ways))
	cpu := make([]time.Duration, len(ways))
	for b.Loop() {
		for i, way := range ways {
			begin, used := time.Now(), cpuTime()
			if err := way(); err != nil {
				b.Fatal(err)
			}
			took[i] = append(took[i], time.Since(begin))
			cpu[i] += cpuTime() - used
		}
	}
	median := func(i int) float64 {
		slices.Sort(took[i])
		return float64(took[i][len(took[i])/2])
	}
	base, free, held, one := median(0), median(1), median(2), median(3)
	b.ReportMetric(base, "exec-ns")
	b.ReportMetric(free/base, "S15-unconfined/exec")
	if !native.Probe().Confines() {
		return
	}
	b.ReportMetric(held/base, "S15-confined/exec")
	b.ReportMetric(one/base, "S16-call/exec")
	b.ReportMetric(held/free, "S17-confined/unconfined")
	b.ReportMetric(float64(cpu[2])/float64(cpu[1]), "S17-cpu") // does not depend on what else runs
}

// cpuTime is what this process and its children have used.
func cpuTime() time.Duration {
	var sum int64
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			sum += u.Utime.Nano() + u.Stime.Nano()
		}
	}
	return time.Duration(sum)
}

// buildStarter builds a plugin of the frames alone: it makes one call if it has an argument. DS_BENCH_STARTER
// names one that was built before, for a user without a Go tool.
func buildStarter(b *testing.B) string {
	b.Helper()
	if path := os.Getenv("DS_BENCH_STARTER"); path != "" {
		return path
	}
	path := filepath.Join(b.TempDir(), "starter")
	cmd := exec.Command("go", "build", "-o", path, "./testdata/starter")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Skipf("needs the Go tool: %v\n%s", err, out)
	}
	return path
}
