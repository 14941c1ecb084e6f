package wasmcheck

// blockKind is what opened a block.
type blockKind uint8

const (
	kindBlock blockKind = iota
	kindLoop
	kindIf
	kindElse
)

// body is what is counted in one function.
type body struct {
	m        *module
	fn       int
	locals   uint32
	blocks   []blockKind // open; the function itself is the first
	loops    int         // open
	branches int
	nested   int // sum of the depths of all loops
	ifs      int // blocks and ifs
	calls    int
	checks   int // that Meter adds
	bulk     int
	deepest  int
	inLoops  int // largest number of open loops
}

func (m *module) readCode() {
	r := &m.r
	limit := maxCode
	if m.limits.Metered {
		limit = maxMetCode
	}
	size := r.end - r.at
	if size > limit {
		r.fail(r.at, "code size", "code of %d bytes, at most %d", size, limit)
		return
	}
	m.report.Code = size
	at := r.at
	n := r.count("functions", maxItems, 3)
	if want := uint32(len(m.funcs)) - m.imported; r.err == nil && n != want {
		r.fail(at, "function count", "module is damaged: code of %d functions, declared are %d", n, want)
		return
	}
	m.depth = make([]blockKind, 0, 64)
	for i := range n {
		m.function(int(m.imported + i))
		if r.err != nil {
			return
		}
	}
	m.sums(at)
}

// function reads one body.
func (m *module) function(fn int) {
	r := &m.r
	begin := r.at
	size := r.u32()
	limit := uint32(maxBody)
	if m.limits.Metered {
		limit = maxMetBody
	}
	if size > limit {
		r.fail(begin, "body size", "function %d has a body of %d bytes, at most %d", fn, size, limit)
		return
	}
	if uint64(size) > uint64(r.end-r.at) {
		r.cut(begin)
		return
	}
	section := r.end
	r.end = r.at + int(size)
	f := body{m: m, fn: fn, blocks: append(m.depth[:0], kindBlock), deepest: 1}
	f.readLocals()
	for r.err == nil && len(f.blocks) > 0 {
		f.step(r)
	}
	m.depth = f.blocks[:0]
	if r.err == nil && r.at != r.end {
		r.fail(r.at, "body size", "module is damaged: function %d goes on after its end", fn)
	}
	r.end = section
	if r.err == nil {
		f.sum(begin, int(size))
	}
}

func (f *body) readLocals() {
	r := &f.m.r
	total := uint64(f.m.params(f.fn))
	limit := uint64(maxLocals)
	if f.m.limits.Metered {
		limit++
	}
	for range r.count("groups of locals", maxBody, 2) {
		at := r.at
		if total += uint64(r.u32()); total > limit {
			r.fail(at, "locals", "function %d has %d locals, at most %d", f.fn, total, limit)
		}
		r.valueType()
		if r.err != nil {
			return
		}
	}
	f.locals = uint32(total)
}

// step reads one instruction.
func (f *body) step(r *reader) {
	m := f.m
	in := r.instr()
	if r.err != nil {
		return
	}
	switch in.form {
	case formNone:
		f.structure(&in)
	case formBlock:
		if in.x != noType {
			r.bound(in.arg, "type", in.x, m.types())
		}
		f.open(&in)
	case formLabel:
		r.bound(in.arg, "label", in.x, uint32(len(f.blocks)))
	case formLabels:
		r.bound(in.arg, "label", in.y, uint32(len(f.blocks)))
		if f.branches += int(in.x); f.branches > maxFuncBranches {
			r.fail(in.at, "br_table entries of a function", "function %d has br_tables with more than %d entries", f.fn, maxFuncBranches)
		}
	case formFunc:
		r.bound(in.arg, "function", in.x, uint32(len(m.funcs)))
		if in.op == opCall {
			f.calls++
		}
	case formIndirect:
		r.bound(in.arg, "type", in.x, m.types())
		r.bound(in.arg, "table", in.y, m.tables)
		f.calls++
	case formLocal:
		r.bound(in.arg, "local", in.x, f.locals)
	case formGlobal:
		r.bound(in.arg, "global", in.x, m.globals)
	case formTable:
		r.bound(in.arg, "table", in.x, m.tables)
	case formData, formDataZero:
		r.bound(in.arg, "data segment", in.x, m.declared)
	case formElem:
		r.bound(in.arg, "element segment", in.x, m.elements)
	case formElemTable:
		r.bound(in.arg, "element segment", in.x, m.elements)
		r.bound(in.arg, "table", in.y, m.tables)
	case formTableTable:
		r.bound(in.arg, "table", max(in.x, in.y), m.tables)
	}
	if isBulk(in.op) {
		f.bulk++
		f.check(&in)
	}
}

