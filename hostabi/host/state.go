package host

import (
	"context"
	"strconv"
	"time"

	"google.golang.org/grpc"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
)

type stateService struct {
	hostv1.UnimplementedStateServer
	store func() (State, error)
}

// NewState serves State; store is called at the first use.
func NewState(store func() (State, error)) hostv1.StateServer { return &stateService{store: store} }

// owned are the requests that name one entry.
type owned interface {
	GetOwner() string
	GetKey() string
}

func gateStateGet(c *call, req any) error    { return c.needState(hostabi.StateRead, req.(owned)) }
func gateStatePut(c *call, req any) error    { return c.needState(hostabi.StateWrite, req.(owned)) }
func gateStateDelete(c *call, req any) error { return c.needState(hostabi.StateWrite, req.(owned)) }

// gateStateAdd needs both rights: the answer tells the value.
func gateStateAdd(c *call, req any) error {
	if err := c.needState(hostabi.StateRead, req.(owned)); err != nil {
		return err
	}
	return c.needState(hostabi.StateWrite, req.(owned))
}

func (c *call) needState(cp hostabi.Capability, req owned) error {
	if err := hostabi.CheckStateKey(req.GetKey()); err != nil {
		return err
	}
	owner, err := c.s.owner(req.GetOwner())
	if err != nil {
		return err
	}
	return c.need(cp, string(owner)+":"+req.GetKey())
}

// owner is the owner that a request means; empty = the caller.
func (s *Session) owner(name string) (hostabi.PluginName, error) {
	if name == "" {
		return s.p.Name, nil
	}
	if n := hostabi.PluginName(name); n.Valid() {
		return n, nil
	}
	return "", hostabi.Errorf(hostabi.ReasonBadKey, "state owner %q: not the name of a plugin", clean(name, 40))
}

// Get implements hostv1.StateServer.
func (st *stateService) Get(ctx context.Context, req *hostv1.StateKey) (*hostv1.StateEntry, error) {
	owner, store, err := st.open(ctx, req.GetOwner())
	if err != nil {
		return nil, err
	}
	e, err := store.Get(ctx, owner, req.GetKey())
	if err != nil {
		return nil, err
	}
	return stateEntry(e), nil
}

// Put implements hostv1.StateServer.
func (st *stateService) Put(ctx context.Context, req *hostv1.PutStateRequest) (*hostv1.StateEntry, error) {
	s := sessionOf(ctx)
	owner, store, err := st.open(ctx, req.GetOwner())
	if err != nil {
		return nil, err
	}
	if req.GetTtl() < 0 || req.GetTtl() > hostabi.MaxStateTTL.Milliseconds() {
		return nil, hostabi.Errorf(hostabi.ReasonBadMessage, "ttl is between 0 and 10 years")
	}
	e := hostabi.StateEntry{Owner: owner, Key: req.GetKey(), Value: req.GetValue()}
	if req.GetTtl() > 0 {
		e.Expires = s.r.o.Clock().Add(time.Duration(req.GetTtl()) * time.Millisecond)
	}
	e, err = store.Put(ctx, owner, e, req.IfRevision, s.box.Quota(hostabi.StateWrite))
	if err != nil {
		return nil, err
	}
	s.stateChanged(ctx, owner, e.Key, e.Revision, false)
	out := stateEntry(e)
	out.Value = nil // the caller has it
	return out, nil
}

// Add implements hostv1.StateServer: read, add, compare-and-set, until nobody came in between.
func (st *stateService) Add(ctx context.Context, req *hostv1.AddStateRequest) (*hostv1.StateEntry, error) {
	s := sessionOf(ctx)
	owner, store, err := st.open(ctx, req.GetOwner())
	if err != nil {
		return nil, err
	}
	if req.GetTtl() < 0 || req.GetTtl() > hostabi.MaxStateTTL.Milliseconds() {
		return nil, hostabi.Errorf(hostabi.ReasonBadMessage, "ttl is between 0 and 10 years")
	}
	for ctx.Err() == nil {
		next, rev, err := added(ctx, store, owner, req)
		if err != nil {
			return nil, err
		}
		if req.GetTtl() > 0 {
			next.Expires = s.r.o.Clock().Add(time.Duration(req.GetTtl()) * time.Millisecond)
		}
		e, err := store.Put(ctx, owner, next, &rev, s.box.Quota(hostabi.StateWrite))
		switch {
		case err == nil:
			s.stateChanged(ctx, owner, e.Key, e.Revision, false)
			return stateEntry(e), nil
		case hostabi.ReasonOf(err) != hostabi.ReasonStateConflict:
			return nil, err
		}
	}
	return nil, ctx.Err()
}

