package store

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

func version(v string) *plugin.Manifest { return manifest("tool", v) }

func active(t *testing.T, s *Store) string {
	t.Helper()
	p, err := s.Lookup(t.Context(), "tool")
	if err != nil {
		t.Fatal(err)
	}
	pr, err := s.Open(t.Context(), p, plugin.Native)
	if err != nil {
		t.Fatal(err)
	}
	pr.File.Close()
	return p.Version
}

func TestRollbackSwaps(t *testing.T) {
	s := newStore(t)
	if _, _, err := s.Rollback(t.Context(), "tool"); hostabi.ReasonOf(err) != hostabi.ReasonPluginNotFound {
		t.Errorf("nothing installed: %v", err)
	}
	put(t, s, version("1.0.0"), "#!/bin/sh\n")
	if _, _, err := s.Rollback(t.Context(), "tool"); hostabi.ReasonOf(err) != hostabi.ReasonPluginNotFound {
		t.Errorf("nothing replaced: %v", err)
	}
	put(t, s, version("1.1.0"), "#!/bin/sh\n:\n")
	for _, want := range []string{"1.0.0", "1.1.0", "1.0.0"} {
		from, to, err := s.Rollback(t.Context(), "tool")
		if err != nil || from == nil || to.PluginVersion != want || !to.Pinned {
			t.Fatalf("%+v %+v %v", from, to, err)
		}
		if got := active(t, s); got != want {
			t.Errorf("active is %s, want %s", got, want)
		}
	}
}

// TestHandlers knows who has event handlers without a look at anybody's manifest.
func TestHandlers(t *testing.T) {
	s := newStore(t)
	put(t, s, manifest("quiet", "1.0.0"), "#!/bin/sh\n")
	want := func(when, names string) {
		t.Helper()
		var got []string
		for _, n := range s.Handlers() {
			got = append(got, string(n))
		}
		if strings.Join(got, " ") != names {
			t.Errorf("%s: %v, want %s", when, got, names)
		}
	}
	want("none", "")
	if _, err := os.Stat(filepath.Join(s.Dir(), "handlers")); err == nil {
		t.Error("there is a directory that nobody needs")
	}
	with := func(v string) *plugin.Manifest {
		m := version(v)
		m.Commands = []plugin.Command{{Name: "on"}}
		m.Events.Subscribe = []plugin.Subscription{{Topic: "a.*", Handler: "on"}, {Topic: "b"}, {Topic: "c", Handler: "on"}}
		return m
	}
	put(t, s, with("1.0.0"), "#!/bin/sh\n")
	want("installed", "tool")
	p, err := s.Lookup(t.Context(), "tool")
	if err != nil || !maps.EqualFunc(p.Manifest.Handlers(), map[string][]string{"on": {"a.*", "c"}}, slices.Equal) {
		t.Errorf("%+v, %v", p, err)
	}
	put(t, s, version("1.1.0"), "#!/bin/sh\n:\n")
	want("upgraded to one without", "")
	if _, _, err := s.Rollback(t.Context(), "tool"); err != nil {
		t.Fatal(err)
	}
	want("rolled back", "tool")
	if _, err := s.Remove(t.Context(), "tool"); err != nil {
		t.Fatal(err)
	}
	want("removed", "")
}

func TestRollbackRefusesChangedFiles(t *testing.T) {
	s := newStore(t)
	old := put(t, s, version("1.0.0"), "#!/bin/sh\n")
	put(t, s, version("1.1.0"), "#!/bin/sh\n:\n")
	name := filepath.Join(s.Dir(), "store", old.Kinds[0].Dir, "plugin.json")
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, name, "{}", 0o600)
	if _, _, err := s.Rollback(t.Context(), "tool"); hostabi.ReasonOf(err) != hostabi.ReasonPluginModified {
		t.Errorf("got %v", err)
	}
	if got := active(t, s); got != "1.1.0" {
		t.Errorf("active is %s", got)
	}
}

func TestRollbackFromDamagedReceipt(t *testing.T) {
	s := newStore(t)
	put(t, s, version("1.0.0"), "#!/bin/sh\n")
	put(t, s, version("1.1.0"), "#!/bin/sh\n:\n")
	write(t, filepath.Join(s.Dir(), "active", "tool.json"), "{", 0o600)
	if from, to, err := s.Rollback(t.Context(), "tool"); err != nil || from != nil || to.PluginVersion != "1.0.0" {
		t.Errorf("%+v %+v %v", from, to, err)
	}
	if got := active(t, s); got != "1.0.0" {
		t.Errorf("active is %s", got)
	}
}

