package host_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/hostabi/hosttest"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/plugin"
)

// listen collects the host events of a topic.
func listen(t testing.TB, f *fixture, topic string) func() map[string]any {
	t.Helper()
	c, err := f.bus.Subscribe(t.Context(), []string{topic})
	if err != nil {
		t.Fatal(err)
	}
	return func() map[string]any {
		t.Helper()
		e := next(t, c)
		data := map[string]any{"source": e.Source, "trace": e.TraceID}
		if err := json.Unmarshal(e.Data, &data); err != nil {
			t.Error(err)
		}
		return data
	}
}

// next is one event.
func next(t testing.TB, sub hostabi.Subscription) hostabi.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var buf [1]hostabi.Event
	if _, err := sub.Next(ctx, buf[:]); err != nil {
		t.Error(err)
	}
	return buf[0]
}

func TestHostEvents(t *testing.T) {
	f := newFixture(t)
	prefix := f.Registry
	denied, changed := listen(t, f, "capability.denied"), listen(t, f, "state.changed")
	pulled, pushed := listen(t, f, "artifact.pulled"), listen(t, f, "artifact.pushed")
	s := f.open(nil, nil)
	_ = call(t.Context(), s, hostv1.Config_Get_FullMethodName, &hostv1.GetConfigRequest{Key: "settings.other.greeting"}, nil)
	if e := denied(); e["cap"] != "config.read" || e["resource"] != "settings.other.greeting" || e["plugin"] != "kit" || e["source"] != "/ds" {
		t.Errorf("capability.denied: %v", e)
	}
	_ = stat(t, s, hostabi.DigestOf([]byte("foreign"))) // tells nobody whether it is there
	if err := call(t.Context(), s, hostv1.State_Put_FullMethodName, &hostv1.PutStateRequest{Key: "k"}, nil); err != nil {
		t.Error(err)
	}
	if e := changed(); e["owner"] != "kit" || e["key"] != "k" || e["revision"] == 0.0 || e["deleted"] != false {
		t.Errorf("state.changed: %v", e)
	}
	if err := call(t.Context(), s, hostv1.State_Delete_FullMethodName, &hostv1.DeleteStateRequest{Key: "k"}, nil); err != nil {
		t.Error(err)
	}
	if e := changed(); e["deleted"] != true {
		t.Errorf("state.changed: %v", e)
	}
	// What was not there has not changed: the next event is that of the write.
	if err := call(t.Context(), s, hostv1.State_Delete_FullMethodName, &hostv1.DeleteStateRequest{Key: "k"}, nil); err != nil {
		t.Error(err)
	}
	if err := call(t.Context(), s, hostv1.State_Put_FullMethodName, &hostv1.PutStateRequest{Key: "l"}, nil); err != nil {
		t.Error(err)
	}
	if e := changed(); e["key"] != "l" || e["deleted"] != false {
		t.Errorf("state.changed: %v", e)
	}
	put(t, s, "{}")
	put(t, s, "layer")
	root := put(t, s, image("layer"))
	if _, err := list[hostv1.PushEvent](t, s, hostv1.Registry_Push_FullMethodName, &hostv1.PushRequest{Ref: prefix + "/out:v1", Digest: root, Tags: []string{"x"}}); err != nil {
		t.Fatal(err)
	}
	if e := pushed(); e["digest"] != root || fmt.Sprint(e["tags"]) != "[x]" {
		t.Errorf("artifact.pushed: %v", e)
	}
	if _, err := pull(t, s, prefix+"/out:v1"); err != nil {
		t.Fatal(err)
	}
	if e := pulled(); e["digest"] != root || e["fetched"] != 0.0 || e["cached"] == 0.0 || e["ref"] != prefix+"/out:v1" {
		t.Errorf("artifact.pulled: %v", e)
	}
}

