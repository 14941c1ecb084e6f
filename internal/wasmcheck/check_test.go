package wasmcheck_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/delivery-station/ds/internal/wasmcheck"
)

// The three modules that kill or panic wazero 1.12 in CompileModule, and one that takes a gigabyte when it runs.
const (
	killLocals = "0061736d 01000000 0104 01 600000 0302 0100 0a0a 01 08 01 80d0acf30e 7e 0b"
	killNames  = "0061736d 01000000 000d 04 6e616d65 01 06 ffffffff0f 00"
	killType   = "0061736d 01000000 0104 01 600000 0303 02 00 4e 0a0a 02 04 00 1001 0b 03 00 01 0b"
	growTable  = "0061736d 01000000 0104 01 600000 0302 0100 0404 01 700000 0705 01 01 66 0000 0a0f 01 0d 00 d070 4180d3f23f fc0f00 1a 0b"
)

func TestRules(t *testing.T) {
	t.Parallel()
	var (
		i32  = byte(0x7f)
		zero = []byte{0x41, 0}
		null = []byte{0xd0, 0x70}
		tab  = [][]byte{{0x70, 0, 1}}
	)
	for _, c := range []struct {
		name string
		b    []byte
		rule string // "" = accepted
		text string // a part of the error
	}{
		{"least", build{}.bytes(), "", ""},
		{"custom sections unread", build{custom: sec(0, []byte{0xff, 0xff})}.bytes(), "", ""},
		{"empty", nil, "magic", "not a WASM module"},
		{"script", []byte("#!/bin/sh\n"), "magic", "not a WASM module"},
		{"component", []byte("\x00asm\x0d\x00\x01\x00"), "component", "component model is not supported, build for wasip1"},
		{"version", []byte("\x00asm\x02\x00\x00\x00"), "version", "WASM version is not 1"},
		{"too large", append(build{}.bytes(), make([]byte, wasmcheck.MaxModule)...), "module size", ""},
		{"nothing in it", wasm(), "memory export", "build a command"},

		{"section cut off", wasm([]byte{1, 200, 1, 0}), "section size", "(type section, byte 8)"},
		{"section unknown", wasm(sec(13, nil)), "section id", "section 13"},
		{"section twice", wasm(sec(1, vec()), sec(1, vec())), "section order", ""},
		{"section order", wasm(sec(3, vec()), sec(1, vec())), "section order", "(type section, byte 11)"},
		{"section too long", wasm(sec(1, []byte{0, 0})), "section size", "longer"},
		{"section too short", wasm(sec(1, []byte{1})), "vector length", ""},
		{"start section", wasm(sec(1, vec(functype(">"))), sec(3, vec(u(0))), sec(8, u(0))), "start section", "(start section, byte 18)"},
		{"number too long", wasm([]byte{1, 0x80, 0x80, 0x80, 0x80, 0x80, 0}), "number", ""},
		{"number over 32 bits", wasm([]byte{1, 0xff, 0xff, 0xff, 0xff, 0x1f}), "number", ""},
		{"number padded", wasm([]byte{1, 0x84, 0x80, 0x80, 0x80, 0, 1, 0x60, 0, 0}), "memory export", ""},

		{"types", wasm(sec(1, cat(u(100_001), bytes.Repeat(functype(">"), 100_001)))), "types", "100001 types, at most 100000"},
		{"type form", wasm(sec(1, vec([]byte{0x5f, 0, 0}))), "type form", ""},
		{"params 1000", build{types: []string{strings.Repeat("i", 1000) + ">"}}.bytes(), "", ""},
		{"params 1001", build{types: []string{strings.Repeat("i", 1001) + ">"}}.bytes(), "parameters", ""},
		{"results 1001", build{types: []string{">" + strings.Repeat("i", 1001)}}.bytes(), "results", ""},
		{"value type", wasm(sec(1, vec([]byte{0x60, 1, 0x6e, 0}))), "value type", ""},

		{"import WASI", build{types: []string{"iiii>i"}, imports: [][]byte{importing("wasi_snapshot_preview1", "fd_write", 1)}}.bytes(), "", ""},
		{"import ds_v1", build{types: []string{"iiiiii>I"}, imports: [][]byte{importing("ds_v1", "call", 1)}}.bytes(), "", ""},
		{"import unknown module", build{imports: [][]byte{importing("env", "memset", 0)}}.bytes(), "import", "module imports env.memset; only wasi_snapshot_preview1 and ds_v1 are there"},
		{"import unknown WASI", build{imports: [][]byte{importing("wasi_snapshot_preview1", "thread_spawn", 0)}}.bytes(), "import", "which does not exist"},
		{"import WASI type", build{imports: [][]byte{importing("wasi_snapshot_preview1", "fd_write", 0)}}.bytes(), "import", "fd_write () -> ()"},
		{"import newer ds_v1", build{imports: [][]byte{importing("ds_v1", "later", 0)}}.bytes(), "import", "module imports ds_v1.later () -> (): needs a newer ds"},
		{"import ds_v1 type", build{imports: [][]byte{importing("ds_v1", "call", 0)}}.bytes(), "import", "needs a newer ds"},
		{"import tick", build{imports: [][]byte{importing("ds_meter", "tick", 0)}}.bytes(), "import", "ds_meter.tick"},
		{"import memory", wasm(sec(2, vec(cat(str("env"), str("memory"), []byte{2, 0, 1})))), "import kind", "module imports its memory; it must export one"},
		{"import table", wasm(sec(2, vec(cat(str("env"), str("t"), []byte{1, 0x70, 0, 1})))), "import kind", "a table, env.t"},
		{"import global", wasm(sec(2, vec(cat(str("env"), str("g"), []byte{3, 0x7f, 0})))), "import kind", "a global"},
		{"import type index", wasm(sec(1, vec(functype(">"))), sec(2, vec(importing("ds_v1", "call", 1)))), "type index", ""},
		{"import hostile name", build{imports: [][]byte{importing("a\x1b[2J", "\n", 0)}}.bytes(), "import", "a?[2J.?"},
		{"name 256", build{exports: [][]byte{export("memory", 2, 0), export("_start", 0, 0), export(strings.Repeat("x", 256), 0, 0)}}.bytes(), "", ""},
		{"name 257", build{exports: [][]byte{export(strings.Repeat("x", 257), 0, 0)}}.bytes(), "name length", ""},
		{"name encoding", build{exports: [][]byte{export("\xff", 0, 0)}}.bytes(), "name encoding", ""},

		{"function type", wasm(sec(1, vec(functype(">"))), sec(3, vec(u(1)))), "type index", "type 1 does not exist"},
		{"functions", wasm(sec(1, vec(functype(">"))), sec(3, append(u(100_001), make([]byte, 100_001)...))), "functions", ""},
		{"no code", wasm(sec(1, vec(functype(">"))), sec(3, vec(u(0)))), "code section", ""},
		{"too little code", wasm(sec(1, vec(functype(">"))), sec(3, vec(u(0), u(0))), sec(10, vec([]byte{2, 0, 0x0b}))), "function count", ""},
		{"vector longer than the section", wasm(sec(3, u(5))), "vector length", ""},

		{"tables 16", build{tables: slices.Repeat(tab, 16)}.bytes(), "", ""},
		{"tables 17", build{tables: slices.Repeat(tab, 17)}.bytes(), "tables", ""},
		{"table minimum", build{tables: [][]byte{cat([]byte{0x70, 0}, u(1_000_001))}}.bytes(), "table minimum", ""},
		{"table minimum fits", build{tables: [][]byte{cat([]byte{0x70, 0}, u(1_000_000))}}.bytes(), "", ""},
		{"table maximum", build{tables: [][]byte{{0x70, 1, 5, 4}}}.bytes(), "table maximum", ""},
		{"table type", build{tables: [][]byte{{0x7f, 0, 1}}}.bytes(), "reference type", ""},
		{"table flags", build{tables: [][]byte{{0x70, 3, 1}}}.bytes(), "table limits", ""},
		{"memories 2", build{memory: []byte{2, 0, 1, 0, 1}}.bytes(), "memories", "2 memories"},
		{"memories 0", build{memory: []byte{0}}.bytes(), "memories", ""},
		{"memory shared", build{memory: []byte{1, 3, 1, 2}}.bytes(), "memory pages limits", ""},
		{"memory64", build{memory: []byte{1, 4, 1}}.bytes(), "memory pages limits", ""},
		{"memory minimum", build{memory: cat([]byte{1, 0}, u(65537))}.bytes(), "memory pages minimum", ""},
		{"memory maximum", build{memory: cat([]byte{1, 1, 1}, u(65537))}.bytes(), "memory pages maximum", ""},
		{"memory under maximum", build{memory: []byte{1, 1, 2, 1}}.bytes(), "memory pages maximum", ""},

		{"global", build{globals: [][]byte{{i32, 0, 0x41, 5, 0x0b}, {0x7b, 1, 0xfd, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0b}}}.bytes(), "", ""},
		{"global mutability", build{globals: [][]byte{{i32, 2, 0x41, 5, 0x0b}}}.bytes(), "mutability", ""},
		{"global not constant", build{globals: [][]byte{{i32, 0, 0x01, 0x0b}}}.bytes(), "constant", ""},
		{"global of two", build{globals: [][]byte{{i32, 0, 0x41, 1, 0x41, 1, 0x6a, 0x0b}}}.bytes(), "constant", ""},
		{"global of itself", build{globals: [][]byte{{i32, 0, 0x23, 0, 0x0b}}}.bytes(), "global index", ""},
		{"global of no function", build{globals: [][]byte{{0x70, 0, 0xd2, 1, 0x0b}}}.bytes(), "function index", ""},

		{"export function index", build{exports: [][]byte{export("f", 0, 1)}}.bytes(), "function index", ""},
		{"export table index", build{exports: [][]byte{export("f", 1, 0)}}.bytes(), "table index", ""},
		{"export memory index", build{exports: [][]byte{export("f", 2, 1)}}.bytes(), "memory index", ""},
		{"export global index", build{exports: [][]byte{export("f", 3, 0)}}.bytes(), "global index", ""},
		{"export kind", build{exports: [][]byte{export("f", 4, 0)}}.bytes(), "export kind", ""},
		{"no memory", build{exports: [][]byte{export("_start", 0, 0)}}.bytes(), "memory export", ""},
		{"memory by another name", build{exports: [][]byte{export("mem", 2, 0), export("_start", 0, 0)}}.bytes(), "memory export", ""},
		{"no _start", build{exports: [][]byte{export("memory", 2, 0), export("_initialize", 0, 0)}}.bytes(), "_start export", "build a command, not a reactor"},
		{"_start type", build{types: []string{"i>"}, fns: []fn{{typ: 1}}}.bytes(), "_start type", ""},
		{"_start imported", build{types: []string{"i>"}, imports: [][]byte{importing("wasi_snapshot_preview1", "proc_exit", 1)}, exports: [][]byte{export("memory", 2, 0), export("_start", 0, 0)}}.bytes(), "_start type", ""},

		{"element segments", build{tables: tab, elems: [][]byte{
			cat([]byte{0}, zero, []byte{0x0b}, vec(u(0))),
			cat([]byte{1, 0}, vec(u(0))),
			cat([]byte{2, 0}, zero, []byte{0x0b, 0}, vec(u(0))),
			cat([]byte{3, 0}, vec(u(0))),
			cat([]byte{4}, zero, []byte{0x0b}, vec([]byte{0xd2, 0, 0x0b})),
			cat([]byte{5, 0x70}, vec([]byte{0xd2, 0, 0x0b})),
			cat([]byte{6, 0}, zero, []byte{0x0b, 0x70}, vec(cat(null, []byte{0x0b}))),
			cat([]byte{7, 0x70}, vec(cat(null, []byte{0x0b}))),
		}}.bytes(), "", ""},
		{"element flags", build{tables: tab, elems: [][]byte{{8, 0, 0}}}.bytes(), "element segment", ""},
		{"element table", build{elems: [][]byte{cat([]byte{0}, zero, []byte{0x0b}, vec(u(0)))}}.bytes(), "table index", ""},
		{"element function", build{elems: [][]byte{cat([]byte{1, 0}, vec(u(1)))}}.bytes(), "function index", ""},
		{"element function by expression", build{elems: [][]byte{cat([]byte{5, 0x70}, vec([]byte{0xd2, 1, 0x0b}))}}.bytes(), "function index", ""},
		{"element kind", build{elems: [][]byte{{1, 1, 0}}}.bytes(), "element kind", ""},
		{"elements of all", build{elems: [][]byte{
			cat([]byte{1, 0}, u(600_000), make([]byte, 600_000)), cat([]byte{1, 0}, u(400_001), make([]byte, 400_001)),
		}}.bytes(), "elements", "more than 1000000"},

		{"data", build{data: [][]byte{cat([]byte{0}, zero, []byte{0x0b}, str("x")), cat([]byte{1}, str("y")), cat([]byte{2, 0}, zero, []byte{0x0b}, str("z"))}}.bytes(), "", ""},
		{"data flags", build{data: [][]byte{{3, 0}}}.bytes(), "data segment", ""},
		{"data memory", build{data: [][]byte{cat([]byte{2, 1}, zero, []byte{0x0b}, str("z"))}}.bytes(), "memory index", ""},
		{"data cut off", build{data: [][]byte{cat([]byte{1}, u(100))}}.bytes(), "cut off", ""},
		{"data count", wasm(sec(12, u(1)), sec(11, vec())), "data count", ""},
		{"data missing", wasm(sec(12, u(1))), "data section", ""},

		{"body of 512 KiB", code(rep(512<<10-3, 0x01)), "", ""},
		{"body over 512 KiB", code(rep(512<<10, 0x01)), "body size", "at most 524288"},
		{"body goes on", code([]byte{0x0b, 0x01}), "body size", "goes on after its end"},
		{"body without end", wasm(sec(1, vec(functype(">"))), sec(3, vec(u(0))), sec(10, vec([]byte{2, 0, 0x01}))), "cut off", ""},
		{"body larger than the section", wasm(sec(1, vec(functype(">"))), sec(3, vec(u(0))), sec(10, vec([]byte{9, 0, 0x0b}))), "cut off", ""},
		{"locals 10000", build{fns: []fn{{locals: [][]byte{local(5000, i32), local(5000, 0x7e)}}}}.bytes(), "", ""},
		{"locals 10001", build{fns: []fn{{locals: [][]byte{local(5000, i32), local(5001, 0x7e)}}}}.bytes(), "locals", "10001 locals, at most 10000"},
		{"locals and parameters", build{types: []string{"i>"}, fns: []fn{{}, {typ: 1, locals: [][]byte{local(10_000, i32)}}}}.bytes(), "locals", ""},
		{"locals overflow", build{fns: []fn{{locals: [][]byte{local(1<<32-1, i32), local(2, i32)}}}}.bytes(), "locals", ""},

		{"type index of a block", code([]byte{0x02, 1, 0x0b}), "type index", ""},
		{"block type", code([]byte{0x02, 0x6e, 0x0b}), "block type", ""},
		{"label", code([]byte{0x0c, 1}), "label index", ""},
		{"label of the function", code([]byte{0x0c, 0}), "", ""},
		{"label of a table", code([]byte{0x41, 0, 0x0e, 1, 0, 1}), "label index", ""},
		{"function index", code([]byte{0x10, 1}), "function index", "function 1 does not exist"},
		{"ref.func index", code([]byte{0xd2, 1}), "function index", ""},
		{"type of call_indirect", build{tables: tab, fns: []fn{{code: []byte{0x41, 0, 0x11, 1, 0}}}}.bytes(), "type index", ""},
		{"table of call_indirect", code([]byte{0x41, 0, 0x11, 0, 0}), "table index", ""},
		{"local index", code([]byte{0x20, 0}), "local index", ""},
		{"global index", code([]byte{0x23, 0}), "global index", ""},
		{"table index", code([]byte{0x25, 0}), "table index", ""},
		{"memory.init index", code([]byte{0xfc, 8, 0, 0}), "data segment index", ""},
		{"data.drop index", build{data: [][]byte{{1, 0}}, fns: []fn{{code: []byte{0xfc, 9, 0}}}}.bytes(), "data segment index", ""},
		{"data.drop", build{dataCount: true, data: [][]byte{{1, 0}}, fns: []fn{{code: []byte{0xfc, 9, 0}}}}.bytes(), "", ""},
		{"elem.drop index", code([]byte{0xfc, 13, 0}), "element segment index", ""},
		{"table.init index", build{tables: tab, fns: []fn{{code: []byte{0xfc, 12, 0, 0}}}}.bytes(), "element segment index", ""},
		{"table.copy index", build{tables: tab, fns: []fn{{code: []byte{0xfc, 14, 0, 1}}}}.bytes(), "table index", ""},
		{"table.fill index", code([]byte{0xfc, 17, 0}), "table index", ""},
		{"else without if", code([]byte{0x02, 0x40, 0x05, 0x0b}), "else", ""},
		{"else twice", code([]byte{0x41, 0, 0x04, 0x40, 0x05, 0x05, 0x0b}), "else", ""},
		{"memory number", code([]byte{0x3f, 1}), "memory", ""},
		{"second memory", code([]byte{0x41, 0, 0x28, 0x42, 1, 0}), "alignment", ""},
		{"select type", code([]byte{0x1c, 1, 0x60}), "value type", ""},
		{"ref.null type", code([]byte{0xd0, 0x6e}), "reference type", ""},
		{"i32.const too long", code([]byte{0x41, 0x80, 0x80, 0x80, 0x80, 0x80, 0}), "number", ""},

		{"tail call", code([]byte{0x12, 0}), "opcode", "instruction 12 is not part of WASM 2.0"},
		{"exceptions", code([]byte{0x06, 0x40}), "opcode", ""},
		{"throw", code([]byte{0x08, 0}), "opcode", ""},
		{"GC", code([]byte{0xfb, 0}), "opcode", ""},
		{"threads", code([]byte{0xfe, 3, 0}), "opcode", "fe"},
		{"relaxed SIMD", code([]byte{0xfd, 0x80, 2}), "opcode", ""},
		{"SIMD gap", code([]byte{0xfd, 0x9a, 1}), "opcode", ""},
		{"bulk gap", code([]byte{0xfc, 18}), "opcode", ""},
		{"wide gap", code([]byte{0xfc, 0xff, 0xff, 0xff, 0xff, 0x0f}), "opcode", ""},

		{"blocks 4999", nestedBlocks(4999), "", ""},
		{"blocks 5001", nestedBlocks(5001), "block nesting", ""},
		{"loops 64", nestedLoops(64, 3), "", ""},
		{"loops 65", nestedLoops(65, 3), "loop nesting", ""},
		{"br_table of 65521", branchTables(1, 65_521), "br_table entries", ""},
		{"br_tables of 20000", branchTables(5, 4000), "", ""},
		{"br_tables of a function", branchTables(2, 10_001), "br_table entries of a function", ""},
		{"locals x loops", build{fns: []fn{{locals: [][]byte{local(9_999, i32)}, code: bytes.Repeat([]byte{0x03, 0x40, 0x0b}, 51)}}}.bytes(), "locals x loops", "500000"},
		{"locals x blocks", build{fns: []fn{{locals: [][]byte{local(9_999, i32)}, code: bytes.Repeat([]byte{0x02, 0x40, 0x0b}, 15)}}}.bytes(), "locals x blocks", ""},
		{"locals x calls", build{fns: []fn{{locals: [][]byte{local(135, i32)}, code: bytes.Repeat([]byte{0x10, 0}, 78_000)}}}.bytes(), "locals x calls", ""},
		{"loops that Meter makes too large", code(bytes.Repeat([]byte{0x03, 0x40, 0x0b}, 20_000)), "body size after metering", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := wasmcheck.Check(c.b, wasmcheck.Limits{})
			if c.rule == "" {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			e, ok := errors.AsType[*wasmcheck.Error](err)
			if !ok || e.Rule != c.rule || !strings.Contains(e.Error(), c.text) {
				t.Fatalf("got %+v, want rule %q and %q", err, c.rule, c.text)
			}
			if strings.ContainsFunc(e.Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("text %q is not plain", e)
			}
			if e.Newer != strings.Contains(c.text, "newer") {
				t.Errorf("newer = %v", e.Newer)
			}
		})
	}
}

