package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/delivery-station/ds/cache"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile/faulttest"
	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/registry"
)

// sharedBlobs are the digests that all processes of row R5 want, the first ones most.
const sharedBlobs = 1000

func sharedBlob(n int) []byte {
	b := make([]byte, 200+n*7)
	_, _ = rand.NewChaCha8([32]byte{5, byte(n), byte(n >> 8)}).Read(b) // never fails
	return b
}

// shareReport is what one process did.
type shareReport struct {
	Gets, Fetched, Others int
	Times                 []time.Duration // of gets that hit
	Err                   string
}

// shareCache is a process of row R5: ds-share-cache CACHE HOST SEED works until its standard input ends.
func shareCache() {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends when the test says so
		cancel()
	}()
	var r shareReport
	if err := r.work(ctx, os.Args[1], os.Args[2], os.Args[3]); err != nil {
		r.Err = err.Error()
	}
	_ = json.NewEncoder(os.Stdout).Encode(r) // the test misses it otherwise
}

func (r *shareReport) work(until context.Context, dir, host, seed string) error {
	n, err := strconv.ParseUint(seed, 10, 64)
	if err != nil {
		return err
	}
	ctx := context.Background() // what was begun is finished
	client, err := registry.New(registry.Options{Home: dir, Dir: dir})
	if err != nil {
		return err
	}
	repo, err := client.Repository(host + "/acme/many")
	if err != nil {
		return err
	}
	s, err := cache.Open(ctx, cache.Options{Dir: dir, MaxSize: 1 << 30, AutoClean: true})
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(n, 5))
	zipf := rand.NewZipf(random, 1.1, 1, sharedBlobs-1)
	for done := false; !done && err == nil; done = until.Err() != nil { // at least one, also on a busy machine
		b := sharedBlob(int(zipf.Uint64()))
		switch random.IntN(10) {
		default:
			err = r.get(ctx, s, repo, b)
		case 0, 1:
			r.Others++
			err = other(ctx, s, random, b)
		}
	}
	return errors.Join(err, s.Close())
}

// get opens a blob, which the first one to want it fetches, and compares every byte.
func (r *shareReport) get(ctx context.Context, s *cache.Store, repo *registry.Repository, want []byte) error {
	d := hostabi.DigestOf(want)
	r.Gets++
	begin := time.Now()
	f, err := s.Open(ctx, d)
	took := time.Since(begin)
	if hostabi.ReasonOf(err) == hostabi.ReasonNotCached {
		v := s.View("", repo.Name())
		defer func() { _ = v.Close() }()
		if err := repo.Fetch(ctx, hostabi.Descriptor{Digest: d, Size: int64(len(want))}, v); err != nil {
			return fmt.Errorf("fetch: %w", err)
		}
		r.Fetched++
		f, err = s.Open(ctx, d)
	} else if err == nil {
		r.Times = append(r.Times, took)
	}
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer func() { _ = f.Close() }()
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, want) {
		return fmt.Errorf("%s: %d other bytes, %w", d, len(got), err)
	}
	return nil
}

// other does what is no get: it verifies, collects without evicting what is shared, puts and evicts its own, pins.
func other(ctx context.Context, s *cache.Store, random *rand.Rand, shared []byte) error {
	d := hostabi.DigestOf(shared)
	switch random.IntN(5) {
	case 0:
		for v, err := range s.Verify(ctx, []hostabi.Digest{d}, true) {
			if err != nil || !v.OK && v.Problem != "blob is missing" {
				return fmt.Errorf("verify: %+v, %w", v, err)
			}
		}
		return nil
	case 1:
		for _, err := range s.Evict(ctx, hostabi.EvictOptions{OlderThan: time.Hour}) {
			if err != nil {
				return fmt.Errorf("evict: %w", err)
			}
		}
		return nil
	case 2:
		name := fmt.Sprint("ghcr.io/acme/many:", random.IntN(50))
		if err := s.SetRef(ctx, name, hostabi.Descriptor{Digest: d}); err != nil {
			return fmt.Errorf("ref: %w", err)
		}
		return nil
	case 3:
		err := s.Pin(ctx, d, "porter", time.Now().Add(time.Hour))
		if hostabi.ReasonOf(err) == hostabi.ReasonNotCached {
			return nil
		}
		return err
	}
	w, err := s.Create(ctx, hostabi.Descriptor{})
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if _, err := fmt.Fprint(w, random.Uint64()); err != nil {
		return errors.Join(fmt.Errorf("write: %w", err), w.Abort())
	}
	info, err := w.Commit(ctx)
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if err := s.Remove(ctx, "", info.Digest); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	return nil
}

