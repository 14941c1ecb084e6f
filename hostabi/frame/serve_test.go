//go:build unix

package frame

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/delivery-station/ds/hostabi"
)

func TestHostGone(t *testing.T) {
	s := newFake()
	host, guest := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, host, s) }()
	c := NewConn(guest)
	defer c.Close()
	st, _ := c.Stream(t.Context(), "/stream/sink", hostabi.EncProto)
	_ = st.Send(nil)
	<-s.blocked
	done := make(chan error)
	go func() {
		_, err := invoke(t, c, "/block", nil)
		done <- err
	}()
	<-s.blocked
	cancel()
	if err := <-served; !errors.Is(err, context.Canceled) {
		t.Errorf("Serve with a cancelled context: %v", err)
	}
	if err := <-done; hostabi.ReasonOf(err) != hostabi.ReasonInterrupted {
		t.Errorf("call: %v", err)
	}
	if _, err := st.Recv(); hostabi.ReasonOf(err) != hostabi.ReasonInterrupted {
		t.Errorf("stream: %v", err)
	}
	if _, err := invoke(t, c, "/echo", nil); hostabi.ReasonOf(err) != hostabi.ReasonInterrupted {
		t.Errorf("next call: %v", err)
	}
}

// raw sends bytes to a served session and returns the frames that come back until it closes.
func raw(t *testing.T, s hostabi.Session, want func(error) bool, in io.Reader) []Frame {
	t.Helper()
	guest := serve(t, s, want)
	if _, err := io.Copy(struct{ io.Writer }{guest}, in); err != nil && !errors.Is(err, syscall.EPIPE) {
		t.Fatal(err)
	}
	rc, err := guest.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = rc.Control(func(fd uintptr) { _ = syscall.Shutdown(int(fd), syscall.SHUT_WR) })
	var got []Frame
	for {
		f, err := Decode(guest, nil)
		if err != nil {
			return got
		}
		got = append(got, f)
	}
}

func TestSessionErrors(t *testing.T) {
	open := func(id uint32, flags Flags, method string, body string) []byte {
		return Append(nil, &Frame{ID: id, Flags: flags, Method: method, Body: []byte(body)})
	}
	for name, c := range map[string]struct {
		in   []byte
		code hostabi.Code
	}{
		"bad-version":       {[]byte{9}, hostabi.Unimplemented},
		"http2-preface":     {[]byte("PRI * HTTP/2.0\r\n\r\n"), hostabi.Unimplemented},
		"bad-flag":          {open(1, 32, "/echo", ""), hostabi.InvalidArgument},
		"fd from guest":     {open(1, FlagEnd|FlagFD, "/echo", ""), hostabi.InvalidArgument},
		"id 0":              {open(0, FlagEnd, "/echo", ""), hostabi.InvalidArgument},
		"id too large":      {open(1<<31, FlagEnd, "/echo", ""), hostabi.InvalidArgument},
		"no method":         {open(1, FlagEnd, "", ""), hostabi.InvalidArgument},
		"live id-reuse":     {append(open(1, 0, "/stream/sink", ""), open(1, 0, "/stream/sink", "")...), hostabi.InvalidArgument},
		"dead id-reuse":     {append(open(5, FlagEnd, "/echo", ""), open(5, FlagEnd, "/echo", "")...), hostabi.InvalidArgument},
		"id going back":     {append(open(5, FlagEnd, "/echo", ""), open(4, FlagEnd, "/echo", "")...), hostabi.InvalidArgument},
		"cancel with open":  {open(1, FlagEnd|FlagCancel, "/echo", ""), hostabi.InvalidArgument},
		"two requests":      {append(open(1, FlagEnd, "/block", ""), open(1, FlagEnd, "", "")...), hostabi.InvalidArgument},
		"message after END": {append(open(1, FlagEnd, "/stream/sink", ""), open(1, 0, "", "x")...), hostabi.InvalidArgument},
		"surplus ACK": {
			append(open(1, 0, "/stream/sink", ""), Append(nil, &Frame{ID: 1, Flags: FlagAck, Code: 1})...), hostabi.InvalidArgument,
		},
		"length over 64 MiB": {binary.LittleEndian.AppendUint32(open(1, FlagEnd, "/echo", "")[:12], MaxSkip+1), hostabi.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			got := raw(t, newFake(), func(err error) bool { return hostabi.ReasonOf(err) == hostabi.ReasonBadFrame }, bytes.NewReader(c.in))
			if len(got) == 0 {
				t.Fatal("no frame")
			}
			last := got[len(got)-1]
			for i := range got { // answers of cancelled calls may come behind
				if got[i].ID == 0 {
					last = got[i]
				}
			}
			if last.ID != 0 || last.Flags != FlagEnd || last.Code != uint16(c.code) || hostabi.ParseStatus(last.Body).Reason != hostabi.ReasonBadFrame {
				t.Errorf("got %+v, want id 0, END, %s", last, c.code)
			}
		})
	}
}

