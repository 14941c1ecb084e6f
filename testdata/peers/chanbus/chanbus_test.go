// Package chanbus is the contender of the event rows: every subscriber has a blocking channel of 100.
package chanbus

import (
	"fmt"
	"testing"
	"time"
)

type event struct {
	ID, Source, Topic, ContentType string
	Time                           time.Time
	Data                           []byte
	Attributes                     map[string]string
}

func BenchmarkPublish(b *testing.B) {
	for _, subs := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("subscribers=%d", subs), func(b *testing.B) {
			var all []chan event
			for range subs {
				c := make(chan event, 100)
				go func() {
					for range c { //nolint:revive // reads and does nothing
					}
				}()
				all = append(all, c)
			}
			b.ReportAllocs()
			for b.Loop() {
				e := event{ID: "1", Source: "/plugins/a", Topic: "a", Time: time.Unix(0, 0), Data: []byte("{}")}
				for _, c := range all {
					c <- e
				}
			}
			for _, c := range all {
				close(c)
			}
		})
	}
}
