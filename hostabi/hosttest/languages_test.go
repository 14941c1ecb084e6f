package hosttest_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi/hosttest"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/runtime/native"
	"github.com/delivery-station/ds/runtime/wasm"
)

var guestDir = filepath.Join("..", "..", "testdata", "guests")

// TestLanguagesFrames runs the cases by the SDKs that speak frames.
func TestLanguagesFrames(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts an interpreter for every case")
	}
	for _, l := range []struct{ name, sdk, program, itself string }{
		{"python", "ds.py", "python3", "import sys; print(sys.executable)"},
		{"node", "ds.js", "node", "console.log(process.execPath)"},
	} {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			flag := map[string]string{"python3": "-c", "node": "-e"}[l.program]
			interpreter, err := exec.CommandContext(t.Context(), l.program, flag, l.itself).Output()
			if err != nil {
				t.Skip(l.program + " is not here")
			}
			dir := t.TempDir()
			script := filepath.Join(dir, "ds-kit")
			copyFile(t, filepath.Join("..", "abi", l.sdk), filepath.Join(dir, l.sdk), "")
			copyFile(t, filepath.Join(guestDir, l.name, "ds-kit"), script, fmt.Sprintf("#!%s\n", strings.TrimSpace(string(interpreter))))
			c := hosttest.Relayed(l.name+" on frames", native.New(native.Options{}), plugin.Program{Kind: plugin.Native, Mode: plugin.Direct, Path: script})
			c.Cannot = map[string]string{
				"carrier/deadline-midcall": "calls of the SDK have no deadline of their own",
				"meta/unknown-service":     "the SDK calls ds.host.v1",
				"meta/garbage-request":     "the SDK sends what it encoded",
				"meta/invalid-utf8":        "the SDK sends what it encoded",
			}
			if l.name == "python" {
				c.Cannot["carrier/4MiB"] = "the SDK writes JSON with spaces, which makes it larger"
			}
			hosttest.Run(t, c, owners)
		})
	}
}

// TestLanguagesImports runs the cases by the SDKs for modules. The modules are prebuilt (make guests).
func TestLanguagesImports(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"c", "rust", "assemblyscript"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := wasm.New(wasm.Options{CacheDir: t.TempDir()})
			t.Cleanup(func() { _ = b.Close() })
			c := hosttest.Relayed(name+" by imports", b, plugin.Program{Kind: plugin.WASM, Path: filepath.Join(guestDir, name, "kit.wasm")})
			c.Cannot = map[string]string{"carrier/deadline-midcall": "a host call of a module waits for the host"}
			if name != "c" {
				for _, n := range []string{"config/foreign-denied", "config/secret-denied", "state/stale-revision"} {
					c.Cannot[n] = "the SDK keeps no metadata of an error but the fix"
				}
			}
			hosttest.Run(t, c, owners)
		})
	}
}

func copyFile(t *testing.T, from, to, head string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, append([]byte(head), b...), 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
}
