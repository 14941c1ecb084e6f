package wasm

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/plugin"
)

// handmade is a hand-made module of functions () -> () over one i32, one i64 and one f64 local; the first is _start.
// Imports are functions of WASI, by name and type letters as sig makes them.
type handmade struct {
	pages   uint32
	table   int      // functions in the table: all of fns, again and again
	imports []string // "name types"
	fns     [][]byte
}

func leb(v uint32) []byte { return binary.AppendUvarint(nil, uint64(v)) }

// i32 is i32.const.
func i32(v int32) []byte {
	out := []byte{0x41}
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(out, c)
		}
		out = append(out, c|0x80)
	}
}

func joined(parts ...[]byte) []byte { return slices.Concat(parts...) }

func (g handmade) bytes() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	section := func(id byte, n int, body []byte) {
		body = append(leb(uint32(n)), body...)
		out = joined(out, []byte{id}, leb(uint32(len(body))), body)
	}
	name := func(s string) []byte { return append(leb(uint32(len(s))), s...) }
	types, imports := []byte{0x60, 0, 0}, []byte(nil)
	for i, im := range g.imports {
		what, letters, _ := strings.Cut(im, " ")
		typ := []byte{0x60, byte(len(letters))}
		for _, c := range letters {
			typ = append(typ, map[rune]byte{'i': 0x7f, 'I': 0x7e}[c])
		}
		types = joined(types, typ, []byte{1, 0x7f})
		imports = joined(imports, name("wasi_snapshot_preview1"), name(what), []byte{0, byte(1 + i)})
	}
	section(1, 1+len(g.imports), types)
	if len(g.imports) > 0 {
		section(2, len(g.imports), imports)
	}
	first := len(g.imports)
	section(3, len(g.fns), make([]byte, len(g.fns)))
	if g.table > 0 {
		section(4, 1, joined([]byte{0x70, 0}, leb(uint32(g.table))))
	}
	section(5, 1, joined([]byte{0}, leb(max(g.pages, 1))))
	section(7, 2, joined(name("memory"), []byte{2, 0}, name("_start"), []byte{0, byte(first)}))
	if g.table > 0 {
		body := joined([]byte{0, 0x41, 0, 0x0b}, leb(uint32(g.table)))
		for i := range g.table {
			body = append(body, leb(uint32(first+i%len(g.fns)))...)
		}
		section(9, 1, body)
	}
	var code []byte
	for _, f := range g.fns {
		f = joined([]byte{3, 1, 0x7f, 1, 0x7e, 1, 0x7c}, f, []byte{0x0b})
		code = joined(code, leb(uint32(len(f))), f)
	}
	section(10, len(g.fns), code)
	return out
}

// loop repeats code for ever.
func loop(code ...[]byte) []byte {
	return joined([]byte{0x03, 0x40}, joined(code...), []byte{0x0c, 0, 0x0b})
}

// callTree is n functions, each of which calls the next twice.
func callTree(n int) (fns [][]byte) {
	for i := range n - 1 {
		next := leb(uint32(i + 1))
		fns = append(fns, joined([]byte{0x10}, next, []byte{0x10}, next))
	}
	return append(fns, []byte{0x01})
}

func one(code ...[]byte) [][]byte { return [][]byte{joined(code...)} }

var (
	countUp = []byte{0x20, 0, 0x41, 1, 0x6a, 0x21, 0}
	fill    = joined(i32(0), i32(7), i32(64<<20), []byte{0xfc, 11, 0})
	divide  = joined([]byte{0x20, 1, 0x42, 3, 0x84, 0x42, 7, 0x81, 0x21, 1}) // (x | 3) % 7
)

