//go:build unix

package native_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
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

// gp is a run of the stock server with these words.
func gp(words ...string) call { return call{mode: "goplugin", name: "gp", args: words} }

func TestGoPluginRun(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		call call
		out  string
		code int
	}{
		{"exit 0", gp("exit", "0"), "", 0},
		{"exit 7", gp("exit", "7"), "", 7},
		{"exit 255", gp("exit", "255"), "", 255},
		{"exit 300", gp("exit", "300"), "", 255},
		{"words come in RunStart, not in argv", gp("words", "", "a b"), "ds-gp;words,,a b;gp", 0},
		{"host services", gp("host"), hostabi.ABI, 0},
		{"another language", call{mode: "goplugin", name: "gp-bare", args: []string{"host"}}, "no host", 0},
		{"another language, exit 9", call{mode: "goplugin", name: "gp-bare", args: []string{"exit", "9"}}, "", 9},
		{"a certificate nobody asked for", call{mode: "goplugin", name: "gp-cert", args: []string{"exit", "3"}}, "", 3},
		{"descriptors of the streams", gp("fds"), "falsefalsefalse", 0},
		{"os.Exit before the result", gp("os-exit", "5"), "", 5},
		{"stdin of a reader, as messages", with(gp("cat"), strings.NewReader("to the end")), "to the end", 0},
		{"stdin of a reader, as descriptor", with(gp("fds", "copy"), strings.NewReader("to the end")), "falsefalsefalseto the end", 0},
		{"no stdin", gp("cat"), "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if out, code := c.call.output(t); out != c.out || code != c.code {
				t.Errorf("got %q, %d, want %q, %d", out, code, c.out, c.code)
			}
		})
	}
}

func with(c call, stdin io.Reader) call {
	c.stdin = stdin
	return c
}

func TestGoPluginEnvironment(t *testing.T) {
	t.Parallel()
	c := gp("env")
	c.env = []string{"PATH=/bin", "SECRET=canary"}
	out, _ := c.output(t)
	got := strings.Split(out, "\n")
	if strings.Contains(out, "canary") {
		t.Error("the host's environment leaked")
	}
	for _, want := range []string{"PATH=/bin", "DS_PLUGIN_MAGIC_COOKIE=delivery-station-plugin", "DS_CTL_FD=3", "DS_STDIO_FDS=4,5,6", "DS_KIND=run"} {
		if !slices.Contains(got, want) {
			t.Errorf("no %s in %q", want, got)
		}
	}
	env := make(map[string]string)
	for _, kv := range got {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	if v := env["PLUGIN_PROTOCOL_VERSIONS"]; v != "1,2" && v != "2,1" {
		t.Errorf("PLUGIN_PROTOCOL_VERSIONS is %q", v)
	}
	if dir := filepath.Dir(env["TMPDIR"]); len(dir) > 60 || filepath.Dir(env["PLUGIN_UNIX_SOCKET_DIR"]) != dir {
		t.Errorf("sockets are in %q, TMPDIR is %q", env["PLUGIN_UNIX_SOCKET_DIR"], env["TMPDIR"])
	} else if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket directory is left behind: %v", err)
	}
}

// TestGoPluginOutputComplete: 64 MiB by each of the three ways a server can write, into a hash.
func TestGoPluginOutputComplete(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"flood", "stdio", "raw"} {
		size, n := 64<<20, loops(t)
		if way == "stdio" { // 1 KiB messages, and no end mark: see docs/limits.md
			size, n = 4<<20, min(n, 5)
		}
		want := digestOf(t, io.LimitReader(noise(), int64(size)))
		for i := range n {
			h := sha256.New()
			c := gp(way, strconv.Itoa(size))
			c.stdout = h
			if err := c.run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if hex.EncodeToString(h.Sum(nil)) != want {
				t.Fatalf("%s, loop %d: bytes were lost", way, i)
			}
		}
	}
}

// TestGoPluginSmallOutput repeats what stock hosts lose most: a little output right before the end.
func TestGoPluginSmallOutput(t *testing.T) {
	t.Parallel()
	for range 4 * min(loops(t), 5) {
		if out, _ := gp("stdio", "100000").output(t); len(out) != 100000 {
			t.Fatalf("got %d bytes", len(out))
		}
	}
}

// TestGoPluginStderr: a line that makes go-plugin's own parser panic, and the events.
func TestGoPluginStderr(t *testing.T) {
	t.Parallel()
	var errs syncBuffer
	c := gp("stderr")
	c.stderr = &errs
	if _, code := c.output(t); code != 0 {
		t.Error(code)
	}
	for _, want := range []string{"{\"@message\":1}\nplain\n", "event\n"} {
		if !strings.Contains(errs.String(), want) {
			t.Errorf("stderr is %q, want %q in it", errs.String(), want)
		}
	}
}

