//go:build linux && (amd64 || arm64)

package native_test

import (
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
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
	"github.com/delivery-station/ds/sandbox"
)

// needsConfinement skips tests of the real thing where there is none.
func needsConfinement(t testing.TB) {
	t.Helper()
	if s := native.Probe(); !s.Confines() {
		t.Skipf("needs Landlock ABI 3 and seccomp, here are %+v", s)
	}
}

// prison is where a probe runs: a process that does what ds does, as some user, with things around it that the
// probe must not reach.
type prison struct {
	t                *testing.T
	uid              uint32
	dir, exe         string
	out, in          string // outside the grants, inside
	other            int
	port, otherPort  string
	abstract, probed string
}

const nobody = 65534

func newPrison(t *testing.T, uid uint32) *prison {
	t.Helper()
	needsConfinement(t)
	if int(uid) != os.Getuid() && os.Getuid() != 0 {
		t.Skip("needs root to become another user")
	}
	p := &prison{t: t, uid: uid, dir: shortDir(t)}
	p.exe = filepath.Join(p.dir, "bin", "ds")
	p.out, p.in = filepath.Join(p.dir, "out"), filepath.Join(p.dir, "in")
	for _, d := range []string{filepath.Join(p.dir, "bin"), p.out, p.in, filepath.Join(p.dir, "run")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, p.exe, self, 0o755)
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Skip("needs /bin/true")
	}
	for _, d := range []string{p.out, p.in} {
		writeFile(t, filepath.Join(d, "secret"), []byte("secret"), 0o600)
		writeFile(t, filepath.Join(d, "victim"), nil, 0o600)
		writeFile(t, filepath.Join(d, "true"), program, 0o755)
	}
	if os.Getuid() == 0 {
		err := filepath.WalkDir(p.dir, func(path string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Chown(path, int(uid), int(uid))
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p.dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	other := exec.Command("/bin/sleep", "60")
	other.SysProcAttr = p.as()
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Process.Kill(); _ = other.Wait() })
	p.other = other.Process.Pid
	p.port, p.otherPort = p.listen("tcp4", "127.0.0.1:0"), p.listen("tcp4", "127.0.0.1:0")
	p.abstract = strings.TrimPrefix(p.listen("unix", "@ds-probe-"+strconv.Itoa(p.other)), "@")
	return p
}

func (p *prison) as() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Getuid() == 0 && p.uid != 0 {
		a.Credential = &syscall.Credential{Uid: p.uid, Gid: p.uid}
	}
	return a
}

// listen accepts connections and returns the port or the address.
func (p *prison) listen(network, addr string) string {
	p.t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		return strconv.Itoa(a.Port)
	}
	return l.Addr().String()
}

// run runs the probe, held as words say (call.hold), and returns what it can do.
func (p *prison) run(mode, words string) map[string]bool {
	p.t.Helper()
	probe := fmt.Sprintf("out=%s other=%d in=%s port=%s other-port=%s abstract=%s", p.out, p.other, p.in, p.port, p.otherPort, p.abstract)
	parent := "direct probe " + probe
	if mode == "goplugin" {
		parent = "goplugin gp-probe"
	}
	cmd := exec.Command(p.exe)
	cmd.Args = []string{"parent"}
	cmd.SysProcAttr = p.as()
	cmd.Env = []string{
		"PATH=/usr/bin:/bin", "DS_TEST_PARENT=" + parent, "DS_TEST_RUNDIR=" + filepath.Join(p.dir, "run"), "DS_TEST_CONFINE=" + words + " ",
		"LC_PROBE=" + probe, "SECRET_TOKEN=canary",
	}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	can := make(map[string]bool)
	for line := range strings.Lines(string(out)) {
		if name, answer, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			can[name] = answer == "yes"
		}
	}
	p.probed = string(out)
	if len(can) < 20 {
		p.t.Fatalf("the probe did not run: %v\n%s", err, out)
	}
	return can
}

