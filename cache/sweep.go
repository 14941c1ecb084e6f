package cache

import (
	"cmp"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

const (
	keepPrefix     = 7 * 24 * time.Hour
	keepQuarantine = 7 * 24 * time.Hour
	maxQuarantine  = 1 << 30 // bytes
	keepRef        = 30 * 24 * time.Hour
	keepClaim      = 24 * time.Hour // without an entry
	keepTemp       = time.Hour
)

// sweep removes what nobody comes back for. All of it may fail: the next gc tries again.
func (c *collector) sweep() {
	for _, step := range []func(){c.prefixes, c.quarantine, c.expiredPins, c.oldRefs, c.staleClaims, c.tempFiles} {
		if c.ctx.Err() != nil {
			return
		}
		step()
	}
}

// older reports whether the file was last changed before age; false if it is gone.
func (c *collector) older(name string, age time.Duration) bool {
	fi, err := c.s.fs.Lstat(name)
	return err == nil && c.now.Sub(fi.ModTime()) > age
}

func (c *collector) names(dir string) []string {
	names, _ := c.s.fs.ReadDir(dir) // none if it is missing
	slices.Sort(names)
	return names
}

// prefixes removes staging that nobody resumed, and lock files that a kill left.
func (c *collector) prefixes() {
	s := c.s
	for _, n := range c.names(s.internal("flight")) {
		hash, lock := strings.CutSuffix(n, ".lock")
		d := hostabi.Digest("sha256:" + hash)
		if name := filepath.Join(s.internal("flight"), n); strings.HasSuffix(n, trashSuffix) && c.older(name, keepTemp) {
			_ = atomicfile.RemoveAll(s.fs, name) // of a process that was killed
		}
		if !d.Valid() {
			continue
		}
		if !lock && !c.abandoned(d) {
			continue
		}
		if _, err := s.fs.Lstat(s.flight(d)); lock && err == nil {
			continue // goes with its prefix
		}
		unlock, err := s.fs.Lock(doneCtx(), s.flightLock(d))
		if err != nil {
			continue // in use
		}
		if !lock {
			_ = atomicfile.RemoveAll(s.fs, s.flight(d))
		}
		_ = s.fs.Remove(s.flightLock(d))
		_ = unlock()
	}
}

// abandoned reports whether nothing was added to a staged prefix for a week.
func (c *collector) abandoned(d hostabi.Digest) bool {
	name := filepath.Join(c.s.flight(d), "blob")
	if _, err := c.s.fs.Lstat(name); err != nil {
		name = c.s.flight(d)
	}
	return c.older(name, keepPrefix)
}

func (c *collector) quarantine() {
	type damaged struct {
		name string
		time int64
	}
	var all []damaged
	for _, n := range c.names(c.s.quarantined()) {
		_, ms, _ := strings.Cut(n, "-")
		t, _ := strconv.ParseInt(ms, 10, 64) // zero = oldest
		all = append(all, damaged{filepath.Join(c.s.quarantined(), n), t})
	}
	slices.SortFunc(all, func(a, b damaged) int { return cmp.Compare(b.time, a.time) }) // newest first
	var total int64
	for _, q := range all {
		if fi, err := c.s.fs.Lstat(filepath.Join(q.name, "blob")); err == nil {
			total += atomicfile.DiskBytes(fi)
		}
		if total > maxQuarantine || c.now.Sub(time.UnixMilli(q.time)) > keepQuarantine {
			_ = atomicfile.RemoveAll(c.s.fs, q.name)
		}
	}
}

func (c *collector) expiredPins() {
	for _, n := range c.names(c.s.pins()) {
		dir := filepath.Join(c.s.pins(), n)
		for _, owner := range c.names(dir) {
			if pin := filepath.Join(dir, owner); c.older(pin, 0) {
				_ = c.s.fs.Remove(pin)
			}
		}
		c.removeEmpty(dir)
	}
}

// removeEmpty removes a directory that is empty, but not one that somebody may have made to write into it.
func (c *collector) removeEmpty(dir string) {
	if c.older(dir, keepTemp) {
		_ = c.s.fs.Remove(dir) // refused while something is in it
	}
}

func (c *collector) oldRefs() {
	for _, n := range c.names(c.s.refs()) {
		if name := filepath.Join(c.s.refs(), n); c.older(name, keepRef) || isTemp(n) && c.older(name, keepTemp) {
			_ = c.s.fs.Remove(name)
		}
	}
}

func (c *collector) staleClaims() {
	for _, owner := range c.names(c.s.owners()) {
		dir := filepath.Join(c.s.owners(), owner)
		for _, n := range c.names(dir) {
			d, _, ok := parseClaim(n)
			if ok {
				_, ok = c.x.find(sumOf(d))
			}
			if name := filepath.Join(dir, n); !ok && c.older(name, keepClaim) {
				if _, err := c.s.fs.Lstat(c.s.entry(d)); err != nil {
					_ = c.s.fs.Remove(name)
				}
			}
		}
		c.removeEmpty(dir)
	}
}

func (c *collector) tempFiles() {
	for _, dir := range []string{c.s.dir, c.s.internal("")} {
		for _, n := range c.names(dir) {
			if name := filepath.Join(dir, n); isTemp(n) && c.older(name, keepTemp) {
				_ = c.s.fs.Remove(name)
			}
		}
	}
}
