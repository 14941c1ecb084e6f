package state

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/internal/atomicfile/faulttest"
)

// steps are what the scenario does, and what the owner has then.
var steps = []struct {
	ack  string
	do   func(ctx context.Context, s *Store) error
	have string
}{
	{"", nil, "gone=x kept=old"},
	{"cas", func(ctx context.Context, s *Store) error {
		e, err := s.Get(ctx, owner, "kept")
		if err == nil {
			_, err = s.Put(ctx, owner, hostabi.StateEntry{Key: "kept", Value: []byte("new")}, &e.Revision, 0)
		}
		return err
	}, "gone=x kept=new"},
	{"create", func(ctx context.Context, s *Store) error {
		absent := uint64(0)
		_, err := s.Put(ctx, owner, hostabi.StateEntry{Key: "big", Value: []byte(strings.Repeat("b", 9000))}, &absent, 0)
		return err
	}, "big=" + strings.Repeat("b", 9000) + " gone=x kept=new"},
	{"delete", func(ctx context.Context, s *Store) error {
		_, err := s.Delete(ctx, owner, "gone", nil)
		return err
	}, "big=" + strings.Repeat("b", 9000) + " kept=new"},
}

func stateScenario() faulttest.Scenario {
	return faulttest.Scenario{
		Name: "state",
		Setup: func(t *testing.T, f atomicfile.FS, dir string) {
			s := Open(Options{Dir: dir, FS: f})
			put(t, s, "kept", "old", nil)
			put(t, s, "gone", "x", nil)
		},
		Run: func(ctx context.Context, f atomicfile.FS, dir string, ack func(string)) error {
			s := Open(Options{Dir: dir, FS: f})
			for _, st := range steps[1:] {
				if err := st.do(ctx, s); err != nil {
					return err
				}
				ack(st.ack)
			}
			return nil
		},
		Check: checkState,
	}
}

// checkState: what was acknowledged is there, and of what was not, at most the next step.
func checkState(t *testing.T, r faulttest.Result) {
	t.Helper()
	if r.Err != nil && hostabi.ReasonOf(r.Err) == "" {
		t.Errorf("an error without a reason: %v", r.Err)
	}
	s := Open(Options{Dir: r.Dir, FS: r.FS})
	have := contents(t, s)
	done := len(r.Acked)
	if have != steps[done].have && (done+1 == len(steps) || have != steps[done+1].have) {
		t.Errorf("after %q the owner has %.80q", r.Acked, have)
	}
	put(t, s, "later", "l", nil) // the next command works
	if _, err := s.Delete(t.Context(), owner, "later", nil); err != nil {
		t.Error(err)
	}
	names, err := os.ReadDir(filepath.Join(r.Dir, "kv"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if !slices.Contains([]string{"s3.json", "s3.lock"}, n.Name()) {
			t.Errorf("left behind: %s", n.Name())
		}
	}
}

func contents(t *testing.T, s *Store) string {
	t.Helper()
	var all []string
	for e, err := range s.List(t.Context(), owner, "") {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%s=%s", e.Key, e.Value))
	}
	return strings.Join(all, " ")
}

// R2 of reliability.md: each operation of the file system fails, or the process dies there.
func TestR2_State(t *testing.T) { faulttest.Loop(t, stateScenario()) }

// R3 of reliability.md: the power is cut.
func TestR3_State(t *testing.T) { faulttest.Cuts(t, stateScenario(), faulttest.Scale(4, 40, 400)) }