// what every confined plugin may do, whatever it was granted.
var always = []string{"exec-system", "etc-passwd", "proc", "null", "rundir", "self", "pair-stream"}

// want fails for every thing that the probe can do and is not in yes, or the other way.
func (p *prison) want(name string, can map[string]bool, yes ...string) {
	p.t.Helper()
	for _, n := range slices.Sorted(maps.Keys(can)) {
		if may := slices.Contains(yes, n); may != can[n] {
			p.t.Errorf("%s: %s: can %t, want %t", name, n, can[n], may)
		}
	}
	for _, n := range yes {
		if _, ok := can[n]; !ok {
			p.t.Errorf("%s: %s was not tried", name, n)
		}
	}
	if p.t.Failed() {
		p.t.Log(p.probed)
	}
}

// TestConfined: a confined plugin gets nothing but what it was granted, whoever runs ds; not confined the same
// program gets everything that its user may do.
func TestConfined(t *testing.T) {
	t.Parallel()
	for name, uid := range map[string]uint32{"root": 0, "nobody": nobody} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPrison(t, uid)
			p.want("nothing granted", p.run("direct", "confine=require"), always...)
			p.want("goplugin", p.run("goplugin", "confine=require"), and(always, "socket-unix", "pair-datagram", "pair-raw")...)
			p.want("read", p.run("direct", "read="+p.in+"/**"), and(always, "in-read", "in-list")...)
			p.want("a file", p.run("direct", "read="+p.in+"/secret"), and(always, "in-read")...)
			p.want("write", p.run("direct", "write="+p.in+"/**"), and(always, "in-read", "in-list", "in-create", "in-rename")...)
			inet := []string{"socket-tcp", "socket-tcp6", "socket-udp", "socket-udp6", "connect"}
			p.want("sockets", p.run("direct", "sockets=private:http://127.0.0.1:"+p.port), and(always, inet...)...)
			p.want("sockets to any port", p.run("direct", "sockets=private:http://127.0.0.1:*"), and(always, append(inet, "connect-other")...)...)

			p.want("an older kernel", p.run("direct", "abi=3 sockets=private:http://127.0.0.1:"+p.port), and(always, append(inet, "connect-other", "signal-other", "signal-threads")...)...)
			p.want("a kernel without scopes", p.run("goplugin", "abi=5"), and(always, "socket-unix", "pair-datagram", "pair-raw", "abstract", "signal-other", "signal-threads")...)

			// The suite is alive: what was refused above, these can.
			free := p.run("direct", "confine=off")
			mustNot := []string{"host-environ", "host-memory", "host-fds", "mount", "unshare", "socket-raw", "socket-packet", "user-namespace"}
			for _, n := range slices.Sorted(maps.Keys(free)) {
				if !free[n] && n != "socket-ping" && (uid == 0 || !slices.Contains(mustNot, n)) {
					t.Errorf("not confined: %s is refused", n)
				}
			}
			if uid != 0 && (free["host-environ"] || free["host-memory"] || free["host-fds"]) {
				t.Error("not confined, but an ordinary user: the memory of ds is open")
			}
			if t.Failed() {
				t.Log(p.probed)
			}
		})
	}
}

func and(list []string, more ...string) []string { return slices.Concat(list, more) }

