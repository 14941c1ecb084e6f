//go:build unix

package frame

import (
	"context"
	"encoding/binary"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

func TestStreamEcho(t *testing.T) {
	c := connect(t, newFake())
	st, err := c.Stream(t.Context(), "/stream/echo", hostabi.EncProto)
	if err != nil {
		t.Fatal(err)
	}
	const n = 200
	go func() {
		for i := range n {
			if err := st.Send([]byte{byte(i)}); err != nil {
				t.Errorf("send %d: %v", i, err)
			}
		}
		if err := st.CloseSend(); err != nil {
			t.Error(err)
		}
	}()
	for i := range n {
		msg, err := st.Recv()
		if err != nil || len(msg) != 1 || msg[0] != byte(i) {
			t.Fatalf("message %d: %v, %v", i, msg, err)
		}
	}
	for range 2 {
		if _, err := st.Recv(); err != io.EOF {
			t.Errorf("after the end: %v, want io.EOF", err)
		}
	}
	if err := st.Send(nil); hostabi.ReasonOf(err) != hostabi.ReasonBadMessage {
		t.Errorf("send after CloseSend: %v", err)
	}
	if err := st.Close(); err != nil {
		t.Error(err)
	}
}

func startCount(t *testing.T, c *Conn, n int) hostabi.Stream {
	t.Helper()
	st, err := c.Stream(t.Context(), "/stream/count", hostabi.EncProto)
	if err == nil {
		err = st.Send(binary.LittleEndian.AppendUint32(nil, uint32(n)))
	}
	if err == nil {
		err = st.CloseSend()
	}
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestStreamErrors(t *testing.T) {
	c := connect(t, newFake())
	st, err := c.Stream(t.Context(), "/no/stream", hostabi.EncProto)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Send(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Recv(); hostabi.ReasonOf(err) != hostabi.ReasonUnknownMethod {
		t.Errorf("unknown stream: %v", err)
	}
	if err := st.Send(nil); err != io.EOF {
		t.Errorf("send to an ended stream: %v, want io.EOF", err)
	}
	st, _ = c.Stream(t.Context(), "/stream/echo", hostabi.EncProto)
	if err := st.Send(make([]byte, hostabi.MaxMessage+1)); hostabi.ReasonOf(err) != hostabi.ReasonTooLarge {
		t.Errorf("4 MiB + 1 message: %v", err)
	}
	if err := st.Send(make([]byte, hostabi.MaxMessage)); err != nil {
		t.Errorf("4 MiB message: %v", err)
	}
	if msg, err := st.Recv(); err != nil || len(msg) != hostabi.MaxMessage {
		t.Errorf("4 MiB message back: %d bytes, %v", len(msg), err)
	}
	st.Close()
}

// TestSlowReaderIsolated: a stream that nobody reads keeps its credit and stops nothing else.
func TestSlowReaderIsolated(t *testing.T) {
	c := connect(t, newFake())
	slow := startCount(t, c, 100_000)
	for range 20 {
		fast := startCount(t, c, 100)
		for i := 99; i >= 0; i-- {
			if msg, err := fast.Recv(); err != nil || msg[0] != byte(i) {
				t.Fatalf("fast stream at %d: %v, %v", i, msg, err)
			}
		}
		if _, err := fast.Recv(); err != io.EOF {
			t.Fatal(err)
		}
		if _, err := invoke(t, c, "/echo", nil); err != nil {
			t.Fatal(err)
		}
	}
	if msg, err := slow.Recv(); err != nil || msg[0] != byte((100_000-1)%256) {
		t.Errorf("slow stream: %v, %v", msg, err)
	}
	slow.Close()
	for {
		if _, err := slow.Recv(); err != nil {
			if hostabi.ReasonOf(err) != hostabi.ReasonInterrupted {
				t.Errorf("closed stream: %v", err)
			}
			return
		}
	}
}

func TestStreams64(t *testing.T) {
	s := newFake()
	c := connect(t, s)
	var streams []hostabi.Stream
	for range hostabi.MaxStreams {
		st, _ := c.Stream(t.Context(), "/stream/echo", hostabi.EncProto)
		if err := st.Send([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := st.Recv(); err != nil {
			t.Fatal(err)
		}
		streams = append(streams, st)
	}
	st, _ := c.Stream(t.Context(), "/stream/echo", hostabi.EncProto)
	if err := st.Send([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Recv(); hostabi.ReasonOf(err) != hostabi.ReasonTooMany {
		t.Errorf("65th stream: %v, want TOO_MANY", err)
	}
	if err := streams[0].CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := streams[0].Recv(); err != io.EOF {
		t.Fatal(err)
	}
	st, _ = c.Stream(t.Context(), "/stream/echo", hostabi.EncProto)
	_ = st.Send([]byte("y"))
	if msg, err := st.Recv(); err != nil || string(msg) != "y" {
		t.Errorf("stream in the place of a finished one: %q, %v", msg, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.maxOpen != hostabi.MaxStreams {
		t.Errorf("%d streams at once in the session, want %d", s.maxOpen, hostabi.MaxStreams)
	}
}

func TestStreamCancel(t *testing.T) {
	for _, how := range []string{"close", "ctx"} {
		t.Run(how, func(t *testing.T) {
			s := newFake()
			c := connect(t, s)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			st, _ := c.Stream(ctx, "/stream/sink", hostabi.EncProto)
			if err := st.Send(nil); err != nil {
				t.Fatal(err)
			}
			<-s.blocked
			if how == "close" {
				st.Close()
			} else {
				cancel()
			}
			if _, err := st.Recv(); hostabi.ReasonOf(err) != hostabi.ReasonInterrupted {
				t.Errorf("cancelled stream: %v", err)
			}
			for end := time.Now().Add(5 * time.Second); ; runtime.Gosched() {
				s.mu.Lock()
				open := s.open
				s.mu.Unlock()
				if open == 0 {
					return
				}
				if time.Now().After(end) {
					t.Fatal("the host still runs the stream")
				}
			}
		})
	}
}

// TestSendWaitsForCredit: the guest's own messages stop at the limit and go on with ACK.
func TestSendWaitsForCredit(t *testing.T) {
	s := newFake()
	c := connect(t, s)
	st, _ := c.Stream(t.Context(), "/stream/sink", hostabi.EncProto)
	for range hostabi.MaxQueued {
		if err := st.Send([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	sent := make(chan error)
	go func() { sent <- st.Send([]byte("x")) }()
	<-s.blocked
	select {
	case err := <-sent:
		t.Fatalf("message without credit was sent: %v", err)
	default:
	}
	st.Close()
	if err := <-sent; err != io.EOF {
		t.Errorf("send on a closed stream: %v, want io.EOF", err)
	}
}

func TestCreditExceeded(t *testing.T) {
	guest := serve(t, newFake(), clean)
	for i := range hostabi.MaxQueued + 3 { // the last ones arrive when the stream has ended already
		f := Frame{ID: 1, Body: []byte("x")}
		if i == 0 {
			f.Method = "/stream/sink"
		}
		if _, err := guest.Write(Append(nil, &f)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := Decode(guest, nil)
	if err != nil || f.ID != 1 || f.Flags != FlagEnd || f.Code != uint16(hostabi.ResourceExhausted) || hostabi.ParseStatus(f.Body).Reason != hostabi.ReasonCredit {
		t.Fatalf("got %+v, %v, want RESOURCE_EXHAUSTED CREDIT", f, err)
	}
	_, _ = guest.Write(Append(nil, &Frame{ID: 2, Flags: FlagEnd, Method: "/echo"}))
	if f, err := Decode(guest, nil); err != nil || f.ID != 2 {
		t.Errorf("next call: %+v, %v", f, err)
	}
}
