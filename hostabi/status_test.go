package hostabi_test

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	. "github.com/delivery-station/ds/hostabi"
)

var statusErrors = map[string]*Error{
	"bare":     Errorf(ReasonKeyNotFound, "no such key"),
	"op":       {Code: NotFound, Reason: ReasonRefNotFound, Op: "ghcr.io/acme/app:1", Msg: "not in the registry", Err: io.ErrUnexpectedEOF},
	"denied":   Errorf(ReasonCapabilityDenied, "registry.pull %q is not granted", "ghcr.io").WithMeta("capability", "registry.pull").WithMeta("resource", "ghcr.io/a").WithFix("ds plugin grant x registry.pull=%s", "ghcr.io/a"),
	"conflict": Errorf(ReasonStateConflict, "changed").WithMeta("revision", "7").WithMeta("empty", ""),
	"text":     Errorf(ReasonBadMessage, "quote \" slash \\ tab \t line \n nul \x00 snow ☃ <&>\u2028").WithFix("printf '%%s' \"x\""),
	"not utf8": Errorf(ReasonInternal, "bad \xff byte").WithMeta("k\xff", "v\xfe").WithFix("fix \xfd"),
	"later":    {Code: Aborted, Reason: "NOT_INVENTED_YET", Msg: "x"},
}

