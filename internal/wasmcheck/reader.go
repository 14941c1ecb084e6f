package wasmcheck

import (
	"fmt"
	"unicode/utf8"
)

// reader reads b from at to end. The first error stays: everything read after it is zero, and more is false.
type reader struct {
	b       []byte
	at, end int
	section string
	err     *Error
}

// fail notes an error at the byte at and stops the reader.
func (r *reader) fail(at int, rule, format string, a ...any) {
	if r.err == nil {
		r.err = &Error{Section: r.section, Offset: at, Rule: rule, Msg: fmt.Sprintf(format, a...)}
	}
	r.at = r.end
}

func (r *reader) more() bool { return r.err == nil && r.at < r.end }

func (r *reader) cut(at int) {
	r.fail(at, "cut off", "module is damaged: a value is cut off")
}

func (r *reader) byte() byte {
	if r.at >= r.end {
		r.cut(r.at)
		return 0
	}
	c := r.b[r.at]
	r.at++
	return c
}

// u32 is an unsigned LEB128 of at most 5 bytes.
func (r *reader) u32() uint32 {
	if r.at < r.end && r.b[r.at] < 0x80 { // nearly always
		r.at++
		return uint32(r.b[r.at-1])
	}
	begin := r.at
	var v uint64
	for shift := 0; shift < 35; shift += 7 {
		c := r.byte()
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			if v > 1<<32-1 {
				break
			}
			return uint32(v)
		}
	}
	r.number(begin)
	return 0
}

// skipInt skips a signed LEB128 of at most n bytes.
func (r *reader) skipInt(n int) {
	begin := r.at
	for range n {
		if r.byte() < 0x80 {
			return
		}
	}
	r.number(begin)
}

// s33 is a signed LEB128 of at most 5 bytes.
func (r *reader) s33() int64 {
	begin := r.at
	var v int64
	for shift := 0; shift < 35; shift += 7 {
		c := r.byte()
		v |= int64(c&0x7f) << shift
		if c < 0x80 {
			return v << (57 - shift) >> (57 - shift)
		}
	}
	r.number(begin)
	return 0
}

func (r *reader) number(begin int) {
	r.fail(begin, "number", "module is damaged: a number is too long")
}

func (r *reader) skip(n uint32) {
	if uint64(n) > uint64(r.end-r.at) {
		r.cut(r.at)
		return
	}
	r.at += int(n)
}

// count is the length of a vector of what, whose items take at least size bytes each.
func (r *reader) count(what string, limit uint32, size int) uint32 {
	at := r.at
	n := r.u32()
	if n > limit {
		r.fail(at, what, "module has %d %s, at most %d", n, what, limit)
		return 0
	}
	if uint64(n)*uint64(size) > uint64(r.end-r.at) {
		r.fail(at, "vector length", "module is damaged: %d %s do not fit in the bytes that are left", n, what)
		return 0
	}
	return n
}

// index reads an index of what, of which there are n.
func (r *reader) index(what string, n uint32) uint32 {
	at := r.at
	x := r.u32()
	r.bound(at, what, x, n)
	return x
}

func (r *reader) bound(at int, what string, x, n uint32) {
	if x >= n && r.err == nil {
		r.fail(at, what+" index", "%s %d does not exist", what, x)
	}
}

// name is valid UTF-8 of at most 256 bytes.
func (r *reader) name() []byte {
	at := r.at
	n := r.u32()
	if n > maxName {
		r.fail(at, "name length", "name of %d bytes, at most %d", n, maxName)
		return nil
	}
	begin := r.at
	r.skip(n)
	if r.err != nil {
		return nil
	}
	s := r.b[begin:r.at]
	if !utf8.Valid(s) {
		r.fail(at, "name encoding", "name is not valid UTF-8")
	}
	return s
}

// The types of values.
const (
	typeI32     = 0x7f
	typeI64     = 0x7e
	typeV128    = 0x7b
	typeFuncref = 0x70
	typeExtern  = 0x6f
	typeEmpty   = 0x40
)

func isValueType(c byte) bool { return c >= typeV128 && c <= typeI32 || isRefType(c) }

func isRefType(c byte) bool { return c == typeFuncref || c == typeExtern }

func (r *reader) valueType() {
	if c := r.byte(); !isValueType(c) {
		r.fail(r.at-1, "value type", "type 0x%02x is not a value type of WASM 2.0", c)
	}
}

func (r *reader) refType() {
	if c := r.byte(); !isRefType(c) {
		r.fail(r.at-1, "reference type", "type 0x%02x is not a reference type of WASM 2.0", c)
	}
}

// flag is a byte of at most limit.
func (r *reader) flag(what string, limit byte) byte {
	c := r.byte()
	if c > limit {
		r.fail(r.at-1, what, "%s 0x%02x is not part of WASM 2.0", what, c)
	}
	return c
}