func TestGuestSeesSessionError(t *testing.T) {
	guest := serve(t, newFake(), func(err error) bool { return hostabi.ReasonOf(err) == hostabi.ReasonBadFrame })
	c := NewConn(guest)
	if _, err := invoke(t, c, "/echo", nil); err != nil {
		t.Fatal(err)
	}
	if err := c.w.write([]byte{77}); err != nil {
		t.Fatal(err)
	}
	if _, err := invoke(t, c, "/echo", nil); hostabi.ReasonOf(err) != hostabi.ReasonBadFrame {
		t.Errorf("call after a session error: %v", err)
	}
	c.Close()
}

// TestLateFrames: what a guest sends before it knows that a call has ended is ignored.
func TestLateFrames(t *testing.T) {
	s := newFake()
	guest := serve(t, s, clean)
	write := func(f Frame) {
		t.Helper()
		if _, err := guest.Write(Append(nil, &f)); err != nil {
			t.Fatal(err)
		}
	}
	write(Frame{ID: 1, Flags: FlagEnd, Method: "/echo"})
	if f, err := Decode(guest, nil); err != nil || f.ID != 1 {
		t.Fatalf("%+v, %v", f, err)
	}
	for _, flags := range []Flags{FlagCancel, FlagAck, FlagEnd, 0} {
		write(Frame{ID: 1, Flags: flags, Code: 1, Body: []byte("late")})
	}
	write(Frame{ID: 2, Flags: FlagEnd, Method: "/echo", Body: []byte("alive")})
	if f, err := Decode(guest, nil); err != nil || f.ID != 2 || string(f.Body) != "alive" {
		t.Fatalf("%+v, %v", f, err)
	}
}

