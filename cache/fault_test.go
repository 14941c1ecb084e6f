package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/delivery-station/ds/cache"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/internal/atomicfile/faulttest"
)

// The blobs of the scenarios: what is there before, and what comes.
func before() [][]byte { return [][]byte{content(1, 9000), content(2, 100), content(3, 5000)} }
func fresh() []byte    { return content(4, 10_000) }
func private() []byte  { return content(5, 6000) }

const (
	oldRef = "ghcr.io/a/b:old"
	newRef = "ghcr.io/a/b:new"
)

// scenario runs do with a store on the faulty file system, which is closed in the end. change adds options.
func scenario(name string, setup func(h *harness), change func(o *cache.Options), do func(ctx context.Context, s *cache.Store, ack func(string)) error) faulttest.Scenario {
	options := func(f atomicfile.FS, dir string) cache.Options {
		o := cache.Options{Dir: filepath.Join(dir, "cache"), FS: f, BootID: "boot-1", AutoClean: true}
		if change != nil {
			change(&o)
		}
		return o
	}
	durable := options(nil, "").Durable
	return faulttest.Scenario{
		Name: name,
		Setup: func(t *testing.T, f atomicfile.FS, dir string) {
			h := newStore(t, options(f, dir))
			h.dir = h.o.Dir
			for _, b := range before() {
				h.put(h.s, b, true, 0)
			}
			h.must(h.s.SetRef(t.Context(), oldRef, hostabi.Descriptor{Digest: hostabi.DigestOf(before()[0])}))
			if setup != nil {
				setup(h)
			}
			h.must(h.s.Close())
		},
		Run: func(ctx context.Context, f atomicfile.FS, dir string, ack func(string)) error {
			s, err := cache.Open(ctx, options(f, dir))
			if err != nil {
				return err
			}
			return errors.Join(do(ctx, s, ack), s.Close())
		},
		Check: func(t *testing.T, r faulttest.Result) { survived(t, r, durable) },
	}
}

// survived checks the invariants of reliability.md section 3 as the next process.
func survived(t *testing.T, r faulttest.Result, durable bool) {
	t.Helper()
	boot := "boot-1"
	if r.Cut {
		boot = "boot-2"
	}
	h := newStore(t, cache.Options{Dir: filepath.Join(r.Dir, "cache"), FS: r.FS, BootID: boot, AutoClean: true, Durable: durable})
	h.dir = h.o.Dir
	h.honest(r.Err)
	h.whole(r.Cut)
	known := append(before(), fresh(), private())
	for _, b := range known { // I1
		h.rightOrMissing(b)
	}
	for _, item := range r.Acked { // I3
		if !r.Cut || durable {
			h.kept(item)
		}
	}
	if d, _, err := h.s.Ref(t.Context(), oldRef); !r.Cut && (err != nil || d.Digest != hostabi.DigestOf(before()[0])) { // I4
		t.Errorf("the reference that was there: %+v, %v", d, err)
	}
	h.goesOn(known)
	h.must(h.s.Close())
	h.at(2 * time.Minute) // a run directory without a lock is given a minute
	h.s = h.another()
	h.evict(hostabi.EvictOptions{ExpiredOnly: true})
	h.clean()
	h.must(h.s.Close())
}

// honest: an error has a reason and keeps its errno.
func (h *harness) honest(err error) {
	h.Helper()
	if err != nil && hostabi.ReasonOf(err) == "" {
		h.Errorf("Run: an error without a reason: %v", err)
	}
}

// whole is I2: entries have both files. After a power cut half an entry is a miss.
func (h *harness) whole(cut bool) {
	h.Helper()
	for _, e := range readNames(h.T, filepath.Join(h.dir, "artifacts")) {
		for _, n := range []string{"blob", "metadata.json"} {
			if _, err := os.Lstat(filepath.Join(h.dir, "artifacts", e, n)); err != nil && !cut {
				h.Errorf("half entry: %v", err)
			}
		}
	}
}

