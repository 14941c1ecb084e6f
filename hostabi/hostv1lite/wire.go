package hostv1lite

import (
	"maps"
	"math/bits"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/delivery-station/ds/hostabi"
)

// Wire types of the protobuf encoding (protobuf.dev/programming-guides/encoding).
const (
	wireVarint   = 0
	wireFixed64  = 1
	wireLen      = 2
	wireGroup    = 3
	wireEndGroup = 4
	wireFixed32  = 5
)

const (
	maxField  = 1<<29 - 1 // largest field number
	maxGroups = 100       // nesting of unknown groups; messages nest as the schema does
)

func appendUvarint(dst []byte, v uint64) []byte {
	for v >= 0x80 {
		dst = append(dst, byte(v)|0x80)
		v >>= 7
	}
	return append(dst, byte(v))
}

func appendVarint(dst []byte, num int, v uint64) []byte {
	return appendUvarint(appendUvarint(dst, uint64(num)<<3|wireVarint), v)
}

func appendLen[T ~string | ~[]byte](dst []byte, num int, v T) []byte {
	dst = appendUvarint(dst, uint64(num)<<3|wireLen)
	return append(appendUvarint(dst, uint64(len(v))), v...)
}

func appendStrings(dst []byte, num int, vs []string) []byte {
	for _, v := range vs {
		dst = appendLen(dst, num, v)
	}
	return dst
}

// appendMap writes key and value of every entry even when they are empty, as protobuf-go does.
func appendMap(dst []byte, num int, m map[string]string) []byte {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		v := m[k]
		n := 2 + uvarintLen(len(k)) + len(k) + uvarintLen(len(v)) + len(v)
		dst = appendUvarint(dst, uint64(num)<<3|wireLen)
		dst = appendUvarint(dst, uint64(n))
		dst = appendLen(appendLen(dst, 1, k), 2, v)
	}
	return dst
}

// appendMessage encodes m in place behind one byte of length and moves it when its length needs more.
func appendMessage(dst []byte, num int, m Message) []byte {
	dst = append(appendUvarint(dst, uint64(num)<<3|wireLen), 0)
	start := len(dst)
	dst = m.AppendProto(dst)
	n := len(dst) - start
	if n < 0x80 {
		dst[start-1] = byte(n)
		return dst
	}
	more := uvarintLen(n) - 1
	dst = slices.Grow(dst, more)[:len(dst)+more]
	copy(dst[start+more:], dst[start:start+n])
	appendUvarint(dst[:start-1], uint64(n))
	return dst
}

func uvarintLen(n int) int { return (bits.Len64(uint64(n)|1) + 6) / 7 }

// reader walks over the fields of one message. Its first problem ends the walk and stays in err.
type reader struct {
	b       []byte // what is left
	message string // for errors
	num     uint64 // of the current field
	wire    uint8  // of the current field
	err     error
}

type merger interface{ merge(b []byte) error }

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = &hostabi.Error{
			Code: hostabi.InvalidArgument, Reason: hostabi.ReasonBadMessage,
			Op: "message " + r.message, Msg: "field " + strconv.FormatUint(r.num, 10) + " " + what,
		}
	}
	r.b = nil
}

// next reads a tag; false means the end or an error.
func (r *reader) next() bool {
	if len(r.b) == 0 {
		return false
	}
	tag := r.uvarint()
	if r.err != nil {
		return false
	}
	r.num, r.wire = tag>>3, uint8(tag&7)
	if r.num == 0 || r.num > maxField {
		r.fail("has a number out of range")
		return false
	}
	return true
}

func (r *reader) uvarint() (v uint64) {
	for i := range min(len(r.b), 10) {
		c := r.b[i]
		if i == 9 && c > 1 {
			break
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			r.b = r.b[i+1:]
			return v
		}
	}
	if len(r.b) < 10 {
		r.fail("is cut off")
	} else {
		r.fail("is longer than 64 bits")
	}
	return 0
}

func (r *reader) readUint64() uint64 {
	if r.wire != wireVarint {
		r.fail("has another wire type than the schema says")
		return 0
	}
	return r.uvarint()
}

func (r *reader) readUint32() uint32 { return uint32(r.readUint64()) }
func (r *reader) readInt64() int64   { return int64(r.readUint64()) }
func (r *reader) readInt32() int32   { return int32(r.readUint64()) }
func (r *reader) readBool() bool     { return r.readUint64() != 0 }

// view is a length-delimited value, still inside the message.
func (r *reader) view() []byte {
	if r.wire != wireLen {
		r.fail("has another wire type than the schema says")
		return nil
	}
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail("is cut off")
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

// readBytes copies; it is not nil even if empty.
func (r *reader) readBytes() []byte { return append([]byte{}, r.view()...) }

func (r *reader) readString() string {
	v := r.view()
	if !utf8.Valid(v) {
		r.fail("is not UTF-8")
		return ""
	}
	return string(v)
}

func (r *reader) child(m merger) {
	if v := r.view(); r.err == nil {
		if r.err = m.merge(v); r.err != nil {
			r.b = nil
		}
	}
}

// entry reads one map entry; a missing key or value is empty.
func (r *reader) entry(m *map[string]string) {
	e := reader{b: r.view(), message: r.message}
	var k, v string
	for r.err == nil && e.next() {
		switch e.num {
		case 1:
			k = e.readString()
		case 2:
			v = e.readString()
		default:
			e.skip()
		}
	}
	if r.err == nil && e.err != nil {
		r.err, r.b = e.err, nil
	}
	if r.err != nil {
		return
	}
	if *m == nil {
		*m = make(map[string]string)
	}
	(*m)[k] = v
}

// skip passes over the value of an unknown field.
func (r *reader) skip() {
	if r.wire == wireGroup {
		r.skipGroup()
		return
	}
	r.skipValue()
}

func (r *reader) skipValue() {
	switch r.wire {
	case wireVarint:
		r.uvarint()
	case wireLen:
		r.view()
	case wireFixed64:
		r.advance(8)
	case wireFixed32:
		r.advance(4)
	default:
		r.fail("has no known wire type")
	}
}

// skipGroup passes over a group, a form of nesting that protobuf has given up but still skips.
func (r *reader) skipGroup() {
	open := []uint64{r.num}
	for len(open) > 0 {
		if !r.next() {
			r.fail("is cut off")
			return
		}
		switch {
		case r.wire == wireGroup && len(open) == maxGroups:
			r.fail("is nested too deep")
		case r.wire == wireGroup:
			open = append(open, r.num)
		case r.wire == wireEndGroup && r.num == open[len(open)-1]:
			open = open[:len(open)-1]
		case r.wire == wireEndGroup:
			r.fail("ends a group that it did not start")
		default:
			r.skipValue()
		}
	}
}

func (r *reader) advance(n int) {
	if len(r.b) < n {
		r.fail("is cut off")
		return
	}
	r.b = r.b[n:]
}
