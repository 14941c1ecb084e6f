package wasm

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/sys"

	"github.com/delivery-station/ds/plugin"
)

// Of the three streams of a guest, a terminal is an *os.File, for which alone the engine says isatty;
// everything else is one of the readers and writers below. All can be interrupted: a terminal or pipe was
// opened anew, non-blocking, so that deadlines work and the flags of the shell's descriptor stay; what
// cannot be opened anew is read and written by goroutines.

// abandonAfter is how long the end of a run waits for an output stream that nobody takes.
const abandonAfter = time.Second

// pumpSize bounds what goes through a goroutine at once.
const pumpSize = 64 << 10

// longAgo is a deadline that interrupts at once.
var longAgo = time.Unix(1, 0)

// stdio is the streams of one run. A nil stream is empty or discards.
type stdio struct {
	in      io.Reader
	out     io.Writer
	err     io.Writer
	closers []func()
}

func openStdio(inv *plugin.Invocation, stop *stopper) *stdio {
	s := &stdio{}
	s.in = s.reader(inv.Stdin, stop)
	s.out = s.writer(inv.Stdout, stop)
	s.err = s.writer(inv.Stderr, stop)
	return s
}

func (s *stdio) close() {
	for _, f := range s.closers {
		f()
	}
	s.closers = nil
}

func (s *stdio) reader(r io.Reader, stop *stopper) io.Reader {
	if r == nil {
		return nil
	}
	f, ok := r.(*os.File)
	if !ok {
		return &pumpReader{r: r, stop: stop}
	}
	if ready(f) {
		return &plainReader{f}
	}
	tty := isTerminal(f)
	if n := reopen(f, os.O_RDONLY, tty); n != nil {
		s.interruptible(stop.wait, n, stop, n.SetReadDeadline)
		if tty {
			return n
		}
		return &fileReader{f: n, stop: stop}
	}
	d := duplicate(f)
	s.closers = append(s.closers, func() { closeCopy(d, f) })
	return &pumpReader{r: d, stop: stop}
}

func (s *stdio) writer(w io.Writer, stop *stopper) io.Writer {
	if w == nil {
		return nil
	}
	f, ok := w.(*os.File)
	if !ok {
		return s.pump(w, stop)
	}
	if ready(f) {
		return &fileWriter{f: f, stop: stop}
	}
	tty := isTerminal(f)
	if n := reopen(f, os.O_WRONLY, tty); n != nil {
		s.interruptible(stop.guest, n, stop, n.SetWriteDeadline)
		if tty {
			return n
		}
		return &fileWriter{f: n, stop: stop}
	}
	d := duplicate(f) // a failed write to descriptor 1 or 2 itself would end ds
	s.closers = append(s.closers, func() { closeCopy(d, f) })
	return s.pump(d, stop)
}

// interruptible lets the end of ctx end what blocks on f, and closes f with the streams.
func (s *stdio) interruptible(ctx context.Context, f *os.File, stop *stopper, deadline func(time.Time) error) {
	cancel := context.AfterFunc(ctx, func() {
		stop.late()           // before the guest can end because of it
		_ = deadline(longAgo) // f is pollable, see reopen
	})
	s.closers = append(s.closers, func() {
		cancel()
		_ = f.Close() // nothing is buffered
	})
}

func (s *stdio) pump(w io.Writer, stop *stopper) io.Writer {
	p := &pumpWriter{w: w, stop: stop}
	s.closers = append(s.closers, p.close)
	return p
}

func closeCopy(d, original *os.File) {
	if d != original {
		_ = d.Close() // nothing is buffered; a read that blocks keeps the descriptor until it ends
	}
}

// plainReader hides that a regular file is one: stdin has no position that a guest could set.
type plainReader struct{ f *os.File }

func (r *plainReader) Read(p []byte) (int, error) { return r.f.Read(p) }

// fileReader reads a pipe. It never takes more than the guest asked for, so that the next program of the
// shell's pipeline keeps its input; poll reads one byte ahead.
type fileReader struct {
	f     *os.File
	stop  *stopper
	ahead []byte
	eof   bool
	one   [1]byte
}

func (r *fileReader) Read(p []byte) (int, error) {
	if len(r.ahead) > 0 && len(p) > 0 {
		n := copy(p, r.ahead)
		r.ahead = r.ahead[n:]
		return n, nil
	}
	if r.eof {
		return 0, io.EOF
	}
	n, err := r.f.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return n, r.stop.interrupted()
	}
	r.eof = errors.Is(err, io.EOF)
	return n, err
}

// Poll implements the engine's Pollable: it reports whether a Read returns at once.
func (r *fileReader) Poll(flag experimentalsys.Pflag, timeoutMillis int32) (bool, experimentalsys.Errno) {
	if flag != experimentalsys.POLLIN {
		return false, experimentalsys.ENOTSUP
	}
	if len(r.ahead) > 0 || r.eof {
		return true, 0
	}
	if timeoutMillis >= 0 {
		_ = r.f.SetReadDeadline(time.Now().Add(time.Duration(timeoutMillis) * time.Millisecond)) // pollable, see reopen
		defer func() {
			_ = r.f.SetReadDeadline(time.Time{})
			if r.stop.wait.Err() != nil {
				_ = r.f.SetReadDeadline(longAgo)
			}
		}()
	}
	n, err := r.f.Read(r.one[:])
	switch {
	case n > 0:
		r.ahead = r.one[:n]
	case errors.Is(err, os.ErrDeadlineExceeded):
		r.stop.check()
		return false, 0
	default:
		r.eof = true // errors too: the next Read is not going to wait
	}
	return true, 0
}

