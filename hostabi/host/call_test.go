package host

import (
	"context"
	"errors"
	"testing"
	"time"
)

type testKey struct{}

// newCall is a call of a session that ends with the second context.
func newCall(carrier, session context.Context) *call {
	return &call{Context: carrier, s: &Session{ctx: session}}
}

func TestCallEndsWithCarrierSessionOrItself(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(carrier, session context.CancelFunc, c *call)
	}{
		{"carrier", func(carrier, _ context.CancelFunc, _ *call) { carrier() }},
		{"session", func(_, session context.CancelFunc, _ *call) { session() }},
		{"itself", func(_, _ context.CancelFunc, c *call) { c.end() }},
	} {
		for _, waiting := range []bool{true, false} { // Done asked for before, or after the end
			carrier, endCarrier := context.WithCancel(t.Context())
			session, endSession := context.WithCancel(t.Context())
			cc := newCall(carrier, session)
			if cc.Err() != nil {
				t.Errorf("%s: ended at once: %v", c.name, cc.Err())
			}
			if waiting {
				select {
				case <-cc.Done():
					t.Errorf("%s: done at once", c.name)
				default:
				}
			}
			c.end(endCarrier, endSession, cc)
			<-cc.Done()
			if !errors.Is(cc.Err(), context.Canceled) {
				t.Errorf("%s: Err is %v", c.name, cc.Err())
			}
			derived, cancel := context.WithCancel(cc)
			<-derived.Done()
			cancel()
			endCarrier()
			endSession()
		}
	}
}

func TestCallValuesAndDeadline(t *testing.T) {
	early, late := time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
	a, cancelA := context.WithDeadline(t.Context(), late)
	defer cancelA()
	b, cancelB := context.WithDeadline(t.Context(), early)
	defer cancelB()
	for _, c := range []struct {
		name             string
		carrier, session context.Context
		want             time.Time
		ok               bool
	}{
		{"none", t.Context(), t.Context(), time.Time{}, false},
		{"carrier only", a, t.Context(), late, true},
		{"session only", t.Context(), b, early, true},
		{"the earlier", a, b, early, true},
	} {
		cc := newCall(c.carrier, c.session)
		if d, ok := cc.Deadline(); !d.Equal(c.want) || ok != c.ok {
			t.Errorf("%s: %v %t", c.name, d, ok)
		}
	}
	cc := newCall(context.WithValue(t.Context(), testKey{}, "v"), t.Context())
	for _, join := range []bool{false, true} {
		if join {
			_ = cc.Done()
		}
		if cc.Value(testKey{}) != "v" || callOf(context.WithValue(cc, testKey{}, "w")) != cc {
			t.Errorf("values are lost, joined %t", join)
		}
	}
}

func TestDerivedContextsEndWithTheCall(t *testing.T) {
	cc := newCall(t.Context(), t.Context())
	ctx, cancel := context.WithTimeout(cc, time.Hour)
	defer cancel()
	fired := make(chan struct{})
	stop := context.AfterFunc(cc, func() { close(fired) })
	defer stop()
	cc.end()
	<-ctx.Done()
	<-fired
}
