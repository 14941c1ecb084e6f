// Package bustest is the kit that every engine of events and state passes (events-state.md section 8): State
// runs the promises of host.State, Events those of host.Events. An engine's test gives a function that opens
// it; each case asks for a new one. Start with RunState.
package bustest

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// State is what an engine offers: host.State and what ds itself does with the state of a plugin.
type State interface {
	Get(ctx context.Context, owner hostabi.PluginName, key string) (hostabi.StateEntry, error)
	Put(ctx context.Context, owner hostabi.PluginName, e hostabi.StateEntry, ifRev *uint64, quota int64) (hostabi.StateEntry, error)
	Delete(ctx context.Context, owner hostabi.PluginName, key string, ifRev *uint64) (deleted bool, err error)
	List(ctx context.Context, owner hostabi.PluginName, prefix string) iter.Seq2[hostabi.StateEntry, error]
	Retire(ctx context.Context, owner hostabi.PluginName) error
	Remove(ctx context.Context, owner hostabi.PluginName) error
}

// StateOptions are what a case sets of an engine.
type StateOptions struct {
	Clock      func() time.Time
	DefaultTTL time.Duration
}

// StateOpener opens the state of one case; called again in the same case, it is another handle on the same
// state, as another process has one.
type StateOpener func(t *testing.T) func(o StateOptions) State

// owner is the plugin of the cases.
const owner = hostabi.PluginName("s3")

// stateCase is one state with a clock that only the case moves.
type stateCase struct {
	*testing.T
	State
	open func(o StateOptions) State
	now  time.Time
}

// RunState runs every case of the state suite.
func RunState(t *testing.T, open StateOpener) {
	for name, run := range map[string]func(c *stateCase){
		"put get delete":     putGetDelete,
		"revisions":          revisions,
		"ttl":                ttl,
		"default ttl":        defaultTTL,
		"list":               listed,
		"limits":             limits,
		"quota":              quota,
		"namespaces":         namespaces,
		"retire and remove":  retireAndRemove,
		"two handles":        twoHandles,
		"compare and set":    compareAndSet,
		"values are copies":  copies,
		"ended context":      endedContext,
		"values of all size": sizes,
	} {
		t.Run(name, func(t *testing.T) {
			c := &stateCase{T: t, open: open(t), now: time.UnixMilli(1_700_000_000_000)}
			c.State = c.open(StateOptions{Clock: func() time.Time { return c.now }})
			run(c)
		})
	}
}

func putGetDelete(c *stateCase) {
	first := c.put("a/b", "one", nil)
	c.now = c.now.Add(time.Second)
	second := c.put("a/b", "two", nil)
	if first.Revision == 0 || second.Revision <= first.Revision {
		c.Errorf("revisions %d, %d do not grow", first.Revision, second.Revision)
	}
	got, err := c.Get(c.Context(), owner, "a/b")
	if err != nil || string(got.Value) != "two" || !got.Created.Equal(first.Created) || !got.Updated.Equal(c.now) || got.Revision != second.Revision {
		c.Errorf("Get = %+v, %v", got, err)
	}
	if got.Owner != owner || got.Key != "a/b" || !got.Expires.IsZero() {
		c.Errorf("Get = %+v", got)
	}
	if deleted, err := c.Delete(c.Context(), owner, "a/b", nil); !deleted || err != nil {
		c.Fatalf("Delete = %v, %v", deleted, err)
	}
	c.wantReason(errOf(c.Get(c.Context(), owner, "a/b")), hostabi.ReasonKeyNotFound)
	if deleted, err := c.Delete(c.Context(), owner, "a/b", nil); deleted || err != nil {
		c.Errorf("deleting a missing key: %v, %v", deleted, err)
	}
	if again := c.put("a/b", "three", nil); again.Revision <= second.Revision || !again.Created.Equal(c.now) {
		c.Errorf("%+v after a delete is no entry of its own beyond revision %d", again, second.Revision)
	}
}