// shapes are programs that never end, or not for hours. Each must be stopped.
func shapes() map[string]handmade {
	call := func(fn byte) []byte { return []byte{0x10, fn} }
	indirect := []byte{0x11, 0, 0}
	s := map[string]handmade{
		"loop empty":             {fns: one([]byte{0x03, 0x40, 0x0c, 0, 0x0b})},
		"loop that counts":       {fns: one(loop(countUp))},
		"loop br_if":             {fns: one(joined([]byte{0x03, 0x40}, countUp, []byte{0x41, 1, 0x0d, 0, 0x0b}))},
		"loop in if":             {fns: one(joined([]byte{0x03, 0x40, 0x41, 1, 0x04, 0x40, 0x0c, 1, 0x0b, 0x0b}))},
		"loop in else":           {fns: one(joined([]byte{0x03, 0x40, 0x41, 0, 0x04, 0x40, 0x05, 0x0c, 1, 0x0b, 0x0b}))},
		"loop br_table":          {fns: one(joined([]byte{0x03, 0x40, 0x41, 9, 0x0e, 2, 0, 0, 0, 0x0b}))},
		"loop br_table of outer": {fns: one(joined([]byte{0x03, 0x40, 0x02, 0x40, 0x03, 0x40, 0x41, 5, 0x0e, 3, 1, 0, 1, 2, 0x0b, 0x0b, 0x0b}))},
		"loop in loop":           {fns: one(loop([]byte{0x03, 0x40}, countUp, []byte{0x20, 0, 0x41, 0xff, 0x00, 0x71, 0x0d, 0, 0x0b}))},
		"loop with a value":      {fns: one([]byte{0x03, 0x7f, 0x0c, 0, 0x0b, 0x1a})},
		"loop of 8 levels":       {fns: one(bytes.Repeat([]byte{0x03, 0x40}, 8), []byte{0x0c, 7}, bytes.Repeat([]byte{0x0b}, 8))},
		"loop left and entered":  {fns: one(loop([]byte{0x02, 0x40, 0x03, 0x40, 0x0c, 1, 0x0b, 0x0b}))},
		"loop that divides":      {fns: one(loop(divide))},
		"long loop":              {fns: one(loop(bytes.Repeat(divide, 20_000)))},
		"long loop of roots":     {fns: one(loop(joined([]byte{0x20, 2}, bytes.Repeat([]byte{0x9f}, 200_000), []byte{0x21, 2})))},
		"call tree":              {fns: callTree(60)},
		"call tree of three":     {fns: [][]byte{joined(call(1), call(1), call(1)), joined(call(2), call(2), call(2)), loop(call(3)), {0x01}}},
		"loop of calls":          {fns: [][]byte{loop(call(1)), {0x01}}},
		"loop of long leaves":    {fns: [][]byte{loop(bytes.Repeat(call(1), 50)), bytes.Repeat(divide, 20_000)}},
		"call tree, long leaf":   {fns: append(callTree(40)[:39], bytes.Repeat(divide, 20_000))},
		"loop in a callee":       {fns: [][]byte{call(1), call(2), loop(countUp)}},
		"call_indirect":          {table: 2, fns: [][]byte{loop(i32(1), []byte{0x11, 0, 0}), {0x01}}},
		"call_indirect tree":     {table: 40, fns: nil},
		"memory.fill":            {pages: 1024, fns: one(loop(fill))},
		"memory.fill in a row":   {pages: 1024, fns: one(bytes.Repeat(fill, 4000))},
		"memory.fill small":      {fns: one(loop(i32(0), i32(7), i32(1), []byte{0xfc, 11, 0}))},
		"memory.fill of nothing": {fns: one(loop(bytes.Repeat(joined(i32(0), i32(7), i32(0), []byte{0xfc, 11, 0}), 500)))},
		"memory.copy":            {pages: 1024, fns: one(loop(i32(0), i32(8), i32(60<<20), []byte{0xfc, 10, 0, 0}))},
		"memory.copy backwards":  {pages: 1024, fns: one(loop(i32(8), i32(0), i32(60<<20), []byte{0xfc, 10, 0, 0}))},
		"memory.copy in a row":   {pages: 1024, fns: one(bytes.Repeat(joined(i32(0), i32(8), i32(60<<20), []byte{0xfc, 10, 0, 0}), 4000))},
		"memory.grow of nothing": {fns: one(loop(i32(0), []byte{0x40, 0, 0x1a}))},
		"memory.grow in a row":   {fns: one(loop(bytes.Repeat(joined(i32(0), []byte{0x40, 0, 0x1a}), 10_000)))},
		"memory.grow storm":      {fns: one(loop(i32(1), []byte{0x40, 0, 0x1a}))},
		"memory.grow refused":    {fns: one(loop(i32(60_000), []byte{0x40, 0, 0x1a}))},
		"memory.size":            {fns: one(loop([]byte{0x3f, 0, 0x1a}))},
		"table.grow storm":       {table: 1, fns: one(loop([]byte{0xd0, 0x70}, i32(1000), []byte{0xfc, 15, 0, 0x1a}))},
		"table.grow of nothing":  {table: 1, fns: one(loop(bytes.Repeat(joined([]byte{0xd0, 0x70}, i32(0), []byte{0xfc, 15, 0, 0x1a}), 1000)))},
		"table.fill":             {table: 1000, fns: one(loop(i32(0), []byte{0xd0, 0x70}, i32(1000), []byte{0xfc, 17, 0}))},
		"table.copy":             {table: 1000, fns: one(loop(i32(0), i32(1), i32(900), []byte{0xfc, 14, 0, 0}))},
		"table.get":              {table: 10, fns: one(loop(i32(3), []byte{0x25, 0, 0x1a}))},
		"touch all memory":       {pages: 1024, fns: one(loop([]byte{0x20, 0}, i32(67_100_000), []byte{0x70, 0x41, 1, 0x36, 2, 0}, []byte{0x20, 0}, i32(4096), []byte{0x6a, 0x21, 0}))},
		"random_get":             {pages: 1024, imports: []string{"random_get ii"}, fns: one(loop(i32(0), i32(64<<20), []byte{0x10, 0, 0x1a}))},
		"random_get in a row":    {pages: 1024, imports: []string{"random_get ii"}, fns: one(bytes.Repeat(joined(i32(0), i32(32<<20), []byte{0x10, 0, 0x1a}), 6000))},
		"sched_yield":            {imports: []string{"sched_yield "}, fns: one(loop([]byte{0x10, 0, 0x1a}))},
		"clock_time_get":         {imports: []string{"clock_time_get iIi"}, fns: one(loop(bytes.Repeat(joined(i32(0), []byte{0x42, 0}, i32(0), []byte{0x10, 0, 0x1a}), 1000)))},
		"environ_get":            {imports: []string{"environ_get ii"}, fns: one(bytes.Repeat(joined(i32(0), i32(4096), []byte{0x10, 0, 0x1a}), 6000), loop())},
		"fd_write nothing":       {imports: []string{"fd_write iiii"}, fns: one(loop(i32(1), i32(0), i32(0), i32(64), []byte{0x10, 0, 0x1a}))},
		"fd_write empty pieces":  {pages: 1024, imports: []string{"fd_write iiii"}, fns: one(loop(i32(1), i32(1024), i32(8_000_000), i32(64), []byte{0x10, 0, 0x1a}))},
		"fd_read empty pieces":   {pages: 1024, imports: []string{"fd_read iiii"}, fns: one(loop(i32(0), i32(1024), i32(maxItems), i32(64), []byte{0x10, 0, 0x1a}))},
		"path_open":              {imports: []string{"path_open iiiiiIIii"}, fns: one(loop(i32(3), i32(0), i32(64), i32(4), i32(0), []byte{0x42, 0, 0x42, 0}, i32(0), i32(128), []byte{0x10, 0, 0x1a}))},
		"poll_oneoff":            {imports: []string{"poll_oneoff iiii"}, fns: one(loop(i32(0), i32(256), i32(1), i32(128), []byte{0x10, 0, 0x1a}))},
		"SIMD":                   {fns: one(loop([]byte{0x20, 0, 0xfd, 0x11, 0xfd, 0x62, 0xfd, 0x1b, 0, 0x21, 0}))},
	}
	var deep [][]byte
	for i := range 39 {
		deep = append(deep, joined(i32(int32(i+1)), indirect, i32(int32(i+1)), indirect))
	}
	s["call_indirect tree"] = handmade{table: 40, fns: append(deep, []byte{0x01})}
	return s
}

