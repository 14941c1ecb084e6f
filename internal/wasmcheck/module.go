package wasmcheck

import "bytes"

// The ids of sections.
const (
	secCustom = iota
	secType
	secImport
	secFunction
	secTable
	secMemory
	secGlobal
	secExport
	secStart
	secElement
	secCode
	secData
	secDataCount
	sections
)

// order is the place of each section; it is not that of the ids.
var order = [sections]int{
	secType: 1, secImport: 2, secFunction: 3, secTable: 4, secMemory: 5, secGlobal: 6, secExport: 7, secStart: 8,
	secElement: 9, secDataCount: 10, secCode: 11, secData: 12,
}

var sectionNames = [sections]string{
	"custom", "type", "import", "function", "table", "memory", "global", "export", "start", "element", "code", "data",
	"data count",
}

// The kinds of imports and exports.
const (
	externFunc = iota
	externTable
	externMemory
	externGlobal
)

// part is the content of a section: b[at:end].
type part struct{ at, end int }

// module is what is known of a module while its sections are read.
type module struct {
	r      reader
	limits Limits
	report Report

	parts     [sections]part
	seen      [sections]bool
	typeAt    []uint32 // where the parameters of each type begin
	funcs     []uint32 // type of each function, imports first
	imported  uint32
	tables    uint32
	globals   uint32
	elements  uint32
	declared  uint32 // data segments, as the data count section says
	ticks     bool   // ds_meter.tick is imported
	memory    bool   // exported
	start     bool   // exported
	elemItems uint64 // of all element segments

	customs int
	flow    flow
}

func newModule(b []byte, l Limits) *module {
	return &module{r: reader{b: b, end: len(b)}, limits: l}
}

// items is the limit of most vectors: Meter adds one type, import and global.
func (m *module) items() uint32 {
	if m.limits.Metered {
		return maxItems + 1
	}
	return maxItems
}

func (m *module) types() uint32 { return uint32(len(m.typeAt)) }

func (m *module) check() {
	m.header()
	last := 0
	for m.r.more() {
		last = m.section(last)
	}
	if m.r.err != nil {
		return
	}
	m.complete()
}

func (m *module) header() {
	r := &m.r
	limit := MaxModule
	if m.limits.Metered {
		limit = MaxMetered
	}
	switch b := r.b; {
	case !bytes.HasPrefix(b, []byte("\x00asm")):
		r.fail(0, "magic", "not a WASM module")
	case len(b) > limit:
		r.fail(0, "module size", "module of %d bytes is over the limit of %d", len(b), limit)
	case bytes.HasPrefix(b, []byte("\x00asm\x0d\x00\x01\x00")):
		r.fail(4, "component", "component model is not supported, build for wasip1")
	case !bytes.HasPrefix(b, []byte("\x00asm\x01\x00\x00\x00")):
		r.fail(4, "version", "WASM version is not 1")
	default:
		r.at = 8
		m.report.Module = len(b)
	}
}

// section reads one section and returns its place in the order.
func (m *module) section(last int) int {
	r := &m.r
	begin := r.at
	r.section = "unknown"
	id := r.byte()
	if id >= sections {
		r.fail(begin, "section id", "section %d is not part of WASM 2.0", id)
		return last
	}
	r.section = sectionNames[id]
	size := r.u32()
	if r.err == nil && uint64(size) > uint64(r.end-r.at) {
		r.fail(begin, "section size", "module is damaged: section is cut off")
	}
	if r.err != nil {
		return last
	}
	p := part{r.at, r.at + int(size)}
	if id == secCustom {
		if m.customs++; m.customs > maxCustom {
			r.fail(begin, "sections", "module has more than %d custom sections", maxCustom)
			return last
		}
		r.at = p.end
		return last
	}
	if order[id] <= last {
		r.fail(begin, "section order", "section stands twice or in the wrong place")
		return last
	}
	m.parts[id], m.seen[id] = p, true
	all := r.end
	r.end = p.end
	m.content(id, begin)
	if r.err == nil && r.at != p.end {
		r.fail(r.at, "section size", "module is damaged: section is longer than its content")
	}
	r.end = all
	return order[id]
}