// R5 of reliability.md: many processes share one cache, beside ds that installs and pulls. Nothing fails, no byte is
// wrong, and each digest crosses the network once.
func TestR5_ManyProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many processes")
	}
	processes := faulttest.Scale(4, 20, 100)
	length := time.Duration(faulttest.Scale(1, 10, 60)) * time.Second
	seed := faulttest.Seed(t)
	g := guests(t)
	reg := dstest.Registry(t, dstest.RegistryOptions{})
	for n := range sharedBlobs {
		upload(t, reg, sharedBlob(n))
	}
	w := &sharing{t: t, reg: reg, home: t.TempDir(), work: t.TempDir()}
	w.ds("plugin", "install", filepath.Join(g.Both, "porter"), "--grant", "manifest")
	if err := os.WriteFile(filepath.Join(w.work, "payload"), sharedBlob(sharedBlobs), 0o600); err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		w.ds("porter", "push", "payload", fmt.Sprintf("%s/acme/app:%d", reg.Host, n))
	}
	w.ds("plugin", "push", filepath.Join(g.Both, "probe"), reg.Host+"/acme/probe", "--unsigned")
	if err := os.RemoveAll(filepath.Join(w.home, ".cache", "ds")); err != nil {
		t.Fatal(err)
	}
	reg.Forget()

	stop := make(chan struct{})
	time.AfterFunc(length, func() { close(stop) })
	reports, commands := w.crowd(processes, seed, stop)
	var sum shareReport
	for _, r := range reports {
		sum.Gets, sum.Fetched, sum.Others = sum.Gets+r.Gets, sum.Fetched+r.Fetched, sum.Others+r.Others
		sum.Times = append(sum.Times, r.Times...)
		if r.Err != "" {
			t.Errorf("a process: %s", r.Err)
		}
	}
	digests := w.onceEach()
	w.sound()
	short := make(chan struct{})
	time.AfterFunc(length/10, func() { close(short) })
	alone, _ := w.crowd(1, seed+1000, short)
	t.Logf("R5: %d processes, %d ds commands, %d gets, %d other operations, 0 errors, 0 corrupt, %d digests downloaded once each",
		processes, commands, sum.Gets, sum.Others, digests)
	t.Logf("R5: get p99 %v, alone %v (goal 10 times, on as many processors)", percentile(sum.Times, 99), percentile(alone[0].Times, 99))
	if sum.Gets == 0 || commands == 0 {
		t.Error("nothing was done")
	}
}

func upload(t *testing.T, reg *dstest.RegistryServer, b []byte) {
	t.Helper()
	url := reg.URL + "/v2/acme/many/blobs/uploads/?digest=" + string(hostabi.DigestOf(b))
	resp, err := http.Post(url, "application/octet-stream", bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("upload: %s", resp.Status)
	}
}

func percentile(d []time.Duration, p int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[len(d)*p/100]
}

// sharing is one home and one registry.
type sharing struct {
	t          *testing.T
	reg        *dstest.RegistryServer
	home, work string
}

func (w *sharing) command(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(w.t.Context(), name, args...)
	cmd.Env = []string{"HOME=" + w.home, "PATH=" + os.Getenv("PATH"), "DS_NO_INPUT=1", "GOMAXPROCS=1"}
	cmd.Dir = w.work
	return cmd
}

// ds runs a command that must succeed.
func (w *sharing) ds(args ...string) {
	w.t.Helper()
	if out, err := w.command("ds", args...).CombinedOutput(); err != nil {
		w.t.Errorf("ds %q: %v\n%s", args, err, out)
	}
}

// crowd runs so many processes on the cache until stop, and ds one command after the other beside them.
func (w *sharing) crowd(processes int, seed uint64, stop <-chan struct{}) (reports []shareReport, commands int) {
	var wg sync.WaitGroup
	reports = make([]shareReport, processes)
	for i := range reports {
		wg.Go(func() {
			cmd := w.command("ds-share-cache", filepath.Join(w.home, ".cache", "ds"), w.reg.Host, fmt.Sprint(seed+uint64(i)))
			in, err := cmd.StdinPipe()
			if err != nil {
				w.t.Error(err)
				return
			}
			go func() {
				<-stop
				_ = in.Close() // ends it
			}()
			out, err := cmd.Output()
			if err == nil {
				err = json.Unmarshal(out, &reports[i])
			}
			if err != nil {
				w.t.Errorf("process: %v\n%s", err, out)
			}
		})
	}
	for processes > 1 {
		n := commands
		commands++
		switch n % 3 {
		case 0:
			w.ds("porter", "pull", fmt.Sprintf("%s/acme/app:%d", w.reg.Host, n%5), "-o", fmt.Sprint("out", n))
		case 1:
			w.ds("plugin", "install", w.reg.Host+"/acme/probe", "--grant", "manifest", "--allow-unsigned")
		case 2:
			w.ds("plugin", "remove", "probe")
		}
		select {
		case <-stop:
			wg.Wait()
			return reports, commands
		default:
		}
	}
	wg.Wait()
	return reports, commands
}

// onceEach counts the digests that were downloaded; each was once.
func (w *sharing) onceEach() int {
	count := make(map[string]int)
	for _, q := range w.reg.Requests() {
		if _, digest, ok := strings.Cut(q.Path, "/blobs/"); ok && q.Method == http.MethodGet {
			count[digest]++
		}
	}
	for digest, n := range count {
		if n != 1 {
			w.t.Errorf("%s was downloaded %d times", digest, n)
		}
	}
	return len(count)
}

// sound checks the cache as the next process.
func (w *sharing) sound() {
	w.t.Helper()
	tomorrow := func() time.Time { return time.Now().Add(25 * time.Hour) }
	s, err := cache.Open(w.t.Context(), cache.Options{Dir: filepath.Join(w.home, ".cache", "ds"), Clock: tomorrow})
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for v, err := range s.Verify(w.t.Context(), nil, false) {
		if err != nil || !v.OK {
			w.t.Errorf("verify: %+v, %v", v, err)
		}
	}
	// Records of one digest by several processes have no common order; a day later gc looks at the files.
	for _, err := range s.Evict(w.t.Context(), hostabi.EvictOptions{ExpiredOnly: true}) {
		if err != nil {
			w.t.Error(err)
		}
	}
	if p, err := s.Check(w.t.Context(), false); err != nil || len(p) > 0 {
		w.t.Errorf("problems %v, %v", p, err)
	}
}
