package wasm

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

// TestGoGuest: a program built with GOOS=wasip1 behaves as its native twin.
func TestGoGuest(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and compiles a Go program")
	}
	t.Parallel()
	file := filepath.Join(t.TempDir(), "goguest.wasm")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", file, "./testdata/goguest")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	p := installed(t, file)
	if err := shared().Check(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "in.txt"), []byte("input"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	box := fakeBox{mounts: []sandbox.Mount{{Host: dir, Guest: "/cwd", Follow: true}}}
	run := func(stdin string, words ...string) (*runOf, string) {
		r := &runOf{box: box}
		if stdin != "" {
			r.inv.Stdin = strings.NewReader(stdin)
		}
		if w := words[0]; w == "sleep" || w == "loop" {
			r.inv.Deadline = time.Now().Add(time.Second)
		}
		return r, resultOf(r.run(t.Context(), t, p, words...))
	}
	want := "wd /cwd <nil>\nin.txt \"input\" <nil>\nentry in.txt false\nentry sub true\nls <nil>\n" +
		"outside stat /etc/passwd: No such file or directory\ntemp <nil>\nreadonly open in.txt: Read-only file system\n"
	if r, got := run("", "files"); got != "" || r.out.String() != want {
		t.Errorf("files: %q\n%swant\n%s", got, &r.out, want)
	}
	if r, got := run("some input", "echo"); got != "" || r.out.String() != "some input" {
		t.Errorf("echo: %q %q %s", got, &r.out, &r.err)
	}
	if r, got := run("", "goroutines"); got != "" || r.out.Len() != 8 {
		t.Errorf("goroutines: %q %q", got, &r.out)
	}
	if r, got := run("", "panic"); got != "exit 2" || !strings.Contains(r.err.String(), "panic: planted") {
		t.Errorf("panic: %q %s", got, &r.err)
	}
	if r, got := run("", "oom"); got != "exit 2" || !strings.HasSuffix(r.err.String(), "hint: memory limit 64MiB reached; set limits.memory\n") {
		t.Errorf("out of memory: %q %s", got, &r.err)
	}
	for _, w := range []string{"sleep", "loop"} {
		if _, got := run("", w); !strings.HasPrefix(got, "TIMEOUT: ") {
			t.Errorf("%s: %q", w, got)
		}
	}
	// an interpreter's argv goes before the user's words
	q := *p
	q.Manifest = &plugin.Manifest{Run: plugin.Run{WASM: &plugin.RunWASM{Argv: []string{"interpreter", "goroutines"}}}}
	r := &runOf{}
	if got := resultOf(r.run(t.Context(), t, &q, "script")); got != "" || r.out.Len() != 8 {
		t.Errorf("interpreter: %q %q", got, &r.out)
	}
}
