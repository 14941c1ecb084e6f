package cases

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1lite"
)

// The plugins that these cases call are the world's own: flood TOPIC N publishes N events, flood hops N one event of so
// many hops, clock D moves the host's clock, deadline says whose it has, evict evicts, exit N, cat, order, chain, ring,
// sleep, read DIGEST.

func eventsSubscribe(g *guest) {
	st, err := g.list(hostv1lite.EventsSubscribe, &hostv1lite.SubscribeRequest{Topics: []string{"flood.*"}})
	g.outcome("subscribe", err)
	if err != nil {
		return
	}
	defer st.Close() //nolint:errcheck // ended
	g.waitSubscribed("flood.ready")
	g.do("flood", "flood.one", "2")
	for range 2 {
		var e hostv1lite.Event
		err := st.recv(&e)
		g.outcome("event", err)
		if err == nil {
			g.print("%s from %s %s %s hops %d dropped %d", e.Topic, e.Source, e.ContentType, e.Data, e.Hops, e.Dropped)
		}
	}
}

// waitSubscribed returns when a stream that was opened before has reached the bus: the host answers a call
// only after it has seen what came before on some carriers, so the flood plugin tells how many listen.
func (g *guest) waitSubscribed(topic string) {
	_, _, _, err := g.run(&hostv1lite.CallStart{Plugin: "flood", Command: "wait", Args: []string{topic}}, nil)
	if err != nil {
		g.outcome("wait", err)
	}
}

// poll polls once; the first poll makes the subscription.
func (g *guest) poll(req *hostv1lite.PollRequest) hostv1lite.PollReply {
	var r hostv1lite.PollReply
	if err := g.call(hostv1lite.EventsPoll, req, &r); err != nil {
		g.outcome("poll", err)
	}
	return r
}

func eventsPoll(g *guest) {
	first := g.poll(&hostv1lite.PollRequest{Topics: []string{"flood.**"}})
	g.print("%d events, subscription %t", len(first.Events), first.Subscription != "")
	g.do("flood", "flood.poll", "3")
	r := g.poll(&hostv1lite.PollRequest{Subscription: first.Subscription, Max: 2, Wait: 1000})
	for _, e := range r.Events {
		g.print("%s %s", e.Topic, e.Data)
	}
	r = g.poll(&hostv1lite.PollRequest{Subscription: first.Subscription, Wait: 1000})
	g.print("then %d, dropped %d", len(r.Events), r.Dropped)
}

func eventsRing(g *guest) {
	first := g.poll(&hostv1lite.PollRequest{Topics: []string{"flood.ring"}})
	g.do("flood", "flood.ring", "101")
	r := g.poll(&hostv1lite.PollRequest{Subscription: first.Subscription, Wait: 1000})
	g.print("%d events, dropped %d", len(r.Events), r.Dropped)
	if len(r.Events) > 0 {
		g.print("first %s last %s", r.Events[0].Data, r.Events[len(r.Events)-1].Data)
	}
}

func eventsOwn(g *guest) {
	first := g.poll(&hostv1lite.PollRequest{Topics: []string{"kit.**", "flood.**"}})
	var ack hostv1lite.PublishAck
	err := g.call(hostv1lite.EventsPublish, &hostv1lite.Event{Topic: "kit.own", Data: []byte(`"x"`), Source: "/ds"}, &ack)
	g.outcome("publish", err)
	g.print("subscribers %d", ack.Subscribers)
	g.do("flood", "flood.after", "1")
	r := g.poll(&hostv1lite.PollRequest{Subscription: first.Subscription, Wait: 1000})
	for _, e := range r.Events {
		g.print("%s", e.Topic)
	}
}

// eventsHops: what handlers publish about events ends after so many of them.
func eventsHops(g *guest) {
	first := g.poll(&hostv1lite.PollRequest{Topics: []string{"flood.hops"}})
	for _, hops := range []string{"7", "8"} {
		g.report(&hostv1lite.CallStart{Plugin: "flood", Command: "hops", Args: []string{hops}}, nil)
	}
	r := g.poll(&hostv1lite.PollRequest{Subscription: first.Subscription, Wait: 1000})
	for _, e := range r.Events {
		g.print("%s hops %d", e.Topic, e.Hops)
	}
}

func eventsPublish(topic string, size int) func(*guest) {
	return func(g *guest) {
		g.outcome("publish", g.call(hostv1lite.EventsPublish, &hostv1lite.Event{Topic: topic, Data: make([]byte, size)}, &hostv1lite.PublishAck{}))
	}
}

