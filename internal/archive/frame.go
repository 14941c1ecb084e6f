package archive

import (
	"bufio"
	"encoding/binary"
	"io"
)

// frameReader hands through exactly one zstd frame and then says io.EOF, so that a decoder which would go on
// with the next frame cannot (RFC 8878 section 3.1.1).
type frameReader struct {
	r        *bufio.Reader
	pending  []byte // read and not yet handed out
	left     int    // bytes of the current block that follow pending
	started  bool
	checksum bool
	last     bool // the current block is the last one
	done     bool
	err      error
}

const (
	zstdMagic   = 0xFD2FB528
	blockRLE    = 1
	blockUnused = 3
)

func (f *frameReader) Read(p []byte) (int, error) {
	for len(f.pending) == 0 && f.left == 0 {
		if f.err == nil {
			f.err = f.next()
		}
		if f.err != nil {
			return 0, f.err
		}
	}
	if len(f.pending) > 0 {
		n := copy(p, f.pending)
		f.pending = f.pending[n:]
		return n, nil
	}
	n, err := f.r.Read(p[:min(len(p), f.left)])
	f.left -= n
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// end is nil if the frame was complete and nothing follows it.
func (f *frameReader) end() error {
	for f.err == nil { // the checksum may not have been asked for
		if _, err := io.CopyN(io.Discard, f, 1<<10); err != nil && err != io.EOF {
			return err
		}
	}
	if !f.done {
		return f.err
	}
	return atEnd(f.r)
}

// next loads the next header, or sets io.EOF after the frame.
func (f *frameReader) next() error {
	switch {
	case f.done:
		return io.EOF
	case !f.started:
		f.started = true
		return f.header()
	case !f.last:
		return f.block()
	}
	f.done = true
	if f.checksum {
		return f.take(4)
	}
	return io.EOF
}

func (f *frameReader) header() error {
	if err := f.take(5); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(f.pending) != zstdMagic {
		return &Error{Msg: "not a zstd frame"}
	}
	desc := f.pending[4]
	f.checksum = desc&4 != 0
	single, dict := desc&0x20 != 0, desc&3
	if dict != 0 {
		return &Error{Msg: "zstd frame wants a dictionary"}
	}
	rest := [...]int{0, 2, 4, 8}[desc>>6]
	switch {
	case !single:
		rest++ // window descriptor
	case desc>>6 == 0:
		rest = 1
	}
	return f.take(rest)
}

func (f *frameReader) block() error {
	if err := f.take(3); err != nil {
		return err
	}
	b := f.pending[len(f.pending)-3:]
	head := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
	f.last = head&1 != 0
	kind, size := head>>1&3, int(head>>3)
	switch kind {
	case blockUnused:
		return &Error{Msg: "zstd block of an unknown type"}
	case blockRLE:
		size = 1
	}
	f.left = size
	return nil
}

// take appends n bytes to pending.
func (f *frameReader) take(n int) error {
	var b [16]byte
	if _, err := io.ReadFull(f.r, b[:n]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	f.pending = append(f.pending, b[:n]...)
	return nil
}
