package events

import "strconv"

// ids makes event ids, "PREFIX-SEQUENCE", a block at a time: a publisher formats and allocates for one in 64.
type ids struct {
	prefix string
	first  uint64 // the sequence that the block begins with
	text   string // the ids of the block, one after the other
	ends   [64]uint16
}

func (i *ids) of(sequence uint64) string {
	n := sequence - i.first
	if i.text == "" || n >= uint64(len(i.ends)) {
		i.fill(sequence)
		n = 0
	}
	if n == 0 {
		return i.text[:i.ends[0]]
	}
	return i.text[i.ends[n-1]:i.ends[n]]
}

func (i *ids) fill(first uint64) {
	text := make([]byte, 0, len(i.ends)*(len(i.prefix)+9))
	for n := range i.ends {
		text = append(append(text, i.prefix...), '-')
		text = strconv.AppendUint(text, first+uint64(n), 10)
		i.ends[n] = uint16(len(text))
	}
	i.first, i.text = first, string(text)
}
