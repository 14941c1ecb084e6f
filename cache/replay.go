package cache

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

// logs follows the logs of all processes: what they put and deleted, and what is leased now.
type logs struct {
	s      *Store
	since  int64            // records before that are in the snapshot
	at     map[string]int64 // per run directory: bytes that are done with
	latest map[sum]record   // the last put or delete of a digest
	leases map[string]map[uint16]map[sum]struct{}
	ended  map[string]bool // run directories whose process ended in order: its log is complete
	gaps   bool            // a log could not be read
}

func (s *Store) newLogs(since int64) *logs {
	return &logs{
		s: s, since: since, at: make(map[string]int64), latest: make(map[sum]record),
		leases: make(map[string]map[uint16]map[sum]struct{}), ended: make(map[string]bool),
	}
}

// read takes in what was appended since the last call.
func (l *logs) read() {
	dirs, err := l.s.runDirs()
	l.missed(err)
	if err == nil {
		maps.DeleteFunc(l.leases, func(dir string, _ map[uint16]map[sum]struct{}) bool { return !slices.Contains(dirs, dir) })
	}
	for _, dir := range dirs {
		name, at := filepath.Join(dir, "log"), l.at[dir]
		fi, err := l.s.fs.Lstat(name)
		if err == nil && fi.Size()-at < recordLen {
			continue // nothing new
		}
		var f atomicfile.File
		if err == nil {
			f, err = l.s.fs.Open(name, os.O_RDONLY, 0)
		}
		if err != nil {
			l.missed(err)
			continue
		}
		b, err := io.ReadAll(io.NewSectionReader(f, at, math.MaxInt64-at))
		_ = f.Close() // read only
		l.missed(err)
		l.at[dir] = at + readRecords(b, func(r *record) { l.take(dir, r) })
	}
}

// missed notes that a log could not be read, unless it is gone: its process ended meanwhile.
func (l *logs) missed(err error) {
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.gaps = true
	}
}

func (l *logs) take(dir string, r *record) {
	views := l.leases[dir]
	switch r.kind {
	case recordPut, recordDelete:
		old, ok := l.latest[r.digest]
		if r.time >= l.since && (!ok || r.time > old.time || r.time == old.time && r.kind == recordDelete) {
			l.latest[r.digest] = *r
		}
	case recordLease:
		if views == nil {
			views = make(map[uint16]map[sum]struct{})
			l.leases[dir] = views
		}
		if views[r.view] == nil {
			views[r.view] = make(map[sum]struct{})
		}
		views[r.view][r.digest] = struct{}{}
	case recordRelease:
		delete(views, r.view)
		l.ended[dir] = r.view == 0
	}
}

// leased reports whether a view of a live process holds d.
func (l *logs) leased(d sum) bool {
	for _, views := range l.leases {
		for _, digests := range views {
			if _, ok := digests[d]; ok {
				return true
			}
		}
	}
	return false
}

// forget drops a process that is dead.
func (l *logs) forget(dir string) { delete(l.leases, dir) }

// merge brings what the logs say into the index.
func (l *logs) merge(x *index) (changes int) {
	var fresh []entryInfo
	for d, r := range l.latest {
		i, ok := x.find(d)
		switch {
		case r.kind == recordPut && ok:
			e := &x.entries[i]
			x.disk += r.disk - e.disk
			e.disk, e.expires, e.used = r.disk, r.expires, max(e.used, r.time)
		case r.kind == recordPut:
			fresh = append(fresh, entryInfo{digest: d, disk: r.disk, used: r.time, expires: r.expires})
			x.disk += r.disk
			x.bytes += r.size
			changes++
		case ok:
			x.disk -= x.entries[i].disk
			x.bytes -= r.size
			x.unsure = x.unsure || r.size == 0
			x.entries[i].disk = -1 // dropped below
			changes++
		}
	}
	x.drop()
	x.add(fresh)
	return changes
}

// drop removes the entries that were marked by a negative size.
func (x *index) drop() {
	x.entries = slices.DeleteFunc(x.entries, func(e entryInfo) bool { return e.disk < 0 })
}

func (x *index) add(fresh []entryInfo) {
	if len(fresh) == 0 {
		return
	}
	x.entries = append(x.entries, fresh...)
	slices.SortFunc(x.entries, func(a, b entryInfo) int { return bytes.Compare(a.digest[:], b.digest[:]) })
}

// load builds the index from snapshot and logs, and from the files if the snapshot is bad or was not compared
// with them for a day. changes counts the entries that the snapshot does not have right.
func (s *Store) load(always bool) (x *index, l *logs, changes int) {
	now := s.now().UnixNano()
	x, err := s.loadSnapshot()
	if err != nil || x.time > now {
		x, always = &index{}, true
	}
	l = s.newLogs(x.time)
	l.read()
	changes = l.merge(x)
	if always || l.gaps || now-x.reconcile > int64(24*time.Hour) {
		changes += s.reconcile(x)
		x.reconcile = now
	}
	if x.unsure {
		s.recount(x)
	}
	x.time = now
	return x, l, changes
}

// reconcile lists the files: it adds entries that the index lacks and drops those that the disk lacks.
func (s *Store) reconcile(x *index) (changes int) {
	names, err := s.fs.ReadDir(s.artifacts())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	seen := make([]bool, len(x.entries))
	var fresh []entryInfo
	for _, n := range names {
		d := hostabi.Digest("sha256:" + n)
		if !d.Valid() {
			continue
		}
		if i, ok := x.find(sumOf(d)); ok {
			seen[i] = true
			continue
		}
		if e, _, ok := s.measure(d); ok {
			fresh = append(fresh, e)
		}
	}
	for i, ok := range seen {
		if !ok {
			x.entries[i].disk = -1
			changes++
		}
	}
	x.drop()
	x.add(fresh)
	if changes += len(fresh); changes > 0 {
		s.recount(x)
	}
	return changes
}

// recount takes sizes from the files: an entry that vanished without a record leaves the sums unknown. One that is
// away just now counts as gone: if it comes back, that has a record.
func (s *Store) recount(x *index) {
	x.disk, x.bytes, x.unsure = 0, 0, false
	for i := range x.entries {
		e := &x.entries[i]
		if fi, err := s.fs.Lstat(s.blob(e.digest.digest())); err == nil {
			x.bytes += fi.Size()
		} else if _, err := s.fs.Lstat(s.entry(e.digest.digest())); errors.Is(err, fs.ErrNotExist) {
			e.disk = -1 // half of an entry stays, so that gc evicts it
			continue
		}
		x.disk += e.disk
	}
	x.drop()
}

// measure is the index entry of d as its files say, and the size of its blob.
func (s *Store) measure(d hostabi.Digest) (e entryInfo, size int64, ok bool) {
	dir, err := s.fs.Lstat(s.entry(d))
	if err != nil || !dir.IsDir() {
		return e, 0, false
	}
	e = entryInfo{digest: sumOf(d), used: dir.ModTime().UnixNano()}
	for _, name := range []string{s.blob(d), s.meta(d)} {
		if fi, err := s.fs.Lstat(name); err == nil { // a half entry counts too: gc evicts it
			e.disk += atomicfile.DiskBytes(fi)
			if name == s.blob(d) {
				size = fi.Size()
			}
		}
	}
	if h, err := s.readHead(d); err == nil {
		e.expires = unixSeconds(h.expires)
	}
	return e, size, true
}