func (m *module) content(id byte, begin int) {
	r := &m.r
	switch id {
	case secType:
		m.readTypes()
	case secImport:
		m.imports()
	case secFunction:
		m.readFunctions()
	case secTable:
		m.readTables()
	case secMemory:
		m.readMemory()
	case secGlobal:
		m.readGlobals()
	case secExport:
		m.readExports()
	case secStart:
		r.fail(begin, "start section", "module has a start section: a plugin starts at _start only")
	case secElement:
		m.readElements()
	case secDataCount:
		m.declared = r.count("data segments", maxItems, 0)
	case secCode:
		m.readCode()
	case secData:
		m.readData()
	}
}

// complete checks what only the whole module shows.
func (m *module) complete() {
	r := &m.r
	r.section = ""
	switch n := len(m.funcs) - int(m.imported); {
	case n > 0 && !m.seen[secCode]:
		r.fail(r.end, "code section", "module is damaged: %d functions have no code", n)
	case m.declared > 0 && !m.seen[secData]:
		r.fail(r.end, "data section", "module is damaged: %d data segments are missing", m.declared)
	case !m.memory:
		r.fail(r.end, "memory export", "module does not export one memory named memory; build a command, not a reactor")
	case !m.start:
		r.fail(r.end, "_start export", "module does not export _start; build a command, not a reactor or library")
	}
}

func (m *module) readTypes() {
	r := &m.r
	n := r.count("types", m.items(), 3)
	m.typeAt = make([]uint32, 0, n)
	for range n {
		at := r.at
		if c := r.byte(); c != 0x60 {
			r.fail(at, "type form", "type 0x%02x is not a function type", c)
			return
		}
		m.typeAt = append(m.typeAt, uint32(r.at))
		for _, what := range [...]string{"parameters", "results"} {
			for range r.count(what, maxValues, 1) {
				r.valueType()
			}
		}
		if r.err != nil {
			return
		}
	}
	m.report.Types = int(n)
}

// params is the number of parameters of a function.
func (m *module) params(fn int) uint32 {
	r := reader{b: m.r.b, at: int(m.typeAt[m.funcs[fn]]), end: len(m.r.b)}
	return r.u32()
}

func (m *module) readFunctions() {
	r := &m.r
	n := r.count("functions", maxItems, 1)
	all := make([]uint32, len(m.funcs), len(m.funcs)+int(n))
	copy(all, m.funcs)
	for range n {
		all = append(all, r.index("type", m.types()))
	}
	m.funcs = all
	m.report.Functions = int(n)
}

// size reads the minimum and maximum of a table or memory.
func (r *reader) size(what string, limit, ceiling uint32) (least uint32) {
	flag := r.flag(what+" limits", 1)
	at := r.at
	if least = r.u32(); least > limit {
		r.fail(at, what+" minimum", "%s of at least %d, at most %d", what, least, limit)
	}
	if flag == 0 {
		return least
	}
	at = r.at
	if most := r.u32(); most < least || most > ceiling {
		r.fail(at, what+" maximum", "%s of %d to %d is not possible", what, least, most)
	}
	return least
}

func (m *module) readTables() {
	r := &m.r
	n := r.count("tables", maxTables, 3)
	for range n {
		r.refType()
		r.size("table", maxTable, 1<<32-1)
	}
	m.tables = n
	m.report.Tables = int(n)
}

func (m *module) readMemory() {
	r := &m.r
	at := r.at
	if n := r.u32(); n != 1 {
		r.fail(at, "memories", "module has %d memories, it must have one", n)
		return
	}
	limit := m.limits.MemoryPages
	if limit == 0 {
		limit = maxPages
	}
	m.report.MemoryMin = r.size("memory pages", min(limit, maxPages), maxPages)
}