// TestS3_Shapes: whatever does not end by itself is stopped 100 ms after its deadline; a busy machine gets a few times
// that. What waits (sleep, streams, host calls) is in TestS3_Waits, native programs are in runtime/native.
func TestS3_Shapes(t *testing.T) {
	all := shapes()
	if len(all) < 50 {
		t.Errorf("%d shapes", len(all))
	}
	b := New(Options{})
	t.Cleanup(func() { _ = b.Close() })
	slowest, which, rounds := time.Duration(0), "", scale(1, 1, 4)
	stopped := func(name string, g handmade) {
		t.Run(name, func(t *testing.T) {
			p := installedBytes(t, g.bytes())
			if _, err := b.await(p, &plugin.Invocation{}, newStopper(t.Context(), &plugin.Invocation{})); err != nil { // compile outside of the deadline
				t.Fatal(err)
			}
			r := &runOf{b: b, box: fakeBox{limits: plugin.Limits{Memory: 256 << 20}}}
			var late time.Duration
			within(t, 100*time.Millisecond+slack, func() {
				deadline := time.Now().Add(100 * time.Millisecond)
				r.inv.Deadline = deadline
				if got := resultOf(r.run(t.Context(), t, p)); !strings.HasPrefix(got, "TIMEOUT: ") {
					t.Errorf("got %q", got)
				}
				late = time.Since(deadline)
			})
			if late > slowest {
				slowest, which = late, name
			}
		})
	}
	for range rounds {
		for name, g := range all {
			if !testing.Short() || strings.HasPrefix(name, "call") {
				stopped(name, g)
			}
		}
	}
	t.Logf("S3: %d shapes x %d, slowest %v after its deadline: %s", len(all), rounds, slowest.Round(10*time.Microsecond), which)
}

