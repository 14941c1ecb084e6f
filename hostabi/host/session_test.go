package host_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/delivery-station/ds/cache"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/hostabi/hosttest"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/internal/events"
	"github.com/delivery-station/ds/internal/state"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

// scopes is what a test grants.
type scopes = map[hostabi.Capability]sandbox.Scopes

func only(s ...string) sandbox.Scopes { return sandbox.Scopes{Scope: s} }

// fixture is one session over real owners, with a small registry.
type fixture struct {
	*hosttest.World
	t        testing.TB
	bus      *events.Bus
	registry *hosttest.MemoryRegistry
	blobs    *cache.Store
}

func newFixture(t testing.TB) *fixture {
	f := &fixture{t: t, registry: hosttest.NewMemoryRegistry(), bus: events.New(events.Options{})}
	t.Cleanup(func() { _ = f.bus.Close() })
	f.World = hosttest.NewWorld(t, func(t testing.TB, s hosttest.Setup) hosttest.Owners {
		store := state.Memory(state.Options{Clock: s.Clock})
		var err error
		if f.blobs, err = cache.Open(t.Context(), cache.Options{Dir: filepath.Join(s.Dir, "cache"), Clock: s.Clock}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.blobs.Close() })
		return hosttest.Owners{
			Cache:    func(o hostabi.PluginName, source string) (host.Cache, error) { return f.blobs.View(o, source), nil },
			Puller:   func() (host.Puller, error) { return f.registry, nil },
			Pusher:   func() (host.Pusher, error) { return f.registry, nil },
			Events:   f.bus,
			State:    func() (host.State, error) { return store, nil },
			Registry: "registry.example/kit",
		}
	}, hosttest.Setup{})
	f.Installed.Program = &plugin.Program{Kind: plugin.Native}
	return f
}

// open opens a session with the grants of the kit, or with those given.
func (f *fixture) open(granted scopes, change func(*plugin.Invocation)) *host.Session {
	f.t.Helper()
	inv := f.Invocation()
	if change != nil {
		change(inv)
	}
	box := f.Box(inv)
	if granted != nil {
		box = f.Grant(f.Installed, inv, granted)
	}
	s, err := f.Registrar.Open(f.Installed, box, inv)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = s.Close() })
	return s.(*host.Session)
}

// call runs a unary method; reply may be nil.
func call(ctx context.Context, s hostabi.Session, method string, req, reply proto.Message) error {
	b, err := proto.Marshal(req)
	if err != nil {
		return err
	}
	out, err := s.Invoke(ctx, hostabi.Call{Method: method, Req: b})
	if err != nil || reply == nil {
		return err
	}
	return proto.Unmarshal(out, reply)
}

// openStream starts a streaming method and sends its first message.
func openStream(t testing.TB, ctx context.Context, s hostabi.Session, method string, req proto.Message) hostabi.Stream {
	t.Helper()
	st, err := s.Stream(ctx, method, hostabi.EncProto)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	b, err := proto.Marshal(req)
	if err == nil {
		err = st.Send(b)
	}
	if err != nil && !errors.Is(err, io.EOF) { // EOF: it has ended already, Recv knows why
		t.Fatal(err)
	}
	return st
}

// list runs a server-streaming method to its end.
func list[M any, P interface {
	*M
	proto.Message
}](t testing.TB, s hostabi.Session, method string, req proto.Message) (out []P, err error) {
	t.Helper()
	st := openStream(t, t.Context(), s, method, req)
	if err := st.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for {
		b, err := st.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		m := P(new(M))
		if err := proto.Unmarshal(b, m); err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
}

func wantReason(t testing.TB, what string, err error, want hostabi.Reason) {
	t.Helper()
	if got := hostabi.ReasonOf(err); got != want {
		t.Errorf("%s: got %v (%s), want %s", what, err, got, want)
	}
}

// blocked starts n polls that wait until the session ends, and returns when all are in the host.
func blocked(t *testing.T, f *fixture, s *host.Session, n int) (wait func() []error) {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			errs[i] = call(t.Context(), s, hostv1.Term_Prompt_FullMethodName, &hostv1.PromptRequest{Kind: "line", Text: "block"}, nil)
		})
	}
	for range n {
		<-f.Terminal.Blocked()
	}
	return func() []error { wg.Wait(); return errs }
}

