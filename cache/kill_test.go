package cache_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/delivery-station/ds/cache"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/internal/atomicfile/faulttest"
)

// work does everything that changes a cache, again and again, and says on standard output what it was told
// to be done. It ends by being killed.
func work(ctx context.Context, s *cache.Store) error {
	for {
		seed := rand.Uint64N(1 << 20)
		data := content(seed, int(seed%20_000))
		d := hostabi.DigestOf(data)
		if _, err := fetch(ctx, s, data, 4000); err != nil {
			return fmt.Errorf("fetch: %w", err)
		}
		fmt.Println("put", seed)

		v := s.View("porter", "")
		w, err := v.Create(ctx, hostabi.Descriptor{})
		if err != nil {
			return fmt.Errorf("create: %w", err)
		}
		if _, err := w.Write(content(seed+1, 3000)); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		ttl := time.Duration(seed % 3) // 0 = for good
		w.(host.Expecter).Expect(hostabi.Descriptor{}, ttl)
		if _, err := w.Commit(ctx); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
		if ttl == 0 {
			fmt.Println("own", seed+1)
		}
		if f, err := v.Open(ctx, d); err != nil {
			return fmt.Errorf("open: %w", err)
		} else if err := f.Close(); err != nil {
			return err
		}
		if err := s.SetRef(ctx, fmt.Sprint("ghcr.io/a/b:", seed), hostabi.Descriptor{Digest: d}); err != nil {
			return fmt.Errorf("ref: %w", err)
		}
		fmt.Println("ref", seed)
		if err := s.Pin(ctx, d, "porter", time.Now().Add(time.Hour)); err != nil {
			return fmt.Errorf("pin: %w", err)
		}
		fmt.Println("pin", seed)
		if _, err := s.RunDir(); err != nil {
			return fmt.Errorf("run directory: %w", err)
		}
		if seed%4 == 0 {
			for _, err := range s.Evict(ctx, hostabi.EvictOptions{ExpiredOnly: true}) {
				if err != nil {
					return fmt.Errorf("evict: %w", err)
				}
			}
		}
		if err := v.Close(); err != nil {
			return err
		}
	}
}

// R1 of reliability.md: kill -9 at any instruction; what was said to be done is there, nothing is half.
func TestR1_Kill(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	var h *harness
	kills, acks := 0, 0
	for kills < faulttest.Scale(10, 300, 3600) {
		if kills%50 == 0 { // a new directory: checking a full one takes most of the time
			h = newStore(t, cache.Options{AutoClean: true})
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		var acked []string
		for range 2 {
			wg.Go(func() {
				lines := h.killedWorker()
				mu.Lock()
				defer mu.Unlock()
				acked = append(acked, lines...)
			})
		}
		wg.Wait()
		kills += 2
		acks += len(acked)
		h.afterKill(acked)
		if t.Failed() {
			t.Fatalf("directory %s, done: %q", h.dir, acked)
		}
	}
	if acks == 0 {
		t.Error("the workers did nothing before they were killed")
	}
	t.Logf("R1: cache %d kills, %d acknowledged operations, 0 corrupt, 0 half, 0 lost", kills, acks)
}

// killedWorker runs a worker until some milliseconds after its first word.
func (h *harness) killedWorker() (lines []string) {
	cmd := exec.CommandContext(h.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "CACHE_CHILD=work", "CACHE_DIR="+h.dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.Error(err)
		return nil
	}
	if err := cmd.Start(); err != nil {
		h.Error(err)
		return nil
	}
	var killer *time.Timer
	in := bufio.NewScanner(out)
	for in.Scan() {
		lines = append(lines, in.Text())
		if killer == nil {
			killer = time.AfterFunc(rand.N(12*time.Millisecond), func() { _ = cmd.Process.Kill() })
		}
	}
	if err := cmd.Wait(); err == nil || stderr.Len() > 0 {
		h.Errorf("worker ended by itself: %v\n%s", err, &stderr)
	}
	if n := len(lines); n > 0 && strings.Count(lines[n-1], " ") != 1 {
		lines = lines[:n-1] // cut by the kill
	}
	return lines
}

// afterKill checks the invariants of reliability.md section 3 with a fresh store.
func (h *harness) afterKill(acked []string) {
	h.s = h.another()
	ctx := h.Context()
	dirs, err := os.ReadDir(filepath.Join(h.dir, "artifacts"))
	h.must(err)
	for _, e := range dirs { // I2
		for _, n := range []string{"blob", "metadata.json"} {
			if _, err := os.Lstat(filepath.Join(h.dir, "artifacts", e.Name(), n)); err != nil {
				h.Errorf("half entry: %v", err)
			}
		}
	}
	for v, err := range h.s.Verify(ctx, nil, false) { // I1
		if err != nil || !v.OK {
			h.Errorf("verify: %+v, %v", v, err)
		}
	}
	for _, line := range acked { // I3
		var what string
		var seed uint64
		if _, err := fmt.Sscan(line, &what, &seed); err != nil {
			h.Errorf("line %q", line)
			continue
		}
		switch what {
		case "put":
			data := content(seed, int(seed%20_000))
			h.has(hostabi.DigestOf(data), data)
		case "own":
			data := content(seed, 3000)
			h.has(hostabi.DigestOf(data), data)
			if !h.s.Owned(ctx, "porter", hostabi.DigestOf(data), 3000) {
				h.Errorf("%q: claim is lost", line)
			}
		case "ref":
			if _, _, err := h.s.Ref(ctx, fmt.Sprint("ghcr.io/a/b:", seed)); err != nil {
				h.Errorf("%q: %v", line, err)
			}
		case "pin":
			info, err := h.s.Stat(ctx, hostabi.DigestOf(content(seed, int(seed%20_000))))
			if err != nil || !info.Pinned {
				h.Errorf("%q: %+v, %v", line, info, err)
			}
		}
	}
	h.at(2 * time.Minute)                                                             // a run directory without a lock is given a minute
	h.evict(hostabi.EvictOptions{ExpiredOnly: true})                                  // I6
	if left, _ := filepath.Glob(filepath.Join(h.dir, ".ds/run/*/*")); len(left) > 1 { // our log
		h.Errorf("left by the dead: %v", left)
	}
	if n := len(readNames(h.T, filepath.Join(h.dir, ".ds/run"))); n > 1 { // ours
		h.Errorf("%d run directories left", n)
	}
	h.exact()
	if p, err := h.s.Check(ctx, false); err != nil || len(p) > 0 {
		h.Errorf("problems %v, %v", p, err)
	}
	h.must(h.s.Close())
}

func readNames(t *testing.T, dir string) (names []string) {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, e := range es {
		names = append(names, e.Name())
	}
	return names
}
