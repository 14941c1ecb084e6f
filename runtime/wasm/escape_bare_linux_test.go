package wasm

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental/sysfs"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"
)

// bareRun runs the probes on one of the engine's own mounts of base/in, which only tests may use.
func bareRun(module []byte, mount, base, in string) ([]byte, error) {
	ctx := context.Background()
	cfg := wazero.NewFSConfig()
	switch mount {
	case "rw":
		cfg = cfg.WithDirMount(in, "/cwd")
	case "ro":
		cfg = cfg.WithReadOnlyDirMount(in, "/cwd")
	case "readfs":
		cfg = cfg.(sysfs.FSConfig).WithSysFSMount(&sysfs.ReadFS{FS: sysfs.DirFS(in)}, "/cwd")
	case "osroot":
		root, err := os.OpenRoot(in)
		if err != nil {
			return nil, err
		}
		defer func() { _ = root.Close() }() // read only
		cfg = cfg.WithFSMount(root.FS(), "/cwd")
	default:
		return nil, fmt.Errorf("mount %q", mount)
	}
	r := wazero.NewRuntime(ctx)
	defer func() { _ = r.Close(ctx) }() // nothing to tell
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, r); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	_, err := r.InstantiateWithConfig(ctx, module, wazero.NewModuleConfig().WithArgs("escape", "/cwd", base, "all").
		WithStdout(&out).WithStderr(os.Stderr).WithRandSource(rand.Reader).WithFSConfig(cfg))
	if e, ok := err.(*sys.ExitError); ok && e.ExitCode() == 0 { //nolint:errorlint // the bare one
		err = nil
	}
	return out.Bytes(), err
}

// TestBareChild is the other half of bareEscapes: probes that write to /proc/self/mem need a process of their own.
func TestBareChild(t *testing.T) {
	spec := os.Getenv("DS_TEST_BARE")
	if spec == "" {
		t.Skip("runs in a child process only")
	}
	f := strings.SplitN(spec, "|", 3)
	module, err := os.ReadFile(escapeWASM)
	if err != nil {
		t.Fatal(err)
	}
	out, err := bareRun(module, f[0], f[1], filepath.Join(f[1], "in"))
	if err == nil {
		err = os.WriteFile(f[2], out, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// bareEscapes runs the probes on a mount of the engine and returns what escapes.
func bareEscapes(t *testing.T, mount string, write bool) (escapes []string, probes []probe) {
	t.Helper()
	w := newEscapeWorld(t, escapeKind{write: write}, false) // all of these mounts block on a pipe
	before := w.look()
	result := filepath.Join(t.TempDir(), "out")
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBareChild$", "-test.count=1")
	cmd.Env = append(os.Environ(), "DS_TEST_BARE="+mount+"|"+w.base+"|"+result)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := os.ReadFile(result)
	if err != nil {
		t.Fatal(err)
	}
	probes = parseProbes(t, out)
	return w.escapes(before, w.look(), probes), probes
}

// minBare is how many probes must escape from the engine's mount: otherwise the suite is dead.
const minBare = 25
