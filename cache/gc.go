package cache

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

const (
	closeTime   = time.Second      // gc at the end of a command
	gcEvery     = 24 * time.Hour   // also when nothing is too big
	maxDeadRuns = 64               // logs of ended processes, then gc merges them
	inUse       = 10 * time.Minute // entries used since are not evicted for size
)

// gcOptions say what one gc evicts beside what is expired. The zero value is the policy of the Store.
type gcOptions struct {
	wait  bool  // for another gc
	last  bool  // this process ends: its own log may go
	need  int64 // bytes to free even below MaxSize: the disk is full
	dry   bool  // only say what would go
	evict *hostabi.EvictOptions
	told  func(hostabi.BlobInfo)
}

// due tells cheaply whether gc has work, cache.md section 7.
func (s *Store) due() bool {
	fi, err := s.fs.Lstat(s.gcLock())
	if err != nil || s.now().Sub(fi.ModTime()) > gcEvery || fi.ModTime().After(s.now().Add(time.Hour)) {
		return true
	}
	if dirs, _ := s.runDirs(); len(dirs) > maxDeadRuns {
		return true
	}
	h, err := s.snapshotHeader()
	if err != nil {
		h = snapshotHeader{} // what the logs say is all there is
	}
	l := s.newLogs(h.time)
	l.read()
	total := h.disk
	for _, r := range l.latest {
		if r.kind == recordPut {
			total += r.disk
		}
	}
	return s.o.MaxSize > 0 && total > s.o.MaxSize
}

// gc is one collection: sweep, evict what is expired, idle or too much, write snapshot and index.json. Every
// step leaves a valid store, so it may end anywhere. ErrLocked = another one runs.
func (s *Store) gc(ctx context.Context, o gcOptions) error {
	lockCtx := doneCtx()
	if o.wait {
		lockCtx = ctx
	}
	var unlock func() error
	err := s.inDir(s.internal(""), func() (err error) {
		unlock, err = s.fs.Lock(lockCtx, s.gcLock())
		if isFull(err) { // it cannot be made, so nobody holds it
			unlock, err = s.fs.Lock(lockCtx, s.versionFile())
		}
		return err
	})
	if err != nil {
		if ctx.Err() != nil {
			return ctxError(ctx)
		}
		return err
	}
	c := &collector{s: s, ctx: ctx, o: o, now: s.now()}
	err = c.run()
	return errors.Join(err, unlock())
}

// collector is the state of one gc.
type collector struct {
	s       *Store
	ctx     context.Context
	o       gcOptions
	now     time.Time
	x       *index
	l       *logs
	pins    map[sum]struct{}
	changes int
	dead    []deadRun
	trash   *deleter
	failed  error            // the first entry that could not be taken away
	count   map[string]int64 // evicted by reason
	bytes   int64            // disk bytes of them
}

type deadRun struct {
	dir    string
	unlock func() error
	wrote  bool
}

func (c *collector) run() error {
	s := c.s
	c.count = make(map[string]int64)
	c.x, c.l, c.changes = s.load(false)
	if !c.o.dry {
		c.trash = newDeleter(s.fs)
		c.deadRuns()
		c.sweep()
	}
	c.pins = s.allPins()
	c.evictAll()
	if c.o.dry {
		return c.stopped()
	}
	err := c.finish()
	for reason, n := range c.count {
		s.count("evicted", "reason", reason, n)
	}
	if c.changed() > 0 {
		s.publish("cache.evicted", map[string]any{"count": c.changed(), "bytes": c.bytes})
	}
	if err = errors.Join(err, c.stopped()); err == nil && c.o.evict != nil {
		err = c.failed // who asked for it is told; the next gc tries again
	}
	return err
}

func (c *collector) changed() (n int64) {
	for _, k := range c.count {
		n += k
	}
	return n
}

func (c *collector) stopped() error {
	if c.ctx.Err() != nil {
		return ctxError(c.ctx)
	}
	return nil
}

// finish writes what this gc knows now and removes the logs that are merged.
func (c *collector) finish() error {
	s := c.s
	c.trash.wait(c.ctx) // before anything is written: the disk may be full
	merged := c.changes*10 > len(c.x.entries)
	for _, d := range c.dead {
		merged = merged || d.wrote
	}
	merged = merged || c.o.last
	if _, err := s.fs.Lstat(s.snapshotFile()); err != nil {
		merged = true
	}
	var err error
	if merged {
		if err = s.saveSnapshot(c.x); err == nil {
			err = s.writeIndex(c.x)
		}
	}
	if c.o.last && err == nil {
		if r, rerr := s.theRun(); rerr == nil {
			r.wrote.Store(false)
		}
	}
	for _, d := range c.dead {
		if err == nil {
			_ = cleanRun(s.fs, d.dir, true) // else the next gc does
		}
		_ = d.unlock()
	}
	_ = s.fs.Chtimes(s.gcLock(), c.now) // when gc ran last
	return err
}