// added is the entry after the step, and the revision that it must replace.
func added(ctx context.Context, store State, owner hostabi.PluginName, req *hostv1.AddStateRequest) (next hostabi.StateEntry, rev uint64, err error) {
	next = hostabi.StateEntry{Owner: owner, Key: req.GetKey()}
	var n int64
	e, err := store.Get(ctx, owner, req.GetKey())
	switch {
	case err == nil:
		if n, err = strconv.ParseInt(string(e.Value), 10, 64); err != nil {
			return next, 0, hostabi.Errorf(hostabi.ReasonBadMessage, "state key %s holds no decimal number", req.GetKey())
		}
		rev, next.Expires = e.Revision, e.Expires
	case hostabi.ReasonOf(err) != hostabi.ReasonKeyNotFound:
		return next, 0, err
	}
	sum := n + req.GetDelta()
	if (sum > n) != (req.GetDelta() > 0) && req.GetDelta() != 0 {
		return next, 0, hostabi.Errorf(hostabi.ReasonBadMessage, "state key %s: %d and %d together do not fit 64 bits", req.GetKey(), n, req.GetDelta())
	}
	next.Value = strconv.AppendInt(nil, sum, 10)
	return next, rev, nil
}

// Delete implements hostv1.StateServer.
func (st *stateService) Delete(ctx context.Context, req *hostv1.DeleteStateRequest) (*hostv1.Empty, error) {
	owner, store, err := st.open(ctx, req.GetOwner())
	if err != nil {
		return nil, err
	}
	deleted, err := store.Delete(ctx, owner, req.GetKey(), req.IfRevision)
	if err != nil {
		return nil, err
	}
	if deleted {
		sessionOf(ctx).stateChanged(ctx, owner, req.GetKey(), 0, true)
	}
	return &hostv1.Empty{}, nil
}

// List implements hostv1.StateServer; entries that the Box does not allow are left out.
func (st *stateService) List(req *hostv1.ListStateRequest, out grpc.ServerStreamingServer[hostv1.StateEntry]) error {
	ctx := out.Context()
	owner, store, err := st.open(ctx, req.GetOwner())
	if err != nil {
		return err
	}
	s := sessionOf(ctx)
	for e, err := range store.List(ctx, owner, req.GetPrefix()) {
		if err != nil {
			return err
		}
		if !s.allows(hostabi.StateRead, string(owner)+":"+e.Key) {
			continue
		}
		if req.GetKeysOnly() {
			e.Value = nil
		}
		if err := out.Send(stateEntry(e)); err != nil {
			return err
		}
	}
	return nil
}

func (st *stateService) open(ctx context.Context, name string) (hostabi.PluginName, State, error) {
	owner, err := sessionOf(ctx).owner(name)
	if err != nil {
		return "", nil, err
	}
	if st.store == nil {
		return "", nil, missing("state store")
	}
	store, err := st.store()
	return owner, store, err
}

func (s *Session) stateChanged(ctx context.Context, owner hostabi.PluginName, key string, revision uint64, deleted bool) {
	s.hostEvent(ctx, "state.changed", map[string]any{"owner": owner, "key": key, "revision": revision, "deleted": deleted})
}

func stateEntry(e hostabi.StateEntry) *hostv1.StateEntry {
	return &hostv1.StateEntry{
		Owner: string(e.Owner), Key: e.Key, Value: e.Value, Revision: e.Revision,
		Created: millis(e.Created), Updated: millis(e.Updated), Expires: millis(e.Expires),
	}
}
