// Package injson runs the cases of the conformance kit, which speak protobuf, over carriers that speak
// protobuf-JSON. Start with Over.
package injson

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/delivery-station/ds/hostabi"
)

// Messages are the request and reply of a method of schema; a method that it does not have has empty ones.
func Messages(schema protoreflect.FileDescriptor, name string) (in, out protoreflect.MessageDescriptor) {
	service, method, _ := strings.Cut(strings.TrimPrefix(name, "/ds.host.v1."), "/")
	if s := schema.Services().ByName(protoreflect.Name(service)); s != nil {
		if m := s.Methods().ByName(protoreflect.Name(method)); m != nil {
			return m.Input(), m.Output()
		}
	}
	empty := schema.Messages().ByName("Empty")
	return empty, empty
}

// Encode translates what decodes, with a field that no host knows; garbage stays garbage. A large message, which
// the cases make of unknown fields, keeps its size.
func Encode(d protoreflect.MessageDescriptor, b []byte) []byte {
	m := dynamicpb.NewMessage(d)
	if err := proto.Unmarshal(b, m); err != nil {
		return b
	}
	out, err := protojson.Marshal(m)
	if err != nil {
		return b
	}
	comma := ","
	if bytes.Equal(bytes.TrimSpace(out), []byte("{}")) {
		comma = ""
	}
	head, tail := `{"laterField":[1,{"x":"`, `"}]`+comma+string(out[1:])
	if fill := len(b) - len(head) - len(tail); len(m.GetUnknown()) > 1<<20 && fill > 0 {
		head += strings.Repeat("x", fill)
	}
	return []byte(head + tail)
}

// Decode translates an answer.
func Decode(d protoreflect.MessageDescriptor, b []byte) ([]byte, error) {
	m := dynamicpb.NewMessage(d)
	if err := protojson.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("answer %.200q: %w", b, err)
	}
	return proto.Marshal(m)
}

// Over is s, whose calls it makes in JSON, for callers that speak protobuf.
func Over(s hostabi.Session, schema protoreflect.FileDescriptor) hostabi.Session {
	return session{s, schema}
}

type session struct {
	hostabi.Session
	schema protoreflect.FileDescriptor
}

// Invoke implements hostabi.Session.
func (s session) Invoke(ctx context.Context, c hostabi.Call) ([]byte, error) {
	in, out := Messages(s.schema, c.Method)
	dst := c.Dst
	c.Enc, c.Req, c.Dst = hostabi.EncJSON, Encode(in, c.Req), nil
	reply, err := s.Session.Invoke(ctx, c)
	if err != nil {
		return dst, err
	}
	b, err := Decode(out, reply)
	return append(dst, b...), err
}

// Stream implements hostabi.Session.
func (s session) Stream(ctx context.Context, method string, _ hostabi.Encoding) (hostabi.Stream, error) {
	st, err := s.Session.Stream(ctx, method, hostabi.EncJSON)
	if err != nil {
		return nil, err
	}
	in, out := Messages(s.schema, method)
	return stream{st, in, out}, nil
}

type stream struct {
	hostabi.Stream
	in, out protoreflect.MessageDescriptor
}

// Send implements hostabi.Stream.
func (st stream) Send(b []byte) error { return st.Stream.Send(Encode(st.in, b)) }

// Recv implements hostabi.Stream.
func (st stream) Recv() ([]byte, error) {
	b, err := st.Stream.Recv()
	if err != nil {
		return nil, err
	}
	return Decode(st.out, b)
}