func TestCompletionMayNotChangeAnything(t *testing.T) {
	f := newFixture(t)
	s := f.open(nil, func(inv *plugin.Invocation) { inv.Kind = plugin.KindComplete })
	if err := call(t.Context(), s, hostv1.Config_Get_FullMethodName, &hostv1.GetConfigRequest{Key: "settings.kit.greeting"}, nil); err != nil {
		t.Errorf("read: %v", err)
	}
	for method, req := range map[string]proto.Message{
		hostv1.State_Put_FullMethodName:      &hostv1.PutStateRequest{Key: "k"},
		hostv1.Cache_Create_FullMethodName:   &hostv1.CreateBlobRequest{},
		hostv1.Events_Publish_FullMethodName: &hostv1.Event{Topic: "kit.x"},
		hostv1.Registry_Tag_FullMethodName:   &hostv1.TagRequest{Ref: f.Registry + "/out:v1", Tag: "x"},
		hostv1.Term_Prompt_FullMethodName:    &hostv1.PromptRequest{Kind: "line"},
		hostv1.Plugins_List_FullMethodName:   &hostv1.ListPluginsRequest{},
	} {
		wantReason(t, method, call(t.Context(), s, method, req, nil), hostabi.ReasonCompletion)
	}
}

func TestEventLimits(t *testing.T) {
	f := newFixture(t)
	s := f.open(nil, nil)
	topics := make([]string, hostabi.MaxPatterns)
	for i := range topics {
		topics[i] = fmt.Sprint("flood.t", i)
	}
	st := openStream(t, t.Context(), s, hostv1.Events_Subscribe_FullMethodName, &hostv1.SubscribeRequest{Topics: topics})
	for !f.bus.Wanted("flood.t31") {
		<-time.After(time.Millisecond)
	}
	wantReason(t, "33rd pattern", call(t.Context(), s, hostv1.Events_Poll_FullMethodName, &hostv1.PollRequest{Topics: []string{"flood.x"}}, nil), hostabi.ReasonTooMany)
	_ = st.Close()
	for i := range 17 {
		var r hostv1.PollReply
		poll := func() error {
			return call(t.Context(), s, hostv1.Events_Poll_FullMethodName, &hostv1.PollRequest{Topics: []string{"flood.x"}}, &r)
		}
		err := poll()
		for ; i == 0 && hostabi.ReasonOf(err) == hostabi.ReasonTooMany && t.Context().Err() == nil; err = poll() {
			<-time.After(time.Millisecond) // the stream is on its way out
		}
		if i < 16 && err != nil {
			t.Fatalf("poll %d: %v", i+1, err)
		}
		if i == 16 {
			wantReason(t, "17th poll", err, hostabi.ReasonTooMany)
		}
	}
	for name, e := range map[string]*hostv1.Event{
		"attribute name":      {Topic: "kit.x", Attributes: map[string]string{"Bad-Name": "v"}},
		"attribute of events": {Topic: "kit.x", Attributes: map[string]string{"source": "v"}},
		"content type":        {Topic: "kit.x", ContentType: strings.Repeat("x", 200)},
	} {
		wantReason(t, name, call(t.Context(), s, hostv1.Events_Publish_FullMethodName, e, nil), hostabi.ReasonBadMessage)
	}
	wantReason(t, "blob", call(t.Context(), s, hostv1.Events_Publish_FullMethodName, &hostv1.Event{Topic: "kit.x", Blobs: []string{"x"}}, nil), hostabi.ReasonBadDigest)
}

// TestHops: events of a handler count one more, and at the limit they go nowhere.
func TestHops(t *testing.T) {
	f := newFixture(t)
	c, err := f.bus.Subscribe(t.Context(), []string{"kit.**"})
	if err != nil {
		t.Fatal(err)
	}
	publish := func(hops uint32) *hostv1.PublishAck {
		t.Helper()
		s := f.open(nil, func(inv *plugin.Invocation) { inv.Kind, inv.Hops = plugin.KindEvent, func() uint32 { return hops + 1 } })
		var ack hostv1.PublishAck
		e := &hostv1.Event{Topic: "kit.x", Hops: 99, Source: "/ds", Id: "forged", Blobs: []string{string(hostabi.DigestOf(nil))}}
		if err := call(t.Context(), s, hostv1.Events_Publish_FullMethodName, e, &ack); err != nil {
			t.Fatal(err)
		}
		return &ack
	}
	if ack := publish(2); ack.GetSubscribers() != 1 {
		t.Errorf("ack %v", ack)
	}
	if e := next(t, c); e.Hops != 3 || e.Source != "/plugins/kit" || e.ID == "forged" || len(e.Blobs) != 1 {
		t.Errorf("event %+v", e)
	}
	if ack := publish(hostabi.MaxHops - 1); ack.GetSubscribers() != 0 || ack.GetDropped() != 1 {
		t.Errorf("at the limit: %v", ack)
	}
}

