package native

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// silence is how long an output pipe must be quiet after the end of the process before copying from it ends;
// a child of the plugin may hold it open for ever.
const silence = 500 * time.Millisecond

// leftReads bounds the reads after the end of the process: twice what the largest pipe holds (1 MiB, pipe(7)), so
// that a descendant that prints for ever does not keep ds.
const leftReads = 32

// streams are descriptors 0, 1 and 2 of the child. Files pass through untouched, so that terminals stay
// terminals and nothing is copied; for anything else there is a pipe and a goroutine that copies.
type streams struct {
	child [3]*os.File
	own   []*os.File // opened by us, closed here when the child has them
	feed  *feed      // nil if stdin is a file
	pumps []*pump
	lazy  bool // feed is started by the caller of startFeed, not by started
}

func openStreams(stdin io.Reader, stdout, stderr io.Writer) (*streams, error) {
	s := &streams{}
	if err := s.open(stdin, stdout, stderr); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *streams) open(stdin io.Reader, stdout, stderr io.Writer) (err error) {
	if s.child[0], err = s.input(stdin); err != nil {
		return err
	}
	if s.child[1], err = s.output(stdout); err != nil {
		return err
	}
	if same(stdout, stderr) { // one pipe: the writer is not called from two goroutines
		s.child[2] = s.child[1]
		return nil
	}
	s.child[2], err = s.output(stderr)
	return err
}

func (s *streams) input(r io.Reader) (*os.File, error) {
	switch in := r.(type) {
	case *os.File:
		return in, nil
	case nil:
		return s.keep(os.Open(os.DevNull))
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.feed = &feed{from: r, to: pw, done: make(chan struct{})}
	return s.keep(pr, nil)
}

func (s *streams) output(w io.Writer) (*os.File, error) {
	switch out := w.(type) {
	case *os.File:
		return out, nil
	case nil:
		return s.keep(os.OpenFile(os.DevNull, os.O_WRONLY, 0))
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.pumps = append(s.pumps, newPump(pr, w))
	return s.keep(pw, nil)
}

func (s *streams) keep(f *os.File, err error) (*os.File, error) {
	if err == nil {
		s.own = append(s.own, f)
	}
	return f, err
}

// started closes the child's ends in this process and starts copying.
func (s *streams) started() {
	s.closeOwn()
	if !s.lazy {
		s.startFeed()
	}
	for _, p := range s.pumps {
		p.start()
	}
}

// startFeed begins to read stdin; it does nothing if stdin is a file.
func (s *streams) startFeed() {
	if s.feed != nil {
		s.feed.start()
	}
}

// finish ends copying after the process has ended: what is in the pipes still arrives.
func (s *streams) finish() {
	for _, p := range s.pumps {
		p.exited()
	}
	if s.feed != nil {
		s.feed.stop()
	}
	for _, p := range s.pumps {
		p.wait()
	}
}

// err is the first error of a writer that is an *hostabi.Error, QUOTA of a bounded buffer for example. Others
// reached the plugin as a closed pipe.
func (s *streams) err() error {
	for _, p := range s.pumps {
		if e, ok := errors.AsType[*hostabi.Error](p.err); ok {
			return e
		}
	}
	return nil
}

func (s *streams) closeOwn() {
	for _, f := range s.own {
		_ = f.Close()
	}
	s.own = nil
}

// close releases everything; after finish there is nothing left to release.
func (s *streams) close() {
	s.closeOwn()
	if s.feed != nil {
		s.feed.stop()
	}
	for _, p := range s.pumps {
		_ = p.from.Close()
	}
}

// same reports whether a and b are one writer; uncomparable dynamic types are not.
func same(a, b io.Writer) (yes bool) {
	defer func() { _ = recover() }()
	return a != nil && a == b
}

// feed copies a reader into the child's stdin.
type feed struct {
	from    io.Reader
	to      *os.File
	running bool
	done    chan struct{}
}

func (f *feed) start() {
	if f.running {
		return
	}
	f.running = true
	go func() {
		defer close(f.done)
		_, _ = io.Copy(f.to, f.from) // EPIPE: the plugin does not read; a reader's error: the end
		_ = f.to.Close()
	}()
}

// stop ends the copying. A reader that cannot be closed may keep its goroutine until its Read returns.
func (f *feed) stop() {
	_ = f.to.Close()
	if !f.running {
		return
	}
	c, ok := f.from.(io.Closer)
	if ok {
		_ = c.Close()
		<-f.done
		return
	}
	select {
	case <-f.done:
	case <-time.After(silence):
	}
}

// pump copies an output pipe of the child to a writer, at the writer's speed.
type pump struct {
	from *os.File
	to   io.Writer
	over atomic.Bool // the process has ended
	live bool
	done chan struct{}
	err  error // of the writer; read after wait
}

func newPump(from *os.File, to io.Writer) *pump {
	return &pump{from: from, to: to, done: make(chan struct{})}
}

func (p *pump) start() {
	p.live = true
	go func() {
		defer close(p.done)
		p.copy()
		_ = p.from.Close() // a writer that fails closes the pipe: the plugin gets EPIPE, as with raw exec
	}()
}

func (p *pump) copy() {
	buf := make([]byte, 64<<10)
	armed := false
	for left := leftReads; left > 0; {
		if p.over.Load() {
			armed = true
			left--
			_ = p.from.SetReadDeadline(time.Now().Add(silence))
		}
		n, err := p.from.Read(buf)
		if n > 0 {
			if _, p.err = p.to.Write(buf[:n]); p.err != nil {
				return
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && !armed {
			continue // the deadline came from exited, perhaps long ago; there may be bytes
		}
		if err != nil {
			return
		}
	}
}

// exited tells that the process has ended: from now on silence ends the copying.
func (p *pump) exited() {
	p.over.Store(true)
	_ = p.from.SetReadDeadline(time.Now().Add(silence))
}

func (p *pump) wait() {
	if p.live {
		<-p.done
	}
}
