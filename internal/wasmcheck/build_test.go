package wasmcheck_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
)

func u(v uint32) []byte { return binary.AppendUvarint(nil, uint64(v)) }

// s is a signed LEB128.
func s(v int64) (b []byte) {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func vec(items ...[]byte) []byte { return append(u(uint32(len(items))), cat(items...)...) }

func str(s string) []byte { return append(u(uint32(len(s))), s...) }

func rep(n int, b ...byte) []byte { return bytes.Repeat(b, n) }

func sec(id byte, content []byte) []byte { return cat([]byte{id}, u(uint32(len(content))), content) }

func wasm(parts ...[]byte) []byte { return append([]byte("\x00asm\x01\x00\x00\x00"), cat(parts...)...) }

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// functype is a function type in letters: i32, I i64, f f32, F f64, v v128, r funcref.
func functype(letters string) []byte {
	params, results, _ := strings.Cut(letters, ">")
	one := func(s string) []byte {
		out := u(uint32(len(s)))
		for _, c := range s {
			out = append(out, map[rune]byte{'i': 0x7f, 'I': 0x7e, 'f': 0x7d, 'F': 0x7c, 'v': 0x7b, 'r': 0x70}[c])
		}
		return out
	}
	return cat([]byte{0x60}, one(params), one(results))
}

func importing(module, name string, typ uint32) []byte {
	return cat(str(module), str(name), []byte{0}, u(typ))
}

func export(name string, kind byte, index uint32) []byte {
	return cat(str(name), []byte{kind}, u(index))
}

// fn is one function: groups of locals as they are encoded, and code without its end.
type fn struct {
	typ    uint32
	locals [][]byte
	code   []byte
}

func local(n uint32, typ byte) []byte { return append(u(n), typ) }

// build is a module that Check accepts, but for what a test puts in. Type 0 is () -> (); the first function is
// _start unless there is an export of it.
type build struct {
	types     []string
	imports   [][]byte
	fns       []fn
	tables    [][]byte
	memory    []byte // nil = one page
	globals   [][]byte
	exports   [][]byte // nil = memory and _start
	elems     [][]byte
	data      [][]byte
	dataCount bool
	custom    []byte // a whole section, at the end
}

func (b build) bytes() []byte {
	types := [][]byte{functype(">")}
	for _, t := range b.types {
		types = append(types, functype(t))
	}
	fns := b.fns
	if fns == nil {
		fns = []fn{{}}
	}
	var decls, bodies [][]byte
	for _, f := range fns {
		decls = append(decls, u(f.typ))
		body := cat(vec(f.locals...), f.code, []byte{0x0b})
		bodies = append(bodies, cat(u(uint32(len(body))), body))
	}
	memory := b.memory
	if memory == nil {
		memory = []byte{1, 0, 1}
	}
	exports := b.exports
	if exports == nil {
		exports = [][]byte{export("memory", 2, 0), export("_start", 0, uint32(len(b.imports)))}
	}
	out := [][]byte{sec(1, vec(types...))}
	add := func(id byte, items [][]byte) {
		if len(items) > 0 {
			out = append(out, sec(id, vec(items...)))
		}
	}
	add(2, b.imports)
	add(3, decls)
	add(4, b.tables)
	out = append(out, sec(5, memory))
	add(6, b.globals)
	add(7, exports)
	add(9, b.elems)
	if b.dataCount {
		out = append(out, sec(12, u(uint32(len(b.data)))))
	}
	add(10, bodies)
	add(11, b.data)
	return wasm(append(out, b.custom)...)
}

// code is a module whose _start is that.
func code(parts ...[]byte) []byte { return build{fns: []fn{{code: cat(parts...)}}}.bytes() }

// The modules of which each costs an engine too much.

// nestedLoops is n loops in one another over n locals; each adds one to its local.
func nestedLoops(n, locals int) []byte {
	var open, end []byte
	for i := range n {
		open = append(open, 0x03, 0x40)
		open = cat(open, []byte{0x20}, u(uint32(i%locals)), []byte{0x41, 1, 0x6a, 0x21}, u(uint32(i%locals)))
		end = cat(end, []byte{0x20}, u(uint32(i%locals)), []byte{0x41, 10, 0x48, 0x0d, 0}, []byte{0x0b})
	}
	return build{fns: []fn{{locals: [][]byte{local(uint32(locals), 0x7f)}, code: cat(open, end)}}}.bytes()
}

// manyIfs is n if/else over n locals, all of them stored at the end.
func manyIfs(n int) []byte {
	var c []byte
	for i := range n {
		x := u(uint32(i))
		c = cat(c, []byte{0x20}, x, []byte{0x04, 0x40, 0x41, 1, 0x21}, x, []byte{0x05, 0x41, 2, 0x21}, x, []byte{0x0b})
	}
	for i := range n {
		c = cat(c, []byte{0x41, 0, 0x20}, u(uint32(i)), []byte{0x36, 2, 0})
	}
	return build{fns: []fn{{locals: [][]byte{local(uint32(n), 0x7f)}, code: c}}}.bytes()
}

// bigFunction is n times load, add, store in one body.
func bigFunction(n int) []byte {
	return code(bytes.Repeat([]byte{0x41, 0, 0x41, 0, 0x28, 2, 0, 0x41, 1, 0x6a, 0x36, 2, 0}, n))
}

func nestedBlocks(n int) []byte { return code(rep(n, 0x02, 0x40), rep(n, 0x0b)) }

// branchTables is n br_tables of m entries each.
func branchTables(n, m int) []byte {
	one := cat([]byte{0x02, 0x40, 0x41, 0, 0x0e}, u(uint32(m)), rep(m+1, 0), []byte{0x0b})
	return code(bytes.Repeat(one, n))
}
