package client_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// target is where a test program is built for.
type target struct {
	name string
	env  []string
}

var targets = []target{{"native", []string{"CGO_ENABLED=0"}}, {"wasip1", []string{"GOOS=wasip1", "GOARCH=wasm"}}}

func goTool(t *testing.T, env []string, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestSize: a hello stays small because what it does not use is not linked (performance.md, row Z2).
func TestSize(t *testing.T) {
	skipShort(t, "builds programs")
	limit := map[string]float64{"native": 2.0, "wasip1": 1.35}
	for _, target := range targets {
		t.Run(target.name, func(t *testing.T) {
			size := map[string]int64{}
			for _, program := range []string{"hello", "bare"} {
				out := filepath.Join(t.TempDir(), program)
				goTool(t, target.env, "build", "-trimpath", "-ldflags=-s -w", "-o", out, "./testdata/"+program)
				info, err := os.Stat(out)
				if err != nil {
					t.Fatal(err)
				}
				size[program] = info.Size()
			}
			ratio := float64(size["hello"]) / float64(size["bare"])
			t.Logf("hello %d, bare %d: %.2f", size["hello"], size["bare"], ratio)
			if ratio > limit[target.name] {
				t.Errorf("hello is %.2f times a bare one, at most %.2f", ratio, limit[target.name])
			}
		})
	}
}

// TestDependencies: guests link no network and no protobuf.
func TestDependencies(t *testing.T) {
	skipShort(t, "lists dependencies")
	for _, target := range targets {
		deps := strings.Fields(goTool(t, target.env, "list", "-deps", "./testdata/hello"))
		for _, bad := range []string{"net", "net/http", "crypto/tls", "flag", "text/template", "go.opentelemetry.io", "google.golang.org", "github.com/hashicorp"} {
			if i := slices.IndexFunc(deps, func(d string) bool { return d == bad || strings.Contains(bad, ".") && strings.HasPrefix(d, bad) }); i >= 0 {
				t.Errorf("%s: hello links %s", target.name, deps[i])
			}
		}
		if !slices.Contains(deps, "github.com/delivery-station/ds/pkg/client") {
			t.Errorf("%s: the list is not alive", target.name)
		}
	}
}
