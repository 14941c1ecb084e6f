package hostv1lite_test

import (
	"bytes"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
	. "github.com/delivery-station/ds/hostabi/hostv1lite"
)

// lite makes a zero message of every kind; TestAllMessages compares the list with the schema.
var lite = map[string]func() Message{
	"Empty": mk[Empty], "DescribeRequest": mk[DescribeRequest], "DescribeResponse": mk[DescribeResponse], "Grant": mk[Grant],
	"Limits": mk[Limits], "PathArg": mk[PathArg], "Invocation": mk[Invocation], "Terminal": mk[Terminal],
	"GetConfigRequest": mk[GetConfigRequest], "ListConfigRequest": mk[ListConfigRequest], "ConfigTree": mk[ConfigTree], "ConfigValue": mk[ConfigValue],
	"BlobRef": mk[BlobRef], "HandleRef": mk[HandleRef], "OpenBlobRequest": mk[OpenBlobRequest], "UsageRequest": mk[UsageRequest],
	"BlobInfo": mk[BlobInfo], "PinRequest": mk[PinRequest], "CreateBlobRequest": mk[CreateBlobRequest], "OpenedBlob": mk[OpenedBlob],
	"CommitRequest": mk[CommitRequest], "ListBlobsRequest": mk[ListBlobsRequest], "VerifyEvent": mk[VerifyEvent], "UsageReply": mk[UsageReply],
	"EvictRequest": mk[EvictRequest], "VerifyRequest": mk[VerifyRequest], "RefRequest": mk[RefRequest], "TagRequest": mk[TagRequest],
	"Platform": mk[Platform], "ListTagsRequest": mk[ListTagsRequest], "Descriptor": mk[Descriptor], "PullEvent": mk[PullEvent],
	"PullRequest": mk[PullRequest], "PushEvent": mk[PushEvent], "PushRequest": mk[PushRequest], "TagName": mk[TagName], "Transfer": mk[Transfer],
	"ReferrersRequest": mk[ReferrersRequest], "Event": mk[Event], "PublishAck": mk[PublishAck], "SubscribeRequest": mk[SubscribeRequest],
	"PollRequest": mk[PollRequest], "PollReply": mk[PollReply], "StateKey": mk[StateKey], "StateEntry": mk[StateEntry],
	"PutStateRequest": mk[PutStateRequest], "AddStateRequest": mk[AddStateRequest], "DeleteStateRequest": mk[DeleteStateRequest], "ListStateRequest": mk[ListStateRequest],
	"ListPluginsRequest": mk[ListPluginsRequest], "PluginList": mk[PluginList], "CallExit": mk[CallExit], "PluginInfo": mk[PluginInfo],
	"CallRequest": mk[CallRequest], "CallStart": mk[CallStart], "CallEvent": mk[CallEvent], "HttpRequest": mk[HttpRequest], "HttpHead": mk[HttpHead],
	"Header": mk[Header], "HttpResponse": mk[HttpResponse], "HttpStatus": mk[HttpStatus], "HttpEnd": mk[HttpEnd], "LogBatch": mk[LogBatch],
	"LogRecord": mk[LogRecord], "Progress": mk[Progress], "ProgressBatch": mk[ProgressBatch], "PromptReply": mk[PromptReply],
	"PromptRequest": mk[PromptRequest], "RowBatch": mk[RowBatch],
}

func mk[T any, P interface {
	*T
	Message
}]() Message {
	return P(new(T))
}

var deterministic = proto.MarshalOptions{Deterministic: true}

func descriptors() protoreflect.MessageDescriptors { return hostv1.File_host_proto.Messages() }

func newFull(t testing.TB, d protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	mt, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		t.Fatal(err)
	}
	return mt.New().Interface()
}

func TestAllMessages(t *testing.T) {
	names := make(map[string]bool)
	for i := range descriptors().Len() {
		d := descriptors().Get(i)
		names[string(d.Name())] = true
		if lite[string(d.Name())] == nil {
			t.Errorf("%s has no lite form here", d.Name())
			continue
		}
		full, small := reflect.TypeOf(newFull(t, d)).Elem(), reflect.TypeOf(lite[string(d.Name())]()).Elem()
		for f := range fields(d) {
			name := goName(f)
			if _, ok := small.FieldByName(name); !ok {
				t.Errorf("%s has no field %s", d.Name(), name)
			}
			_, ok := full.FieldByName(name)
			if !ok {
				_, ok = full.FieldByName(name + "_") // where protobuf-go has a method of that name
			}
			if !ok && (f.ContainingOneof() == nil || f.ContainingOneof().IsSynthetic()) {
				t.Errorf("%s: protobuf-go does not call a field %s", d.Name(), name)
			}
		}
	}
	if len(names) != len(lite) {
		t.Errorf("schema has %d messages, the table %d", len(names), len(lite))
	}
}