func revisions(c *stateCase) {
	none, one := uint64(0), uint64(1)
	e := c.put("k", "v", &none)
	c.wantConflict(errOf(c.Put(c.Context(), owner, hostabi.StateEntry{Key: "k", Value: []byte("w")}, &none, 0)), e.Revision)
	stale := e.Revision + 7
	c.wantConflict(errOf(c.Put(c.Context(), owner, hostabi.StateEntry{Key: "k", Value: []byte("w")}, &stale, 0)), e.Revision)
	c.wantConflict(errOf(c.Delete(c.Context(), owner, "k", &stale)), e.Revision)
	c.wantConflict(errOf(c.Delete(c.Context(), owner, "missing", &one)), 0)
	c.wantConflict(errOf(c.Put(c.Context(), owner, hostabi.StateEntry{Key: "missing"}, &one, 0)), 0)
	if got, _ := c.Get(c.Context(), owner, "k"); string(got.Value) != "v" {
		c.Errorf("a refused write changed the value to %q", got.Value)
	}
	e = c.put("k", "w", &e.Revision)
	if deleted, err := c.Delete(c.Context(), owner, "k", &e.Revision); !deleted || err != nil {
		c.Errorf("Delete = %v, %v", deleted, err)
	}
	c.put("k", "x", &none) // what is deleted does not exist
	if deleted, err := c.Delete(c.Context(), owner, "absent", &none); deleted || err != nil {
		c.Errorf("Delete of what must not exist = %v, %v", deleted, err)
	}
}

func ttl(c *stateCase) {
	until := c.now.Add(time.Second)
	if e, err := c.Put(c.Context(), owner, hostabi.StateEntry{Key: "k", Expires: until}, nil, 0); err != nil || !e.Expires.Equal(until) {
		c.Fatalf("Put = %+v, %v", e, err)
	}
	e, err := c.Put(c.Context(), owner, hostabi.StateEntry{Key: "l", Expires: until}, nil, 0)
	if err != nil {
		c.Fatal(err)
	}
	c.put("stays", "v", nil)
	c.now = c.now.Add(time.Second)
	c.wantReason(errOf(c.Get(c.Context(), owner, "k")), hostabi.ReasonKeyNotFound)
	c.wantKeys("", "stays")
	c.wantConflict(errOf(c.Put(c.Context(), owner, hostabi.StateEntry{Key: "l"}, &e.Revision, 0)), 0)
	none := uint64(0)
	c.put("k", "again", &none) // an expired entry counts as absent
	if l := c.put("l", "again", &none); !l.Created.Equal(c.now) {
		c.Errorf("an expired entry gave its birthday to %+v", l)
	}
	far, err := c.Put(c.Context(), owner, hostabi.StateEntry{Key: "far", Expires: c.now.AddDate(50, 0, 0)}, nil, 0)
	if err != nil || far.Expires.After(c.now.Add(hostabi.MaxStateTTL)) {
		c.Errorf("an entry expires %v, %v", far.Expires, err)
	}
	e, err = c.Put(c.Context(), owner, hostabi.StateEntry{Key: "m", Expires: c.now.Add(time.Second)}, nil, 0)
	if err != nil {
		c.Fatal(err)
	}
	c.now = c.now.Add(time.Second)
	if deleted, err := c.Delete(c.Context(), owner, "m", nil); deleted || err != nil {
		c.Errorf("deleting what has expired: %v, %v", deleted, err)
	}
	c.wantConflict(errOf(c.Delete(c.Context(), owner, "m", &e.Revision)), 0)
}

func defaultTTL(c *stateCase) {
	s := c.open(StateOptions{Clock: func() time.Time { return c.now }, DefaultTTL: time.Minute})
	e, err := s.Put(c.Context(), owner, hostabi.StateEntry{Key: "k"}, nil, 0)
	if err != nil || !e.Expires.Equal(c.now.Add(time.Minute)) {
		c.Errorf("Put = %+v, %v", e, err)
	}
	own := c.now.Add(time.Hour)
	if e, err = s.Put(c.Context(), owner, hostabi.StateEntry{Key: "k", Expires: own}, nil, 0); err != nil || !e.Expires.Equal(own) {
		c.Errorf("Put = %+v, %v", e, err)
	}
}

