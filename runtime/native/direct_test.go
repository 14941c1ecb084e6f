//go:build unix

package native_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/runtime/native"
)

func TestExitCodes(t *testing.T) {
	t.Parallel()
	codes := []int{0, 1, 2, 77, 124, 125, 126, 127, 128, 130, 143, 254, 255}
	if os.Getenv("DS_TEST_LOOPS") != "" { // all of them
		codes = codes[:0]
		for i := range 256 {
			codes = append(codes, i)
		}
	}
	for _, want := range codes {
		code, signal, err := call{name: "exit", args: []string{strconv.Itoa(want)}}.do(t.Context())
		if code != want || signal != 0 || err != nil {
			t.Errorf("exit %d: got %d, signal %d, %v", want, code, signal, err)
		}
	}
}

// TestAllExitCodes goes through a shell script, which starts faster than a Go program.
func TestAllExitCodes(t *testing.T) {
	t.Parallel()
	path := script(t, "#!/bin/sh\nexit $1\n")
	for want := range 256 {
		code, _, err := call{name: "script", path: path, args: []string{strconv.Itoa(want)}}.do(t.Context())
		if code != want || err != nil {
			t.Fatalf("exit %d: got %d, %v", want, code, err)
		}
	}
}

func TestDeathBySignal(t *testing.T) {
	t.Parallel()
	for _, n := range []syscall.Signal{syscall.SIGHUP, syscall.SIGKILL, syscall.SIGSEGV, syscall.SIGPIPE, syscall.SIGTERM, syscall.SIGUSR1} {
		if signal.Ignored(n) { // as below nohup, and so do the children
			continue
		}
		path := script(t, fmt.Sprintf("#!/bin/sh\nkill -%d $$\n", n))
		code, signal, err := call{name: "die", path: path}.do(t.Context())
		if code != 128+int(n) || signal != int(n) || err != nil {
			t.Errorf("%v: got %d, signal %d, %v", n, code, signal, err)
		}
	}
}

func TestArguments(t *testing.T) {
	t.Parallel()
	args := []string{"", "two words", "\xff\xfe not UTF-8", "-x", "--", strings.Repeat("a", 100<<10), "new\nline", "$HOME `id`"}
	out, _ := call{name: "argv", args: args}.output(t)
	var got []string
	for line := range strings.SplitSeq(strings.TrimSuffix(out, "\n"), "\n") {
		b, err := hex.DecodeString(line)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(b))
	}
	if want := append([]string{"ds-argv"}, args...); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	host := []string{
		"PATH=/bin", "HOME=/home/u", "LANG=C.UTF-8", "LC_ALL=C", "TZ=UTC", "TERM=xterm", "SECRET_TOKEN=canary", "AWS_SECRET_ACCESS_KEY=canary",
		"LD_PRELOAD=canary", "DS_CONFIG=canary", "DS_HOST_FD=canary", "GODEBUG=canary", "TMPDIR=canary", "HTTPS_PROXY=http://canary@p:1", "novalue", "=x",
	}
	out, _ := call{name: "env", env: host, inv: func(inv *plugin.Invocation) {
		inv.TraceID, inv.TraceParent, inv.NoInput, inv.LogLevel = "t1", "00-t1-01", true, "debug"
		inv.Terminal = hostabi.Terminal{StderrTTY: true}
	}}.output(t)
	got := strings.Split(out, "\n")
	if strings.Contains(out, "canary") {
		t.Errorf("the host's environment leaked: %q", got)
	}
	for _, want := range []string{
		"PATH=/bin", "HOME=/home/u", "LANG=C.UTF-8", "LC_ALL=C", "TZ=UTC", "TERM=xterm", "DS_ABI=ds.host/v1", "DS_PLUGIN=env", "DS_PLUGIN_VERSION=1.4.0",
		"DS_INVOCATION=" + strings.Repeat("0a", 16), "DS_KIND=run", "DS_TRACE_ID=t1", "TRACEPARENT=00-t1-01", "DS_NO_INPUT=1", "DS_LOG_LEVEL=debug", "NO_COLOR=1",
		"DS_HOST_FD=3", "DS_CTL_FD=4",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is missing in %q", want, got)
		}
	}
	for _, absent := range []string{"DS_OFFLINE", "CLICOLOR_FORCE", "DS_STDIO_FDS", "DS_PLUGIN_MAGIC_COOKIE"} {
		if strings.Contains(out, absent+"=") {
			t.Errorf("%s is set", absent)
		}
	}
	if len(got) != 20 {
		t.Errorf("got %d variables, want 20: %q", len(got), got)
	}
}

