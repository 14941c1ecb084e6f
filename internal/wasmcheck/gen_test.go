package wasmcheck_test

import (
	"encoding/binary"
	"math/rand/v2"
	"strings"
)

// generate makes a random valid module. It always ends: every loop head and function entry takes from a global,
// global 0, and traps when that is used up. Globals are exported as g0, g1 …, so that a test can compare them.
func generate(seed uint64) []byte {
	g := &gen{r: rand.New(rand.NewPCG(seed, 1)), most: 600}
	if g.one(8) { // compiling costs more than the size
		g.most = 3000
	}
	g.module()
	return g.b.bytes()
}

type gen struct {
	r       *rand.Rand
	b       build
	sigs    []string // of all functions, imports first
	types   map[string]uint32
	globals string // types
	imports int
	tables  int
	datas   int
	elems   int

	// of the function that is made
	code   []byte
	locals string // types, parameters first
	labels []int  // open blocks: the number of values that a branch takes, -1 = do not branch there
	depth  int
	most   int // bytes of a function after which no more statements begin
}

const kinds = "iIfF"

func (g *gen) n(n int) int { return g.r.IntN(n) }

func (g *gen) one(n int) bool { return g.r.IntN(n) == 0 }

func (g *gen) pick(s string) byte { return s[g.n(len(s))] }

func (g *gen) letters(most int) string {
	out := make([]byte, g.n(most+1))
	for i := range out {
		out[i] = g.pick(kinds)
	}
	return string(out)
}

func (g *gen) typ(sig string) uint32 {
	if sig == ">" {
		return 0
	}
	x, ok := g.types[sig]
	if !ok {
		g.b.types = append(g.b.types, sig)
		x = uint32(len(g.b.types))
		g.types[sig] = x
	}
	return x
}

func (g *gen) module() {
	g.types = map[string]uint32{}
	for _, im := range []struct{ name, sig string }{{"random_get", "ii>i"}, {"proc_exit", "i>"}, {"sched_yield", ">i"}} {
		if g.one(2) {
			g.b.imports = append(g.b.imports, importing("wasi_snapshot_preview1", im.name, g.typ(im.sig)))
			g.sigs = append(g.sigs, im.sig)
		}
	}
	g.imports = len(g.sigs)
	g.sigs = append(g.sigs, ">")
	for range 1 + g.n(6) {
		result := ""
		if !g.one(4) {
			result = string(g.pick(kinds))
		}
		g.sigs = append(g.sigs, g.letters(3)+">"+result)
	}
	fn := func() uint32 { return uint32(g.imports + g.n(len(g.sigs)-g.imports)) }
	g.b.memory = cat([]byte{1, 1}, u(uint32(1+g.n(2))), u(uint32(3+g.n(3))))
	g.globals = "i" + g.letters(4)
	for i, t := range []byte(g.globals) {
		init := g.constant(t)
		if i == 0 {
			init = cat([]byte{0x41}, s(int64(500+g.n(5000))))
		}
		g.b.globals = append(g.b.globals, cat(functype(">" + string(t))[3:], []byte{1}, init, []byte{0x0b}))
	}
	if g.one(2) {
		g.b.globals = append(g.b.globals, cat([]byte{0x70, 0, 0xd2}, u(fn()), []byte{0x0b}))
	}
	g.tables = g.n(3)
	for range g.tables {
		if g.one(2) {
			g.b.tables = append(g.b.tables, []byte{0x70, 0, byte(4 + g.n(8))})
		} else {
			g.b.tables = append(g.b.tables, []byte{0x70, 1, byte(4 + g.n(8)), byte(20 + g.n(20))})
		}
	}
	if g.tables > 0 {
		for range 1 + g.n(4) {
			f := u(fn())
			expr := cat([]byte{0xd2}, f, []byte{0x0b})
			g.b.elems = append(g.b.elems, [][]byte{
				cat([]byte{0, 0x41, 0, 0x0b}, vec(f, f)), cat([]byte{1, 0}, vec(f)), cat([]byte{2, 0, 0x41, 1, 0x0b, 0}, vec(f)),
				cat([]byte{3, 0}, vec(f)), cat([]byte{4, 0x41, 2, 0x0b}, vec(expr)), cat([]byte{5, 0x70}, vec(expr, []byte{0xd0, 0x70, 0x0b})),
				cat([]byte{6, 0, 0x41, 1, 0x0b, 0x70}, vec(expr)), cat([]byte{7, 0x70}, vec(expr)),
			}[g.n(8)])
		}
	}
	var all [][]byte // ref.func needs a declaration
	for i := range g.sigs {
		all = append(all, u(uint32(i)))
	}
	g.b.elems = append(g.b.elems, cat([]byte{3, 0}, vec(all...)))
	g.elems = len(g.b.elems)
	g.datas = g.n(3)
	for range g.datas {
		g.b.data = append(g.b.data, [][]byte{cat([]byte{0, 0x41, byte(g.n(60)), 0x0b}, str("data")), cat([]byte{1}, str("passive"))}[g.n(2)])
	}
	g.b.dataCount = true
	g.b.exports = [][]byte{export("memory", 2, 0), export("_start", 0, uint32(g.imports)), export("f", 0, fn())}
	for i := range g.globals {
		g.b.exports = append(g.b.exports, export("g"+string(rune('0'+i)), 3, uint32(i)))
	}
	if g.one(3) {
		g.b.custom = sec(0, cat(str("name"), []byte{0, 1, 0}))
	}
	for i := g.imports; i < len(g.sigs); i++ {
		g.function(g.sigs[i])
	}
}