func fields(d protoreflect.MessageDescriptor) func(func(protoreflect.FieldDescriptor) bool) {
	return func(yield func(protoreflect.FieldDescriptor) bool) {
		for i := range d.Fields().Len() {
			if !yield(d.Fields().Get(i)) {
				return
			}
		}
	}
}

func goName(f protoreflect.FieldDescriptor) string {
	var b strings.Builder
	for w := range strings.SplitSeq(string(f.Name()), "_") {
		b.WriteString(strings.ToUpper(w[:1]) + w[1:])
	}
	return b.String()
}

// TestParity: for random messages of every kind protobuf-go and this package write equal bytes and read each
// other's.
func TestParity(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 30
	}
	for i := range descriptors().Len() {
		d := descriptors().Get(i)
		t.Run(string(d.Name()), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range rounds {
				full := newFull(t, d)
				fill(r, full.ProtoReflect(), 0)
				want, err := deterministic.Marshal(full)
				if err != nil {
					t.Fatal(err)
				}
				small := lite[string(d.Name())]()
				if err := small.ParseProto(want); err != nil {
					t.Fatalf("%v\n%x", err, want)
				}
				equalFields(t, small, full)
				got := small.AppendProto([]byte("kept"))
				if !bytes.Equal(got[4:], want) || string(got[:4]) != "kept" {
					t.Fatalf("bytes differ\ngot  %x\nwant %x", got[4:], want)
				}
				back := newFull(t, d)
				if err := proto.Unmarshal(got[4:], back); err != nil || !proto.Equal(back, full) {
					t.Fatalf("protobuf-go reads %v, want %v (%v)", back, full, err)
				}
			}
		})
	}
}

// equalFields compares field by field what a message of this package and one of protobuf-go hold.
func equalFields(t *testing.T, small Message, full proto.Message) {
	t.Helper()
	s, m := reflect.ValueOf(small).Elem(), full.ProtoReflect()
	for f := range fields(m.Descriptor()) {
		v := s.FieldByName(goName(f))
		if f.HasPresence() && v.IsNil() == m.Has(f) {
			t.Fatalf("%s: set %v, protobuf-go says %v", f.FullName(), !v.IsNil(), m.Has(f))
		}
		switch {
		case f.IsMap() || f.IsList():
			if n := v.Len(); n != lenOf(m, f) {
				t.Fatalf("%s: length %d, protobuf-go says %d", f.FullName(), n, lenOf(m, f))
			}
		case f.Message() != nil:
			if m.Has(f) {
				equalFields(t, v.Interface().(Message), m.Get(f).Message().Interface())
			}
		default:
			if v.Kind() == reflect.Pointer {
				if v.IsNil() {
					continue
				}
				v = v.Elem()
			}
			want := m.Get(f).Interface()
			if b, ok := want.([]byte); ok {
				if !bytes.Equal(b, v.Bytes()) {
					t.Fatalf("%s: %x, protobuf-go says %x", f.FullName(), v.Bytes(), b)
				}
			} else if v.Interface() != want {
				t.Fatalf("%s: %v, protobuf-go says %v", f.FullName(), v.Interface(), want)
			}
		}
	}
}

func lenOf(m protoreflect.Message, f protoreflect.FieldDescriptor) int {
	if f.IsMap() {
		return m.Get(f).Map().Len()
	}
	return m.Get(f).List().Len()
}

// fill sets about two thirds of m's fields to random values, edge values among them.
func fill(r *rand.Rand, m protoreflect.Message, depth int) {
	for f := range fields(m.Descriptor()) {
		if r.IntN(3) == 0 {
			continue
		}
		switch {
		case f.IsMap():
			for range r.IntN(4) {
				m.Mutable(f).Map().Set(protoreflect.ValueOfString(text(r)).MapKey(), protoreflect.ValueOfString(text(r)))
			}
		case f.IsList():
			l := m.Mutable(f).List()
			for range r.IntN(4) {
				v := l.NewElement()
				if f.Message() != nil {
					fill(r, v.Message(), depth+1)
				} else {
					v = scalar(r, f)
				}
				l.Append(v)
			}
		case f.Message() != nil:
			fill(r, m.Mutable(f).Message(), depth+1)
		default:
			m.Set(f, scalar(r, f))
		}
	}
}

func scalar(r *rand.Rand, f protoreflect.FieldDescriptor) protoreflect.Value {
	n := []uint64{0, 1, 127, 128, math.MaxInt32, math.MaxUint32, math.MaxInt64, math.MaxUint64, r.Uint64(), r.Uint64N(1000)}[r.IntN(10)]
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(text(r))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(strings.Repeat("\xff\x00", r.IntN(100))))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(n%2 == 0)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(n))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(n))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(n))
	}
	return protoreflect.ValueOfUint64(n)
}

