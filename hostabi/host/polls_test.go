package host_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/internal/events"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

// TestPollExpires: a subscription that nobody polls for five minutes ends, and every poll gives it five more.
func TestPollExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := events.New(events.Options{})
		defer bus.Close()
		r := host.New(host.Options{Events: bus})
		hostv1.RegisterEventsServer(r, host.NewEvents())
		p := &plugin.Installed{Name: "kit", Program: &plugin.Program{Kind: plugin.Native}, Manifest: &plugin.Manifest{
			Capabilities: []plugin.Request{{Cap: hostabi.EventsSubscribe, Scope: []string{"a.**"}}},
		}}
		inv := &plugin.Invocation{ID: "1", Kind: plugin.KindRun}
		box, err := sandbox.NewBox(sandbox.BoxOptions{Plugin: p, Invocation: inv, Granted: scopes{hostabi.EventsSubscribe: only("a.**")}})
		if err != nil {
			t.Fatal(err)
		}
		s, err := r.Open(p, box, inv)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		poll := func(req *hostv1.PollRequest) (*hostv1.PollReply, error) {
			reply := new(hostv1.PollReply)
			return reply, call(t.Context(), s, hostv1.Events_Poll_FullMethodName, req, reply)
		}
		first, err := poll(&hostv1.PollRequest{Topics: []string{"a.b"}})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			<-time.After(4 * time.Minute)
			if _, _, err := bus.Publish(t.Context(), hostabi.Event{Topic: "a.b", Source: "/ds"}); err != nil {
				t.Fatal(err)
			}
			if reply, err := poll(&hostv1.PollRequest{Subscription: first.GetSubscription()}); err != nil || len(reply.GetEvents()) != 1 {
				t.Fatalf("polled in time: %v, %v", reply, err)
			}
		}
		began := time.Now()
		if reply, err := poll(&hostv1.PollRequest{Subscription: first.GetSubscription(), Wait: 60_000}); err != nil || len(reply.GetEvents()) != 0 {
			t.Errorf("a poll that waits: %v, %v", reply, err)
		}
		if waited := time.Since(began); waited != hostabi.MaxPollWait {
			t.Errorf("waited %v", waited)
		}
		<-time.After(5*time.Minute + time.Second)
		_, err = poll(&hostv1.PollRequest{Subscription: first.GetSubscription()})
		wantReason(t, "not polled for five minutes", err, hostabi.ReasonKeyNotFound)
		if n := len(bus.Stats()); n != 0 {
			t.Errorf("%d subscriptions are left", n)
		}
	})
}
