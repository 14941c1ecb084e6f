package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

// run is the directory of this process below .ds/run: its log, locked as long as the process lives, its
// staging and its trash.
type run struct {
	dir    string
	log    atomicfile.File
	unlock func() error
	seq    atomic.Int64
	wrote  atomic.Bool // the log holds put or delete records: gc has to read it before it goes
}

// lockName is the file that is locked. Locks are mandatory on Windows, there the log has to stay readable.
func lockName() string {
	if runtime.GOOS == "windows" {
		return "lock"
	}
	return "log"
}

// theRun is the run directory, made on first use.
func (s *Store) theRun() (*run, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run != nil {
		return s.run, nil
	}
	var r *run
	err := s.inDir(s.runs(), func() (err error) {
		for range 3 { // gc may take a log that is not locked yet for a dead one
			if r, err = startRun(s.fs, s.runs()); !errors.Is(err, atomicfile.ErrLocked) {
				break
			}
		}
		return err
	})
	if err != nil {
		return nil, s.fail(err)
	}
	s.run = r
	return r, nil
}

// gone forgets the run directory if someone removed it while ds runs.
func (s *Store) gone(r *run) {
	if _, err := s.fs.Lstat(r.dir); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run == r {
		s.run = nil
		_ = r.log.Close() // nobody can read it any more
		_ = r.unlock()
	}
}

// inRun calls do with the run directory, and once more with a new one if it vanished.
func (s *Store) inRun(do func(*run) error) error {
	for again := true; ; again = false {
		r, err := s.theRun()
		if err != nil {
			return err
		}
		err = do(r)
		if !again || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s.gone(r)
	}
}

func startRun(f atomicfile.FS, runs string) (*run, error) {
	r := &run{dir: filepath.Join(runs, fmt.Sprintf("%d-%s", os.Getpid(), randomHex()))}
	if err := f.Mkdir(r.dir, 0o700); err != nil {
		return nil, err
	}
	unlock, err := f.Lock(doneCtx(), filepath.Join(r.dir, lockName()))
	if err != nil {
		_ = f.Remove(r.dir)
		return nil, err
	}
	r.unlock = unlock
	if r.log, err = f.Open(filepath.Join(r.dir, "log"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600); err != nil {
		_ = atomicfile.RemoveAll(f, r.dir)
		return nil, errors.Join(err, unlock())
	}
	return r, nil
}

// path is a new name in the run directory.
func (r *run) path(kind string) string {
	return filepath.Join(r.dir, fmt.Sprintf("%s%d", kind, r.seq.Add(1)))
}

func (r *run) append(rec *record) error {
	if rec.kind == recordPut || rec.kind == recordDelete {
		r.wrote.Store(true)
	}
	_, err := r.log.Write(rec.encode())
	return err
}

// end removes all but a log that gc still has to read, and then lets go of the lock.
func (r *run) end(f atomicfile.FS) error {
	var err error
	if r.wrote.Load() {
		err = r.append(&record{kind: recordRelease}) // view 0: the log is complete
	}
	err = errors.Join(err, cleanRun(f, r.dir, !r.wrote.Load()))
	return errors.Join(err, r.log.Close(), r.unlock())
}

// cleanRun empties a run directory whose lock the caller holds. Without all the log stays.
func cleanRun(f atomicfile.FS, dir string, all bool) error {
	names, err := f.ReadDir(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	for _, n := range names {
		if n == "log" || n == lockName() {
			continue
		}
		err = errors.Join(err, atomicfile.RemoveAll(f, filepath.Join(dir, n)))
	}
	if !all || err != nil {
		return err
	}
	return atomicfile.RemoveAll(f, dir)
}

// logged appends a record of what happened. Failing is not an error of the operation: without a snapshot the next
// gc takes the sums from the files.
func (s *Store) logged(rec *record) {
	r, err := s.theRun()
	if err == nil {
		err = r.append(rec)
	}
	if err == nil {
		return
	}
	s.log.Debug("cache log record lost", "error", err)
	if rec.kind == recordPut || rec.kind == recordDelete {
		_ = s.fs.Remove(s.snapshotFile()) // else the sums are wrong until the next reconcile
	}
}

// RunDir is a private directory of this process in which backends make one directory per run. It is removed
// at Close, or swept by another process after a kill.
func (s *Store) RunDir() (string, error) {
	var dir string
	err := s.inRun(func(r *run) error {
		dir = filepath.Join(r.dir, "inv")
		return s.mkdir(dir)
	})
	if err != nil {
		return "", s.fail(err)
	}
	s.sweepHourly()
	return dir, nil
}

// trashSuffix ends the names of trash beside the flights.
const trashSuffix = ".gone"

// inTrash calls do with the name that what goes away gets. On a full disk no run directory can be made, and what
// frees space must not need any: there is a directory that exists.
func (s *Store) inTrash(do func(trash string) error) error {
	err := s.inRun(func(r *run) error { return do(r.path("t")) })
	if isFull(err) {
		return do(filepath.Join(s.internal("flight"), randomHex()+trashSuffix))
	}
	return err
}

// discard removes a tree by way of the trash of this run, so that it is gone from its place at once.
func (s *Store) discard(name string) error {
	return s.inTrash(func(trash string) error {
		if err := s.fs.Rename(name, trash); err != nil {
			if _, lerr := s.fs.Lstat(name); errors.Is(lerr, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		return atomicfile.RemoveAll(s.fs, trash)
	})
}

func putRecord(d hostabi.Digest, size, disk int64, at, expires int64) *record {
	return &record{kind: recordPut, digest: sumOf(d), size: size, disk: disk, time: at, expires: expires}
}
