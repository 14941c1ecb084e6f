package client

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// appendQuoted appends s as a JSON string.
func appendQuoted(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, c := range []byte(strings.ToValidUTF8(s, "\uFFFD")) {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, `\n`...)
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}

var errEvent = errors.New("not an event in protobuf-JSON")

// parseEvent reads one Event in protobuf-JSON, a line on a handler's standard input. The reader is small
// because every program would carry encoding/json for it.
func parseEvent(line []byte) (e Event, err error) {
	r := jsonReader{b: line}
	r.object(func(key string) {
		switch key {
		case "id":
			e.ID = r.text()
		case "topic":
			e.Topic = r.text()
		case "source":
			e.Source = r.text()
		case "time":
			e.Time = moment(int64(r.number()))
		case "traceId", "trace_id":
			e.TraceID = r.text()
		case "contentType", "content_type":
			e.ContentType = r.text()
		case "data":
			e.Data = r.bytes()
		case "attributes":
			e.Attributes = make(map[string]string)
			r.object(func(key string) { e.Attributes[key] = r.text() })
		case "blobs":
			r.array(func() { e.Blobs = append(e.Blobs, Digest(r.text())) })
		case "hops":
			e.Hops = uint32(r.number())
		case "dropped":
			e.Dropped = r.number()
		default:
			r.skip(0)
		}
	})
	if r.space(); r.bad || r.at < len(r.b) {
		return Event{}, errEvent
	}
	return e, nil
}

// jsonReader walks over one JSON value. The first problem sets bad, after which everything reads as zero.
type jsonReader struct {
	b   []byte
	at  int
	bad bool
}

func (r *jsonReader) fail() { r.bad, r.at = true, len(r.b) }

func (r *jsonReader) space() {
	for r.at < len(r.b) && strings.IndexByte(" \t\r\n", r.b[r.at]) >= 0 {
		r.at++
	}
}

// take passes over c, behind spaces, if it is next.
func (r *jsonReader) take(c byte) bool {
	r.space()
	if r.at < len(r.b) && r.b[r.at] == c {
		r.at++
		return true
	}
	return false
}

func (r *jsonReader) want(c byte) {
	if !r.take(c) {
		r.fail()
	}
}

func (r *jsonReader) object(member func(key string)) {
	r.items('{', '}', func() {
		key := r.text()
		r.want(':')
		member(key)
	})
}

func (r *jsonReader) array(item func()) { r.items('[', ']', item) }

func (r *jsonReader) items(open, end byte, item func()) {
	if r.want(open); r.bad || r.take(end) {
		return
	}
	for {
		item()
		if r.bad || r.take(end) {
			return
		}
		r.want(',')
		if r.bad {
			return
		}
	}
}

// text reads a string.
func (r *jsonReader) text() string {
	r.want('"')
	var out []byte
	for !r.bad {
		if r.at >= len(r.b) || r.b[r.at] < 0x20 {
			break
		}
		c := r.b[r.at]
		r.at++
		switch c {
		case '"':
			return strings.ToValidUTF8(string(out), "\uFFFD")
		case '\\':
			out = r.escape(out)
		default:
			out = append(out, c)
		}
	}
	r.fail()
	return ""
}

func (r *jsonReader) escape(out []byte) []byte {
	if r.at >= len(r.b) {
		return out
	}
	c := r.b[r.at]
	r.at++
	if c == 'u' {
		u := r.hex()
		if utf16.IsSurrogate(u) {
			u = r.lowHalf(u)
		}
		return utf8.AppendRune(out, u)
	}
	i := strings.IndexByte(`"\/bfnrt`, c)
	if i < 0 {
		r.fail()
		return out
	}
	return append(out, "\"\\/\b\f\n\r\t"[i])
}

// lowHalf completes a surrogate pair; a half without its other is no character.
func (r *jsonReader) lowHalf(high rune) rune {
	start := r.at
	if bytes.HasPrefix(r.b[r.at:], []byte(`\u`)) {
		r.at += 2
		if u := utf16.DecodeRune(high, r.hex()); u != utf8.RuneError || r.bad {
			return u
		}
		r.at = start
	}
	return utf8.RuneError
}

func (r *jsonReader) hex() rune {
	if len(r.b)-r.at < 4 {
		r.fail()
		return utf8.RuneError
	}
	v, err := strconv.ParseUint(string(r.b[r.at:r.at+4]), 16, 16)
	if err != nil {
		r.fail()
		return utf8.RuneError
	}
	r.at += 4
	return rune(v)
}

// number reads a whole number; 64-bit ones are strings in protobuf-JSON.
func (r *jsonReader) number() uint64 {
	r.space()
	var text string
	if r.at < len(r.b) && r.b[r.at] == '"' {
		text = r.text()
	} else {
		text = r.literal()
	}
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		r.fail()
		return 0
	}
	return v
}

// literal reads a number, true, false or null.
func (r *jsonReader) literal() string {
	r.space()
	start := r.at
	for r.at < len(r.b) && strings.IndexByte(",:]} \t\r\n\"[{", r.b[r.at]) < 0 {
		r.at++
	}
	if r.at == start {
		r.fail()
	}
	return string(r.b[start:r.at])
}

func (r *jsonReader) bytes() []byte {
	b, err := base64.StdEncoding.DecodeString(r.text())
	if err != nil {
		r.fail()
		return nil
	}
	return b
}

// skip passes over a value of any kind.
func (r *jsonReader) skip(depth int) {
	r.space()
	if r.at >= len(r.b) || depth > 100 {
		r.fail()
		return
	}
	switch r.b[r.at] {
	case '{':
		r.object(func(string) { r.skip(depth + 1) })
	case '[':
		r.array(func() { r.skip(depth + 1) })
	case '"':
		r.text()
	default:
		r.literal()
	}
}