func listed(c *stateCase) {
	c.wantKeys("")
	for _, k := range []string{"b/2", "a", "b/1", "c", "b.x", "A=_-"} {
		c.put(k, "v"+k, nil)
	}
	c.wantKeys("", "A=_-", "a", "b.x", "b/1", "b/2", "c")
	c.wantKeys("b/", "b/1", "b/2")
	c.wantKeys("none")
	if _, err := c.Delete(c.Context(), owner, "b/1", nil); err != nil {
		c.Fatal(err)
	}
	c.wantKeys("b", "b.x", "b/2")
	for e, err := range c.List(c.Context(), owner, "") {
		if err != nil || string(e.Value) != "v"+e.Key || e.Revision == 0 {
			c.Errorf("listed %+v, %v", e, err)
		}
		break // ending early is fine
	}
}

func limits(c *stateCase) {
	ctx := c.Context()
	c.wantReason(errOf(c.Put(ctx, owner, hostabi.StateEntry{Key: "../x"}, nil, 0)), hostabi.ReasonBadKey)
	c.wantReason(errOf(c.Get(ctx, owner, "a b")), hostabi.ReasonBadKey)
	c.wantReason(errOf(c.Delete(ctx, owner, "a*", nil)), hostabi.ReasonBadKey)
	c.wantReason(errOf(c.Put(ctx, "../x", hostabi.StateEntry{Key: "k"}, nil, 0)), hostabi.ReasonUsage)
	c.wantReason(errOf(c.Put(ctx, owner, hostabi.StateEntry{Key: "k", Value: make([]byte, hostabi.MaxStateValue+1)}, nil, 0)), hostabi.ReasonTooLarge)
	c.wantKeys("")
}

func quota(c *stateCase) {
	ctx := c.Context()
	c.put("k", "small", nil)
	c.wantReason(errOf(c.Put(ctx, owner, hostabi.StateEntry{Key: "l", Value: make([]byte, 1000)}, nil, 1000)), hostabi.ReasonQuota)
	c.wantKeys("", "k")
	kept, err := c.Get(ctx, owner, "k")
	if err != nil || string(kept.Value) != "small" {
		c.Errorf("a refused write left %+v, %v", kept, err)
	}
	// What is replaced, deleted or expired makes room again.
	big := hostabi.StateEntry{Key: "k", Value: make([]byte, 800)}
	if _, err := c.Put(ctx, owner, big, nil, 1000); err != nil {
		c.Errorf("replacing within the quota: %v", err)
	}
	if _, err := c.Put(ctx, owner, big, nil, 1000); err != nil {
		c.Errorf("writing the same again: %v", err)
	}
	if _, err := c.Delete(ctx, owner, "k", nil); err != nil {
		c.Fatal(err)
	}
	big.Key, big.Expires = "m", c.now.Add(time.Second)
	if _, err := c.Put(ctx, owner, big, nil, 1000); err != nil {
		c.Errorf("writing after a delete: %v", err)
	}
	c.now = c.now.Add(time.Second)
	if _, err := c.Put(ctx, owner, hostabi.StateEntry{Key: "n", Value: big.Value}, nil, 1000); err != nil {
		c.Errorf("writing after an expiry: %v", err)
	}
	// Another handle counts what it did not write.
	other := c.open(StateOptions{Clock: func() time.Time { return c.now }})
	c.wantReason(errOf(other.Put(ctx, owner, hostabi.StateEntry{Key: "o", Value: big.Value}, nil, 1000)), hostabi.ReasonQuota)
	if _, err := other.Put(ctx, "another", hostabi.StateEntry{Key: "o", Value: big.Value}, nil, 1000); err != nil {
		c.Errorf("one owner pays for another: %v", err)
	}
}