// TestNarrow: the kernel cannot leave something out, so what contains a directory of ds is refused.
func TestNarrow(t *testing.T) {
	t.Parallel()
	needsConfinement(t)
	dir := t.TempDir()
	conf, data := filepath.Join(dir, "home", ".config", "ds"), filepath.Join(dir, "home", "data")
	for _, d := range []string{conf, data} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(conf, "grants.yaml"), nil, 0o600)
	link, file := filepath.Join(dir, "link"), filepath.Join(data, "file")
	if err := os.Symlink(filepath.Join(dir, "home"), link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(conf, "grants.yaml"), file); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, scope, text string }{
		{"contains", "read=" + dir + "/home/**", "narrow the scope: it contains ~/.config/ds"},
		{"by its files", "read=" + dir + "/home/*.txt", "narrow the scope: it contains ~/.config/ds"},
		{"through a link", "write=" + link + "/**", "narrow the scope: it contains ~/.config/ds"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			run := call{name: "quiet"}
			run.hold(c.scope + " denied=" + conf)
			run.change(func(o *sandbox.BoxOptions) { o.Home = filepath.Join(dir, "home") })
			e := run.refused(t)
			wantError(t, e, hostabi.ReasonCapabilityDenied, "quiet 1.4.0: "+c.text)
			run = call{name: "quiet"}
			run.hold(c.scope + " confine=off denied=" + conf)
			if err := run.run(t.Context()); err != nil {
				t.Errorf("not confined: %v", err)
			}
		})
	}
	optional := call{name: "cat-file", args: []string{filepath.Join(conf, "grants.yaml")}}
	optional.hold("denied=" + conf)
	optional.ask(plugin.Request{Cap: hostabi.FSRead, Scope: []string{"abs:" + dir + "/home/**"}, Optional: true})
	if out, code := optional.output(t); code != 1 {
		t.Errorf("an optional scope: exit %d, %q", code, out)
	}
	denied := call{name: "quiet"}
	denied.hold("read=" + data + "/**")
	denied.change(func(o *sandbox.BoxOptions) {
		o.Denied = map[hostabi.Capability][]string{hostabi.FSRead: {"abs:" + data + "/private/**"}}
	})
	wantError(t, denied.refused(t), hostabi.ReasonCapabilityDenied, "narrow the scope: it contains "+data+"/private")
	// A link that somebody put at a granted name opens nothing.
	through := call{name: "cat-file", args: []string{file}}
	through.hold("read=" + file + " denied=" + conf)
	if out, code := through.output(t); code != 1 {
		t.Errorf("through a link: exit %d, %q", code, out)
	}
}

// TestRequire: what must be confined and cannot is refused, and never started.
func TestRequire(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, words, text string
		policy            bool
		wrap              []string
		mode              string
	}{
		{name: "no Landlock", words: "confine=require abi=0", text: "this kernel has no Landlock"},
		{name: "ports", words: "confine=require abi=3 sockets=https://example.com", text: "this kernel cannot limit TCP ports (Landlock ABI 3, needs 4)"},
		{name: "signals", words: "confine=require abi=5", text: "this kernel cannot limit signals to your other programs (Landlock ABI 5, needs 6)"},
		{name: "policy", words: "confine=off abi=0", policy: true, text: "this kernel has no Landlock"},
		{name: "wrapper", words: "confine=require", wrap: []string{"env"}, text: "a program below a wrapper is not confined"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			run := call{name: "quiet", mode: c.mode, options: native.Options{Wrap: c.wrap}}
			run.hold(c.words)
			if c.policy {
				run.change(func(o *sandbox.BoxOptions) { o.Policy = &sandbox.Policy{Native: "confined"} })
			}
			wantError(t, run.refused(t), hostabi.ReasonSandboxRequired, c.text)
		})
	}
}

