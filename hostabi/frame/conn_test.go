//go:build unix

package frame

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// lateSession answers a call that was given up all the same, with more than a socket holds.
type lateSession struct{ *fakeSession }

const lateSize = 1 << 20

func (s lateSession) Invoke(ctx context.Context, c hostabi.Call) ([]byte, error) {
	if c.Method != "/late" {
		return s.fakeSession.Invoke(ctx, c)
	}
	s.blocked <- struct{}{}
	<-ctx.Done()
	return append(c.Dst, make([]byte, lateSize)...), nil
}

// TestGivenUpCallsAreRead: replies that nobody waits for do not fill the socket, which would stop the host and then
// the guest that writes to it.
func TestGivenUpCallsAreRead(t *testing.T) {
	s := lateSession{newFake()}
	c := connect(t, s)
	for range hostabi.MaxCalls + 1 {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-s.blocked
			cancel()
		}()
		if _, err := c.Invoke(ctx, hostabi.Call{Method: "/late"}); hostabi.ReasonOf(err) != hostabi.ReasonInterrupted {
			t.Fatalf("call that was given up: %v", err)
		}
	}
	req := make([]byte, hostabi.MaxMessage)
	if got, err := invoke(t, c, "/echo", req); err != nil || len(got) != len(req) {
		t.Errorf("call behind them: %d bytes, %v", len(got), err)
	}
}

// TestWaitersTakeTurns: calls that end early, streams and other calls share one connection, and everybody gets what
// is his.
func TestWaitersTakeTurns(t *testing.T) {
	c := connect(t, newFake())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 100 {
				want := bytes.Repeat([]byte(fmt.Sprintf("%d-%d ", i, j)), 1+j*j)
				if got, err := invoke(t, c, "/echo", want); err != nil || !bytes.Equal(got, want) {
					t.Errorf("call %d-%d: %d bytes, want %d, %v", i, j, len(got), len(want), err)
				}
			}
		})
		wg.Go(func() {
			for j := range 20 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(j)*time.Microsecond*100)
				if _, err := c.Invoke(ctx, hostabi.Call{Method: "/block"}); hostabi.ReasonOf(err) != hostabi.ReasonTimeout {
					t.Errorf("call past its deadline: %v", err)
				}
				cancel()
			}
		})
		wg.Go(func() {
			for range 10 {
				st := startCount(t, c, 30)
				for n := range 30 {
					if b, err := st.Recv(); err != nil || len(b) != 1 || int(b[0]) != 29-n {
						t.Errorf("message %d: %v, %v", n, b, err)
						break
					}
				}
				if _, err := st.Recv(); err != io.EOF {
					t.Errorf("end of the stream: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if c.in.timed == nil {
		t.Fatal("this connection can be interrupted")
	}
}

// bare is a connection whose reads cannot be interrupted.
type bare struct{ io.ReadWriteCloser }

func TestUninterruptible(t *testing.T) {
	s := newFake()
	c := NewConn(bare{serve(t, s, clean)})
	if got, err := invoke(t, c, "/echo", []byte("x")); err != nil || string(got) != "x" {
		t.Fatalf("got %q, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-s.blocked
		cancel()
	}()
	if _, err := c.Invoke(ctx, hostabi.Call{Method: "/block"}); hostabi.ReasonOf(err) != hostabi.ReasonInterrupted {
		t.Errorf("cancelled call: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestIdleConnHasNoReader: between calls no goroutine reads.
func TestIdleConnHasNoReader(t *testing.T) {
	c := connect(t, newFake())
	st := startCount(t, c, 1)
	for end := false; !end; {
		_, err := st.Recv()
		if end = err == io.EOF; err != nil && !end {
			t.Fatal(err)
		}
	}
	c.wg.Wait() // the reader of the stream
	if _, err := invoke(t, c, "/echo", nil); err != nil {
		t.Fatal(err)
	}
	if c.mu.Lock(); c.watching {
		t.Error("a goroutine reads for nobody")
	}
	c.mu.Unlock()
}
