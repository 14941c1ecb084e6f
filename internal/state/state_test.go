package state

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/bustest"
)

const owner = hostabi.PluginName("s3")

// TestMain lets the test binary be one of several processes that share a store.
func TestMain(m *testing.M) {
	if dir := os.Getenv("DS_TEST_STATE_INCREMENT"); dir != "" {
		if err := bustest.Increment(context.Background(), Open(Options{Dir: dir}), increments); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestMemory(t *testing.T) {
	bustest.RunState(t, func(*testing.T) func(bustest.StateOptions) bustest.State {
		// Another handle on what is in memory is the store itself, with what the case sets.
		store := Memory(Options{})
		return func(o bustest.StateOptions) bustest.State {
			if o.Clock != nil {
				store.o.Clock = o.Clock
			}
			store.o.DefaultTTL = o.DefaultTTL
			return store
		}
	})
}

func TestFiles(t *testing.T) {
	bustest.RunState(t, func(t *testing.T) func(bustest.StateOptions) bustest.State {
		dir := filepath.Join(t.TempDir(), "state")
		return func(o bustest.StateOptions) bustest.State {
			return Open(Options{Dir: dir, Clock: o.Clock, DefaultTTL: o.DefaultTTL})
		}
	})
}

// Writers of TestProcessesShareTheStore and what each adds.
const processes, increments = 8, 1000

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
	for range processes {
		wg.Go(func() {
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), "DS_TEST_STATE_INCREMENT="+dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()
	bustest.WantCount(t, Open(Options{Dir: dir}), processes*increments)
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

func wantReason(t *testing.T, err error, want hostabi.Reason) {
	t.Helper()
	if got := hostabi.ReasonOf(err); got != want {
		t.Errorf("reason %q, want %q (%v)", got, want, err)
	}
}

func errOf[T any](_ T, err error) error { return err }