func TestCloseEndsEverything(t *testing.T) {
	before := runtime.NumGoroutine()
	f := newFixture(t)
	s := f.open(nil, nil)
	wait := blocked(t, f, s, 3)
	st := openStream(t, t.Context(), s, hostv1.Events_Subscribe_FullMethodName, &hostv1.SubscribeRequest{Topics: []string{"flood.x"}})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	for _, err := range wait() {
		wantReason(t, "call in flight", err, hostabi.ReasonInterrupted)
	}
	_, err := st.Recv()
	wantReason(t, "stream", err, hostabi.ReasonInterrupted)
	wg.Wait()
	wantReason(t, "call after the end", call(t.Context(), s, hostv1.Meta_Describe_FullMethodName, &hostv1.DescribeRequest{}, nil), hostabi.ReasonInterrupted)
	_, err = s.Stream(t.Context(), hostv1.State_List_FullMethodName, hostabi.EncProto)
	wantReason(t, "stream after the end", err, hostabi.ReasonInterrupted)
	_ = f.bus.Close()
	for end := time.After(5 * time.Second); runtime.NumGoroutine() > before+2; {
		select {
		case <-end:
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		case <-time.After(time.Millisecond):
		}
	}
}

func TestCallsInFlight(t *testing.T) {
	f := newFixture(t)
	s := f.open(nil, nil)
	wait := blocked(t, f, s, hostabi.MaxCalls)
	wantReason(t, "one too many", call(t.Context(), s, hostv1.Meta_Describe_FullMethodName, &hostv1.DescribeRequest{}, nil), hostabi.ReasonTooMany)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	wait()
}

func TestDeadlineOfTheRun(t *testing.T) {
	f := newFixture(t)
	s := f.open(nil, func(inv *plugin.Invocation) { inv.Deadline = time.Now().Add(50 * time.Millisecond) })
	var d hostv1.DescribeResponse
	if err := call(t.Context(), s, hostv1.Meta_Describe_FullMethodName, &hostv1.DescribeRequest{}, &d); err != nil || d.GetLimits().GetDeadline() == 0 {
		t.Errorf("describe: %v, deadline %d", err, d.GetLimits().GetDeadline())
	}
	for _, err := range blocked(t, f, s, 1)() {
		wantReason(t, "call", err, hostabi.ReasonTimeout)
	}
}

func TestCallerGivesUp(t *testing.T) {
	f := newFixture(t)
	s := f.open(nil, nil)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-f.Terminal.Blocked(); cancel() }()
	err := call(ctx, s, hostv1.Term_Prompt_FullMethodName, &hostv1.PromptRequest{Kind: "line", Text: "block"}, nil)
	wantReason(t, "call", err, hostabi.ReasonInterrupted)
}

func TestJSON(t *testing.T) {
	f := newFixture(t)
	s := f.open(nil, nil)
	for _, c := range []struct {
		name, method, req, want string
		reason                  hostabi.Reason
	}{
		{"reply is compact", hostv1.Config_Get_FullMethodName, `{"key":"settings.kit.greeting"}`, `{"key":"settings.kit.greeting","json":"\"hello\""}`, ""},
		{"unknown field", hostv1.Config_Get_FullMethodName, `{"key":"settings.kit.list.a","new":[1]}`, `{"key":"settings.kit.list.a","json":"1"}`, ""},
		{"empty", hostv1.Log_Write_FullMethodName, ``, `{}`, ""},
		{"garbage", hostv1.Config_Get_FullMethodName, `{"key":`, ``, hostabi.ReasonBadMessage},
		{"wrong type", hostv1.Config_Get_FullMethodName, `{"key":7}`, ``, hostabi.ReasonBadMessage},
		{"not UTF-8", hostv1.Config_Get_FullMethodName, "{\"key\":\"\xff\"}", ``, hostabi.ReasonBadMessage},
		{"a stream", hostv1.State_List_FullMethodName, `{}`, ``, hostabi.ReasonBadMessage},
	} {
		out, err := s.Invoke(t.Context(), hostabi.Call{Method: c.method, Enc: hostabi.EncJSON, Req: []byte(c.req), Dst: []byte("> ")})
		if c.reason != "" {
			wantReason(t, c.name, err, c.reason)
			continue
		}
		if err != nil || string(out) != "> "+c.want {
			t.Errorf("%s: %s %v, want %s", c.name, out, err, c.want)
		}
	}
}

