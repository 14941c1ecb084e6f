package wasm

import (
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

// TestLeaks: descriptors, goroutines and mappings are back at the start value after runs of every kind.
func TestLeaks(t *testing.T) {
	// not parallel: it counts what the process has
	b := New(Options{})
	defer func() { _ = b.Close() }()
	demo, probe := installed(t, demoWASM), installed(t, probeWASM)
	dir := t.TempDir()
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = pr.Close(), pw.Close() }()
	session := &treeSession{}
	round := func() {
		for _, c := range []struct {
			p     *plugin.Installed
			words []string
		}{
			{demo, []string{"args"}},
			{demo, []string{"trap"}},
			{demo, []string{"write", "/tmp/x", "y"}},
			{probe, []string{"openmany", "/cwd/f"}},
			{demo, []string{"echo"}},
			{demo, []string{"loop"}},
			{demo, []string{"oom"}},
			{probe, []string{"recurse"}},
			{probe, []string{"callfor", "/panic"}},
			{demo, []string{"write", "/ds/call/Stream/Endless", "{}"}}, // and reads none of it
			{demo, []string{"cat", "/ds/call/Echo/Nothing"}},
			{probe, []string{"openmany", "/ds/call/Stream/Echo"}},
		} {
			r := &runOf{b: b, box: fakeBox{mounts: []sandbox.Mount{{Host: dir, Guest: "/cwd", Write: true}}}, inv: plugin.Invocation{Stdin: pr}, session: session}
			r.inv.Deadline = time.Now().Add(50 * time.Millisecond)
			if slices.Contains([]string{"openmany", "write", "cat"}, c.words[0]) { // ends by itself
				r.inv.Deadline = time.Time{}
			}
			_ = r.run(t.Context(), t, c.p, c.words...)
		}
	}
	if err := os.WriteFile(dir+"/f", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	round()
	fds, maps, goroutines := count("/proc/self/fd"), mappings(t), runtime.NumGoroutine()
	for range 5 {
		round()
	}
	if n := session.open.Load(); n != 0 || !slices.Contains(session.asked, servicePrefix+"Stream/Endless") {
		t.Errorf("%d streams open after %v", n, session.asked)
	}
	for wait := time.Now().Add(2 * time.Second); runtime.NumGoroutine() > goroutines && time.Now().Before(wait); {
		runtime.Gosched()
	}
	if n := count("/proc/self/fd"); n > fds {
		t.Errorf("descriptors: %d, were %d", n, fds)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		buf := make([]byte, 1<<16)
		t.Errorf("goroutines: %d, were %d\n%s", n, goroutines, buf[:runtime.Stack(buf, true)])
	}
	if n := mappings(t); n > maps+40 { // each dropped engine keeps its code until Close
		t.Errorf("mappings: %d, were %d", n, maps)
	}
}

func count(dir string) int {
	entries, _ := os.ReadDir(dir)
	return len(entries)
}

func mappings(t *testing.T) int {
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Skip(err)
	}
	return strings.Count(string(b), "\n")
}