func (m *module) readGlobals() {
	r := &m.r
	n := r.count("globals", m.items(), 4)
	for range n {
		r.valueType()
		r.flag("mutability", 1)
		m.constant()
		if r.err != nil {
			return
		}
		m.globals++
	}
	m.report.Globals = int(n)
}

// constant is an initialiser: one instruction that makes a constant, and end.
func (m *module) constant() {
	r := &m.r
	in := r.instr()
	switch {
	case r.err != nil:
		return
	case in.op == opGlobalGet:
		r.bound(in.arg, "global", in.x, m.globals)
	case in.op == opRefFunc:
		r.bound(in.arg, "function", in.x, uint32(len(m.funcs)))
	case in.form == formInt32, in.form == formInt64, in.form == form4, in.form == form8, in.form == formRef, in.op == opV128Const:
	default:
		r.fail(in.at, "constant", "initialiser is not a constant of WASM 2.0")
		return
	}
	at := r.at
	if r.byte() != opEnd {
		r.fail(at, "constant", "initialiser is not a constant of WASM 2.0")
	}
}

func (m *module) readExports() {
	r := &m.r
	n := r.count("exports", maxItems, 3)
	for range n {
		begin := r.at
		name := r.name()
		kind := r.flag("export kind", externGlobal)
		if r.err != nil {
			return
		}
		switch kind {
		case externFunc:
			fn := r.index("function", uint32(len(m.funcs)))
			if r.err == nil && string(name) == "_start" {
				m.readStart(begin, fn)
			}
		case externTable:
			r.index("table", m.tables)
		case externMemory:
			r.index("memory", 1)
			if !m.seen[secMemory] {
				r.fail(begin, "memory index", "memory 0 does not exist")
			}
			if string(name) == "memory" {
				m.memory = true
			}
		case externGlobal:
			r.index("global", m.globals)
		}
	}
	m.report.Exports = int(n)
}

func (m *module) readStart(at int, fn uint32) {
	if fn < m.imported || !m.isType(m.funcs[fn], ">") {
		m.r.fail(at, "_start type", "_start is not a function () -> () of the module; build a command, not a reactor or library")
	}
	m.start = true
}

// The bits of the flags of an element segment.
const (
	elemPassive  = 1 // or declared
	elemExplicit = 2 // table number, or declared
	elemExprs    = 4 // expressions, not function numbers
)

func (m *module) readElements() {
	r := &m.r
	n := r.count("element segments", maxItems, 3)
	for range n {
		m.element()
		if r.err != nil {
			return
		}
	}
	m.elements = n
	m.report.Elements = int(n)
}

func (m *module) element() {
	r := &m.r
	flags := r.flag("element segment", elemPassive|elemExplicit|elemExprs)
	if flags&elemPassive == 0 {
		at, table := r.at, uint32(0)
		if flags&elemExplicit != 0 {
			table = r.u32()
		}
		r.bound(at, "table", table, m.tables)
		m.constant()
	}
	if flags&(elemPassive|elemExplicit) != 0 {
		if flags&elemExprs != 0 {
			r.refType()
		} else {
			r.flag("element kind", 0)
		}
	}
	at := r.at
	n := r.count("elements", maxTable, 1)
	if m.elemItems += uint64(n); m.elemItems > maxTable {
		r.fail(at, "elements", "element segments have more than %d elements", maxTable)
	}
	for i := uint32(0); i < n && r.err == nil; i++ {
		if flags&elemExprs != 0 {
			m.constant()
		} else {
			r.index("function", uint32(len(m.funcs)))
		}
	}
}

func (m *module) readData() {
	r := &m.r
	at := r.at
	n := r.count("data segments", maxItems, 2)
	if r.err == nil && m.seen[secDataCount] && n != m.declared {
		r.fail(at, "data count", "module is damaged: %d data segments, declared are %d", n, m.declared)
	}
	for i := uint32(0); i < n && r.err == nil; i++ {
		flags := r.flag("data segment", 2)
		if flags == 2 {
			r.index("memory", 1)
		}
		if flags != 1 {
			m.constant()
		}
		r.skip(r.u32())
	}
	m.report.Segments = int(n)
}