func text(r *rand.Rand) string {
	return []string{"", "a", "sha256:00", "☃ snow", "\x00", strings.Repeat("x", r.IntN(40_000)), strings.Repeat("y", 127), strings.Repeat("z", 128)}[r.IntN(8)]
}

// TestParseRules names what ParseProto promises beyond parity.
func TestParseRules(t *testing.T) {
	tag := func(num protowire.Number, wire protowire.Type) []byte { return protowire.AppendTag(nil, num, wire) }
	str := func(num protowire.Number, s string) []byte {
		return protowire.AppendString(tag(num, protowire.BytesType), s)
	}
	num := func(n protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(tag(n, protowire.VarintType), v)
	}
	groups := func(n int) []byte {
		return slices.Concat(bytes.Repeat(tag(99, protowire.StartGroupType), n), bytes.Repeat(tag(99, protowire.EndGroupType), n))
	}
	cat := slices.Concat[[]byte]
	bad := Message(nil)
	for name, c := range map[string]struct {
		in   []byte
		want Message // nil = refused
	}{
		"empty":               {nil, &Event{}},
		"last wins":           {cat(str(1, "a"), str(1, "b")), &Event{Id: "b"}},
		"unknown varint":      {cat(num(99, 5), str(1, "a")), &Event{Id: "a"}},
		"unknown fixed":       {cat(tag(99, protowire.Fixed64Type), make([]byte, 8), tag(98, protowire.Fixed32Type), make([]byte, 4)), &Event{}},
		"unknown text":        {str(99, "\xff"), &Event{}},
		"unknown group":       {cat(tag(99, protowire.StartGroupType), str(1, "x"), groups(3), tag(99, protowire.EndGroupType), str(1, "a")), &Event{Id: "a"}},
		"groups at the limit": {groups(100), &Event{}},
		"groups too deep":     {groups(101), bad},
		"group not ended":     {tag(99, protowire.StartGroupType), bad},
		"group ended wrong":   {cat(tag(99, protowire.StartGroupType), tag(98, protowire.EndGroupType)), bad},
		"end without start":   {tag(99, protowire.EndGroupType), bad},
		"map":                 {str(8, string(cat(str(1, "k"), str(2, "v"), num(3, 1)))), &Event{Attributes: map[string]string{"k": "v"}}},
		"map, value first":    {str(8, string(cat(str(2, "v"), str(1, "k")))), &Event{Attributes: map[string]string{"k": "v"}}},
		"map, nothing":        {str(8, ""), &Event{Attributes: map[string]string{"": ""}}},
		"map, cut":            {str(8, "\x0a\x05x"), bad},
		"map, not UTF-8":      {str(8, string(str(1, "\xff"))), bad},
		"map, wrong type":     {num(8, 1), bad},
		"not UTF-8":           {str(1, "\xff"), bad},
		"list not UTF-8":      {str(9, "\xff"), bad},
		"bytes, any":          {str(7, "\xff"), &Event{Data: []byte{0xff}}},
		"cut in a tag":        {[]byte{0x80}, bad},
		"cut in a number":     {[]byte{0x20, 0x80}, bad},
		"cut in text":         {[]byte{0x0a, 5, 'a'}, bad},
		"cut in fixed64":      {cat(tag(99, protowire.Fixed64Type), make([]byte, 7)), bad},
		"huge length":         {cat(tag(1, protowire.BytesType), protowire.AppendVarint(nil, math.MaxUint64)), bad},
		"number of 11 bytes":  {cat(tag(4, protowire.VarintType), bytes.Repeat([]byte{0x80}, 10), []byte{0}), bad},
		"number over 64 bits": {cat(tag(4, protowire.VarintType), bytes.Repeat([]byte{0xff}, 9), []byte{2}), bad},
		"largest number":      {num(11, math.MaxUint64), &Event{Dropped: math.MaxUint64}},
		"narrowed":            {num(10, 1<<32|7), &Event{Hops: 7}},
		"text as number":      {num(1, 1), bad},
		"number as text":      {str(4, "x"), bad},
		"field 0":             {[]byte{0, 0}, bad},
		"field too large":     {protowire.AppendVarint(nil, 1<<32), bad},
		"wire type 7":         {[]byte{0x0f}, bad},
	} {
		t.Run(name, func(t *testing.T) {
			m := &Event{Id: "old", Attributes: map[string]string{"old": "old"}}
			err := m.ParseProto(c.in)
			if c.want == nil {
				if hostabi.ReasonOf(err) != hostabi.ReasonBadMessage {
					t.Fatalf("got %v, want BAD_MESSAGE", err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(m, c.want) {
				t.Errorf("got %+v, want %+v (%v)", m, c.want, err)
			}
		})
	}
}

func TestParseNested(t *testing.T) {
	part := func(m Message) []byte { return m.AppendProto(nil) }
	for name, c := range map[string]struct {
		m, want Message
		in      []byte
	}{
		"singular messages merge": {
			new(RefRequest), &RefRequest{Platform: &Platform{Os: "b", Variant: "v"}},
			slices.Concat(part(&RefRequest{Platform: &Platform{Os: "a", Variant: "v"}}), part(&RefRequest{Platform: &Platform{Os: "b"}})),
		},
		"oneof: the last wins": {
			new(PullEvent), &PullEvent{Root: &Descriptor{Size: 1}},
			slices.Concat(part(&PullEvent{Blob: &Transfer{How: "x"}}), part(&PullEvent{Root: &Descriptor{Size: 1}})),
		},
		"oneof: not merged over another": {
			new(PullEvent), &PullEvent{Root: &Descriptor{Size: 1}},
			slices.Concat(part(&PullEvent{Root: &Descriptor{Ref: "r"}}), part(&PullEvent{Blob: &Transfer{}}), part(&PullEvent{Root: &Descriptor{Size: 1}})),
		},
		"oneof: empty bytes are set": {new(CallRequest), &CallRequest{Stdin: []byte{}}, part(&CallRequest{Stdin: []byte{}})},
		"optional zero is set":       {new(PutStateRequest), &PutStateRequest{IfRevision: new(uint64(0))}, part(&PutStateRequest{IfRevision: new(uint64(0))})},
		"int32 keeps its sign":       {new(CallExit), &CallExit{Code: -1, Signal: 9}, part(&CallExit{Code: -1, Signal: 9})},
		"list of messages":           {new(ConfigTree), &ConfigTree{Values: []ConfigValue{{Key: "a"}, {}}}, part(&ConfigTree{Values: []ConfigValue{{Key: "a"}, {}}})},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.m.ParseProto(c.in); err != nil || !reflect.DeepEqual(c.m, c.want) {
				t.Errorf("got %+v, want %+v (%v)", c.m, c.want, err)
			}
		})
	}
	inner := protowire.AppendString(protowire.AppendTag(nil, 6, protowire.BytesType), "\x0a\x05x")
	if err := new(Descriptor).ParseProto(inner); hostabi.ReasonOf(err) != hostabi.ReasonBadMessage || !strings.Contains(err.Error(), "Platform") {
		t.Errorf("a problem inside must be found and named: %v", err)
	}
}

// TestParseKeepsNothing: the caller's buffer may be reused at once.
func TestParseKeepsNothing(t *testing.T) {
	want := &Event{Id: "id", Data: []byte("data"), Attributes: map[string]string{"k": "v"}, Blobs: []string{"b"}}
	b := want.AppendProto(nil)
	got := new(Event)
	if err := got.ParseProto(b); err != nil {
		t.Fatal(err)
	}
	clear(b)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the message changed with the buffer: %+v", got)
	}
}