// rightOrMissing is I1: what Open answers is exactly the blob, anything else is a miss.
func (h *harness) rightOrMissing(want []byte) {
	h.Helper()
	f, err := h.s.Open(h.Context(), hostabi.DigestOf(want))
	if err != nil {
		h.want(err, hostabi.ReasonNotCached)
		return
	}
	defer func() { _ = f.Close() }()
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, want) {
		h.Errorf("%s has %d other bytes, %v", hostabi.DigestOf(want), len(got), err)
	}
}

// kept looks for what was acknowledged.
func (h *harness) kept(item string) {
	h.Helper()
	ctx := h.Context()
	switch item {
	case "put":
		h.has(hostabi.DigestOf(fresh()), fresh())
	case "sink":
		h.has(hostabi.DigestOf(private()), private())
		if !h.s.Owned(ctx, "porter", hostabi.DigestOf(private()), int64(len(private()))) {
			h.Error("the claim is lost")
		}
	case "ref":
		if d, _, err := h.s.Ref(ctx, newRef); err != nil || d.Digest != hostabi.DigestOf(before()[1]) {
			h.Errorf("the new reference: %+v, %v", d, err)
		}
	case "pin":
		if info, err := h.s.Stat(ctx, hostabi.DigestOf(before()[0])); err != nil || !info.Pinned {
			h.Errorf("pin is lost: %+v, %v", info, err)
		}
	case "unpin":
		if info, err := h.s.Stat(ctx, hostabi.DigestOf(before()[0])); err != nil || info.Pinned {
			h.Errorf("still pinned: %+v, %v", info, err)
		}
	case "remove", "evict":
		h.lacks(hostabi.DigestOf(before()[2]))
	}
}

// goesOn is I7: the next command of each kind works.
func (h *harness) goesOn(known [][]byte) {
	h.Helper()
	ctx := h.Context()
	for _, b := range known {
		_, err := fetch(ctx, h.s, b, 4000)
		if hostabi.ReasonOf(err) == hostabi.ReasonDigestMismatch { // a torn prefix; pulls begin again too
			_, err = fetch(ctx, h.s, b, 4000)
		}
		if err != nil {
			h.Errorf("next fetch: %v", err)
		}
		h.has(hostabi.DigestOf(b), b)
	}
	v := h.s.View("porter", "")
	h.put(v, content(9, 300), false, 0)
	h.must(v.Close())
	h.must(h.s.SetRef(ctx, newRef, hostabi.Descriptor{Digest: hostabi.DigestOf(known[0])}))
	h.must(h.s.Pin(ctx, hostabi.DigestOf(known[0]), "porter", time.Now().Add(time.Hour)))
	for v, err := range h.s.Verify(ctx, nil, false) {
		if err != nil || !v.OK {
			h.Errorf("verify: %+v, %v", v, err)
		}
	}
}

// clean is I6 and I8: after one gc nothing of the dead is left, the sums are right, and modes are as documented.
func (h *harness) clean() {
	h.Helper()
	if left, _ := filepath.Glob(filepath.Join(h.dir, ".ds/run/*/*")); len(left) > 1 { // our log
		h.Errorf("left by the dead: %v", left)
	}
	h.exact()
	if p, err := h.s.Check(h.Context(), false); err != nil || len(p) > 0 {
		h.Errorf("problems %v, %v", p, err)
	}
	err := filepath.WalkDir(h.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && fi.Mode().Perm()&0o077 != 0 {
			h.Errorf("%s has mode %v", path, fi.Mode())
		}
		return err
	})
	if err != nil {
		h.Error(err)
	}
}

func putFresh(ctx context.Context, s *cache.Store, ack func(string)) error {
	_, err := fetch(ctx, s, fresh(), 4000)
	if err == nil {
		ack("put")
	}
	return err
}

func putPrivate(ctx context.Context, s *cache.Store, ack func(string)) error {
	v := s.View("porter", "")
	w, err := v.Create(ctx, hostabi.Descriptor{})
	if err != nil {
		return errors.Join(err, v.Close())
	}
	for c := range slices.Chunk(private(), 4000) {
		if _, err := w.Write(c); err != nil {
			return errors.Join(err, w.Abort(), v.Close())
		}
	}
	if _, err := w.Commit(ctx); err != nil {
		return errors.Join(err, v.Close())
	}
	ack("sink")
	return v.Close()
}

