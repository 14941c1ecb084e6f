package sandbox

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/internal/atomicfile/faulttest"
)

func faultGrant(name, scope string) Grant {
	return Grant{
		Key:     Key{Plugin: "ghcr.io/a/" + name, Signer: "none", Index: digestA},
		Granted: map[hostabi.Capability]Scopes{"fs.read": {Scope: []string{scope}}},
	}
}

// grantSteps are what the scenario does, and what is granted then.
var grantSteps = []struct {
	do   func(ctx context.Context, s *Store) error
	have string
}{
	{nil, "[ghcr.io/a/old:[args]]"},
	{func(ctx context.Context, s *Store) error { return s.Grant(ctx, faultGrant("new", "args")) }, "[ghcr.io/a/new:[args] ghcr.io/a/old:[args]]"},
	{func(ctx context.Context, s *Store) error { return s.Grant(ctx, faultGrant("new", "/srv/**")) }, "[ghcr.io/a/new:[/srv/**] ghcr.io/a/old:[args]]"},
	{func(ctx context.Context, s *Store) error { return s.Purge(ctx, "ghcr.io/a/old") }, "[ghcr.io/a/new:[/srv/**]]"},
}

func grants(t *testing.T, f atomicfile.FS, dir string) *Store {
	t.Helper()
	s, err := Open(StoreOptions{Path: filepath.Join(dir, "config", "grants.yaml"), FS: f})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func grantScenario(t *testing.T) faulttest.Scenario {
	return faulttest.Scenario{
		Name: "grants",
		Setup: func(t *testing.T, f atomicfile.FS, dir string) {
			if err := grants(t, f, dir).Grant(t.Context(), faultGrant("old", "args")); err != nil {
				t.Fatal(err)
			}
		},
		Run: func(ctx context.Context, f atomicfile.FS, dir string, ack func(string)) error {
			s := grants(t, f, dir)
			for i, st := range grantSteps[1:] {
				if err := st.do(ctx, s); err != nil {
					return err
				}
				ack(fmt.Sprint(i + 1))
			}
			return nil
		},
		Check: checkGrants,
	}
}

// checkGrants: what was acknowledged is granted, and of what was not, at most the next step.
func checkGrants(t *testing.T, r faulttest.Result) {
	t.Helper()
	if r.Err != nil && hostabi.ReasonOf(r.Err) == "" {
		t.Errorf("an error without a reason: %v", r.Err)
	}
	s := grants(t, r.FS, r.Dir)
	all, err := s.All()
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, g := range all {
		have = append(have, fmt.Sprintf("%s:%v", g.Plugin, g.Granted["fs.read"].Scope))
	}
	slices.Sort(have)
	done := len(r.Acked)
	if got := fmt.Sprint(have); got != grantSteps[done].have && (done+1 == len(grantSteps) || got != grantSteps[done+1].have) {
		t.Errorf("after %q there is %s", r.Acked, got)
	}
	if err := s.Grant(t.Context(), faultGrant("later", "args")); err != nil { // the next command works
		t.Error(err)
	}
	names, err := os.ReadDir(filepath.Dir(s.o.Path))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if n.Name() != "grants.yaml" && n.Name() != "grants.yaml.bak" {
			t.Errorf("left behind: %s", n.Name())
		}
		if fi, err := n.Info(); err == nil && fi.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", n.Name(), fi.Mode())
		}
	}
}

// R2 of reliability.md: each operation of the file system fails, or the process dies there.
func TestR2_Grants(t *testing.T) { faulttest.Loop(t, grantScenario(t)) }

// R3 of reliability.md: the power is cut.
func TestR3_Grants(t *testing.T) { faulttest.Cuts(t, grantScenario(t), faulttest.Scale(4, 40, 400)) }
