package hostabi

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestCloudEventRoundTrip(t *testing.T) {
	for name, e := range map[string]Event{
		"json":   {Data: []byte(`{"a":[1,2]}`), ContentType: "application/json"},
		"binary": {Data: []byte{0, 1, 0xff}, ContentType: "application/octet-stream"},
		"text":   {Data: []byte("hi"), ContentType: "text/plain", Attributes: map[string]string{"k1": "v"}},
		"full": {
			ContentType: "application/json", Hops: 3, Dropped: 7, TraceID: strings.Repeat("a", 32), TraceParent: "00-" + strings.Repeat("a", 32) + "-" + strings.Repeat("b", 16) + "-01",
			Blobs: []Digest{DigestOf(nil), DigestOf([]byte("x"))},
		},
	} {
		t.Run(name, func(t *testing.T) {
			e.ID, e.Topic, e.Source, e.Time = "00ff-1", "porter.done", "/plugins/porter", time.UnixMilli(1700000000123).UTC()
			b, err := e.CloudEvent()
			if err != nil {
				t.Fatal(err)
			}
			var m map[string]any
			if err := json.Unmarshal(b, &m); err != nil || m["specversion"] != "1.0" || m["time"] != "2023-11-14T22:13:20.123Z" {
				t.Fatalf("not a CloudEvents object: %s", b)
			}
			got, err := ParseCloudEvent(b)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, e) {
				t.Errorf("got  %+v\nwant %+v", got, e)
			}
		})
	}
}

// TestTraceParent: what is no trace context is ignored, when it is written and when it is read.
func TestTraceParent(t *testing.T) {
	trace, span := strings.Repeat("a", 32), strings.Repeat("b", 16)
	for text, want := range map[string]string{
		"00-" + trace + "-" + span + "-01": trace,
		"":                                 "",
		"00-" + trace + "-" + span:         "",
		"01-" + trace + "-" + span + "-01": "",
		"00-" + strings.ToUpper(trace) + "-" + span + "-01":   "",
		"00-" + strings.Repeat("0", 32) + "-" + span + "-01":  "",
		"00-" + trace + "-" + strings.Repeat("0", 16) + "-01": "",
	} {
		e := Event{ID: "1", Topic: "a", Source: "/ds", TraceParent: text}
		b, err := e.CloudEvent()
		if err != nil || strings.Contains(string(b), `"traceparent"`) != (want != "") {
			t.Errorf("%q: %s, %v", text, b, err)
		}
		b = []byte(`{"specversion":"1.0","id":"1","type":"a","source":"/ds","traceparent":"` + text + `"}`)
		got, err := ParseCloudEvent(b)
		if err != nil || got.TraceID != want || (got.TraceParent != "") != (want != "") || got.Attributes != nil {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

func TestCheckEvent(t *testing.T) {
	for name, c := range map[string]struct {
		e    Event
		want Reason
	}{
		"topic":          {Event{Topic: "A"}, ReasonBadTopic},
		"attribute name": {Event{Topic: "a", Attributes: map[string]string{"dsx": ""}}, ReasonBadMessage},
		"taken name":     {Event{Topic: "a", Attributes: map[string]string{"type": ""}}, ReasonBadMessage},
		"attribute size": {Event{Topic: "a", Attributes: map[string]string{"x": strings.Repeat("v", MaxAttribute+1)}}, ReasonBadMessage},
		"content type":   {Event{Topic: "a", ContentType: "\xff"}, ReasonBadMessage},
		"data size":      {Event{Topic: "a", Data: make([]byte, MaxEventData+1)}, ReasonTooLarge},
		"largest data":   {Event{Topic: "a", Data: make([]byte, MaxEventData)}, ""},
	} {
		if got := ReasonOf(CheckEvent(&c.e)); got != c.want {
			t.Errorf("%s: reason %q, want %q", name, got, c.want)
		}
	}
}

func FuzzParseCloudEvent(f *testing.F) {
	f.Add([]byte(`{"specversion":"1.0","id":"1","type":"a.b","source":"/x","time":"2020-01-01T00:00:00Z","data":{"x":1},"dsblobs":"x"}`))
	f.Add([]byte(`{"specversion":"1.0","type":"a","data_base64":"AAE=","attr":"v"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseCloudEvent(b)
		if err != nil {
			return
		}
		out, err := e.CloudEvent()
		if err != nil {
			t.Fatalf("%q parses but does not encode: %v", b, err)
		}
		again, err := ParseCloudEvent(out)
		if err != nil || again.Topic != e.Topic || again.ID != e.ID {
			t.Fatalf("%q -> %q: %v", b, out, err)
		}
	})
}
