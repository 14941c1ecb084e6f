//go:build unix

package docs_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/frame"
)

// TestPythonClient runs the client of abi.md against the real carrier, once with an answer and once with an error.
func TestPythonClient(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not here")
	}
	program := filepath.Join(t.TempDir(), "client.py")
	if err := os.WriteFile(program, []byte(one(t, "abi.md", "python")), 0o600); err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]string{`"Hello"`: "Hello from demo\n", "": "KEY_NOT_FOUND: no configuration key settings.demo.greeting\n"} {
		if got := runGuest(t, exec.CommandContext(t.Context(), python, program), host(value)); got != want {
			t.Errorf("value %q: printed %q", value, got)
		}
	}
}

// runGuest runs a program with frames on descriptor 3 and returns what it prints.
func runGuest(t *testing.T, cmd *exec.Cmd, s hostabi.Session) string {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.CloseOnExec(fds[0])
	syscall.CloseOnExec(fds[1])
	if err := syscall.SetNonblock(fds[0], true); err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "host"), os.NewFile(uintptr(fds[1]), "guest")
	served := make(chan error, 1)
	go func() { served <- frame.Serve(context.WithoutCancel(t.Context()), ours, s) }()
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Env = append(os.Environ(), "DS_HOST_FD=3")
	out, err := cmd.CombinedOutput()
	_ = theirs.Close() // the last end of the guest
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Errorf("frames: %v", err)
	}
	return string(out)
}

// host answers the two calls of the example; its text is the value, empty for none.
type host string

func (h host) Invoke(_ context.Context, c hostabi.Call) ([]byte, error) {
	switch {
	case c.Enc != hostabi.EncJSON:
		return nil, hostabi.Errorf(hostabi.ReasonBadMessage, "not JSON")
	case c.Method == "/ds.host.v1.Meta/Describe" && string(c.Req) == "{}":
		return append(c.Dst, `{"abi":"ds.host/v1","invocation":{"plugin":"demo"}}`...), nil
	case c.Method == "/ds.host.v1.Config/Get" && h != "":
		return append(c.Dst, `{"key":"settings.demo.greeting","json":"\"Hello\""}`...), nil
	case c.Method == "/ds.host.v1.Config/Get":
		return nil, hostabi.Errorf(hostabi.ReasonKeyNotFound, "no configuration key settings.demo.greeting")
	}
	return nil, hostabi.Errorf(hostabi.ReasonUnknownMethod, "method %s", c.Method)
}

func (host) Stream(context.Context, string, hostabi.Encoding) (hostabi.Stream, error) {
	return nil, hostabi.Errorf(hostabi.ReasonUnknownMethod, "no streams")
}

func (host) Handle(uint32) (io.ReadWriteCloser, error) { return nil, errors.ErrUnsupported }
func (host) Close() error                              { return nil }
