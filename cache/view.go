package cache

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// View is the cache as one run sees it. Without a source it belongs to a plugin: what it commits is claimed
// for the owner. With one it is the sink of a pull from that repository. What a view commits, finds through
// its sink or opens is not evicted until Close. It is safe for concurrent use.
type View struct {
	s      *Store
	owner  hostabi.PluginName // empty = the host
	source string
	quota  int64 // bytes the owner may keep, 0 = no limit
	local  bool

	mu      sync.Mutex
	number  uint16                      // in the log, 0 = no lease yet
	held    map[hostabi.Digest]struct{} // leases
	touched map[hostabi.Digest]struct{}
	used    int64 // bytes of the owner, -1 = not counted yet
}

// View makes a view of owner, empty for the host, and of the repository source, empty for none. It creates
// nothing on disk.
func (s *Store) View(owner hostabi.PluginName, source string) *View {
	return &View{
		s: s, owner: owner, source: source, used: -1,
		held: make(map[hostabi.Digest]struct{}), touched: make(map[hostabi.Digest]struct{}),
	}
}

// Limit bounds what the owner may have in the cache together, in bytes; 0 = no limit. It must be called
// before the first Create.
func (v *View) Limit(bytes int64) { v.quota = bytes }

// Local says that the source is on this machine: what comes from it has nothing to do with the remote tier. It
// must be called before the first Create.
func (v *View) Local() { v.local = true }

// Close ends the leases of the view. It is idempotent.
func (v *View) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.number == 0 {
		return nil
	}
	v.s.logged(&record{kind: recordRelease, view: v.number, time: v.s.now().UnixNano()})
	v.s.mu.Lock()
	delete(v.s.views, v.number)
	v.s.mu.Unlock()
	v.number = 0
	clear(v.held)
	return nil
}

// Stat is Store.Stat. In the sink of a pull the blob stays until Close.
func (v *View) Stat(ctx context.Context, d hostabi.Digest) (info hostabi.BlobInfo, err error) {
	if v.source == "" {
		return v.s.Stat(ctx, d)
	}
	err = v.leased(ctx, d, func() (err error) {
		info, err = v.s.Stat(ctx, d)
		return err
	})
	return info, err
}

// Open opens a blob for reading. The name of the file is its path in the cache, good until Close.
func (v *View) Open(ctx context.Context, d hostabi.Digest) (f *os.File, err error) {
	err = v.leased(ctx, d, func() (err error) {
		f, err = v.s.Open(ctx, d)
		return err
	})
	return f, err
}

// Path is the path of a blob in the cache, good until Close. The file must not be linked or changed.
func (v *View) Path(ctx context.Context, d hostabi.Digest) (string, error) {
	err := v.leased(ctx, d, func() error {
		f, err := v.s.look(ctx, d, false)
		if f != nil {
			_ = f.Close() // read only
		}
		return err
	})
	if err != nil {
		return "", err
	}
	return v.s.blob(d), nil
}

// Touched reports whether this view committed, found through its sink or opened d.
func (v *View) Touched(d hostabi.Digest) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, ok := v.touched[d]
	return ok
}

// Create opens a writer. A plugin's is private until Commit, which checks the owner's quota and claims the
// blob; a pull's is Store.Create with the source noted.
func (v *View) Create(ctx context.Context, want hostabi.Descriptor) (hostabi.BlobWriter, error) {
	return v.s.open(ctx, v, want)
}

// List is Store.List.
func (v *View) List(ctx context.Context, owner hostabi.PluginName) hostabi.Seq2[hostabi.BlobInfo] {
	return v.s.List(ctx, owner)
}

// Pin is Store.Pin.
func (v *View) Pin(ctx context.Context, d hostabi.Digest, owner hostabi.PluginName, until time.Time) error {
	return v.s.Pin(ctx, d, owner, until)
}

// Owned is Store.Owned.
func (v *View) Owned(ctx context.Context, owner hostabi.PluginName, d hostabi.Digest, size int64) bool {
	return v.s.Owned(ctx, owner, d, size)
}

// Usage is Store.Usage.
func (v *View) Usage(ctx context.Context) (hostabi.CacheUsage, error) { return v.s.Usage(ctx) }

// Remove is Store.Remove.
func (v *View) Remove(ctx context.Context, owner hostabi.PluginName, d hostabi.Digest) error {
	return v.s.Remove(ctx, owner, d)
}

// Evict is Store.Evict.
func (v *View) Evict(ctx context.Context, o hostabi.EvictOptions) hostabi.Seq2[hostabi.BlobInfo] {
	return v.s.Evict(ctx, o)
}

