//go:build !unix

package wasm

// heap is memory of the Go heap; growing copies.
type heap struct{ b []byte }

func reserve(uint64) (pages, error) { return &heap{}, nil }

func (h *heap) commit(size uint64) []byte {
	if size > uint64(cap(h.b)) {
		b := make([]byte, size)
		copy(b, h.b)
		h.b = b
	}
	h.b = h.b[:size]
	return h.b
}

func (h *heap) free() { h.b = nil }