func (g *gen) function(sig string) {
	params, result, _ := strings.Cut(sig, ">")
	own := g.letters(5) + "i" // the last one is for loops
	g.locals, g.code, g.labels, g.depth = params+own, nil, []int{-1}, 0
	if result == "" {
		g.labels[0] = 0
	}
	g.fuel()
	if sig == ">" && len(g.b.fns) == 0 { // _start does more
		for range 3 {
			g.statements(4)
		}
	}
	g.statements(6)
	if g.one(40) {
		g.straight()
	}
	if result != "" {
		g.expr(result[0])
	}
	var groups [][]byte
	for _, t := range []byte(own) {
		groups = append(groups, local(1, typeByte(t)))
	}
	g.b.fns = append(g.b.fns, fn{typ: g.typ(sig), locals: groups, code: g.code})
}

func typeByte(t byte) byte { return functype(">" + string(t))[3] }

func (g *gen) op(b ...byte) { g.code = append(g.code, b...) }

func (g *gen) index(op byte, x int) { g.code = append(append(g.code, op), u(uint32(x))...) }

// fuel traps when global 0 is zero and takes one from it.
func (g *gen) fuel() {
	g.op(0x23, 0, 0x45, 0x04, 0x40, 0x00, 0x0b, 0x23, 0, 0x41, 1, 0x6b, 0x24, 0)
}

// straight is a long piece of code without a branch: Meter puts checks into it.
func (g *gen) straight() {
	for range 900 + g.n(900) {
		g.op(0x23, 0, 0x45, 0x1a, 0x01, 0x01)
	}
}

func (g *gen) constant(t byte) []byte {
	v := g.r.Uint64()
	if g.one(2) {
		v = uint64(g.n(8))
	}
	switch t {
	case 'i':
		return cat([]byte{0x41}, s(int64(int32(v))))
	case 'I':
		return cat([]byte{0x42}, s(int64(v)))
	case 'f':
		return binary.LittleEndian.AppendUint32([]byte{0x43}, uint32(g.n(1<<20))<<10|0x3f000000)
	}
	return binary.LittleEndian.AppendUint64([]byte{0x44}, uint64(g.n(1<<20))<<30|0x3ff0000000000000)
}

// some finds the number of a local or global of a type, or -1.
func (g *gen) some(types string, t byte) int {
	if len(types) == 0 {
		return -1
	}
	begin := g.n(len(types))
	for i := range len(types) {
		if x := (begin + i) % len(types); types[x] == t {
			return x
		}
	}
	return -1
}

// The operators of each type: unary, binary, loads, stores.
var (
	unary = map[byte]string{'i': "\x45\x67\x68\x69\xc0\xc1", 'I': "\x79\x7a\x7b\xc2\xc3\xc4", 'f': "\x8b\x8d\x8e", 'F': "\x99\x9b\x9c"}
	twice = map[byte]string{
		'i': "\x46\x47\x48\x49\x4c\x6a\x6b\x6c\x6d\x6e\x6f\x70\x71\x72\x73\x74\x75\x76\x77\x78", 'I': "\x7c\x7d\x7e\x7f\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a",
		'f': "\x92\x93\x94", 'F': "\xa0\xa1\xa2",
	}
	loads  = map[byte]string{'i': "\x28\x2c\x2d\x2e\x2f", 'I': "\x29\x30\x31\x34\x35"}
	stores = map[byte]string{'i': "\x36\x3a\x3b", 'I': "\x37\x3c\x3e", 'f': "\x38", 'F': "\x39"}
)

