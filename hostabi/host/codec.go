package host

import (
	"bytes"
	"encoding/json"
	"sync"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/delivery-station/ds/hostabi"
)

// decode fills m from b; unknown fields are ignored. The error has reason BAD_MESSAGE.
func decode(b []byte, m any, enc hostabi.Encoding) error {
	pm, ok := m.(proto.Message)
	if !ok {
		return hostabi.Errorf(hostabi.ReasonInternal, "%T is no message", m)
	}
	var err error
	switch {
	case enc == hostabi.EncJSON && len(b) > 0:
		err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, pm)
	case enc == hostabi.EncJSON:
	default:
		err = proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, pm)
	}
	if err != nil {
		e := hostabi.Errorf(hostabi.ReasonBadMessage, "request is no valid %s", pm.ProtoReflect().Descriptor().Name())
		e.Err = err
		return e
	}
	return nil
}

// encode appends m to dst. JSON is compact: protojson varies its spaces on purpose.
func encode(dst []byte, m any, enc hostabi.Encoding) ([]byte, error) {
	pm, ok := m.(proto.Message)
	if !ok {
		return dst, hostabi.Errorf(hostabi.ReasonInternal, "%T is no message", m)
	}
	if enc != hostabi.EncJSON {
		return proto.MarshalOptions{}.MarshalAppend(dst, pm)
	}
	b, err := protojson.Marshal(pm)
	if err != nil {
		return dst, err
	}
	buf := bytes.NewBuffer(dst)
	err = json.Compact(buf, b)
	return buf.Bytes(), err
}

func tooLarge(what string, n int) *hostabi.Error {
	return hostabi.Errorf(hostabi.ReasonTooLarge, "%s has %d bytes, at most %d", what, n, hostabi.MaxMessage)
}

// decoder is the dec argument of one unary handler. A registrar pools them with their method value bound,
// which saves an allocation a call; a handler uses it only before its interceptor.
type decoder struct {
	body []byte
	enc  hostabi.Encoding
	err  error
	fn   func(any) error
}

func (d *decoder) decode(m any) error {
	d.err = decode(d.body, m, d.enc)
	return d.err
}

func newDecoder() any {
	d := new(decoder)
	d.fn = d.decode
	return d
}

// grpcCodec is the codec of a session's gRPC server. gRPC turns what a codec refuses into INTERNAL without
// a reason, so this one refuses nothing: it remembers the error for the interceptor, which asks for it.
type grpcCodec struct{ bad *sync.Map }

// Name implements encoding.CodecV2.
func (grpcCodec) Name() string { return "proto" }

// Marshal implements encoding.CodecV2.
func (grpcCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, err := encode(nil, v, hostabi.EncProto)
	return mem.BufferSlice{mem.SliceBuffer(b)}, err
}

// Unmarshal implements encoding.CodecV2.
func (c grpcCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if n := data.Len(); n > hostabi.MaxMessage {
		c.bad.Store(v, tooLarge("request", n))
		return nil
	}
	if err := decode(data.Materialize(), v, hostabi.EncProto); err != nil {
		c.bad.Store(v, err)
	}
	return nil
}

// refused is the error of decoding v, nil if there was none.
func (c grpcCodec) refused(v any) error {
	if err, ok := c.bad.LoadAndDelete(v); ok {
		return err.(error)
	}
	return nil
}
