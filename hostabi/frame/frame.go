// Package frame carries host calls over a byte stream: the frames of host-abi.md section 5, as they travel on
// DS_HOST_FD. It owns the codec, the host end (Serve, over a hostabi.Session) and the guest end (Conn, which
// is a hostabi.Session). It decides nothing, knows no method by meaning except for passing the descriptor
// of an opened blob, and never opens a connection. Start with Serve.
package frame

import (
	"encoding/binary"
	"errors"
	"io"
	"strconv"

	"github.com/delivery-station/ds/hostabi"
)

// Version is the first byte of every frame.
const Version = 1

// HeaderSize is the length of the fixed part of a frame in bytes.
const HeaderSize = 16

// MaxSkip is the largest body that a reader passes over to keep the session; a longer length is taken for
// garbage and ends the session.
const MaxSkip = 64 << 20

// growStep is what a body may claim before any of it has arrived.
const growStep = 64 << 10

// Flags are the flag bits of a frame.
type Flags uint16

// The flags.
const (
	FlagEnd    Flags = 1 // last frame of its id from this side
	FlagCancel Flags = 2 // the guest gives the call up
	FlagAck    Flags = 4 // Code is a number of consumed messages
	FlagFD     Flags = 8 // one descriptor came with the first byte

	allFlags = FlagEnd | FlagCancel | FlagAck | FlagFD
)

// Frame is one frame. Method is set only in the frame that opens an id.
type Frame struct {
	Enc    hostabi.Encoding
	Code   uint16 // gRPC code from the host; in an ACK the number of messages consumed
	ID     uint32 // 0 = the session itself
	Flags  Flags
	Method string
	Body   []byte
}

// ErrPreface is the cause of the error that Serve returns when the guest speaks HTTP/2, that is gRPC.
var ErrPreface = errors.New("http/2 preface")

// Append appends the encoding of f to dst. The caller has checked the limits of method and body.
func Append(dst []byte, f *Frame) []byte {
	dst = appendHeader(dst, f, len(f.Body))
	dst = append(dst, f.Method...)
	return append(dst, f.Body...)
}

func appendHeader(dst []byte, f *Frame, n int) []byte {
	dst = append(dst, Version, byte(f.Enc))
	dst = binary.LittleEndian.AppendUint16(dst, f.Code)
	dst = binary.LittleEndian.AppendUint32(dst, f.ID)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(f.Method)))
	dst = binary.LittleEndian.AppendUint16(dst, uint16(f.Flags))
	return binary.LittleEndian.AppendUint32(dst, uint32(n))
}

// Decode reads one frame from r, which should be buffered. The body is read into buf if it fits there, else
// into a new slice; Decode keeps no reference to buf and may be called concurrently on different readers.
//
// A body of more than hostabi.MaxMessage bytes is passed over: the error then has reason TOO_LARGE, the
// frame holds everything but the body, and r is positioned after it. Any other *hostabi.Error means that r
// cannot be trusted any more: UNIMPLEMENTED for an unknown version, BAD_FRAME for unknown flags or encodings,
// a method longer than hostabi.MaxMethod or a body length above MaxSkip. A clean end before the first
// header byte is io.EOF; inside a frame it is io.ErrUnexpectedEOF.
func Decode(r io.Reader, buf []byte) (Frame, error) {
	var h [HeaderSize]byte
	if _, err := io.ReadFull(r, h[:1]); err != nil {
		return Frame{}, err
	}
	if err := checkVersion(h[0]); err != nil {
		return Frame{}, err
	}
	if _, err := io.ReadFull(r, h[1:]); err != nil {
		return Frame{}, inside(err)
	}
	f := Frame{
		Enc:   hostabi.Encoding(h[1]),
		Code:  binary.LittleEndian.Uint16(h[2:]),
		ID:    binary.LittleEndian.Uint32(h[4:]),
		Flags: Flags(binary.LittleEndian.Uint16(h[10:])),
	}
	mlen, n := int(binary.LittleEndian.Uint16(h[8:])), int64(binary.LittleEndian.Uint32(h[12:]))
	if err := check(&f, mlen, n); err != nil {
		return f, err
	}
	if mlen > 0 {
		var m [hostabi.MaxMethod]byte
		if _, err := io.ReadFull(r, m[:mlen]); err != nil {
			return f, inside(err)
		}
		f.Method = string(m[:mlen])
	}
	if n > hostabi.MaxMessage {
		if _, err := io.CopyN(io.Discard, r, n); err != nil {
			return f, inside(err)
		}
		return f, tooLarge(n)
	}
	var err error
	f.Body, err = readBody(r, int(n), buf)
	return f, err
}

func checkVersion(b byte) error {
	switch b {
	case Version:
		return nil
	case 'P':
		return &hostabi.Error{
			Code: hostabi.Unimplemented, Reason: hostabi.ReasonBadFrame, Err: ErrPreface,
			Msg: "DS_HOST_FD speaks ds frames; for gRPC set run.native.mode: goplugin",
		}
	}
	return &hostabi.Error{
		Code: hostabi.Unimplemented, Reason: hostabi.ReasonBadFrame,
		Msg: "frame version " + strconv.Itoa(int(b)) + " is not known, only " + strconv.Itoa(Version),
	}
}

func check(f *Frame, mlen int, n int64) error {
	switch {
	case f.Enc > hostabi.EncJSON:
		return badFrame("unknown encoding " + strconv.Itoa(int(f.Enc)))
	case f.Flags&^allFlags != 0:
		return badFrame("unknown flags " + strconv.Itoa(int(f.Flags)))
	case mlen > hostabi.MaxMethod:
		return badFrame("method of " + strconv.Itoa(mlen) + " bytes, at most " + strconv.Itoa(hostabi.MaxMethod))
	case n > MaxSkip:
		return badFrame("body of " + strconv.FormatInt(n, 10) + " bytes")
	}
	return nil
}

// readBody trusts a length only as far as bytes arrive.
func readBody(r io.Reader, n int, buf []byte) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	if n <= cap(buf) {
		buf = buf[:n]
		_, err := io.ReadFull(r, buf)
		return buf, inside(err)
	}
	buf = make([]byte, min(n, growStep))
	for got := 0; ; {
		m, err := io.ReadFull(r, buf[got:])
		got += m
		if err != nil {
			return nil, inside(err)
		}
		if got == n {
			return buf, nil
		}
		grown := make([]byte, min(n, 4*got))
		copy(grown, buf)
		buf = grown
	}
}

// inside turns an end in the middle of a frame into io.ErrUnexpectedEOF.
func inside(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func badFrame(what string) *hostabi.Error {
	return &hostabi.Error{Code: hostabi.InvalidArgument, Reason: hostabi.ReasonBadFrame, Msg: "bad frame: " + what}
}

func tooLarge(n int64) *hostabi.Error {
	return &hostabi.Error{
		Code: hostabi.ResourceExhausted, Reason: hostabi.ReasonTooLarge,
		Msg: "message of " + strconv.FormatInt(n, 10) + " bytes, at most " + strconv.Itoa(hostabi.MaxMessage),
	}
}
