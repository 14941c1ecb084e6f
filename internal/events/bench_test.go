package events

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// BenchmarkPublish is row E1, BenchmarkStuck row E2. Their clock runs ahead, so that the rate never ends them.
func BenchmarkPublish(b *testing.B) {
	for _, subs := range []int{0, 1, 8, 64} {
		b.Run(fmt.Sprintf("subscribers=%d", subs), func(b *testing.B) { publish(b, subs, 0) })
	}
}

// BenchmarkStuck has eight subscribers, of which one does not read, or all do.
func BenchmarkStuck(b *testing.B) {
	b.Run("one", func(b *testing.B) { publish(b, 7, 1) })
	b.Run("none", func(b *testing.B) { publish(b, 8, 0) })
}

// publish publishes to readers and to subscribers that never read.
func publish(b *testing.B, reading, stuck int) {
	now := time.Unix(0, 0)
	bus := New(Options{Clock: func() time.Time { now = now.Add(time.Second); return now }})
	var readers sync.WaitGroup
	defer readers.Wait()
	defer bus.Close()
	for i := range reading + stuck {
		s, err := bus.Subscribe(b.Context(), []string{"a"})
		if err != nil {
			b.Fatal(err)
		}
		if i >= reading {
			continue
		}
		readers.Go(func() {
			buf := make([]hostabi.Event, hostabi.DefaultRing)
			for {
				if _, err := s.Next(b.Context(), buf); err != nil {
					return
				}
			}
		})
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := bus.Publish(b.Context(), hostabi.Event{Topic: "a", Source: "/plugins/a", Data: []byte("{}")}); err != nil {
			b.Fatal(err)
		}
	}
}