func TestGoPluginHandshake(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		reason hostabi.Reason
		text   string
	}{
		{"gp-hello", hostabi.ReasonProtocol, `gp-hello 1.4.0: answered "hello world", no handshake`},
		{"gp-long", hostabi.ReasonProtocol, "answered \"xxxx"},
		{"gp-netrpc", hostabi.ReasonProtocol, "which is not grpc"},
		{"gp-v3", hostabi.ReasonProtocol, "speaks plugin protocol 3, this ds speaks 2"},
		{"gp-v1", hostabi.ReasonABIUnsupported, "speaks plugin protocol 1"},
		{"gp-elsewhere", hostabi.ReasonProtocol, "is not below"},
		{"gp-silent", hostabi.ReasonProtocol, "sent no handshake in 2s"},
		{"gp-closed", hostabi.ReasonProtocol, "closed its output before the handshake"},
		{"gp-early", hostabi.ReasonProtocol, "ended before the handshake (exit status 3)"},
		{"gp-early-zero", hostabi.ReasonProtocol, "ended before the handshake (exit status 0)"},
		{"gp-orphan", hostabi.ReasonProtocol, "ended before the handshake (exit status 3)"},
		{"gp-mute", hostabi.ReasonProtocol, "does not serve its socket"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			run := call{mode: "goplugin", name: c.name, handshake: 2 * time.Second, options: native.Options{Confine: "off"}}
			wantError(t, run.refused(t), c.reason, c.text)
		})
	}
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		code, signal, err := call{mode: "goplugin", name: "gp-early-signal"}.do(t.Context())
		if code != 137 || signal != 9 || err != nil {
			t.Errorf("got %d, %d, %v", code, signal, err)
		}
	})
	t.Run("not started", func(t *testing.T) {
		t.Parallel()
		c := call{mode: "goplugin", name: "x", path: script(t, "#!/no/such/interp\n")}
		wantError(t, c.refused(t), hostabi.ReasonStartFailed, "needs /no/such/interp")
	})
	t.Run("not UTF-8", func(t *testing.T) {
		t.Parallel()
		wantError(t, gp("exit", "\xff").refused(t), hostabi.ReasonUsage, "is not UTF-8")
	})
}

func TestGoPluginBroken(t *testing.T) {
	t.Parallel()
	wantError(t, gp("os-exit", "0").refused(t), hostabi.ReasonProtocol, "ended without a result")
	wantError(t, gp("error").refused(t), hostabi.ReasonProtocol, `broke its run: "bad\x1b[31m thing"`)
	wantError(t, gp("huge").refused(t), hostabi.ReasonProtocol, "sent a message over 4194304 bytes")
	code, signal, err := gp("die", strconv.Itoa(int(syscall.SIGKILL))).do(t.Context())
	if code != 137 || signal != 9 || err != nil {
		t.Errorf("got %d, %d, %v, want death by KILL", code, signal, err)
	}
}

// TestGoPluginChild: a child that holds every descriptor of the server does not hold ds up.
func TestGoPluginChild(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	if _, code := gp("child").output(t); code != 7 {
		t.Error(code)
	}
	if d := time.Since(begin); d > 8*time.Second {
		t.Errorf("took %v", d)
	}
}

