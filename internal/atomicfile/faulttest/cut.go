package faulttest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/delivery-station/ds/internal/atomicfile"
)

// page is what a disk writes as a whole.
const page = 4096

// Cut builds in dir what may be left when the power is cut after the first op changes; seed picks one of the
// possibilities. Names are there in the order in which they were made, up to some point that is not before the last
// SyncDir that covers them. Of bytes since the last Sync each page is kept, old, zero or missing. What was synced
// is there. The file system that it returns answers for each file the inode and times that it had before.
func (r *Recorder) Cut(op int, seed uint64, dir string) (atomicfile.FS, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	random := rand.New(rand.NewPCG(seed, uint64(op)))
	log := r.log[:op]
	least := 0
	for at, c := range log {
		if c.kind != syncDir {
			continue
		}
		for i := at - 1; i >= least; i-- {
			if log[i].names(c.path) {
				least = i + 1
				break
			}
		}
	}
	prefix := least + random.IntN(len(log)-least+1)
	names := maps.Clone(r.first)
	modes, times := make(map[*node]fs.FileMode), make(map[*node]time.Time)
	for _, c := range log[:prefix] {
		apply(names, c)
		switch c.kind {
		case setMode:
			modes[c.node] = c.mode
		case setTime:
			times[c.node] = c.mtime
		}
	}
	return build(dir, names, log, modes, times, random)
}

// names reports whether c changed which names are in dir.
func (c change) names(dir string) bool {
	switch c.kind {
	case makeNode, dropNode:
		return filepath.Dir(c.path) == dir
	case moveNode:
		return filepath.Dir(c.to) == dir
	}
	return false
}

func build(dir string, names map[string]*node, log []change, modes map[*node]fs.FileMode, times map[*node]time.Time, random *rand.Rand) (atomicfile.FS, error) {
	was := newMemory(atomicfile.OS())
	paths := slices.Sorted(maps.Keys(names)) // parents first
	for _, path := range paths {
		n, full := names[path], filepath.Join(dir, path)
		if n.dir {
			if err := os.Mkdir(full, 0o700); err != nil {
				return nil, err
			}
			continue
		}
		if err := os.WriteFile(full, survivors(n, log, random), 0o600); err != nil {
			return nil, err
		}
	}
	for _, path := range slices.Backward(paths) {
		n, full := names[path], filepath.Join(dir, path)
		mode, mtime := n.mode, n.mtime
		if n.info != nil {
			mtime = n.info.ModTime()
		}
		if m, ok := modes[n]; ok {
			mode = m
		}
		if t, ok := times[n]; ok {
			mtime = t
		}
		if err := errors.Join(os.Chtimes(full, mtime, mtime), os.Chmod(full, mode)); err != nil {
			return nil, err
		}
		if !n.dir && n.info != nil {
			if err := was.remember(full, n.info); err != nil {
				return nil, err
			}
		}
	}
	return was, nil
}

// survivors are the bytes of a file after the cut.
func survivors(n *node, log []change, random *rand.Rand) []byte {
	synced, now := n.data, slices.Clone(n.data)
	for _, c := range log {
		if c.node != n {
			continue
		}
		switch c.kind {
		case writeAt:
			now = resize(now, max(len(now), int(c.off)+len(c.data)))
			copy(now[c.off:], c.data)
		case truncate:
			now = resize(now, int(c.off))
		case syncFile:
			synced = slices.Clone(now)
		}
	}
	if bytes.Equal(synced, now) {
		return synced
	}
	size := len(now)
	if low, high := min(len(synced), len(now)), max(len(synced), len(now)); random.IntN(3) == 0 {
		size = low
		if at := low/page*page + random.IntN(high/page-low/page+1)*page; at > low && at < high && len(now) > len(synced) {
			size = at
		}
	} else if random.IntN(8) == 0 {
		size = (len(now)/page + 1) * page // more than was written
	}
	out := make([]byte, size)
	for at := 0; at < size; at += page {
		end := min(at+page, size)
		fresh, old := part(now, at, end), part(synced, at, end)
		switch {
		case bytes.Equal(fresh, old) || random.IntN(2) == 0:
			copy(out[at:end], fresh)
		default: // zeros where there was nothing
			copy(out[at:end], old)
		}
	}
	return out
}

func resize(b []byte, n int) []byte {
	if n <= len(b) {
		return b[:n]
	}
	return append(b, make([]byte, n-len(b))...)
}

func part(b []byte, from, to int) []byte { return b[min(from, len(b)):min(to, len(b))] }

// Cuts runs s once, cuts the power at so many moments, each time with what was not synced lost in another way, and
// checks what is left. Acknowledged is what Run had acknowledged at that moment.
func Cuts(t *testing.T, s Scenario, cuts int) {
	t.Helper()
	if os.Getenv(faultEnv) != "" {
		return // a child of Loop in the same test
	}
	dir := tempDir(t)
	defer func() { _ = removeAll(dir) }()
	s.Setup(t, atomicfile.OS(), dir)
	rec := Record(t, atomicfile.OS(), dir)
	type ack struct {
		item string
		at   int
	}
	var acks []ack
	if err := s.Run(t.Context(), rec, dir, func(item string) { acks = append(acks, ack{item, rec.Len()}) }); err != nil {
		t.Fatalf("%s without a cut: %v", s.Name, err)
	}
	random := rand.New(rand.NewPCG(Seed(t), 3))
	for i := range cuts {
		op, seed := i*(rec.Len()+1)/cuts, random.Uint64()
		if cuts > rec.Len() {
			op = i % (rec.Len() + 1)
		}
		left := tempDir(t)
		r := Result{Dir: left, Cut: true}
		var err error
		if r.FS, err = rec.Cut(op, seed, left); err != nil {
			t.Fatal(err)
		}
		for _, a := range acks {
			if a.at <= op {
				r.Acked = append(r.Acked, a.item)
			}
		}
		s.Check(t, r)
		if t.Failed() {
			t.Errorf("%s: cut after change %d of %d (%s)\nacknowledged: %q\ndirectory kept: %s", s.Name, op, rec.Len(), rec.describe(op), r.Acked, left)
			return
		}
		if err := removeAll(left); err != nil {
			t.Error(err)
		}
	}
	t.Logf("R3: %s %d cuts at %d changes ok", s.Name, cuts, rec.Len())
}

// describe tells the change before which, or after which, the power was cut.
func (r *Recorder) describe(op int) string {
	if op == 0 {
		return "before the first"
	}
	c := r.log[op-1]
	word := [...]string{"make", "rename", "remove", "chmod", "chtimes", "sync of directory", "sync", "write", "truncate"}[c.kind]
	return fmt.Sprint(word, " ", filepath.Base(c.path), " ", filepath.Base(c.to))
}
