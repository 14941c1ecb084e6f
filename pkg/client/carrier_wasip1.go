package client

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"unsafe"

	"github.com/delivery-station/ds/hostabi"
)

// hostBlocks says whether a host call stops all goroutines of the program.
const hostBlocks = true

// chunk is how many bytes of a stream or blob are moved at once. It is larger than natively: each costs a host call.
const chunk = 512 << 10

func env(name string) string { return os.Getenv(name) }

// The imports of module ds_v1 (host-abi.md section 6). Each answers code<<32 | n.

//go:wasmimport ds_v1 call
func dsCall(m unsafe.Pointer, mlen uint32, req unsafe.Pointer, reqlen uint32, resp unsafe.Pointer, size uint32) uint64

//go:wasmimport ds_v1 take
func dsTake(dst unsafe.Pointer, size uint32) uint64

//go:wasmimport ds_v1 open
func dsOpen(m unsafe.Pointer, mlen uint32, req unsafe.Pointer, reqlen uint32) uint64

//go:wasmimport ds_v1 send
func dsSend(h uint32, p unsafe.Pointer, size uint32) uint64

//go:wasmimport ds_v1 recv
func dsRecv(h uint32, p unsafe.Pointer, size uint32) uint64

//go:wasmimport ds_v1 poll
func dsPoll(h uint32) uint64

//go:wasmimport ds_v1 read
func dsRead(h uint32, p unsafe.Pointer, size uint32) uint64

//go:wasmimport ds_v1 write
func dsWrite(h uint32, p unsafe.Pointer, size uint32) uint64

//go:wasmimport ds_v1 close
func dsClose(h uint32, flags uint32) uint64

// Codes beyond those of gRPC, and the flags of close.
const (
	codeTruncated = 256
	codeEnd       = 257

	closeRelease = 0
	closeHalf    = 1
)

// What poll answers.
const (
	pollRecv = 1
	pollSend = 2
)

// firstReply is the room that a reply gets before its size is known.
const firstReply = 4 << 10

func connect() (hostabi.Session, error) { return imports{}, nil }

// imports is the carrier of a WASM guest. A call blocks the whole guest, so contexts are looked at before
// it, and nothing else runs between a call and the take that fetches what it left.
type imports struct{}

func ptr[T ~string | ~[]byte](b T) (unsafe.Pointer, uint32) {
	if len(b) == 0 {
		return nil, 0
	}
	switch b := any(b).(type) {
	case string:
		return unsafe.Pointer(unsafe.StringData(b)), uint32(len(b))
	case []byte:
		return unsafe.Pointer(unsafe.SliceData(b)), uint32(len(b))
	}
	return nil, 0
}

func split(r uint64) (code, n uint32) { return uint32(r >> 32), uint32(r) }

// failure is the error of a code; the Status of n bytes is taken from the kept slot.
func failure(code, n uint32) error {
	if code > uint32(hostabi.Unauthenticated) {
		return hostabi.Errorf(hostabi.ReasonProtocol, "host answered code %d", code)
	}
	if n > 0 && n <= hostabi.MaxMessage {
		if b, err := take(nil, n); err == nil {
			return hostabi.ParseStatus(b)
		}
	}
	return &hostabi.Error{Code: hostabi.Code(code), Reason: hostabi.ReasonInternal, Msg: "host call: " + hostabi.Code(code).String()}
}

// take appends the n bytes that the host keeps to dst.
func take(dst []byte, n uint32) ([]byte, error) {
	end := len(dst) + int(n)
	if cap(dst) < end {
		dst = append(make([]byte, 0, end), dst...)
	}
	for len(dst) < end {
		p, size := ptr(dst[len(dst):end])
		code, got := split(dsTake(p, size))
		if (code != 0 && code != codeTruncated) || got == 0 || got > size {
			return dst, hostabi.Errorf(hostabi.ReasonProtocol, "host kept less than it said")
		}
		dst = dst[:len(dst)+int(got)]
	}
	return dst, nil
}

func check(ctx context.Context, method string, enc hostabi.Encoding) error {
	if enc != hostabi.EncProto {
		return hostabi.Errorf(hostabi.ReasonUnknownMethod, "%s: imports speak protobuf only", method)
	}
	if ctx.Err() != nil {
		return ended(ctx)
	}
	return nil
}

// Invoke implements hostabi.Session.
func (imports) Invoke(ctx context.Context, c hostabi.Call) ([]byte, error) {
	if err := check(ctx, c.Method, c.Enc); err != nil {
		return c.Dst, err
	}
	start := len(c.Dst)
	dst := c.Dst
	if cap(dst)-start < firstReply {
		dst = append(make([]byte, 0, start+firstReply), dst...)
	}
	m, mlen := ptr(c.Method)
	req, reqlen := ptr(c.Req)
	resp, size := ptr(dst[start:cap(dst)])
	code, n := split(dsCall(m, mlen, req, reqlen, resp, size))
	switch code {
	case 0:
		if n > size {
			return c.Dst, failure(codeEnd, 0)
		}
		return dst[:start+int(n)], nil
	case codeTruncated:
		return take(dst, n)
	}
	return c.Dst, failure(code, n)
}

