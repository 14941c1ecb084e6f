package natsbus

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/delivery-station/ds/hostabi"
)

// maxValue bounds an entry in the bucket: the largest value and its envelope.
const maxValue = 300 << 10

// State is the state of plugins in one bucket. It is safe for goroutines, processes and machines.
type State struct {
	c   *Conn
	ttl time.Duration

	mu    sync.Mutex
	kv    jetstream.KeyValue
	held  map[hostabi.PluginName]usage
	turns map[hostabi.PluginName]chan struct{} // one writer of each owner at a time, so that held stays true
}

// usage is what an owner holds as far as this process knows: the cost and the end of each key.
type usage map[string]held

type held struct {
	cost    int64
	expires time.Time
}

// State is a store in the bucket PREFIX-state; ttl is for entries written without one, 0 = never.
func (c *Conn) State(ttl time.Duration) *State {
	return &State{c: c, ttl: ttl, held: make(map[hostabi.PluginName]usage), turns: make(map[hostabi.PluginName]chan struct{})}
}

// Get answers KEY_NOT_FOUND for an absent or expired key.
func (s *State) Get(ctx context.Context, owner hostabi.PluginName, key string) (hostabi.StateEntry, error) {
	if err := hostabi.CheckStateEntry(owner, &hostabi.StateEntry{Key: key}); err != nil {
		return hostabi.StateEntry{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.c.o.CallTimeout)
	defer cancel()
	kv, err := s.bucket(ctx)
	if err != nil {
		return hostabi.StateEntry{}, err
	}
	e, live, err := s.read(ctx, kv, owner, key)
	if err != nil {
		return hostabi.StateEntry{}, err
	}
	if !live {
		if e.Revision > 0 { // nobody needs it any more; a writer that was faster has its way
			_ = kv.Purge(ctx, bucketKey(owner, key), jetstream.LastRevision(e.Revision))
		}
		return hostabi.StateEntry{}, hostabi.StateMissing(owner, key)
	}
	return e, nil
}

// Put writes e.Key and e.Value, with e.Expires or the default TTL. ifRev nil = unconditional, 0 = must not
// exist, n = exactly revision n, else STATE_CONFLICT with metadata "revision". quota bounds the owner's total (0
// = hostabi.StateQuota): QUOTA. NATS_UNAVAILABLE leaves open whether the write arrived.
func (s *State) Put(ctx context.Context, owner hostabi.PluginName, e hostabi.StateEntry, ifRev *uint64, quota int64) (hostabi.StateEntry, error) {
	if err := hostabi.CheckStateEntry(owner, &e); err != nil {
		return hostabi.StateEntry{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.c.o.CallTimeout)
	defer cancel()
	kv, err := s.bucket(ctx)
	if err != nil {
		return hostabi.StateEntry{}, err
	}
	old, live, err := s.read(ctx, kv, owner, e.Key)
	if err != nil {
		return hostabi.StateEntry{}, err
	}
	if err := matches(owner, e.Key, &old, live, ifRev); err != nil {
		return hostabi.StateEntry{}, err
	}
	now := time.UnixMilli(s.c.o.Clock().UnixMilli())
	out := hostabi.StateEntry{Owner: owner, Key: e.Key, Value: slices.Clone(e.Value), Created: now, Updated: now}
	if live {
		out.Created = old.Created
	}
	if end := hostabi.StateExpiry(e.Expires, now, s.ttl); !end.IsZero() {
		out.Expires = time.UnixMilli(end.UnixMilli())
	}
	done, err := s.turn(ctx, owner)
	if err != nil {
		return hostabi.StateEntry{}, err
	}
	defer done()
	if err := s.fits(ctx, kv, &out, quota); err != nil {
		return hostabi.StateEntry{}, err
	}
	key, value := bucketKey(owner, e.Key), encode(&out)
	switch {
	case ifRev == nil:
		out.Revision, err = kv.Put(ctx, key, value)
	case old.Revision == 0:
		out.Revision, err = kv.Create(ctx, key, value)
	default: // the revision that was asked for, or that of an expired entry
		out.Revision, err = kv.Update(ctx, key, value, old.Revision)
	}
	if err != nil {
		return hostabi.StateEntry{}, s.writeError(ctx, kv, owner, e.Key, ifRev, err)
	}
	s.count(&out)
	return out, nil
}

// Delete removes a key and reports whether it was there. A missing key is no error unless ifRev is set.
func (s *State) Delete(ctx context.Context, owner hostabi.PluginName, key string, ifRev *uint64) (deleted bool, err error) {
	if err := hostabi.CheckStateEntry(owner, &hostabi.StateEntry{Key: key}); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.c.o.CallTimeout)
	defer cancel()
	kv, err := s.bucket(ctx)
	if err != nil {
		return false, err
	}
	old, live, err := s.read(ctx, kv, owner, key)
	if err != nil {
		return false, err
	}
	if err := matches(owner, key, &old, live, ifRev); err != nil {
		return false, err
	}
	if old.Revision == 0 {
		return false, nil
	}
	var opts []jetstream.KVDeleteOpt
	if ifRev != nil {
		opts = append(opts, jetstream.LastRevision(old.Revision))
	}
	done, err := s.turn(ctx, owner)
	if err != nil {
		return false, err
	}
	defer done()
	if err := kv.Delete(ctx, bucketKey(owner, key), opts...); err != nil {
		return false, s.writeError(ctx, kv, owner, key, ifRev, err)
	}
	s.forget(owner, key)
	return live, nil
}

// List yields the live entries with the prefix in key order.
func (s *State) List(ctx context.Context, owner hostabi.PluginName, prefix string) iter.Seq2[hostabi.StateEntry, error] {
	return func(yield func(hostabi.StateEntry, error) bool) {
		kv, err := s.bucket(ctx)
		if err != nil {
			yield(hostabi.StateEntry{}, err)
			return
		}
		all, err := s.all(ctx, kv, owner)
		if err != nil {
			yield(hostabi.StateEntry{}, err)
			return
		}
		now := s.c.o.Clock()
		for _, e := range all {
			if strings.HasPrefix(e.Key, prefix) && isLive(&e, now) && !yield(e, nil) {
				return
			}
		}
	}
}

// Retire puts the entries of owner aside: its name is taken over by another source or signer, which inherits
// nothing. They stay in the bucket under a name that no plugin has.
func (s *State) Retire(ctx context.Context, owner hostabi.PluginName) error {
	return s.clear(ctx, owner, "="+string(owner)+"."+strconv.FormatInt(s.c.o.Clock().UnixMilli(), 10)+".")
}

// Remove deletes everything that the owner keeps.
func (s *State) Remove(ctx context.Context, owner hostabi.PluginName) error {
	return s.clear(ctx, owner, "")
}

// clear deletes the entries of owner, after a copy of each below aside, if that is set.
func (s *State) clear(ctx context.Context, owner hostabi.PluginName, aside string) error {
	kv, err := s.bucket(ctx)
	if err != nil {
		return err
	}
	all, err := s.all(ctx, kv, owner)
	if err != nil {
		return err
	}
	for _, e := range all {
		if err := s.clearOne(ctx, kv, &e, aside); err != nil {
			return callError("bucket "+kv.Bucket(), err)
		}
	}
	return nil
}

func (s *State) clearOne(ctx context.Context, kv jetstream.KeyValue, e *hostabi.StateEntry, aside string) error {
	ctx, cancel := context.WithTimeout(ctx, s.c.o.CallTimeout)
	defer cancel()
	done, err := s.turn(ctx, e.Owner)
	if err != nil {
		return err
	}
	defer done()
	if aside != "" {
		if _, err := kv.Put(ctx, aside+encodeKey(e.Key), encode(e)); err != nil {
			return err
		}
	}
	if err := kv.Purge(ctx, bucketKey(e.Owner, e.Key)); err != nil {
		return err
	}
	s.forget(e.Owner, e.Key)
	return nil
}

// bucket is the bucket, made if it is missing and never changed.
func (s *State) bucket(ctx context.Context) (jetstream.KeyValue, error) {
	js, err := s.c.connected(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kv != nil {
		return s.kv, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.c.o.CallTimeout)
	defer cancel()
	name := s.c.o.Prefix + "-state"
	kv, err := js.KeyValue(ctx, name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: name, Description: "state of ds plugins", MaxValueSize: maxValue, History: 1, Storage: jetstream.FileStorage, Replicas: s.c.o.Replicas,
		})
		if errors.Is(err, jetstream.ErrBucketExists) { // another process was faster
			kv, err = js.KeyValue(ctx, name)
		}
	}
	if err != nil {
		return nil, callError("bucket "+name, err)
	}
	s.kv = kv
	return kv, nil
}

