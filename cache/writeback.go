package cache

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

const (
	maxQueued = 64 // blobs that wait to be written to the tier
	maxPushes = 2  // at a time
	flushTime = 5 * time.Second
)

// writeBack is what still has to be written to the tier. Its goroutines live as long as there is something to
// write, and Close joins them.
type writeBack struct {
	ctx  context.Context //nolint:containedctx // of the goroutines, which outlive the call that starts them
	stop context.CancelFunc

	mu      sync.Mutex
	queue   []queued
	pushing int
	closed  bool
	refused bool // by the tier
	wg      sync.WaitGroup
}

// queued is a blob that came from source, to be written.
type queued struct {
	source string
	hostabi.Descriptor
}

// offer has d written to the tier, if its repository may be shared. It never waits: the oldest has to go when
// too many are queued.
func (t *remote) offer(v *View, d hostabi.Descriptor) {
	if t == nil || t.Share == nil || d.Size > t.MaxBlob || v.foreign() == "" || v.foreign() == t.Upstream.Name() || !t.Share(v.foreign()) {
		return
	}
	b := &t.back
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.refused {
		return
	}
	if len(b.queue) == maxQueued {
		b.queue = b.queue[1:]
		t.s.count("remote", "result", "dropped", 1)
	}
	b.queue = append(b.queue, queued{v.foreign(), d})
	if b.pushing < maxPushes {
		b.pushing++
		b.wg.Go(t.push)
	}
}

// push writes what is queued.
func (t *remote) push() {
	for d, ok := t.next(); ok; d, ok = t.next() {
		err := t.Upstream.Push(t.back.ctx, d.source, d.Descriptor, func() (*os.File, error) {
			f, err := t.s.get(t.back.ctx, d.Digest, true)
			if err != nil {
				return nil, err
			}
			if f.OS() == nil {
				return nil, errors.Join(errNoFile, f.Close())
			}
			return f.OS(), nil
		})
		switch {
		case err == nil:
			t.s.count("remote", "result", "pushed", 1)
			t.succeeded()
		case t.back.ctx.Err() != nil || isMiss(err): // no time, or evicted
			t.s.count("remote", "result", "dropped", 1)
		default:
			t.unwritten(err)
		}
	}
}

// unwritten ends what a push found impossible: only writing, if the tier took none although it answers.
func (t *remote) unwritten(err error) {
	switch hostabi.ReasonOf(err) {
	case hostabi.ReasonAuthRequired, hostabi.ReasonForbidden, hostabi.ReasonPushRefused, hostabi.ReasonRefNotFound:
	default:
		t.failed(err)
		return
	}
	t.back.mu.Lock()
	t.back.refused = true
	t.back.mu.Unlock()
	t.s.count("remote", "result", "refused", 1)
	t.warn("DS5008: remote cache cannot be written to", err)
}

// next takes the oldest that is queued; not ok ends the goroutine.
func (t *remote) next() (d queued, ok bool) {
	off := t.isOff()
	b := &t.back
	b.mu.Lock()
	defer b.mu.Unlock()
	if off || b.refused || b.ctx.Err() != nil {
		t.s.count("remote", "result", "dropped", int64(len(b.queue)))
		b.queue = nil
	}
	if len(b.queue) == 0 {
		b.pushing--
		return d, false
	}
	d, b.queue = b.queue[0], b.queue[1:]
	return d, true
}

// isOff asks the breaker if nobody did yet: a command may write without having read.
func (t *remote) isOff() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.start()
	return t.off
}

// close gives what is queued a little time and then ends it.
func (t *remote) close() {
	if t == nil {
		return
	}
	b := &t.back
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	done := make(chan struct{})
	go func() {
		b.wg.Wait()
		close(done)
	}()
	limit := time.NewTimer(flushTime)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
	case <-t.Hurry:
	}
	b.stop()
	<-done
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended()
}

var errNoFile = errors.New("blobs of a simulation have no file")
