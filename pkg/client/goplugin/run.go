package goplugin

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/pkg/client"
)

// Headers of the response of Run (host-abi.md section 9).
const (
	headerOutput = "ds-output" // complete: nothing comes by go-plugin's stdio stream
	headerStdin  = "ds-stdin"  // want: only now ds reads its standard input
)

// hold is how long output waits for a read of standard input, which the header in front of it has to say.
// Programs that prompt read at once.
const hold = 20 * time.Millisecond

// lateOutput is how long the end of output is waited for.
const lateOutput = 500 * time.Millisecond

// Run implements hostv1.PluginServer. A process runs once: its standard streams become those of the run.
func (p *served) Run(rpc grpc.BidiStreamingServer[hostv1.RunRequest, hostv1.RunEvent]) error {
	first, err := rpc.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return status.Error(codes.InvalidArgument, "the first message is no RunStart")
	}
	if !p.ran.CompareAndSwap(false, true) {
		return status.Error(codes.FailedPrecondition, "this process has run already")
	}
	for name, value := range start.GetVars() {
		if err := os.Setenv(name, value); err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
	}
	ctx, cancel := context.WithCancelCause(rpc.Context())
	defer cancel(nil)
	defer context.AfterFunc(p.ctx, func() { cancel(context.Cause(p.ctx)) })()
	r := &run{rpc: rpc, cancel: cancel}
	std, finish, err := r.streams()
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	go r.receive()
	s := newSession(func() (*grpc.ClientConn, error) {
		return p.broker.DialWithOptions(start.GetHostBrokerId(), grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(hostabi.MaxMessage), grpc.MaxCallSendMsgSize(2*hostabi.MaxMessage))) // too much is the host's to refuse
	})
	code := p.app.Run(ctx, std, s, start.GetArgs()...)
	if r.input != nil {
		r.input.end() // frees the receiver
	}
	err = errors.Join(s.Close(), finish())
	if serr := r.send(&hostv1.RunEvent{Event: &hostv1.RunEvent_Exit{Exit: &hostv1.RunExit{Code: int32(code)}}}); serr != nil {
		return serr
	}
	if err != nil && code == 0 {
		return status.Error(codes.Internal, err.Error())
	}
	return nil
}

// run is one Run in progress.
type run struct {
	rpc    grpc.BidiStreamingServer[hostv1.RunRequest, hostv1.RunEvent]
	cancel context.CancelCauseFunc

	mu   sync.Mutex // of sending
	sent bool       // the header

	input *input // nil when the real streams are there
}

// signalled is the cause of a context that RunRequest.signal has cancelled.
type signalled int

func (s signalled) Error() string { return "signal " + strconv.Itoa(int(s)) }

// Signal is the number; client.App exits with 128 more.
func (s signalled) Signal() int { return int(s) }

// receive takes standard input and signals until the host half-closes or is gone.
func (r *run) receive() {
	for {
		m, err := r.rpc.Recv()
		if err != nil {
			if r.input != nil {
				r.input.end()
			}
			return
		}
		switch m := m.GetMsg().(type) {
		case *hostv1.RunRequest_Signal:
			r.cancel(signalled(m.Signal))
		case *hostv1.RunRequest_Stdin:
			if r.input != nil {
				r.input.put(m.Stdin)
			}
		}
	}
}

// streams makes the standard streams of the run: the real ones of DS_STDIO_FDS, or messages. finish ends
// them after the last write.
func (r *run) streams() (std client.Stdio, finish func() error, err error) {
	passed, err := realStreams(os.Getenv("DS_STDIO_FDS"))
	if err != nil {
		return std, nil, err
	}
	if passed {
		os.Stdin, os.Stdout, os.Stderr = os.NewFile(0, "stdin"), os.NewFile(1, "stdout"), os.NewFile(2, "stderr")
		err := r.header(metadata.Pairs(headerOutput, "complete"))
		return client.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, func() error { return nil }, err
	}
	r.input = newInput(r.want)
	out, closeOut, err := r.output(func(b []byte) *hostv1.RunEvent {
		return &hostv1.RunEvent{Event: &hostv1.RunEvent_Stdout{Stdout: b}}
	})
	if err != nil {
		return std, nil, err
	}
	errs, closeErr, err := r.output(func(b []byte) *hostv1.RunEvent {
		return &hostv1.RunEvent{Event: &hostv1.RunEvent_Stderr{Stderr: b}}
	})
	if err != nil {
		return std, nil, errors.Join(err, closeOut())
	}
	os.Stdout, os.Stderr = out, errs // what writes there without asking is output too
	return client.Stdio{In: r.input, Out: out, Err: errs}, func() error { return errors.Join(closeOut(), closeErr()) }, nil
}

