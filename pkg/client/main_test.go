//go:build unix

package client_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/frame"
	"github.com/delivery-station/ds/pkg/client"
	"github.com/delivery-station/ds/plugin"

	"github.com/delivery-station/ds/hostabi/hosttest"
)

// The test binary is the plugin when its environment says so.
func TestMain(m *testing.M) {
	if os.Getenv("DS_TEST_GUEST") != "" {
		client.Main(guest())
	}
	os.Exit(m.Run())
}

// guest is a plugin that runs in a process of its own.
func guest() client.App {
	return client.App{Name: "kit", Commands: []client.Command{
		{Name: "hello", Run: func(_ context.Context, in *client.Invocation) error {
			_, err := fmt.Fprintln(in.Stdout, "hello")
			return err
		}},
		{Name: "work", Run: func(ctx context.Context, in *client.Invocation) error {
			var greeting string
			if err := in.ConfigValue(ctx, "settings.kit.greeting", &greeting); err != nil {
				return err
			}
			info, err := in.Cache().Put(ctx, strings.NewReader(greeting))
			if err != nil {
				return err
			}
			b, err := in.Cache().Open(ctx, info.Digest)
			if err != nil {
				return err
			}
			part := make([]byte, 3)
			if _, err := b.ReadAt(part, 1); err != nil {
				return err
			}
			if _, err := b.WriteTo(in.Stdout); err != nil {
				return err
			}
			if err := b.Close(); err != nil {
				return err
			}
			for i := range 40 {
				if _, err := in.SetState(ctx, fmt.Sprintf("k/%02d", i), nil); err != nil {
					return err
				}
			}
			n := 0
			for _, err := range in.ListState(ctx, "k/") {
				if err != nil {
					return err
				}
				n++
			}
			r, err := in.CallPlugin(ctx, "cat", []string{"run"}, client.WithStdin(strings.NewReader("through")))
			if err != nil {
				return err
			}
			in.Logger().Info("done")
			_, err = fmt.Fprintf(in.Stdout, " %s %d %s path=%t\n", part, n, r, b.Path() != "")
			return err
		}},
		{Name: "wait", Run: func(ctx context.Context, in *client.Invocation) error {
			fmt.Fprintln(in.Stdout, "ready")
			<-ctx.Done()
			return ctx.Err()
		}},
		{Name: "stubborn", Run: func(_ context.Context, in *client.Invocation) error {
			fmt.Fprintln(in.Stdout, "ready")
			select {}
		}},
		{Name: "children", Run: func(ctx context.Context, in *client.Invocation) error {
			if _, err := in.Describe(ctx); err != nil {
				return err
			}
			cmd := exec.CommandContext(ctx, "sh", "-c", "for n in 3 4; do if { true >&$n; } 2>/dev/null; then echo open $n; fi; done")
			cmd.Stdout = in.Stdout
			return cmd.Run()
		}},
	}}
}

// process is a guest with the two descriptors of mode direct.
type process struct {
	*exec.Cmd
	stderr bytes.Buffer
	lines  *bufio.Reader
	host   *os.File // our end of DS_HOST_FD
	ctl    *os.File // our end of DS_CTL_FD
}

func startGuest(t *testing.T, args ...string) *process {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.CloseOnExec(fds[0])
	if err := syscall.SetNonblock(fds[0], true); err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "guest")
	ctlRead, ctlWrite, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: exec.Command(os.Args[0], args...), host: os.NewFile(uintptr(fds[0]), "host"), ctl: ctlWrite}
	p.Env = []string{"DS_TEST_GUEST=1", "DS_HOST_FD=3", "DS_CTL_FD=4", "DS_PLUGIN=kit", "DS_KIND=run", "PATH=" + os.Getenv("PATH"), "GOCOVERDIR=" + os.Getenv("GOCOVERDIR")}
	p.ExtraFiles = []*os.File{theirs, ctlRead}
	p.Stderr = &p.stderr
	out, err := p.StdoutPipe()
	if err == nil {
		err = p.Start()
	}
	theirs.Close()
	ctlRead.Close()
	if err != nil {
		t.Fatal(err)
	}
	p.lines = bufio.NewReader(out)
	t.Cleanup(func() {
		_ = p.Process.Kill()
		_ = p.Wait()
		p.host.Close()
		p.ctl.Close()
	})
	return p
}

// end waits and returns what was printed and the exit code, or minus the signal.
func (p *process) end(t *testing.T) (string, int) {
	t.Helper()
	out, err := io.ReadAll(p.lines)
	if err != nil {
		t.Error(err)
	}
	_ = p.Wait()
	ws := p.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return string(out), -int(ws.Signal())
	}
	return string(out), ws.ExitStatus()
}

func (p *process) ready(t *testing.T) {
	t.Helper()
	if line, err := p.lines.ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
}

