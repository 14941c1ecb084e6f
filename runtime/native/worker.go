package native

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// WorkerLimits bounds one worker. Zero fields do not limit.
type WorkerLimits struct {
	Wall, CPU time.Duration
	Memory    int64  // bytes of data
	Dir       string // the only directory that it may read and write, where the kernel can confine it
}

// Worker runs this executable once more with argv (without the program name), an empty environment, stdin and
// the working directory /, within l, and returns what it printed. Where the kernel can, it is confined: no file but
// those of l.Dir and the system's libraries, no socket, no other program. A worker that l or ctx ends is TOO_LARGE
// or INTERRUPTED; another that fails is INTERNAL with *plugin.ExitError as its cause and its first line of error
// text as the message.
func (b *Backend) Worker(ctx context.Context, argv []string, stdin io.Reader, l WorkerLimits) (stdout []byte, err error) {
	out, text := &bounded{left: hostabi.MaxOutput}, &bounded{left: 64 << 10, cut: true}
	std, err := openStreams(stdin, out, text)
	if err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonInternal, "worker: %w", err)
	}
	defer std.close()
	path, err := self()
	if err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonInternal, "worker: %w", err)
	}
	c := command{path: path, argv: append([]string{"ds"}, argv...), dir: "/", env: []string{}, files: std.child[:]}
	d, err := b.confineWorker(l.Dir)
	if err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonSandboxRequired, "worker: %w", err)
	}
	if d != nil {
		defer d.close()
		c.enter = d.enter
	}
	p, err := launch(c)
	if err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonStartFailed, "worker: %w", err)
	}
	limited := limitWorker(p.proc.Pid, uint64((l.CPU+time.Second-1)/time.Second), uint64(max(l.Memory, 0)))
	std.started()
	ended := p.waitWorker(ctx, l.Wall)
	if ended != nil && ctx.Err() != nil {
		ended = ctx.Err() // not ours
	} else if ended != nil {
		ended = errWall
	}
	std.finish()
	if err := std.err(); err != nil {
		return nil, err
	}
	return out.Bytes(), workerError(p, l, ended, limited, text.String())
}

var errWall = errors.New("out of time")

// waitWorker waits for the end of the worker and kills it at the end of ctx or wall, whose error it returns.
func (p *process) waitWorker(ctx context.Context, wall time.Duration) error {
	if wall > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, wall)
		defer cancel()
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		p.kill()
		<-p.done
		return ctx.Err()
	}
}

func workerError(p *process, l WorkerLimits, ended, limited error, text string) error {
	exit := p.result()
	_, signal := exitStatus(p.state)
	switch {
	case errors.Is(ended, context.Canceled):
		return hostabi.Errorf(hostabi.ReasonInterrupted, "worker: interrupted")
	case errors.Is(ended, context.DeadlineExceeded):
		return hostabi.Errorf(hostabi.ReasonTimeout, "worker: stopped at the deadline")
	case ended != nil, signal != 0, exit != nil && outOfMemory(p, l.Memory, text):
		return hostabi.Errorf(hostabi.ReasonTooLarge, "worker: needs more than it may use")
	case exit != nil:
		first, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
		return hostabi.Errorf(hostabi.ReasonInternal, "worker: %s: %w", clean(first), exit)
	case limited != nil && !errors.Is(limited, errNoProcess):
		return hostabi.Errorf(hostabi.ReasonInternal, "worker: limits: %w", limited)
	}
	return nil
}

// outOfMemory recognises a Go program at its data limit: by its last words, or, since the runtime may also
// fault there, by a crash while it used most of what it may.
func outOfMemory(p *process, limit int64, text string) bool {
	if strings.Contains(text, "out of memory") || strings.Contains(text, "cannot allocate memory") {
		return true
	}
	const crash = 2 // exit status of the Go runtime
	code, _ := exitStatus(p.state)
	return code == crash && limit > 0 && maxMemory(p.state) > limit/2
}

// bounded is a buffer that takes no more than left bytes: beyond them it cuts or fails with QUOTA.
type bounded struct {
	bytes.Buffer
	left int
	cut  bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > b.left && !b.cut {
		return 0, hostabi.Errorf(hostabi.ReasonQuota, "worker: printed too much")
	}
	n := min(len(p), b.left)
	b.left -= n
	b.Buffer.Write(p[:n])
	return len(p), nil
}
