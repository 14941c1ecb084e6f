//go:build unix

package native_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/runtime/native"
)

// serverByHand starts a go-plugin server as its author does below a debugger, and returns where it listens.
func serverByHand(t *testing.T, path, name string, version int) (native.Reattach, *os.Process) {
	t.Helper()
	cmd := &exec.Cmd{Path: path, Args: []string{"ds-" + name}, Env: []string{
		"DS_PLUGIN_MAGIC_COOKIE=delivery-station-plugin", fmt.Sprintf("PLUGIN_PROTOCOL_VERSIONS=%d", version), "PLUGIN_UNIX_SOCKET_DIR=" + shortDir(t),
	}}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	f := strings.Split(line, "|")
	if err != nil || len(f) < 5 {
		t.Fatalf("handshake %q, %v", line, err)
	}
	return native.Reattach{Version: version, Network: f[2], Addr: f[3], Pid: cmd.Process.Pid}, cmd.Process
}

// TestReattach: the server is used again and again, and neither started nor ended.
func TestReattach(t *testing.T) {
	t.Parallel()
	self, _ := os.Executable()
	at, server := serverByHand(t, self, "gp", 2)
	for _, c := range []struct {
		words []string
		out   string
		code  int
	}{
		{[]string{"host"}, hostabi.ABI, 0}, // go-plugin's server has its broker for the first connection only
		{[]string{"words", "a"}, "ds-gp;words,a;other", 0},
		{[]string{"exit", "7"}, "", 7},
	} {
		run := gp(c.words...)
		run.name, run.path = "other", script(t, "#!/bin/sh\nexit 99\n") // is not started
		run.options.Reattach = map[string]native.Reattach{"other": at}
		if out, code := run.output(t); out != c.out || code != c.code {
			t.Errorf("%q: got %q, %d, want %q, %d", c.words, out, code, c.out, c.code)
		}
	}
	if err := server.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the server is gone: %v", err)
	}
	run := gp("exit", "3")
	run.options.Reattach = map[string]native.Reattach{"other": at}
	if _, code := run.output(t); code != 3 {
		t.Errorf("a plugin of another name: exit %d", code)
	}
}

func TestReattachProtocol1(t *testing.T) {
	t.Parallel()
	at, server := serverByHand(t, stub(t, "field4"), "old", 1)
	run := legacy(t, "field4", "echo", "--to", "x")
	run.options.Reattach = map[string]native.Reattach{"old": at}
	if out, code := run.output(t); out != "to=x\n" || code != 0 {
		t.Errorf("got %q, %d", out, code)
	}
	if err := server.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the server is gone: %v", err)
	}
}

func TestReattachRefused(t *testing.T) {
	t.Parallel()
	at := map[string]native.Reattach{"gp": {Version: 1, Network: "unix", Addr: "/nowhere"}, "direct": {Version: 2, Network: "unix", Addr: "/nowhere"}}
	run := gp("exit", "0")
	run.options.Reattach = at
	wantError(t, run.refused(t), hostabi.ReasonABIUnsupported, "speaks plugin protocol 1")
	run = call{name: "direct", options: native.Options{Reattach: at}}
	wantError(t, run.refused(t), hostabi.ReasonUsage, "DS_REATTACH is for go-plugin servers")
	gone := map[string]native.Reattach{"gp": {Version: 2, Network: "unix", Addr: shortDir(t) + "/gone"}}
	run = gp("exit", "0")
	run.options.Reattach = gone
	wantError(t, run.refused(t), hostabi.ReasonProtocol, "no such file")
	run.options.Confine = "require"
	wantError(t, run.refused(t), hostabi.ReasonSandboxRequired, "a server that ds did not start is not confined")
	for _, text := range []string{"{", "[]", `{"x":{"version":3,"network":"unix","addr":"/x"}}`, `{"x":{"version":2,"network":"unix","addr":"x"}}`, `{"x":{"version":2,"network":"udp","addr":"/x"}}`} {
		if _, err := native.ParseReattach(text); hostabi.ReasonOf(err) != hostabi.ReasonUsage {
			t.Errorf("%s: %v", text, err)
		}
	}
	if m, err := native.ParseReattach(""); m != nil || err != nil {
		t.Errorf("nothing: %v, %v", m, err)
	}
}

// TestReattachLine: what is printed is what ParseReattach reads.
func TestReattachLine(t *testing.T) {
	t.Parallel()
	var errs syncBuffer
	run := gp("exit", "0")
	run.options.Wire, run.stderr = true, &errs
	run.output(t)
	text, ok := strings.CutPrefix(strings.TrimSpace(errs.String()), "DS_REATTACH='")
	m, err := native.ParseReattach(strings.TrimSuffix(text, "'"))
	if at := m["gp"]; !ok || err != nil || at.Version != 2 || at.Network != "unix" || at.Pid == 0 {
		t.Errorf("%q is %+v, %v", errs.String(), m, err)
	}
}
