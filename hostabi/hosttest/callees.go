package hosttest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"

	"google.golang.org/protobuf/proto"
)

// callees are the plugins that the plugin under test calls: functions of the host's process, each with a
// session of its own where it needs one.
type callees struct{ w *World }

// All implements host.Plugins.
func (c *callees) All(context.Context) iter.Seq2[*plugin.Installed, error] {
	return func(yield func(*plugin.Installed, error) bool) {
		_ = yield(installed("exit", []string{"with", "secretly"}), nil) &&
			yield(nil, hostabi.Errorf(hostabi.ReasonManifest, "broken plugin")) &&
			yield(installed("hidden", []string{"stay"}), nil)
	}
}

// Run implements host.Plugins.
func (c *callees) Run(ctx context.Context, name plugin.Name, inv *plugin.Invocation) error {
	if !inv.Deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, inv.Deadline)
		defer cancel()
	}
	words := append(slices.Clone(inv.Args), "", "")
	switch {
	case name == "exit":
		return exit(words[1])
	case name == "cat":
		_, err := io.Copy(inv.Stdout, inv.Stdin)
		return err
	case name == "order":
		return order(inv)
	case name == "yes":
		for {
			if _, err := io.WriteString(inv.Stdout, "y\n"); err != nil {
				return err
			}
			c.w.Written.Add(1)
		}
	case name == "clock":
		d, err := time.ParseDuration(words[0])
		c.w.advance(d)
		return err
	case name == "flood" && words[0] == "hops":
		return c.hops(ctx, inv, words[1])
	case name == "flood":
		return c.flood(ctx, words)
	case name == "deadline":
		return c.deadline(inv)
	case name == "evict":
		return c.evict(ctx)
	case name == "sleep":
		defer c.w.Ended.Add(1)
		_, _ = io.WriteString(inv.Stdout, "asleep") // nobody has to listen
		<-ctx.Done()
		return failed(name, ctx.Err())
	case name == "fetch":
		return c.fetch(ctx, inv, words)
	case name == "read":
		return c.read(ctx, inv, words)
	case name == "ring":
		return c.next(ctx, name, inv, string(Name))
	case strings.HasPrefix(string(name), "chain"):
		n, err := strconv.Atoi(strings.TrimPrefix(string(name), "chain"))
		if err != nil {
			return err
		}
		return c.next(ctx, name, inv, fmt.Sprint("chain", n+1))
	}
	return failed(name, hostabi.Errorf(hostabi.ReasonPluginNotFound, "plugin %s: not installed", name))
}

func failed(name plugin.Name, err error) error {
	return &plugin.RunError{Name: name, Stage: plugin.StageRun, Err: err}
}

func exit(code string) error {
	n, err := strconv.Atoi(code)
	if err == nil && n != 0 {
		return &plugin.ExitError{Code: n}
	}
	return err
}

func order(inv *plugin.Invocation) error {
	for i := range 3 {
		if _, err := fmt.Fprint(inv.Stdout, "o", i); err != nil {
			return err
		}
		if _, err := fmt.Fprint(inv.Stderr, "e", i); err != nil {
			return err
		}
	}
	return nil
}