func eventsUnknownPoll(g *guest) {
	g.outcome("poll", g.call(hostv1lite.EventsPoll, &hostv1lite.PollRequest{Subscription: "77"}, &hostv1lite.PollReply{}))
	g.outcome("too many", g.call(hostv1lite.EventsPoll, &hostv1lite.PollRequest{Topics: []string{"flood.x"}, Max: 101}, &hostv1lite.PollReply{}))
	g.outcome("denied", g.call(hostv1lite.EventsPoll, &hostv1lite.PollRequest{Topics: []string{"other.x"}}, &hostv1lite.PollReply{}))
	g.outcome("no topics", g.call(hostv1lite.EventsPoll, &hostv1lite.PollRequest{}, &hostv1lite.PollReply{}))
}

func (g *guest) statePut(key, value string, ifRev *uint64) (hostv1lite.StateEntry, error) {
	var e hostv1lite.StateEntry
	err := g.call(hostv1lite.StatePut, &hostv1lite.PutStateRequest{Key: key, Value: []byte(value), IfRevision: ifRev}, &e)
	return e, err
}

func (g *guest) stateGet(owner, key string) {
	var e hostv1lite.StateEntry
	err := g.call(hostv1lite.StateGet, &hostv1lite.StateKey{Owner: owner, Key: key}, &e)
	g.outcome("get", err)
	if err == nil {
		g.print("%s %s = %s", e.Owner, e.Key, e.Value)
	}
}

func statePutGet(g *guest) {
	e, err := g.statePut("a/b", "value", nil)
	g.outcome("put", err)
	g.print("owner %s revision %t", e.Owner, e.Revision > 0)
	g.stateGet("", "a/b")
	g.stateGet("kit", "a/b")
	g.stateGet("", "a/missing")
}

func stateBadKey(g *guest) {
	_, err := g.statePut("../x", "", nil)
	g.outcome("put", err)
	g.stateGet("No Name", "x")
}

func stateTTL(g *guest) {
	g.outcome("put", g.call(hostv1lite.StatePut, &hostv1lite.PutStateRequest{Key: "t", Value: []byte("v"), Ttl: 1000}, &hostv1lite.StateEntry{}))
	g.stateGet("", "t")
	g.do("clock", "2s")
	g.stateGet("", "t")
}

func stateCreateOnly(g *guest) {
	zero := uint64(0)
	_, err := g.statePut("once", "first", &zero)
	g.outcome("create", err)
	_, err = g.statePut("once", "second", &zero)
	g.outcome("create", err)
	g.stateGet("", "once")
}

func stateStale(g *guest) {
	e, err := g.statePut("k", "1", nil)
	g.outcome("put", err)
	old := e.Revision
	e, err = g.statePut("k", "2", &old)
	g.outcome("put", err)
	_, err = g.statePut("k", "3", &old)
	g.outcome("put", err)
	if err != nil {
		g.print("current revision %t", hostabi.AsError(err).Meta["revision"] == fmt.Sprint(e.Revision))
	}
	g.stateGet("", "k")
}

func stateAdd(g *guest) {
	add := func(key string, delta int64) {
		var e hostv1lite.StateEntry
		g.outcome("add", g.call(hostv1lite.StateAdd, &hostv1lite.AddStateRequest{Key: key, Delta: delta}, &e))
		g.print("%s %q", key, e.Value)
	}
	add("n", 5)
	add("n", -7)
	add("n", -1<<63)
	_, err := g.statePut("text", "five", nil)
	g.outcome("put", err)
	add("text", 1)
}

func stateDelete(g *guest) {
	_, err := g.statePut("d", "v", nil)
	g.outcome("put", err)
	for range 2 {
		g.outcome("delete", g.call(hostv1lite.StateDelete, &hostv1lite.DeleteStateRequest{Key: "d"}, &hostv1lite.Empty{}))
	}
	g.stateGet("", "d")
}

func stateList(g *guest) {
	for _, k := range []string{"l/b", "l/a", "m"} {
		_, err := g.statePut(k, "v", nil)
		g.outcome("put", err)
	}
	err := g.each(hostv1lite.StateList, &hostv1lite.ListStateRequest{Prefix: "l/", KeysOnly: true}, func(st stream) error {
		var e hostv1lite.StateEntry
		if err := st.recv(&e); err != nil {
			return err
		}
		g.print("%s %d", e.Key, len(e.Value))
		return nil
	})
	g.outcome("list", err)
}

