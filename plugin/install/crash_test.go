package install_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/install"
	"github.com/delivery-station/ds/plugin/store"
)

var errDead = errors.New("the process is dead")

// mortal is a file system whose process dies before its operation number at: that operation and all later ones do
// nothing. A write that is the last one is done by half.
type mortal struct {
	atomicfile.FS
	mu   sync.Mutex
	left int
	done int
}

func (m *mortal) step() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left--; m.left < 0 {
		return errDead
	}
	m.done++
	return nil
}

func (m *mortal) Open(name string, flag int, perm fs.FileMode) (atomicfile.File, error) {
	if flag&(os.O_CREATE|os.O_TRUNC) != 0 {
		if err := m.step(); err != nil {
			return nil, err
		}
	}
	f, err := m.FS.Open(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return mortalFile{f, m}, nil
}

func (m *mortal) Mkdir(name string, perm fs.FileMode) error {
	if err := m.step(); err != nil {
		return err
	}
	return m.FS.Mkdir(name, perm)
}

func (m *mortal) Rename(from, to string) error {
	if err := m.step(); err != nil {
		return err
	}
	return m.FS.Rename(from, to)
}

func (m *mortal) Remove(name string) error {
	if err := m.step(); err != nil {
		return err
	}
	return m.FS.Remove(name)
}

func (m *mortal) SyncDir(name string) error {
	if err := m.step(); err != nil {
		return err
	}
	return m.FS.SyncDir(name)
}

func (m *mortal) Lock(ctx context.Context, name string) (func() error, error) {
	if err := m.step(); err != nil {
		return nil, err
	}
	return m.FS.Lock(ctx, name)
}

type mortalFile struct {
	atomicfile.File
	m *mortal
}

func (f mortalFile) Write(p []byte) (int, error) {
	if err := f.m.step(); err != nil {
		n, _ := f.File.Write(p[:len(p)/2])
		return n, err
	}
	return f.File.Write(p)
}

func (f mortalFile) Chmod(mode fs.FileMode) error {
	if err := f.m.step(); err != nil {
		return err
	}
	return f.File.Chmod(mode)
}

func (f mortalFile) Sync() error {
	if err := f.m.step(); err != nil {
		return err
	}
	return f.File.Sync()
}

// operation is one thing that may die; after says in which versions the plugin may be then, "" for not installed.
type operation struct {
	before []func(w *world, s *store.Store) error
	do     func(w *world, s *store.Store) error
	after  []string
}

func put(version string) func(*world, *store.Store) error {
	return func(w *world, s *store.Store) error {
		_, err := w.with(s).Install(w.t.Context(), install.Request{Ref: w.reg.Host + "/acme/hello:" + version, Kind: plugin.Native, AllowUnsigned: true, Downgrade: true})
		return err
	}
}

// widens installs a version that has to wait.
func widens(version string) func(*world, *store.Store) error {
	return func(w *world, s *store.Store) error {
		w.refuse = hostabi.Errorf(hostabi.ReasonPluginInactive, "waits")
		defer func() { w.refuse = nil }()
		if err := put(version)(w, s); hostabi.ReasonOf(err) != hostabi.ReasonPluginInactive {
			return err
		}
		return nil
	}
}

func rollback(w *world, s *store.Store) error {
	_, _, err := s.Rollback(w.t.Context(), "hello")
	return err
}

func activate(w *world, s *store.Store) error {
	r, err := s.Pending("hello")
	if err == nil {
		_, err = s.Activate(w.t.Context(), "hello", r.Index)
	}
	return err
}

func sweep(w *world, s *store.Store) error {
	_, err := s.Sweep(w.t.Context())
	return err
}

func remove(w *world, s *store.Store) error {
	_, err := s.Remove(w.t.Context(), "hello")
	return err
}

// TestR2_InstallDies lets each operation die before each of its changes of the file system: the old or the new
// version works then, the next try succeeds, and the collector leaves nothing behind.
func TestR2_InstallDies(t *testing.T) {
	type step = func(*world, *store.Store) error
	w := newWorld(t)
	for _, v := range []string{"1.0.0", "1.1.0", "1.2.0"} {
		w.publish(source(t, v, nil), w.reg.Host+"/acme/hello")
	}
	stride, total := scale(5, 1, 1), 0
	for name, op := range map[string]operation{
		"install":  {nil, put("1.0.0"), []string{"", "1.0.0"}},
		"upgrade":  {[]step{put("1.0.0")}, put("1.1.0"), []string{"1.0.0", "1.1.0"}},
		"again":    {[]step{put("1.0.0"), put("1.1.0")}, put("1.2.0"), []string{"1.1.0", "1.2.0"}},
		"wait":     {[]step{put("1.0.0")}, widens("1.1.0"), []string{"1.0.0"}},
		"activate": {[]step{put("1.0.0"), widens("1.1.0")}, activate, []string{"1.0.0", "1.1.0"}},
		"overtake": {[]step{put("1.0.0"), widens("1.1.0")}, put("1.2.0"), []string{"1.0.0", "1.2.0"}},
		"rollback": {[]step{put("1.0.0"), put("1.1.0")}, rollback, []string{"1.0.0", "1.1.0"}},
		"collect":  {[]step{put("1.0.0"), put("1.1.0"), put("1.2.0")}, sweep, []string{"1.2.0"}},
		"remove":   {[]step{put("1.0.0"), put("1.1.0")}, remove, []string{"", "1.1.0"}},
	} {
		t.Run(name, func(t *testing.T) {
			for at := 0; ; at += stride {
				dir := filepath.Join(t.TempDir(), "plugins")
				later := func() time.Time { return time.Now().Add(48 * time.Hour) }
				healthy := store.New(store.Options{Dir: dir})
				for _, b := range op.before {
					if err := b(w, healthy); err != nil {
						t.Fatal(err)
					}
				}
				m := &mortal{FS: atomicfile.OS(), left: at}
				err := op.do(w, store.New(store.Options{Dir: dir, FS: m, Clock: later}))
				dead := m.left < 0
				if !dead && err != nil {
					t.Fatalf("alive: %v", err)
				}
				total++
				got := runs(t, store.New(store.Options{Dir: dir, Full: true}))
				if !slices.Contains(op.after, got) || !dead && got != op.after[len(op.after)-1] && name != "rollback" && name != "remove" {
					t.Fatalf("died before change %d: %q is active, want one of %q", at, got, op.after)
				}
				if err := put("1.2.0")(w, store.New(store.Options{Dir: dir})); err != nil {
					t.Fatalf("died before change %d: the next install: %v", at, err)
				}
				swept(t, store.New(store.Options{Dir: dir, Clock: later}))
				if !dead {
					return
				}
			}
		})
	}
	t.Logf("R2: %d deaths of 9 operations of the store, old or new version each time", total)
}

// runs is the version that works, or empty if nothing is installed; one that is installed and does not work is an
// error.
func runs(t *testing.T, s *store.Store) string {
	t.Helper()
	p, err := s.Lookup(t.Context(), "hello")
	if hostabi.ReasonOf(err) == hostabi.ReasonPluginNotFound {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, pr := range p.Programs {
		opened, err := s.Open(t.Context(), p, pr.Kind)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 64)
		n, _ := opened.File.ReadAt(b, 0)
		if want := "#!/bin/sh\necho " + p.Version + "\n"; pr.Kind == plugin.Native && string(b[:n]) != want {
			t.Fatalf("%s holds %q", p.Version, b[:n])
		}
		opened.File.Close()
	}
	r, err := s.Receipt("hello")
	if err == nil {
		err = s.Verify(r)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p.Version
}

// swept collects as a later ds would and looks whether anything is left that nobody names.
func swept(t *testing.T, s *store.Store) {
	t.Helper()
	if _, err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	named := make(map[string]bool)
	for _, f := range []func(plugin.Name) (*store.Receipt, error){s.Receipt, s.Previous, s.Pending} {
		if r, err := f("hello"); err == nil {
			for _, k := range r.Kinds {
				named[k.Dir] = true
			}
		}
	}
	for _, dir := range []string{"store", ".staging", ".trash"} {
		entries, _ := os.ReadDir(filepath.Join(s.Dir(), dir))
		for _, e := range entries {
			if dir != "store" || !named[e.Name()] {
				t.Errorf("left in %s: %s", dir, e.Name())
			}
		}
	}
}

// TestInstallsAtOnce: many processes install one plugin; it is fetched once and all succeed.
func TestInstallsAtOnce(t *testing.T) {
	w := newWorld(t)
	w.publish(source(t, "1.0.0", nil), w.reg.Host+"/acme/hello")
	n := scale(20, 100, 100)
	w.reg.Forget()
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() {
			s := store.New(store.Options{Dir: w.store.Dir()}) // locks between files, as between processes
			_, errs[i] = w.with(s).Install(t.Context(), install.Request{Ref: w.reg.Host + "/acme/hello:1.0.0", Kind: plugin.WASM, AllowUnsigned: true})
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	layer := hostabi.DigestOf([]byte("\x00asm\x01\x00\x00\x001.0.0"))
	if got := w.reg.Count("GET", "/blobs/"+string(layer)); got != 1 {
		t.Errorf("%d installs fetched the layer %d times", n, got)
	}
	if got := runs(t, store.New(store.Options{Dir: w.store.Dir(), Full: true})); got != "1.0.0" {
		t.Errorf("active is %q", got)
	}
	swept(t, w.store)
	t.Logf("%d installs at once: 1 layer GET, 0 errors", n)
}