func start(name, command string, more func(*hostv1.CallStart)) *hostv1.CallRequest {
	s := &hostv1.CallStart{Plugin: name, Command: command}
	if more != nil {
		more(s)
	}
	return &hostv1.CallRequest{Msg: &hostv1.CallRequest_Start{Start: s}}
}

// manager is a Plugins owner made of a function.
type manager func(ctx context.Context, name plugin.Name, inv *plugin.Invocation) error

func (m manager) Run(ctx context.Context, name plugin.Name, inv *plugin.Invocation) error {
	return m(ctx, name, inv)
}

func (manager) All(context.Context) iter.Seq2[*plugin.Installed, error] {
	return func(func(*plugin.Installed, error) bool) {}
}

// caller opens a session whose plugin calls go to m.
func caller(t testing.TB, f *fixture, m manager, change func(*plugin.Invocation)) *host.Session {
	r := host.New(host.Options{})
	hostv1.RegisterPluginsServer(r, host.NewPlugins(m))
	f.Registrar = r
	return f.open(scopes{hostabi.PluginsCall: only("b/*")}, change)
}

func TestNestedInvocation(t *testing.T) {
	f := newFixture(t)
	deadline := time.Now().Add(time.Hour)
	var got plugin.Invocation
	var out hosttest.Buffer
	s := caller(t, f, func(_ context.Context, name plugin.Name, inv *plugin.Invocation) error {
		got = *inv
		_, err := io.WriteString(inv.Stdout, "straight through")
		return err
	}, func(inv *plugin.Invocation) {
		inv.Chain, inv.Deadline, inv.Stdout = []hostabi.PluginName{"a"}, deadline, &out
		inv.Terminal = hostabi.Terminal{StdinTTY: true, StdoutTTY: true, StderrTTY: true, Format: "json"}
		inv.Offline, inv.NoInput, inv.LogLevel = true, true, "debug"
	})
	events, err := list[hostv1.CallEvent](t, s, hostv1.Plugins_Call_FullMethodName, start("b", "bundle create", func(c *hostv1.CallStart) {
		c.Args, c.InheritStdout, c.Timeout = []string{"--x"}, true, time.Minute.Milliseconds()
	}))
	if err != nil || len(events) != 1 || events[0].GetExit() == nil {
		t.Fatalf("events %v %v", events, err)
	}
	if out.String() != "straight through" {
		t.Errorf("inherited stdout got %q", out.String())
	}
	if fmt.Sprintf("%v %v %v %v", got.Args, got.Chain, got.Caller, got.Kind) != "[bundle create --x] [a kit] kit run" {
		t.Errorf("invocation %v %v %v %v", got.Args, got.Chain, got.Caller, got.Kind)
	}
	if got.TraceID != f.Invocation().TraceID || !got.Offline || !got.NoInput || got.LogLevel != "debug" || got.ID != "" {
		t.Errorf("invocation %+v", got)
	}
	if tt := got.Terminal; tt.StdinTTY || !tt.StdoutTTY || tt.StderrTTY || tt.Format != "json" {
		t.Errorf("terminal %+v", tt)
	}
	if left := time.Until(got.Deadline); left > time.Minute || left < 30*time.Second {
		t.Errorf("deadline in %v", left)
	}
}

func TestEightCallsAtOnce(t *testing.T) {
	f := newFixture(t)
	running := make(chan struct{}, 20)
	s := caller(t, f, func(ctx context.Context, _ plugin.Name, _ *plugin.Invocation) error {
		running <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}, nil)
	for range hostabi.MaxChildren {
		openStream(t, t.Context(), s, hostv1.Plugins_Call_FullMethodName, start("b", "run", nil))
	}
	for range hostabi.MaxChildren {
		<-running
	}
	_, err := list[hostv1.CallEvent](t, s, hostv1.Plugins_Call_FullMethodName, start("b", "run", nil))
	wantReason(t, "9th call", err, hostabi.ReasonTooMany)
}