// deadRuns finds run directories of processes that ended, cleans them, and keeps their logs until finish.
func (c *collector) deadRuns() {
	killed := false
	dirs, _ := c.s.runDirs() // what cannot be listed is for the next gc
	for _, dir := range dirs {
		unlock := c.s.lockDead(dir)
		if unlock == nil {
			continue
		}
		_ = cleanRun(c.s.fs, dir, false) // what stays is found again
		c.l.read()
		killed = killed || !c.l.ended[dir]
		c.l.forget(dir)
		wrote := false
		if fi, err := c.s.fs.Lstat(filepath.Join(dir, "log")); err == nil {
			wrote = fi.Size() > 0
		}
		c.dead = append(c.dead, deadRun{dir, unlock, wrote})
	}
	if killed || c.l.gaps { // between a rename and its record
		c.changes += c.s.reconcile(c.x)
		c.x.reconcile = c.x.time
	}
}

// lockDead locks the log of a run directory whose process is gone; nil if it lives or may have just begun.
func (s *Store) lockDead(dir string) (unlock func() error) {
	fi, err := s.fs.Lstat(dir)
	if err != nil {
		return nil
	}
	if age := s.now().Sub(fi.ModTime()); age >= 0 && age < time.Minute {
		if _, err := s.fs.Lstat(filepath.Join(dir, lockName())); err != nil {
			return nil // not locked yet
		}
	}
	unlock, err = s.fs.Lock(doneCtx(), filepath.Join(dir, lockName()))
	if err != nil {
		return nil
	}
	return unlock
}

// sweepHourly cleans run directories of killed processes. The time of VERSION says when that was done last.
func (s *Store) sweepHourly() {
	fi, err := s.fs.Lstat(s.versionFile())
	if age := s.now().Sub(fileTime(fi)); err != nil || age >= 0 && age < time.Hour {
		return
	}
	_ = s.fs.Chtimes(s.versionFile(), s.now())
	dirs, _ := s.runDirs() // as above
	for _, dir := range dirs {
		if unlock := s.lockDead(dir); unlock != nil {
			_ = cleanRun(s.fs, dir, false) // the log waits for gc, to which an empty one says that its process was killed
			_ = unlock()
		}
	}
}

func fileTime(fi fs.FileInfo) time.Time {
	if fi == nil {
		return time.Time{}
	}
	return fi.ModTime()
}

// allPins are the digests that somebody pins now.
func (s *Store) allPins() map[sum]struct{} {
	names, _ := s.fs.ReadDir(s.pins()) // none if it is missing
	pins := make(map[sum]struct{}, len(names))
	for _, n := range names {
		if d := hostabi.Digest("sha256:" + n); d.Valid() && s.pinned(d) {
			pins[sumOf(d)] = struct{}{}
		}
	}
	return pins
}

// evictAll evicts by policy, or by what Evict was told.
func (c *collector) evictAll() {
	o := c.o.evict
	ttl, limit, target := c.s.o.TTL, c.s.o.MaxSize, int64(float64(c.s.o.MaxSize)*c.s.o.Threshold)
	reason := "size"
	switch {
	case o != nil && o.ExpiredOnly:
		ttl, limit = 0, 0
	case o != nil:
		ttl, limit, target = o.OlderThan, 0, 0
		if o.MaxBytes > 0 {
			limit, target = o.MaxBytes, o.MaxBytes
		}
	case c.o.need > 0:
		ttl, reason = 0, "space"
		limit = 1
		target = max(c.x.disk-max(c.o.need, c.s.o.MaxSize/10), 0)
	}
	all := o != nil && !o.ExpiredOnly && o.MaxBytes <= 0 && o.OlderThan <= 0
	c.old(ttl, limit, all)
	if limit > 0 && c.x.disk > limit {
		c.tooMuch(target, o == nil && c.o.need == 0, reason)
	}
	c.x.drop()
	if c.x.unsure {
		c.s.recount(c.x)
	}
}

