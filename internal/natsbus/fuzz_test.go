package natsbus

import (
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// FuzzParse: whatever is published on the server, what is delivered says that it is from elsewhere and breaks no rule.
func FuzzParse(f *testing.F) {
	f.Add("ds.events.a.b", []byte(`{"specversion":"1.0","id":"0123456789abcdef-1","type":"a.b","source":"/plugins/a","time":"2025-01-02T03:04:05.678Z","data":{"k":1},"dshops":2}`))
	f.Add("ds.events.state.changed", []byte(`{"specversion":"1.0","id":"0123456789abcdef-18446744073709551615","type":"state.changed","source":"/ds","dsblobs":"x"}`))
	f.Add("ds.events.a", []byte(`{"specversion":"1.0","id":"0123456789abcdef--1","type":"a","source":"/plugins/a","data_base64":"AA=="}`))
	f.Fuzz(func(t *testing.T, subject string, data []byte) {
		e, bus, sequence, ok := parse("ds", subject, data)
		if !ok {
			return
		}
		if !strings.HasPrefix(e.Source, "/nodes/"+bus+"/") || len(bus) != 16 || e.Hops == 0 || e.Hops > hostabi.MaxHops || e.Dropped != 0 {
			t.Errorf("%+v of %s, %d", e, bus, sequence)
		}
		if err := hostabi.CheckEvent(&e); err != nil {
			t.Error(err)
		}
		if subject != "ds.events."+e.Topic {
			t.Errorf("%s came on %s", e.Topic, subject)
		}
	})
}

// FuzzValue: an entry of the bucket is refused, or means the same when it is written again.
func FuzzValue(f *testing.F) {
	now := time.UnixMilli(1_700_000_000_000)
	f.Add(encode(&hostabi.StateEntry{Value: []byte("v"), Created: now, Updated: now, Expires: now}))
	f.Add(encode(&hostabi.StateEntry{}))
	f.Add([]byte("\x02junk"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e hostabi.StateEntry
		if decodeValue(&e, b) != nil {
			return
		}
		if got := encode(&e); string(got) != string(b) {
			t.Errorf("%x became %x", b, got)
		}
	})
}

// TestSeen: the memory of other buses is bounded, and forgets the oldest.
func TestSeen(t *testing.T) {
	in := newInbox(nil, nil)
	for i := range 5 * maxPeers {
		if in.seen(strings.Repeat("x", i), 7) {
			t.Fatal("an event that was never there was seen")
		}
		if !in.seen(strings.Repeat("x", i), 7) || !in.seen(strings.Repeat("x", max(i-maxPeers/2, 0)), 6) {
			t.Fatal("an event was forgotten at once")
		}
	}
	if len(in.last)+len(in.older) > 2*maxPeers+2 {
		t.Errorf("%d buses are remembered", len(in.last)+len(in.older))
	}
}
