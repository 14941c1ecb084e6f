package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// held is what this process holds.
type held struct {
	goroutines, descriptors int
	children                string
}

// resources counts what this process holds; descriptors and children only where /proc shows them.
func resources(t *testing.T) held {
	t.Helper()
	h := held{goroutines: runtime.NumGoroutine()}
	if entries, err := os.ReadDir("/proc/self/fd"); err == nil {
		h.descriptors = len(entries)
	}
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, f := range tasks {
		b, _ := os.ReadFile(f) // the thread may be gone
		h.children += string(b)
	}
	h.children = strings.TrimSpace(h.children)
	return h
}

// compare waits until no more is held than before; what is still held after a while is a leak.
func (h held) compare(t *testing.T) {
	t.Helper()
	deadline := time.NewTimer(5 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		now := resources(t)
		if now.goroutines <= h.goroutines && now.descriptors <= h.descriptors && now.children == h.children {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			stacks := make([]byte, 1<<20)
			t.Fatalf("before %+v, now %+v\n%s", h, now, stacks[:runtime.Stack(stacks, true)])
		}
	}
}