// old evicts what is expired, and what was not used for ttl. When limits restrict the amount, ttl narrows it.
func (c *collector) old(ttl time.Duration, limit int64, all bool) {
	now := c.now.UnixNano()
	for i := range c.x.entries {
		if c.ctx.Err() != nil {
			return
		}
		e := &c.x.entries[i]
		switch {
		case e.expires != 0 && e.expires <= c.now.Unix():
			c.evict(e, "ttl")
		case all:
			c.evict(e, "idle")
		case ttl > 0 && now-e.used > int64(ttl) && (c.o.evict == nil || limit <= 0):
			if c.refresh(e); now-e.used > int64(ttl) {
				c.evict(e, "idle")
			}
		}
	}
}

// refresh takes the time of last use from the directory. A time in the future counts as now.
func (c *collector) refresh(e *entryInfo) (newer bool) {
	fi, err := c.s.fs.Lstat(c.s.entry(e.digest.digest()))
	if err != nil {
		return false
	}
	used := min(fi.ModTime().UnixNano(), c.now.UnixNano())
	newer = used > e.used
	e.used = max(e.used, used)
	return newer
}

// tooMuch evicts the least recently used until target disk bytes are left.
func (c *collector) tooMuch(target int64, spare bool, reason string) {
	h := newHeap(c.x.entries)
	for c.x.disk > target && c.ctx.Err() == nil {
		i, ok := h.pop()
		if !ok {
			break
		}
		e := &c.x.entries[i]
		if e.disk < 0 || c.kept(e.digest) {
			continue
		}
		if c.refresh(e) {
			h.push(i)
			continue
		}
		if c.o.evict != nil && c.o.evict.OlderThan > 0 && c.now.UnixNano()-e.used <= int64(c.o.evict.OlderThan) {
			return // the rest is younger
		}
		if spare && c.now.UnixNano()-e.used < int64(inUse) {
			c.s.log.Warn("cache is larger than max_size: all entries in use", "bytes", c.x.disk, "max_size", c.s.o.MaxSize)
			return
		}
		c.evict(e, reason)
	}
}

func (c *collector) kept(d sum) bool {
	_, pinned := c.pins[d]
	return pinned || c.l.leased(d)
}

// evict takes one entry away unless it is pinned or leased, and marks it for drop.
func (c *collector) evict(e *entryInfo, reason string) {
	if c.kept(e.digest) {
		return
	}
	d := e.digest.digest()
	info := hostabi.BlobInfo{Digest: d, Used: time.Unix(0, e.used)}
	if e.expires != 0 {
		info.Expires = time.Unix(e.expires, 0)
	}
	if fi, err := c.s.fs.Lstat(c.s.blob(d)); err == nil {
		info.Size = fi.Size()
	} else {
		c.x.unsure = true // taken away by a process that was killed before it could say so
	}
	if !c.o.dry {
		gone, err := c.s.takeAway(d, info.Size, c.l, c.trash)
		if err != nil && c.failed == nil {
			c.failed = err
		}
		if !gone {
			return
		}
	}
	if !c.o.dry {
		c.changes++
		c.count[reason]++
		c.bytes += e.disk
	}
	c.x.disk -= e.disk
	c.x.bytes -= info.Size
	e.disk = -1
	if c.o.told != nil {
		c.o.told(info)
	}
}

// takeAway renames an entry into the trash and looks then whether it was leased or pinned meanwhile: who
// leases does it before looking for the entry, so one side sees the other. False = it stays.
func (s *Store) takeAway(d hostabi.Digest, size int64, l *logs, del *deleter) (gone bool, err error) {
	var now int64
	var taken, back bool // by us
	err = s.inTrash(func(trash string) error {
		// Taken before the rename, as the time of a put is taken after its rename: so the later record is
		// the one that is true.
		now = s.now().UnixNano()
		if err := s.fs.Rename(s.entry(d), trash); err != nil {
			if _, lerr := s.fs.Lstat(s.entry(d)); errors.Is(lerr, fs.ErrNotExist) {
				gone = true // somebody else did it
				return nil
			}
			return err
		}
		l.read()
		if l.leased(sumOf(d)) || s.pinned(d) {
			if err := s.fs.Rename(trash, s.entry(d)); err != nil {
				del.add(trash) // put again meanwhile: ours is not needed
			}
			back = true
			return nil
		}
		gone, taken = true, true
		del.add(trash)
		return nil
	})
	if err != nil {
		s.log.Debug("entry cannot be evicted", "digest", d, "error", err)
	}
	switch {
	case taken:
		s.logged(&record{kind: recordDelete, digest: sumOf(d), size: size, time: now})
	case back: // who did not find it meanwhile took it for gone
		if e, size, ok := s.measure(d); ok {
			s.logged(putRecord(d, size, e.disk, s.now().UnixNano(), e.expires))
		}
	}
	return gone, err
}