// Verify is Store.Verify.
func (v *View) Verify(ctx context.Context, ds []hostabi.Digest, repair bool) hostabi.Seq2[hostabi.Verdict] {
	return v.s.Verify(ctx, ds, repair)
}

// The methods below work on a nil View too: the host's own writers have none.

func (v *View) isPlugin() bool { return v != nil && v.owner != "" && v.source == "" }

func (v *View) repository() string {
	if v == nil {
		return ""
	}
	return v.source
}

// foreign is the source if it is not on this machine.
func (v *View) foreign() string {
	if v == nil || v.local {
		return ""
	}
	return v.source
}

// awayFor bounds how long gc has an entry in its hands before it sees the lease and puts it back.
const awayFor = 64 * time.Millisecond

// leased calls find, which looks whether d is there, so that what it finds stays until Close: the lease is
// written first, gc reads leases after it took an entry away, so one side always sees the other. A miss
// creates nothing; a read-only cache has no gc that matters.
func (v *View) leased(ctx context.Context, d hostabi.Digest, find func() error) error {
	if v == nil || !d.Valid() {
		return find()
	}
	if !v.leases(d) {
		if _, err := v.s.fs.Lstat(v.s.entry(d)); err == nil {
			v.lease(d)
		}
	}
	err := find()
	// What was found before is ours: a miss means that gc looks at it just now.
	for wait := time.Millisecond; err != nil && wait < awayFor && v.Touched(d) && isAway(err); wait *= 2 {
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctxError(ctx)
		}
		err = find()
	}
	if err == nil {
		v.touch(d)
	}
	return err
}

// isAway reports whether err is a miss because there is no entry, and not because it is damaged or expired.
func isAway(err error) bool {
	return isMiss(err) && !errors.Is(err, errCorrupt) && !errors.Is(err, errExpired)
}

func (v *View) touch(d hostabi.Digest) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.touched[d] = struct{}{}
}

func (v *View) leases(d hostabi.Digest) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, ok := v.held[d]
	return ok
}

// lease writes a lease record unless the view has one for d.
func (v *View) lease(d hostabi.Digest) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.held[d]; ok {
		return
	}
	if v.number == 0 && !v.take() {
		return
	}
	v.s.logged(&record{kind: recordLease, view: v.number, digest: sumOf(d), time: v.s.now().UnixNano()})
	v.held[d] = struct{}{}
}

// take gives the view a number of its own; false if all are in use, which no process reaches.
func (v *View) take() bool {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	for n := uint16(1); n != 0; n++ {
		if _, ok := v.s.views[n]; !ok {
			v.s.views[n] = struct{}{}
			v.number = n
			return true
		}
	}
	return false
}

// admit lets a plugin's writer begin: not for what it owns already, and within its quota.
func (v *View) admit(ctx context.Context, w *writer) error {
	if !v.isPlugin() {
		return nil
	}
	if err := badOwner(v.owner); err != nil {
		return err
	}
	if d := w.want.Digest; d != "" {
		// Only the owner learns that the blob is here: a guessed digest must not tell.
		if fi, err := v.s.fs.Lstat(v.s.blob(d)); err == nil && v.s.Owned(ctx, v.owner, d, fi.Size()) {
			return v.s.absent(ctx, v, d)
		}
	}
	if v.quota <= 0 {
		return nil
	}
	used, err := v.usage()
	if err != nil {
		return err
	}
	w.quota = max(v.quota-used, 0)
	if w.want.Size > w.quota {
		return overQuota(v.owner, v.quota)
	}
	return nil
}

// usage is what the owner keeps, counted at its first write and then kept up.
func (v *View) usage() (int64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.used >= 0 {
		return v.used, nil
	}
	claims, err := v.s.claims(v.owner)
	if err != nil {
		return 0, err
	}
	v.used = 0
	for _, size := range claims {
		v.used += size
	}
	return v.used, nil
}

// committing leases and claims what is about to be published; undo takes the claim back.
func (v *View) committing(d hostabi.Digest, size int64) (undo func(), err error) {
	undo = func() {}
	if v == nil {
		return undo, nil
	}
	v.lease(d)
	if v.isPlugin() {
		fresh, err := v.s.claim(v.owner, d, size)
		if err != nil {
			return undo, err
		}
		if fresh {
			undo = func() { _ = v.s.fs.Remove(v.s.claimFile(v.owner, d, size)) } // else swept by gc
		}
		v.mu.Lock()
		if fresh && v.used >= 0 {
			v.used += size
		}
		v.mu.Unlock()
	}
	v.touch(d)
	return undo, nil
}