// flood publishes "TOPIC N", or waits until somebody listens to "wait TOPIC".
func (c *callees) flood(ctx context.Context, words []string) error {
	if words[0] == "wait" {
		for !c.w.Events.Wanted(words[1]) {
			select {
			case <-time.After(time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	n, err := strconv.Atoi(words[1])
	for i := range n {
		e := hostabi.Event{Topic: words[0], Source: "/plugins/flood", Data: fmt.Appendf(nil, `{"n":%d}`, i+1)}
		if _, _, err := c.w.Events.Publish(ctx, e); err != nil {
			return err
		}
	}
	return err
}

// hops publishes one event that comes from handlers so often.
func (c *callees) hops(ctx context.Context, inv *plugin.Invocation, hops string) error {
	n, err := strconv.ParseUint(hops, 10, 32)
	if err != nil {
		return err
	}
	inv.Hops = func() uint32 { return uint32(n) }
	s, err := c.session(ctx, "flood", inv, map[hostabi.Capability]sandbox.Scopes{hostabi.EventsPublish: {Scope: []string{"own"}}})
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // nothing to lose
	var ack hostv1.PublishAck
	b, err := invoke(ctx, s, hostv1.Events_Publish_FullMethodName, &hostv1.Event{Topic: "flood.hops"})
	if err == nil {
		err = proto.Unmarshal(b, &ack)
	}
	return say(inv, err, fmt.Sprint("dropped ", ack.GetDropped()))
}

// deadline says how the callee's deadline stands to that of the run.
func (c *callees) deadline(inv *plugin.Invocation) error {
	text := "none"
	switch d := inv.Deadline; {
	case d.Equal(c.w.Deadline):
		text = "the caller's"
	case !d.IsZero() && d.Before(c.w.Deadline):
		text = "earlier"
	case !d.IsZero():
		text = "later"
	}
	return say(inv, nil, text)
}

// evict empties the cache as far as that may be, a day later.
func (c *callees) evict(ctx context.Context) error {
	c.w.advance(24 * time.Hour)
	view, err := c.w.Cache("other", "")
	if err != nil {
		return err
	}
	defer view.Close() // nothing to lose
	for _, err := range view.(host.CacheAdmin).Evict(ctx, hostabi.EvictOptions{MaxBytes: 1}) {
		if err != nil {
			return err
		}
	}
	return nil
}

// session opens a session of a callee.
func (c *callees) session(ctx context.Context, name plugin.Name, inv *plugin.Invocation, granted map[hostabi.Capability]sandbox.Scopes) (hostabi.Session, error) {
	p := installed(name, nil)
	own := *inv
	own.ID = fmt.Sprintf("%032d", len(inv.Chain))
	return c.w.Registrar.Open(p, c.w.grantCallee(sandbox.CallerOf(ctx), p, &own, granted), &own)
}

// read tries to read a blob or to write the caller's state, with cache.read own and nothing else.
func (c *callees) read(ctx context.Context, inv *plugin.Invocation, words []string) error {
	s, err := c.session(ctx, "read", inv, map[hostabi.Capability]sandbox.Scopes{hostabi.CacheRead: {Scope: []string{"own"}}})
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // nothing to lose
	if words[0] == "state" {
		_, err := invoke(ctx, s, hostv1.State_Put_FullMethodName, &hostv1.PutStateRequest{Owner: string(Name), Key: "k"})
		return say(inv, err, "")
	}
	b, err := invoke(ctx, s, hostv1.Cache_Open_FullMethodName, &hostv1.OpenBlobRequest{Digest: words[1]})
	if err != nil {
		return say(inv, err, "")
	}
	var o hostv1.OpenedBlob
	if err := proto.Unmarshal(b, &o); err != nil {
		return err
	}
	h, err := s.Handle(o.GetHandle())
	if err != nil {
		return err
	}
	text, err := io.ReadAll(h)
	return say(inv, err, string(text))
}

// fetch resolves the reference that it is told, with registry.pull for what is typed and for nothing else.
func (c *callees) fetch(ctx context.Context, inv *plugin.Invocation, words []string) error {
	inv.Typed = []plugin.Typed{{Index: 1, Type: "ref", Value: words[1]}}
	s, err := c.session(ctx, "fetch", inv, map[hostabi.Capability]sandbox.Scopes{hostabi.RegistryPull: {Scope: []string{"args"}}})
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // nothing to lose
	_, err = invoke(ctx, s, hostv1.Registry_Resolve_FullMethodName, &hostv1.RefRequest{Ref: words[1]})
	return say(inv, err, "resolved")
}

// say prints text, or the reason of err, as output.
func say(inv *plugin.Invocation, err error, text string) error {
	if err != nil {
		text = string(hostabi.ReasonOf(err))
	}
	_, err = io.WriteString(inv.Stdout, text)
	return err
}

func invoke(ctx context.Context, s hostabi.Session, method string, req proto.Message) ([]byte, error) {
	b, err := proto.Marshal(req)
	if err != nil {
		return nil, err
	}
	return s.Invoke(ctx, hostabi.Call{Method: method, Req: b})
}

// next calls the plugin called target, and reports its own name and what came of it.
func (c *callees) next(ctx context.Context, name plugin.Name, inv *plugin.Invocation, target string) error {
	s, err := c.session(ctx, name, inv, map[hostabi.Capability]sandbox.Scopes{hostabi.PluginsCall: {Scope: []string{target + "/run"}}})
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // nothing to lose
	var out bytes.Buffer
	err = call(ctx, s, target, &out)
	text := fmt.Sprintf("%s depth %d > %s", name, len(inv.Chain), out.String())
	if err != nil {
		text += string(hostabi.ReasonOf(err))
	}
	_, err = io.WriteString(inv.Stdout, text)
	return err
}

// call runs TARGET run and collects its stdout.
func call(ctx context.Context, s hostabi.Session, target string, out io.Writer) error {
	st, err := s.Stream(ctx, hostv1.Plugins_Call_FullMethodName, hostabi.EncProto)
	if err != nil {
		return err
	}
	defer st.Close() //nolint:errcheck // ended
	start := &hostv1.CallRequest{Msg: &hostv1.CallRequest_Start{Start: &hostv1.CallStart{Plugin: target, Command: "run"}}}
	b, err := proto.Marshal(start)
	if err != nil {
		return err
	}
	if err := st.Send(b); err != nil {
		return err
	}
	if err := st.CloseSend(); err != nil {
		return err
	}
	for {
		b, err := st.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		var e hostv1.CallEvent
		if err := proto.Unmarshal(b, &e); err != nil {
			return err
		}
		if _, err := out.Write(e.GetStdout()); err != nil {
			return err
		}
	}
}