func TestProcessWorks(t *testing.T) {
	for name, confined := range map[string]bool{"path": false, "descriptor only": true} {
		t.Run(name, func(t *testing.T) {
			w := &world{World: hosttest.NewWorld(t, owners, hosttest.Setup{}), runDir: t.TempDir()}
			w.Installed.Program = &plugin.Program{Kind: plugin.Native}
			_, s := w.Open(w.Invocation("work"))
			if err := os.MkdirAll(filepath.Join(w.runDir, "sink"), 0o700); err != nil {
				t.Fatal(err)
			}
			s.(interface{ SetRunDir(string, bool) }).SetRunDir(w.runDir, confined)
			p := startGuest(t, "work")
			served := make(chan error, 1)
			go func() { served <- frame.Serve(t.Context(), p.host, s) }()
			out, code := p.end(t)
			if err := <-served; err != nil {
				t.Errorf("serve: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Errorf("session: %v", err)
			}
			want := fmt.Sprintf("hello ell 40 through path=%t\n", !confined)
			if out != want || code != 0 || p.stderr.Len() > 0 {
				t.Errorf("got %q, exit %d, stderr %q, want %q", out, code, p.stderr.String(), want)
			}
			if lines := w.Log.Plugin(); len(lines) != 1 || !strings.Contains(lines[0], "done") {
				t.Errorf("log %q", lines)
			}
		})
	}
}

// TestProcessIsQuiet: a program that needs nothing of the host sends it nothing.
func TestProcessIsQuiet(t *testing.T) {
	p := startGuest(t, "hello")
	if out, code := p.end(t); out != "hello\n" || code != 0 {
		t.Errorf("%q, exit %d, %s", out, code, p.stderr.String())
	}
	if b, err := io.ReadAll(p.host); err != nil || len(b) != 0 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestProcessSignals(t *testing.T) {
	for sig, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		p := startGuest(t, "wait")
		p.ready(t)
		if err := p.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if _, code := p.end(t); code != want || p.stderr.Len() > 0 {
			t.Errorf("%v: exit %d, stderr %q, want %d", sig, code, p.stderr.String(), want)
		}
	}
	p := startGuest(t, "stubborn")
	p.ready(t)
	dead := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, p.lines)
		close(dead)
	}()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for alive := true; alive; { // the first is swallowed, the next one kills
		_ = p.Process.Signal(syscall.SIGTERM)
		select {
		case <-tick.C:
		case <-dead:
			alive = false
		}
	}
	if _, code := p.end(t); code != -int(syscall.SIGTERM) {
		t.Errorf("second signal: %d", code)
	}
}

func TestProcessLifeline(t *testing.T) {
	p := startGuest(t, "wait")
	p.ready(t)
	p.ctl.Close()
	if _, code := p.end(t); code != 129 {
		t.Errorf("exit %d, want 129", code)
	}
	skipShort(t, "waits two seconds")
	p = startGuest(t, "stubborn")
	p.ready(t)
	p.ctl.Close()
	if _, code := p.end(t); code != 129 {
		t.Errorf("stubborn: exit %d, want 129", code)
	}
}

func TestProcessKeepsDescriptors(t *testing.T) {
	w := newWorld(t)
	p := startGuest(t, "children")
	served := make(chan error, 1)
	go func() { served <- frame.Serve(t.Context(), p.host, w.session) }()
	if out, code := p.end(t); out != "" || code != 0 {
		t.Errorf("a child has: %s (exit %d, %s)", out, code, p.stderr.String())
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestProcessHostGone(t *testing.T) {
	p := startGuest(t, "work")
	p.host.Close()
	if _, code := p.end(t); code != 130 || !strings.Contains(p.stderr.String(), "Error DS4008: the host closed the connection") {
		t.Errorf("exit %d, stderr %q", code, p.stderr.String())
	}
}

// TestFrames drives a Client over frames in this process, where the race detector sees both ends.
func TestFrames(t *testing.T) {
	w := newWorld(t)
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if err := syscall.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
	}
	host, conn := os.NewFile(uintptr(fds[0]), "host"), frame.NewConn(os.NewFile(uintptr(fds[1]), "guest"))
	served := make(chan error, 1)
	go func() { served <- frame.Serve(t.Context(), host, w.session) }()
	c, err := client.NewClient(client.WithSession(conn))
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Subscribe(t.Context(), "flood.*")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CallPlugin(t.Context(), "flood", []string{"wait", "flood.x"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CallPlugin(t.Context(), "flood", []string{"flood.x", "50"}); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		if e, err := s.Next(t.Context()); err != nil || string(e.Data) != fmt.Sprintf(`{"n":%d}`, i+1) {
			t.Fatalf("%d: %+v, %v", i, e, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.Secret(t.Context(), "settings.kit.locked.password"); !errors.Is(err, client.ErrDenied) || hostabi.AsError(err).Meta["plugin"] != "kit" {
		t.Errorf("%v", err)
	}
	if err := errors.Join(c.Close(), conn.Close(), <-served); err != nil {
		t.Error(err)
	}
}
