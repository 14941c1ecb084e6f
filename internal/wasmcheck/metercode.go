package wasmcheck

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
	calls, bulk := w.instructions(r, end, locals)
	w.part = w.part[:0]
	if bulk {
		groups++
	}
	w.part = uleb(w.part, groups)
	w.part = append(w.part, r.b[declared:declaredEnd]...)
	if bulk {
		w.part = append(w.part, 1, typeI32)
	}
	if w.flow.entry(calls) {
		w.part = w.check(w.part, w.flow.exit)
	}
	w.out = uleb(w.out, uint32(len(w.part)+len(w.body)))
	w.out = append(append(w.out, w.part...), w.body...)
}

// instructions writes the instructions of a function up to end into body. A spare local is next after locals.
func (w *meter) instructions(r *reader, end int, locals uint32) (calls, bulk bool) {
	w.body = w.body[:0]
	w.flow.begin()
	copied := r.at // what stands before is written
	upTo := func(at int) {
		w.body = append(w.body, r.b[copied:at]...)
		copied = at
	}
	for r.at < end {
		w.flow.plain(r)
		in := r.instr()
		if cost, ok := w.flow.ahead(); ok {
			upTo(in.at)
			w.body = w.check(w.body, cost)
		}
		switch closed := w.flow.step(&in, r.at); in.op {
		case opLoop:
			upTo(r.at)
			w.flow.top().patch = int32(len(w.body))
			w.body = w.check(w.body, 0) // the cost is known at its end
		case opEnd:
			if closed.kind == kindLoop {
				w.weigh(w.body[closed.patch:], closed.cost)
			}
		case opCall, opRefFunc:
			upTo(in.arg)
			w.body = uleb(w.body, w.renumber(in.x))
			copied = r.at
			calls = calls || in.op == opCall
		case opCallIndirect:
			calls = true
		default:
			if isBulk(in.op) {
				bulk = true
				upTo(in.at)
				w.body = w.bulk(w.body, locals)
			}
		}
	}
	upTo(end)
	return calls, bulk
}

// check subtracts what a path costs from the counter and calls tick when it is used up. It leaves the stack as it is.
func (w *meter) check(b []byte, cost int32) []byte {
	at := len(b)
	b = uleb(append(b, opGlobalGet), w.global)
	b = append(b, opI32Const, 0, 0, opI32Sub)
	b = uleb(append(b, opGlobalSet), w.global)
	w.weigh(b[at:], cost)
	return w.test(b)
}

// weigh writes the cost into what check wrote, as a number of two bytes.
func (w *meter) weigh(b []byte, cost int32) {
	var buf [5]byte
	at := len(uleb(buf[:0], w.global)) + 2
	fixed(b[at:at+2], uint32(1+max(cost, 0)/costOfUnit))
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
	b = sleb(b, w.budget)
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
