package frame

import (
	"encoding/binary"
	"io"
	"os"
	"sync"

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
	mu   sync.Mutex
	w    io.Writer
	sock sender // nil if it is no unix socket
	err  error

	trace func(line string) // nil = nobody wants to know
}

// sender is a unix socket.
type sender interface {
	// send writes b with a descriptor attached to its first byte.
	send(b []byte, f *os.File) error
	// now writes as much of b as the socket takes at once.
	now(b []byte) (int, error)
}

// write writes one encoded frame.
func (w *writer) write(b []byte) error {
	w.traceOut(b)
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

// writeNow is write for callers that must not wait for the peer: what the socket does not take at once has to be
// written by calling rest, which waits. begun says that a part is written: then nobody writes anything before rest.
func (w *writer) writeNow(b []byte) (rest func(), begun bool) {
	if !w.mu.TryLock() {
		return func() { _ = w.write(b) }, false
	}
	w.traceOut(b)
	n := 0
	if w.err == nil {
		n, w.err = w.sock.now(b)
	}
	if w.err != nil || n == len(b) {
		w.mu.Unlock()
		return nil, false
	}
	return func() {
		defer w.mu.Unlock()
		_ = w.writeLocked(b[n:])
	}, true
}

// writeFD is write with a descriptor on the first byte.
func (w *writer) writeFD(b []byte, f *os.File) error {
	w.traceOut(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	w.err = w.sock.send(b, f)
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
