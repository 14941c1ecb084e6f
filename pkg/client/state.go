package client

import (
	"context"
	"encoding/json"
	"iter"
	"strconv"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1lite"
)

type stateOptions struct {
	ttl   time.Duration
	owner string
	rev   *uint64
}

// StateOption narrows a state call.
type StateOption func(*stateOptions)

// WithTTL makes the entry expire after d.
func WithTTL(d time.Duration) StateOption { return func(o *stateOptions) { o.ttl = d } }

// WithOwner uses the state of another plugin.
func WithOwner(plugin string) StateOption { return func(o *stateOptions) { o.owner = plugin } }

// IfRevision writes only if the key has this revision, 0 = must not exist; else ErrConflict and nothing is
// written.
func IfRevision(rev uint64) StateOption { return func(o *stateOptions) { o.rev = &rev } }

func stateOpts(opts []StateOption) (o stateOptions) {
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// SetState writes a value of at most 256 KiB and returns its revision.
func (c *Client) SetState(ctx context.Context, key string, value []byte, opts ...StateOption) (revision uint64, err error) {
	o := stateOpts(opts)
	var e hostv1lite.StateEntry
	err = c.invoke(ctx, hostv1lite.StatePut, &hostv1lite.PutStateRequest{
		Owner: o.owner, Key: key, Value: value, Ttl: millis(o.ttl), IfRevision: o.rev,
	}, &e)
	return e.Revision, err
}

// AddState adds delta to a counter in one atomic step and returns its new value; an absent key counts as 0. The
// entry holds the number in decimal. Options: WithTTL, WithOwner.
func (c *Client) AddState(ctx context.Context, key string, delta int64, opts ...StateOption) (int64, error) {
	o := stateOpts(opts)
	var e hostv1lite.StateEntry
	err := c.invoke(ctx, hostv1lite.StateAdd, &hostv1lite.AddStateRequest{Owner: o.owner, Key: key, Delta: delta, Ttl: millis(o.ttl)}, &e)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(e.Value), 10, 64)
}

// GetState reads an entry: ErrNotFound when it is absent or has expired.
func (c *Client) GetState(ctx context.Context, key string, opts ...StateOption) (*StateEntry, error) {
	var e hostv1lite.StateEntry
	if err := c.invoke(ctx, hostv1lite.StateGet, &hostv1lite.StateKey{Owner: stateOpts(opts).owner, Key: key}, &e); err != nil {
		return nil, err
	}
	out := stateEntry(&e)
	return &out, nil
}

// DeleteState removes a key; an absent one is no error unless IfRevision says otherwise.
func (c *Client) DeleteState(ctx context.Context, key string, opts ...StateOption) error {
	o := stateOpts(opts)
	return c.invoke(ctx, hostv1lite.StateDelete, &hostv1lite.DeleteStateRequest{Owner: o.owner, Key: key, IfRevision: o.rev}, &hostv1lite.Empty{})
}

// ListState yields the entries whose key starts with prefix, in order; an error is the last pair.
func (c *Client) ListState(ctx context.Context, prefix string, opts ...StateOption) iter.Seq2[StateEntry, error] {
	req := &hostv1lite.ListStateRequest{Owner: stateOpts(opts).owner, Prefix: prefix}
	return sequence(ctx, c, hostv1lite.StateList, req, stateEntry)
}

// SetJSON is SetState of the JSON form of v.
func SetJSON(ctx context.Context, c *Client, key string, v any, opts ...StateOption) (uint64, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return 0, Usagef("state %s: %v", key, err)
	}
	return c.SetState(ctx, key, b, opts...)
}

// GetJSON is GetState of a value that SetJSON wrote.
func GetJSON[T any](ctx context.Context, c *Client, key string, opts ...StateOption) (v T, revision uint64, err error) {
	e, err := c.GetState(ctx, key, opts...)
	if err != nil {
		return v, 0, err
	}
	if err := json.Unmarshal(e.Value, &v); err != nil {
		return v, e.Revision, classify(hostabi.Errorf(hostabi.ReasonBadMessage, "state %s: %w", key, err))
	}
	return v, e.Revision, nil
}