// drop evicts one entry now, unless it is in use.
func (s *Store) drop(ctx context.Context, d hostabi.Digest) error {
	if ctx.Err() != nil {
		return ctxError(ctx)
	}
	var size int64
	if fi, err := s.fs.Lstat(s.blob(d)); err == nil {
		size = fi.Size()
	}
	s.dropping.Lock() // its logs are read on from where the last one ended
	defer s.dropping.Unlock()
	if s.leases == nil {
		s.leases = s.newLogs(math.MaxInt64) // no puts and deletes
	}
	l := s.leases
	l.read()
	if l.leased(sumOf(d)) {
		return nil
	}
	del := newDeleter(s.fs)
	_, err := s.takeAway(d, size, l, del)
	del.wait(ctx)
	return s.fail(err)
}

// withSpace repeats do once after freeing space when the disk is full. do begins at its beginning then.
func (s *Store) withSpace(need int64, do func() error) error {
	err := do()
	if !isFull(err) {
		return err
	}
	s.freeSpace(need)
	return do()
}

// freeSpace evicts when the disk is full, also below MaxSize.
func (s *Store) freeSpace(need int64) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.gc(ctx, gcOptions{wait: true, need: max(need, 1)}); err != nil {
		s.log.Debug("disk is full and the cache was not cleaned", "error", err) // the next try tells whether there is room
	}
}

// Evict runs gc without a time limit and yields what was evicted. The zero options evict all that nobody
// pins or uses; MaxBytes leaves so many disk bytes, OlderThan spares what was used since; Policy is what Close would
// do. Eviction is over when the first result is yielded.
func (s *Store) Evict(ctx context.Context, o hostabi.EvictOptions) hostabi.Seq2[hostabi.BlobInfo] {
	return func(yield func(hostabi.BlobInfo, error) bool) {
		if _, err := s.fs.Lstat(s.artifacts()); errors.Is(err, fs.ErrNotExist) {
			return // nothing there, and nothing to create for that
		}
		var evicted []hostabi.BlobInfo
		c := gcOptions{wait: true, dry: o.DryRun, told: func(b hostabi.BlobInfo) { evicted = append(evicted, b) }}
		if !o.Policy {
			c.evict = &o
		}
		err := s.gc(ctx, c)
		for _, b := range evicted {
			if !yield(b, nil) {
				return
			}
		}
		if err != nil {
			yield(hostabi.BlobInfo{}, s.fail(err))
		}
	}
}

// Usage is the size of the cache: exact after gc, before that what snapshot and logs say.
func (s *Store) Usage(ctx context.Context) (hostabi.CacheUsage, error) {
	if ctx.Err() != nil {
		return hostabi.CacheUsage{}, ctxError(ctx)
	}
	x, _, _ := s.load(false)
	u := hostabi.CacheUsage{Entries: int64(len(x.entries)), Bytes: x.bytes, DiskBytes: x.disk, MaxBytes: s.o.MaxSize}
	for d := range s.allPins() {
		if fi, err := s.fs.Lstat(s.blob(d.digest())); err == nil {
			u.PinnedBytes += fi.Size()
		}
	}
	return u, nil
}

// deleter removes trash in the background: a rename is quick, removing files is not. Beside the write-back it is
// the only goroutine of this package that is not waited for within one statement; wait joins it.
type deleter struct {
	fs    atomicfile.FS
	wg    sync.WaitGroup
	queue chan string
	quit  chan struct{}
}

func newDeleter(f atomicfile.FS) *deleter {
	d := &deleter{fs: f, queue: make(chan string, 1024), quit: make(chan struct{})}
	d.wg.Go(func() {
		for name := range d.queue {
			select {
			case <-d.quit: // the rest is for the next gc
			default:
				_ = atomicfile.RemoveAll(f, name) // what stays is in the trash of this run
			}
		}
	})
	return d
}

func (d *deleter) add(name string) { d.queue <- name }

// wait removes what is queued until ctx ends.
func (d *deleter) wait(ctx context.Context) {
	close(d.queue)
	stop := context.AfterFunc(ctx, func() { close(d.quit) })
	d.wg.Wait()
	stop()
}

func doneCtx() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// isTemp tells temporary files of writeFile and atomicfile.Write.
func isTemp(name string) bool { return strings.HasSuffix(name, atomicfile.TempSuffix) }
