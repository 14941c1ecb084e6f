package wasmcheck

// form is what follows an opcode.
type form uint8

const (
	formBad form = iota
	formNone
	formBlock       // block type
	formLabel       // label
	formLabels      // vector of labels, label
	formFunc        // function
	formIndirect    // type, table
	formSelect      // vector of value types
	formLocal       // local
	formGlobal      // global
	formTable       // table
	formMemory      // alignment, offset
	formZero        // the number of the memory, a byte
	formInt32       // signed number
	formInt64       // signed number
	form4           // 4 bytes
	form8           // 8 bytes
	form16          // 16 bytes
	formRef         // reference type
	formLane        // byte
	formMemoryLane  // alignment, offset, byte
	formDataZero    // data segment, memory
	formData        // data segment
	formZeroZero    // memory, memory
	formElemTable   // element segment, table
	formElem        // element segment
	formTableTable  // table, table
	formPrefixed    // second opcode
	noType          = ^uint32(0)
	prefixFC        = 0xfc
	prefixFD        = 0xfd
	pageOfPrefixed  = 0x100
	memoryAlignment = 4 // 2^4 bytes is the widest access
)

// The opcodes that Check or Meter look at. Those behind a prefix are prefix << 8 | number.
const (
	opUnreachable  = 0x00
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opElse         = 0x05
	opEnd          = 0x0b
	opBr           = 0x0c
	opBrIf         = 0x0d
	opBrTable      = 0x0e
	opReturn       = 0x0f
	opCall         = 0x10
	opCallIndirect = 0x11
	opLocalGet     = 0x20
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opMemoryGrow   = 0x40
	opI32Const     = 0x41
	opI32LeS       = 0x4c
	opI32Sub       = 0x6b
	opI32ShrU      = 0x76
	opRefFunc      = 0xd2
	opMemoryInit   = prefixFC<<8 | 8
	opMemoryCopy   = prefixFC<<8 | 10
	opMemoryFill   = prefixFC<<8 | 11
	opTableInit    = prefixFC<<8 | 12
	opTableCopy    = prefixFC<<8 | 14
	opTableGrow    = prefixFC<<8 | 15
	opTableFill    = prefixFC<<8 | 17
	opV128Const    = prefixFD<<8 | 12
)

// isBulk reports whether an operation takes time in proportion to the number on top of the stack.
func isBulk(op uint32) bool {
	switch op {
	case opMemoryInit, opMemoryCopy, opMemoryFill, opTableInit, opTableCopy, opTableGrow, opTableFill:
		return true
	}
	return false
}

// forms are those of the opcodes of one byte, formsFC and formsFD of those behind a prefix: WebAssembly core 2.0,
// section 5.4. What is not listed is not in it: threads, tail calls, exceptions, GC, relaxed SIMD.
var forms = makeForms([]span{
	{0x00, 0x01, formNone},
	{0x02, 0x04, formBlock},
	{0x05, 0x05, formNone},
	{0x0b, 0x0b, formNone},
	{0x0c, 0x0d, formLabel},
	{0x0e, 0x0e, formLabels},
	{0x0f, 0x0f, formNone},
	{0x10, 0x10, formFunc},
	{0x11, 0x11, formIndirect},
	{0x1a, 0x1b, formNone},
	{0x1c, 0x1c, formSelect},
	{0x20, 0x22, formLocal},
	{0x23, 0x24, formGlobal},
	{0x25, 0x26, formTable},
	{0x28, 0x3e, formMemory},
	{0x3f, 0x40, formZero},
	{0x41, 0x41, formInt32},
	{0x42, 0x42, formInt64},
	{0x43, 0x43, form4},
	{0x44, 0x44, form8},
	{0x45, 0xc4, formNone},
	{0xd0, 0xd0, formRef},
	{0xd1, 0xd1, formNone},
	{0xd2, 0xd2, formFunc},
	{prefixFC, prefixFD, formPrefixed},
})

var formsFC = makeForms([]span{
	{0, 7, formNone},
	{8, 8, formDataZero},
	{9, 9, formData},
	{10, 10, formZeroZero},
	{11, 11, formZero},
	{12, 12, formElemTable},
	{13, 13, formElem},
	{14, 14, formTableTable},
	{15, 17, formTable},
})

