package host

import (
	"context"
	"sync"

	"github.com/delivery-station/ds/hostabi"
)

// conflate runs work and hands its reports to send, in the caller's goroutine. Work never waits for the
// receiver: of progress only the latest report of an item is kept, reports with a Transfer are all kept. A
// failed send cancels work.
func conflate(ctx context.Context, work func(ctx context.Context, report func(hostabi.Progress)) error, send func(*hostabi.Progress) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	q := &reports{ready: make(chan struct{}, 1), latest: make(map[string]int)}
	done := make(chan error, 1)
	go func() { done <- safely(func() error { return work(ctx, q.add) }) }()
	var sent error
	for {
		select {
		case <-q.ready:
			if sent == nil {
				sent = q.drain(send)
			}
			if sent != nil {
				cancel()
			}
		case err := <-done:
			if sent != nil {
				return sent
			}
			if err != nil {
				return err
			}
			return q.drain(send)
		}
	}
}

// reports is a queue that keeps one progress report an item.
type reports struct {
	ready chan struct{}

	mu     sync.Mutex
	list   []hostabi.Progress
	latest map[string]int // item -> index of its progress report in list
}

func (q *reports) add(p hostabi.Progress) {
	q.mu.Lock()
	i, waiting := q.latest[p.ID]
	switch {
	case p.Transfer != nil:
		q.list = append(q.list, p)
	case waiting:
		q.list[i] = p
	default:
		q.latest[p.ID] = len(q.list)
		q.list = append(q.list, p)
	}
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

func (q *reports) drain(send func(*hostabi.Progress) error) error {
	q.mu.Lock()
	list := q.list
	q.list = nil
	clear(q.latest)
	q.mu.Unlock()
	for i := range list {
		if err := send(&list[i]); err != nil {
			return err
		}
	}
	return nil
}