// TestSimpleGuest drives a server stream as guests of few lines do: one request with END; no ACK may come.
func TestSimpleGuest(t *testing.T) {
	guest := serve(t, newFake(), clean)
	req := Frame{ID: 1, Flags: FlagEnd, Method: "/stream/count", Body: binary.LittleEndian.AppendUint32(nil, 40)}
	if _, err := guest.Write(Append(nil, &req)); err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		f, err := Decode(guest, nil)
		if err != nil || f.Code != 0 {
			t.Fatalf("%+v, %v", f, err)
		}
		if f.Flags == FlagEnd && len(f.Body) == 0 {
			if n != 40 {
				t.Errorf("%d messages, want 40", n)
			}
			return
		}
		if _, err := guest.Write(Append(nil, &Frame{ID: 1, Flags: FlagAck, Code: 1})); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTooLargeMessages(t *testing.T) {
	big := make([]byte, hostabi.MaxMessage+1)
	guest := serve(t, newFake(), clean)
	for _, f := range []Frame{
		{ID: 1, Flags: FlagEnd, Method: "/echo", Body: big},
		{ID: 2, Method: "/stream/sink"},
		{ID: 2, Body: big},
	} {
		if _, err := guest.Write(Append(nil, &f)); err != nil {
			t.Fatal(err)
		}
	}
	got := make([]Frame, 2)
	for i := range got {
		var err error
		if got[i], err = Decode(guest, nil); err != nil {
			t.Fatal(err)
		}
	}
	for i, f := range got {
		if f.ID != uint32(i+1) || f.Code != uint16(hostabi.ResourceExhausted) || hostabi.ParseStatus(f.Body).Reason != hostabi.ReasonTooLarge {
			t.Errorf("frame %d: id %d code %d", i, f.ID, f.Code)
		}
	}
}

// TestSplitServe: the same conversation whatever the pieces that the bytes come in.
func TestSplitServe(t *testing.T) {
	var in []byte
	for _, f := range []Frame{
		{ID: 1, Flags: FlagEnd, Method: "/echo", Body: []byte("one")},
		{ID: 2, Enc: hostabi.EncJSON, Flags: FlagEnd, Method: "/fail"},
	} {
		in = Append(in, &f)
	}
	guest := serve(t, newFake(), clean)
	r := iotest.OneByteReader(bytes.NewReader(in))
	if _, err := io.Copy(struct{ io.Writer }{guest}, r); err != nil {
		t.Fatal(err)
	}
	seen := map[uint32]Frame{}
	for range 2 {
		f, err := Decode(iotest.OneByteReader(guest), nil)
		if err != nil {
			t.Fatal(err)
		}
		seen[f.ID] = f
	}
	if string(seen[1].Body) != "one" || seen[2].Enc != hostabi.EncJSON || hostabi.ParseStatusJSON(seen[2].Body).Reason != hostabi.ReasonCapabilityDenied {
		t.Errorf("got %+v", seen)
	}
}

// bad is a host that writes given bytes to whoever calls.
func bad(t *testing.T, answer []byte) *Conn {
	t.Helper()
	host, guest := pair(t)
	go func() {
		_, _ = Decode(host, nil)
		_, _ = host.Write(answer)
		_, _ = io.Copy(io.Discard, host)
		host.Close()
	}()
	c := NewConn(guest)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestGuestRefusesBadHost(t *testing.T) {
	flood := []byte{}
	for range hostabi.MaxQueued + 1 {
		flood = Append(flood, &Frame{ID: 1, Body: []byte("x")})
	}
	for name, c := range map[string]struct {
		answer []byte
		want   hostabi.Reason
	}{
		"garbage":       {[]byte("garbage!garbage!garbage!"), hostabi.ReasonProtocol},
		"flood":         {flood, hostabi.ReasonProtocol},
		"surplus ACK":   {Append(nil, &Frame{ID: 1, Flags: FlagAck, Code: 9}), hostabi.ReasonProtocol},
		"large message": {Append(nil, &Frame{ID: 1, Body: make([]byte, hostabi.MaxMessage+1)}), hostabi.ReasonTooLarge},
		"bad status":    {Append(nil, &Frame{ID: 1, Flags: FlagEnd, Code: 5, Body: []byte{0xff}}), hostabi.ReasonInternal},
	} {
		t.Run(name, func(t *testing.T) {
			st, err := bad(t, c.answer).Stream(t.Context(), "/stream/sink", hostabi.EncProto)
			if err != nil {
				t.Fatal(err)
			}
			if err := st.Send(nil); err != nil {
				t.Fatal(err)
			}
			for err == nil {
				<-st.(*outbound).ended // the reader has seen everything
				_, err = st.Recv()
			}
			if hostabi.ReasonOf(err) != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
	t.Run("descriptor without file", func(t *testing.T) {
		answer := Append(nil, &Frame{ID: 1, Flags: FlagEnd | FlagFD, Body: []byte{8, 7}})
		if _, err := invoke(t, bad(t, answer), cacheOpen, nil); err != nil {
			t.Errorf("reply without the promised descriptor: %v", err)
		}
	})
}

// FuzzServe: no bytes of a guest panic the host, leave a goroutine or keep Serve from ending.
func FuzzServe(f *testing.F) {
	var talk []byte
	for _, fr := range []Frame{
		{ID: 1, Flags: FlagEnd, Method: "/echo", Body: []byte("x")},
		{ID: 2, Method: "/stream/echo", Body: []byte("a")},
		{ID: 2, Body: []byte("b")},
		{ID: 2, Flags: FlagEnd},
		{ID: 3, Flags: FlagEnd, Method: "/stream/count", Body: []byte{40, 0, 0, 0}},
		{ID: 3, Flags: FlagAck, Code: 3},
		{ID: 4, Flags: FlagEnd, Method: "/block"},
		{ID: 4, Flags: FlagCancel},
	} {
		talk = Append(talk, &fr)
	}
	f.Add(talk)
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\n"))
	f.Add([]byte{1, 0, 0, 0, 1, 0, 0, 0, 5, 0, 1, 0, 255, 255, 255, 3, '/', 'e', 'c', 'h', 'o'})
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &fakeSession{blocked: make(chan struct{}, len(b)+100)}
		_ = Serve(t.Context(), &half{Reader: bytes.NewReader(b)}, s)
		if s.open != 0 {
			t.Fatalf("%d streams left open", s.open)
		}
	})
}

// half is a guest that sends bytes and discards what it gets.
type half struct{ io.Reader }

func (*half) Write(p []byte) (int, error) { return len(p), nil }
func (*half) Close() error                { return nil }
