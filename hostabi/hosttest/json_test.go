package hosttest_test

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/frame"
	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/hostabi/hosttest"
	"github.com/delivery-station/ds/hostabi/hostv1"
)

// inJSON is a session whose messages travel as protobuf-JSON: the cases speak protobuf, and it translates.
type inJSON struct{ hostabi.Session }

// messages are the request and reply of a method; unknown methods have empty ones.
func messages(name string) (in, out protoreflect.MessageDescriptor) {
	service, method, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	short := protoreflect.Name(strings.TrimPrefix(service, "ds.host.v1."))
	if s := hostv1.File_host_proto.Services().ByName(short); s != nil {
		if m := s.Methods().ByName(protoreflect.Name(method)); m != nil {
			return m.Input(), m.Output()
		}
	}
	empty := (&hostv1.Empty{}).ProtoReflect().Descriptor()
	return empty, empty
}

// toJSON translates what decodes; garbage stays garbage.
func toJSON(d protoreflect.MessageDescriptor, b []byte) []byte {
	m := dynamicpb.NewMessage(d)
	if err := proto.Unmarshal(b, m); err != nil {
		return b
	}
	out, err := protojson.Marshal(m)
	if err != nil {
		return b
	}
	return out
}

func fromJSON(d protoreflect.MessageDescriptor, b []byte) ([]byte, error) {
	m := dynamicpb.NewMessage(d)
	if err := protojson.Unmarshal(b, m); err != nil {
		return nil, err
	}
	return proto.Marshal(m)
}

func (s inJSON) Invoke(ctx context.Context, c hostabi.Call) ([]byte, error) {
	in, out := messages(c.Method)
	dst := c.Dst
	c.Enc, c.Req, c.Dst = hostabi.EncJSON, toJSON(in, c.Req), nil
	reply, err := s.Session.Invoke(ctx, c)
	if err != nil {
		return dst, err
	}
	b, err := fromJSON(out, reply)
	return append(dst, b...), err
}

func (s inJSON) Stream(ctx context.Context, method string, _ hostabi.Encoding) (hostabi.Stream, error) {
	st, err := s.Session.Stream(ctx, method, hostabi.EncJSON)
	if err != nil {
		return nil, err
	}
	in, out := messages(method)
	return jsonStream{st, in, out}, nil
}

type jsonStream struct {
	hostabi.Stream
	in, out protoreflect.MessageDescriptor
}

func (st jsonStream) Send(b []byte) error { return st.Stream.Send(toJSON(st.in, b)) }

func (st jsonStream) Recv() ([]byte, error) {
	b, err := st.Stream.Recv()
	if err != nil {
		return nil, err
	}
	return fromJSON(st.out, b)
}

var _ io.Closer = jsonStream{}

// TestFramesJSON runs the cases over frames in JSON.
func TestFramesJSON(t *testing.T) {
	t.Parallel()
	c := hosttest.Connected("frames, JSON", func(t testing.TB, s hostabi.Session) hostabi.Session { return inJSON{overFrames(t, s)} })
	c.Cannot = map[string]string{
		"carrier/4MiB":   "the filling is an unknown field of protobuf",
		"carrier/4MiB+1": "the filling is an unknown field of protobuf",
	}
	hosttest.Run(t, c, owners)
}

// overFrames connects both ends of the frame carrier.
func overFrames(t testing.TB, s hostabi.Session) hostabi.Session {
	s.(*host.Session).SetRunDir(t.TempDir(), false)
	ours, theirs := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- frame.Serve(ctx, ours, s) }()
	conn := frame.NewConn(theirs)
	t.Cleanup(func() { _ = conn.Close(); cancel(); <-served })
	return conn
}
