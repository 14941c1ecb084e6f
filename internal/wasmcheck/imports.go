package wasmcheck

import "strings"

// known is the functions that modules may import: parameters, ">", results; i is i32, I is i64.
var known = map[string]map[string]string{
	WASIModule: {
		"args_get": "ii>i", "args_sizes_get": "ii>i", "clock_res_get": "ii>i", "clock_time_get": "iIi>i",
		"environ_get": "ii>i", "environ_sizes_get": "ii>i", "fd_advise": "iIIi>i", "fd_allocate": "iII>i",
		"fd_close": "i>i", "fd_datasync": "i>i", "fd_fdstat_get": "ii>i", "fd_fdstat_set_flags": "ii>i",
		"fd_fdstat_set_rights": "iII>i", "fd_filestat_get": "ii>i", "fd_filestat_set_size": "iI>i",
		"fd_filestat_set_times": "iIIi>i", "fd_pread": "iiiIi>i", "fd_prestat_dir_name": "iii>i",
		"fd_prestat_get": "ii>i", "fd_pwrite": "iiiIi>i", "fd_read": "iiii>i", "fd_readdir": "iiiIi>i",
		"fd_renumber": "ii>i", "fd_seek": "iIii>i", "fd_sync": "i>i", "fd_tell": "ii>i", "fd_write": "iiii>i",
		"path_create_directory": "iii>i", "path_filestat_get": "iiiii>i", "path_filestat_set_times": "iiiiIIi>i",
		"path_link": "iiiiiii>i", "path_open": "iiiiiIIii>i", "path_readlink": "iiiiii>i",
		"path_remove_directory": "iii>i", "path_rename": "iiiiii>i", "path_symlink": "iiiii>i",
		"path_unlink_file": "iii>i", "poll_oneoff": "iiii>i", "proc_exit": "i>", "proc_raise": "i>i",
		"random_get": "ii>i", "sched_yield": ">i", "sock_accept": "iii>i", "sock_recv": "iiiiii>i",
		"sock_send": "iiiii>i", "sock_shutdown": "ii>i",
	},
	HostModule: {
		"call": "iiiiii>I", "take": "ii>I", "open": "iiii>I", "send": "iii>I", "recv": "iii>I", "poll": "i>I", "read": "iii>I",
		"write": "iii>I", "close": "ii>I",
	},
}

// Signature is the type of an importable function as "(i32 i64) -> (i32)", or false if there is none of that name.
func Signature(module, name string) (string, bool) {
	s, ok := known[module][name]
	if !ok {
		return "", false
	}
	params, results, _ := strings.Cut(s, ">")
	return "(" + words(params) + ") -> (" + words(results) + ")", true
}

// Names lists what can be imported from module, in no order.
func Names(module string) []string {
	var out []string
	for name := range known[module] {
		out = append(out, name)
	}
	return out
}

func words(letters string) string {
	out := make([]string, 0, len(letters))
	for _, c := range letters {
		switch c {
		case 'i':
			out = append(out, "i32")
		case 'I':
			out = append(out, "i64")
		}
	}
	return strings.Join(out, " ")
}

// imports reads the import section.
func (m *module) imports() {
	r := &m.r
	n := r.count("imports", m.items(), 4)
	for range n {
		at := r.at
		mod, name := r.name(), r.name()
		if kind := r.byte(); kind != externFunc && r.err == nil {
			m.foreign(at, mod, name, kind)
			return
		}
		typ := r.index("type", m.types())
		if r.err != nil {
			return
		}
		m.admit(at, mod, name, typ)
		m.funcs = append(m.funcs, typ)
	}
	m.imported = n
	m.report.Imports = int(n)
}

// foreign refuses an import that is no function.
func (m *module) foreign(at int, mod, name []byte, kind byte) {
	what := "something unknown"
	switch kind {
	case externTable:
		what = "a table"
	case externMemory:
		what = "its memory; it must export one"
	case externGlobal:
		what = "a global"
	}
	if kind == externMemory {
		m.r.fail(at, "import kind", "module imports %s", what)
		return
	}
	m.r.fail(at, "import kind", "module imports %s, %s.%s; only functions can be imported", what, printable(mod), printable(name))
}

// admit refuses a function import that is not on the list.
func (m *module) admit(at int, mod, name []byte, typ uint32) {
	if m.limits.Metered && string(mod) == TickModule && string(name) == TickName && !m.ticks {
		m.ticks = true
		if !m.isType(typ, ">") {
			m.r.fail(at, "import type", "%s.%s is not () -> ()", TickModule, TickName)
		}
		return
	}
	want, ok := known[string(mod)][string(name)]
	switch {
	case ok && m.isType(typ, want):
	case string(mod) == HostModule:
		m.r.fail(at, "import", "module imports %s.%s %s: needs a newer ds", mod, printable(name), m.typeText(typ))
		m.r.err.Newer = true
	case string(mod) == WASIModule:
		m.r.fail(at, "import", "module imports %s.%s %s, which does not exist", mod, printable(name), m.typeText(typ))
	default:
		m.r.fail(at, "import", "module imports %s.%s; only %s and %s are there", printable(mod), printable(name), WASIModule, HostModule)
	}
}

// printable is a stranger's name for an error text: short, and without what a terminal would obey.
func printable(name []byte) string {
	const short = 64
	out := make([]byte, 0, short)
	for _, c := range name {
		if len(out) == short {
			return string(out) + "..."
		}
		if c <= ' ' || c >= 0x7f {
			c = '?'
		}
		out = append(out, c)
	}
	return string(out)
}

// isType reports whether a function type is the one that the letters of known say.
func (m *module) isType(typ uint32, letters string) bool {
	r := reader{b: m.r.b, at: int(m.typeAt[typ]), end: len(m.r.b)}
	params, results, _ := strings.Cut(letters, ">")
	return r.areTypes(params) && r.areTypes(results)
}

// areTypes reads a vector of value types and reports whether it is the one that the letters say.
func (r *reader) areTypes(letters string) bool {
	same := r.u32() == uint32(len(letters))
	for i := 0; same && i < len(letters); i++ {
		same = r.byte() == typeOf(letters[i])
	}
	return same
}

func typeOf(letter byte) byte {
	if letter == 'I' {
		return typeI64
	}
	return typeI32
}

// typeText is a function type for an error text, short as those that can be imported.
func (m *module) typeText(typ uint32) string {
	const long = 9
	r := reader{b: m.r.b, at: int(m.typeAt[typ]), end: len(m.r.b)}
	var texts [2]string
	for i := range texts {
		n := r.u32()
		if n > long {
			return "of another type"
		}
		letters := make([]byte, 0, long)
		for range n {
			switch r.byte() {
			case typeI32:
				letters = append(letters, 'i')
			case typeI64:
				letters = append(letters, 'I')
			default:
				return "of another type"
			}
		}
		texts[i] = words(string(letters))
	}
	return "(" + texts[0] + ") -> (" + texts[1] + ")"
}