var formsFD = makeForms([]span{
	{0x00, 0x0b, formMemory},
	{0x0c, 0x0d, form16},
	{0x0e, 0x14, formNone},
	{0x15, 0x22, formLane},
	{0x23, 0x53, formNone},
	{0x54, 0x5b, formMemoryLane},
	{0x5c, 0x5d, formMemory},
	{0x5e, 0x99, formNone},
	{0x9b, 0xa1, formNone},
	{0xa3, 0xa4, formNone},
	{0xa7, 0xae, formNone},
	{0xb1, 0xb1, formNone},
	{0xb5, 0xba, formNone},
	{0xbc, 0xc1, formNone},
	{0xc3, 0xc4, formNone},
	{0xc7, 0xce, formNone},
	{0xd1, 0xd1, formNone},
	{0xd5, 0xe1, formNone},
	{0xe3, 0xed, formNone},
	{0xef, 0xff, formNone},
})

type span struct {
	first, last int
	form        form
}

func makeForms(spans []span) *[256]form {
	var out [256]form
	for _, s := range spans {
		for i := s.first; i <= s.last; i++ {
			out[i] = s.form
		}
	}
	return &out
}

// instr is one instruction. x and y are its operands: type, label, function and so on in the order in which they are
// written. Of a br_table x is the number of entries and y the largest label.
type instr struct {
	op   uint32
	form form
	at   int // of the opcode
	arg  int // of the first operand
	x, y uint32
}

// instr reads the next instruction. The meaning of its operands is not looked at.
func (r *reader) instr() instr {
	in := instr{at: r.at}
	op := r.byte()
	in.op, in.form, in.arg = uint32(op), forms[op], r.at
	if in.form == formPrefixed {
		sub := r.u32()
		in.op, in.arg, in.form = uint32(op)<<8|sub, r.at, formBad
		switch {
		case sub >= pageOfPrefixed:
			in.op = uint32(op) << 8
		case op == prefixFC:
			in.form = formsFC[sub]
		default:
			in.form = formsFD[sub]
		}
	}
	switch in.form {
	case formNone:
	case formBad:
		if r.err == nil {
			r.fail(in.at, "opcode", "instruction % x is not part of WASM 2.0", r.b[in.at:r.at])
		}
	case formBlock:
		in.x = r.blockType()
	case formLabel, formFunc, formLocal, formGlobal, formTable, formData, formElem:
		in.x = r.u32()
	case formIndirect, formElemTable, formTableTable:
		in.x, in.y = r.u32(), r.u32()
	case formLabels:
		in.x, in.y = r.labels()
	case formSelect:
		for range r.count("results", maxValues, 1) {
			r.valueType()
		}
	case formMemory:
		r.memory()
	case formZero:
		r.flag("memory", 0)
	case formZeroZero:
		r.flag("memory", 0)
		r.flag("memory", 0)
	case formDataZero:
		in.x = r.u32()
		r.flag("memory", 0)
	case formInt32:
		r.skipInt(5)
	case formInt64:
		r.skipInt(10)
	case form4:
		r.skip(4)
	case form8:
		r.skip(8)
	case form16:
		r.skip(16)
	case formRef:
		r.refType()
	case formLane:
		r.byte()
	case formMemoryLane:
		r.memory()
		r.byte()
	}
	return in
}

func (r *reader) blockType() uint32 {
	if r.at < r.end && (r.b[r.at] == typeEmpty || isValueType(r.b[r.at])) {
		r.at++
		return noType
	}
	at := r.at
	v := r.s33()
	if v < 0 || v >= int64(noType) {
		r.fail(at, "block type", "block type %d is not part of WASM 2.0", v)
		return noType
	}
	return uint32(v)
}

func (r *reader) labels() (n, largest uint32) {
	at := r.at
	if n = r.u32(); n > maxBranch {
		r.fail(at, "br_table entries", "br_table with %d entries, at most %d", n, maxBranch)
		return 0, 0
	}
	for range n + 1 {
		if largest = max(largest, r.u32()); r.err != nil {
			break
		}
	}
	return n, largest
}

func (r *reader) memory() {
	at := r.at
	if align := r.u32(); align > memoryAlignment {
		r.fail(at, "alignment", "alignment 2^%d is not part of WASM 2.0", align)
	}
	r.u32()
}
