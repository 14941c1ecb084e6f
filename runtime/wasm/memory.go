package wasm

import (
	"sync"

	"github.com/tetratelabs/wazero/experimental"

	"github.com/delivery-station/ds/hostabi"
)

// memory is the linear memory of one instance. It refuses to grow beyond its limit and remembers that, for
// the hint after a failed run. No view of it may be used after free.
type memory struct {
	limit   uint64
	pages   pages
	refused bool
}

// pages are reserved address space of which a prefix can be used.
type pages interface {
	// commit makes the first size bytes usable; nil if the system has no memory left.
	commit(size uint64) []byte
	free()
}

// newMemory reserves limit bytes.
func newMemory(limit uint64) (*memory, error) {
	p, err := reserve(limit)
	if err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonMemoryLimit, "cannot reserve %s of memory: %w", size(limit), err)
	}
	return &memory{limit: limit, pages: p}, nil
}

// Allocate implements experimental.MemoryAllocator. Its arguments are what the module declares.
func (m *memory) Allocate(_, _ uint64) experimental.LinearMemory { return m }

// Reallocate implements experimental.LinearMemory.
func (m *memory) Reallocate(size uint64) []byte {
	if size > m.limit {
		m.refused = true
		return nil
	}
	b := m.pages.commit(size)
	if b == nil {
		m.refused = true
	}
	return b
}

// Free implements experimental.LinearMemory. It is idempotent: the engine does not call it on every path.
func (m *memory) Free() { m.pages.free() }

// accounts bounds the memory limits of all live instances together.
type accounts struct {
	mu   sync.Mutex
	used int64
	max  int64 // 0 = unbounded
}

// take books n bytes or fails with MEMORY_LIMIT.
func (a *accounts) take(n int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.max > 0 && a.used > 0 && a.used+n > a.max {
		return hostabi.Errorf(hostabi.ReasonMemoryLimit, "plugins that run now may use %s; %s more is over the limit of %s",
			size(uint64(a.used)), size(uint64(n)), size(uint64(a.max)))
	}
	a.used += n
	return nil
}

func (a *accounts) give(n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.used -= n
}
