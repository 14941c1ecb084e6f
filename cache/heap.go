package cache

// lruHeap is a binary heap of positions in entries, the least recently used first. It is built in O(n) and
// holds four bytes an entry: a million entries are no strain.
type lruHeap struct {
	entries []entryInfo
	at      []int32
}

func newHeap(entries []entryInfo) *lruHeap {
	h := &lruHeap{entries: entries, at: make([]int32, len(entries))}
	for i := range h.at {
		h.at[i] = int32(i) // a cache of two thousand million entries does not fit into memory
	}
	for i := len(h.at)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
	return h
}

func (h *lruHeap) less(i, j int) bool { return h.entries[h.at[i]].used < h.entries[h.at[j]].used }

func (h *lruHeap) pop() (entry int, ok bool) {
	if len(h.at) == 0 {
		return 0, false
	}
	first := h.at[0]
	last := len(h.at) - 1
	h.at[0] = h.at[last]
	h.at = h.at[:last]
	h.down(0)
	return int(first), true
}

func (h *lruHeap) push(entry int) {
	h.at = append(h.at, int32(entry)) // came out of pop
	for i := len(h.at) - 1; i > 0; {
		parent := (i - 1) / 2
		if !h.less(i, parent) {
			return
		}
		h.at[i], h.at[parent] = h.at[parent], h.at[i]
		i = parent
	}
}

func (h *lruHeap) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h.at); child++ {
			if h.less(child, least) {
				least = child
			}
		}
		if least == i {
			return
		}
		h.at[i], h.at[least] = h.at[least], h.at[i]
		i = least
	}
}