func TestJSONStream(t *testing.T) {
	f := newFixture(t)
	s := f.open(nil, nil)
	for _, k := range []string{"a", "b"} {
		if err := call(t.Context(), s, hostv1.State_Put_FullMethodName, &hostv1.PutStateRequest{Key: k, Value: []byte("v")}, nil); err != nil {
			t.Fatal(err)
		}
	}
	st, err := s.Stream(t.Context(), hostv1.State_List_FullMethodName, hostabi.EncJSON)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := errors.Join(st.Send([]byte(`{"keysOnly":true}`)), st.CloseSend(), st.CloseSend()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"key":"a"`, `"key":"b"`} {
		if b, err := st.Recv(); err != nil || !strings.Contains(string(b), want) {
			t.Errorf("got %s %v, want %s", b, err, want)
		}
	}
	for range 2 {
		if _, err := st.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("got %v, want io.EOF", err)
		}
	}
	if err := st.Send([]byte(`{}`)); err == nil {
		t.Error("message after the end was taken")
	}
}

// TestUnaryAsStream: carriers that only have streams call unary methods too.
func TestUnaryAsStream(t *testing.T) {
	f := newFixture(t)
	s := f.open(nil, nil)
	if s.Streaming(hostv1.Config_Get_FullMethodName) || !s.Streaming(hostv1.State_List_FullMethodName) || s.Streaming("/no") {
		t.Error("Streaming is wrong")
	}
	st := openStream(t, t.Context(), s, hostv1.Config_Get_FullMethodName, &hostv1.GetConfigRequest{Key: "settings.kit.greeting"})
	var v hostv1.ConfigValue
	b, err := st.Recv()
	if err != nil || proto.Unmarshal(b, &v) != nil || v.GetJson() != `"hello"` {
		t.Errorf("got %v %v", &v, err)
	}
	if _, err := st.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want io.EOF", err)
	}
	st = openStream(t, t.Context(), s, hostv1.Config_Get_FullMethodName, &hostv1.GetConfigRequest{Key: "settings.other.greeting"})
	_, err = st.Recv()
	wantReason(t, "denied", err, hostabi.ReasonCapabilityDenied)
	empty, err := s.Stream(t.Context(), hostv1.Config_Get_FullMethodName, hostabi.EncProto)
	if err != nil {
		t.Fatal(err)
	}
	_ = empty.CloseSend()
	_, err = empty.Recv()
	wantReason(t, "no request", err, hostabi.ReasonBadMessage)
}

// TestStreamWaitsForItsReader: a handler never gets further ahead than the queue.
// TestPoll: a guest that can do one thing at a time is told what would not wait. The callee is cat: it reads nothing
// while nobody takes what it writes.
func TestPoll(t *testing.T) {
	s := newFixture(t).open(nil, nil)
	st, err := s.Stream(t.Context(), hostv1.Plugins_Call_FullMethodName, hostabi.EncProto)
	if err != nil {
		t.Fatal(err)
	}
	p := st.(hostabi.Poller)
	send := func(m *hostv1.CallRequest) {
		t.Helper()
		b, err := proto.Marshal(m)
		if err == nil {
			err = st.Send(b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if recv, room := p.Poll(); recv || !room {
		t.Errorf("before the first message: receive %t, send %t", recv, room)
	}
	send(&hostv1.CallRequest{Msg: &hostv1.CallRequest_Start{Start: &hostv1.CallStart{Plugin: "cat", Command: "run"}}})
	for { // until the callee waits for its reader
		recv, room := p.Poll()
		if !room {
			if !recv {
				t.Error("nothing can be done")
			}
			break
		}
		send(&hostv1.CallRequest{Msg: &hostv1.CallRequest_Stdin{Stdin: []byte("x")}})
	}
	if err := st.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		if recv, room := p.Poll(); !recv || room {
			t.Fatalf("after the half-close: receive %t, send %t", recv, room)
		}
		_, err = st.Recv()
	}
	if err != io.EOF {
		t.Errorf("ended with %v", err)
	}
}

func TestStreamWaitsForItsReader(t *testing.T) {
	f := newFixture(t)
	s := f.open(scopes{hostabi.PluginsCall: only("yes/run")}, nil)
	st := openStream(t, t.Context(), s, hostv1.Plugins_Call_FullMethodName,
		&hostv1.CallRequest{Msg: &hostv1.CallRequest_Start{Start: &hostv1.CallStart{Plugin: "yes", Command: "run"}}})
	var last int64 = -1
	for end := time.After(5 * time.Second); ; {
		n := f.Written.Load()
		if n == last && n >= hostabi.MaxQueued {
			break
		}
		last = n
		select {
		case <-end:
			t.Fatalf("%d messages written", n)
		case <-time.After(20 * time.Millisecond):
		}
	}
	if last > hostabi.MaxQueued+2 {
		t.Errorf("%d messages were written though nobody reads", last)
	}
	if err := st.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil { // waits for the callee
		t.Error(err)
	}
}

func TestObserve(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	r := host.New(host.Options{Observe: func(_ context.Context, o host.Observation) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, fmt.Sprint(o.Plugin, " ", o.Method, " ", o.Code))
	}})
	hostv1.RegisterMetaServer(r, host.NewMeta())
	hostv1.RegisterTermServer(r, host.NewTerm(nil))
	hostv1.RegisterEventsServer(r, host.NewEvents())
	f := newFixture(t)
	inv := f.Invocation()
	s, err := r.Open(f.Installed, f.Grant(f.Installed, inv, scopes{hostabi.EventsSubscribe: only("x")}), inv)
	if err != nil {
		t.Fatal(err)
	}
	_ = call(t.Context(), s, hostv1.Meta_Describe_FullMethodName, &hostv1.DescribeRequest{}, nil)
	_ = call(t.Context(), s, hostv1.Term_Prompt_FullMethodName, &hostv1.PromptRequest{Kind: "line"}, nil)
	_ = call(t.Context(), s, "/x.Y/Z", &hostv1.Empty{}, nil)
	_, _ = s.Invoke(t.Context(), hostabi.Call{Method: hostv1.Term_Prompt_FullMethodName, Req: []byte{0xff}})
	_, _ = list[hostv1.Event](t, s, hostv1.Events_Subscribe_FullMethodName, &hostv1.SubscribeRequest{Topics: []string{"x"}})
	_, _ = s.Stream(t.Context(), "/x.Y/Z", hostabi.EncProto)
	_ = s.Close()
	want := "kit /ds.host.v1.Meta/Describe OK|kit /ds.host.v1.Term/Prompt PERMISSION_DENIED|kit /x.Y/Z UNIMPLEMENTED|" +
		"kit /ds.host.v1.Term/Prompt INVALID_ARGUMENT|kit /ds.host.v1.Events/Subscribe UNIMPLEMENTED|kit /x.Y/Z UNIMPLEMENTED"
	if got := strings.Join(seen, "|"); got != want {
		t.Errorf("observed\n%s\nwant\n%s", got, want)
	}
}

// TestInternalErrorsStayInside: the guest gets a trace id, the log the cause.
func TestInternalErrorsStayInside(t *testing.T) {
	log := &hosttest.Log{}
	r := host.New(host.Options{Log: log.Logger()})
	hostv1.RegisterConfigServer(r, host.NewConfig(brokenConfig{}))
	f := newFixture(t)
	inv := f.Invocation()
	s, err := r.Open(f.Installed, f.Grant(f.Installed, inv, scopes{hostabi.ConfigRead: only("own")}), inv)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, key := range []string{"settings.kit.error", "settings.kit.panic"} {
		err := call(t.Context(), s, hostv1.Config_Get_FullMethodName, &hostv1.GetConfigRequest{Key: key}, nil)
		wantReason(t, key, err, hostabi.ReasonInternal)
		if strings.Contains(err.Error(), "/secret/path") || !strings.Contains(err.Error(), inv.TraceID) {
			t.Errorf("%s: the guest is told %q", key, err)
		}
	}
	if n := strings.Count(log.String(), "/secret/path"); n != 2 {
		t.Errorf("log names the cause %d times:\n%s", n, log)
	}
}

type brokenConfig struct{ host.Config }

func (brokenConfig) Get(_ context.Context, _ hostabi.PluginName, key string) (hostabi.ConfigValue, error) {
	if key == "settings.kit.panic" {
		panic("at /secret/path")
	}
	return hostabi.ConfigValue{}, errors.New("open /secret/path: no")
}

func TestNextIDIsSharedWithHandles(t *testing.T) {
	f := newFixture(t)
	s := f.open(nil, nil)
	id, err := s.NextID()
	if err != nil {
		t.Fatal(err)
	}
	var o hostv1.OpenedBlob
	if err := call(t.Context(), s, hostv1.Cache_Create_FullMethodName, &hostv1.CreateBlobRequest{}, &o); err != nil {
		t.Fatal(err)
	}
	if o.GetHandle() <= id {
		t.Errorf("handle %d after id %d", o.GetHandle(), id)
	}
	if _, err := s.Handle(id); hostabi.ReasonOf(err) != hostabi.ReasonBadHandle {
		t.Errorf("a stream's number is a handle: %v", err)
	}
}

// TestHammer: parallel calls, streams and handles, and the end of the session in the middle of them.
func TestHammer(t *testing.T) {
	for range 5 {
		f := newFixture(t)
		s := f.open(nil, nil)
		var wg sync.WaitGroup
		var calls atomic.Int64
		for i := range 8 {
			wg.Go(func() {
				for n := 0; ; n++ {
					err := call(t.Context(), s, hostv1.State_Put_FullMethodName, &hostv1.PutStateRequest{Key: fmt.Sprint("k", i), Value: []byte("v")}, nil)
					if err == nil {
						_, err = listKeys(t.Context(), s)
					}
					if err == nil {
						var o hostv1.OpenedBlob
						if err = call(t.Context(), s, hostv1.Cache_Create_FullMethodName, &hostv1.CreateBlobRequest{}, &o); err == nil && n%2 == 0 {
							err = call(t.Context(), s, hostv1.Cache_Close_FullMethodName, &hostv1.HandleRef{Handle: o.GetHandle()}, nil)
						}
					}
					if r := hostabi.ReasonOf(err); err != nil && r != hostabi.ReasonTooMany {
						if r != hostabi.ReasonInterrupted {
							t.Errorf("call: %v", err)
						}
						return
					}
					if calls.Add(1) == 100 {
						go s.Close() // closed again below
					}
				}
			})
		}
		wg.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func listKeys(ctx context.Context, s hostabi.Session) (n int, err error) {
	st, err := s.Stream(ctx, hostv1.State_List_FullMethodName, hostabi.EncProto)
	if err != nil {
		return 0, err
	}
	defer st.Close()
	if err := st.Send(nil); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	for {
		if _, err := st.Recv(); errors.Is(err, io.EOF) {
			return n, nil
		} else if err != nil {
			return n, err
		}
		n++
	}
}

// TestHandlesOfAnotherSession: numbers that one run knows mean nothing in another, whatever carrier brings them.
func TestHandlesOfAnotherSession(t *testing.T) {
	f := newFixture(t)
	mine, foreign := f.open(nil, nil), f.open(nil, nil)
	var sink hostv1.OpenedBlob
	if err := call(t.Context(), foreign, hostv1.Cache_Create_FullMethodName, &hostv1.CreateBlobRequest{}, &sink); err != nil {
		t.Fatal(err)
	}
	for h := range sink.GetHandle() + 8 {
		wantReason(t, "close", call(t.Context(), mine, hostv1.Cache_Close_FullMethodName, &hostv1.HandleRef{Handle: h}, nil), hostabi.ReasonBadHandle)
		wantReason(t, "commit", call(t.Context(), mine, hostv1.Cache_Commit_FullMethodName, &hostv1.CommitRequest{Handle: h}, nil), hostabi.ReasonBadHandle)
		_, err := mine.Handle(h)
		wantReason(t, "use", err, hostabi.ReasonBadHandle)
	}
	w, err := foreign.Handle(sink.GetHandle())
	if err == nil {
		_, err = w.Write([]byte("still there"))
	}
	if err == nil {
		err = call(t.Context(), foreign, hostv1.Cache_Commit_FullMethodName, &hostv1.CommitRequest{Handle: sink.GetHandle()}, nil)
	}
	if err != nil {
		t.Error(err)
	}
}
