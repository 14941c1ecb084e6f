package wasm

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/delivery-station/ds/plugin"
)

// openPTY is both ends of a new terminal.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { _ = master.Close() })
	var n int
	control(master, func(fd int) {
		if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err == nil {
			n, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		}
	})
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	fd, err := unix.Open(fmt.Sprintf("/dev/pts/%d", n), unix.O_RDWR|unix.O_NOCTTY, 0) // blocking, as a shell has it
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	slave = os.NewFile(uintptr(fd), "tty")
	t.Cleanup(func() { _ = slave.Close() })
	return master, slave
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	master, slave := openPTY(t)
	if err := shared().Check(t.Context(), installed(t, demoWASM)); err != nil { // a slow compile prints a line
		t.Fatal(err)
	}
	r := &runOf{inv: plugin.Invocation{Stdin: slave, Stdout: slave, Stderr: slave}}
	if err := r.run(t.Context(), t, installed(t, demoWASM), "isatty"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 200)
	n, err := master.Read(b)
	if got := string(b[:n]); err != nil || got != "isatty: stdin=1 stdout=1 stderr=1\r\n" {
		t.Errorf("%v: %q", err, got)
	}

	if _, err := io.WriteString(master, "a line\n\x04"); err != nil {
		t.Fatal(err)
	}
	r = &runOf{inv: plugin.Invocation{Stdin: slave}}
	if err := r.run(t.Context(), t, installed(t, demoWASM), "echo"); err != nil || r.out.String() != "a line\n" {
		t.Errorf("%v: %q", err, &r.out)
	}
	control(slave, func(fd int) {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
			t.Errorf("the shell's descriptor was made non-blocking: %v", err)
		}
	})
}

func TestTerminalStops(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file  string
		words []string
	}{
		"read": {demoWASM, []string{"echo"}},
		"poll": {probeWASM, []string{"poll"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, slave := openPTY(t)
			p := installed(t, c.file)
			if err := (&runOf{}).run(t.Context(), t, p, "args"); err != nil && resultOf(err) != "exit 99" {
				t.Fatal(err)
			}
			r := &runOf{inv: plugin.Invocation{Stdin: slave}}
			within(t, 200*time.Millisecond+slack, func() {
				r.inv.Deadline = time.Now().Add(200 * time.Millisecond)
				if got := resultOf(r.run(t.Context(), t, p, c.words...)); !strings.HasPrefix(got, "TIMEOUT: ") {
					t.Errorf("got %q", got)
				}
			})
			signals := make(chan os.Signal, 2)
			signals <- syscall.SIGINT
			r = &runOf{inv: plugin.Invocation{Stdin: slave, Signals: signals}}
			within(t, slack, func() {
				if got := resultOf(r.run(t.Context(), t, p, c.words...)); !strings.HasSuffix(got, "[exit 130]") {
					t.Errorf("got %q", got)
				}
			})
		})
	}
}
