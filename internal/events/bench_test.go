package events

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// BenchmarkPublish is row E1. Its clock runs ahead, so that the rate never ends it.
func BenchmarkPublish(b *testing.B) {
	for _, subs := range []int{0, 1, 8, 64} {
		b.Run(fmt.Sprintf("subscribers=%d", subs), func(b *testing.B) {
			now := time.Unix(0, 0)
			bus := New(Options{Clock: func() time.Time { now = now.Add(time.Second); return now }})
			var readers sync.WaitGroup
			defer readers.Wait()
			defer bus.Close()
			for range subs {
				s, err := bus.Subscribe(b.Context(), []string{"a"})
				if err != nil {
					b.Fatal(err)
				}
				readers.Go(func() {
					buf := make([]hostabi.Event, 32)
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
		})
	}
}
