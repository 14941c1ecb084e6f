//go:build unix

package native_test

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
)

// TestTerminal: a plugin on a terminal is on a terminal.
func TestTerminal(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		call call
	}{
		{"direct", call{name: "tty"}},
		{"goplugin", gp("fds")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ptmx, tty, err := pty.Open()
			if err != nil {
				t.Skip("no pseudo terminals here: ", err)
			}
			defer ptmx.Close()
			got := make(chan string, 1)
			go func() {
				b := make([]byte, 64)
				n, _ := io.ReadAtLeast(ptmx, b, len("truetruetrue"))
				got <- string(b[:n])
			}()
			run := c.call
			run.stdin, run.stdout, run.stderr = tty, tty, tty
			if err := run.run(t.Context()); err != nil {
				t.Error(err)
			}
			s := strings.ReplaceAll(<-got, " ", "")
			tty.Close()
			if s != "truetruetrue" {
				t.Errorf("got %q", s)
			}
		})
	}
}

// TestKeyboard: the terminal itself interrupts the plugin, once; ds in the foreground adds nothing.
func TestKeyboard(t *testing.T) {
	t.Parallel()
	ptmx, tty, err := pty.Open()
	if err != nil {
		t.Skip("no pseudo terminals here: ", err)
	}
	defer ptmx.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), "DS_TEST_PARENT=direct interrupts")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Skip("no session of its own here: ", err)
	}
	tty.Close()
	readLine(t, ptmx)
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil { // to ds alone, which is in the foreground
		t.Fatal(err)
	}
	if _, err := ptmx.Write([]byte{3}); err != nil { // Ctrl-C
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, ptmx) // until the session ends
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 11 {
		t.Errorf("got %d, want 11: one interrupt", code)
	}
}
