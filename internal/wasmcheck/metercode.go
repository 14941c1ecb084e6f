package wasmcheck

// What code costs, in units of the budget. A region is the code that runs at most once between two checks: a function
// without its loops, or a loop without the loops in it.
const (
	bytesPerUnit = 128
	callUnits    = 4   // the callee may be a leaf of leafBytes without a check
	leafBytes    = 512 // a function without loops and calls that is not longer needs no check
	anyCallUnits = 16  // call_indirect: the callee may be an import
	hostUnits    = 64  // an import; memory.grow, which ends in the host too
	maxUnits     = 1<<20 - 1
)

// area is a region that is being written.
type area struct {
	patch int // where its weight stands in body; -1 for the function
	units int
	bytes int
}

// code writes the code section. Its size has a fixed width, so that the section is not copied once more.
func (w *meter) code() {
	const width = 5
	w.out = append(w.out, secCode)
	size := len(w.out)
	w.out = append(w.out, make([]byte, width)...)
	r := w.reader(secCode)
	n := r.u32()
	w.out = uleb(w.out, n)
	for i := range n {
		w.function(r, int(w.m.imported+i))
	}
	fixed(w.out[size:size+width], uint32(len(w.out)-size-width))
}

// function writes one body: locals, the check at the entry if there is one, instructions.
func (w *meter) function(r *reader, fn int) {
	end := int(r.u32())
	end += r.at
	groups, locals := r.u32(), w.m.params(fn)
	declared := r.at
	for range groups {
		locals += r.u32()
		r.byte()
	}
	declaredEnd := r.at
	begin := r.at
	calls, bulk := w.instructions(r, end, locals)
	length := end - begin
	w.part = w.part[:0]
	if bulk {
		groups++
	}
	w.part = uleb(w.part, groups)
	w.part = append(w.part, r.b[declared:declaredEnd]...)
	if bulk {
		w.part = append(w.part, 1, typeI32)
	}
	if entry := w.areas[0]; calls || length > leafBytes || entry.units >= hostUnits {
		at := len(w.part)
		w.part = w.check(w.part)
		weigh(w.part[at+w.weightAt():], entry)
	}
	w.out = uleb(w.out, uint32(len(w.part)+len(w.body)))
	w.out = append(append(w.out, w.part...), w.body...)
}

// instructions writes the instructions of a function up to end into body. A spare local is next after locals.
func (w *meter) instructions(r *reader, end int, locals uint32) (calls, bulk bool) {
	w.body, w.areas, w.blocks = w.body[:0], append(w.areas[:0], area{patch: -1}), append(w.blocks[:0], 0)
	copied := r.at
	for r.at < end {
		in := r.instr()
		now := w.blocks[len(w.blocks)-1]
		a := &w.areas[now]
		a.bytes += r.at - in.at
		switch in.op {
		case opBlock, opIf:
			w.blocks = append(w.blocks, now)
		case opEnd:
			w.blocks = w.blocks[:len(w.blocks)-1]
			if len(w.blocks) > 0 && w.blocks[len(w.blocks)-1] != now {
				weigh(w.body[a.patch:], *a)
			}
		case opLoop:
			w.body = append(w.body, r.b[copied:r.at]...)
			copied = r.at
			w.blocks = append(w.blocks, uint32(len(w.areas)))
			w.areas = append(w.areas, area{patch: len(w.body) + w.weightAt()})
			w.body = w.check(w.body)
		case opCall:
			calls = true
			a.units += callUnits
			if in.x < w.tick {
				a.units += hostUnits
			}
			fallthrough
		case opRefFunc:
			w.body = append(w.body, r.b[copied:in.arg]...)
			w.body = uleb(w.body, w.renumber(in.x))
			copied = r.at
		case opCallIndirect:
			calls = true
			a.units += anyCallUnits
		case opMemoryGrow:
			a.units += hostUnits
		default:
			if isBulk(in.op) {
				bulk = true
				w.body = append(w.body, r.b[copied:in.at]...)
				copied = in.at
				w.body = w.bulk(w.body, locals)
			}
		}
	}
	w.body = append(w.body, r.b[copied:end]...)
	return calls, bulk
}

// check subtracts a weight, which is filled in later, from the counter and calls tick when it is used up. It leaves
// the stack as it is.
func (w *meter) check(b []byte) []byte {
	b = uleb(append(b, opGlobalGet), w.global)
	b = append(b, opI32Const, 0, 0, 0, opI32Sub)
	b = uleb(append(b, opGlobalSet), w.global)
	return w.test(b)
}

// weightAt is the place of the weight in what check writes.
func (w *meter) weightAt() int { return 2 + len(uleb(make([]byte, 0, 5), w.global)) }

// weigh writes the weight of a region in three bytes.
func weigh(b []byte, a area) {
	v := min(1+a.units+a.bytes/bytesPerUnit, maxUnits)
	fixed(b[:3], uint32(v))
}

// bulk is a check for an operation on as many bytes or elements as the number on top of the stack says.
func (w *meter) bulk(b []byte, local uint32) []byte {
	b = uleb(append(b, opLocalTee), local)
	b = uleb(append(b, opGlobalGet), w.global)
	b = uleb(append(b, opLocalGet), local)
	b = append(b, opI32Const, 9, opI32ShrU, opI32Sub, opI32Const, 1, opI32Sub)
	b = uleb(append(b, opGlobalSet), w.global)
	return w.test(b)
}

func (w *meter) test(b []byte) []byte {
	b = uleb(append(b, opGlobalGet), w.global)
	b = append(b, opI32Const, 0, opI32LeS, opIf, typeEmpty, opI32Const)
	b = sleb(b, budget)
	b = uleb(append(b, opGlobalSet), w.global)
	b = uleb(append(b, opCall), w.tick)
	return append(b, opEnd)
}

// fixed writes v as LEB128 of exactly len(b) bytes. As a signed number v must leave the top bit free.
func fixed(b []byte, v uint32) {
	for i := range b {
		b[i] = byte(v & 0x7f)
		if i < len(b)-1 {
			b[i] |= 0x80
		}
		v >>= 7
	}
}
