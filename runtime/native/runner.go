package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	gorunner "github.com/hashicorp/go-plugin/runner"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// notice is when a person at a terminal is told that the plugin has not answered yet.
const notice = 3 * time.Second

// runner is the process as go-plugin's Client sees it. go-plugin gets one handshake line that was checked
// before and an empty stderr: it parses nothing else that a plugin writes (native.md section 9, 1 and 3).
type runner struct {
	r   *run
	dir string // socket directory
	std *streams
	out io.Writer // where the rest of the handshake pipe goes

	env    []string // go-plugin's part of the environment
	line   *io.PipeReader
	put    *io.PipeWriter
	exited chan struct{} // the process was started and has ended

	mu       sync.Mutex
	proc     *process // nil = not started
	stopping bool     // a process that starts now is killed
	fail     error    // why there was no handshake
	tasks    sync.WaitGroup
}

var _ gorunner.Runner = (*runner)(nil)

func newRunner(r *run, dir string, std *streams, out io.Writer) *runner {
	n := &runner{r: r, dir: dir, std: std, out: out, exited: make(chan struct{})}
	n.line, n.put = io.Pipe()
	return n
}

// create is go-plugin's RunnerFunc: of spec only the environment counts.
func (n *runner) create(_ hclog.Logger, spec *exec.Cmd, _ string) (gorunner.Runner, error) {
	n.env = append([]string(nil), spec.Env...)
	return n, nil
}

// Start starts the process with the handshake pipe as its descriptor 1.
func (n *runner) Start(ctx context.Context) error {
	err := n.start(ctx)
	if err != nil {
		n.setFailure(err)
		_ = n.put.Close()
	}
	return err
}

func (n *runner) start(ctx context.Context) error {
	pipe, end, err := os.Pipe()
	if err != nil {
		return n.r.fail(hostabi.ReasonStartFailed, "%w", err)
	}
	defer end.Close()
	life, hold, err := os.Pipe()
	if err != nil {
		_ = pipe.Close()
		return n.r.fail(hostabi.ReasonStartFailed, "%w", err)
	}
	defer life.Close()
	files := []*os.File{n.std.child[0], end, n.std.child[2]}
	vars := append(n.env, "TMPDIR="+tmpIn(n.dir))
	if inheritsFiles && n.r.p.Program.Mode != plugin.Protocol1 {
		files = append(files, life, n.std.child[0], n.std.child[1], n.std.child[2])
		vars = append(vars, "DS_CTL_FD=3", "DS_STDIO_FDS=4,5,6")
	}
	p, err := n.r.start(ctx, files, n.r.environment(vars...))
	if err != nil {
		_, _ = pipe.Close(), hold.Close()
		return err
	}
	n.std.started()
	n.mu.Lock()
	n.proc = p
	if n.stopping {
		p.kill()
	}
	n.mu.Unlock()
	_ = pipe.SetReadDeadline(time.Now().Add(n.r.b.handshake)) // shortened when the process ends
	rest := newPump(pipe, n.out)
	n.tasks.Go(func() { n.read(rest) })
	n.tasks.Go(func() { // wait for the process, never for a pipe: a child of the plugin may hold it
		<-p.done
		close(n.exited)
		rest.exited()
		_ = hold.Close()
	})
	return nil
}

// read shakes hands on the pipe, passes the line on and copies whatever follows.
func (n *runner) read(rest *pump) {
	defer rest.from.Close()
	line, more, err := n.handshake(rest.from)
	if err != nil {
		n.setFailure(err)
		_ = n.put.CloseWithError(io.ErrUnexpectedEOF)
		return
	}
	n.announce(line)
	_, _ = io.WriteString(n.put, line+"\n")
	_ = n.put.Close()
	_ = rest.from.SetReadDeadline(time.Time{})
	if len(more) > 0 {
		_, _ = n.out.Write(more)
	}
	rest.copy()
}

// announce says how to reattach to the server of a handshake line.
func (n *runner) announce(line string) {
	if f := strings.Split(line, "|"); n.r.b.o.Wire {
		version, _ := strconv.Atoi(f[1]) // was checked
		n.r.say("%s", reattachLine(string(n.r.p.Name), Reattach{Version: version, Network: f[2], Addr: f[3], Pid: n.process().proc.Pid}))
	}
}

// handshake reads the first line of the pipe and checks it. more are bytes that came after it.
func (n *runner) handshake(pipe *os.File) (line string, more []byte, err error) {
	if t := n.r.inv.Terminal; t.StderrTTY && n.r.inv.Stderr != nil {
		hint := time.AfterFunc(notice, func() {
			_, _ = fmt.Fprintf(n.r.inv.Stderr, "waiting for %s to start\n", n.r.p.Name)
		})
		defer hint.Stop()
	}
	b, err := firstLine(pipe)
	if err != nil {
		return "", nil, n.noHandshake(b, err)
	}
	first, rest, _ := strings.Cut(string(b), "\n")
	line, err = n.checkLine(strings.TrimSpace(first))
	return line, []byte(rest), err
}