func TestWorkingDirectory(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if out, _ := (call{name: "dir", dir: dir}).output(t); out != dir {
		t.Errorf("got %q, want %q", out, dir)
	}
	wantError(t, call{name: "dir", dir: "/not/here"}.refused(t), hostabi.ReasonStartFailed, "working directory /not/here is not here")
}

// TestOutputComplete sends 64 MiB through a pipe of ours (a writer that is no file) and through an inherited
// one, DS_TEST_LOOPS times each.
func TestOutputComplete(t *testing.T) {
	t.Parallel()
	const size = 64 << 20
	want := digestOf(t, io.LimitReader(noise(), size))
	for i := range loops(t) {
		h := sha256.New()
		if err := (call{name: "flood", args: []string{strconv.Itoa(size)}, stdout: h}).run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != want {
			t.Fatalf("loop %d: bytes were lost through a writer", i)
		}
		if got := inherited(t, call{name: "flood", args: []string{strconv.Itoa(size)}}); got != want {
			t.Fatalf("loop %d: bytes were lost through a file", i)
		}
	}
}

// inherited runs c with a pipe as its stdout and returns the digest of what came.
func inherited(t *testing.T, c call) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	sum := make(chan string, 1)
	go func() { sum <- digestOf(t, r) }()
	c.stdout = w
	if err := c.run(t.Context()); err != nil {
		t.Error(err)
	}
	w.Close()
	defer r.Close()
	return <-sum
}

