package native

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

// grace is how long a process may take to end after TERM (native.md section 3).
const grace = 2 * time.Second

// run is one run of a program: what both modes share.
type run struct {
	b       *Backend
	p       *plugin.Installed
	box     *sandbox.Box
	inv     *plugin.Invocation
	session hostabi.Session
	begin   time.Time

	held    Enforcement // what the kernel holds the program to
	image   image       // what kind of file the program is
	dir     string      // DS_RUN_DIR
	sockDir string      // mode goplugin: the directory of its sockets
}

// fail makes an error about this plugin, "porter 1.4.0: …".
func (r *run) fail(reason hostabi.Reason, format string, a ...any) *hostabi.Error {
	e := hostabi.Errorf(reason, format, a...)
	e.Op = string(r.p.Name)
	if r.p.Version != "" {
		e.Op += " " + r.p.Version
	}
	return e.WithMeta("plugin", string(r.p.Name))
}

// check refuses, before anything is made or started, what cannot run here.
func (r *run) check() error {
	if r.p.Program == nil || r.p.Program.File == nil {
		return r.fail(hostabi.ReasonInternal, "its program was not opened")
	}
	switch r.p.Program.Mode {
	case "", plugin.Direct, plugin.GoPlugin, plugin.Protocol1:
	default:
		return r.fail(hostabi.ReasonManifest, "run.native.mode %q is not direct or goplugin", r.p.Program.Mode)
	}
	if _, attached := r.attached(); attached && !r.served() {
		return r.fail(hostabi.ReasonUsage, "DS_REATTACH is for go-plugin servers; its mode is %s", r.p.Program.Mode)
	}
	held, err := r.enforcement()
	if err != nil {
		return err
	}
	r.held = held
	img, err := sniff(r.p.Program.File)
	if err != nil {
		return r.fail(hostabi.ReasonStartFailed, "%s: %w", r.p.Program.Path, err)
	}
	r.image = img
	return r.checkPlatform()
}

// openDir makes DS_RUN_DIR (host-abi.md section 8) and tells the session.
func (r *run) openDir() error {
	base := os.TempDir()
	if r.b.o.RunDir != nil {
		var err error
		if base, err = r.b.o.RunDir(); err != nil {
			return err
		}
	}
	name := filepath.Join(base, r.inv.ID)
	err := fs.ErrExist
	if r.inv.ID != "" && r.b.o.RunDir != nil {
		err = os.Mkdir(name, 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		name, err = os.MkdirTemp(base, "ds-run-")
	}
	if err != nil {
		return r.fail(hostabi.ReasonNoSpace, "%w", err)
	}
	r.dir = name
	if s, ok := r.session.(runDirUser); ok {
		s.SetRunDir(name, r.held.Confined)
	}
	return nil
}

// removeDir removes DS_RUN_DIR. What the plugin made unwritable is opened up first; what still stays is swept
// with the run directories of dead processes.
func (r *run) removeDir() {
	if err := removeTree(r.dir); err != nil {
		r.b.o.Log.Warn("run directory not removed", "plugin", r.p.Name, "err", err)
	}
}

// removeTree is os.RemoveAll that also gets rid of directories whose owner took his own rights away.
func removeTree(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil {
		return nil
	}
	root, oerr := os.OpenRoot(dir)
	if oerr != nil {
		return err
	}
	_ = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && name != "." && root.Chmod(name, 0o700) != nil {
			return fs.SkipDir
		}
		return nil
	})
	_ = root.Close()
	return os.RemoveAll(dir)
}

// withDeadline ends ctx at the invocation's deadline or the Box's time limit, whichever is earlier. Below a
// wrapper and of a server that was attached to there is none: a person is looking at the program.
func (r *run) withDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, attached := r.attached(); attached || len(r.b.o.Wrap) > 0 {
		return withoutDeadline(ctx)
	}
	deadline := r.inv.Deadline
	if t := r.box.Limits().Time; t > 0 && (deadline.IsZero() || r.begin.Add(t).Before(deadline)) {
		deadline = r.begin.Add(t)
	}
	if deadline.IsZero() {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, deadline)
}

// withoutDeadline ends when ctx is cancelled, not when its deadline passes.
func withoutDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.Canceled) {
			cancel()
		}
	})
	return own, func() { stop(); cancel() }
}

// stopped is the error of a run that ds itself ended because ctx did.
func (r *run) stopped(ctx context.Context) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return r.fail(hostabi.ReasonInterrupted, "interrupted")
	}
	after, limit := time.Since(r.begin), ""
	if d, ok := ctx.Deadline(); ok {
		after = d.Sub(r.begin)
	}
	if t := r.box.Limits().Time; t > 0 && (after-t).Abs() < time.Second {
		after, limit = t, " (limits.time)"
	}
	return r.fail(hostabi.ReasonTimeout, "stopped after %s%s", short(after), limit)
}

// inTime is err, unless the deadline passed in a run that did not end well: a program that learns of the deadline
// by a host call may be faster with its own exit status than ds with stopping it, and than the timer of ctx.
func (r *run) inTime(ctx context.Context, err error) error {
	d, limited := ctx.Deadline()
	if _, ended := err.(*plugin.ExitError); !ended || !limited || time.Now().Before(d) { //nolint:errorlint // a wrapped one is an interrupted run
		return err
	}
	<-ctx.Done()
	return r.stopped(ctx)
}

// short prints a duration in the fewest words: 10m, 1h30m, 2.5s.
func short(d time.Duration) string {
	if d < time.Second {
		return max(d, 0).Round(time.Millisecond).String()
	}
	s := d.Round(100 * time.Millisecond).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// argv is what the program sees as its arguments. go-plugin servers get the user's words in a message.
func (r *run) argv() []string {
	return append([]string{"ds-" + string(r.p.Name)}, r.words()...)
}

// served says that the program is a go-plugin server.
func (r *run) served() bool {
	return r.p.Program.Mode == plugin.GoPlugin || r.p.Program.Mode == plugin.Protocol1
}

func (r *run) words() []string {
	if r.served() {
		return nil
	}
	return r.inv.Args
}

// supervise forwards signals to p until it is reaped, and stops it when ctx ends: TERM, grace, KILL, to the
// process and never to its group, which is also ours and the shell's. The error is nil unless ds stopped it.
func (r *run) supervise(ctx context.Context, p *process) error {
	var err error
	var kill <-chan time.Time
	ended, signals := ctx.Done(), r.inv.Signals
	for {
		select {
		case <-p.done:
			return err
		case <-ended:
			ended = nil
			if p.terminate() == nil {
				err = r.stopped(ctx)
				kill = time.After(grace)
			}
		case <-kill:
			p.kill()
		case sig, ok := <-signals:
			if !ok {
				signals = nil
				continue
			}
			p.forward(sig)
		}
	}
}

// clean makes a stranger's text safe for one line of ours: quoted, cut, without control characters.
func clean(s string) string { return fmt.Sprintf("%q", cut(s)) }

// clip is clean without quotes.
func clip(s string) string { return printable(cut(s)) }

// printable has no control characters, nor anything else that is not seen.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}

func cut(s string) string {
	const most = 120
	s = strings.TrimSpace(strings.ToValidUTF8(s, "\uFFFD"))
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return s
}
