package frame

import (
	"bytes"
	"encoding/binary"
	"os"

	"github.com/delivery-station/ds/hostabi"
)

// This file is all that the carrier knows of a method: the reply of Cache.Open carries a descriptor if the
// guest asked for one (host-abi.md sections 5 and 8). It reads the few fields by hand, since importing the
// messages would link protobuf into guests.

const cacheOpen = "/ds.host.v1.Cache/Open"

// Field numbers and JSON names of OpenBlobRequest.want_fd and OpenedBlob.{handle,has_fd}.
const (
	wantFDField = 2
	handleField = 1
)

// filer is an ability of handles that hold a file.
type filer interface {
	File() *os.File
}

// descriptor returns the file to pass with the reply in buf, behind the room for the header, or nil. The
// reply then says has_fd. The file stays the session's.
func (sv *server) descriptor(c *serving, method string, req []byte, buf *[]byte) *os.File {
	if method != cacheOpen || sv.w.sock == nil || !wantsFD(req, c.enc) {
		return nil
	}
	id, ok := openedHandle((*buf)[HeaderSize:], c.enc)
	if !ok {
		return nil
	}
	h, err := sv.session.Handle(id)
	if err != nil {
		return nil
	}
	f, ok := h.(filer)
	if !ok || f.File() == nil {
		return nil
	}
	if c.enc == hostabi.EncJSON {
		*buf = append(bytes.TrimRight(*buf, "} \t\r\n"), `,"hasFd":true}`...)
	} else {
		*buf = append(*buf, 5<<3, 1)
	}
	return f.File()
}

func wantsFD(req []byte, enc hostabi.Encoding) bool {
	if enc == hostabi.EncJSON {
		return string(jsonMember(req, "wantFd")) == "true" || string(jsonMember(req, "want_fd")) == "true"
	}
	v, _ := protoVarint(req, wantFDField)
	return v != 0
}

// openedHandle is the handle of an OpenedBlob.
func openedHandle(reply []byte, enc hostabi.Encoding) (uint32, bool) {
	if enc == hostabi.EncProto {
		v, ok := protoVarint(reply, handleField)
		return uint32(v), ok && v <= 1<<31-1
	}
	var v uint64
	digits := jsonMember(reply, "handle")
	for _, d := range digits {
		if d < '0' || d > '9' || v > 1<<31-1 {
			return 0, false
		}
		v = v*10 + uint64(d-'0')
	}
	return uint32(v), len(digits) > 0 && v <= 1<<31-1
}

// protoVarint is the last varint field num of a message.
func protoVarint(b []byte, num uint64) (v uint64, ok bool) {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return v, ok
		}
		b = b[n:]
		size := uint64(0)
		switch tag & 7 {
		case 0:
			x, n := binary.Uvarint(b)
			if n <= 0 {
				return v, ok
			}
			if tag>>3 == num {
				v, ok = x, true
			}
			size = uint64(n)
		case 1:
			size = 8
		case 2:
			x, n := binary.Uvarint(b)
			if n <= 0 {
				return v, ok
			}
			b, size = b[n:], x
		case 5:
			size = 4
		default:
			return v, ok
		}
		if size > uint64(len(b)) {
			return v, ok
		}
		b = b[size:]
	}
	return v, ok
}

// jsonMember is the text of the number or literal that a member of the outermost object has, nil if there is
// none. It expects valid JSON and is safe for anything else.
func jsonMember(b []byte, name string) []byte {
	depth, key := 0, false // key: the next string at depth 1 is a member's name
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '{', '[':
			depth++
			key = depth == 1
		case '}', ']':
			depth--
		case ',':
			key = depth == 1
		case '"':
			end := i + 1
			for end < len(b) && b[end] != '"' {
				if b[end] == '\\' {
					end++
				}
				end++
			}
			if end >= len(b) {
				return nil
			}
			if key && string(b[i+1:end]) == name {
				return jsonScalar(b[end+1:])
			}
			key, i = false, end
		}
	}
	return nil
}

// jsonScalar is the value after a member's name and the colon, if it has no inner structure.
func jsonScalar(b []byte) []byte {
	b = bytes.TrimLeft(b, " \t\r\n")
	b, ok := bytes.CutPrefix(b, []byte(":"))
	if !ok {
		return nil
	}
	b = bytes.TrimLeft(b, " \t\r\n")
	if n := bytes.IndexAny(b, ",}] \t\r\n"); n >= 0 {
		b = b[:n]
	}
	return b
}
