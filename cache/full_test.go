package cache_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/delivery-station/ds/cache"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/internal/atomicfile/faulttest"
)

// diskSize is the disk of row R4.
const diskSize = 16 << 20

// filled is what filling a disk came to.
type filled struct{ fills, puts, refused int }

func (f filled) String() string {
	return fmt.Sprintf("%d fills with %d puts, %d refused for want of space", f.fills, f.puts, f.refused)
}

// fillDisk fills a small disk again and again: with blobs that gc may evict every put succeeds; with pinned ones one is
// refused as NO_SPACE, and the next command works when space returns.
// stuff takes the last bytes of the disk, so that nothing can be made any more, and returns what gives them back.
func fillDisk(ctx context.Context, o cache.Options, stuff func() (func() error, error), fills int, seed uint64) (f filled, err error) {
	random := rand.New(rand.NewPCG(seed, 4))
	for ; f.fills < fills; f.fills++ {
		if err := f.evictable(ctx, o, random); err != nil {
			return f, fmt.Errorf("fill %d, blobs that may go: %w", f.fills, err)
		}
		if err := f.pinned(ctx, o, stuff, random); err != nil {
			return f, fmt.Errorf("fill %d, blobs that are pinned: %w", f.fills, err)
		}
	}
	return f, nil
}

// some is a blob that did not exist before.
func some(random *rand.Rand) []byte { return content(random.Uint64(), 1+random.IntN(1<<20)) }

// evictable puts one and a half disks.
func (f *filled) evictable(ctx context.Context, o cache.Options, random *rand.Rand) error {
	s, err := cache.Open(ctx, o)
	if err != nil {
		return err
	}
	for written := 0; written < diskSize*3/2; f.puts++ {
		b := some(random)
		if f.puts%2 == 0 {
			_, err = fetch(ctx, s, b, 64<<10)
		} else {
			err = putOwned(ctx, s, b)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("put of %d bytes after %d: %w", len(b), written, err), s.Close())
		}
		if err := readBack(ctx, s, b); err != nil {
			return errors.Join(err, s.Close())
		}
		written += len(b)
	}
	return s.Close()
}

// pinned puts until the disk is full, checks what is there, and goes on when some of it is gone.
func (f *filled) pinned(ctx context.Context, o cache.Options, stuff func() (func() error, error), random *rand.Rand) error {
	var kept [][]byte
	full, err := f.untilFull(ctx, o, random, &kept)
	if err != nil {
		return err
	}
	if hostabi.ReasonOf(full) != hostabi.ReasonNoSpace || !errors.Is(full, syscall.ENOSPC) {
		return fmt.Errorf("a full disk answers %w, reason %q", full, hostabi.ReasonOf(full))
	}
	f.refused++
	if left, _ := filepath.Glob(filepath.Join(o.Dir, ".ds/flight/*")); len(left) > 0 {
		return fmt.Errorf("a refused put left %v", left)
	}
	undo, err := stuff()
	if err != nil {
		return err
	}
	s, err := cache.Open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	for _, b := range kept {
		if err := readBack(ctx, s, b); err != nil {
			return err
		}
	}
	for v, err := range s.Verify(ctx, nil, false) {
		if err != nil || !v.OK {
			return fmt.Errorf("verify on a full disk: %+v, %w", v, err)
		}
	}
	freed := 0
	for _, b := range kept { // 2 MiB come back
		if freed < 2<<20 {
			if err := s.Remove(ctx, "", hostabi.DigestOf(b)); err != nil {
				return fmt.Errorf("remove on a full disk: %w", err)
			}
			freed += len(b)
		}
		if err := s.Pin(ctx, hostabi.DigestOf(b), "", time.Time{}); err != nil {
			return fmt.Errorf("unpin: %w", err)
		}
	}
	if err := undo(); err != nil {
		return err
	}
	if _, err := fetch(ctx, s, some(random), 64<<10); err != nil {
		return fmt.Errorf("the next put: %w", err)
	}
	if p, err := s.Check(ctx, false); err != nil || len(p) > 0 {
		return fmt.Errorf("problems %v, %w", p, err)
	}
	return nil
}

