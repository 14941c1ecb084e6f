package wasmcheck

// body is what is counted in one function.
type body struct {
	m        *module
	flow     *flow
	fn       int
	locals   uint32
	loops    int // open
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
	m.flow = flow{b: r.b, hosts: m.imported}
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
	f := body{m: m, flow: &m.flow, fn: fn, deepest: 1}
	f.flow.begin()
	f.readLocals()
	for r.err == nil && len(f.flow.labels) > 0 {
		f.flow.plain(r)
		f.step(r)
	}
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
	in := r.instr()
	if r.err != nil {
		return
	}
	f.bounds(r, &in)
	if r.err != nil {
		return
	}
	if _, ok := f.flow.ahead(); ok {
		f.check(&in)
	}
	switch closed := f.flow.step(&in, r.at); in.op {
	case opBlock, opIf:
		f.ifs++
		f.deep(&in, len(f.flow.labels))
	case opLoop:
		f.loops++
		f.nested += f.loops
		f.inLoops = max(f.inLoops, f.loops)
		if f.loops > maxLoops {
			r.fail(in.at, "loop nesting", "function %d has more than %d loops in one another", f.fn, maxLoops)
		}
		f.check(&in)
	case opEnd:
		if closed.kind == kindLoop {
			f.loops--
		}
	case opCall, opCallIndirect:
		f.calls++
	default:
		if isBulk(in.op) {
			f.bulk++
			f.check(&in)
		}
	}
}

// bounds compares what an instruction names with what there is.
func (f *body) bounds(r *reader, in *instr) {
	m := f.m
	labels := uint32(len(f.flow.labels))
	switch in.form {
	case formNone:
		if in.op == opElse && f.flow.top().kind != kindIf {
			r.fail(in.at, "else", "function %d has an else without if", f.fn)
		}
	case formBlock:
		if in.x != noType {
			r.bound(in.arg, "type", in.x, m.types())
		}
	case formLabel:
		r.bound(in.arg, "label", in.x, labels)
	case formLabels:
		r.bound(in.arg, "label", in.y, labels)
		if f.branches += int(in.x); f.branches > maxFuncBranches {
			r.fail(in.at, "br_table entries of a function", "function %d has br_tables with more than %d entries", f.fn, maxFuncBranches)
		}
	case formFunc:
		r.bound(in.arg, "function", in.x, uint32(len(m.funcs)))
	case formIndirect:
		r.bound(in.arg, "type", in.x, m.types())
		r.bound(in.arg, "table", in.y, m.tables)
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
}

// check counts a check of Meter at this place: it has an if and a call.
func (f *body) check(in *instr) {
	if f.m.limits.Metered {
		return
	}
	f.checks++
	f.deep(in, len(f.flow.labels)+1)
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
		if f.flow.entry(f.calls > 0) {
			f.checks++
		}
		if f.bulk > 0 {
			values++
		}
	}
	metered := size
	if !f.m.limits.Metered {
		metered += f.checks*checkRoom + f.bulk*bulkRoom + f.calls*callRoom + localRoom
	}
	if metered > maxMetBody {
		r.fail(at, "body size after metering", "function %d of %d bytes has too many loops, calls and bulk operations", f.fn, size)
		return
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
	p.Metered += metered
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
		{"code size after metering", p.Metered, maxMetCode},
		{"br_table entries of all functions", p.SumBranches, maxBranches + p.Code/branchesPerByte},
		{"locals x loops of all functions", p.SumLoopCost, maxLoopCost},
		{"locals x blocks of all functions", p.SumBlockCost, maxBlockCost + p.Code/bytesPerBlock},
		{"locals x calls of all functions", p.SumCallCost, maxCallCost},
	} {
		if c.got > c.limit {
			m.r.fail(at, c.rule, "module is too expensive: %s = %d, at most %d", c.rule, c.got, c.limit)
			return
		}
	}
}
