package frame

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// keepBuffer is the largest buffer that is kept for reuse.
const keepBuffer = 256 << 10

// buffers holds *[]byte of any length up to keepBuffer.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

func getBuffer() *[]byte { return buffers.Get().(*[]byte) }

func putBuffer(b *[]byte) {
	if cap(*b) > keepBuffer {
		return
	}
	*b = (*b)[:0]
	buffers.Put(b)
}

// writer is the one way out: whole frames, one after the other. A failed write ends it, since the peer may
// have got half a frame.
type writer struct {
	mu    sync.Mutex
	w     io.Writer
	fds   sender // nil where descriptors cannot be passed
	timed timed  // nil where a write cannot be given up
	err   error
}

// timed is a connection whose writes can be given up.
type timed interface {
	SetWriteDeadline(t time.Time) error
}

// timedOf is conn if its writes can be given up.
func timedOf(conn io.Writer) timed {
	t, ok := conn.(timed)
	if !ok || t.SetWriteDeadline(time.Time{}) != nil { // a file that is not polled
		return nil
	}
	return t
}

// sender writes b with a descriptor attached to its first byte.
type sender interface {
	send(b []byte, f *os.File) error
}

// write writes one encoded frame.
func (w *writer) write(b []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writeLocked(b)
}

func (w *writer) writeLocked(b []byte) error {
	if w.err != nil {
		return w.err
	}
	_, w.err = w.w.Write(b)
	return w.err
}

// soon is how long a peer that reads needs at most to take what fits in the buffers between it and us.
const soon = 10 * time.Millisecond

// writeSoon is write for callers that must not wait for the peer: if it does not take b soon, what is left has to be
// written by calling rest, which waits. Nothing else is written before that.
func (w *writer) writeSoon(b []byte) (rest func()) {
	if !w.mu.TryLock() {
		return func() { _ = w.write(b) }
	}
	if w.err == nil && w.timed.SetWriteDeadline(time.Now().Add(soon)) == nil {
		n, err := w.w.Write(b)
		if cerr := w.timed.SetWriteDeadline(time.Time{}); err == nil {
			err = cerr
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return func() {
				defer w.mu.Unlock()
				_ = w.writeLocked(b[n:])
			}
		}
		w.err = err
	}
	w.mu.Unlock()
	return nil
}

// writeFD is write with a descriptor on the first byte.
func (w *writer) writeFD(b []byte, f *os.File) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	w.err = w.fds.send(b, f)
	return w.err
}

// frame writes f.
func (w *writer) frame(f *Frame) error {
	buf := getBuffer()
	defer putBuffer(buf)
	*buf = Append((*buf)[:0], f)
	return w.write(*buf)
}

// seal writes the header of f in front of the body that already follows it in b; b[:HeaderSize] is room.
func seal(b []byte, f *Frame) {
	f.Method = ""
	appendHeader(b[:0], f, len(b)-HeaderSize)
}

// end is the last frame of an id for err, nil being OK. id 0 ends the session.
func (w *writer) end(id uint32, enc hostabi.Encoding, err error) error {
	buf := getBuffer()
	defer putBuffer(buf)
	*buf = appendEnd((*buf)[:0], id, enc, err)
	return w.write(*buf)
}

func appendEnd(dst []byte, id uint32, enc hostabi.Encoding, err error) []byte {
	f := Frame{Enc: enc, ID: id, Flags: FlagEnd}
	if err == nil {
		return appendHeader(dst, &f, 0)
	}
	e := hostabi.AsError(err)
	if e.Code == hostabi.OK || e.Code > hostabi.Unauthenticated {
		e = hostabi.AsError(io.ErrUnexpectedEOF).WithMeta("code", e.Code.String())
	}
	start := len(dst)
	f.Code = uint16(e.Code)
	dst = e.AppendStatus(appendHeader(dst, &f, 0), enc)
	binary.LittleEndian.PutUint32(dst[start+12:], uint32(len(dst)-start-HeaderSize))
	return dst
}

// ack returns n messages of credit.
func (w *writer) ack(id uint32, enc hostabi.Encoding, n int) error {
	return w.frame(&Frame{Enc: enc, ID: id, Flags: FlagAck, Code: uint16(n)})
}