// want is e as the other end sees it.
func want(e *Error) *Error {
	valid := func(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
	w := &Error{Code: e.Code, Reason: e.Reason, Msg: valid(e.Error()), Fix: valid(e.Fix)}
	for k, v := range e.Meta {
		w.WithMeta(valid(k), valid(v))
	}
	return w
}

func same(a, b *Error) bool {
	return a.Code == b.Code && a.Reason == b.Reason && a.Op == b.Op && a.Msg == b.Msg && a.Fix == b.Fix && maps.Equal(a.Meta, b.Meta)
}

func TestStatusRoundTrip(t *testing.T) {
	for name, e := range statusErrors {
		t.Run(name, func(t *testing.T) {
			prefix := []byte("kept")
			b := e.AppendStatus(prefix, EncProto)
			if string(b[:4]) != "kept" {
				t.Fatal("AppendStatus does not append")
			}
			if got := ParseStatus(b[4:]); !same(got, want(e)) {
				t.Errorf("proto: got %#v, want %#v", got, want(e))
			}
			j := e.AppendStatus(nil, EncJSON)
			if !json.Valid(j) {
				t.Fatalf("not JSON: %s", j)
			}
			if got := ParseStatusJSON(j); !same(got, want(e)) {
				t.Errorf("json: got %#v, want %#v\n%s", got, want(e), j)
			}
			if got := ParseStatus(b[4:]); !errors.Is(got, e) || got.Err != nil {
				t.Error("the reason must survive, the cause must not")
			}
		})
	}
}

// TestStatusJSON pins the form of host-abi.md section 12 byte for byte.
func TestStatusJSON(t *testing.T) {
	e := &Error{Code: PermissionDenied, Reason: ReasonCapabilityDenied, Op: "s3", Msg: "not granted", Fix: "ds plugin grant", Meta: map[string]string{"resource": "b", "capability": "a"}}
	for _, c := range []struct {
		e    *Error
		want string
	}{
		{e, `{"code":7,"message":"s3: not granted","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"CAPABILITY_DENIED","domain":"ds.host","metadata":{"capability":"a","fix":"ds plugin grant","resource":"b"}}]}`},
		{Errorf(ReasonInternal, "x\x01\n"), `{"code":13,"message":"x\u0001\n","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"INTERNAL","domain":"ds.host"}]}`},
	} {
		if got := string(c.e.AppendStatus(nil, EncJSON)); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

// reference builds the same status with Google's own types.
func reference(t *testing.T, e *Error) *rpcstatus.Status {
	t.Helper()
	w := want(e)
	meta := maps.Clone(w.Meta)
	if w.Fix != "" {
		if meta == nil {
			meta = make(map[string]string)
		}
		meta["fix"] = w.Fix
	}
	info, err := proto.MarshalOptions{Deterministic: true}.Marshal(&errdetails.ErrorInfo{Reason: string(w.Reason), Domain: "ds.host", Metadata: meta})
	if err != nil {
		t.Fatal(err)
	}
	return &rpcstatus.Status{
		Code: int32(w.Code), Message: w.Msg,
		Details: []*anypb.Any{{TypeUrl: "type.googleapis.com/google.rpc.ErrorInfo", Value: info}},
	}
}

func TestStatusParity(t *testing.T) {
	for name, e := range statusErrors {
		t.Run(name, func(t *testing.T) {
			ref := reference(t, e)
			b, err := proto.Marshal(ref)
			if err != nil {
				t.Fatal(err)
			}
			if got := e.AppendStatus(nil, EncProto); string(got) != string(b) {
				t.Errorf("bytes differ from protobuf-go\ngot  %x\nwant %x", got, b)
			}
			var back rpcstatus.Status
			if err := protojson.Unmarshal(e.AppendStatus(nil, EncJSON), &back); err != nil {
				t.Fatal(err)
			}
			infoOf := func(s *rpcstatus.Status) *errdetails.ErrorInfo {
				var info errdetails.ErrorInfo
				if err := s.Details[0].UnmarshalTo(&info); err != nil {
					t.Fatal(err)
				}
				return &info
			}
			if back.Code != ref.Code || back.Message != ref.Message || !proto.Equal(infoOf(&back), infoOf(ref)) {
				t.Errorf("protojson reads %v, want %v", &back, ref)
			}
			j, err := protojson.Marshal(ref)
			if err != nil {
				t.Fatal(err)
			}
			if got := ParseStatusJSON(j); !same(got, want(e)) {
				t.Errorf("of protojson %s: got %#v", j, got)
			}
		})
	}
}

func TestParseStatusOfOthers(t *testing.T) {
	foreign, err := anypb.New(&errdetails.ErrorInfo{Reason: "X", Domain: "example.com"})
	if err != nil {
		t.Fatal(err)
	}
	other, err := anypb.New(wrapperspb.Double(1))
	if err != nil {
		t.Fatal(err)
	}
	ours := reference(t, Errorf(ReasonQuota, "full")).Details[0]
	for name, c := range map[string]struct {
		in   *rpcstatus.Status
		want *Error
	}{
		"no details":  {&rpcstatus.Status{Code: 5, Message: "gone"}, &Error{Code: NotFound, Reason: ReasonInternal, Msg: "gone"}},
		"cancelled":   {&rpcstatus.Status{Code: 1}, &Error{Code: Cancelled, Reason: ReasonInterrupted, Msg: "interrupted"}},
		"deadline":    {&rpcstatus.Status{Code: 4, Message: "late"}, &Error{Code: DeadlineExceeded, Reason: ReasonTimeout, Msg: "late"}},
		"unknown":     {&rpcstatus.Status{Code: 12, Message: "m"}, &Error{Code: Unimplemented, Reason: ReasonUnknownMethod, Msg: "m"}},
		"others' too": {&rpcstatus.Status{Code: 8, Message: "full", Details: []*anypb.Any{foreign, other, ours, ours}}, &Error{Code: ResourceExhausted, Reason: ReasonQuota, Msg: "full"}},
		"foreign":     {&rpcstatus.Status{Code: 8, Message: "full", Details: []*anypb.Any{foreign}}, &Error{Code: ResourceExhausted, Reason: ReasonInternal, Msg: "full"}},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := proto.Marshal(c.in)
			if err != nil {
				t.Fatal(err)
			}
			if got := ParseStatus(b); !same(got, c.want) {
				t.Errorf("proto: got %#v, want %#v", got, c.want)
			}
			j, err := protojson.Marshal(c.in)
			if err != nil {
				t.Fatal(err)
			}
			if got := ParseStatusJSON(j); !same(got, c.want) {
				t.Errorf("json: got %#v, want %#v", got, c.want)
			}
		})
	}
}

func TestParseStatusGarbled(t *testing.T) {
	whole := statusErrors["denied"].AppendStatus(nil, EncProto)
	for name, b := range map[string][]byte{
		"empty": nil, "OK": {8, 0}, "code 17": {8, 17}, "negative code": {8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
		"group": {8, 5, 0x23, 0x24}, "field 0": {0, 0}, "cut": whole[:len(whole)-1], "endless number": {0xff, 0xff}, "html": []byte("<html>"),
		"cut fixed": {8, 5, 0x21, 1},
	} {
		if got := ParseStatus(b); got.Code != Internal || got.Reason != ReasonInternal || got.Msg == "" {
			t.Errorf("%s: got %#v", name, got)
		}
	}
	for _, s := range []string{"", "null", "[]", "{}", `{"code":0}`, `{"code":99}`, `{"code":-1}`, `{"code":"x"}`, "<html>", `{"code":7`} {
		if got := ParseStatusJSON([]byte(s)); got.Code != Internal || got.Reason != ReasonInternal || got.Msg == "" {
			t.Errorf("%s: got %#v", s, got)
		}
	}
}

// FuzzParseStatus: never a panic, always an error that can be sent on, and the same error when it arrives.
func FuzzParseStatus(f *testing.F) {
	for _, e := range statusErrors {
		f.Add(e.AppendStatus(nil, EncProto))
		f.Add(e.AppendStatus(nil, EncJSON))
	}
	f.Add([]byte{8, 5, 0x21, 1, 2, 3, 4, 5, 6, 7, 8, 0x1a, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, e := range []*Error{ParseStatus(b), ParseStatusJSON(b)} {
			if e.Code == OK || e.Reason == "" || e.Msg == "" || e.Op != "" || e.Err != nil {
				t.Fatalf("%x: incomplete error %#v", b, e)
			}
			if again := ParseStatus(e.AppendStatus(nil, EncProto)); !same(again, e) {
				t.Fatalf("%x: %#v became %#v", b, e, again)
			}
			j := e.AppendStatus(nil, EncJSON)
			if again := ParseStatusJSON(j); !json.Valid(j) || !same(again, e) {
				t.Fatalf("%x: %#v became %#v through %s", b, e, again, j)
			}
		}
		var ref rpcstatus.Status
		if proto.Unmarshal(b, &ref) == nil && ref.Code > 0 && ref.Code <= 16 && len(ref.Details) == 0 && len(ref.ProtoReflect().GetUnknown()) == 0 {
			if got := ParseStatus(b); uint32(got.Code) != uint32(ref.Code) {
				t.Fatalf("%x: code %d, protobuf-go says %d", b, got.Code, ref.Code)
			}
		}
	})
}
