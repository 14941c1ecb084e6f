package hostabi

import (
	"encoding/binary"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Where an Error stands in a google.rpc.Status (host-abi.md section 12).
const (
	statusDomain = "ds.host"
	statusType   = "type.googleapis.com/google.rpc.ErrorInfo"
	statusFix    = "fix" // metadata key of Error.Fix
)

// AppendStatus appends e as a google.rpc.Status with one google.rpc.ErrorInfo, as every carrier sends it.
// The message is e.Error(), so Op is not sent apart; Err never leaves the host. Equal errors have equal bytes.
func (e *Error) AppendStatus(dst []byte, enc Encoding) []byte {
	meta := e.statusMeta()
	if enc == EncJSON {
		return e.appendStatusJSON(dst, meta)
	}
	info := appendField(nil, 1, validText(string(e.Reason)))
	info = appendField(info, 2, statusDomain)
	for _, k := range slices.Sorted(maps.Keys(meta)) {
		info = appendField(info, 3, string(appendField(appendField(nil, 1, k), 2, meta[k])))
	}
	detail := appendField(appendField(nil, 1, statusType), 2, string(info))
	dst = binary.AppendUvarint(append(dst, 1<<3), uint64(e.Code))
	dst = appendField(dst, 2, validText(e.Error()))
	return appendField(dst, 3, string(detail))
}

// statusMeta is Meta with Fix, all of it UTF-8.
func (e *Error) statusMeta() map[string]string {
	meta := make(map[string]string, len(e.Meta)+1)
	for k, v := range e.Meta {
		meta[validText(k)] = validText(v)
	}
	if e.Fix != "" {
		meta[statusFix] = validText(e.Fix)
	}
	return meta
}

func (e *Error) appendStatusJSON(dst []byte, meta map[string]string) []byte {
	dst = append(dst, `{"code":`...)
	dst = strconv.AppendUint(dst, uint64(e.Code), 10)
	dst = appendQuoted(append(dst, `,"message":`...), validText(e.Error()))
	dst = append(dst, `,"details":[{"@type":"`+statusType+`","reason":`...)
	dst = appendQuoted(dst, validText(string(e.Reason)))
	dst = append(dst, `,"domain":"`+statusDomain+`"`...)
	sep := `,"metadata":{`
	for _, k := range slices.Sorted(maps.Keys(meta)) {
		dst = appendQuoted(append(dst, sep...), k)
		dst = appendQuoted(append(dst, ':'), meta[k])
		sep = ","
	}
	if len(meta) > 0 {
		dst = append(dst, '}')
	}
	return append(dst, "}]}"...)
}

// ParseStatus reads a protobuf google.rpc.Status. It never fails: bytes that are none, or that name no error,
// give an INTERNAL error that says so. A status without an ErrorInfo of DS keeps its code and has the reason
// that fits it; a reason of a later ds is kept as it is.
func ParseStatus(b []byte) *Error {
	var s status
	if !s.parse(b) {
		return garbled()
	}
	return s.toError()
}

// ParseStatusJSON is ParseStatus for the protobuf-JSON form. It is apart so that a guest that speaks protobuf
// does not link encoding/json.
func ParseStatusJSON(b []byte) *Error {
	var in struct {
		Code    uint64
		Message string
		Details []struct {
			Type     string `json:"@type"`
			Reason   Reason
			Domain   string
			Metadata map[string]string
		}
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return garbled()
	}
	s := status{code: in.Code, message: in.Message}
	for _, d := range in.Details {
		if d.Type == statusType && d.Domain == statusDomain {
			s.reason, s.meta = d.Reason, d.Metadata
			break
		}
	}
	return s.toError()
}

func garbled() *Error {
	return &Error{Code: Internal, Reason: ReasonInternal, Msg: "the host's error could not be read"}
}

// status is a google.rpc.Status as far as DS uses it.
type status struct {
	code    uint64
	message string
	reason  Reason
	meta    map[string]string
}

func (s *status) toError() *Error {
	if s.code == uint64(OK) || s.code >= uint64(len(codeNames)) {
		return garbled()
	}
	e := &Error{Code: Code(s.code), Reason: s.reason, Msg: validText(s.message), Fix: s.meta[statusFix]}
	for k, v := range s.meta {
		if k != statusFix {
			_ = e.WithMeta(k, v)
		}
	}
	if e.Reason == "" {
		e.Reason = reasonFor(e.Code)
	}
	if e.Msg == "" {
		e.Msg = e.Reason.Info().Text
	}
	return e
}

// reasonFor is the reason of an error that a transport made, which knows codes only.
func reasonFor(c Code) Reason {
	switch c {
	case Cancelled:
		return ReasonInterrupted
	case DeadlineExceeded:
		return ReasonTimeout
	case Unimplemented:
		return ReasonUnknownMethod
	}
	return ReasonInternal
}

func (s *status) parse(b []byte) bool {
	found := false
	return eachField(b, func(num, v uint64, data []byte) bool {
		switch num {
		case 1:
			s.code = uint64(uint32(v)) // int32 on the wire
		case 2:
			s.message = string(data)
		case 3:
			if found {
				return true
			}
			ok := s.parseDetail(data)
			found = s.reason != ""
			return ok
		}
		return true
	})
}

// parseDetail reads a google.protobuf.Any and keeps it if it is an ErrorInfo of DS.
func (s *status) parseDetail(b []byte) bool {
	var url, value string
	ok := eachField(b, func(num, _ uint64, data []byte) bool {
		switch num {
		case 1:
			url = string(data)
		case 2:
			value = string(data)
		}
		return true
	})
	if !ok || url != statusType {
		return ok
	}
	var reason, domain string
	meta := make(map[string]string)
	ok = eachField([]byte(value), func(num, _ uint64, data []byte) bool {
		switch num {
		case 1:
			reason = validText(string(data))
		case 2:
			domain = string(data)
		case 3:
			var kv [3]string
			ok := eachField(data, func(num, _ uint64, data []byte) bool {
				if num < 3 {
					kv[num] = validText(string(data))
				}
				return true
			})
			meta[kv[1]] = kv[2]
			return ok
		}
		return true
	})
	if ok && domain == statusDomain {
		s.reason, s.meta = Reason(reason), meta
	}
	return ok
}

// eachField calls f with every varint and length-delimited field of b until it returns false; it reports
// whether b is a whole message and f was content. Fixed-width fields are passed over, groups refused.
func eachField(b []byte, f func(num, v uint64, data []byte) bool) bool {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 || tag>>3 == 0 {
			return false
		}
		b = b[n:]
		size, wire := uint64(0), tag&7
		switch wire {
		case 0, 2:
			v, n := binary.Uvarint(b)
			if n <= 0 {
				return false
			}
			b = b[n:]
			if wire == 0 {
				if !f(tag>>3, v, nil) {
					return false
				}
				continue
			}
			size = v
		case 1:
			size = 8
		case 5:
			size = 4
		default:
			return false
		}
		if size > uint64(len(b)) {
			return false
		}
		if wire == 2 && !f(tag>>3, 0, b[:size]) {
			return false
		}
		b = b[size:]
	}
	return true
}

// appendField appends a length-delimited field.
func appendField(dst []byte, num byte, v string) []byte {
	dst = binary.AppendUvarint(append(dst, num<<3|2), uint64(len(v)))
	return append(dst, v...)
}

// validText is s with U+FFFD for what is not UTF-8: protobuf strings and JSON hold nothing else.
func validText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// appendQuoted appends s as a JSON string. It stands in for encoding/json, which guests do not link.
func appendQuoted(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, c := range []byte(s) {
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