// untilFull puts and pins until something is refused, which is full.
func (f *filled) untilFull(ctx context.Context, o cache.Options, random *rand.Rand, kept *[][]byte) (full, err error) {
	s, err := cache.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	for total := 0; ; f.puts++ {
		b := some(random)
		if _, full = fetch(ctx, s, b, 64<<10); full == nil {
			*kept = append(*kept, b)
			full = s.Pin(ctx, hostabi.DigestOf(b), "", time.Now().Add(time.Hour))
		}
		if full != nil {
			return full, s.Close()
		}
		if total += len(b); total > diskSize {
			return nil, errors.Join(errors.New("more was kept than the disk holds"), s.Close())
		}
	}
}

func putOwned(ctx context.Context, s *cache.Store, b []byte) error {
	v := s.View("porter", "")
	w, err := v.Create(ctx, hostabi.Descriptor{})
	if err != nil {
		return errors.Join(err, v.Close())
	}
	for c := range slices.Chunk(b, 64<<10) {
		if _, err := w.Write(c); err != nil {
			return errors.Join(err, w.Abort(), v.Close())
		}
	}
	_, err = w.Commit(ctx)
	return errors.Join(err, v.Close())
}

func readBack(ctx context.Context, s *cache.Store, want []byte) error {
	f, err := s.Open(ctx, hostabi.DigestOf(want))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	got, err := io.ReadAll(f)
	if err == nil && hostabi.DigestOf(got) != hostabi.DigestOf(want) {
		err = errors.New("other bytes came back")
	}
	return err
}

// smallDisk is a file system on which dir holds so many bytes, and where names need space too, as on ext4.
type smallDisk struct {
	atomicfile.FS
	dir  string
	size int64
	mu   sync.Mutex
}

// room fails when n more bytes do not fit.
func (d *smallDisk) room(name string, n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var used int64
	_ = filepath.WalkDir(d.dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil {
			if fi, err := e.Info(); err == nil {
				used += atomicfile.DiskBytes(fi)
			}
		}
		return nil // files come and go
	})
	if used+n > d.size {
		return &fs.PathError{Op: "write", Path: name, Err: syscall.ENOSPC}
	}
	return nil
}

func (d *smallDisk) Open(name string, flag int, perm fs.FileMode) (atomicfile.File, error) {
	if flag&os.O_CREATE != 0 {
		if _, err := d.Lstat(name); err != nil {
			if err := d.room(name, 4096); err != nil {
				return nil, err
			}
		}
	}
	f, err := d.FS.Open(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &smallFile{f, d, name}, nil
}

func (d *smallDisk) Mkdir(name string, perm fs.FileMode) error {
	if _, err := d.Lstat(name); err != nil {
		if err := d.room(name, 4096); err != nil {
			return err
		}
	}
	return d.FS.Mkdir(name, perm)
}

type smallFile struct {
	atomicfile.File
	d    *smallDisk
	name string
}

func (f *smallFile) Write(p []byte) (int, error) {
	if err := f.d.room(f.name, int64(len(p))); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

func (f *smallFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.d.room(f.name, int64(len(p))); err != nil {
		n, _ := f.File.WriteAt(p[:len(p)/2], off)
		return n, err
	}
	return f.File.WriteAt(p, off)
}

// R4 of reliability.md on a disk that is only simulated, and stricter than most.
func TestR4_SimulatedDisk(t *testing.T) {
	dir := t.TempDir()
	disk := &smallDisk{FS: atomicfile.OS(), dir: dir, size: diskSize}
	stuff := func() (func() error, error) {
		disk.size -= diskSize // not even a name fits
		return func() error { disk.size += diskSize; return nil }, nil
	}
	o := cache.Options{Dir: filepath.Join(dir, "cache"), MaxSize: 10 << 30, FS: disk}
	f, err := fillDisk(t.Context(), o, stuff, faulttest.Scale(1, 2, 20), faulttest.Seed(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("R4: simulated, %s, 0 corrupt", f)
}