func namespaces(c *stateCase) {
	c.put("k", "v", nil)
	for _, o := range []hostabi.PluginName{"s", "s3-x", "other"} {
		for e, err := range c.List(c.Context(), o, "") {
			c.Errorf("%s sees %+v, %v", o, e, err)
		}
		c.wantReason(errOf(c.Get(c.Context(), o, "k")), hostabi.ReasonKeyNotFound)
	}
	if _, err := c.Put(c.Context(), "other", hostabi.StateEntry{Key: "k", Value: []byte("w")}, nil, 0); err != nil {
		c.Fatal(err)
	}
	if got, err := c.Get(c.Context(), owner, "k"); err != nil || string(got.Value) != "v" {
		c.Errorf("after a write of another owner Get = %+v, %v", got, err)
	}
}

func retireAndRemove(c *stateCase) {
	for name, end := range map[string]func(context.Context, hostabi.PluginName) error{"retire": c.Retire, "remove": c.Remove} {
		c.put("k", "v", nil)
		c.put("l", "w", nil)
		if _, err := c.Put(c.Context(), "other", hostabi.StateEntry{Key: "k"}, nil, 0); err != nil {
			c.Fatal(err)
		}
		if err := end(c.Context(), owner); err != nil {
			c.Fatalf("%s: %v", name, err)
		}
		c.wantReason(errOf(c.Get(c.Context(), owner, "k")), hostabi.ReasonKeyNotFound)
		c.wantKeys("")
		if _, err := c.Get(c.Context(), "other", "k"); err != nil {
			c.Errorf("%s took the state of another owner: %v", name, err)
		}
		if err := end(c.Context(), "never-seen"); err != nil {
			c.Errorf("%s of nothing: %v", name, err)
		}
		c.now = c.now.Add(time.Second)
	}
	none := uint64(0)
	c.put("k", "new", &none)
}

func twoHandles(c *stateCase) {
	other := c.open(StateOptions{Clock: func() time.Time { return c.now }})
	c.wantReason(errOf(other.Get(c.Context(), owner, "k")), hostabi.ReasonKeyNotFound)
	e := c.put("k", "one", nil)
	if got, err := other.Get(c.Context(), owner, "k"); err != nil || string(got.Value) != "one" || got.Revision != e.Revision {
		c.Fatalf("the other handle sees %+v, %v", got, err)
	}
	if _, err := other.Put(c.Context(), owner, hostabi.StateEntry{Key: "k", Value: []byte("two")}, &e.Revision, 0); err != nil {
		c.Fatal(err)
	}
	if got, err := c.Get(c.Context(), owner, "k"); err != nil || string(got.Value) != "two" {
		c.Errorf("this handle sees %+v, %v", got, err)
	}
	c.wantReason(errOf(c.Put(c.Context(), owner, hostabi.StateEntry{Key: "k"}, &e.Revision, 0)), hostabi.ReasonStateConflict)
}

// compareAndSet is the promise that two writers with the same revision never both win.
func compareAndSet(c *stateCase) {
	const writers, each = 8, 25
	handles := make([]State, writers) // opened before anybody writes
	for i := range handles {
		handles[i] = c.open(StateOptions{})
	}
	var wg sync.WaitGroup
	for _, s := range handles {
		wg.Go(func() {
			if err := Increment(c.Context(), s, each); err != nil {
				c.Error(err)
			}
		})
	}
	wg.Wait()
	WantCount(c.T, c.State, writers*each)
}

