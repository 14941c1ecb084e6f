package client

import (
	"context"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/delivery-station/ds/hostabi/hostv1lite"
)

// reportEvery is the least time between two reports of a client: the host takes twice as many.
const reportEvery = 100 * time.Millisecond

// Progress is one item that the host shows while the plugin works.
type Progress struct {
	bars *bars
	item hostv1lite.Progress
	done bool
}

// bars are the items of a client. They are reported together, so that many items cost no more than one.
type bars struct {
	mu    sync.Mutex
	c     *Client
	count int
	open  int // items that are not done
	dirty []*Progress
	last  time.Time
	timer *time.Timer // a report is on its way
}

// Progress shows an item of total units, 0 = unknown. It never fails: where there is no host it shows nothing.
func (c *Client) Progress(name string, total int64) *Progress {
	b := &c.bars
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.c == nil {
		b.c = c
		c.mu.Lock()
		c.onClose(b.flush)
		c.mu.Unlock()
	}
	b.count++
	b.open++
	p := &Progress{bars: b, item: hostv1lite.Progress{Id: strconv.Itoa(b.count), Label: name, Total: total, State: "run"}}
	return p
}

// Add counts n units as done.
func (p *Progress) Add(n int64) {
	p.change(func() { p.item.Current += n })
}

// Done ends the item, as failed if err is not nil.
func (p *Progress) Done(err error) {
	p.change(func() {
		p.done = true
		p.bars.open--
		p.item.State = "done"
		if err != nil {
			p.item.State = "fail"
		}
	})
}

// Reader counts what is read from r.
func (p *Progress) Reader(r io.Reader) io.Reader { return &progressReader{p, r} }

type progressReader struct {
	p *Progress
	r io.Reader
}

func (r *progressReader) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	if n > 0 {
		r.p.Add(int64(n))
	}
	return n, err
}

// change makes a change and reports it, at once or when the rate allows.
func (p *Progress) change(f func()) {
	b := p.bars
	b.mu.Lock()
	if p.done {
		b.mu.Unlock()
		return
	}
	f()
	b.mark(p)
	wait := reportEvery - time.Since(b.last)
	switch {
	case wait <= 0:
		req := b.take()
		b.mu.Unlock()
		b.report(req)
		return
	case b.timer == nil:
		b.timer = time.AfterFunc(wait, func() { _ = b.flush() })
	}
	b.mu.Unlock()
}

func (b *bars) mark(p *Progress) {
	for _, d := range b.dirty {
		if d == p {
			return
		}
	}
	b.dirty = append(b.dirty, p)
}

// take empties the list into a request. b.mu is held.
func (b *bars) take() *hostv1lite.ProgressBatch {
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
	b.last = time.Now()
	req := &hostv1lite.ProgressBatch{}
	for _, p := range b.dirty {
		req.Items = append(req.Items, p.item)
	}
	b.dirty = b.dirty[:0]
	return req
}

func (b *bars) report(req *hostv1lite.ProgressBatch) {
	if len(req.Items) > 0 {
		_ = b.c.invoke(context.Background(), hostv1lite.TermReport, req, &hostv1lite.Empty{})
	}
}

func (b *bars) flush() error {
	b.mu.Lock()
	req := b.take()
	b.mu.Unlock()
	b.report(req)
	return nil
}

// drawn reports whether the host may be drawing bars for this client.
func (c *Client) drawn() bool {
	c.bars.mu.Lock()
	defer c.bars.mu.Unlock()
	return c.bars.open > 0
}