func evictAll(ctx context.Context, s *cache.Store, ack func(string)) error {
	for _, err := range s.Evict(ctx, hostabi.EvictOptions{}) {
		if err != nil {
			return err
		}
	}
	ack("evict")
	return nil
}

// corrupted opens a blob that was damaged in place.
func corrupted(ctx context.Context, s *cache.Store, ack func(string)) error {
	f, err := s.Open(ctx, hostabi.DigestOf(before()[0]))
	if err == nil {
		return errors.Join(errors.New("a damaged blob was opened"), f.Close())
	}
	if hostabi.ReasonOf(err) != hostabi.ReasonNotCached {
		return err
	}
	_, err = fetch(ctx, s, before()[0], 4000)
	return err
}

func scenarios() []faulttest.Scenario {
	old := hostabi.DigestOf(before()[0])
	return []faulttest.Scenario{
		scenario("put", nil, nil, putFresh),
		scenario("durable", nil, func(o *cache.Options) { o.Durable = true }, putFresh),
		scenario("sink", nil, nil, putPrivate),
		scenario("resume", func(h *harness) {
			w, err := h.s.Create(h.Context(), hostabi.Descriptor{Digest: hostabi.DigestOf(fresh()), Size: int64(len(fresh()))})
			h.must(err)
			_, err = w.Write(fresh()[:4500])
			h.must(errors.Join(err, w.Abort()))
		}, nil, putFresh),
		scenario("ref", nil, nil, func(ctx context.Context, s *cache.Store, ack func(string)) error {
			err := s.SetRef(ctx, newRef, hostabi.Descriptor{Digest: hostabi.DigestOf(before()[1])})
			if err == nil {
				ack("ref")
			}
			return err
		}),
		scenario("pin", nil, nil, func(ctx context.Context, s *cache.Store, ack func(string)) error {
			err := s.Pin(ctx, old, "porter", time.Now().Add(time.Hour))
			if err == nil {
				ack("pin")
			}
			return err
		}),
		scenario("unpin", func(h *harness) { h.must(h.s.Pin(h.Context(), old, "porter", time.Now().Add(time.Hour))) }, nil,
			func(ctx context.Context, s *cache.Store, ack func(string)) error {
				err := s.Pin(ctx, old, "porter", time.Time{})
				if err == nil {
					ack("unpin")
				}
				return err
			}),
		scenario("remove", nil, nil, func(ctx context.Context, s *cache.Store, ack func(string)) error {
			err := s.Remove(ctx, "", hostabi.DigestOf(before()[2]))
			if err == nil {
				ack("remove")
			}
			return err
		}),
		scenario("evict", nil, nil, evictAll),
		scenario("gc", func(h *harness) {
			for _, b := range before() {
				h.age(hostabi.DigestOf(b), time.Hour)
			}
		}, func(o *cache.Options) { o.MaxSize = 20_000 }, putFresh),
		scenario("damaged", func(h *harness) {
			h.must(os.Chmod(h.blob(old), 0o600))
			h.must(os.WriteFile(h.blob(old), []byte("something else"), 0o400))
			h.must(os.Chmod(h.blob(old), 0o400))
		}, nil, corrupted),
		scenario("restamp", func(h *harness) { h.age(old, 2*time.Hour) }, func(o *cache.Options) { o.BootID = "another boot" },
			func(ctx context.Context, s *cache.Store, _ func(string)) error {
				_, err := s.Stat(ctx, old)
				return err
			}),
	}
}

// R2 of reliability.md: each operation of the file system fails, or the process dies there.
func TestR2_Cache(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.Name, func(t *testing.T) { faulttest.Loop(t, s) })
	}
}

// R3 of reliability.md: the power is cut, what was not synced may be lost.
func TestR3_Cache(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.Name, func(t *testing.T) { faulttest.Cuts(t, s, faulttest.Scale(2, 20, 200)) })
	}
}

var _ = fmt.Sprint
