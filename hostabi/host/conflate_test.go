package host

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/delivery-station/ds/hostabi"
)

// TestConflate: while the receiver is busy, progress is replaced and transfers are kept, in order.
func TestConflate(t *testing.T) {
	var got []string
	busy, release := make(chan struct{}), make(chan struct{})
	err := conflate(t.Context(), func(_ context.Context, report func(hostabi.Progress)) error {
		report(hostabi.Progress{ID: "first"})
		<-busy
		for i := range int64(1000) {
			report(hostabi.Progress{ID: "a", Current: i})
			if i%500 == 0 {
				report(hostabi.Progress{ID: fmt.Sprint("t", i), Transfer: &hostabi.Transfer{How: hostabi.ByNetwork}})
			}
		}
		close(release)
		return nil
	}, func(p *hostabi.Progress) error {
		if p.ID == "first" {
			close(busy)
			<-release
		}
		got = append(got, fmt.Sprint(p.ID, " ", p.Current))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := "[first 0 a 999 t0 0 t500 0]"; fmt.Sprint(got) != want {
		t.Errorf("sent %v, want %v", got, want)
	}
}

func TestConflateStopsWorkWhenNobodyReceives(t *testing.T) {
	gone := errors.New("receiver gone")
	err := conflate(t.Context(), func(ctx context.Context, report func(hostabi.Progress)) error {
		report(hostabi.Progress{ID: "a"})
		<-ctx.Done()
		report(hostabi.Progress{ID: "b"})
		return ctx.Err()
	}, func(*hostabi.Progress) error { return gone })
	if !errors.Is(err, gone) {
		t.Errorf("got %v, want the receiver's error", err)
	}
}

func TestConflateKeepsAPanic(t *testing.T) {
	err := conflate(t.Context(), func(context.Context, func(hostabi.Progress)) error { panic("defect") }, func(*hostabi.Progress) error { return nil })
	if _, ok := errors.AsType[*panicError](err); !ok {
		t.Errorf("got %v, want a panicError", err)
	}
}
