package state

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

const owner = hostabi.PluginName("s3")

// TestMain lets the test binary be one of several processes that share a store.
func TestMain(m *testing.M) {
	if dir := os.Getenv("DS_TEST_STATE_INCREMENT"); dir != "" {
		for range 100 {
			if err := increment(context.Background(), Open(Options{Dir: dir})); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// each runs f over both engines.
func each(t *testing.T, f func(t *testing.T, s *Store, clock *time.Time)) {
	t.Helper()
	for name, open := range map[string]func(Options) *Store{"memory": Memory, "files": Open} {
		t.Run(name, func(t *testing.T) {
			now := time.UnixMilli(1_700_000_000_000)
			f(t, open(Options{Dir: filepath.Join(t.TempDir(), "state"), Clock: func() time.Time { return now }}), &now)
		})
	}
}

func TestPutGetDelete(t *testing.T) {
	each(t, func(t *testing.T, s *Store, clock *time.Time) {
		first := put(t, s, "a/b", "one", nil)
		*clock = clock.Add(time.Second)
		second := put(t, s, "a/b", "two", nil)
		if first.Revision == 0 || second.Revision <= first.Revision {
			t.Errorf("revisions %d, %d do not grow", first.Revision, second.Revision)
		}
		got, err := s.Get(t.Context(), owner, "a/b")
		if err != nil || string(got.Value) != "two" || !got.Created.Equal(first.Created) || !got.Updated.After(got.Created) {
			t.Errorf("Get = %+v, %v", got, err)
		}
		if err := s.Delete(t.Context(), owner, "a/b", nil); err != nil {
			t.Fatal(err)
		}
		wantReason(t, errOf(s.Get(t.Context(), owner, "a/b")), hostabi.ReasonKeyNotFound)
		if err := s.Delete(t.Context(), owner, "a/b", nil); err != nil {
			t.Errorf("deleting a missing key: %v", err)
		}
		if again := put(t, s, "a/b", "three", nil); again.Revision <= second.Revision {
			t.Errorf("revision %d after a delete does not grow beyond %d", again.Revision, second.Revision)
		}
	})
}

func TestRevisions(t *testing.T) {
	each(t, func(t *testing.T, s *Store, _ *time.Time) {
		none, one := uint64(0), uint64(1)
		e := put(t, s, "k", "v", &none)
		err := errOf(s.Put(t.Context(), owner, hostabi.StateEntry{Key: "k", Value: []byte("w")}, &none, 0))
		wantReason(t, err, hostabi.ReasonStateConflict)
		if he := hostabi.AsError(err); he.Meta["revision"] != fmt.Sprint(e.Revision) {
			t.Errorf("conflict names revision %q, want %d", he.Meta["revision"], e.Revision)
		}
		stale := e.Revision + 7
		wantReason(t, s.Delete(t.Context(), owner, "k", &stale), hostabi.ReasonStateConflict)
		wantReason(t, s.Delete(t.Context(), owner, "missing", &one), hostabi.ReasonStateConflict)
		if got, _ := s.Get(t.Context(), owner, "k"); string(got.Value) != "v" {
			t.Errorf("a refused write changed the value to %q", got.Value)
		}
		put(t, s, "k", "w", &e.Revision)
	})
}

func TestTTL(t *testing.T) {
	each(t, func(t *testing.T, s *Store, clock *time.Time) {
		if _, err := s.Put(t.Context(), owner, hostabi.StateEntry{Key: "k", Expires: clock.Add(time.Second)}, nil, 0); err != nil {
			t.Fatal(err)
		}
		put(t, s, "stays", "v", nil)
		*clock = clock.Add(time.Second)
		wantReason(t, errOf(s.Get(t.Context(), owner, "k")), hostabi.ReasonKeyNotFound)
		if keys := list(t, s, ""); strings.Join(keys, " ") != "stays" {
			t.Errorf("listed %v", keys)
		}
		none := uint64(0)
		put(t, s, "k", "again", &none) // an expired entry counts as absent
	})
}

func TestListIsSortedAndFiltered(t *testing.T) {
	each(t, func(t *testing.T, s *Store, _ *time.Time) {
		for _, k := range []string{"b/2", "a", "b/1", "c"} {
			put(t, s, k, k, nil)
		}
		if keys := list(t, s, "b/"); strings.Join(keys, " ") != "b/1 b/2" {
			t.Errorf("listed %v", keys)
		}
		for e, err := range s.List(t.Context(), "other", "") {
			t.Errorf("another owner sees %+v, %v", e, err)
		}
	})
}

func TestLimits(t *testing.T) {
	each(t, func(t *testing.T, s *Store, _ *time.Time) {
		ctx := t.Context()
		wantReason(t, errOf(s.Put(ctx, owner, hostabi.StateEntry{Key: "../x"}, nil, 0)), hostabi.ReasonBadKey)
		wantReason(t, errOf(s.Put(ctx, "../x", hostabi.StateEntry{Key: "k"}, nil, 0)), hostabi.ReasonUsage)
		wantReason(t, errOf(s.Put(ctx, owner, hostabi.StateEntry{Key: "k", Value: make([]byte, hostabi.MaxStateValue+1)}, nil, 0)), hostabi.ReasonTooLarge)
		put(t, s, "k", "small", nil)
		wantReason(t, errOf(s.Put(ctx, owner, hostabi.StateEntry{Key: "l", Value: make([]byte, 1000)}, nil, 1000)), hostabi.ReasonQuota)
		if keys := list(t, s, ""); strings.Join(keys, " ") != "k" {
			t.Errorf("a refused write left %v", keys)
		}
	})
}

// TestTwoWritersOneWins is the promise of compare-and-set, in one process and across processes.
func TestTwoWritersOneWins(t *testing.T) {
	each(t, func(t *testing.T, s *Store, _ *time.Time) {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 25 {
					if err := increment(t.Context(), s); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		wantCount(t, s, 200)
	})
}

func TestProcessesShareTheStore(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), "DS_TEST_STATE_INCREMENT="+dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()
	wantCount(t, Open(Options{Dir: dir}), 400)
}

func TestDamagedFileIsKept(t *testing.T) {
	dir := t.TempDir()
	s := Open(Options{Dir: dir})
	put(t, s, "k", "v", nil)
	name := filepath.Join(dir, "kv", "s3.json")
	for damage, text := range map[string]string{
		"torn": `{"version":1,"owner":"s3","entr`, "other owner": `{"version":1,"owner":"x"}`, "newer": `{"version":2,"owner":"s3"}`,
	} {
		t.Run(damage, func(t *testing.T) {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			wantReason(t, errOf(s.Get(t.Context(), owner, "k")), hostabi.ReasonStateCorrupt)
			wantReason(t, errOf(s.Put(t.Context(), owner, hostabi.StateEntry{Key: "k"}, nil, 0)), hostabi.ReasonStateCorrupt)
			if b, _ := os.ReadFile(name); string(b) != text {
				t.Errorf("the damaged file became %q", b)
			}
			if err := errOf(s.Put(t.Context(), "other", hostabi.StateEntry{Key: "k"}, nil, 0)); err != nil {
				t.Errorf("another owner suffers: %v", err)
			}
		})
	}
}

func TestFilesAreReadableAndPrivate(t *testing.T) {
	dir := t.TempDir()
	s := Open(Options{Dir: filepath.Join(dir, "new")})
	put(t, s, "b", "2", nil)
	put(t, s, "a", "1", nil)
	name := filepath.Join(dir, "new", "kv", "s3.json")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(string(b)), "\n"); len(lines) != 4 || !strings.Contains(lines[1], `"key":"a"`) {
		t.Errorf("not one sorted entry a line:\n%s", b)
	}
	if info, _ := os.Stat(name); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestRetire(t *testing.T) {
	each(t, func(t *testing.T, s *Store, _ *time.Time) {
		put(t, s, "k", "v", nil)
		if err := s.Retire(t.Context(), owner); err != nil {
			t.Fatal(err)
		}
		wantReason(t, errOf(s.Get(t.Context(), owner, "k")), hostabi.ReasonKeyNotFound)
		if err := s.Retire(t.Context(), "never-seen"); err != nil {
			t.Errorf("retiring nothing: %v", err)
		}
	})
}

func TestUnwritableDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := Open(Options{Dir: filepath.Join(file, "below")})
	if _, err := s.Put(t.Context(), owner, hostabi.StateEntry{Key: "k"}, nil, 0); err == nil {
		t.Error("wrote below a file")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"version":1,"owner":"s3","sequence":2,"entries":[{"key":"b","value":"eA=="},{"key":"a"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decode(b)
		if err != nil {
			return
		}
		again, err := decode(got.encode())
		if err != nil || len(again.Entries) != len(got.Entries) || again.Sequence != got.Sequence {
			t.Fatalf("%q does not survive a rewrite: %v", b, err)
		}
	})
}

func put(t testing.TB, s *Store, key, value string, ifRev *uint64) hostabi.StateEntry {
	t.Helper()
	e, err := s.Put(t.Context(), owner, hostabi.StateEntry{Key: key, Value: []byte(value)}, ifRev, 0)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func list(t *testing.T, s *Store, prefix string) (keys []string) {
	t.Helper()
	for e, err := range s.List(t.Context(), owner, prefix) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, e.Key)
	}
	return keys
}

// increment adds one to the key n with compare-and-set, until it wins.
func increment(ctx context.Context, s *Store) error {
	for {
		var rev uint64
		n := 0
		e, err := s.Get(ctx, owner, "n")
		if err == nil {
			rev, n = e.Revision, int(e.Value[0])<<8|int(e.Value[1])
		} else if !errors.Is(err, &hostabi.Error{Reason: hostabi.ReasonKeyNotFound}) {
			return err
		}
		n++
		_, err = s.Put(ctx, owner, hostabi.StateEntry{Key: "n", Value: []byte{byte(n >> 8), byte(n)}}, &rev, 0)
		if err == nil {
			return nil
		}
		if hostabi.ReasonOf(err) != hostabi.ReasonStateConflict {
			return err
		}
	}
}

func wantCount(t *testing.T, s *Store, want int) {
	t.Helper()
	e, err := s.Get(t.Context(), owner, "n")
	if err != nil {
		t.Fatal(err)
	}
	if got := int(e.Value[0])<<8 | int(e.Value[1]); got != want {
		t.Errorf("counted %d, want %d", got, want)
	}
}

func wantReason(t *testing.T, err error, want hostabi.Reason) {
	t.Helper()
	if got := hostabi.ReasonOf(err); got != want {
		t.Errorf("reason %q, want %q (%v)", got, want, err)
	}
}

func errOf[T any](_ T, err error) error { return err }
