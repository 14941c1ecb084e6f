// Command kitfiles runs one case of the conformance kit, the last argument, over the file tree /ds and nothing else.
// The cases speak protobuf and the tree protobuf-JSON: the first argument is the schema to translate with, a
// FileDescriptorProto in base64. It prints the result.
package main

import (
	"bufio"
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

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hosttest/cases"
	"github.com/delivery-station/ds/hostabi/hosttest/injson"
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
	_, err = fmt.Println(cases.Run(context.Background(), injson.Over(&session{}, schema), os.Args[2]))
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

// session is the host as files, in JSON.
type session struct {
	mu sync.Mutex // the last answer of a method is one for all
}

// path is the file of a method.
func path(method string) string {
	return "/ds/call/" + strings.TrimPrefix(strings.TrimPrefix(method, "/"), "ds.host.v1.")
}

// Invoke is what the documentation shows: write, close, open, read.
func (s *session) Invoke(_ context.Context, c hostabi.Call) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.WriteFile(path(c.Method), c.Req, 0o600); err != nil {
		return c.Dst, told(err)
	}
	reply, err := os.ReadFile(path(c.Method))
	return append(c.Dst, reply...), told(err)
}

// Stream opens a method for reading and writing: it runs at the first Recv.
func (s *session) Stream(_ context.Context, method string, _ hostabi.Encoding) (hostabi.Stream, error) {
	f, err := os.OpenFile(path(method), os.O_RDWR, 0)
	if err != nil {
		return nil, told(err)
	}
	return &stream{f: f, r: bufio.NewReader(f)}, nil
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
	f *os.File
	r *bufio.Reader
}

func (st *stream) Send(msg []byte) error {
	_, err := st.f.Write(append(msg, '\n'))
	return told(err)
}

func (st *stream) CloseSend() error { return nil }

func (st *stream) Recv() ([]byte, error) {
	line, err := st.r.ReadBytes('\n')
	if err != nil {
		return nil, told(err)
	}
	return line, nil
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
