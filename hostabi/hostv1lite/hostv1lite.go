// Package hostv1lite holds the messages of ds.host.v1 for Go guests: plain structs that encode and decode
// themselves. It owns the guest's form of the schema; it never reflects, logs or imports protobuf-go or
// grpc, so that a guest stays small (RATIONALE.md). The structs are generated from hostabi/hostv1/host.proto
// and have its field names in CamelCase:
//
//	req := hostv1lite.GetConfigRequest{Key: "settings.hello.greeting"}
//	var v hostv1lite.ConfigValue
//	err := v.ParseProto(call(hostv1lite.ConfigGet, req.AppendProto(nil)))
//
// An optional number is a pointer, a singular message a pointer, a repeated one a slice of values. Members of
// a oneof are plain fields of which at most one may be set; bytes there are set when they are not nil, even
// if empty.
package hostv1lite

// Message is what every message of this package is, by pointer.
type Message interface {
	// AppendProto appends the protobuf encoding of the message to dst: fields by number, map keys sorted,
	// so equal messages have equal bytes. It does not check that strings are UTF-8; the host does.
	AppendProto(dst []byte) []byte
	// ParseProto resets the message and decodes b, of which it keeps nothing. Unknown fields are skipped,
	// the last of several values of one field wins, repeated singular messages are merged. The error is a
	// *hostabi.Error with reason BAD_MESSAGE for bytes that are cut off, too long, of another wire type than
	// the schema says, nested too deep or not UTF-8 where text belongs; the message is then undefined.
	ParseProto(b []byte) error
}
