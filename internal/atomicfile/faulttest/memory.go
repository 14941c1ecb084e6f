package faulttest

import (
	"io/fs"
	"sync"

	"github.com/delivery-station/ds/internal/atomicfile"
)

// memory is a file system that answers for the files of a rebuilt directory the inode and times that they had before
// the power was cut: the file of an inode may have lost its bytes and still look the same. A file that changes is
// what it is.
type memory struct {
	atomicfile.FS
	mu  sync.Mutex
	was map[atomicfile.ID]fs.FileInfo // by what the rebuilt file really is
}

func newMemory(f atomicfile.FS) *memory {
	return &memory{FS: f, was: make(map[atomicfile.ID]fs.FileInfo)}
}

// remember says that the file name was was.
func (m *memory) remember(name string, was fs.FileInfo) error {
	fi, err := m.FS.Lstat(name)
	if err != nil {
		return err
	}
	if id, ok := atomicfile.IDOf(fi); ok {
		m.was[id] = was
	}
	return nil
}

func (m *memory) as(fi fs.FileInfo) fs.FileInfo {
	m.mu.Lock()
	defer m.mu.Unlock()
	if id, ok := atomicfile.IDOf(fi); ok && m.was[id] != nil {
		pretend(fi, m.was[id])
	}
	return fi
}

func (m *memory) Lstat(name string) (fs.FileInfo, error) {
	fi, err := m.FS.Lstat(name)
	if err != nil {
		return nil, err
	}
	return m.as(fi), nil
}

func (m *memory) Open(name string, flag int, perm fs.FileMode) (atomicfile.File, error) {
	f, err := m.FS.Open(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return memoryFile{f, m}, nil
}

type memoryFile struct {
	atomicfile.File
	m *memory
}

func (f memoryFile) Stat() (fs.FileInfo, error) {
	fi, err := f.File.Stat()
	if err != nil {
		return nil, err
	}
	return f.m.as(fi), nil
}