// TestScripts: programs of interpreters start confined, wherever their interpreter is.
func TestScripts(t *testing.T) {
	t.Parallel()
	needsConfinement(t)
	dir := shortDir(t)
	bin := filepath.Join(dir, "opt", "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	sh, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Skip("needs /bin/sh")
	}
	writeFile(t, filepath.Join(bin, "mysh"), sh, 0o755)
	path := "PATH=" + bin + ":/usr/bin:/bin"
	for _, c := range []struct {
		name, text, needs, want string
		code                    int
	}{
		{name: "sh", text: "#!/bin/sh\necho hello $1\n", want: "hello you\n"},
		{name: "env", text: "#!/usr/bin/env mysh\necho hello\n", want: "hello\n"},
		{name: "by path", text: "#!" + bin + "/mysh\necho hello; exit 3\n", want: "hello\n", code: 3},
		{name: "standard error by name", text: "#!/bin/sh\necho x >/dev/null; ls /etc/ssl/certs >/dev/null 2>&1; echo done >/dev/stdout\n", want: "done\n"},
		{name: "python", needs: "/usr/bin/python3", text: "#!/usr/bin/python3\nimport json, ssl, os, sys\nprint(json.dumps(sys.argv[1:]))\n", want: `["you"]` + "\n"},
		{name: "node", needs: "/usr/bin/node", text: "#!/usr/bin/env node\nrequire('net');require('tls');console.log(process.argv[2])\n", want: "you\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if _, err := os.Stat(c.needs); c.needs != "" && err != nil {
				t.Skip(err)
			}
			run := call{name: "x", path: script(t, c.text), args: []string{"you"}, env: []string{path, "HOME=/nonexistent"}, dir: "/"}
			run.options.Confine = "require"
			if out, code := run.output(t); out != c.want || code != c.code {
				t.Errorf("got %q, %d", out, code)
			}
		})
	}
	run := call{name: "x", path: script(t, "#!"+bin+"/mysh\n"), dir: "/"}
	run.change(func(o *sandbox.BoxOptions) { o.Home = filepath.Join(dir, "opt") })
	wantError(t, run.refused(t), hostabi.ReasonStartFailed, "its interpreter "+bin+"/mysh is outside what a confined plugin may run")
}

// TestMemoryLimit: a confined program has the memory of its limit and not more.
func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	needsConfinement(t)
	const wait = "#!/bin/sh\nwhile [ $(ulimit -d) = unlimited ]; do :; done\necho $(ulimit -d) $(ulimit -c)\n"
	run := call{name: "x", path: script(t, wait), options: native.Options{Confine: "require"}}
	for memory, want := range map[int64]string{300 << 20: "307200 0\n", 1 << 20: "98304 0\n"} {
		run.box = func(o *sandbox.BoxOptions) { o.Plugin.Manifest.Limits = plugin.Limits{Memory: memory} }
		if out, _ := run.output(t); out != want {
			t.Errorf("limit %d: got %q KiB, want %q", memory, out, want)
		}
	}
}

// TestParkedThread: the thread that a confined plugin was started from ends with it, and was not the main one.
func TestParkedThread(t *testing.T) {
	needsConfinement(t)
	for range 20 {
		if err := (call{name: "quiet", stdout: io.Discard, options: native.Options{Confine: "require"}}).run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(10 * time.Second)
	for {
		held := 0
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			status, err := os.ReadFile("/proc/self/task/" + task.Name() + "/status")
			if err == nil && strings.Contains(string(status), "NoNewPrivs:\t1") {
				held++
				if task.Name() == strconv.Itoa(os.Getpid()) {
					t.Fatal("the main thread was restricted")
				}
			}
		}
		if held == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%d restricted threads are left", held)
		}
	}
}

// TestWorkerConfined: a worker reaches its directory and nothing else.
func TestWorkerConfined(t *testing.T) {
	t.Parallel()
	needsConfinement(t)
	dir, other := t.TempDir(), t.TempDir()
	writeFile(t, filepath.Join(other, "secret"), []byte("x"), 0o600)
	for _, c := range []struct{ name, dir, confine, want string }{
		{"confined", dir, "", "0---"},
		{"elsewhere", other, "", "-1--"},
		{"off", dir, "off", "012?"},
	} {
		b := native.New(native.Options{Confine: c.confine})
		words := []string{"reach", filepath.Join(dir, "out"), filepath.Join(other, "secret"), "/bin/true"}
		out, err := b.Worker(t.Context(), words, nil, native.WorkerLimits{Wall: 20 * time.Second, Dir: c.dir})
		if string(out) != c.want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", c.name, out, err, c.want)
		}
	}
}
