package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

func TestGate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(4)
		for range 4 {
			if err := g.acquire(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := g.acquire(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a fifth slot: %v", err)
		}
		g.halve()
		g.halve()
		g.halve()
		for range 4 {
			g.release(false)
		}
		if err := g.acquire(t.Context()); err != nil || g.limit != 1 {
			t.Errorf("after three times 429 the limit is %d, %v", g.limit, err)
		}
		got := make(chan struct{})
		go func() {
			if g.acquire(t.Context()) == nil {
				close(got)
			}
		}()
		synctest.Wait()
		select {
		case <-got:
			t.Error("two slots of one")
		default:
		}
		g.release(true)
		<-got
		g.release(true)
		for range 28 {
			if err := g.acquire(t.Context()); err != nil {
				t.Fatal(err)
			}
			g.release(true)
		}
		if g.limit != 4 || g.busy != 0 {
			t.Errorf("after 30 successes the limit is %d, busy %d", g.limit, g.busy)
		}
	})
}

// TestSlots: transfers between two hosts in both directions cannot wait for each other.
func TestSlots(t *testing.T) {
	t.Parallel()
	c, err := New(Options{Concurrency: 1})
	if err != nil {
		t.Fatal(err)
	}
	at := func(ref string) source {
		r, err := ParseReference(ref)
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.at(r)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	a, b, local := at("a.example/x"), at("b.example/x"), at("oci-layout:"+t.TempDir())
	done := make(chan struct{})
	for _, places := range [][]source{{a, b}, {b, a}, {a, a}, {b, local}, {local, nil}} {
		go func() {
			defer func() { done <- struct{}{} }()
			for range 200 {
				release, err := c.slots(t.Context(), places...)
				if err != nil {
					t.Error(err)
					return
				}
				release(true)
			}
		}()
	}
	for range 5 {
		<-done
	}
	release, err := c.slots(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.slots(ctx, b, a); !errors.Is(err, context.Canceled) {
		t.Errorf("slots of a busy host: %v", err)
	}
	release(true)
	if _, err := c.slots(t.Context(), b, a); err != nil {
		t.Errorf("a failed attempt kept a slot: %v", err)
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	for n, want := range []time.Duration{250, 500, 1000, 2000, 4000, 8000, 10000, 10000} {
		want *= time.Millisecond
		if d := backoff(n); d < want*9/10 || d > want*11/10 {
			t.Errorf("repeat %d waits %s, want about %s", n, d, want)
		}
	}
	if d := backoff(1 << 20); d > 11*time.Second {
		t.Errorf("a late repeat waits %s", d)
	}
}

// TestGuard: an API request to a host that only a server named is refused before anything is sent.
func TestGuard(t *testing.T) {
	t.Parallel()
	c, err := New(Options{Transport: refuseAll{t}})
	if err != nil {
		t.Fatal(err)
	}
	h, err := c.host(Reference{Host: "a.example", Repository: "x"})
	if err != nil {
		t.Fatal(err)
	}
	body := &closed{Reader: strings.NewReader("x")}
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "https://b.example/v2/x/blobs/uploads/1", body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := h.client.Do(q)
	if err == nil {
		_ = resp.Body.Close()
	}
	if hostabi.ReasonOf(err) != hostabi.ReasonAddressDenied || !body.done {
		t.Errorf("%v, body closed: %v", err, body.done)
	}
}

type refuseAll struct{ t *testing.T }

func (r refuseAll) RoundTrip(q *http.Request) (*http.Response, error) {
	r.t.Errorf("%s was sent", q.URL)
	return nil, errors.New("refused")
}

type closed struct {
	io.Reader
	done bool
}

func (c *closed) Close() error {
	c.done = true
	return nil
}
