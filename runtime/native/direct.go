package native

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/frame"
)

// lastFrames is how long after the end of the process frames that it left in the socket are still answered.
// Its own end of the socket is closed then; only a child that inherited it makes us wait at all.
const lastFrames = 20 * time.Millisecond

// direct runs the program with its streams inherited and frames on DS_HOST_FD (native.md section 3).
func (r *run) direct(ctx context.Context) error {
	std, err := openStreams(r.inv.Stdin, r.inv.Stdout, r.inv.Stderr)
	if err != nil {
		return r.fail(hostabi.ReasonStartFailed, "%w", err)
	}
	defer std.close()
	line, err := openLines()
	if err != nil {
		return r.fail(hostabi.ReasonStartFailed, "%w", err)
	}
	defer line.close()

	env := r.environment(line.variables(len(std.child))...)
	p, err := r.start(ctx, append(std.child[:], line.child...), env)
	if err != nil {
		return err
	}
	std.started()
	line.started()
	stop := line.serve(ctx, r.session, r.wireTrace())

	stopped := r.supervise(ctx, p)
	std.finish()
	r.callsEnded(stop())
	if stopped != nil {
		return stopped
	}
	if err := std.err(); err != nil {
		return err
	}
	return p.result()
}

// callsEnded notes why host calls ended; one mistake of an author is common enough to be told.
func (r *run) callsEnded(err error) {
	if errors.Is(err, frame.ErrPreface) && r.inv.Stderr != nil {
		_, _ = fmt.Fprintln(r.inv.Stderr, "DS_HOST_FD speaks ds frames; for gRPC set run.native.mode: goplugin")
	}
	if err != nil {
		r.b.o.Log.Debug("host calls ended", "plugin", r.p.Name, "err", err)
	}
}

// lines are the two descriptors beside the streams: the socket for host calls, and the lifeline, a pipe on
// which nothing is ever written and whose end tells the plugin that ds is gone.
type lines struct {
	host, lifeline *os.File // our ends
	child          []*os.File
}

func openLines() (*lines, error) {
	l := &lines{}
	if !inheritsFiles {
		return l, nil
	}
	host, guest, err := socketpair()
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pipe: %w", err), host.Close(), guest.Close())
	}
	l.host, l.lifeline, l.child = host, w, []*os.File{guest, r}
	return l, nil
}

// wireTrace says each frame on stderr, if that is wanted.
func (r *run) wireTrace() func(line string) {
	if !r.b.o.Wire {
		return nil
	}
	var mu sync.Mutex
	return func(line string) {
		mu.Lock()
		defer mu.Unlock()
		r.say("wire: %s %s", r.p.Name, line)
	}
}

// variables name the descriptors, which begin at number first in the child.
func (l *lines) variables(first int) []string {
	if len(l.child) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("DS_HOST_FD=%d", first), fmt.Sprintf("DS_CTL_FD=%d", first+1)}
}

// started closes the child's ends in this process.
func (l *lines) started() {
	for _, f := range l.child {
		_ = f.Close()
	}
	l.child = nil
}

// serve answers host calls until the function it returns is called, which waits for it. Calls do not end with
// ctx: a plugin that was told to stop may still use the host while it does.
func (l *lines) serve(ctx context.Context, s hostabi.Session, trace func(string)) (stop func() error) {
	if l.host == nil {
		return func() error { return nil }
	}
	conn := l.host
	l.host = nil // closed by frame.Serve
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- frame.ServeTraced(ctx, conn, s, trace) }()
	return func() error {
		defer cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(lastFrames):
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	}
}

func (l *lines) close() {
	l.started()
	for _, f := range []*os.File{l.host, l.lifeline} {
		if f != nil {
			_ = f.Close()
		}
	}
}