// address makes an address that is mostly in the memory.
func (g *gen) address() {
	g.expr('i')
	if !g.one(50) {
		g.op(0x41, 0xff, 0xff, 0x03, 0x71)
	}
}

// small makes a number of at most mask, or rarely a large one.
func (g *gen) small(mask byte) {
	g.expr('i')
	if !g.one(50) {
		g.op(0x41, mask, 0x71)
	}
}

// expr leaves one value of type t.
func (g *gen) expr(t byte) {
	g.depth++
	defer func() { g.depth-- }()
	if g.depth > 5 || len(g.code) > g.most {
		g.leaf(t)
		return
	}
	switch g.n(14) {
	case 0, 1:
		g.expr(t)
		g.op(g.pick(unary[t]))
	case 2, 3, 4:
		g.expr(t)
		g.expr(t)
		op := g.pick(twice[t])
		if (op >= 0x6d && op <= 0x70 || op >= 0x7f && op <= 0x82) && !g.one(30) { // divide by an odd number
			g.op(map[byte][]byte{'i': {0x41, 3, 0x71, 0x41, 1, 0x72}, 'I': {0x42, 3, 0x83, 0x42, 1, 0x84}}[t]...)
		}
		g.op(op)
	case 5:
		if ops := loads[t]; ops != "" {
			g.address()
			g.op(g.pick(ops), 0)
			g.code = append(g.code, u(uint32(g.n(40)))...)
			return
		}
		g.expr(map[byte]byte{'f': 'i', 'F': 'I'}[t])
		g.op(map[byte]byte{'f': 0xb2, 'F': 0xb9}[t])
	case 6:
		g.expr(t)
		g.expr(t)
		g.expr('i')
		g.op(0x1b)
	case 7:
		g.expr('i')
		g.op(0x04, typeByte(t))
		g.inside(1, func() { g.statements(2); g.expr(t) })
		g.op(0x05)
		g.inside(1, func() { g.expr(t) })
		g.op(0x0b)
	case 8: // a loop that takes a value and gives one
		g.expr(t)
		g.index(0x03, int(g.typ(string(t)+">"+string(t))))
		g.inside(-1, func() { g.fuel(); g.statements(1); g.op(g.pick(unary[t])) })
		g.op(0x0b)
	case 9:
		g.op(0x02, typeByte(t))
		g.inside(1, func() { g.statements(1); g.expr(t); g.expr('i'); g.op(0x0d, 0) })
		g.op(0x0b)
	case 10, 11:
		g.call(t)
	case 12:
		g.special(t)
	default:
		g.leaf(t)
	}
}

func (g *gen) leaf(t byte) {
	if x := g.some(g.locals, t); x >= 0 && g.one(2) {
		g.index(0x20, x)
		return
	}
	if x := g.some(g.globals, t); x >= 0 && g.one(3) {
		g.index(0x23, x)
		return
	}
	g.code = append(g.code, g.constant(t)...)
}

// call calls a function with result t, also by table.
func (g *gen) call(t byte) {
	begin := g.n(len(g.sigs))
	for i := range g.sigs {
		x := (begin + i) % len(g.sigs)
		params, result, _ := strings.Cut(g.sigs[x], ">")
		if result != string(t) || x < g.imports && params != "" {
			continue
		}
		for _, p := range []byte(params) {
			g.expr(p)
		}
		if g.tables > 0 && g.one(3) {
			g.small(3)
			g.index(0x11, int(g.typ(g.sigs[x])))
			g.code = append(g.code, byte(g.n(g.tables)))
			return
		}
		g.index(0x10, x)
		return
	}
	g.leaf(t)
}

// special is what only few types have.
func (g *gen) special(t byte) {
	switch {
	case t == 'i' && g.one(3):
		g.op(0x3f, 0)
	case t == 'i' && g.one(3):
		g.op(0x41, byte(g.n(2)), 0x40, 0)
	case t == 'i' && g.tables > 0:
		table := byte(g.n(g.tables))
		if g.one(2) {
			g.small(3)
			g.op(0x25, table, 0xd1)
			return
		}
		g.index(0xd2, g.n(len(g.sigs)))
		g.op(0x41, byte(g.n(4)), 0xfc, 15, table)
	case t == 'I':
		g.expr('i')
		g.op(0xfd, 0x11, 0xfd, 0x62, 0xfd, 0x1d, 0) // splat, popcnt, extract
	default:
		g.leaf(t)
	}
}

