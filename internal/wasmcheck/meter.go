package wasmcheck

import "encoding/binary"

// budget is what is counted down between two calls of tick. One unit is a cost of 128, or 512 bytes or 512 elements
// that a bulk operation handles. Together that is 20 ms of the dearest code, divisions, and much less of any other.
const budget = 16384

// maxTableSize is the maximum of every table after Meter.
const maxTableSize = maxTable

// Meter returns the module b, rewritten so that it calls ds_meter.tick again and again however it runs. Without that
// import it does what b does. The output depends on b alone. An error is what Check says about b.
func Meter(b []byte) ([]byte, error) { return rewrite(b, budget) }

func rewrite(b []byte, budget int32) ([]byte, error) {
	m := newModule(b, Limits{})
	m.check()
	if m.r.err != nil {
		return nil, m.r.err
	}
	w := meter{m: m, flow: flow{b: b, hosts: m.imported}, budget: budget, out: make([]byte, 0, len(b)+len(b)/8+256)}
	w.module()
	return w.out, nil
}

// meter writes the module that m describes. Every index of m is checked; what is copied is copied as it stands.
type meter struct {
	m      *module
	out    []byte
	part   []byte // content of the section that is written
	body   []byte // instructions of the function that is written
	flow   flow
	budget int32
	tick   uint32 // index of the imported tick
	global uint32 // index of the counter
}

func (w *meter) module() {
	m := w.m
	w.tick, w.global = m.imported, m.globals
	w.out = append(w.out, m.r.b[:8]...)
	for _, s := range [...]struct {
		id    byte
		write func()
		added bool // also where the module has no such section
	}{
		{secType, w.types, true},
		{secImport, w.imports, true},
		{secFunction, nil, false},
		{secTable, w.tables, false},
		{secMemory, nil, false},
		{secGlobal, w.globals, true},
		{secExport, w.exports, false},
		{secElement, w.elements, false},
		{secDataCount, nil, false},
		{secCode, nil, false},
		{secData, nil, false},
	} {
		switch p := m.parts[s.id]; {
		case s.id == secCode && m.seen[s.id]:
			w.code()
		case s.write != nil && (m.seen[s.id] || s.added):
			w.part = w.part[:0]
			s.write()
			w.section(s.id, w.part)
		case m.seen[s.id]:
			w.section(s.id, m.r.b[p.at:p.end])
		}
	}
}

func (w *meter) section(id byte, content []byte) {
	w.out = append(w.out, id)
	w.out = uleb(w.out, uint32(len(content)))
	w.out = append(w.out, content...)
}

// reader reads the content of a section again.
func (w *meter) reader(id byte) *reader {
	p := w.m.parts[id]
	return &reader{b: w.m.r.b, at: p.at, end: p.end}
}

// longer copies a vector that gets one more item, which the caller appends.
func (w *meter) longer(id byte) {
	r := w.reader(id)
	n := uint32(0)
	if w.m.seen[id] {
		n = r.u32()
	}
	w.part = uleb(w.part, n+1)
	w.part = append(w.part, r.b[r.at:r.end]...)
}

func (w *meter) types() {
	w.longer(secType)
	w.part = append(w.part, 0x60, 0, 0)
}

func (w *meter) imports() {
	w.longer(secImport)
	w.part = append(append(w.part, byte(len(TickModule))), TickModule...)
	w.part = append(append(w.part, byte(len(TickName))), TickName...)
	w.part = uleb(append(w.part, externFunc), w.m.types())
}

func (w *meter) globals() {
	// Initialisers of globals before may name functions.
	r := w.reader(secGlobal)
	n := uint32(0)
	if w.m.seen[secGlobal] {
		n = r.u32()
	}
	w.part = uleb(w.part, n+1)
	for range n {
		w.part = append(w.part, r.byte(), r.byte())
		w.constant(r)
	}
	w.part = append(w.part, typeI32, 1, opI32Const)
	w.part = append(sleb(w.part, w.budget), opEnd)
}

// constant copies an initialiser.
func (w *meter) constant(r *reader) {
	in := r.instr()
	r.byte()
	if in.op == opRefFunc {
		w.part = append(uleb(append(w.part, opRefFunc), w.renumber(in.x)), opEnd)
		return
	}
	w.part = append(w.part, r.b[in.at:r.at]...)
}

// renumber is the index of a function after the import was added.
func (w *meter) renumber(fn uint32) uint32 {
	if fn >= w.tick {
		fn++
	}
	return fn
}

// tables gives every table a maximum: what it grows to counts against no limit of memory.
func (w *meter) tables() {
	r := w.reader(secTable)
	n := r.u32()
	w.part = uleb(w.part, n)
	for range n {
		typ, flag, least, most := r.byte(), r.byte(), r.u32(), uint32(maxTableSize)
		if flag == 1 {
			most = min(most, r.u32())
		}
		w.part = uleb(uleb(append(w.part, typ, 1), least), most)
	}
}

func (w *meter) exports() {
	r := w.reader(secExport)
	n := r.u32()
	w.part = uleb(w.part, n)
	for range n {
		at := r.at
		r.name()
		kind := r.byte()
		w.part = append(w.part, r.b[at:r.at]...)
		index := r.u32()
		if kind == externFunc {
			index = w.renumber(index)
		}
		w.part = uleb(w.part, index)
	}
}

func (w *meter) elements() {
	r := w.reader(secElement)
	n := r.u32()
	w.part = uleb(w.part, n)
	for range n {
		flags := r.byte()
		w.part = append(w.part, flags)
		if flags&elemPassive == 0 {
			if flags&elemExplicit != 0 {
				w.part = uleb(w.part, r.u32())
			}
			w.constant(r)
		}
		if flags&(elemPassive|elemExplicit) != 0 {
			w.part = append(w.part, r.byte())
		}
		items := r.u32()
		w.part = uleb(w.part, items)
		for range items {
			if flags&elemExprs != 0 {
				w.constant(r)
			} else {
				w.part = uleb(w.part, w.renumber(r.u32()))
			}
		}
	}
}

func uleb(b []byte, v uint32) []byte { return binary.AppendUvarint(b, uint64(v)) }

func sleb(b []byte, v int32) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}
