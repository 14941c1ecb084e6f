package registry

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

const (
	firstBackoff = 250 * time.Millisecond
	lastBackoff  = 10 * time.Second
	maxDrain     = 64 << 10
)

// retrier repeats requests that failed in passing (registry.md section 5). A request with a body that cannot
// be read again is sent once.
type retrier struct {
	c    *Client
	next http.RoundTripper
	gate *gate
}

func (t *retrier) RoundTrip(q *http.Request) (*http.Response, error) {
	ctx := q.Context()
	for n := 0; ; n++ {
		if err := t.pause(ctx, q.URL.Host); err != nil {
			closeBody(q)
			return nil, err
		}
		resp, err := t.next.RoundTrip(q)
		if isOnce(ctx) || !transient(ctx, resp, err) {
			return resp, err
		}
		after, asked := time.Duration(0), false
		if resp != nil {
			after, asked = parseRetryAfter(resp.Header.Get("Retry-After"), t.c.now())
			if resp.StatusCode == http.StatusTooManyRequests {
				t.gate.halve()
			}
		}
		if asked && !t.c.patient(ctx, after) {
			drain(resp)
			return nil, &errWait{resp.StatusCode, after}
		}
		if asked {
			t.c.pauses.set(q.URL.Host, t.c.now().Add(after))
		}
		again, ok := rewind(q)
		if !ok || n >= t.c.o.Retry.Attempts {
			return resp, err
		}
		if resp != nil {
			drain(resp)
		}
		e := Event{Op: opOf(q), Phase: PhaseRetry, Ref: q.URL.Host, Attempt: n + 1, Wait: after, Err: err}
		if asked {
			e.Phase = PhaseWait
		} else {
			e.Wait = backoff(n)
		}
		t.c.observe(e)
		if !asked {
			if err := t.c.sleep(ctx, e.Wait); err != nil {
				return nil, err
			}
		}
		q = again
	}
}

// pause waits as long as the host asked for; a mirror that wants that is not worth it.
func (t *retrier) pause(ctx context.Context, host string) error {
	if isOnce(ctx) {
		return nil
	}
	return t.c.pauses.wait(ctx, t.c, host)
}

// transient reports whether a repeat may help.
func transient(ctx context.Context, resp *http.Response, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	if err == nil {
		switch resp.StatusCode {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
			http.StatusServiceUnavailable, http.StatusGatewayTimeout, 522: // 522: a proxy could not connect
			return true
		}
		return false
	}
	if hostabi.ReasonOf(err) != "" || isTLS(err) || errors.Is(err, syscall.ECONNREFUSED) {
		return false
	}
	if d, ok := errors.AsType[*net.DNSError](err); ok && d.IsNotFound {
		return false
	}
	return isNet(err)
}

// rewind is q with its body at the beginning.
func rewind(q *http.Request) (*http.Request, bool) {
	if q.Body == nil || q.Body == http.NoBody {
		return q, true
	}
	if q.GetBody == nil {
		return nil, false
	}
	body, err := q.GetBody()
	if err != nil {
		return nil, false
	}
	again := q.Clone(q.Context())
	again.Body = body
	return again, true
}

// backoff is the pause before repeat n (from 0), jittered by a tenth.
func backoff(n int) time.Duration {
	d := lastBackoff
	if n < 6 {
		d = min(firstBackoff<<n, lastBackoff)
	}
	return d - d/20 + rand.N(d/10) //nolint:gosec // jitter, not a secret
}

// parseRetryAfter reads seconds or an HTTP date (RFC 9110 section 10.2.3); never negative.
func parseRetryAfter(s string, now time.Time) (time.Duration, bool) {
	if s == "" {
		return 0, false
	}
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second, true
	}
	at, err := http.ParseTime(s)
	if err != nil {
		return 0, false
	}
	return max(0, at.Sub(now)), true
}

// patient reports whether a pause is within what the options and the deadline allow.
func (c *Client) patient(ctx context.Context, d time.Duration) bool {
	if d > c.o.Retry.MaxWait {
		return false
	}
	deadline, ok := ctx.Deadline()
	return !ok || c.now().Add(d).Before(deadline)
}

// pauses are the times before which a host wants no request.
type pauses struct {
	mu sync.Mutex
	m  map[string]time.Time
}

func (p *pauses) set(host string, until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.m == nil {
		p.m = make(map[string]time.Time)
	}
	if p.m[host].Before(until) {
		p.m[host] = until
	}
}

func (p *pauses) wait(ctx context.Context, c *Client, host string) error {
	for {
		p.mu.Lock()
		until := p.m[host]
		p.mu.Unlock()
		d := until.Sub(c.now())
		if d <= 0 {
			return nil
		}
		if err := c.sleep(ctx, d); err != nil {
			return err
		}
	}
}

// gate bounds the blobs in flight of one host.
type gate struct {
	mu        sync.Mutex
	max       int
	limit     int
	busy      int
	successes int
	changed   chan struct{} // closed when a slot may be free
}

func newGate(limit int) *gate { return &gate{max: limit, limit: limit, changed: make(chan struct{})} }

func (g *gate) acquire(ctx context.Context) error {
	for {
		g.mu.Lock()
		if g.busy < g.limit {
			g.busy++
			g.mu.Unlock()
			return nil
		}
		changed := g.changed
		g.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// release gives a slot back; ten successes raise a lowered limit by one.
func (g *gate) release(ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy--
	if ok && g.limit < g.max {
		if g.successes++; g.successes == 10 {
			g.limit, g.successes = g.limit+1, 0
		}
	}
	close(g.changed)
	g.changed = make(chan struct{})
}

// halve lowers the limit after a 429.
func (g *gate) halve() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limit, g.successes = max(1, g.limit/2), 0
}

// sleepFor waits for d or the end of ctx.
func sleepFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, maxDrain) // only so that the connection can be used again
	_ = resp.Body.Close()
}

func closeBody(q *http.Request) {
	if q.Body != nil {
		_ = q.Body.Close() // a RoundTripper always closes it
	}
}