// inside makes code within a block, to which a branch takes that many values.
func (g *gen) inside(values int, do func()) {
	g.labels = append(g.labels, values)
	do()
	g.labels = g.labels[:len(g.labels)-1]
}

// target is the depth of a block to which a branch takes nothing, or -1.
func (g *gen) target() int {
	for range 4 {
		if d := g.n(len(g.labels)); g.labels[len(g.labels)-1-d] == 0 {
			return d
		}
	}
	return -1
}

func (g *gen) statements(most int) {
	for range 1 + g.n(most) {
		g.statement()
	}
}

func (g *gen) statement() {
	g.depth++
	defer func() { g.depth-- }()
	if g.depth > 5 || len(g.code) > g.most {
		return
	}
	switch g.n(16) {
	case 0, 1, 2:
		x := g.n(len(g.locals))
		g.expr(g.locals[x])
		g.index(0x21, x)
	case 3:
		if x := 1 + g.n(len(g.globals)); x < len(g.globals) {
			g.expr(g.globals[x])
			g.index(0x24, x)
		}
	case 4, 5:
		t := g.pick(kinds)
		g.address()
		g.expr(t)
		g.op(g.pick(stores[t]), 0, byte(g.n(64)))
	case 6:
		t := g.pick(kinds)
		g.expr(t)
		g.op(0x1a)
	case 7:
		g.expr('i')
		g.op(0x04, 0x40)
		g.inside(0, func() { g.statements(2) })
		if g.one(2) {
			g.op(0x05)
			g.inside(0, func() { g.statements(2) })
		}
		g.op(0x0b)
	case 8:
		g.op(0x02, 0x40)
		g.inside(0, func() { g.statements(2); g.jump(); g.statements(1) })
		g.op(0x0b)
	case 9, 10: // a loop that goes on while there is fuel, or until its local says so
		x := len(g.locals) - 1
		g.op(0x03, 0x40)
		g.inside(0, func() { g.fuel(); g.statements(3) })
		g.index(0x20, x)
		g.op(0x41, 1, 0x6a)
		g.index(0x22, x)
		g.op(0x41, byte(g.n(60)), 0x49, 0x0d, 0, 0x0b)
	case 11:
		n := 1 + g.n(4)
		for range n {
			g.op(0x02, 0x40)
			g.labels = append(g.labels, 0)
		}
		g.small(7)
		g.index(0x0e, n-1)
		for i := range n {
			g.op(byte(i))
		}
		for range n {
			g.op(0x0b)
			g.labels = g.labels[:len(g.labels)-1]
			g.statements(1)
		}
	case 12, 13:
		g.bulk()
	case 14:
		g.jump()
	case 15:
		if x := g.imports - 1; x >= 0 && g.sigs[x] == "i>" && g.one(20) {
			g.expr('i')
			g.index(0x10, x)
		}
		if g.one(200) {
			g.op(0x00)
		}
	}
}

// jump branches somewhere if a condition holds.
func (g *gen) jump() {
	if d := g.target(); d >= 0 {
		g.expr('i')
		g.index(0x0d, d)
	}
}

func (g *gen) bulk() {
	args := func() { g.small(63); g.small(63); g.small(63) }
	switch table := byte(0); {
	case g.one(2):
		args()
		g.op([][]byte{{0xfc, 11, 0}, {0xfc, 10, 0, 0}}[g.n(2)]...)
	case g.datas > 0 && g.one(2):
		g.small(63)
		g.op(0x41, byte(g.n(3)), 0x41, byte(g.n(3)), 0xfc, 8, byte(g.n(g.datas)), 0)
	case g.datas > 0 && g.one(3):
		g.op(0xfc, 9, byte(g.n(g.datas)))
	case g.tables > 0:
		table = byte(g.n(g.tables))
		g.op(0x41, byte(g.n(3)))
		switch g.n(3) {
		case 0:
			g.op(0xd0, 0x70, 0x41, byte(g.n(3)), 0xfc, 17, table)
		case 1:
			g.op(0x41, byte(g.n(3)), 0x41, byte(g.n(3)), 0xfc, 14, table, byte(g.n(g.tables)))
		case 2:
			g.op(0x41, 0, 0x41, byte(g.n(20)/19), 0xfc, 12, byte(g.n(g.elems)), table)
		}
	}
}