func TestCalleeStdin(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct {
		name string
		run  func(inv *plugin.Invocation) error
	}{
		{"never reads", func(*plugin.Invocation) error { return nil }},
		{"reads one byte at a time", func(inv *plugin.Invocation) error {
			b := make([]byte, 1)
			for {
				if _, err := inv.Stdin.Read(b); err != nil {
					return ignoreEOF(err)
				}
				if _, err := inv.Stdout.Write(b); err != nil {
					return err
				}
			}
		}},
		{"is closed while it waits", func(inv *plugin.Invocation) error {
			var wg sync.WaitGroup
			defer wg.Wait()
			if _, err := io.ReadFull(inv.Stdin, make([]byte, 6)); err != nil {
				return err
			}
			wg.Go(func() { _ = inv.Stdin.(io.Closer).Close() })
			_, err := inv.Stdin.Read(make([]byte, 1))
			if !errors.Is(err, io.ErrClosedPipe) {
				return fmt.Errorf("read gives %w", err)
			}
			return nil
		}},
	} {
		s := caller(t, f, func(_ context.Context, _ plugin.Name, inv *plugin.Invocation) error { return c.run(inv) }, nil)
		st := openStream(t, t.Context(), s, hostv1.Plugins_Call_FullMethodName, start("b", "run", nil))
		for _, piece := range []string{"abc", "", "def"} {
			b, err := proto.Marshal(&hostv1.CallRequest{Msg: &hostv1.CallRequest_Stdin{Stdin: []byte(piece)}})
			if err != nil {
				t.Fatal(err)
			}
			if err := st.Send(b); err != nil && !errors.Is(err, io.EOF) {
				t.Errorf("%s: send: %v", c.name, err)
			}
		}
		if c.name != "is closed while it waits" {
			_ = st.CloseSend()
		}
		var out string
		for {
			b, err := st.Recv()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Errorf("%s: %v", c.name, err)
				}
				break
			}
			var e hostv1.CallEvent
			if err := proto.Unmarshal(b, &e); err != nil {
				t.Fatal(err)
			}
			out += string(e.GetStdout())
		}
		if c.name == "reads one byte at a time" && out != "abcdef" {
			t.Errorf("%s: got %q", c.name, out)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func TestBadCalls(t *testing.T) {
	f := newFixture(t)
	s := caller(t, f, func(context.Context, plugin.Name, *plugin.Invocation) error {
		return &plugin.RunError{Name: "b", Stage: plugin.StageFind, Err: hostabi.Errorf(hostabi.ReasonPluginInactive, "b waits")}
	}, nil)
	for _, c := range []struct {
		name string
		req  *hostv1.CallRequest
		want hostabi.Reason
	}{
		{"no name", start("../x", "run", nil), hostabi.ReasonPluginNotFound},
		{"negative timeout", start("b", "run", func(s *hostv1.CallStart) { s.Timeout = -1 }), hostabi.ReasonBadMessage},
		{"bad blob", start("b", "run", func(s *hostv1.CallStart) { s.Blobs = []string{"x"} }), hostabi.ReasonBadDigest},
		{"not granted", start("c", "run", nil), hostabi.ReasonCapabilityDenied},
		{"fails to start", start("b", "run", nil), hostabi.ReasonPluginInactive},
	} {
		_, err := list[hostv1.CallEvent](t, s, hostv1.Plugins_Call_FullMethodName, c.req)
		wantReason(t, c.name, err, c.want)
	}
}

func TestLogRate(t *testing.T) {
	f := newFixture(t)
	s := f.open(nil, nil)
	batch := &hostv1.LogBatch{}
	for range hostabi.MaxLogRate {
		batch.Records = append(batch.Records, &hostv1.LogRecord{Message: "m", Time: 1})
	}
	for range 3 { // at most two seconds pass
		if err := call(t.Context(), s, hostv1.Log_Write_FullMethodName, batch, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(f.Log.String(), "INFO m plugin=kit"); n < hostabi.MaxLogRate || n >= 3*hostabi.MaxLogRate {
		t.Errorf("%d records were written", n)
	}
	if !strings.Contains(f.Log.String(), "log records dropped") {
		t.Error("the surplus is not told")
	}
}

func TestLogAttributesStayApart(t *testing.T) {
	f := newFixture(t)
	s := f.open(nil, nil)
	req := &hostv1.LogBatch{Records: []*hostv1.LogRecord{{Message: "m", Attributes: map[string]string{"plugin": "other", "b\n": "v"}}}}
	if err := call(t.Context(), s, hostv1.Log_Write_FullMethodName, req, nil); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(f.Log.Plugin(), ""); got != "INFO m plugin=kit attr=[b =v plugin=other]" {
		t.Errorf("log has %q", got)
	}
}

func TestPrompts(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct {
		name   string
		req    *hostv1.PromptRequest
		change func(*plugin.Invocation)
		answer string
		want   hostabi.Reason
	}{
		{"too long", &hostv1.PromptRequest{Kind: "line", Text: strings.Repeat("x", hostabi.MaxPrompt+1)}, nil, "", hostabi.ReasonTooLarge},
		{"long choices", &hostv1.PromptRequest{Kind: "choose", Choices: []string{strings.Repeat("x", hostabi.MaxPrompt+1)}}, nil, "", hostabi.ReasonTooLarge},
		{"no choices", &hostv1.PromptRequest{Kind: "choose"}, nil, "", hostabi.ReasonBadMessage},
		{"no input", &hostv1.PromptRequest{Kind: "line", Fallback: "f"}, func(inv *plugin.Invocation) { inv.NoInput = true }, "f", ""},
		{"no input, no fallback", &hostv1.PromptRequest{Kind: "line"}, func(inv *plugin.Invocation) { inv.NoInput = true }, "", hostabi.ReasonNoTerminal},
		{"no input, --yes is the terminal's", &hostv1.PromptRequest{Kind: "confirm", Text: "yes or no"}, func(inv *plugin.Invocation) { inv.NoInput = true }, "yes", ""},
		{"a handler", &hostv1.PromptRequest{Kind: "confirm", Text: "yes or no"}, func(inv *plugin.Invocation) { inv.Kind = plugin.KindEvent }, "", hostabi.ReasonNoTerminal},
	} {
		s := f.open(scopes{hostabi.TermPrompt: only("line", "choose", "confirm")}, c.change)
		var r hostv1.PromptReply
		err := call(t.Context(), s, hostv1.Term_Prompt_FullMethodName, c.req, &r)
		wantReason(t, c.name, err, c.want)
		if r.GetAnswer() != c.answer {
			t.Errorf("%s: answer %q", c.name, r.GetAnswer())
		}
	}
}

// TestProgressIsConflated: many reports of many items, of each the last one is shown.
func TestProgressIsConflated(t *testing.T) {
	f := newFixture(t)
	s := f.open(nil, nil)
	for n := range int64(400) {
		req := &hostv1.ProgressBatch{Items: []*hostv1.Progress{{Id: fmt.Sprint("i", n), Current: n, State: "run"}, {Id: "same", Current: n, State: "run"}}}
		if err := call(t.Context(), s, hostv1.Term_Report_FullMethodName, req, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	last, shown := map[string]int64{}, 0
	for _, p := range f.Terminal.Reports {
		last[p.ID] = p.Current
		if p.ID == "same" {
			shown++
		}
	}
	if len(last) != 401 || last["same"] != 399 || shown > 50 {
		t.Errorf("%d items shown, the last of one is %d, %d times", len(last), last["same"], shown)
	}
}

func TestRowsQuota(t *testing.T) {
	f := newFixture(t)
	s := f.open(nil, nil)
	row := `{"x":"` + strings.Repeat("x", 4<<20-100) + `"}`
	var err error
	for range 17 {
		if err = call(t.Context(), s, hostv1.Term_Rows_FullMethodName, &hostv1.RowBatch{RowsJson: []string{row}}, nil); err != nil {
			break
		}
	}
	wantReason(t, "64 MiB of rows", err, hostabi.ReasonQuota)
}

// early is a service whose handler answers before it has received.
type early struct {
	hostv1.UnimplementedCacheServer
}

func TestAnswerBeforeTheGate(t *testing.T) {
	desc := grpc.ServiceDesc{ServiceName: "ds.host.v1.Cache", HandlerType: (*hostv1.CacheServer)(nil), Streams: []grpc.StreamDesc{{
		StreamName: "List", ServerStreams: true,
		Handler: func(_ any, st grpc.ServerStream) error { return st.SendMsg(&hostv1.BlobInfo{Digest: "leak"}) },
	}}}
	r := host.New(host.Options{})
	r.RegisterService(&desc, early{})
	f := newFixture(t)
	inv := f.Invocation()
	s, err := r.Open(f.Installed, f.Box(inv), inv)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, err := list[hostv1.BlobInfo](t, s, hostv1.Cache_List_FullMethodName, &hostv1.ListBlobsRequest{})
	if len(got) > 0 || hostabi.ReasonOf(err) != hostabi.ReasonInternal {
		t.Errorf("got %v %v", got, err)
	}
}
