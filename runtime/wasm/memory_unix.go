//go:build unix

package wasm

import "golang.org/x/sys/unix"

// mapping is anonymous memory: growing never copies, and the pages go back to the system at once.
type mapping struct{ all []byte }

func reserve(limit uint64) (pages, error) {
	if limit == 0 {
		limit = 1
	}
	b, err := unix.Mmap(-1, 0, int(limit), unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	return &mapping{all: b}, nil
}

func (m *mapping) commit(size uint64) []byte {
	if size == 0 {
		return m.all[:0:0]
	}
	b := m.all[:size:size]
	if err := unix.Mprotect(b, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return nil
	}
	return b
}

func (m *mapping) free() {
	if m.all != nil {
		_ = unix.Munmap(m.all) // fails only for a range that is not mapped
		m.all = nil
	}
}