func TestGoPluginStop(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T, ctx context.Context, words ...string) (chan os.Signal, <-chan error) {
		t.Helper()
		out, done := newSyncBuffer(), make(chan error, 1)
		c := gp(words...)
		c.stdout, c.signals = out, make(chan os.Signal, 1)
		go func() { done <- c.run(ctx) }()
		select {
		case <-out.hit:
		case err := <-done:
			t.Fatalf("ended early: %v", err)
		}
		return c.signals, done
	}
	t.Run("one interrupt is a message", func(t *testing.T) {
		t.Parallel()
		signals, done := begin(t, t.Context(), "signal")
		signals <- os.Interrupt
		var exit *plugin.ExitError
		if err := <-done; !errors.As(err, &exit) || exit.Code != 42 {
			t.Errorf("got %v", err)
		}
	})
	t.Run("two interrupts end a server that ignores them", func(t *testing.T) {
		t.Parallel()
		signals, done := begin(t, t.Context(), "wait")
		signals <- os.Interrupt
		signals <- os.Interrupt
		if err := <-done; hostabi.ReasonOf(err) != hostabi.ReasonInterrupted {
			t.Errorf("got %v, want INTERRUPTED", err)
		}
	})
	t.Run("cancel, deaf to everything", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_, done := begin(t, ctx, "stuck")
		cancel()
		if err := <-done; hostabi.ReasonOf(err) != hostabi.ReasonInterrupted {
			t.Errorf("got %v, want INTERRUPTED", err)
		}
	})
	t.Run("deadline", func(t *testing.T) {
		t.Parallel()
		c := gp("wait")
		c.inv = func(inv *plugin.Invocation) { inv.Deadline = time.Now().Add(700 * time.Millisecond) }
		wantError(t, c.refused(t), hostabi.ReasonTimeout, "stopped after ")
	})
	t.Run("deadline before the handshake", func(t *testing.T) {
		t.Parallel()
		c := call{mode: "goplugin", name: "gp-silent", inv: func(inv *plugin.Invocation) { inv.Deadline = time.Now().Add(200 * time.Millisecond) }}
		wantError(t, c.refused(t), hostabi.ReasonTimeout, "stopped after ")
	})
	t.Run("deadline with a mute socket", func(t *testing.T) {
		t.Parallel()
		c := call{mode: "goplugin", name: "gp-mute", inv: func(inv *plugin.Invocation) { inv.Deadline = time.Now().Add(500 * time.Millisecond) }}
		wantError(t, c.refused(t), hostabi.ReasonTimeout, "stopped after ")
	})
	t.Run("cancelled at once", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		c := gp("wait")
		c.stdout = io.Discard
		if err := c.run(ctx); hostabi.ReasonOf(err) != hostabi.ReasonInterrupted {
			t.Errorf("got %v, want INTERRUPTED", err)
		}
	})
}

// TestGoPluginFiles: with files as streams the server has the real ones.
func TestGoPluginFiles(t *testing.T) {
	t.Parallel()
	in, err := os.CreateTemp(t.TempDir(), "in")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for _, words := range [][]string{{"cat"}, {"fds", "copy"}} {
		if err := os.WriteFile(in.Name(), want, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan []byte, 1)
		go func() { b, _ := io.ReadAll(r); got <- b }()
		c := gp(words...)
		c.stdin, c.stdout = in, w
		err = c.run(t.Context())
		w.Close()
		if b := bytes.TrimPrefix(<-got, []byte("falsefalsefalse")); err != nil || !bytes.Equal(b, want) {
			t.Errorf("%v: got %d bytes, %v", words, len(b), err)
		}
		r.Close()
	}
}

// TestGoPluginClosedOutput: nobody reads ds's stdout any more.
func TestGoPluginClosedOutput(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	c := gp("flood", "10000000")
	c.stdout = w
	if code, signal, err := c.do(t.Context()); code != 141 || signal != int(syscall.SIGPIPE) || err != nil {
		t.Errorf("got %d, %d, %v, want 141", code, signal, err)
	}
	c.stdout = writerFunc(func([]byte) (int, error) { return 0, hostabi.Errorf(hostabi.ReasonQuota, "full") })
	if err := c.run(t.Context()); hostabi.ReasonOf(err) != hostabi.ReasonQuota {
		t.Errorf("got %v, want QUOTA", err)
	}
}

func TestSocketDirectory(t *testing.T) {
	t.Parallel()
	base, err := os.MkdirTemp("/tmp", "sock")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(base)
	d, err := native.NewSockDir(base)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(d.Path())
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("%v %v", info, err)
	}
	parent, later := filepath.Dir(d.Path()), time.Now().Add(2*time.Hour)
	dead := filepath.Join(parent, "deadbeef")
	if err := os.MkdirAll(filepath.Join(dead, "t"), 0o700); err != nil {
		t.Fatal(err)
	}
	native.Sweep(parent, time.Now()) // swept when d was made
	if _, err := os.Stat(dead); err != nil {
		t.Error("swept twice within an hour")
	}
	native.Sweep(parent, later)
	if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Error("the directory of a dead process is still there")
	}
	if _, err := os.Stat(d.Path()); err != nil {
		t.Error("the directory of a living process was swept")
	}
	d.Remove()
	if _, err := os.Stat(d.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Error("not removed")
	}
	if err := os.Chmod(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := native.NewSockDir(base); err == nil || !strings.Contains(err.Error(), "not a private directory") {
		t.Errorf("a directory open to others is used: %v", err)
	}
	long := filepath.Join(base, strings.Repeat("x", 60))
	if _, err := native.NewSockDir(long); err == nil || !strings.Contains(err.Error(), "longer than 60 bytes") {
		t.Errorf("got %v", err)
	}
	c := gp("exit", "4") // falls back to /tmp
	c.options.SockDir = long
	if _, code := c.output(t); code != 4 {
		t.Error(code)
	}
}
