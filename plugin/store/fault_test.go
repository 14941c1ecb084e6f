package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/internal/atomicfile/faulttest"
	"github.com/delivery-station/ds/plugin"
)

func faultStore(f atomicfile.FS, dir string) *Store {
	later := func() time.Time { return time.Now().Add(48 * time.Hour) } // versions that nobody names are old enough
	return New(Options{Dir: filepath.Join(dir, "plugins"), FS: f, Full: true, Clock: later, DS: "test"})
}

// install installs a version of tool the way plugin/install does, with a directory of assets.
func installVersion(ctx context.Context, s *Store, v string) error {
	m := version(v)
	stage, err := s.Stage(ctx, m.Name, plugin.Native)
	if err != nil {
		return err
	}
	r, err := fill(stage, m)
	if err == nil {
		err = publish(ctx, s, stage, r)
	}
	return errors.Join(err, stage.Close())
}

func fill(stage *Stage, m *plugin.Manifest) (*Receipt, error) {
	text, err := m.JSON()
	if err != nil {
		return nil, err
	}
	program := []byte("#!/bin/sh\necho " + m.Version + strings.Repeat("\n#", 3000) + "\n")
	if err := stage.s.o.FS.Mkdir(filepath.Join(stage.Dir, "assets"), 0o700); err != nil {
		return nil, writeError(err)
	}
	for name, b := range map[string][]byte{stage.Program: program, manifestName: text, "assets/page": []byte("page of " + m.Version)} {
		f, err := stage.Create(name)
		if err != nil {
			return nil, err
		}
		_, err = f.Write(b)
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, writeError(err)
		}
	}
	index := hostabi.DigestOf([]byte(m.Version))
	return &Receipt{
		Name: m.Name, PluginVersion: m.Version, Index: index, Source: Source{Requested: "reg/tool", Repository: "reg/tool"},
		Kinds: []Kind{{Kind: plugin.Native, Child: index, Blob: hostabi.DigestOf(program)}}, Trust: Trust{Level: LevelUnsigned},
	}, stage.Seal()
}

func publish(ctx context.Context, s *Store, stage *Stage, r *Receipt) error {
	unlock, err := s.Lock(ctx, r.Name)
	if err != nil {
		return err
	}
	defer func() { _ = unlock() }()
	if r.Kinds[0], err = stage.Publish(r.Index, r.Kinds[0]); err != nil {
		return err
	}
	return s.Record(r)
}

// storeSteps are what the scenario does and, after each, the active version, whether it is pinned, and the version
// that ds.lock has.
var storeSteps = []struct {
	ack, have string
	do        func(ctx context.Context, s *Store) error
}{
	{"", "1.0.0 false -", nil},
	{"upgrade", "2.0.0 false -", func(ctx context.Context, s *Store) error { return installVersion(ctx, s, "2.0.0") }},
	{"lock", "2.0.0 false 2.0.0", func(ctx context.Context, s *Store) error {
		return s.EditLock(ctx, lockPath(s), func(l LockFile) error {
			l["tool"] = Locked{Source: "reg/tool", Version: "2.0.0", Index: hostabi.DigestOf([]byte("2.0.0")), Signer: "none", Level: LevelUnsigned, Capabilities: hostabi.DigestOf(nil)}
			return nil
		})
	}},
	{"claim", "2.0.0 false 2.0.0", func(ctx context.Context, s *Store) error {
		return s.Claim(ctx, &plugin.Installed{Name: "tool", Repository: "reg/tool", Signer: "none"}, func(context.Context) error { return nil })
	}},
	{"rollback", "1.0.0 true 2.0.0", func(ctx context.Context, s *Store) error {
		_, _, err := s.Rollback(ctx, "tool")
		return err
	}},
	{"unpin", "1.0.0 false 2.0.0", func(ctx context.Context, s *Store) error {
		_, err := s.Change(ctx, "tool", func(r *Receipt) { r.Pinned = false })
		return err
	}},
	{"sweep", "1.0.0 false 2.0.0", func(ctx context.Context, s *Store) error {
		_, err := s.Sweep(ctx)
		return err
	}},
	{"remove", "none - 2.0.0", func(ctx context.Context, s *Store) error {
		_, err := s.Remove(ctx, "tool")
		return err
	}},
}

func lockPath(s *Store) string { return filepath.Join(filepath.Dir(s.Dir()), "project", "ds.lock") }