func TestPendingWaitsUntilActivated(t *testing.T) {
	s := newStore(t)
	put(t, s, version("1.0.0"), "#!/bin/sh\n")
	next := put(t, s, version("1.1.0"), "#!/bin/sh\n:\n")
	if _, _, err := s.Rollback(t.Context(), "tool"); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(next); err != nil {
		t.Fatal(err)
	}
	p, err := s.Lookup(t.Context(), "tool")
	if err != nil || p.Version != "1.0.0" || p.Pending != "1.1.0" {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := s.Activate(t.Context(), "tool", hostabi.DigestOf(nil)); err == nil {
		t.Error("another index was activated")
	}
	if _, err := s.Change(t.Context(), "tool", func(r *Receipt) { r.Disabled = true }); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Activate(t.Context(), "tool", next.Index); err != nil || !r.Pinned || !r.Disabled {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := s.Lookup(t.Context(), "tool"); hostabi.ReasonOf(err) != hostabi.ReasonDisabled {
		t.Errorf("got %v", err)
	}
	if _, err := s.Pending("tool"); hostabi.ReasonOf(err) != hostabi.ReasonPluginNotFound {
		t.Errorf("still waits: %v", err)
	}
}

func TestChangeKeepsWhatItDoesNotKnow(t *testing.T) {
	s := newStore(t)
	put(t, s, version("1.0.0"), "#!/bin/sh\n")
	name := filepath.Join(s.Dir(), "active", "tool.json")
	edit := func(f func(map[string]any)) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		f(m)
		if b, err = json.Marshal(m); err != nil {
			t.Fatal(err)
		}
		write(t, name, string(b), 0o600)
	}
	edit(func(m map[string]any) { m["later"] = "kept" })
	if _, err := s.Change(t.Context(), "tool", func(r *Receipt) { r.Pinned = true }); err != nil {
		t.Fatal(err)
	}
	edit(func(m map[string]any) {
		if m["later"] != "kept" || m["pinned"] != true {
			t.Errorf("receipt is %v", m)
		}
		m["version"] = 2
	})
	if _, err := s.Change(t.Context(), "tool", func(r *Receipt) { r.Pinned = false }); hostabi.ReasonOf(err) != hostabi.ReasonConfigVersion {
		t.Errorf("a newer receipt: %v", err)
	}
}

// TestSweepLeavesWhatRuns: a version that nothing names stays as long as its program is open.
func TestSweepLeavesWhatRuns(t *testing.T) {
	s := newStore(t)
	put(t, s, version("1.0.0"), "#!/bin/sh\n")
	p, err := s.Lookup(t.Context(), "tool")
	if err != nil {
		t.Fatal(err)
	}
	running, err := s.Open(t.Context(), p, plugin.Native)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, version("1.1.0"), "#!/bin/sh\n:\n")
	put(t, s, version("1.2.0"), "#!/bin/sh\n::\n")
	waits := put(t, s, version("1.3.0"), "#!/bin/sh\n:::\n")
	if _, _, err := s.Rollback(t.Context(), "tool"); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(waits); err != nil {
		t.Fatal(err)
	}
	s.o.Clock = func() time.Time { return time.Now().Add(2 * sweepAge) }
	count := func() int {
		entries, err := os.ReadDir(filepath.Join(s.Dir(), "store"))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	if _, err := s.Sweep(t.Context()); err != nil || count() != 3 {
		t.Errorf("%d versions left, %v; want the active one, the previous one and the one that runs", count(), err)
	}
	if _, err := os.Stat(running.Path); err != nil {
		t.Error(err)
	}
	running.File.Close()
	if err := os.MkdirAll(filepath.Join(s.Dir(), ".trash", "left", "sealed"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sweep(t.Context()); err != nil || count() != 2 {
		t.Errorf("%d versions left, %v", count(), err)
	}
	for dir, want := range map[string]int{".trash": 0, "stamps": 0} {
		if entries, _ := os.ReadDir(filepath.Join(s.Dir(), dir)); len(entries) != want {
			t.Errorf("%s holds %v", dir, entries)
		}
	}
}