// TestRecursionTraps: endless recursion ends by itself.
func TestRecursionTraps(t *testing.T) {
	t.Parallel()
	for name, g := range map[string]handmade{
		"itself":     {fns: one([]byte{0x10, 0})},
		"each other": {fns: [][]byte{{0x10, 1}, {0x10, 2}, {0x10, 0}}},
		"by table":   {table: 2, fns: [][]byte{joined(i32(1), []byte{0x11, 0, 0}), joined(i32(0), []byte{0x11, 0, 0})}},
	} {
		got := resultOf((&runOf{}).run(t.Context(), t, installedBytes(t, g.bytes())))
		if !strings.HasPrefix(got, "WASM_TRAP: x: wasm trap: stack overflow") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestItemsAreBounded: the number of subscriptions and buffers is looked at before anything is done for each.
func TestItemsAreBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		fn   string
		n    int32
		want string
	}{
		{"poll_oneoff", 1, ""},
		{"poll_oneoff", maxItems, ""},
		{"poll_oneoff", maxItems + 1, "TOO_MANY: x: poll_oneoff with 1025 subscriptions, at most 1024"},
		{"poll_oneoff", 1_000_000, "TOO_MANY: x: poll_oneoff with 1000000 subscriptions, at most 1024"},
		{"poll_oneoff", 89_478_486, "TOO_MANY: x: poll_oneoff with 89478486 subscriptions, at most 1024"}, // times 48 is 32 in 32 bits
		{"poll_oneoff", -1, "TOO_MANY: x: poll_oneoff with 4294967295 subscriptions, at most 1024"},
		{"fd_read", maxItems, ""},
		{"fd_read", 8_000_000, "TOO_MANY: x: fd_read with 8000000 buffers, at most 1024"},
		{"fd_pread", 8_000_000, "TOO_MANY: x: fd_pread with 8000000 buffers, at most 1024"},
	} {
		g := handmade{pages: 2000, imports: []string{c.fn + " iiii"}, fns: one(i32(0), i32(64), i32(c.n), i32(32), []byte{0x10, 0, 0x1a})}
		if c.fn == "fd_pread" {
			g = handmade{pages: 2000, imports: []string{"fd_pread iiiIi"}, fns: one(i32(0), i32(64), i32(c.n), []byte{0x42, 0}, i32(32), []byte{0x10, 0, 0x1a})}
		}
		r := &runOf{box: fakeBox{limits: plugin.Limits{Memory: 256 << 20}}}
		if got := resultOf(r.run(t.Context(), t, installedBytes(t, g.bytes()))); got != c.want {
			t.Errorf("%s %d: %q, want %q", c.fn, c.n, got, c.want)
		}
	}
}

// TestMeteredTables: a table has at most a million elements.
func TestMeteredTables(t *testing.T) {
	t.Parallel()
	// Each grows the table and traps if the result is not the expected one. The first asks for a gigabyte.
	grow := joined([]byte{0xd0, 0x70}, i32(134_000_000), []byte{0xfc, 15, 0}, i32(-1), []byte{0x47, 0x04, 0x40, 0x00, 0x0b})
	fits := joined([]byte{0xd0, 0x70}, i32(999_999), []byte{0xfc, 15, 0}, i32(1), []byte{0x47, 0x04, 0x40, 0x00, 0x0b})
	over := joined([]byte{0xd0, 0x70}, i32(1), []byte{0xfc, 15, 0}, i32(-1), []byte{0x47, 0x04, 0x40, 0x00, 0x0b})
	g := handmade{table: 1, fns: one(grow, fits, over)}
	if got := resultOf((&runOf{}).run(t.Context(), t, installedBytes(t, g.bytes()))); got != "" {
		t.Errorf("got %q", got)
	}
}