// stateTwoWriters: of writers that saw the same revision one wins, and the others change nothing.
func stateTwoWriters(g *guest) {
	e, err := g.statePut("shared", "0", nil)
	g.outcome("put", err)
	var mu sync.Mutex
	var wg sync.WaitGroup
	said := make(map[string]int)
	winner := ""
	for i := range 8 {
		wg.Go(func() {
			value := fmt.Sprint("writer ", i)
			_, err := g.statePut("shared", value, &e.Revision)
			mu.Lock()
			defer mu.Unlock()
			if said[word(err)]++; err == nil {
				winner = value
			}
		})
	}
	wg.Wait()
	g.print("ok %d, ABORTED STATE_CONFLICT %d", said["ok"], said["ABORTED STATE_CONFLICT"])
	var now hostv1lite.StateEntry
	err = g.call(hostv1lite.StateGet, &hostv1lite.StateKey{Key: "shared"}, &now)
	g.outcome("get", err)
	g.print("the winner's value %t", string(now.Value) == winner)
}

func stateForeign(g *guest) {
	g.stateGet("other", "k")
	g.outcome("put", g.call(hostv1lite.StatePut, &hostv1lite.PutStateRequest{Owner: "other", Key: "k"}, &hostv1lite.StateEntry{}))
}

func stateOverQuota(g *guest) {
	for i := range 6 {
		_, err := g.statePut(fmt.Sprintf("q%d", i), strings.Repeat("x", 200<<10), nil)
		g.outcome("put", err)
	}
}

func stateTooBig(g *guest) {
	_, err := g.statePut("big", strings.Repeat("x", hostabi.MaxStateValue+1), nil)
	g.outcome("put", err)
}

func pluginsList(g *guest) {
	var l hostv1lite.PluginList
	g.outcome("list", g.call(hostv1lite.PluginsList, &hostv1lite.ListPluginsRequest{}, &l))
	for _, p := range l.Plugins {
		if p.Name == "exit" || p.Name == "hidden" {
			g.print("%s %s %s", p.Name, p.Version, strings.Join(p.Commands, " "))
		}
	}
}

// report prints how a call ended.
func (g *guest) report(start *hostv1lite.CallStart, stdin []byte) {
	stdout, stderr, exit, err := g.run(start, stdin)
	g.outcome("call", err)
	if err == nil {
		g.print("%s stdout %q stderr %q", exit, stdout, stderr)
	}
}

func pluginsExit(g *guest) {
	g.report(&hostv1lite.CallStart{Plugin: "exit", Command: "with", Args: []string{"3"}}, nil)
	g.report(&hostv1lite.CallStart{Plugin: "exit", Command: "with", Args: []string{"0"}}, nil)
}

// pluginsStdin has input come back that no queue could hold: the callee writes before it has read all.
func pluginsStdin(size int) func(*guest) {
	return func(g *guest) {
		in := bytes.Repeat([]byte("0123456789abcdef"), size/16)
		out, _, exit, err := g.run(&hostv1lite.CallStart{Plugin: "cat", Command: "run"}, in)
		g.outcome("call", err)
		g.print("%s %d bytes same %t", exit, len(out), bytes.Equal(in, out))
	}
}

func pluginsOrder(g *guest) { g.report(&hostv1lite.CallStart{Plugin: "order", Command: "run"}, nil) }

func pluginsCall(name, command string) func(*guest) {
	return func(g *guest) { g.report(&hostv1lite.CallStart{Plugin: name, Command: command}, nil) }
}

// pluginsDepth calls chain1, which calls chain2, and so on; the one too deep is refused.
func pluginsDepth(g *guest) { g.report(&hostv1lite.CallStart{Plugin: "chain1", Command: "run"}, nil) }

func pluginsCycle(g *guest) {
	g.report(&hostv1lite.CallStart{Plugin: "kit", Command: "run"}, nil)
	g.report(&hostv1lite.CallStart{Plugin: "ring", Command: "run"}, nil)
}

func pluginsTimeout(g *guest) {
	g.report(&hostv1lite.CallStart{Plugin: "sleep", Command: "run", Timeout: 20}, nil)
}

// pluginsDeadline: a callee has the deadline of its caller, or its own if that is earlier.
func pluginsDeadline(g *guest) {
	for _, timeout := range []int64{0, 7_200_000, 60_000} {
		g.report(&hostv1lite.CallStart{Plugin: "deadline", Command: "run", Timeout: timeout}, nil)
	}
}