// FuzzParse: no panic; what this package reads, protobuf-go reads the same; what protobuf-go refuses, this
// package refuses. The reverse is not promised: a known field of another wire type is unknown to protobuf-go
// and refused here, so are deep unknown groups.
func FuzzParse(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range descriptors().Len() {
		full := newFull(f, descriptors().Get(i))
		for range 2 {
			fill(r, full.ProtoReflect(), 0)
			if b, err := proto.Marshal(full); err == nil && len(b) < 4096 {
				f.Add(i, b)
			}
		}
	}
	f.Fuzz(func(t *testing.T, i int, b []byte) {
		d := descriptors().Get(int(uint(i) % uint(descriptors().Len())))
		full, small := newFull(t, d), lite[string(d.Name())]()
		in := bytes.Clone(b)
		fullErr, smallErr := proto.Unmarshal(b, full), small.ParseProto(b)
		if !bytes.Equal(in, b) {
			t.Fatal("ParseProto wrote into its input")
		}
		if smallErr != nil {
			if hostabi.ReasonOf(smallErr) != hostabi.ReasonBadMessage {
				t.Fatalf("wrong error %v", smallErr)
			}
			return
		}
		if fullErr != nil {
			t.Fatalf("protobuf-go refuses (%v) what %s reads as %+v", fullErr, d.Name(), small)
		}
		equalFields(t, small, full)
		if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, full); err != nil {
			t.Fatal(err)
		}
		want, err := deterministic.Marshal(full)
		if err != nil {
			t.Fatal(err)
		}
		if got := small.AppendProto(nil); !bytes.Equal(got, want) {
			t.Fatalf("%s: bytes differ\ngot  %x\nwant %x", d.Name(), got, want)
		}
	})
}
