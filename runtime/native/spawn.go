package native

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// process is a started program. Its state is set when done is closed.
type process struct {
	proc  *os.Process
	done  chan struct{}
	state *os.ProcessState
}

// command is what is executed: path with argv, files as descriptors 0, 1, 2 …
type command struct {
	path  string
	argv  []string
	dir   string
	env   []string
	files []*os.File
	// enter restricts the thread that starts the program, and with it the program; nil = not confined.
	enter func() error
}

// confineError says that the kernel did not take the limits of a program, which was not started.
type confineError struct{ error }

func (e *confineError) Unwrap() error { return e.error }

// launch starts c from an OS thread of its own, which then waits for the process and so lives as long as it:
// PDEATHSIG fires at the death of the forking thread, not of the process. A thread that was restricted is not
// used for anything else: it ends with the process.
func launch(c command) (*process, error) {
	undumpable()
	p, started := &process{done: make(chan struct{})}, make(chan error, 1)
	onThread(func() {
		if c.enter != nil {
			if err := c.enter(); err != nil {
				started <- &confineError{err}
				return
			}
		}
		proc, err := os.StartProcess(c.path, c.argv, &os.ProcAttr{Dir: c.dir, Env: c.env, Files: c.files, Sys: procAttr()})
		p.proc = proc
		started <- err
		if err != nil {
			return
		}
		p.state, _ = proc.Wait() // nil state: the process could not be waited for
		close(p.done)
	}, c.enter != nil)
	return p, <-started
}

// onThread runs f on an OS thread that runs nothing else meanwhile, and never again if f spoils it. The main
// thread is not spoiled: /proc and signals judge ds by it.
func onThread(f func(), spoils bool) {
	go func() {
		runtime.LockOSThread()
		if !spoils {
			defer runtime.UnlockOSThread()
		} else if mainThread() {
			locked := make(chan struct{})
			onThread(func() { close(locked); f() }, true) // gets another thread, since this one is taken
			<-locked
			runtime.UnlockOSThread()
			return
		}
		f() // a goroutine that ends while it is locked takes its thread along
	}()
}

// start executes the program with the invocation's arguments and verifies afterwards that what runs is what
// was verified before (native.md section 6).
func (r *run) start(ctx context.Context, files []*os.File, env []string) (*process, error) {
	c := command{argv: r.argv(), dir: r.inv.Dir, env: env, files: files}
	before, err := stampOf(r.p.Program.File)
	if err != nil {
		return nil, r.fail(hostabi.ReasonStartFailed, "%s: %w", r.p.Program.Path, err)
	}
	path, held, err := executable(r.p.Program, r.image, files)
	if err != nil {
		return nil, r.fail(hostabi.ReasonStartFailed, "%s: %w", r.p.Program.Path, err)
	}
	defer held.Close()
	c.path = path
	if len(r.b.o.Wrap) > 0 {
		if err := r.wrap(&c); err != nil {
			return nil, err
		}
	}
	if r.held.Confined {
		d, err := r.confine(files[:min(3, len(files))])
		if err != nil {
			return nil, err
		}
		defer d.close()
		c.enter = d.enter
	}
	byPath := c.path == r.p.Program.Path || len(r.b.o.Wrap) > 0
	p, err := r.retry(ctx, c)
	if errors.Is(err, os.ErrPermission) && r.held.Confined { // a file put there since has no rule
		if err := r.verify(before, byPath); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, r.startError(err)
	}
	if err := r.limit(p); err != nil {
		p.kill()
		<-p.done
		return nil, err
	}
	if err := r.verify(before, byPath); err != nil {
		p.kill()
		<-p.done
		return nil, err
	}
	return p, nil
}

// limit bounds the process from outside; its first microseconds are not.
func (r *run) limit(p *process) error {
	limitCore(p.proc.Pid)
	if !r.held.Confined {
		return nil
	}
	if err := limitData(p.proc.Pid, r.box.Limits().Memory); err != nil {
		return r.fail(hostabi.ReasonSandboxRequired, "the kernel refuses a memory limit: %w", err)
	}
	return nil
}

// retry launches c, up to five times in 100 ms while the program is open for writing somewhere: a fork of an
// installer may still hold the descriptor.
func (r *run) retry(ctx context.Context, c command) (*process, error) {
	for tries := 1; ; tries++ {
		p, err := launch(c)
		if !errors.Is(err, errTextBusy) || tries == 5 {
			return p, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// wrap puts the words of a debugger or tracer before the program's path (native.md section 11).
func (r *run) wrap(c *command) error {
	words := r.b.o.Wrap
	path, err := exec.LookPath(words[0])
	if err != nil {
		return r.fail(hostabi.ReasonStartFailed, "wrapper %w", err)
	}
	c.path = path
	c.argv = append(append(append([]string(nil), words...), r.p.Program.Path), r.words()...)
	if r.inv.Stderr != nil {
		_, _ = fmt.Fprintf(r.inv.Stderr, "note: %s runs below %s: not confined, no deadline\n", r.p.Name, words[0])
	}
	return nil
}

// verify compares the program's stamp after the start with the one before; byPath the file at the path must
// still be the same one, too.
func (r *run) verify(before stamp, byPath bool) error {
	after, err := stampOf(r.p.Program.File)
	if err == nil && after == before && byPath {
		after, err = stampAt(r.p.Program.Path)
		if errors.Is(err, os.ErrNotExist) {
			return r.modified("its program was removed")
		}
	}
	if err != nil || after != before {
		return r.modified("was changed since install")
	}
	return nil
}

func (r *run) modified(text string) error {
	return r.fail(hostabi.ReasonPluginModified, "%s", text).WithFix("ds plugin install %s --force", r.p.Name)
}

// result translates how the process ended.
func (p *process) result() error {
	code, signal := exitStatus(p.state)
	if code == 0 && signal == 0 {
		return nil
	}
	return &plugin.ExitError{Code: code, Signal: signal}
}

// kill ends the process for certain.
func (p *process) kill() { _ = p.proc.Kill() }

// forward passes a signal on that was sent to ds.
func (p *process) forward(sig os.Signal) {
	if s, ok := sig.(syscall.Signal); ok && forwards(s) {
		_ = p.proc.Signal(s)
	}
}
