// Command kitfiles runs one case of the conformance kit, the last argument, over the file tree /ds and nothing else.
// The cases speak protobuf and the tree protobuf-JSON: the first argument is the schema to translate with, a
// FileDescriptorProto in base64. It prints the result.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hosttest/cases"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "kitfiles:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 3 {
		return errors.New("want a schema and the name of one case")
	}
	schema, err := parse(os.Args[1])
	if err != nil {
		return err
	}
	_, err = fmt.Println(cases.Run(context.Background(), &session{schema: schema}, os.Args[2]))
	return err
}

func parse(text string) (protoreflect.FileDescriptor, error) {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	var d descriptorpb.FileDescriptorProto
	if err := proto.Unmarshal(b, &d); err != nil {
		return nil, err
	}
	return protodesc.NewFile(&d, nil)
}

// session is the host as files.
type session struct {
	schema protoreflect.FileDescriptor
	mu     sync.Mutex // the last answer of a method is one for all
}

// method is a method of the schema and its file; what the schema does not know has empty messages.
func (s *session) method(name string) (path string, in, out protoreflect.MessageDescriptor) {
	full := strings.TrimPrefix(name, "/")
	short := strings.TrimPrefix(full, "ds.host.v1.")
	path = "/ds/call/" + short
	service, method, _ := strings.Cut(short, "/")
	if d := s.schema.Services().ByName(protoreflect.Name(service)); d != nil {
		if m := d.Methods().ByName(protoreflect.Name(method)); m != nil {
			return path, m.Input(), m.Output()
		}
	}
	empty := s.schema.Messages().ByName("Empty")
	return path, empty, empty
}

// toJSON translates what decodes, with a field that no host knows; garbage stays garbage. A large message, which the
// cases make of unknown fields, keeps its size.
func toJSON(d protoreflect.MessageDescriptor, b []byte) []byte {
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

func fromJSON(d protoreflect.MessageDescriptor, b []byte) ([]byte, error) {
	m := dynamicpb.NewMessage(d)
	if err := protojson.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("answer %q: %w", b, err)
	}
	return proto.Marshal(m)
}

// Invoke is what the documentation shows: write, close, open, read.
func (s *session) Invoke(_ context.Context, c hostabi.Call) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path, in, out := s.method(c.Method)
	if err := os.WriteFile(path, toJSON(in, c.Req), 0o600); err != nil {
		return c.Dst, told(err)
	}
	reply, err := os.ReadFile(path)
	if err != nil {
		return c.Dst, told(err)
	}
	b, err := fromJSON(out, reply)
	return append(c.Dst, b...), err
}

// Stream opens a method for reading and writing: it runs at the first Recv.
func (s *session) Stream(_ context.Context, method string, _ hostabi.Encoding) (hostabi.Stream, error) {
	path, in, out := s.method(method)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, told(err)
	}
	return &stream{f: f, r: bufio.NewReader(f), in: in, out: out}, nil
}

// Handle is the writing end of a sink. Blobs are read at their path.
func (s *session) Handle(id uint32) (io.ReadWriteCloser, error) {
	f, err := os.OpenFile("/ds/sink/"+strconv.FormatUint(uint64(id), 10), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, told(err)
	}
	return sink{f}, nil
}

func (s *session) Close() error { return nil }

type sink struct{ *os.File }

func (k sink) Write(b []byte) (int, error) {
	n, err := k.File.Write(b)
	err = errors.Join(err, k.Close())
	return n, told(err)
}

type stream struct {
	f       *os.File
	r       *bufio.Reader
	in, out protoreflect.MessageDescriptor
}

func (st *stream) Send(msg []byte) error {
	_, err := st.f.Write(append(toJSON(st.in, msg), '\n'))
	return told(err)
}

func (st *stream) CloseSend() error { return nil }

func (st *stream) Recv() ([]byte, error) {
	line, err := st.r.ReadBytes('\n')
	if err != nil {
		return nil, told(err)
	}
	return fromJSON(st.out, line)
}

func (st *stream) Close() error { return st.f.Close() }

// told is the error that the host tells beside an errno, which must be the one of its code.
func told(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	b, rerr := os.ReadFile("/ds/last_error.json")
	if rerr != nil {
		return rerr
	}
	e := hostabi.ParseStatusJSON(b)
	if want := errnos(e.Code); !errors.Is(err, want) {
		return fmt.Errorf("%w for %v %s, want %w", err, e.Code, e.Reason, want)
	}
	return e
}

func errnos(c hostabi.Code) syscall.Errno {
	switch c {
	case hostabi.PermissionDenied, hostabi.Unauthenticated:
		return syscall.EACCES
	case hostabi.NotFound:
		return syscall.ENOENT
	case hostabi.AlreadyExists:
		return syscall.EEXIST
	case hostabi.InvalidArgument, hostabi.OutOfRange:
		return syscall.EINVAL
	case hostabi.Unimplemented:
		return syscall.ENOTSUP
	}
	return syscall.EIO
}