func pluginsBlob(g *guest) {
	info, err := g.put([]byte("handed on"), "")
	g.outcome("put", err)
	g.report(&hostv1lite.CallStart{Plugin: "read", Command: "blob", Args: []string{info.Digest}}, nil)
	g.report(&hostv1lite.CallStart{Plugin: "read", Command: "blob", Args: []string{info.Digest}, Blobs: []string{info.Digest}}, nil)
}

func pluginsBlobForeign(g *guest) {
	d := digestOf([]byte(seeded))
	g.report(&hostv1lite.CallStart{Plugin: "read", Command: "blob", Args: []string{d}, Blobs: []string{d}}, nil)
}

// pluginsOwnGrants: the callee may not write the state that its caller may write.
func pluginsOwnGrants(g *guest) {
	g.report(&hostv1lite.CallStart{Plugin: "read", Command: "state"}, nil)
}

// pluginsCancel: a call that the caller gives up ends the callee.
func pluginsCancel(g *guest) {
	st, err := g.open(hostv1lite.PluginsCall, &hostv1lite.CallRequest{Start: &hostv1lite.CallStart{Plugin: "sleep", Command: "run"}})
	var e hostv1lite.CallEvent
	if err == nil {
		err = st.recv(&e)
	}
	g.outcome("call", err)
	g.print("%s", e.Stdout)
	if err == nil {
		g.outcome("close", st.Close())
	}
}

// pluginsArgs: what a callee may do with its arguments is not more than what its caller may do with them.
func pluginsArgs(g *guest) {
	for _, ref := range []string{"app:v1", "secret:v1"} {
		g.report(&hostv1lite.CallStart{Plugin: "fetch", Command: "ref", Args: []string{g.ref(ref)}}, nil)
	}
}

func pluginsNoStart(g *guest) {
	st, err := g.open(hostv1lite.PluginsCall, &hostv1lite.CallRequest{Stdin: []byte("x")})
	if err == nil {
		err = st.recv(&hostv1lite.CallEvent{})
	}
	g.outcome("call", err)
}

// carrierSize sends a Describe of exactly n bytes: an unknown field fills it up.
func carrierSize(n int) func(*guest) {
	return func(g *guest) {
		const head = 2 + 4 // tag of field 99, length of four bytes
		size := n - head
		req := append(make([]byte, 0, n), 0x9a, 0x06, byte(size)|0x80, byte(size>>7)|0x80, byte(size>>14)|0x80, byte(size>>21))
		req = append(req, make([]byte, size)...)
		g.outcome("describe", g.raw(hostv1lite.MetaDescribe, req))
		g.outcome("next call", g.raw(hostv1lite.MetaDescribe, nil))
	}
}

func carrierReply(g *guest) {
	g.outcome("get", g.call(hostv1lite.ConfigGet, &hostv1lite.GetConfigRequest{Key: "settings.kit.huge"}, &hostv1lite.ConfigValue{}))
	g.outcome("next call", g.raw(hostv1lite.MetaDescribe, nil))
}

// fill puts a listing into the state that no carrier can hold in its buffers.
func (g *guest) fill() {
	for i := range 80 {
		if _, err := g.statePut(fmt.Sprintf("big/%02d", i), strings.Repeat("x", 8<<10), nil); err != nil {
			g.outcome("put", err)
			return
		}
	}
}

// openList starts a listing and takes its first entry. Below "hold/" the host has one, and then waits.
func (g *guest) openList(prefix string) (stream, error) {
	st, err := g.list(hostv1lite.StateList, &hostv1lite.ListStateRequest{Prefix: prefix})
	if err == nil {
		err = st.recv(&hostv1lite.StateEntry{})
	}
	return st, err
}

func carrierStreams(g *guest) {
	var open []stream
	for i := range hostabi.MaxStreams {
		st, err := g.openList("hold/")
		if err != nil {
			g.outcome(fmt.Sprint("stream ", i+1), err)
			return
		}
		open = append(open, st)
	}
	_, err := g.openList("hold/")
	g.outcome("stream 65", err)
	g.outcome("unary", g.raw(hostv1lite.MetaDescribe, nil))
	for _, st := range open {
		_ = st.Close()
	}
	g.outcome("describe", g.raw(hostv1lite.MetaDescribe, nil))
}