func storeScenario() faulttest.Scenario {
	return faulttest.Scenario{
		Name: "store",
		Setup: func(t *testing.T, f atomicfile.FS, dir string) {
			if err := installVersion(t.Context(), faultStore(f, dir), "1.0.0"); err != nil {
				t.Fatal(err)
			}
		},
		Run: func(ctx context.Context, f atomicfile.FS, dir string, ack func(string)) error {
			s := faultStore(f, dir)
			for _, st := range storeSteps[1:] {
				if err := st.do(ctx, s); err != nil {
					return fmt.Errorf("%s: %w", st.ack, err)
				}
				ack(st.ack)
			}
			return nil
		},
		Check: checkStore,
	}
}

// checkStore: the plugin is as it was after the last step that was acknowledged or after the next one, and its
// version works; the next install works, and a sweep leaves nothing of the dead.
func checkStore(t *testing.T, r faulttest.Result) {
	t.Helper()
	if r.Err != nil && hostabi.ReasonOf(r.Err) == "" {
		t.Errorf("an error without a reason: %v", r.Err)
	}
	s := faultStore(r.FS, r.Dir)
	done, have := len(r.Acked), storeHas(t, s)
	if have != storeSteps[done].have && (done+1 == len(storeSteps) || have != storeSteps[done+1].have) {
		t.Errorf("after %q the store has %s", r.Acked, have)
	}
	if err := installVersion(t.Context(), s, "3.0.0"); err != nil {
		t.Errorf("the next install: %v", err)
	}
	if got := storeHas(t, s); !strings.HasPrefix(got, "3.0.0 ") {
		t.Errorf("the next install left %s", got)
	}
	if err := s.EditLock(t.Context(), lockPath(s), func(l LockFile) error { l["other"] = Locked{Source: "reg/other"}; return nil }); err != nil {
		t.Errorf("the next lock: %v", err)
	}
	if _, err := s.Sweep(t.Context()); err != nil {
		t.Errorf("the next sweep: %v", err)
	}
	nothingLeft(t, s)
}

// storeHas describes the store as storeSteps does; an active version must work.
func storeHas(t *testing.T, s *Store) string {
	t.Helper()
	locked := "-"
	if _, err := os.Lstat(lockPath(s)); err == nil {
		l, err := s.ReadLock(lockPath(s))
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := l["tool"]; ok {
			locked = e.Version
		}
	}
	p, err := s.Lookup(t.Context(), "tool")
	if hostabi.ReasonOf(err) == hostabi.ReasonPluginNotFound {
		return "none - " + locked
	}
	if err != nil {
		t.Fatal(err)
	}
	pr, err := s.Open(t.Context(), p, plugin.Native)
	if err != nil {
		t.Fatal(err)
	}
	_ = pr.File.Close()
	rec, err := s.Receipt("tool")
	if err == nil {
		err = s.Verify(rec)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(p.Version, " ", p.Pinned, " ", locked)
}

func nothingLeft(t *testing.T, s *Store) {
	t.Helper()
	named := make(map[string]bool)
	for _, f := range []func(plugin.Name) (*Receipt, error){s.Receipt, s.Previous, s.Pending} {
		if r, err := f("tool"); err == nil {
			named[r.Kinds[0].Dir] = true
		}
	}
	allowed := map[string]func(name string) bool{
		"store": func(n string) bool { return named[n] }, ".staging": nil, ".trash": nil,
		"active": isReceipt, "prev": isReceipt, "pending": isReceipt, "owners": isReceipt, "../project": func(n string) bool { return n == "ds.lock" },
		"stamps": func(n string) bool { return named[strings.TrimSuffix(n, ".json")] },
	}
	for dir, ok := range allowed {
		entries, _ := os.ReadDir(filepath.Join(s.Dir(), dir))
		for _, e := range entries {
			if ok == nil || !ok(e.Name()) {
				t.Errorf("left in %s: %s", dir, e.Name())
			}
		}
	}
	entries, err := os.ReadDir(s.Dir())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(append(storeDirs, ".staging", ".trash"), e.Name()) {
			t.Errorf("left: %s", e.Name())
		}
	}
}

func isReceipt(name string) bool { return name == "tool.json" }

// R2 of reliability.md: each operation of the file system fails, or the process dies there.
func TestR2_Store(t *testing.T) { faulttest.Loop(t, storeScenario()) }

// R3 of reliability.md: the power is cut.
func TestR3_Store(t *testing.T) { faulttest.Cuts(t, storeScenario(), faulttest.Scale(4, 60, 600)) }