// fileWriter writes to a file or pipe without a buffer.
type fileWriter struct {
	f    *os.File
	stop *stopper
}

func (w *fileWriter) Write(p []byte) (int, error) {
	if len(p) == 0 { // one write may have millions of such pieces
		w.stop.check()
		return 0, nil
	}
	n, err := w.f.Write(p)
	if err == nil {
		return n, nil
	}
	return n, w.stop.writeError(err)
}

// result is one read or write of a pump.
type result struct {
	n   int
	err error
}

// pumpReader reads in a goroutine, because the source cannot be interrupted. A read that blocks when the run
// ends goes on until the source answers; its byte is lost.
type pumpReader struct {
	r       io.Reader
	stop    *stopper
	buf     []byte
	done    chan result
	reading bool
	ahead   []byte
	end     error
}

func (r *pumpReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.ahead) == 0 && r.end == nil {
		r.start(len(p))
		select {
		case res := <-r.done:
			r.finish(res)
		case <-r.stop.wait.Done():
			return 0, r.stop.interrupted()
		}
	}
	if len(r.ahead) == 0 {
		return 0, r.end
	}
	n := copy(p, r.ahead)
	r.ahead = r.ahead[n:]
	return n, nil
}

// Poll implements the engine's Pollable.
func (r *pumpReader) Poll(flag experimentalsys.Pflag, timeoutMillis int32) (bool, experimentalsys.Errno) {
	if flag != experimentalsys.POLLIN {
		return false, experimentalsys.ENOTSUP
	}
	if len(r.ahead) > 0 || r.end != nil {
		return true, 0
	}
	r.start(1)
	var over <-chan time.Time
	if timeoutMillis >= 0 {
		t := time.NewTimer(time.Duration(timeoutMillis) * time.Millisecond)
		defer t.Stop()
		over = t.C
	}
	select {
	case res := <-r.done:
		r.finish(res)
		return true, 0
	case <-over:
		return false, 0
	case <-r.stop.wait.Done():
		r.stop.check()
		return false, 0
	}
}

// start reads up to n bytes, unless a read is under way.
func (r *pumpReader) start(n int) {
	if r.reading {
		return
	}
	n = min(n, pumpSize)
	if len(r.buf) < n {
		r.buf = make([]byte, n)
	}
	if r.done == nil {
		r.done = make(chan result, 1)
	}
	r.reading = true
	go func(src io.Reader, b []byte, done chan<- result) {
		n, err := src.Read(b)
		done <- result{n, err}
	}(r.r, r.buf[:n], r.done)
}

func (r *pumpReader) finish(res result) {
	r.reading = false
	r.ahead, r.end = r.buf[:res.n], res.err
}

// pumpWriter writes in a goroutine, because the sink cannot be interrupted, and from a copy, because the
// guest's memory is gone when the sink comes back late.
type pumpWriter struct {
	w       io.Writer
	stop    *stopper
	buf     []byte
	done    chan result
	writing bool
}

func (w *pumpWriter) Write(p []byte) (n int, err error) {
	if len(p) == 0 { // one write may have millions of such pieces
		w.stop.check()
		return 0, nil
	}
	if w.done == nil {
		w.done, w.buf = make(chan result, 1), make([]byte, min(len(p), pumpSize))
	}
	for n < len(p) {
		if w.writing { // the run is over
			return n, syscall.EIO
		}
		if want := min(len(p), pumpSize); len(w.buf) < want {
			w.buf = make([]byte, want)
		}
		b := w.buf[:copy(w.buf, p[n:])]
		w.writing = true
		go func() {
			n, err := w.w.Write(b)
			w.done <- result{n, err}
		}()
		select {
		case res := <-w.done:
			w.writing = false
			n += res.n
			if res.err == nil && res.n < len(b) {
				res.err = io.ErrShortWrite
			}
			if res.err != nil {
				return n, w.stop.writeError(res.err)
			}
		case <-w.stop.guest.Done():
			return n, w.stop.interrupted()
		}
	}
	return n, nil
}

// close waits a moment for the last write.
func (w *pumpWriter) close() {
	if !w.writing {
		return
	}
	t := time.NewTimer(abandonAfter)
	defer t.Stop()
	select {
	case <-w.done:
		w.writing = false
	case <-t.C:
	}
}

// interrupted is what a guest sees of a wait that was cut short by a signal; after a deadline it sees nothing.
func (s *stopper) interrupted() error {
	s.check()
	return syscall.EIO
}

// writeError ends the guest if the reader of its output is gone, as SIGPIPE ends a native program.
func (s *stopper) writeError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return s.interrupted()
	}
	if !brokenPipe(err) && !errors.Is(err, io.ErrClosedPipe) {
		return err
	}
	s.note(reason{pipe: true})
	panic(sys.NewExitError(exitPipe))
}
