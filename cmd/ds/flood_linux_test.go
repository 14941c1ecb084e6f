package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/delivery-station/ds/internal/dstest"
)

// What a flood may do (reliability.md S9), and how much more a machine that runs other things may add.
const (
	floodMemory = 64 << 20  // of the host, beside what it has with an idle plugin
	floodLimit  = 128 << 20 // limits.memory of the plugin
	floodExit   = time.Second
	floodGrace  = 2 * time.Second // a plugin that does not heed a signal goes on as long
	floodSlack  = 3
)

// floods are what the plugin flood can take, with a part of the error that says what stopped it; "" = it goes on, since
// nothing of the host is used up.
var floods = []struct {
	what         string
	native, wasm string // "-" = not there
}{
	{"nothing", "", ""},
	{"time", "", ""},
	{"output", "", ""},
	{"errors", "", ""},
	{"logs", "", ""},
	{"events", "", ""},
	{"calls", "", ""},
	{"state", "at most 65536 bytes", "at most 65536 bytes"},
	{"blobs", "more than its 8388608 bytes", "more than its 8388608 bytes"},
	{"descriptors", "", "more than 256 open files"},
	{"files", "", "over the quota"},
	{"memory", "out of memory", "out of memory"},
	{"processes", "", "-"},
}

// TestS9_Floods lets a plugin take as much of everything as it gets, beside another one in the same ds, which measures
// its own calls. The host stays small, the other goes on, and Ctrl-C ends all of it.
func TestS9_Floods(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a plugin and runs for a while")
	}
	guests(t)
	dir := t.TempDir()
	if err := dstest.BuildPlugin(filepath.Join("..", "..", "testdata", "guests", "flood"), filepath.Join(dir, "both")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"native", "wasm", "neighbour"} { // each has one kind
		to := filepath.Join(dir, name)
		if err := os.CopyFS(to, os.DirFS(filepath.Join(dir, "both"))); err != nil {
			t.Fatal(err)
		}
		if name == "wasm" {
			edit(t, filepath.Join(to, "plugin.yaml"), "  native:\n    "+runtime.GOOS+"/"+runtime.GOARCH+": dist/"+runtime.GOOS+"/"+runtime.GOARCH+"/ds-flood\n", "")
		} else {
			edit(t, filepath.Join(to, "plugin.yaml"), "  wasm: {artifact: dist/flood.wasm}\n", "")
		}
	}
	edit(t, filepath.Join(dir, "neighbour", "plugin.yaml"), "name: flood", "name: neighbour")
	length := map[string]time.Duration{"": 300 * time.Millisecond, "ci": time.Second, "full": 10 * time.Second}[os.Getenv("DS_TORTURE")]
	var worst struct {
		grown               int64
		ratio               float64
		exit                time.Duration
		size, slow, tarried string
	}
	n := 0
	for _, kind := range []string{"native", "wasm"} {
		c := newCall(t)
		c.want(0, "plugin", "install", filepath.Join(dir, kind), "--grant", "manifest")
		c.want(0, "plugin", "install", filepath.Join(dir, "neighbour"), "--grant", "manifest")
		_ = c.run("flood", "take", "no such thing") // compiles the module
		idle := int64(0)
		for _, f := range floods {
			if os.Getenv("DS_TORTURE") == "" && !strings.Contains("nothing output memory descriptors", f.what) {
				continue
			}
			want := f.native
			if kind == "wasm" {
				want = f.wasm
			}
			if want == "-" {
				continue
			}
			args := []string{f.what, length.String()}
			if want != "" {
				args = append(args, "refused")
			}
			r := c.floodOf(args...)
			name := kind + " " + f.what
			if f.what == "nothing" {
				idle = r.peak
				continue
			}
			n++
			grown, ratio := r.peak-idle, float64(r.during)/float64(max(r.alone, 1))
			t.Logf("%-20s host +%d MiB, calls %v alone, %v beside (p99), exit %v: %s", name, grown>>20, r.alone, r.during, r.exit.Round(time.Millisecond), r.refused)
			if kind == "wasm" && f.what == "memory" {
				grown -= floodLimit // the guest's own
			}
			if grown > floodMemory {
				t.Errorf("%s: ds grew by %d MiB", name, grown>>20)
			}
			if r.exit > floodSlack*(floodExit+floodGrace) {
				t.Errorf("%s: ds ended %v after Ctrl-C", name, r.exit)
			}
			if !strings.Contains(r.refused, want) {
				t.Errorf("%s: it was refused with %s, want %q", name, r.refused, want)
			}
			if grown > worst.grown {
				worst.grown, worst.size = grown, name
			}
			if ratio > worst.ratio {
				worst.ratio, worst.slow = ratio, name
			}
			if r.exit > worst.exit {
				worst.exit, worst.tarried = r.exit, name
			}
		}
	}
	if left := processes("3607.25"); left > 0 {
		t.Errorf("%d processes of a flood are left", left)
	}
	t.Logf("S9: %d floods of %v: host at most +%d MiB (%s) beside a guest's own memory, calls beside at most %.1f times as long (%s), Ctrl-C at most %v (%s)",
		n, length, worst.grown>>20, worst.size, worst.ratio, worst.slow, worst.exit.Round(time.Millisecond), worst.tarried)
}

// flooded is what one flood did.
type flooded struct {
	peak          int64
	alone, during time.Duration
	refused       string
	exit          time.Duration
}

// floodOf runs one flood and interrupts it.
func (c *call) floodOf(args ...string) (r flooded) {
	c.t.Helper()
	what := args[0]
	cmd := exec.CommandContext(c.t.Context(), "ds", append([]string{"neighbour", "beside"}, args...)...)
	cmd.Env, cmd.Dir = c.environ(), c.home
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	var alone, during int64
	if _, serr := fmt.Sscanf(line, "alone %d beside %d refused", &alone, &during); serr != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		c.t.Fatalf("%s: %q %v %v\n%.2000s", what, line, err, serr, &errs)
	}
	_, r.refused, _ = strings.Cut(strings.TrimSpace(line), "refused")
	r.alone, r.during = time.Duration(alone)*time.Microsecond, time.Duration(during)*time.Microsecond
	r.peak = peakOf(cmd.Process.Pid)
	begin := time.Now()
	_ = cmd.Process.Signal(syscall.SIGINT)
	err = cmd.Wait()
	r.exit = time.Since(begin)
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		c.t.Errorf("%s: exit %d (%v), want 130\n%.2000s", what, code, err, &errs)
	}
	if strings.Contains(errs.String(), "neighbour:") {
		c.t.Errorf("%s: calls of the other plugin failed\n%.2000s", what, &errs)
	}
	return r
}

// peakOf is the most memory that a process had.
func peakOf(pid int) int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	kib, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	n, _ := strconv.ParseInt(kib, 10, 64)
	return n << 10
}

// processes counts those with a word in their command line.
func processes(word string) (n int) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range all {
		if b, _ := os.ReadFile(name); bytes.Contains(b, []byte(word)) && !bytes.Contains(b, []byte("beside")) {
			n++
		}
	}
	return n
}