// firstLine reads until there is a newline or maxLine bytes; an error comes with the bytes read so far.
func firstLine(r io.Reader) ([]byte, error) {
	const maxLine = 4096
	b := make([]byte, 0, maxLine)
	for {
		n, err := r.Read(b[len(b):maxLine])
		fresh := b[len(b) : len(b)+n]
		b = b[:len(b)+n]
		switch {
		case strings.Contains(string(fresh), "\n"):
			return b, nil
		case err != nil:
			return b, err
		case len(b) == maxLine:
			return b, errLongLine
		}
	}
}

var errLongLine = errors.New("no line")

// noHandshake says why the pipe gave no line: b is what it gave.
func (n *runner) noHandshake(b []byte, err error) error {
	if len(b) > 0 {
		return n.noLine(string(b))
	}
	wait := silence
	if errors.Is(err, os.ErrDeadlineExceeded) {
		wait = 0
	}
	select {
	case <-n.exited:
		return n.endedEarly()
	default:
	}
	select {
	case <-n.exited:
		return n.endedEarly()
	case <-time.After(wait):
	}
	if wait == 0 {
		return n.r.fail(hostabi.ReasonProtocol, "sent no handshake in %s", short(n.r.b.handshake))
	}
	return n.r.fail(hostabi.ReasonProtocol, "closed its output before the handshake")
}

func (n *runner) noLine(line string) error {
	return n.r.fail(hostabi.ReasonProtocol, "answered %s, no handshake", clean(line)).WithFix("run.native.mode: direct")
}

// endedEarly is the result of a process that ended before there was a connection.
func (n *runner) endedEarly() error {
	err := n.process().result()
	e, ok := errors.AsType[*plugin.ExitError](err)
	if ok && e.Signal != 0 {
		return err
	}
	code := 0
	if ok {
		code = e.Code
	}
	return n.r.fail(hostabi.ReasonProtocol, "ended before the handshake (exit status %d)", code)
}

// checkLine accepts "1|2|unix|PATH|grpc[|…]" with a socket of this run and returns what go-plugin may see of
// it: a certificate that nobody asked for would make it panic.
func (n *runner) checkLine(line string) (string, error) {
	f := strings.Split(line, "|")
	if len(f) < 4 || f[0] != "1" {
		return "", n.noLine(line)
	}
	version, err := strconv.Atoi(f[1])
	if err != nil {
		return "", n.noLine(line)
	}
	if len(f) < 5 || f[4] != "grpc" {
		return "", n.r.fail(hostabi.ReasonProtocol, "answered %s, which is not grpc", clean(line)).WithFix("run.native.mode: direct")
	}
	if err := n.r.checkVersion(version); err != nil {
		return "", err
	}
	if !reachable(n.dir, f[2], f[3]) {
		return "", n.r.fail(hostabi.ReasonProtocol, "its socket %s is not below %s", clean(f[3]), n.dir)
	}
	return keepFields(f), nil
}

// checkVersion compares the protocol version of the handshake with the one that the mode means: a program of
// protocol 1 gets registry credentials and is never confined, so it is not left to the program which it is.
func (r *run) checkVersion(version int) error {
	switch legacy := r.p.Program.Mode == plugin.Protocol1; {
	case version == 1 && legacy, version == 2 && !legacy:
		return nil
	case version == 1:
		return r.fail(hostabi.ReasonABIUnsupported, "speaks plugin protocol 1 of the original DS; its plugin.yaml says apiVersion: %s", plugin.APIVersion)
	case version == 2:
		return r.fail(hostabi.ReasonABIUnsupported, "speaks ds.plugin.v1, which needs a plugin.yaml with apiVersion: %s and run.native.mode: goplugin", plugin.APIVersion)
	}
	return r.fail(hostabi.ReasonProtocol, "speaks plugin protocol %d, this ds speaks 2", version)
}

// Stdout is where go-plugin reads the handshake line.
func (n *runner) Stdout() io.ReadCloser { return n.line }

// Stderr is empty: the plugin's stderr goes where the user wants it.
func (n *runner) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

// Name is the program's path.
func (n *runner) Name() string { return n.r.p.Program.Path }

// Diagnose has nothing to add: errors are worded here.
func (n *runner) Diagnose(context.Context) string { return "" }

// Wait waits for the process.
func (n *runner) Wait(context.Context) error {
	p := n.process()
	if p == nil {
		return nil
	}
	<-p.done
	return p.result()
}

// Kill ends the process.
func (n *runner) Kill(context.Context) error {
	if p := n.process(); p != nil {
		p.kill()
	}
	return nil
}

// ID is the process id, empty before the start.
func (n *runner) ID() string {
	if p := n.process(); p != nil {
		return strconv.Itoa(p.proc.Pid)
	}
	return ""
}

// PluginToHost is the identity: both live in one file system.
func (n *runner) PluginToHost(network, addr string) (string, string, error) {
	return network, addr, nil
}

// HostToPlugin is the identity.
func (n *runner) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}

func (n *runner) process() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.proc
}

// stop is the process, nil if it was not started; one that starts later is killed.
func (n *runner) stop() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stopping = true
	return n.proc
}

func (n *runner) forward(sig os.Signal) {
	if p := n.process(); p != nil {
		p.forward(sig)
	}
}

func (n *runner) setFailure(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fail == nil {
		n.fail = err
	}
}

func (n *runner) failure() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.fail
}

// wait waits for the goroutines of the process, which has ended or was never started.
func (n *runner) wait() {
	_ = n.put.Close()
	n.tasks.Wait()
}