func digestOf(t *testing.T, r io.Reader) string {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		t.Error(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func loops(t *testing.T) int {
	if n, err := strconv.Atoi(os.Getenv("DS_TEST_LOOPS")); err == nil {
		return n
	}
	if testing.Short() {
		return 1
	}
	return 5
}

func TestStreams(t *testing.T) {
	t.Parallel()
	t.Run("stdin of a reader", func(t *testing.T) {
		t.Parallel()
		out, _ := call{name: "cat", stdin: io.LimitReader(noise(), 1<<20)}.output(t)
		if want := digestOf(t, io.LimitReader(noise(), 1<<20)); digestOf(t, strings.NewReader(out)) != want {
			t.Error("stdin arrived changed")
		}
	})
	t.Run("no stdin is empty", func(t *testing.T) {
		t.Parallel()
		if out, code := (call{name: "cat"}).output(t); out != "" || code != 0 {
			t.Errorf("got %q, %d", out, code)
		}
	})
	t.Run("a reader that never ends does not hold the run up", func(t *testing.T) {
		t.Parallel()
		r, w := io.Pipe()
		if _, code := (call{name: "quiet", stdin: r}).output(t); code != 0 {
			t.Error(code)
		}
		if _, err := w.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("the caller's writer is not told: %v", err)
		}
	})
	t.Run("one writer for both keeps the order", func(t *testing.T) {
		t.Parallel()
		var both syncBuffer
		if err := (call{name: "noise", args: []string{"50"}, stdout: &both, stderr: &both}).run(t.Context()); err != nil {
			t.Fatal(err)
		}
		var want strings.Builder
		for i := range 50 {
			fmt.Fprintf(&want, "out %d\nerr %d\n", i, i)
		}
		if both.String() != want.String() {
			t.Errorf("got %q", both.String())
		}
	})
	t.Run("a writer that refuses", func(t *testing.T) {
		t.Parallel()
		full := writerFunc(func([]byte) (int, error) { return 0, hostabi.Errorf(hostabi.ReasonQuota, "full") })
		err := call{name: "flood", args: []string{"1000000"}, stdout: full}.run(t.Context())
		if hostabi.ReasonOf(err) != hostabi.ReasonQuota {
			t.Errorf("got %v, want QUOTA", err)
		}
	})
	t.Run("a closed pipe", func(t *testing.T) {
		t.Parallel()
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		defer w.Close()
		code, signal, err := call{name: "flood", args: []string{"1000000"}, stdout: w}.do(t.Context())
		if code != 141 || signal != int(syscall.SIGPIPE) || err != nil {
			t.Errorf("got %d, %d, %v, want 141", code, signal, err)
		}
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestChildKeepsStreams: what a plugin leaves behind must not hold ds up, and what it still says is shown.
func TestChildKeepsStreams(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	out, code := call{name: "child"}.output(t)
	if out != "parent done" || code != 7 {
		t.Errorf("got %q, %d", out, code)
	}
	if out, _ := (call{name: "child-noise"}).output(t); out != "late\n" {
		t.Errorf("got %q, want what the child wrote right after the end", out)
	}
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("took %v", d)
	}
}

func TestClosedDescriptors(t *testing.T) {
	t.Parallel()
	if out, code := (call{name: "closer"}).output(t); out != "" || code != 6 {
		t.Errorf("got %q, %d", out, code)
	}
}

func TestSlowReader(t *testing.T) {
	t.Parallel()
	release, n := make(chan struct{}), 0
	slow := writerFunc(func(p []byte) (int, error) {
		if n == 0 {
			<-release
		}
		n += len(p)
		return len(p), nil
	})
	done := make(chan error, 1)
	go func() { done <- call{name: "flood", args: []string{"10000000"}, stdout: slow}.run(t.Context()) }()
	select {
	case err := <-done:
		t.Fatalf("ended without its reader: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	close(release)
	if err := <-done; err != nil || n != 10000000 {
		t.Errorf("got %d bytes, %v", n, err)
	}
}

func TestHostCalls(t *testing.T) {
	t.Parallel()
	session := &fakeSession{}
	rundir := t.TempDir()
	out, _ := call{name: "call", args: []string{"hello"}, session: session, rundir: rundir}.output(t)
	if out != "hello\nhello\n" {
		t.Errorf("got %q", out)
	}
	if want := filepath.Join(rundir, strings.Repeat("0a", 16)); session.dir != want || session.confined != native.Probe().Confines() {
		t.Errorf("the session was told %q, confined %t; want %q, %t", session.dir, session.confined, want, native.Probe().Confines())
	}
	var errs syncBuffer
	if _, code := (call{name: "preface", stderr: &errs}).output(t); code != 0 {
		t.Error(code)
	}
	if want := "DS_HOST_FD speaks ds frames; for gRPC set run.native.mode: goplugin\n"; errs.String() != want {
		t.Errorf("stderr is %q, want %q", errs.String(), want)
	}
}

func TestRunDirectory(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	out, _ := call{name: "rundir", rundir: base}.output(t)
	if filepath.Dir(out) != base {
		t.Errorf("DS_RUN_DIR is %q, want one in %q", out, base)
	}
	entries, err := os.ReadDir(base)
	if err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v %v", entries, err)
	}
	failing := native.Options{RunDir: func() (string, error) { return "", hostabi.Errorf(hostabi.ReasonReadOnly, "read-only") }}
	wantError(t, call{name: "quiet", options: failing}.refused(t), hostabi.ReasonReadOnly, "read-only")
	wantError(t, call{name: "quiet", rundir: "/not/here"}.refused(t), hostabi.ReasonNoSpace, "/not/here")
}

// TestDescriptors: the plugin gets its five descriptors and none of ours. What the user's shell left open for
// everybody passes through, as with raw exec.
func TestDescriptors(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	path := filepath.Join(t.TempDir(), "ours")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out, _ := call{name: "files"}.output(t)
	for _, fd := range []string{"0 /dev/null", "1 pipe:", "2 pipe:", "3 socket:", "4 pipe:"} {
		if !strings.Contains("\n"+out, "\n"+fd) {
			t.Errorf("no %s in %q", fd, out)
		}
	}
	if strings.Contains(out, path) || strings.Count(out, "socket:") != 1 {
		t.Errorf("the plugin has descriptors of ours: %q", out)
	}
}

// TestS3_Deadline: a program that heeds TERM or does not ends in time.
func TestS3_Deadline(t *testing.T) {
	t.Parallel()
	t.Run("TERM is enough", func(t *testing.T) {
		t.Parallel()
		begin := time.Now()
		e := call{name: "wait", inv: func(inv *plugin.Invocation) { inv.Deadline = begin.Add(300 * time.Millisecond) }}.refused(t)
		wantError(t, e, hostabi.ReasonTimeout, "wait 1.4.0: stopped after ")
		if d := time.Since(begin); d > 1900*time.Millisecond {
			t.Errorf("took %v", d)
		}
	})
	t.Run("deaf to TERM", func(t *testing.T) {
		t.Parallel()
		begin, out := time.Now(), newSyncBuffer()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- call{name: "deaf", stdout: out}.run(ctx) }()
		<-out.hit
		cancel()
		err := <-done
		if hostabi.ReasonOf(err) != hostabi.ReasonInterrupted {
			t.Errorf("got %v, want INTERRUPTED", err)
		}
		if d := time.Since(begin); d < 2*time.Second || d > 8*time.Second {
			t.Errorf("took %v, want 2 s and a little", d)
		}
	})
	t.Run("of ctx", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if err := (call{name: "wait", stdout: io.Discard}).run(ctx); hostabi.ReasonOf(err) != hostabi.ReasonTimeout {
			t.Errorf("got %v, want TIMEOUT", err)
		}
	})
	t.Run("not below a wrapper", func(t *testing.T) {
		t.Parallel()
		path := script(t, "#!/bin/sh\necho $0 \"$@\"; sleep 0.2; exit 5\n")
		var out, errs syncBuffer
		code, _, err := call{
			name: "wrapped", path: path, args: []string{"a b"}, stdout: &out, stderr: &errs, options: native.Options{Wrap: []string{"env", "X=1"}},
			inv: func(inv *plugin.Invocation) { inv.Deadline = time.Now().Add(10 * time.Millisecond) },
		}.do(t.Context())
		if code != 5 || err != nil || out.String() != path+" a b\n" {
			t.Errorf("got %d, %v, %q", code, err, out.String())
		}
		if want := "note: wrapped runs below env: not confined, no deadline\n"; errs.String() != want {
			t.Errorf("stderr is %q, want %q", errs.String(), want)
		}
	})
}

func TestForwardedSignals(t *testing.T) {
	t.Parallel()
	for _, n := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2} {
		if signal.Ignored(n) {
			continue
		}
		out, signals := newSyncBuffer(), make(chan os.Signal, 1)
		path := script(t, "#!/bin/sh\necho ready\nexec sleep 30\n")
		done := make(chan error, 1)
		go func() { done <- call{name: "wait", path: path, stdout: out, signals: signals}.run(t.Context()) }()
		<-out.hit
		signals <- syscall.SIGWINCH // not ours to forward
		signals <- n
		err := <-done
		var exit *plugin.ExitError
		if !errors.As(err, &exit) || exit.Code != 128+int(n) {
			t.Errorf("%v: got %v", n, err)
		}
	}
	closed := make(chan os.Signal)
	close(closed)
	if err := (call{name: "quiet", signals: closed}).run(t.Context()); err != nil {
		t.Error(err)
	}
}

// startParent starts a process that runs a plugin like ds does and waits for the plugin's first line.
func startParent(t *testing.T, words string, configure func(*exec.Cmd)) (cmd *exec.Cmd, rest *os.File) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	cmd = exec.Command(self)
	cmd.Env = append(os.Environ(), "DS_TEST_PARENT="+words)
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	if configure != nil {
		configure(cmd)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if words := strings.Fields(words); words[1] != "quiet" {
		readLine(t, r)
	}
	return cmd, r
}

func readLine(t *testing.T, r io.Reader) string {
	t.Helper()
	var line []byte
	for b := make([]byte, 1); ; line = append(line, b[0]) {
		if _, err := r.Read(b); err != nil {
			t.Fatalf("after %q: %v", line, err)
		}
		if b[0] == '\n' {
			return string(line)
		}
	}
}

func TestSignalsThroughProcess(t *testing.T) {
	t.Parallel()
	noTerminal := func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
	for _, c := range []struct {
		name, words string
		signal      syscall.Signal
		want        int
	}{
		{"TERM ends the plugin", "direct wait", syscall.SIGTERM, 143},
		{"INT without a terminal is forwarded", "direct interrupts", syscall.SIGINT, 11},
		{"QUIT without a terminal is forwarded", "direct wait", syscall.SIGQUIT, 2}, // Go dumps its stacks and exits with 2
		{"TERM ends a goplugin server", "goplugin gp wait", syscall.SIGTERM, 143},
		{"INT is a message in goplugin", "goplugin gp signal", syscall.SIGINT, 42},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cmd, _ := startParent(t, c.words, func(cmd *exec.Cmd) {
				noTerminal(cmd)
				if c.signal == syscall.SIGQUIT {
					cmd.Stderr = nil
				}
			})
			if err := cmd.Process.Signal(c.signal); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

// TestNoOrphan kills the process that runs the backend: the plugin dies with it, which shows as the end of the
// pipe that both hold.
func TestNoOrphan(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux kills a child with its parent; elsewhere plugins watch DS_CTL_FD")
	}
	for _, words := range []string{"direct deaf", "direct lifeline", "goplugin gp stuck"} {
		t.Run(words, func(t *testing.T) {
			t.Parallel()
			cmd, rest := startParent(t, words, func(cmd *exec.Cmd) { cmd.Stderr = nil })
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			gone := make(chan error, 1)
			go func() {
				_, err := io.Copy(io.Discard, rest)
				gone <- err
			}()
			select {
			case err := <-gone:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(5 * time.Second):
				t.Error("the plugin lives on")
			}
		})
	}
}

// TestCallersInput: a loop of a shell keeps its lines when the plugin in it does not read.
func TestCallersInput(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{"direct quiet", "goplugin gp exit 0"} {
		t.Run(words, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `while read x; do echo "$x"; "$SELF"; done`)
			cmd.Env = append(os.Environ(), "SELF="+self, "DS_TEST_PARENT="+words)
			cmd.Stdin = strings.NewReader("one\ntwo\nthree\n")
			out, err := cmd.CombinedOutput()
			if err != nil || string(out) != "one\ntwo\nthree\n" {
				t.Errorf("got %q, %v", out, err)
			}
		})
	}
}

// script writes an executable file.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ds-script")
	writeFile(t, path, []byte(text), 0o755)
	return path
}

// writeFile writes a program. A concurrent fork must not inherit the descriptor: executing would be ETXTBSY.
func writeFile(t *testing.T, path string, b []byte, mode os.FileMode) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, b, mode); err != nil {
		t.Fatal(err)
	}
}

func TestOutputFloodToError(t *testing.T) {
	t.Parallel()
	var sum bytes.Buffer
	err := call{name: "noise", args: []string{"20000"}, stdout: io.Discard, stderr: &sum}.run(t.Context())
	if err != nil || strings.Count(sum.String(), "\n") != 20000 {
		t.Errorf("got %d lines, %v", strings.Count(sum.String(), "\n"), err)
	}
}

// TestDescendantThatPrints: what a plugin leaves behind is not waited for, however much it prints.
func TestDescendantThatPrints(t *testing.T) {
	t.Parallel()
	path := script(t, "#!/bin/sh\nwhile echo more; do :; done &\nexit 3\n")
	code, _, err := call{name: "leaves", path: path, stdout: io.Discard}.do(t.Context())
	if code != 3 || err != nil {
		t.Errorf("got %d, %v", code, err)
	}
}