func carrierBadHandle(g *guest) {
	for _, h := range []uint32{0, 12345, 1<<31 - 1, 1 << 31} {
		g.outcome("close", g.call(hostv1lite.CacheClose, &hostv1lite.HandleRef{Handle: h}, &hostv1lite.Empty{}))
	}
	info, err := g.put([]byte("to be read"), "")
	g.outcome("put", err)
	var o hostv1lite.OpenedBlob
	g.outcome("open", g.call(hostv1lite.CacheOpen, &hostv1lite.OpenBlobRequest{Digest: info.Digest}, &o))
	g.outcome("commit of a blob", g.call(hostv1lite.CacheCommit, &hostv1lite.CommitRequest{Handle: o.Handle}, &hostv1lite.BlobInfo{}))
	g.outcome("close", g.call(hostv1lite.CacheClose, &hostv1lite.HandleRef{Handle: o.Handle}, &hostv1lite.Empty{}))
	g.outcome("close again", g.call(hostv1lite.CacheClose, &hostv1lite.HandleRef{Handle: o.Handle}, &hostv1lite.Empty{}))
}

func carrierHandles(g *guest) {
	info, err := g.put([]byte("opened often"), "")
	g.outcome("put", err)
	var last hostv1lite.OpenedBlob
	for i := range hostabi.MaxHandles {
		if err := g.call(hostv1lite.CacheOpen, &hostv1lite.OpenBlobRequest{Digest: info.Digest}, &last); err != nil {
			g.outcome(fmt.Sprint("open ", i+1), err)
			return
		}
	}
	g.outcome("open 65", g.call(hostv1lite.CacheOpen, &hostv1lite.OpenBlobRequest{Digest: info.Digest}, &hostv1lite.OpenedBlob{}))
	g.outcome("close", g.call(hostv1lite.CacheClose, &hostv1lite.HandleRef{Handle: last.Handle}, &hostv1lite.Empty{}))
	var next hostv1lite.OpenedBlob
	g.outcome("open", g.call(hostv1lite.CacheOpen, &hostv1lite.OpenBlobRequest{Digest: info.Digest}, &next))
	g.print("a new number %t", next.Handle > last.Handle)
}

func carrierHalfClose(g *guest) {
	g.report(&hostv1lite.CallStart{Plugin: "cat", Command: "run"}, []byte("abc"))
}

func carrierCancel(g *guest) {
	for range 3 * hostabi.MaxStreams {
		st, err := g.openList("hold/")
		if err != nil {
			g.outcome("list", err)
			return
		}
		if err := st.Close(); err != nil {
			g.outcome("close", err)
		}
	}
	g.outcome("describe", g.raw(hostv1lite.MetaDescribe, nil))
}

func carrierSlowReader(g *guest) {
	g.fill()
	st, err := g.openList("big/")
	g.outcome("list", err)
	for range 100 {
		if err := g.raw(hostv1lite.MetaDescribe, nil); err != nil {
			g.outcome("describe", err)
		}
	}
	n := 1
	for err == nil {
		if err = st.recv(&hostv1lite.StateEntry{}); err == nil {
			n++
		}
	}
	g.outcome("list", err)
	g.print("%d entries", n)
}

func carrierParallel(g *guest) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var results []string
	for range 32 {
		wg.Go(func() {
			var v hostv1lite.ConfigValue
			err := g.call(hostv1lite.ConfigGet, &hostv1lite.GetConfigRequest{Key: "settings.kit.greeting"}, &v)
			mu.Lock()
			defer mu.Unlock()
			results = append(results, word(err)+" "+v.Json)
		})
	}
	wg.Wait()
	slices.Sort(results)
	g.print("%d results, all %s", len(results), strings.Join(slices.Compact(results), " and "))
}

func carrierPanic(g *guest) {
	g.outcome("get", g.call(hostv1lite.ConfigGet, &hostv1lite.GetConfigRequest{Key: "settings.kit.panic"}, &hostv1lite.ConfigValue{}))
	g.outcome("next call", g.raw(hostv1lite.MetaDescribe, nil))
}

// carrierDeadline waits for an event that never comes, with a deadline of the guest's own.
func carrierDeadline(g *guest) {
	first := g.poll(&hostv1lite.PollRequest{Topics: []string{"flood.never"}})
	ctx, cancel := context.WithTimeout(g.ctx, 50*time.Millisecond)
	defer cancel()
	req := hostv1lite.PollRequest{Subscription: first.Subscription, Wait: 5_000}
	_, err := g.s.Invoke(ctx, hostabi.Call{Method: hostv1lite.EventsPoll, Req: req.AppendProto(nil)})
	g.outcome("poll", err)
	g.outcome("next call", g.raw(hostv1lite.MetaDescribe, nil))
}
