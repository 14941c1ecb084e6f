package faulttest

import (
	"context"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/delivery-station/ds/internal/atomicfile"
)

// Recorder is a file system that keeps every change with its data, so that Cut can tell what a power cut leaves.
// What was in its directory at first counts as durable.
type Recorder struct {
	atomicfile.FS
	dir string

	mu    sync.Mutex
	names map[string]*node // what is there now, by path below dir
	first map[string]*node
	log   []change
}

// node is a file or a directory, whatever it is called.
type node struct {
	dir   bool
	data  []byte // of a file that was there at first
	mode  fs.FileMode
	mtime time.Time
	info  fs.FileInfo // the last that anybody was told
}

type changeKind int

const (
	makeNode changeKind = iota // path names node
	moveNode                   // path becomes to
	dropNode
	setMode
	setTime
	syncDir  // the names in path are durable
	syncFile // the bytes of node are
	writeAt
	truncate
)

type change struct {
	kind     changeKind
	path, to string
	node     *node
	data     []byte
	off      int64
	mode     fs.FileMode
	mtime    time.Time
}

// Record records what is done to dir on f.
func Record(t *testing.T, f atomicfile.FS, dir string) *Recorder {
	t.Helper()
	r := &Recorder{FS: f, dir: dir, names: make(map[string]*node)}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		n := &node{dir: d.IsDir(), mode: fi.Mode().Perm(), mtime: fi.ModTime(), info: fi}
		if !n.dir {
			if n.data, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		r.names[r.rel(path)] = n
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r.first = maps.Clone(r.names)
	return r
}

// Len is the number of changes so far.
func (r *Recorder) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.log)
}

func (r *Recorder) rel(path string) string {
	rel, err := filepath.Rel(r.dir, path)
	if err != nil {
		return path
	}
	return rel
}

// done notes a change and keeps names.
func (r *Recorder) done(c change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, c)
	apply(r.names, c)
}

// apply makes a change of names.
func apply(names map[string]*node, c change) {
	switch c.kind {
	case makeNode:
		names[c.path] = c.node
	case dropNode:
		delete(names, c.path)
	case moveNode:
		for path := range names { // an empty directory may have been there
			if path == c.to || strings.HasPrefix(path, c.to+string(filepath.Separator)) {
				delete(names, path)
			}
		}
		for path, n := range maps.Clone(names) {
			if rest, ok := strings.CutPrefix(path, c.path); ok && (rest == "" || rest[0] == filepath.Separator) {
				delete(names, path)
				names[c.to+rest] = n
			}
		}
	}
}

func (r *Recorder) lookup(path string) *node {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.names[r.rel(path)]
}

// Open records that a file was made.
func (r *Recorder) Open(name string, flag int, perm fs.FileMode) (atomicfile.File, error) {
	f, err := r.FS.Open(name, flag, perm)
	if err != nil {
		return nil, err
	}
	n := r.lookup(name)
	if n == nil {
		n = &node{mode: perm}
		if fi, err := f.Stat(); err == nil {
			n.mode, n.mtime, n.dir = fi.Mode().Perm(), fi.ModTime(), fi.IsDir()
		}
		r.done(change{kind: makeNode, path: r.rel(name), node: n})
	} else if flag&os.O_TRUNC != 0 {
		r.done(change{kind: truncate, node: n})
	}
	return &recordedFile{f, r, n, 0, flag&os.O_APPEND != 0}, nil
}

// Mkdir records itself.
func (r *Recorder) Mkdir(name string, perm fs.FileMode) error {
	err := r.FS.Mkdir(name, perm)
	if err == nil {
		r.done(change{kind: makeNode, path: r.rel(name), node: &node{dir: true, mode: perm, mtime: time.Now()}})
	}
	return err
}

// Rename records itself.
func (r *Recorder) Rename(from, to string) error {
	err := r.FS.Rename(from, to)
	if err == nil {
		r.done(change{kind: moveNode, path: r.rel(from), to: r.rel(to)})
	}
	return err
}

// Remove records itself.
func (r *Recorder) Remove(name string) error {
	err := r.FS.Remove(name)
	if err == nil {
		r.done(change{kind: dropNode, path: r.rel(name)})
	}
	return err
}

// Chtimes records itself.
func (r *Recorder) Chtimes(name string, mtime time.Time) error {
	err := r.FS.Chtimes(name, mtime)
	if n := r.lookup(name); err == nil && n != nil {
		r.done(change{kind: setTime, node: n, mtime: mtime})
	}
	return err
}

// SyncDir records itself.
func (r *Recorder) SyncDir(name string) error {
	err := r.FS.SyncDir(name)
	if err == nil {
		r.done(change{kind: syncDir, path: r.rel(name)})
	}
	return err
}

// Lock records that the file was made.
func (r *Recorder) Lock(ctx context.Context, name string) (func() error, error) {
	unlock, err := r.FS.Lock(ctx, name)
	if err == nil && r.lookup(name) == nil {
		r.done(change{kind: makeNode, path: r.rel(name), node: &node{mode: 0o600, mtime: time.Now()}})
	}
	return unlock, err
}

// Lstat remembers what was told.
func (r *Recorder) Lstat(name string) (fs.FileInfo, error) {
	fi, err := r.FS.Lstat(name)
	if n := r.lookup(name); err == nil && n != nil {
		n.told(r, fi)
	}
	return fi, err
}

func (n *node) told(r *Recorder, fi fs.FileInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n.info = fi
}

type recordedFile struct {
	atomicfile.File
	r      *Recorder
	node   *node
	at     int64
	append bool
}

func (f *recordedFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	f.at += int64(n)
	return n, err
}

func (f *recordedFile) Write(p []byte) (int, error) {
	if f.append {
		fi, err := f.File.Stat()
		if err != nil {
			return 0, err
		}
		f.at = fi.Size()
	}
	n, err := f.File.Write(p)
	f.wrote(p[:n], f.at)
	f.at += int64(n)
	return n, err
}

func (f *recordedFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	f.wrote(p[:n], off)
	return n, err
}

func (f *recordedFile) wrote(p []byte, off int64) {
	if len(p) > 0 {
		f.r.done(change{kind: writeAt, node: f.node, data: append([]byte(nil), p...), off: off})
	}
}

func (f *recordedFile) Stat() (fs.FileInfo, error) {
	fi, err := f.File.Stat()
	if err == nil {
		f.node.told(f.r, fi)
	}
	return fi, err
}

func (f *recordedFile) Chmod(mode fs.FileMode) error {
	err := f.File.Chmod(mode)
	if err == nil {
		f.r.done(change{kind: setMode, node: f.node, mode: mode})
	}
	return err
}

func (f *recordedFile) Truncate(size int64) error {
	err := f.File.Truncate(size)
	if err == nil {
		f.r.done(change{kind: truncate, node: f.node, off: size})
	}
	return err
}

func (f *recordedFile) Sync() error {
	err := f.File.Sync()
	if err == nil {
		f.r.done(change{kind: syncFile, node: f.node})
	}
	return err
}
