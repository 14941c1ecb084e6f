// Package state is the key/value store of plugins (events-state.md section 6): one small JSON file per
// owner, rewritten whole under a lock and published by rename, so that a reader needs no lock and a kill
// leaves the old or the new file. It knows no policy; foreign owners are the gate's business. Start with Open.
package state

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

// Options configure a Store.
type Options struct {
	Dir        string        // state.dir; files go to Dir/kv
	DefaultTTL time.Duration // for entries written without one, 0 = never
	FS         atomicfile.FS // default atomicfile.OS()
	Clock      func() time.Time
	Log        *slog.Logger
}

// Store is safe for goroutines and, over files, for processes.
type Store struct {
	o     Options
	disk  bool
	mu    sync.Mutex
	cache map[hostabi.PluginName]*cached
}

// cached is the parsed file of one owner, used while the file's stamp is the same.
type cached struct {
	stamp stamp
	file  *file
}

type stamp struct {
	size  int64
	mtime time.Time
	inode any
}

// file is the file of one owner; entries are sorted by key.
type file struct {
	Version  int                `json:"version"`
	Owner    hostabi.PluginName `json:"owner"`
	Sequence uint64             `json:"sequence"`
	Entries  []entry            `json:"entries"`
}

type entry struct {
	Key      string `json:"key"`
	Value    []byte `json:"value"`
	Revision uint64 `json:"revision"`
	Created  int64  `json:"created"` // Unix ms
	Updated  int64  `json:"updated"`
	Expires  int64  `json:"expires"` // 0 = never
}

// Open makes a store over the files below o.Dir; nothing is created before the first write.
func Open(o Options) *Store { return open(o, true) }

// Memory makes a store that forgets everything with the process.
func Memory(o Options) *Store { return open(o, false) }

func open(o Options, disk bool) *Store {
	if o.FS == nil {
		o.FS = atomicfile.OS()
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Store{o: o, disk: disk, cache: make(map[hostabi.PluginName]*cached)}
}

// Get answers KEY_NOT_FOUND for an absent or expired key.
func (s *Store) Get(_ context.Context, owner hostabi.PluginName, key string) (hostabi.StateEntry, error) {
	if err := hostabi.CheckStateKey(key); err != nil {
		return hostabi.StateEntry{}, err
	}
	f, err := s.load(owner)
	if err != nil {
		return hostabi.StateEntry{}, err
	}
	e := f.find(key, s.now())
	if e == nil {
		return hostabi.StateEntry{}, hostabi.StateMissing(owner, key)
	}
	return e.entry(owner), nil
}

// Put writes e.Key and e.Value, with e.Expires or the default TTL. ifRev nil = unconditional, 0 = must not
// exist, n = exactly revision n, else STATE_CONFLICT with metadata "revision". quota bounds the owner's total
// (0 = hostabi.StateQuota): QUOTA. After an error nothing has changed.
func (s *Store) Put(ctx context.Context, owner hostabi.PluginName, e hostabi.StateEntry, ifRev *uint64, quota int64) (hostabi.StateEntry, error) {
	if err := hostabi.CheckStateEntry(owner, &e); err != nil {
		return hostabi.StateEntry{}, err
	}
	var out hostabi.StateEntry
	err := s.edit(ctx, owner, func(f *file, now int64) error {
		if err := f.match(owner, e.Key, ifRev, now); err != nil {
			return err
		}
		out = f.put(owner, e, now, unixMilli(hostabi.StateExpiry(e.Expires, time.UnixMilli(now), s.o.DefaultTTL)))
		return f.fits(owner, quota)
	})
	return out, err
}

// errUnchanged ends an edit that has nothing to write.
var errUnchanged = errors.New("unchanged")

// Delete removes a key and reports whether it was there. A missing key is no error unless ifRev is set.
func (s *Store) Delete(ctx context.Context, owner hostabi.PluginName, key string, ifRev *uint64) (deleted bool, err error) {
	if err := hostabi.CheckStateKey(key); err != nil {
		return false, err
	}
	err = s.edit(ctx, owner, func(f *file, now int64) error {
		if err := f.match(owner, key, ifRev, now); err != nil {
			return err
		}
		i, ok := f.index(key)
		if !ok {
			return errUnchanged
		}
		f.Entries = slices.Delete(f.Entries, i, i+1)
		f.Sequence++
		return nil
	})
	if errors.Is(err, errUnchanged) {
		return false, nil
	}
	return err == nil, err
}

// List yields the live entries with the prefix in key order, of one moment.
func (s *Store) List(_ context.Context, owner hostabi.PluginName, prefix string) iter.Seq2[hostabi.StateEntry, error] {
	return func(yield func(hostabi.StateEntry, error) bool) {
		f, err := s.load(owner)
		if err != nil {
			yield(hostabi.StateEntry{}, err)
			return
		}
		now := s.now()
		for i := range f.Entries {
			e := &f.Entries[i]
			if strings.HasPrefix(e.Key, prefix) && !e.expired(now) && !yield(e.entry(owner), nil) {
				return
			}
		}
	}
}

// Retire moves the owner's file away: its name is taken over by another source or signer, which inherits nothing.
func (s *Store) Retire(ctx context.Context, owner hostabi.PluginName) error {
	if !s.disk {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.cache, owner)
		return nil
	}
	unlock, err := s.lock(ctx, owner)
	if err != nil {
		return err
	}
	defer func() { _ = unlock() }() // the lock ends with the descriptor
	to := strings.TrimSuffix(s.path(owner), ".json") + "~" + s.o.Clock().UTC().Format("20060102150405") + ".json"
	if err := s.o.FS.Rename(s.path(owner), to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return storeError(owner, err)
	}
	return nil
}

