package native

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
)

// A go-plugin stdio stream has no end mark (native.md section 4, step 7). It is over when nothing came while the
// server answered drainPings calls in a row, drainEvery apart: a machine that is too busy to pass the output on is
// too busy to answer, too. A fixed time of silence lost output once in some 800 runs on a loaded machine. What
// still prints after drainMost calls is cut off. SDK servers do not make us wait at all.
const (
	drainPings = 8
	drainEvery = 2500 * time.Microsecond
	drainMost  = 400
	pingMethod = "/grpc.health.v1.Health/Check" // whether a server has it does not matter
	pingTime   = time.Second
)

// talk is one Run of ds.plugin.v1.Plugin.
type talk struct {
	s      *server
	conn   *grpc.ClientConn
	cancel context.CancelFunc
	ctx    context.Context
	done   chan outcome
	tasks  sync.WaitGroup

	interrupts chan struct{}
	stdin      chan []byte   // closed = end of input
	noSend     chan struct{} // closed when nothing can be sent any more
}

type runStream = hostv1.Plugin_RunClient

// start begins the Run. The stream does not end with the run's ctx but with the process: what a stopped plugin
// says while it ends is still shown.
func (s *server) start(ctx context.Context, l *link) conversation {
	t := &talk{
		s: s, conn: l.conn, done: make(chan outcome, 1), interrupts: make(chan struct{}, 1),
		stdin: make(chan []byte), noSend: make(chan struct{}),
	}
	t.ctx, t.cancel = context.WithCancel(context.WithoutCancel(ctx))
	t.tasks.Go(func() {
		stream, err := hostv1.NewPluginClient(l.conn).Run(t.ctx)
		if err != nil {
			close(t.noSend)
			t.done <- outcome{problem: talkProblem(err)}
			return
		}
		t.tasks.Go(func() { t.send(stream, s.r.runStart(l.hostID)) })
		t.tasks.Go(func() { t.headers(stream) })
		t.done <- t.receive(stream)
	})
	return t
}

// runStart is the first message: the words, the way back to the host and the variables of the entry contract.
func (r *run) runStart(hostID uint32) *hostv1.RunRequest {
	e := &environ{at: make(map[string]int)}
	e.add(r.variables())
	vars := make(map[string]string, len(e.list))
	for _, kv := range e.list {
		name, value, _ := strings.Cut(kv, "=")
		vars[name] = value
	}
	return &hostv1.RunRequest{Msg: &hostv1.RunRequest_Start{Start: &hostv1.RunStart{
		Command: r.inv.Command, Args: r.inv.Args, HostBrokerId: hostID, Vars: vars,
	}}}
}

// receive shows what the plugin writes until RunExit, which is the last event.
func (t *talk) receive(stream runStream) outcome {
	for {
		event, err := stream.Recv()
		if err != nil {
			return outcome{problem: talkProblem(err)}
		}
		switch e := event.GetEvent().(type) {
		case *hostv1.RunEvent_Stdout:
			_, _ = t.s.out.Write(e.Stdout)
		case *hostv1.RunEvent_Stderr:
			_, _ = t.s.err.Write(e.Stderr)
		case *hostv1.RunEvent_Exit:
			if md, err := stream.Header(); err != nil || !slices.Contains(md.Get("ds-output"), "complete") {
				t.s.drain(t.ctx, t.conn)
			}
			return outcome{exited: true, code: e.Exit.GetCode()}
		}
	}
}

// drain waits until go-plugin's stdio stream is quiet.
func (s *server) drain(ctx context.Context, conn *grpc.ClientConn) {
	tick := time.NewTicker(drainEvery)
	defer tick.Stop()
	quiet, seen := 0, s.written()
	for n := 0; n < drainMost && quiet < drainPings && !s.silent.Load(); n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !ping(ctx, conn) {
			return
		}
		now := s.written()
		switch {
		case s.out.busy() || s.err.busy(): // a slow reader of ds's output holds us up
			n, quiet = 0, 0
		case now != seen:
			quiet = 0
		default:
			quiet++
		}
		seen = now
	}
}

// ping reports whether the server answers, whatever it says.
func ping(ctx context.Context, conn *grpc.ClientConn) bool {
	ctx, cancel := context.WithTimeout(ctx, pingTime)
	defer cancel()
	err := conn.Invoke(ctx, pingMethod, &emptypb.Empty{}, &emptypb.Empty{})
	switch status.Code(err) {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
		return false
	}
	return true
}

// written counts the writes to both outputs that have begun.
func (s *server) written() int64 { return s.out.writes.Load() + s.err.writes.Load() }

// headers learns whether the plugin reads input, and begins to read ours only then.
func (t *talk) headers(stream runStream) {
	md, err := stream.Header()
	if err != nil {
		return
	}
	switch {
	case slices.Contains(md.Get("ds-stdin"), "want"):
		t.read()
	case slices.Contains(md.Get("ds-output"), "complete"): // it reads the descriptor of DS_STDIO_FDS
		t.s.std.startFeed()
	}
}

// read passes ds's stdin on until it ends.
func (t *talk) read() {
	defer close(t.stdin)
	in := t.s.std.reader(t.s.r.inv.Stdin)
	if in == nil {
		return
	}
	stop := context.AfterFunc(t.ctx, in.interrupt)
	defer stop()
	defer in.close()
	for {
		buf := make([]byte, 32<<10)
		n, err := in.Read(buf)
		if n > 0 {
			select {
			case t.stdin <- buf[:n]:
			case <-t.ctx.Done():
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// send owns the sending side: the start, then input and interrupts. Its errors show in receive.
func (t *talk) send(stream runStream, start *hostv1.RunRequest) {
	defer close(t.noSend)
	err := stream.Send(start)
	for err == nil {
		select {
		case <-t.ctx.Done():
			return
		case <-t.interrupts:
			err = stream.Send(&hostv1.RunRequest{Msg: &hostv1.RunRequest_Signal{Signal: int32(syscall.SIGINT)}})
		case b, ok := <-t.stdin:
			if !ok {
				_ = stream.CloseSend()
				return
			}
			err = stream.Send(&hostv1.RunRequest{Msg: &hostv1.RunRequest_Stdin{Stdin: b}})
		}
	}
}

// interrupt sends SIGINT as a message: stock servers swallow the signal. It reports whether that is possible.
func (t *talk) interrupt() bool {
	select {
	case <-t.noSend:
		return false
	default:
	}
	select {
	case t.interrupts <- struct{}{}:
		return true
	default:
		return false
	}
}

// ended yields the outcome, once.
func (t *talk) ended() <-chan outcome { return t.done }

// stop ends the conversation and waits for its goroutines. The connection is closed.
func (t *talk) stop() {
	t.cancel()
	t.tasks.Wait()
}

// talkProblem words the error of a Run whose process lives on.
func talkProblem(err error) string {
	switch {
	case err == io.EOF, err == nil:
		return "ended its run without a result"
	case status.Code(err) == codes.Unimplemented:
		return "does not serve ds.plugin.v1.Plugin"
	case status.Code(err) == codes.ResourceExhausted:
		return fmt.Sprintf("sent a message over %d bytes, or another limit: %s", hostabi.MaxMessage, clean(status.Convert(err).Message()))
	}
	return "broke its run: " + clean(status.Convert(err).Message())
}
