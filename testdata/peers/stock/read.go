package stock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// piece is what streams consist of, over and over.
const piece = 256 << 10

func pattern() []byte {
	b := make([]byte, piece)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// readDesc streams chunks without end; the request is the size of one.
var readDesc = grpc.StreamDesc{StreamName: "Read", ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
	var size wrapperspb.UInt32Value
	if err := s.RecvMsg(&size); err != nil {
		return err
	}
	chunk := wrapperspb.Bytes(bytes.Repeat(pattern(), int(size.Value)/piece))
	for {
		if err := s.SendMsg(chunk); err != nil {
			return err
		}
	}
}}

// MeasureRead takes n bytes from a stream of chunks, once to compare them and once for the clock, and says how long that
// took in the words that the harness reads.
func MeasureRead(ctx context.Context, conn *grpc.ClientConn, n, chunk int) (string, error) {
	if chunk%piece != 0 || n%chunk != 0 {
		return "", fmt.Errorf("%d is no number of chunks of %d, or that no multiple of %d", n, chunk, piece)
	}
	want := bytes.Repeat(pattern(), chunk/piece)
	err := read(ctx, conn, n, chunk, func(b []byte) error {
		if !bytes.Equal(b, want) {
			return errors.New("read other bytes than were written")
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	total := 0
	at := time.Now()
	err = read(ctx, conn, n, chunk, func(b []byte) error { total += len(b); return nil })
	return fmt.Sprintf("read %d ns %d\n", total, time.Since(at).Nanoseconds()), err
}

func read(ctx context.Context, conn *grpc.ClientConn, n, chunk int, use func([]byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := conn.NewStream(ctx, &readDesc, "/peers.Config/Read")
	if err == nil {
		err = errors.Join(s.SendMsg(wrapperspb.UInt32(uint32(chunk))), s.CloseSend())
	}
	for left := n; left > 0 && err == nil; {
		var m wrapperspb.BytesValue
		if err = s.RecvMsg(&m); err == nil && len(m.Value) == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err == nil {
			left -= len(m.Value)
			err = use(m.Value)
		}
	}
	return err
}