func TestModuleSums(t *testing.T) {
	t.Parallel()
	many := func(n int, f fn) []byte {
		b := build{}
		for range n {
			b.fns = append(b.fns, f)
		}
		return b.bytes()
	}
	tables := cat([]byte{0x02, 0x40, 0x41, 0, 0x0e}, u(9000), rep(9001, 0), []byte{0x0b})
	for name, c := range map[string]struct {
		b    []byte
		rule string
	}{
		"branches":         {many(11, fn{code: bytes.Repeat(tables, 2)}), "br_table entries of all functions"},
		"locals x loops":   {many(5, fn{locals: [][]byte{local(8999, 0x7f)}, code: bytes.Repeat([]byte{0x03, 0x40, 0x0b}, 50)}), "locals x blocks"},
		"sum of loops":     {many(9, fn{locals: [][]byte{local(99, 0x7f)}, code: cat(rep(64, 0x03, 0x40), rep(64, 0x0b), rep(64, 0x03, 0x40), rep(64, 0x0b))}), "locals x loops of all functions"},
		"sum of blocks":    {many(50, fn{locals: [][]byte{local(999, 0x7f)}, code: bytes.Repeat([]byte{0x02, 0x40, 0x0b}, 90)}), "locals x blocks of all functions"},
		"sum of calls":     {many(30, fn{locals: [][]byte{local(999, 0x7f)}, code: bytes.Repeat([]byte{0x10, 0}, 800)}), "locals x calls of all functions"},
		"none of them":     {many(1000, fn{locals: [][]byte{local(9, 0x7f)}, code: bytes.Repeat([]byte{0x02, 0x40, 0x0b}, 9)}), ""},
		"data of a linker": {build{data: slices.Repeat([][]byte{{1, 0}}, 100_000)}.bytes(), ""},
	} {
		_, err := wasmcheck.Check(c.b, wasmcheck.Limits{})
		e, _ := errors.AsType[*wasmcheck.Error](err)
		if c.rule == "" && err != nil || c.rule != "" && (e == nil || e.Rule != c.rule) {
			t.Errorf("%s: got %v, want rule %q", name, err, c.rule)
		}
	}
}

func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	b := build{memory: []byte{1, 0, 5}}.bytes()
	if _, err := wasmcheck.Check(b, wasmcheck.Limits{MemoryPages: 5}); err != nil {
		t.Error(err)
	}
	if _, err := wasmcheck.Check(b, wasmcheck.Limits{MemoryPages: 4}); err == nil || !strings.Contains(err.Error(), "at most 4") {
		t.Errorf("got %v", err)
	}
}

// TestAllocation: what Check keeps is bounded whatever the module says of itself.
func TestAllocation(t *testing.T) {
	many := build{}
	for range 90_000 {
		many.fns = append(many.fns, fn{})
		many.types = append(many.types, "i>i")
	}
	b := many.bytes()
	res := testing.Benchmark(func(bb *testing.B) {
		for bb.Loop() {
			if _, err := wasmcheck.Check(b, wasmcheck.Limits{}); err != nil {
				bb.Fatal(err)
			}
		}
	})
	if got, limit := res.AllocedBytesPerOp(), int64(1<<20+8*90_000); got > limit {
		t.Errorf("allocates %d bytes, limit %d", got, limit)
	}
}
