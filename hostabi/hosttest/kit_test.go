package hosttest_test

import (
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"

	"github.com/delivery-station/ds/cache"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/hostabi/hosttest"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/internal/egress"
	"github.com/delivery-station/ds/internal/events"
	"github.com/delivery-station/ds/internal/state"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/registry"
	"github.com/delivery-station/ds/runtime/native"
	"github.com/delivery-station/ds/runtime/wasm"
)

// owners are the real parts of ds, each world with its own.
func owners(t testing.TB, s hosttest.Setup) hosttest.Owners {
	bus := events.New(events.Options{Clock: s.Clock})
	t.Cleanup(func() { _ = bus.Close() })
	store := state.Open(state.Options{Dir: filepath.Join(s.Dir, "state"), Clock: s.Clock})
	blobs, err := cache.Open(t.Context(), cache.Options{Dir: filepath.Join(s.Dir, "cache"), Clock: s.Clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = blobs.Close() })
	client, err := registry.New(registry.Options{Offline: s.Offline})
	if err != nil {
		t.Fatal(err)
	}
	server := dstest.Registry(t, dstest.RegistryOptions{NoReferrers: s.NoAPI})
	return hosttest.Owners{
		Cache: func(owner hostabi.PluginName, source string) (host.Cache, error) {
			return blobs.View(owner, source), nil
		},
		Puller:   func() (host.Puller, error) { return client, nil },
		Pusher:   func() (host.Pusher, error) { return client, nil },
		Events:   bus,
		State:    func() (host.State, error) { return store, nil },
		HTTP:     egress.NewClient(egress.Options{}),
		Registry: server.Host + "/kit",
	}
}

func TestInProcess(t *testing.T) {
	t.Parallel()
	hosttest.Run(t, hosttest.InProcess(), owners)
}

// TestMemory keeps the small owners, which other tests of handlers build on, as good as the real ones.
func TestMemory(t *testing.T) {
	t.Parallel()
	hosttest.Run(t, hosttest.InProcess(), func(t testing.TB, s hosttest.Setup) hosttest.Owners {
		o := owners(t, s)
		r := hosttest.NewMemoryRegistry()
		r.Offline = s.Offline
		o.Puller = func() (host.Puller, error) { return r, nil }
		o.Pusher = func() (host.Pusher, error) { return r, nil }
		o.Cache, o.Registry = hosttest.NewMemoryCache(t.TempDir()).View, "registry.example/kit"
		return o
	})
}

// TestFrames runs the cases in this process over both ends of the frame carrier.
func TestFrames(t *testing.T) {
	t.Parallel()
	hosttest.Run(t, hosttest.Connected("frames", overFrames), owners)
}

// TestNative runs them in a program of the operating system, frames on DS_HOST_FD.
func TestNative(t *testing.T) {
	t.Parallel()
	p := plugin.Program{Kind: plugin.Native, Mode: plugin.Direct, Path: build(t, "kit", "")}
	hosttest.Run(t, hosttest.Program("frames on DS_HOST_FD", native.New(native.Options{}), p), owners)
}

// TestGoPlugin runs them in a go-plugin server, gRPC over the broker.
func TestGoPlugin(t *testing.T) {
	t.Parallel()
	p := plugin.Program{Kind: plugin.Native, Mode: plugin.GoPlugin, Path: build(t, "kitgoplugin", "")}
	c := hosttest.Program("broker gRPC", native.New(native.Options{}), p, "case")
	hosttest.Run(t, c, owners)
}

// TestImports runs them in a module, over the imports of ds_v1.
func TestImports(t *testing.T) {
	t.Parallel()
	b := wasm.New(wasm.Options{CacheDir: t.TempDir()})
	t.Cleanup(func() { _ = b.Close() })
	c := hosttest.Program("imports", b, plugin.Program{Kind: plugin.WASM, Path: build(t, "kit", "wasip1")})
	c.Cannot = map[string]string{
		"carrier/deadline-midcall": "a host call of a module waits for the host: its own timers stand still",
	}
	hosttest.Run(t, c, owners)
}

// TestFiles runs them in a module, over the file tree /ds.
func TestFiles(t *testing.T) {
	t.Parallel()
	b := wasm.New(wasm.Options{CacheDir: t.TempDir()})
	t.Cleanup(func() { _ = b.Close() })
	schema, err := proto.Marshal(protodesc.ToFileDescriptorProto(hostv1.File_host_proto))
	if err != nil {
		t.Fatal(err)
	}
	p := plugin.Program{Kind: plugin.WASM, Path: build(t, "kitfiles", "wasip1")}
	c := hosttest.Program("files", b, p, base64.StdEncoding.EncodeToString(schema))
	c.Cannot = map[string]string{
		"carrier/deadline-midcall": "a file has no deadline of its own",
		"events/publish-subscribe": "a stream in a file begins when it is read; such guests poll",
	}
	hosttest.Run(t, c, owners)
}

// build builds a guest program, and skips where that is too much.
func build(t *testing.T, name, goos string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds a guest program")
	}
	out := filepath.Join(t.TempDir(), "ds-kit")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", out, "./testdata/guests/go/"+name)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if goos == "wasip1" {
		cmd.Env = append(cmd.Env, "GOOS=wasip1", "GOARCH=wasm")
	}
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, text)
	}
	return out
}
