package client_test

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/hostabi/hosttest"
	"github.com/delivery-station/ds/hostabi/hostv1lite"
	"github.com/delivery-station/ds/internal/events"
	"github.com/delivery-station/ds/internal/state"
	"github.com/delivery-station/ds/pkg/client"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/registry"
)

// owners are the real parts; the registry is a directory of OCI layouts.
func owners(t testing.TB, s hosttest.Setup) hosttest.Owners {
	bus := events.New(events.Options{Clock: s.Clock})
	t.Cleanup(func() { _ = bus.Close() })
	store := state.Memory(state.Options{Clock: s.Clock})
	reg, err := registry.New(registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return hosttest.Owners{
		Cache:    hosttest.NewMemoryCache(s.Dir).View,
		Puller:   func() (host.Puller, error) { return reg, nil },
		Pusher:   func() (host.Pusher, error) { return reg, nil },
		Events:   bus,
		State:    func() (host.State, error) { return store, nil },
		Registry: "oci-layout:" + filepath.Join(s.Dir, "layouts"),
	}
}

// world is a real host with a client of its plugin "kit" in it.
type world struct {
	*hosttest.World
	*client.Client
	session hostabi.Session
	scripts *scripts
	runDir  string
}

// scripts answer unary methods in the place of the host.
type scripts struct {
	hostabi.Session
	answers map[string]func(req []byte) hostv1lite.Message
}

func (s *scripts) Invoke(ctx context.Context, c hostabi.Call) ([]byte, error) {
	if f := s.answers[c.Method]; f != nil {
		return f(c.Req).AppendProto(c.Dst), nil
	}
	return s.Session.Invoke(ctx, c)
}

func (w *world) script(t *testing.T, method string, f func(req []byte) hostv1lite.Message) {
	t.Helper()
	w.scripts.answers[method] = f
}

// newWorld connects a client in process.
func newWorld(t testing.TB, opts ...client.Option) *world {
	t.Helper()
	w := &world{World: hosttest.NewWorld(t, owners, hosttest.Setup{}), runDir: t.TempDir()}
	w.Installed.Program = &plugin.Program{Kind: plugin.Native}
	_, w.session = w.Open(w.Invocation("greet"))
	if err := os.MkdirAll(filepath.Join(w.runDir, "sink"), 0o700); err != nil {
		t.Fatal(err)
	}
	w.session.(interface{ SetRunDir(string, bool) }).SetRunDir(w.runDir, false)
	w.scripts = &scripts{w.session, make(map[string]func([]byte) hostv1lite.Message)}
	c, err := client.NewClient(append([]client.Option{client.WithSession(w.scripts)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	w.Client = c
	t.Cleanup(func() {
		_ = c.Close() // the tests that expect something of it have closed before
		if err := w.session.Close(); err != nil {
			t.Errorf("close session: %v", err)
		}
	})
	return w
}

// ref is a reference in a repository that the plugin may push to and pull from.
func (w *world) ref(tag string) string { return w.Registry + "/out:" + tag }

func skipShort(t *testing.T, why string) {
	t.Helper()
	if testing.Short() || runtime.GOOS == "windows" {
		t.Skip(why)
	}
}