// structure is else and end.
func (f *body) structure(in *instr) {
	top := len(f.blocks) - 1
	switch in.op {
	case opElse:
		if f.blocks[top] != kindIf {
			f.m.r.fail(in.at, "else", "function %d has an else without if", f.fn)
			return
		}
		f.blocks[top] = kindElse
	case opEnd:
		if f.blocks[top] == kindLoop {
			f.loops--
		}
		f.blocks = f.blocks[:top]
	}
}

// open is block, loop and if.
func (f *body) open(in *instr) {
	kind := kindBlock
	switch in.op {
	case opLoop:
		kind = kindLoop
		f.loops++
		f.nested += f.loops
		f.inLoops = max(f.inLoops, f.loops)
		if f.loops > maxLoops {
			f.m.r.fail(in.at, "loop nesting", "function %d has more than %d loops in one another", f.fn, maxLoops)
		}
	case opIf:
		kind = kindIf
		f.ifs++
	default:
		f.ifs++
	}
	f.blocks = append(f.blocks, kind)
	f.deep(in, len(f.blocks))
	if kind == kindLoop {
		f.check(in)
	}
}

// check counts a check of Meter at this place: it has an if and a call.
func (f *body) check(in *instr) {
	if f.m.limits.Metered {
		return
	}
	f.checks++
	f.deep(in, len(f.blocks)+1)
}

func (f *body) deep(in *instr, n int) {
	f.deepest = max(f.deepest, n)
	if n > maxDepth {
		f.m.r.fail(in.at, "block nesting", "function %d has more than %d blocks in one another", f.fn, maxDepth)
	}
}

// sum compares the counts of one function with its limits and adds them to those of the module.
func (f *body) sum(at, size int) {
	r, p := &f.m.r, &f.m.report
	values := int(f.locals) + 1
	if !f.m.limits.Metered {
		f.checks++ // at the entry
		if f.bulk > 0 {
			values++
		}
		if after := size + f.checks*checkRoom + f.bulk*bulkRoom + f.calls*callRoom + localRoom; after > maxMetBody {
			r.fail(at, "body size after metering", "function %d has too many loops and bulk operations for its %d bytes", f.fn, size)
			return
		}
	}
	loops, blocks, calls := values*f.nested, values*(f.ifs+f.checks), values*(f.calls+f.checks)
	for _, c := range [...]struct {
		rule       string
		got, limit int
	}{
		{"locals x loops", loops, maxFuncLoopCost},
		{"locals x blocks", blocks, maxFuncBlockCost + blockCostPerByte*size},
		{"locals x calls", calls, maxFuncCallCost},
	} {
		if c.got > c.limit {
			r.fail(at, c.rule, "function %d is too expensive to compile: %s = %d, at most %d", f.fn, c.rule, c.got, c.limit)
			return
		}
	}
	p.Body, p.Locals = max(p.Body, size), max(p.Locals, int(f.locals))
	p.Blocks, p.Loops, p.Branches = max(p.Blocks, f.deepest-1), max(p.Loops, f.inLoops), max(p.Branches, f.branches)
	p.LoopCost, p.BlockCost, p.CallCost = max(p.LoopCost, loops), max(p.BlockCost, blocks), max(p.CallCost, calls)
	p.SumBranches += f.branches
	p.SumLoopCost += loops
	p.SumBlockCost += blocks
	p.SumCallCost += calls
}

// sums compares the counts of all functions with the limits of a module.
func (m *module) sums(at int) {
	p := &m.report
	for _, c := range [...]struct {
		rule       string
		got, limit int
	}{
		{"br_table entries of all functions", p.SumBranches, maxBranches + p.Code/branchesPerByte},
		{"locals x loops of all functions", p.SumLoopCost, maxLoopCost},
		{"locals x blocks of all functions", p.SumBlockCost, maxBlockCost + p.Code/bytesPerBlock},
		{"locals x calls of all functions", p.SumCallCost, maxCallCost},
	} {
		if c.got > c.limit {
			m.r.fail(at, c.rule, "module is too expensive to compile: %s = %d, at most %d", c.rule, c.got, c.limit)
			return
		}
	}
}