func copies(c *stateCase) {
	value := []byte("value")
	e, err := c.Put(c.Context(), owner, hostabi.StateEntry{Key: "k", Value: value}, nil, 0)
	if err != nil {
		c.Fatal(err)
	}
	value[0] = 'X'
	if len(e.Value) > 0 {
		e.Value[1] = 'X'
	}
	got, err := c.Get(c.Context(), owner, "k")
	if err != nil || string(got.Value) != "value" {
		c.Fatalf("Get = %q, %v", got.Value, err)
	}
	got.Value[2] = 'X'
	if again, err := c.Get(c.Context(), owner, "k"); err != nil || string(again.Value) != "value" {
		c.Errorf("Get = %q, %v", again.Value, err)
	}
}

func endedContext(c *stateCase) {
	ctx, cancel := context.WithCancel(c.Context())
	cancel()
	if _, err := c.Put(ctx, owner, hostabi.StateEntry{Key: "k"}, nil, 0); err != nil {
		c.wantReason(errOf(c.Get(c.Context(), owner, "k")), hostabi.ReasonKeyNotFound)
	}
}

func sizes(c *stateCase) {
	for _, n := range []int{0, 1, 1000, hostabi.MaxStateValue} {
		value := strings.Repeat("\x00\xff", n)[:n]
		c.put("k", value, nil)
		if got, err := c.Get(c.Context(), owner, "k"); err != nil || string(got.Value) != value {
			c.Errorf("%d bytes came back as %d, %v", n, len(got.Value), err)
		}
	}
	long := "k" + strings.Repeat("/", hostabi.MaxStateKey-1)
	c.put(long, "v", nil)
	c.wantKeys("k/", long)
}

// Increment adds n to the counter of the suite by compare-and-set, one at a time.
func Increment(ctx context.Context, s State, n int) error {
	for range n {
		if err := increment(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func increment(ctx context.Context, s State) error {
	for {
		var rev uint64
		n := 0
		e, err := s.Get(ctx, owner, "n")
		switch {
		case err == nil:
			if n, err = strconv.Atoi(string(e.Value)); err != nil {
				return err
			}
			rev = e.Revision
		case hostabi.ReasonOf(err) != hostabi.ReasonKeyNotFound:
			return err
		}
		_, err = s.Put(ctx, owner, hostabi.StateEntry{Key: "n", Value: strconv.AppendInt(nil, int64(n)+1, 10)}, &rev, 0)
		if err == nil || hostabi.ReasonOf(err) != hostabi.ReasonStateConflict {
			return err
		}
	}
}

// WantCount fails unless the counter that Increment moves is want.
func WantCount(t *testing.T, s State, want int) {
	t.Helper()
	e, err := s.Get(t.Context(), owner, "n")
	if err != nil || string(e.Value) != strconv.Itoa(want) {
		t.Errorf("counted %q, want %d (%v)", e.Value, want, err)
	}
}

func (c *stateCase) put(key, value string, ifRev *uint64) hostabi.StateEntry {
	c.Helper()
	e, err := c.Put(c.Context(), owner, hostabi.StateEntry{Key: key, Value: []byte(value)}, ifRev, 0)
	if err != nil {
		c.Fatal(err)
	}
	return e
}

func (c *stateCase) wantKeys(prefix string, want ...string) {
	c.Helper()
	var keys []string
	for e, err := range c.List(c.Context(), owner, prefix) {
		if err != nil {
			c.Fatal(err)
		}
		keys = append(keys, e.Key)
	}
	if !slices.Equal(keys, want) {
		c.Errorf("listed %q, want %q", keys, want)
	}
}

func (c *stateCase) wantReason(err error, want hostabi.Reason) {
	c.Helper()
	if got := hostabi.ReasonOf(err); got != want {
		c.Errorf("reason %q, want %q (%v)", got, want, err)
	}
}

func (c *stateCase) wantConflict(err error, revision uint64) {
	c.Helper()
	c.wantReason(err, hostabi.ReasonStateConflict)
	if e := hostabi.AsError(err); e != nil && e.Meta["revision"] != fmt.Sprint(revision) {
		c.Errorf("the conflict names revision %q, want %d", e.Meta["revision"], revision)
	}
}

func errOf[T any](_ T, err error) error { return err }
