package install_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/cache"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/install"
	"github.com/delivery-station/ds/plugin/store"
	"github.com/delivery-station/ds/registry"
)

// TestMain runs the worker of TestR1_InstallKilled when it is a child of it.
func TestMain(m *testing.M) {
	if dir := os.Getenv("INSTALL_CHILD_DIR"); dir != "" {
		if err := work(dir, os.Getenv("INSTALL_CHILD_HOST")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// scale picks how much a row of the scoreboard does: smoke within make test, more by DS_TORTURE=ci or full.
func scale(smoke, ci, full int) int {
	switch os.Getenv("DS_TORTURE") {
	case "ci":
		return ci
	case "full":
		return full
	}
	return smoke
}

// seed is where the random numbers of a row begin; DS_TORTURE_SEED repeats a run.
func seed(t *testing.T) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(os.Getenv("DS_TORTURE_SEED"), 10, 64)
	if err != nil {
		n = uint64(time.Now().UnixNano())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with DS_TORTURE=%s DS_TORTURE_SEED=%d go test -run '^%s$' ./plugin/install", os.Getenv("DS_TORTURE"), n, t.Name())
		}
	})
	return n
}

// work installs, upgrades, rolls back and collects until it is killed, and says what was done.
func work(dir, host string) error {
	client, err := registry.New(registry.Options{Home: dir, Dir: dir})
	if err != nil {
		return err
	}
	c, err := cache.Open(context.Background(), cache.Options{Dir: filepath.Join(dir, "cache")})
	if err != nil {
		return err
	}
	// A clock two days ahead has every version collected that nobody names.
	s := store.New(store.Options{Dir: filepath.Join(dir, "plugins"), Clock: func() time.Time { return time.Now().Add(48 * time.Hour) }})
	w := &world{client: client, store: s, cache: c}
	for n := rand.N(4); ; n++ {
		version := fmt.Sprintf("1.%d.0", n%4)
		_, err := w.with(s).Install(context.Background(), install.Request{
			Ref: host + "/acme/hello:" + version, Kind: plugin.Native, AllowUnsigned: true, Downgrade: true,
		})
		if err == nil && n%3 == 0 {
			_, _, err = s.Rollback(context.Background(), "hello")
		}
		if err == nil {
			_, err = s.Sweep(context.Background())
		}
		if err != nil && hostabi.ReasonOf(err) != hostabi.ReasonPluginNotFound { // nothing was replaced yet
			return err
		}
		fmt.Println("done", version)
	}
}

// TestR1_InstallKilled kills two workers on one store at random moments: a version that works is active afterwards,
// whatever they did.
func TestR1_InstallKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	reg := dstest.Registry(t, dstest.RegistryOptions{})
	w := newWorld(t)
	for n := range 4 {
		w.publish(source(t, fmt.Sprintf("1.%d.0", n), nil), reg.Host+"/acme/hello")
	}
	random := rand.New(rand.NewPCG(seed(t), 1))
	dir := t.TempDir()
	kills, done := 0, 0
	for kills < scale(6, 300, 1000) {
		acks := make(chan int, 2)
		for range 2 {
			wait := time.Duration(random.IntN(25_000)) * time.Microsecond
			go func() { acks <- killedWorker(t, dir, reg.Host, wait) }()
		}
		for range 2 {
			done += <-acks
			kills++
		}
		if t.Failed() {
			return
		}
		if got := runs(t, store.New(store.Options{Dir: filepath.Join(dir, "plugins"), Full: true})); done > 0 && got == "" {
			t.Fatalf("after %d kills nothing is installed", kills)
		}
	}
	s := store.New(store.Options{Dir: filepath.Join(dir, "plugins"), Clock: func() time.Time { return time.Now().Add(48 * time.Hour) }})
	swept(t, s)
	if done == 0 {
		t.Error("the workers did nothing before they were killed")
	}
	t.Logf("R1: %d kills, %d acknowledged installs, upgrades and rollbacks; a version worked after each", kills, done)
}

// killedWorker runs a worker until some time after its first word and counts what it had done.
func killedWorker(t *testing.T, dir, host string, wait time.Duration) (done int) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "INSTALL_CHILD_DIR="+dir, "INSTALL_CHILD_HOST="+host)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Error(err)
		return 0
	}
	var killer *time.Timer
	for in := bufio.NewScanner(out); in.Scan(); done++ {
		if killer == nil {
			killer = time.AfterFunc(wait, func() { _ = cmd.Process.Kill() })
		}
	}
	if err := cmd.Wait(); err == nil || stderr.Len() > 0 {
		t.Errorf("a worker ended by itself: %v\n%s", err, &stderr)
	}
	return done
}
