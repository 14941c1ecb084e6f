//go:build linux

package native_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"
	"time"
)

// TestLeaks: after runs of every kind the goroutines, descriptors and files of the process are what they were.
// It is not parallel, so that they are its own.
func TestLeaks(t *testing.T) {
	if testing.Short() {
		t.Skip("runs everything twice")
	}
	tmp, sock := t.TempDir(), shortDir(t)
	t.Setenv("TMPDIR", tmp)
	runs := func() {
		for _, c := range []call{
			{name: "exit", args: []string{"3"}},
			{name: "call", args: []string{"x"}},
			{name: "child"},
			{name: "preface", stderr: io.Discard},
			{name: "x", path: script(t, "#!/no/such\n")},
			{name: "cat", stdin: strings.NewReader("x")},
			gp("exit", "1"), gp("host"), gp("os-exit", "0"), gp("child"), gp("error"), with(gp("cat"), strings.NewReader("x")),
			{mode: "goplugin", name: "gp-bare", args: []string{"exit", "1"}},
			{mode: "goplugin", name: "gp-hello"},
			{mode: "goplugin", name: "gp-early"},
			{mode: "goplugin", name: "gp-mute", handshake: 300 * time.Millisecond},
		} {
			c.options.SockDir = sock
			if c.stdout == nil {
				c.stdout = new(syncBuffer)
			}
			_, _, _ = c.do(context.Background())
		}
	}
	runs() // what is made once: pollers, threads
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	runs()
	t.Cleanup(func() {
		if t.Failed() {
			_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
		}
	})
	eventually(t, "the goroutines are what they were", func() bool { return runtime.NumGoroutine() <= goroutines })
	runtime.GC() // go-plugin leaves the listener of a refused Accept to it (another language's server)
	eventually(t, "the descriptors are what they were", func() bool { return len(openFiles(t)) <= len(files) })
	for _, dir := range []string{tmp, filepath.Join(sock, "ds-"+uid())} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.IsDir() && !strings.HasPrefix(e.Name(), "Test") {
				t.Errorf("left behind: %s", filepath.Join(dir, e.Name()))
			}
		}
	}
}

func openFiles(t *testing.T) (files []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		target, _ := os.Readlink("/proc/self/fd/" + e.Name())
		files = append(files, e.Name()+" "+target)
	}
	return files
}
