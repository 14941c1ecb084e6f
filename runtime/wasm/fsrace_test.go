package wasm

import (
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"

	"github.com/delivery-station/ds/sandbox"
)

func (w *world) rename(from, to string) {
	w.t.Helper()
	if err := os.Rename(filepath.Join(w.base, from), filepath.Join(w.base, to)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) symlink(to, name string) {
	w.t.Helper()
	if err := os.Symlink(to, filepath.Join(w.base, name)); err != nil {
		w.t.Skipf("no symbolic links here: %v", err)
	}
}

// racer swaps two names of the host over and over until stopped. On its way there are moments with neither.
func racer(dir, name, other string) (stop func() int) {
	var end atomic.Bool
	var wg sync.WaitGroup
	swaps := 0
	a, b, c := filepath.Join(dir, name), filepath.Join(dir, other), filepath.Join(dir, "swapped away")
	wg.Go(func() {
		for !end.Load() {
			// The guest may have taken one of them away: what is left still swaps.
			_ = os.Rename(a, c)
			_ = os.Rename(b, a)
			runtime.Gosched()
			_ = os.Rename(a, b)
			_ = os.Rename(c, a)
			swaps++
		}
	})
	return func() int { // may be called again
		end.Store(true)
		wg.Wait()
		return swaps
	}
}

// TestS8_Mounts: the host side changes while the guest works on it: a directory becomes a link that leads out, a
// file becomes a link or a pipe, between any two steps of a call. Nothing outside is read or changed.
func TestS8_Mounts(t *testing.T) {
	t.Parallel()
	rounds := scale(300, 5_000, 50_000)
	random := rand.New(rand.NewPCG(seed(t), 8))
	for _, c := range []struct {
		name, good, bad string // swapped
		path            string // that the guest uses
		files           []string
		box             func(base string) fakeBox
	}{
		{"directory for a link", "d", "away", "d/key", []string{"d/key", "away -> ../secret"}, rw},
		{"directory for an absolute link", "d", "away", "d/key", []string{"d/key", "away -> $BASE/secret"}, rw},
		{"directory for a link, links not followed", "d", "away", "d/key", []string{"d/key", "away -> ../secret"}, func(base string) fakeBox {
			return fakeBox{mounts: []sandbox.Mount{{Host: base + "/in", Guest: "/cwd", Write: true, Patterns: []string{"d/*", "new"}}}}
		}},
		{"directory for a link into what is denied", "d", "away", "d/key", []string{"d/key", "away -> private", "private/key"}, func(base string) fakeBox {
			return fakeBox{mounts: []sandbox.Mount{{Host: base + "/in", Guest: "/cwd", Write: true, Follow: true, Deny: []string{"private/**"}}}}
		}},
		{"directory for a link into what is not granted", "d", "away", "d/key", []string{"d/key", "away -> private", "private/key"}, func(base string) fakeBox {
			return fakeBox{mounts: []sandbox.Mount{{Host: base + "/in", Guest: "/cwd", Write: true, Patterns: []string{"d/*"}}}}
		}},
		{"file for a link into what is denied", "key", "away", "key", []string{"key", "away -> private/key", "private/key"}, func(base string) fakeBox {
			return fakeBox{mounts: []sandbox.Mount{{Host: base + "/in", Guest: "/cwd", Write: true, Follow: true, Deny: []string{"private/**"}}}}
		}},
		{"argument for a link to its neighbour", "key", "away", "key", []string{"key", "away -> private/key", "private/key"}, func(base string) fakeBox {
			return fakeBox{mounts: []sandbox.Mount{{Host: base + "/in", Guest: "/cwd", Name: "key", Write: true}}}
		}},
		{"directory for a pipe", "d", "fifo", "d/key", []string{"d/key"}, func(base string) fakeBox {
			return fakeBox{mounts: []sandbox.Mount{{Host: base + "/in", Guest: "/cwd", Write: true, Patterns: []string{"d/*"}}}}
		}},
		{"file for a link", "key", "away", "key", []string{"key", "away -> ../secret/key"}, rw},
		{"argument for a link", "key", "away", "key", []string{"key", "away -> ../secret/key"}, func(base string) fakeBox {
			return fakeBox{mounts: []sandbox.Mount{{Host: base + "/in", Guest: "/cwd", Name: "key", Write: true}}}
		}},
		{"file for a pipe", "key", "fifo", "key", []string{"key"}, rw},
		{"mount for a link", "", "", "key", []string{"key"}, rw},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.files, c.box)
			if c.bad == "fifo" {
				if err := mkfifo(filepath.Join(w.base, "in", "fifo")); err != nil {
					t.Skip(err)
				}
			}
			hidden := map[string]string{"secret/key": "secret"}
			if slices.Contains(c.files, "private/key") {
				w.host("in/private/key", "secret")
				hidden["in/private/key"] = "secret"
			}
			dir, good, bad := filepath.Join(w.base, "in"), c.good, c.bad
			if good == "" {
				dir, good, bad = w.base, "in", "away"
				w.symlink("secret", "away")
			}
			stop := racer(dir, good, bad)
			defer stop()
			m := w.by["/cwd"]
			worked := 0
			for range rounds {
				if attack(w, m, c.path, random.IntN(9)) == 0 {
					worked++
				}
				for name, want := range hidden {
					if got := w.read(name); got != want {
						t.Fatalf("%s is %q", name, got)
					}
				}
			}
			swaps := stop()
			left, err := os.ReadDir(filepath.Join(w.base, "secret"))
			if err != nil || len(left) != 1 {
				t.Errorf("outside: %v %v", left, err)
			}
			if rounds >= 5_000 && (worked == 0 || swaps == 0) {
				t.Errorf("no race: %d calls worked, %d swaps", worked, swaps)
			}
			t.Logf("S8: %d attacks, %d of them worked inside, %d swaps, 0 wins", rounds, worked, swaps)
		})
	}
}

// attack makes one call; what it reads must not come from outside.
func attack(w *world, m *mountFS, name string, call int) experimentalsys.Errno {
	other := strings.TrimSuffix(name, "key") + "new"
	flag := []experimentalsys.Oflag{rdonly, rdonly, rdwr, rdwr | creat | trunc, wronly | appnd}
	switch call {
	case 5:
		st, e := m.Stat(name)
		if e == 0 && st.Size == int64(len("secret")) {
			w.t.Fatalf("%s shows the state of what is outside", name)
		}
		return e
	case 6:
		e := m.Rename(name, other)
		for range 200 { // or there is nothing left to race for
			if e != 0 || m.Rename(other, name) == 0 {
				break
			}
		}
		return e
	case 7:
		return m.Utimens(name, 0, 0)
	case 8:
		e := open(m, other, wronly|creat|excl)
		m.Unlink(other)
		return e
	}
	f, e := m.OpenFile(name, flag[call], 0)
	if e != 0 {
		return e
	}
	defer f.Close()
	if call > 1 {
		_, e = f.Write([]byte("content written"))
		return e
	}
	b := make([]byte, 20)
	n, e := f.Read(b)
	if e == 0 && strings.HasPrefix(string(b[:n]), "secret") {
		w.t.Fatalf("%s gave what is outside", name)
	}
	if _, e := f.Seek(0, io.SeekStart); e != 0 {
		w.t.Errorf("seek: %v", e)
	}
	return e
}
