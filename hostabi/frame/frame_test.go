package frame

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/delivery-station/ds/hostabi"
)

// TestExample is the example of host-abi.md section 5.
func TestExample(t *testing.T) {
	f := Frame{Enc: hostabi.EncJSON, ID: 1, Flags: FlagEnd, Method: "/ds.host.v1.Meta/Describe", Body: []byte("{}")}
	want := "01010000010000001900010002000000" + hex.EncodeToString([]byte("/ds.host.v1.Meta/Describe{}"))
	if got := hex.EncodeToString(Append(nil, &f)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestDecodeSplitAnywhere(t *testing.T) {
	frames := []Frame{
		{Enc: hostabi.EncJSON, ID: 1, Flags: FlagEnd, Method: "/ds.host.v1.Meta/Describe", Body: []byte("{}")},
		{ID: 2, Code: 7, Flags: FlagEnd, Body: []byte{1, 2, 3}},
		{ID: 1<<31 - 1, Code: 16, Flags: FlagAck},
		{ID: 3, Flags: FlagEnd | FlagFD, Method: strings.Repeat("m", hostabi.MaxMethod)},
	}
	var all []byte
	for i := range frames {
		all = Append(all, &frames[i])
	}
	for cut := range len(all) + 1 {
		r := io.MultiReader(iotest.OneByteReader(bytes.NewReader(all[:cut])), bytes.NewReader(all[cut:]))
		for i, want := range frames {
			got, err := Decode(r, make([]byte, 2))
			if err != nil || got.Method != want.Method || got.ID != want.ID || got.Code != want.Code || got.Flags != want.Flags ||
				got.Enc != want.Enc || !bytes.Equal(got.Body, want.Body) {
				t.Fatalf("cut at %d, frame %d: got %+v, %v, want %+v", cut, i, got, err, want)
			}
		}
		if _, err := Decode(r, nil); err != io.EOF {
			t.Fatalf("after the last frame: %v, want io.EOF", err)
		}
	}
	first := HeaderSize + len(frames[0].Method) + len(frames[0].Body)
	for n := 1; n < first; n++ {
		if _, err := Decode(bytes.NewReader(all[:n]), nil); err != io.ErrUnexpectedEOF {
			t.Errorf("%d of %d bytes: %v, want io.ErrUnexpectedEOF", n, first, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := Append(nil, &Frame{ID: 1, Flags: FlagEnd, Method: "/m"})
	change := func(at int, b ...byte) []byte {
		out := bytes.Clone(good)
		copy(out[at:], b)
		return out
	}
	for name, c := range map[string]struct {
		b    []byte
		code hostabi.Code
	}{
		"version":        {change(0, 2), hostabi.Unimplemented},
		"http/2":         {[]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), hostabi.Unimplemented},
		"encoding":       {change(1, 2), hostabi.InvalidArgument},
		"unknown flag":   {change(10, 16), hostabi.InvalidArgument},
		"high flag":      {change(11, 1), hostabi.InvalidArgument},
		"long method":    {change(8, hostabi.MaxMethod+1, 0), hostabi.InvalidArgument},
		"length over 64": {change(12, 1, 0, 0, 4), hostabi.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Decode(bytes.NewReader(c.b), nil)
			e, ok := errors.AsType[*hostabi.Error](err)
			if !ok || e.Code != c.code || e.Reason != hostabi.ReasonBadFrame {
				t.Fatalf("got %v, want %s BAD_FRAME", err, c.code)
			}
			if want := name == "http/2"; errors.Is(err, ErrPreface) != want {
				t.Errorf("is a preface: %t, want %t", !want, want)
			}
		})
	}
}

func TestDecodeSkipsLargeBody(t *testing.T) {
	big := Append(nil, &Frame{ID: 5, Method: "/m", Body: make([]byte, hostabi.MaxMessage+1)})
	largest := Append(nil, &Frame{ID: 6, Method: "/m", Body: make([]byte, hostabi.MaxMessage)})
	r := bufio.NewReader(io.MultiReader(bytes.NewReader(big), bytes.NewReader(largest)))
	f, err := Decode(r, nil)
	if hostabi.ReasonOf(err) != hostabi.ReasonTooLarge || f.ID != 5 || f.Method != "/m" || f.Body != nil {
		t.Fatalf("got %+v, %v, want id 5 without body, TOO_LARGE", f.ID, err)
	}
	if f, err = Decode(r, nil); err != nil || f.ID != 6 || len(f.Body) != hostabi.MaxMessage {
		t.Fatalf("frame behind it: id %d with %d bytes, %v", f.ID, len(f.Body), err)
	}
}

// TestDecodeTrustsNoLength: a length that lies must not cost the memory that it claims.
func TestDecodeTrustsNoLength(t *testing.T) {
	lie := Append(nil, &Frame{ID: 1, Method: "/m", Body: make([]byte, hostabi.MaxMessage)})[:HeaderSize+2+100]
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 8 {
		if _, err := Decode(bytes.NewReader(lie), nil); err != io.ErrUnexpectedEOF {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	allocated := (after.TotalAlloc - before.TotalAlloc) / 8
	if allocated > 2*growStep {
		t.Errorf("%d bytes allocated for a body that never came", allocated)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Append(nil, &Frame{Enc: hostabi.EncJSON, ID: 1, Flags: FlagEnd, Method: "/ds.host.v1.Meta/Describe", Body: []byte("{}")}))
	f.Add(Append(nil, &Frame{ID: 9, Code: 3, Flags: FlagAck}))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		got, err := Decode(r, nil)
		if err != nil {
			return
		}
		used := b[:len(b)-r.Len()]
		if again := Append(nil, &got); !bytes.Equal(again, used) {
			t.Fatalf("%x decodes to %+v, which encodes as %x", used, got, again)
		}
	})
}

func FuzzJSONMember(f *testing.F) {
	f.Add([]byte(`{"handle":7,"path":"a\"handle\":9","hasFd":true}`))
	f.Add([]byte(`{"a":{"handle":1},"handle" : 2 }`))
	f.Fuzz(func(t *testing.T, b []byte) { jsonMember(b, "handle") })
}

func TestOpenedHandle(t *testing.T) {
	for name, c := range map[string]struct {
		enc  hostabi.Encoding
		b    string
		want uint32
		ok   bool
	}{
		"proto":            {hostabi.EncProto, "\x08\x07\x12\x01p", 7, true},
		"proto later":      {hostabi.EncProto, "\x12\x01p\x08\x09", 9, true},
		"proto none":       {hostabi.EncProto, "\x12\x01p", 0, false},
		"proto broken":     {hostabi.EncProto, "\x12\x7f", 0, false},
		"json":             {hostabi.EncJSON, `{"handle":7,"path":"/x"}`, 7, true},
		"json spaces":      {hostabi.EncJSON, "{ \"handle\" :\t8\n}", 8, true},
		"json in string":   {hostabi.EncJSON, `{"path":"\"handle\":9","handle":3}`, 3, true},
		"json as value":    {hostabi.EncJSON, `{"path":"handle","handle":4}`, 4, true},
		"json nested only": {hostabi.EncJSON, `{"a":{"handle":1}}`, 0, false},
		"json too big":     {hostabi.EncJSON, `{"handle":99999999999999999999999}`, 0, false},
		"json cut":         {hostabi.EncJSON, `{"handle`, 0, false},
	} {
		if got, ok := openedHandle([]byte(c.b), c.enc); ok != c.ok || ok && got != c.want {
			t.Errorf("%s: got %d, %t, want %d, %t", name, got, ok, c.want, c.ok)
		}
	}
}