// output is a pipe whose bytes become events; done waits for the last one.
func (r *run) output(event func([]byte) *hostv1.RunEvent) (w *os.File, done func() error, err error) {
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	ended := make(chan error, 1)
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := pr.Read(buf)
			if n > 0 {
				r.settle()
				if serr := r.send(event(buf[:n])); serr != nil {
					err = serr
				}
			}
			if err != nil {
				pr.Close() // a writer that goes on gets EPIPE
				if err == io.EOF {
					err = nil
				}
				ended <- err
				return
			}
		}
	}()
	return pw, func() error {
		if err := pw.Close(); err != nil {
			return err
		}
		timer := time.NewTimer(lateOutput)
		defer timer.Stop()
		select {
		case err := <-ended:
			return err
		case <-timer.C: // a program that was left running holds the other end
			return nil
		}
	}, nil
}

// settle gives a program that has just written a prompt the time to read, so that the header can say so.
func (r *run) settle() {
	r.mu.Lock()
	sent := r.sent
	r.mu.Unlock()
	if sent {
		return
	}
	timer := time.NewTimer(hold)
	defer timer.Stop()
	select {
	case <-r.input.asked:
	case <-timer.C:
	case <-r.rpc.Context().Done():
	}
	_ = r.header(metadata.Pairs(headerOutput, "complete"))
}

// want tells the host to send its standard input. It reports false when the header has gone out without it.
func (r *run) want() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sent {
		return false
	}
	r.sent = true
	return r.rpc.SendHeader(metadata.Pairs(headerOutput, "complete", headerStdin, "want")) == nil
}

// header sends md unless a header was sent.
func (r *run) header(md metadata.MD) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sent {
		return nil
	}
	r.sent = true
	return r.rpc.SendHeader(md)
}

func (r *run) send(e *hostv1.RunEvent) error {
	if err := r.header(metadata.Pairs(headerOutput, "complete")); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rpc.Send(e)
}

// input is standard input that comes in messages, asked for at the first Read.
type input struct {
	want  func() bool
	once  sync.Once
	asked chan struct{} // closed at the first Read

	mu     sync.Mutex
	change sync.Cond // of what follows
	queue  [][]byte
	size   int
	ended  bool
}

// maxInput is what is queued before the host has to wait: bytes.
const maxInput = 1 << 20

func newInput(want func() bool) *input {
	in := &input{want: want, asked: make(chan struct{})}
	in.change.L = &in.mu
	return in
}

// Read implements io.Reader.
func (in *input) Read(p []byte) (int, error) {
	in.once.Do(func() {
		if !in.want() {
			in.end()
		}
		close(in.asked)
	})
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.queue) == 0 {
		if in.ended {
			return 0, io.EOF
		}
		in.change.Wait()
	}
	n := copy(p, in.queue[0])
	if in.queue[0] = in.queue[0][n:]; len(in.queue[0]) == 0 {
		in.queue = in.queue[1:]
	}
	in.size -= n
	in.change.Broadcast()
	return n, nil
}

// put waits while much is queued: the host then waits for a program that reads slowly.
func (in *input) put(b []byte) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for in.size >= maxInput && !in.ended {
		in.change.Wait()
	}
	if len(b) > 0 && !in.ended {
		in.queue = append(in.queue, b)
		in.size += len(b)
		in.change.Broadcast()
	}
}

// end is the end of input, or of the run.
func (in *input) end() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.ended = true
	in.change.Broadcast()
}