// Remove deletes everything that the owner keeps.
func (s *Store) Remove(ctx context.Context, owner hostabi.PluginName) error {
	if !s.disk {
		return s.Retire(ctx, owner)
	}
	if _, err := s.o.FS.Lstat(s.path(owner)); errors.Is(err, fs.ErrNotExist) {
		return nil // makes no directories for nothing
	}
	unlock, err := s.lock(ctx, owner)
	if err != nil {
		return err
	}
	defer func() { _ = unlock() }() // the lock ends with the descriptor
	if err := s.o.FS.Remove(s.path(owner)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return storeError(owner, err)
	}
	return nil
}

func (s *Store) now() int64 { return s.o.Clock().UnixMilli() }

// unixMilli is the time in a file, 0 = none.
func unixMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func (s *Store) path(owner hostabi.PluginName) string {
	return filepath.Join(s.o.Dir, "kv", string(owner)+".json")
}

func (s *Store) lock(ctx context.Context, owner hostabi.PluginName) (func() error, error) {
	for _, dir := range []string{s.o.Dir, filepath.Join(s.o.Dir, "kv")} {
		if err := mkdirAll(s.o.FS, dir); err != nil {
			return nil, storeError(owner, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	unlock, err := s.o.FS.Lock(ctx, strings.TrimSuffix(s.path(owner), ".json")+".lock")
	if err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonLockHeld, "state of %s is locked: %w", owner, err).WithMeta("plugin", string(owner)).WithFix("ds doctor state --fix")
	}
	return unlock, nil
}

// mkdirAll makes dir and its parents, 0700.
func mkdirAll(f atomicfile.FS, dir string) error {
	err := f.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		if err := mkdirAll(f, filepath.Dir(dir)); err != nil {
			return err
		}
		err = f.Mkdir(dir, 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// edit changes the file of owner under its lock; an error of fn leaves it as it is.
func (s *Store) edit(ctx context.Context, owner hostabi.PluginName, fn func(f *file, now int64) error) error {
	if !owner.Valid() {
		return hostabi.Errorf(hostabi.ReasonUsage, "%q is no plugin name", string(owner))
	}
	if !s.disk {
		s.mu.Lock()
		defer s.mu.Unlock()
		f := &file{Version: 1, Owner: owner}
		if c := s.cache[owner]; c != nil {
			f = c.file
		}
		f = f.clone()
		if err := s.apply(f, fn); err != nil {
			return err
		}
		s.cache[owner] = &cached{file: f}
		return nil
	}
	unlock, err := s.lock(ctx, owner)
	if err != nil {
		return err
	}
	defer func() { _ = unlock() }() // the lock ends with the descriptor
	f, err := s.load(owner)
	if err != nil {
		return err
	}
	f = f.clone()
	if err := s.apply(f, fn); err != nil {
		return err
	}
	if err := atomicfile.WriteLocked(s.o.FS, s.path(owner), f.encode(), 0o600); err != nil {
		return storeError(owner, err)
	}
	return nil
}

func (s *Store) apply(f *file, fn func(f *file, now int64) error) error {
	now := s.now()
	f.Entries = slices.DeleteFunc(f.Entries, func(e entry) bool { return e.expired(now) })
	return fn(f, now)
}

// load is the file of owner, which must not be changed; an absent one is empty.
func (s *Store) load(owner hostabi.PluginName) (*file, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.cache[owner]
	if !s.disk {
		if c == nil {
			return &file{Version: 1, Owner: owner}, nil
		}
		return c.file, nil
	}
	info, err := s.o.FS.Lstat(s.path(owner))
	if errors.Is(err, fs.ErrNotExist) {
		return &file{Version: 1, Owner: owner}, nil
	}
	if err != nil {
		return nil, storeError(owner, err)
	}
	st := stamp{info.Size(), info.ModTime(), inodeOf(info)}
	if c != nil && c.stamp == st {
		return c.file, nil
	}
	f, err := s.read(owner)
	if err != nil {
		return nil, err
	}
	s.cache[owner] = &cached{st, f}
	return f, nil
}

func (s *Store) read(owner hostabi.PluginName) (*file, error) {
	r, err := s.o.FS.Open(s.path(owner), os.O_RDONLY, 0)
	if err != nil {
		return nil, storeError(owner, err)
	}
	defer func() { _ = r.Close() }() // read-only
	b, err := io.ReadAll(io.LimitReader(r, 4*hostabi.MaxStateQuota))
	if err != nil {
		return nil, storeError(owner, err)
	}
	f, err := decode(b)
	if err != nil || f.Version != 1 || f.Owner != owner {
		return nil, hostabi.Errorf(hostabi.ReasonStateCorrupt, "state file %s is damaged; it was left as it is", s.path(owner)).WithMeta("plugin", string(owner))
	}
	return f, nil
}

// storeError gives a file error its reason.
func storeError(owner hostabi.PluginName, err error) error {
	reason := hostabi.ReasonInternal
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		reason = hostabi.ReasonNoSpace
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		reason = hostabi.ReasonReadOnly
	}
	return hostabi.Errorf(reason, "state of %s: %w", owner, err)
}

// decode parses a state file; entries come back sorted and unique.
func decode(b []byte) (*file, error) {
	f := new(file)
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(f); err != nil {
		return nil, err
	}
	slices.SortStableFunc(f.Entries, func(a, b entry) int { return cmp.Compare(a.Key, b.Key) })
	f.Entries = slices.CompactFunc(f.Entries, func(a, b entry) bool { return a.Key == b.Key })
	return f, nil
}

// encode writes one entry a line, so that people can read and repair the file.
func (f *file) encode() []byte {
	var b bytes.Buffer
	head, _ := json.Marshal(struct { // strings and numbers always encode
		Version  int                `json:"version"`
		Owner    hostabi.PluginName `json:"owner"`
		Sequence uint64             `json:"sequence"`
	}{f.Version, f.Owner, f.Sequence})
	b.Write(head[:len(head)-1])
	b.WriteString(`,"entries":[`)
	for i := range f.Entries {
		if i > 0 {
			b.WriteByte(',')
		}
		line, _ := json.Marshal(&f.Entries[i]) // as above
		b.WriteByte('\n')
		b.Write(line)
	}
	b.WriteString("\n]}\n")
	return b.Bytes()
}

func (f *file) clone() *file {
	c := *f
	c.Entries = slices.Clone(f.Entries)
	return &c
}

func (f *file) index(key string) (int, bool) {
	return slices.BinarySearchFunc(f.Entries, key, func(e entry, k string) int { return cmp.Compare(e.Key, k) })
}

func (f *file) find(key string, now int64) *entry {
	if i, ok := f.index(key); ok && !f.Entries[i].expired(now) {
		return &f.Entries[i]
	}
	return nil
}

// match compares the current revision with ifRev.
func (f *file) match(owner hostabi.PluginName, key string, ifRev *uint64, now int64) error {
	if ifRev == nil {
		return nil
	}
	var have uint64
	if e := f.find(key, now); e != nil {
		have = e.Revision
	}
	if have != *ifRev {
		return hostabi.StateConflict(owner, key, have, *ifRev)
	}
	return nil
}

func (f *file) put(owner hostabi.PluginName, in hostabi.StateEntry, now, expires int64) hostabi.StateEntry {
	f.Sequence++
	e := entry{Key: in.Key, Value: slices.Clone(in.Value), Revision: f.Sequence, Created: now, Updated: now, Expires: expires}
	i, ok := f.index(in.Key)
	if ok {
		e.Created = f.Entries[i].Created
		f.Entries[i] = e
	} else {
		f.Entries = slices.Insert(f.Entries, i, e)
	}
	return e.entry(owner)
}

func (f *file) fits(owner hostabi.PluginName, quota int64) error {
	var total int64
	for i := range f.Entries {
		total += hostabi.StateCost(f.Entries[i].Key, f.Entries[i].Value)
	}
	return hostabi.CheckStateQuota(owner, total, len(f.Entries), quota)
}

func (e *entry) expired(now int64) bool { return e.Expires != 0 && e.Expires <= now }

func (e *entry) entry(owner hostabi.PluginName) hostabi.StateEntry {
	out := hostabi.StateEntry{
		Owner: owner, Key: e.Key, Value: slices.Clone(e.Value), Revision: e.Revision,
		Created: time.UnixMilli(e.Created), Updated: time.UnixMilli(e.Updated),
	}
	if e.Expires != 0 {
		out.Expires = time.UnixMilli(e.Expires)
	}
	return out
}