// read is the entry of a key. An absent one has revision 0; an expired one is not live.
func (s *State) read(ctx context.Context, kv jetstream.KeyValue, owner hostabi.PluginName, key string) (e hostabi.StateEntry, live bool, err error) {
	kve, err := kv.Get(ctx, bucketKey(owner, key))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return e, false, nil
	}
	if err != nil {
		return e, false, callError("bucket "+kv.Bucket(), err)
	}
	if e, err = decode(owner, key, kve); err != nil {
		return e, false, err
	}
	return e, isLive(&e, s.c.o.Clock()), nil
}

// all is every entry of owner, also expired ones, in key order.
func (s *State) all(ctx context.Context, kv jetstream.KeyValue, owner hostabi.PluginName) ([]hostabi.StateEntry, error) {
	if !owner.Valid() {
		return nil, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(s.c.o.CallTimeout, cancel)
	defer silence.Stop()
	w, err := kv.Watch(ctx, string(owner)+".*", jetstream.IgnoreDeletes())
	if err != nil {
		return nil, callError("bucket "+kv.Bucket(), err)
	}
	defer func() { _ = w.Stop() }() // the consumer ends with the connection at the latest
	var out []hostabi.StateEntry
	for {
		select {
		case kve, ok := <-w.Updates():
			if !ok {
				return nil, callError("bucket "+kv.Bucket(), context.DeadlineExceeded)
			}
			if kve == nil { // that was all
				slices.SortFunc(out, func(a, b hostabi.StateEntry) int { return cmp.Compare(a.Key, b.Key) })
				return out, nil
			}
			silence.Reset(s.c.o.CallTimeout)
			key, ok := decodeKey(strings.TrimPrefix(kve.Key(), string(owner)+"."))
			if !ok {
				continue // not written by ds
			}
			e, err := decode(owner, key, kve)
			if err != nil {
				return nil, err
			}
			out = append(out, e)
		case <-ctx.Done():
			return nil, callError("bucket "+kv.Bucket(), context.DeadlineExceeded)
		}
	}
}

// matches compares the current revision with ifRev.
func matches(owner hostabi.PluginName, key string, old *hostabi.StateEntry, live bool, ifRev *uint64) error {
	var have uint64
	if live {
		have = old.Revision
	}
	if ifRev != nil && have != *ifRev {
		return hostabi.StateConflict(owner, key, have, *ifRev)
	}
	return nil
}

// writeError is the error of a write: a conflict names the revision that won.
func (s *State) writeError(ctx context.Context, kv jetstream.KeyValue, owner hostabi.PluginName, key string, ifRev *uint64, err error) error {
	if !errors.Is(err, jetstream.ErrKeyExists) && !errors.Is(err, jetstream.ErrKeyRevisionMismatch) || ifRev == nil {
		return callError("bucket "+kv.Bucket(), err)
	}
	now, live, err := s.read(ctx, kv, owner, key)
	if err != nil {
		return err
	}
	have := uint64(0)
	if live {
		have = now.Revision
	}
	return hostabi.StateConflict(owner, key, have, *ifRev)
}

// turn waits until no other write of owner is on its way from here; done lets the next one begin.
func (s *State) turn(ctx context.Context, owner hostabi.PluginName) (done func(), err error) {
	s.mu.Lock()
	t := s.turns[owner]
	if t == nil {
		t = make(chan struct{}, 1)
		s.turns[owner] = t
	}
	s.mu.Unlock()
	select {
	case t <- struct{}{}:
		return func() { <-t }, nil
	case <-ctx.Done():
		return nil, callError("state of "+string(owner), ctx.Err())
	}
}

// fits compares what the owner would hold with its quota. The sum is made at the first write, and again before
// a refusal: others may have made room. It is the turn of e.
func (s *State) fits(ctx context.Context, kv jetstream.KeyValue, e *hostabi.StateEntry, quota int64) error {
	s.mu.Lock()
	u, ok := s.held[e.Owner]
	err := s.check(u, e, quota)
	s.mu.Unlock()
	if ok && err == nil {
		return nil
	}
	all, err := s.all(ctx, kv, e.Owner)
	if err != nil {
		return err
	}
	u = make(usage, len(all))
	for _, a := range all {
		u[a.Key] = held{hostabi.StateCost(a.Key, a.Value), a.Expires}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[e.Owner] = u
	return s.check(u, e, quota)
}

// check adds e to what is live of u; s.mu is held.
func (s *State) check(u usage, e *hostabi.StateEntry, quota int64) error {
	now, total, n := s.c.o.Clock(), hostabi.StateCost(e.Key, e.Value), 1
	for key, h := range u {
		if key != e.Key && (h.expires.IsZero() || h.expires.After(now)) {
			total += h.cost
			n++
		}
	}
	return hostabi.CheckStateQuota(e.Owner, total, n, quota)
}

func (s *State) count(e *hostabi.StateEntry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.held[e.Owner]; u != nil {
		u[e.Key] = held{hostabi.StateCost(e.Key, e.Value), e.Expires}
	}
}

func (s *State) forget(owner hostabi.PluginName, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held[owner], key)
}

func isLive(e *hostabi.StateEntry, now time.Time) bool {
	return e.Revision > 0 && (e.Expires.IsZero() || e.Expires.UnixMilli() > now.UnixMilli())
}

// bucketKey is the key of an entry in the bucket: OWNER.BASE64URL(KEY).
func bucketKey(owner hostabi.PluginName, key string) string {
	return string(owner) + "." + encodeKey(key)
}

func encodeKey(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }

func decodeKey(s string) (key string, ok bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return string(b), err == nil && hostabi.CheckStateKey(string(b)) == nil
}

// An entry in the bucket: version 1, then created, updated and expires, Unix ms, little endian, then the value.
const (
	envelope        = 1 + 3*8
	envelopeVersion = 1
)

func encode(e *hostabi.StateEntry) []byte {
	b := make([]byte, 1, envelope+len(e.Value))
	b[0] = envelopeVersion
	for _, t := range []time.Time{e.Created, e.Updated, e.Expires} {
		var ms int64
		if !t.IsZero() {
			ms = t.UnixMilli()
		}
		b = binary.LittleEndian.AppendUint64(b, uint64(ms))
	}
	return append(b, e.Value...)
}

func decode(owner hostabi.PluginName, key string, kve jetstream.KeyValueEntry) (hostabi.StateEntry, error) {
	e := hostabi.StateEntry{Owner: owner, Key: key, Revision: kve.Revision()}
	if err := decodeValue(&e, kve.Value()); err != nil {
		return e, hostabi.Errorf(hostabi.ReasonStateCorrupt, "state key %s of %s in bucket %s: %w", key, owner, kve.Bucket(), err).WithMeta("plugin", string(owner))
	}
	return e, nil
}

var errEnvelope = errors.New("not written by ds")

func decodeValue(e *hostabi.StateEntry, b []byte) error {
	if len(b) < envelope || b[0] != envelopeVersion {
		return errEnvelope
	}
	times := []*time.Time{&e.Created, &e.Updated, &e.Expires}
	for i, t := range times {
		ms := int64(binary.LittleEndian.Uint64(b[1+8*i:]))
		if ms < 0 || ms > maxMilli {
			return errEnvelope
		}
		if ms > 0 {
			*t = time.UnixMilli(ms)
		}
	}
	e.Value = slices.Clone(b[envelope:])
	return nil
}

// maxMilli is the year 9999, the last that RFC 3339 can write.
const maxMilli = 253402300799999