// Stream implements hostabi.Session. The call starts with its first message.
func (imports) Stream(ctx context.Context, method string, enc hostabi.Encoding) (hostabi.Stream, error) {
	if err := check(ctx, method, enc); err != nil {
		return nil, err
	}
	st := &importStream{ctx: ctx, method: method}
	st.stop = context.AfterFunc(ctx, func() { _ = st.Close() })
	return st, nil
}

// importStream is a stream over the imports. Its id is 0 until the first message and after the end.
type importStream struct {
	ctx    context.Context
	method string
	stop   func() bool

	mu   sync.Mutex
	id   uint32
	over error // the end, once it is known
}

// Send implements hostabi.Stream.
func (s *importStream) Send(msg []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over != nil {
		return io.EOF
	}
	if s.ctx.Err() != nil {
		s.end(ended(s.ctx))
		return io.EOF
	}
	p, size := ptr(msg)
	if s.id == 0 {
		m, mlen := ptr(s.method)
		code, n := split(dsOpen(m, mlen, p, size))
		if code != 0 {
			s.end(failure(code, n))
			return io.EOF
		}
		s.id = n
		return nil
	}
	code, n := split(dsSend(s.id, p, size))
	switch code {
	case 0:
		return nil
	case codeEnd:
		return io.EOF
	}
	return failure(code, n)
}

// CloseSend implements hostabi.Stream.
func (s *importStream) CloseSend() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.id == 0 {
		return nil
	}
	if code, n := split(dsClose(s.id, closeHalf)); code != 0 {
		return failure(code, n)
	}
	return nil
}

// Recv implements hostabi.Stream.
func (s *importStream) Recv() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over != nil:
		return nil, s.over
	case s.ctx.Err() != nil:
		s.end(ended(s.ctx))
		return nil, s.over
	case s.id == 0:
		return nil, hostabi.Errorf(hostabi.ReasonBadMessage, "%s: nothing was sent", s.method)
	}
	buf := make([]byte, firstReply)
	p, size := ptr(buf)
	code, n := split(dsRecv(s.id, p, size))
	switch {
	case code == 0 && n <= size:
		return buf[:n], nil
	case code == codeTruncated:
		return take(nil, n)
	case code == codeEnd:
		s.end(io.EOF)
	default:
		s.end(failure(code, n))
	}
	return nil, s.over
}

// Poll implements hostabi.Poller. What is wrong is for Recv to say.
func (s *importStream) Poll() (recv, send bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over != nil || s.ctx.Err() != nil || s.id == 0 {
		return true, false
	}
	code, n := split(dsPoll(s.id))
	return code != 0 || n&pollRecv != 0, code == 0 && n&pollSend != 0
}

// end releases the stream. s.mu is held.
func (s *importStream) end(why error) {
	s.over = why
	s.stop()
	if s.id != 0 {
		dsClose(s.id, closeRelease)
		s.id = 0
	}
}

// Close implements hostabi.Stream.
func (s *importStream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over == nil {
		s.end(hostabi.Errorf(hostabi.ReasonInterrupted, "stream closed"))
	}
	return nil
}

// Handle implements hostabi.Session.
func (imports) Handle(id uint32) (io.ReadWriteCloser, error) { return importHandle(id), nil }

// Close implements hostabi.Session: everything ends with the program.
func (imports) Close() error { return nil }

// importHandle is a blob or sink.
type importHandle uint32

func (h importHandle) Read(b []byte) (int, error) {
	p, size := ptr(b)
	if size == 0 {
		return 0, nil
	}
	code, n := split(dsRead(uint32(h), p, size))
	switch {
	case code != 0:
		return 0, failure(code, n)
	case n == 0:
		return 0, io.EOF
	case n > size:
		return 0, errors.New("host read more than asked for")
	}
	return int(n), nil
}

func (h importHandle) Write(b []byte) (int, error) {
	for done := 0; done < len(b); {
		p, size := ptr(b[done:min(len(b), done+hostabi.MaxMessage)])
		code, n := split(dsWrite(uint32(h), p, size))
		if code != 0 {
			return done, failure(code, n)
		}
		if n == 0 || n > size {
			return done, io.ErrShortWrite
		}
		done += int(n)
	}
	return len(b), nil
}

func (h importHandle) Close() error {
	if code, n := split(dsClose(uint32(h), closeRelease)); code != 0 {
		return failure(code, n)
	}
	return nil
}
