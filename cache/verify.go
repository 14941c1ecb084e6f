package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

// Verify hashes blobs, all of them if ds is empty, with a reader per processor and yields a verdict for each
// in any order. With repair a damaged blob goes into quarantine; without it stays for the caller to see, and
// is still refused by Open. Blobs that are not there are yielded as a problem only if they were asked for.
func (s *Store) Verify(ctx context.Context, ds []hostabi.Digest, repair bool) hostabi.Seq2[hostabi.Verdict] {
	return func(yield func(hostabi.Verdict, error) bool) {
		asked := len(ds) > 0
		if !asked {
			var err error
			if ds, err = s.listed(""); err != nil {
				yield(hostabi.Verdict{}, err)
				return
			}
		}
		for _, d := range ds {
			if err := badDigest(d); err != nil {
				yield(hostabi.Verdict{}, err)
				return
			}
		}
		stop, cancel := context.WithCancel(ctx)
		verdicts := s.verdicts(stop, ds, asked, repair)
		more := true
		for v := range verdicts { // to the end in any case: then all readers are gone
			if more && !yield(v, nil) {
				more = false
				cancel()
			}
		}
		cancel()
		if more && ctx.Err() != nil {
			yield(hostabi.Verdict{}, ctxError(ctx))
		}
	}
}

// verdicts hashes ds with a reader per processor until ctx ends. The channel closes when all readers are done.
func (s *Store) verdicts(ctx context.Context, ds []hostabi.Digest, asked, repair bool) <-chan hostabi.Verdict {
	out := make(chan hostabi.Verdict)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(ds)) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(ds) {
					return
				}
				v, ok := s.verdict(ctx, ds[i], asked, repair)
				if !ok {
					continue
				}
				select {
				case out <- v:
				case <-ctx.Done():
				}
			}
		})
	}
	go func() {
		wg.Wait()
		close(out)
	}()
	return out
}

// verdict hashes one blob; ok is false if there is nothing to say.
func (s *Store) verdict(ctx context.Context, d hostabi.Digest, asked, repair bool) (v hostabi.Verdict, ok bool) {
	v.Digest = d
	f, id, err := s.identify(d, true)
	if err != nil {
		v.Problem = "blob is missing"
		return v, asked
	}
	defer func() { _ = f.Close() }() // read only
	right, err := s.right(ctx, f, d, "always")
	switch {
	case ctx.Err() != nil:
		return v, false
	case err != nil:
		v.Problem = "blob cannot be read"
		return v, true
	case right:
		v.OK = true
		if h, err := s.readHead(d); err == nil && !s.stamped(h.stamp, d, id) {
			s.restamp(f, d, id)
		}
		return v, true
	}
	v.Problem = "content does not have this digest"
	if fi, err := f.Stat(); err == nil && repair {
		s.quarantine(d, fi, "blob", "does not have its digest")
	}
	return v, true
}

// Check compares the cache with what cache.md promises: modes, whole entries, no leftovers of dead processes,
// logs that agree with the files. With repair it mends what it finds; that needs the right to write.
func (s *Store) Check(ctx context.Context, repair bool) ([]atomicfile.Problem, error) {
	if _, err := s.fs.Lstat(s.dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err := s.checkRoot(); err != nil {
		return nil, err
	}
	k := &checker{s: s, repair: repair}
	k.modes()
	k.entries(ctx)
	k.runs()
	k.index(ctx)
	if ctx.Err() != nil {
		return k.found, ctxError(ctx)
	}
	return k.found, nil
}

type checker struct {
	s      *Store
	repair bool
	found  []atomicfile.Problem
}

func (k *checker) problem(path, what string, mend func() error) {
	p := atomicfile.Problem{Path: path, What: what, Fix: "ds doctor cache --fix"}
	if k.repair && mend != nil {
		if err := mend(); err != nil {
			p.What += fmt.Sprintf(" (not repaired: %v)", err)
		} else {
			p.What, p.Fix = what+" (repaired)", ""
		}
	}
	k.found = append(k.found, p)
}

func (k *checker) modes() {
	if runtime.GOOS == "windows" {
		return
	}
	for _, dir := range []string{k.s.dir, k.s.artifacts(), k.s.internal("")} {
		if fi, err := k.s.fs.Lstat(dir); err == nil && fi.IsDir() && atomicfile.Unsafe(fi) != "" {
			k.problem(dir, "directory "+atomicfile.Unsafe(fi), nil)
		}
	}
}

// entries finds what in artifacts/ is no entry, and entries that lack a file or have one that does not belong.
func (k *checker) entries(ctx context.Context) {
	s := k.s
	names, _ := s.fs.ReadDir(s.artifacts()) // none if it is missing
	for _, n := range names {
		if ctx.Err() != nil {
			return
		}
		path := filepath.Join(s.artifacts(), n)
		d := hostabi.Digest("sha256:" + n)
		if !d.Valid() {
			k.problem(path, "is not named by a digest", nil)
			continue
		}
		files, err := s.fs.ReadDir(path)
		if err != nil {
			continue // evicted meanwhile
		}
		have := make(map[string]bool, 2)
		for _, f := range files {
			have[f] = true
			if f == "blob" || f == "metadata.json" {
				continue
			}
			k.problem(filepath.Join(path, f), "does not belong into an entry", func() error { return atomicfile.RemoveAll(s.fs, filepath.Join(path, f)) })
		}
		if !have["blob"] || !have["metadata.json"] {
			if _, err := s.fs.Lstat(path); err != nil {
				continue // evicted meanwhile
			}
			k.problem(path, "lacks a file", func() error { return s.discard(path) })
			continue
		}
		if fi, err := s.fs.Lstat(s.blob(d)); err == nil && (!fi.Mode().IsRegular() || runtime.GOOS != "windows" && fi.Mode().Perm()&0o222 != 0) {
			k.problem(s.blob(d), "is no read-only file", nil)
		}
	}
}

// runs finds what killed processes left.
func (k *checker) runs() {
	s := k.s
	dirs, err := s.runDirs()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.problem(s.runs(), "cannot be read", nil)
	}
	for _, dir := range dirs {
		unlock := s.lockDead(dir)
		if unlock == nil {
			continue
		}
		names, _ := s.fs.ReadDir(dir)
		for _, n := range names {
			if n != "log" && n != lockName() {
				k.problem(dir, "was left by a process that was killed", func() error { return cleanRun(s.fs, dir, false) })
				break
			}
		}
		_ = unlock()
	}
}

// index compares snapshot and logs with the files.
func (k *checker) index(ctx context.Context) {
	s := k.s
	x, err := s.loadSnapshot()
	if err != nil {
		return // rebuilt by the next gc
	}
	l := s.newLogs(x.time)
	l.read()
	l.merge(x)
	disk := x.disk
	if s.reconcile(x) == 0 && disk == x.disk {
		return
	}
	k.problem(s.snapshotFile(), "disagrees with the files", func() error {
		if err := s.fs.Remove(s.snapshotFile()); err != nil {
			return err
		}
		return s.gc(ctx, gcOptions{wait: true})
	})
}
