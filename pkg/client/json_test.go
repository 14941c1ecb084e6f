package client

import (
	"encoding/json"
	"testing"
)

func TestParseEvent(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		ok   bool
		want string
	}{
		"empty":       {`{}`, true, ""},
		"escapes":     {`{"topic":"a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"}`, true, "a\"\\/\b\f\n\r\té😀"},
		"lone half":   {`{"topic":"\ud83dx"}`, true, "\uFFFDx"},
		"spaces":      {" { \"topic\" : \"x\" , \"hops\" : 3 } \r\n", true, "x"},
		"snake case":  {`{"trace_id":"1","content_type":"2","topic":"x"}`, true, "x"},
		"unknown":     {`{"a":[1,{"b":"c"},null,true,-1.5e3],"topic":"x"}`, true, "x"},
		"no object":   {`[]`, false, ""},
		"no value":    {`{"topic"}`, false, ""},
		"no end":      {`{"topic":"x"`, false, ""},
		"more behind": {`{} {}`, false, ""},
		"bad escape":  {`{"topic":"\x"}`, false, ""},
		"bad hex":     {`{"topic":"\u12g4"}`, false, ""},
		"bad number":  {`{"hops":-1}`, false, ""},
		"bad base64":  {`{"data":"*"}`, false, ""},
		"control":     {"{\"topic\":\"\x01\"}", false, ""},
		"comma":       {`{"topic":"x",}`, false, ""},
	} {
		e, err := parseEvent([]byte(c.text))
		if (err == nil) != c.ok || e.Topic != c.want {
			t.Errorf("%s: %q, %v", name, e.Topic, err)
		}
	}
}

// FuzzParseEvent: what encoding/json takes for an object with a topic gives the same topic here.
func FuzzParseEvent(f *testing.F) {
	f.Add([]byte(`{"topic":"a.b","attributes":{"k":"v"},"data":"AAE=","blobs":["x"],"time":"12","more":[[1],{"a":2}]}`))
	f.Add([]byte(`{"topic":"\ud83d\ude00\u0000"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseEvent(b)
		if err != nil {
			return
		}
		var m map[string]json.RawMessage
		if json.Unmarshal(b, &m) != nil {
			return // this reader is more lenient with numbers
		}
		var want string
		if raw, ok := m["topic"]; ok && json.Unmarshal(raw, &want) == nil && e.Topic != want {
			t.Errorf("%q: topic %q, want %q", b, e.Topic, want)
		}
	})
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "12": 12, "5B": 5, "2k": 2000, "2kB": 2000, "2KiB": 2048, "1.5MiB": 3 << 19, "3GB": 3e9, "1TiB": 1 << 40,
		"": -1, "x": -1, "5X": -1, "-1": -1, "5iB": -1, "1e30TB": -1, "5KiBB": -1, "5kk": -1,
	} {
		n, ok := parseSize(text)
		if !ok {
			n = -1
		}
		if n != want {
			t.Errorf("%q: %d, want %d", text, n, want)
		}
	}
}
