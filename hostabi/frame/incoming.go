package frame

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"time"
)

// incoming is the reading side of a Conn. There is no goroutine that reads all the time: a call that waits for its
// reply reads itself, and hands to others what is theirs. So a reply wakes the one goroutine that wants it. While
// streams are open, or the host owes the end of what was given up, there may be frames that no call waits for;
// a goroutine reads them meanwhile, lest the host is stopped by a guest that does not read.
//
// Everything but turn belongs to whoever has put a value into turn.
type incoming struct {
	turn  chan struct{}
	r     *bufio.Reader
	sock  *fdReader // nil if it is no unix socket
	timed interface {
		SetReadDeadline(t time.Time) error
	} // nil if a Read that waits cannot be interrupted: then the goroutine always reads
}

func newIncoming(conn io.ReadWriteCloser) incoming {
	in, sock := newReader(conn, true)
	i := incoming{turn: make(chan struct{}, 1), r: bufio.NewReaderSize(in, readSize), sock: sock}
	if t, ok := conn.(interface{ SetReadDeadline(t time.Time) error }); ok && t.SetReadDeadline(time.Time{}) == nil {
		i.timed = t
	}
	return i
}

// drop closes descriptors that nobody took.
func (i *incoming) drop() {
	if i.sock != nil {
		i.sock.close()
	}
}

// ready waits until something can be read; it reports false if ctx ended first. An error is left to the next read.
func (i *incoming) ready(ctx context.Context) bool {
	if i.r.Buffered() > 0 || i.sock.soon() {
		return true
	}
	if ctx.Done() != nil {
		interrupted := make(chan struct{})
		stop := context.AfterFunc(ctx, func() {
			_ = i.timed.SetReadDeadline(time.Unix(1, 0)) // has passed
			close(interrupted)
		})
		defer func() {
			if !stop() {
				<-interrupted
				_ = i.timed.SetReadDeadline(time.Time{})
			}
		}()
	}
	_, err := i.r.Peek(1)
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// await waits for the answer to a call, and reads if nobody else does; it reports false if ctx ended first.
func (c *Conn) await(ctx context.Context, done <-chan answer) (answer, bool) {
	turn := c.in.turn
	if c.in.timed == nil {
		turn = nil
	}
	for {
		select {
		case a := <-done:
			return a, true
		case <-ctx.Done():
			return answer{}, false
		case turn <- struct{}{}:
			for len(done) == 0 && c.in.ready(ctx) && c.step() == nil {
			}
			<-turn
		}
	}
}

// step reads one frame and gives it to whom it belongs. The caller has the turn.
func (c *Conn) step() error {
	f, err := Decode(c.in.r, nil)
	var file *os.File
	if err == nil && f.Flags&FlagFD != 0 && c.in.sock != nil {
		file = c.in.sock.take()
	}
	if err = c.frame(&f, file, err); err != nil {
		c.rw.Close() // a write that waits ends too
		c.in.drop()
	}
	return err
}

// watch sees to it that frames are read which no call waits for. c.mu is held.
func (c *Conn) watch() {
	if c.watching {
		return
	}
	c.watching = true
	c.wg.Go(func() {
		c.in.turn <- struct{}{}
		defer func() { <-c.in.turn }()
		for c.watched() && c.step() == nil {
		}
	})
}

// watched reports whether there is still something to watch for, else the goroutine ends.
func (c *Conn) watched() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watching = c.err == nil && (c.in.timed == nil || len(c.streams)+len(c.given) > 0)
	return c.watching
}

// readToEnd returns when the connection has ended.
func (c *Conn) readToEnd() {
	select {
	case <-c.over:
	case c.in.turn <- struct{}{}:
		for c.step() == nil {
		}
		<-c.in.turn
	}
}
