package dstest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// BuildGuests builds the Go plugins that tests run, each natively and for wasip1, and returns a directory of
// plugin directories: porter and everything below testdata/guests/go that has a plugin.yaml, ready for
// `ds plugin install DIR`. It also copies the prebuilt C guest demo. The directory ends with the test.
func BuildGuests(tb testing.TB) string {
	tb.Helper()
	root := moduleRoot(tb)
	out := tb.TempDir()
	if err := BuildPlugin(filepath.Join(root, "cmd", "ds-porter"), filepath.Join(out, "porter")); err != nil {
		tb.Fatal(err)
	}
	dirs, err := filepath.Glob(filepath.Join(root, "testdata", "guests", "go", "*", "plugin.yaml"))
	if err != nil {
		tb.Fatal(err)
	}
	for _, m := range dirs {
		dir := filepath.Dir(m)
		if err := BuildPlugin(dir, filepath.Join(out, filepath.Base(dir))); err != nil {
			tb.Fatal(err)
		}
	}
	if err := os.CopyFS(filepath.Join(out, "demo"), os.DirFS(filepath.Join(root, "testdata", "guests", "c", "demo"))); err != nil {
		tb.Fatal(err)
	}
	return out
}

// BuildPlugin builds the Go program in src for this platform and for wasip1 and puts both with its plugin.yaml
// into dir, where the manifest expects them: dist/OS/ARCH/ds-NAME and dist/NAME.wasm. Lines of other platforms
// are dropped from the manifest.
func BuildPlugin(src, dir string) error {
	manifest, err := os.ReadFile(filepath.Join(src, "plugin.yaml"))
	if err != nil {
		return err
	}
	name := strings.TrimPrefix(filepath.Base(src), "ds-")
	native := filepath.Join(dir, "dist", runtime.GOOS, runtime.GOARCH, "ds-"+name)
	if runtime.GOOS == "windows" {
		native += ".exe"
	}
	for _, b := range []struct {
		out string
		env []string
	}{{native, []string{"CGO_ENABLED=0"}}, {filepath.Join(dir, "dist", name+".wasm"), []string{"GOOS=wasip1", "GOARCH=wasm"}}} {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", b.out, ".")
		cmd.Dir = src
		cmd.Env = append(os.Environ(), b.env...)
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", src, err, text)
		}
	}
	return os.WriteFile(filepath.Join(dir, "plugin.yaml"), thisPlatform(manifest), 0o600)
}

// thisPlatform drops the lines of plugin.yaml that name the program of another platform.
func thisPlatform(manifest []byte) []byte {
	var out []string
	for line := range strings.SplitSeq(string(manifest), "\n") {
		key, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		if ok && strings.Count(key, "/") == 1 && strings.Contains(value, "dist/") && key != runtime.GOOS+"/"+runtime.GOARCH {
			continue
		}
		out = append(out, line)
	}
	return []byte(strings.Join(out, "\n"))
}

func moduleRoot(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			tb.Fatal("no go.mod above the test")
		}
		dir = up
	}
}
