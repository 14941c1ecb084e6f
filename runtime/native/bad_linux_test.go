package native_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/hostabi/hosttest"
	"github.com/delivery-station/ds/hostabi/hostv1lite"
	"github.com/delivery-station/ds/internal/events"
	"github.com/delivery-station/ds/internal/state"
	"github.com/delivery-station/ds/plugin"
)

// TestBadGuests: what a broken or hostile plugin does on its descriptors harms nobody. Each is a real program on a
// real host session; afterwards the goroutines, descriptors, children and files of this process are what they
// were. It is not parallel, so that they are its own.
func TestBadGuests(t *testing.T) {
	tmp, sock := t.TempDir(), shortDir(t)
	t.Setenv("TMPDIR", tmp)
	for _, c := range []struct {
		name           string
		stdout, stderr string
		code           int
		goplugin       []string // words of a stock server that does it, instead
		after          func(t *testing.T, stdout string)
	}{
		{name: "lying-length"},
		{name: "4MiB+1", stdout: "1 TOO_LARGE\n2 ok\n"},
		{name: "unknown-encoding", stdout: "0 BAD_FRAME\nclosed\n", code: 5},
		{name: "interleaved-ids", stdout: "1 aA code 0\n2 bB code 0\n3  code 0\n"},
		{name: "closed-fds", code: 6},
		{name: "foreign-handle", stdout: "1 true\n"},
		{name: "never-reads", code: 3},
		{name: "dies-midstream", stdout: "2 true\n", code: 137},
		{name: "grandchild", code: 7, after: outlives},
		{name: "message-on-stderr", stderr: "{\"@message\":1}\n"},
		{name: "long-line", stdout: strings.Repeat("x", longLine) + "\n"},
		{name: "goplugin message-on-stderr", goplugin: []string{"stderr"}, after: anyText}, // two sources: TestGoPluginStderr
		{name: "goplugin long-line", goplugin: []string{"raw", strconv.Itoa(longLine)}, stdout: noiseText(t, longLine)},
		{name: "goplugin dies-midstream", goplugin: []string{"die", "9"}, code: 137},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := hosttest.NewWorld(t, badOwners, hosttest.Setup{})
			w.Installed.Program = &plugin.Program{Kind: plugin.Native}
			inv := w.Invocation()
			inv.ID = strings.Repeat("2", 32)
			_, other := w.Open(inv)
			blob := keepBlob(t, other)
			rundir := t.TempDir()
			attempt := func() {
				_, s := w.Open(w.Invocation())
				var out, errs syncBuffer
				run := call{name: "bad", args: []string{c.name}, session: s, stdout: &out, stderr: &errs, rundir: rundir}
				if c.goplugin != nil {
					run.mode, run.name, run.args = "goplugin", "gp", c.goplugin
				}
				run.options.SockDir = sock
				code, _, err := run.do(t.Context())
				if err != nil || code != c.code {
					t.Errorf("exit %d, %v, want %d; stderr %s", code, err, c.code, errs.String())
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				if c.after != nil {
					c.after(t, out.String())
				} else if out.String() != c.stdout || errs.String() != c.stderr {
					t.Errorf("stdout %.80q, stderr %.80q; want %.80q, %.80q", out.String(), errs.String(), c.stdout, c.stderr)
				}
			}
			attempt() // what is made once: pollers, threads
			goroutines, files := runtime.NumGoroutine(), openFiles(t)
			attempt()
			eventually(t, "the goroutines are what they were", func() bool { return runtime.NumGoroutine() <= goroutines })
			runtime.GC()
			eventually(t, "the descriptors are what they were", func() bool { return len(openFiles(t)) <= len(files) })
			eventually(t, "no child is left", func() bool { return children(t) == "" })
			for _, dir := range []string{rundir, filepath.Join(sock, "ds-"+uid())} {
				entries, _ := os.ReadDir(dir) // the second one is made at the first need
				for _, e := range entries {
					if e.IsDir() {
						t.Errorf("left behind: %s", filepath.Join(dir, e.Name()))
					}
				}
			}
			text, err := io.ReadAll(blob)
			if err != nil || string(text) != "kept" {
				t.Errorf("the blob that another session has open reads %q, %v", text, err)
			}
			if err := other.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func anyText(*testing.T, string) {}

// badOwners are small real parts.
func badOwners(t testing.TB, s hosttest.Setup) hosttest.Owners {
	bus := events.New(events.Options{Clock: s.Clock})
	t.Cleanup(func() { _ = bus.Close() })
	store := state.Memory(state.Options{Clock: s.Clock})
	for i := range 80 {
		if _, err := store.Put(t.Context(), hosttest.Name, hostabi.StateEntry{Key: fmt.Sprintf("big/%02d", i), Value: make([]byte, 8<<10)}, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	registry := hosttest.NewMemoryRegistry()
	return hosttest.Owners{
		Cache:    hosttest.NewMemoryCache(s.Dir).View,
		Puller:   func() (host.Puller, error) { return registry, nil },
		Pusher:   func() (host.Pusher, error) { return registry, nil },
		Events:   bus,
		State:    func() (host.State, error) { return store, nil },
		Registry: "registry.example/kit",
	}
}

// keepBlob puts a blob into the cache and leaves it open in session s.
func keepBlob(t *testing.T, s hostabi.Session) io.Reader {
	t.Helper()
	invoke := func(method string, req, reply hostv1lite.Message) {
		b, err := s.Invoke(t.Context(), hostabi.Call{Method: method, Req: req.AppendProto(nil)})
		if err == nil {
			err = reply.ParseProto(b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var sink, blob hostv1lite.OpenedBlob
	var info hostv1lite.BlobInfo
	invoke(hostv1lite.CacheCreate, &hostv1lite.CreateBlobRequest{}, &sink)
	h, err := s.Handle(sink.Handle)
	if err == nil {
		_, err = h.Write([]byte("kept"))
	}
	if err != nil {
		t.Fatal(err)
	}
	invoke(hostv1lite.CacheCommit, &hostv1lite.CommitRequest{Handle: sink.Handle}, &info)
	invoke(hostv1lite.CacheOpen, &hostv1lite.OpenBlobRequest{Digest: info.Digest}, &blob)
	if h, err = s.Handle(blob.Handle); err != nil {
		t.Fatal(err)
	}
	return h
}

// outlives: ds ended although a grandchild, whose process id is on stdout, lives on; then it is killed.
func outlives(t *testing.T, stdout string) {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(stdout))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("the grandchild did not outlive its parent: %v", err)
	}
}

// children are the process ids of what this process has started and not waited for.
func children(t *testing.T) string {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(tasks) == 0 {
		t.Skip("this kernel does not list children")
	}
	all := ""
	for _, task := range tasks {
		b, _ := os.ReadFile(task) // a thread may have ended
		all += string(b)
	}
	return strings.TrimSpace(all)
}

func noiseText(t *testing.T, n int64) string {
	t.Helper()
	b, err := io.ReadAll(io.LimitReader(noise(), n))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
