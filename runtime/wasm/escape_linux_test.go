package wasm

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

const (
	escapeWASM  = "../../testdata/guests/c/escape.wasm"
	escapeTable = "testdata/escape.txt"
	minProbes   = 150
	canary      = "CANARY" // in everything that was not granted
	canarySize  = 4242     // of files outside: a state that shows it leaks
)

var updateEscape = flag.Bool("update-escape", false, "write "+escapeTable+" from what the guest gets")

// escapeKind is one way to get a mount, with the column of the table that says what the guest then gets.
type escapeKind struct {
	name   string
	column string
	dir    string // guest directory that is probed, BASE stands for the host directory of the world
	scope  string // of fs.write if write, else of fs.read
	write  bool
	cwd    string // working directory below the world
	typed  string // path argument below the world; scope is args then
	assets bool
	hide   bool // in/private is a directory of ds
	grants grantKind
}

// grantKind is what a scope covers of the directory in.
type grantKind int

const (
	grantsTree grantKind = iota // everything below
	grantsGlob                  // the names in it
	grantsOne                   // the file plain
	grantsMade                  // made, with everything below it
	grantsNone                  // in is not mounted at all
)

// escapeKinds are all mounts and scope forms of capabilities.md section 6.
var escapeKinds = []escapeKind{
	{name: "cwd rw", column: "top-rw", dir: "/cwd", scope: "cwd:**", write: true, cwd: "in"},
	{name: "cwd ro", column: "top-ro", dir: "/cwd", scope: "cwd:**", cwd: "in"},
	{name: "cwd dir rw", column: "deep-rw", dir: "/cwd/in", scope: "cwd:in/**", write: true},
	{name: "cwd dir ro", column: "deep-ro", dir: "/cwd/in", scope: "cwd:in/**"},
	{name: "cwd glob rw", column: "glob-rw", dir: "/cwd/in", scope: "cwd:in/*", write: true, grants: grantsGlob},
	{name: "cwd glob ro", column: "glob-ro", dir: "/cwd/in", scope: "cwd:in/*", grants: grantsGlob},
	{name: "cwd file rw", column: "one-rw", dir: "/cwd/in", scope: "cwd:in/plain", write: true, grants: grantsOne},
	{name: "cwd file ro", column: "one-ro", dir: "/cwd/in", scope: "cwd:in/plain", grants: grantsOne},
	{name: "cwd pattern ro", column: "one-ro-below", dir: "/cwd/in", scope: "cwd:**/plain", grants: grantsOne},
	{name: "cwd hides", column: "hide-rw", dir: "/cwd", scope: "cwd:**", write: true, cwd: "in", hide: true},
	{name: "args dir rw", column: "deep-rw", dir: "/args/4/in", scope: "args", write: true, cwd: "cwd", typed: "in"},
	{name: "args dir ro", column: "deep-ro", dir: "/args/4/in", scope: "args", cwd: "cwd", typed: "in"},
	{name: "args dir in cwd", column: "deep-rw", dir: "/cwd/in", scope: "args", write: true, typed: "in"},
	{name: "args file rw", column: "one-rw", dir: "/args/4", scope: "args", write: true, cwd: "cwd", typed: "in/plain", grants: grantsOne},
	{name: "args file ro", column: "one-ro", dir: "/args/4", scope: "args", cwd: "cwd", typed: "in/plain", grants: grantsOne},
	{name: "args new", column: "made-rw", dir: "/args/4", scope: "args", write: true, cwd: "cwd", typed: "in/made", grants: grantsMade},
	{name: "home rw", column: "deep-rw", dir: "/home/in", scope: "home:in/**", write: true, cwd: "cwd"},
	{name: "home ro", column: "deep-ro", dir: "/home/in", scope: "home:in/**", cwd: "cwd"},
	{name: "home glob ro", column: "glob-ro", dir: "/home/in", scope: "home:in/*", cwd: "cwd", grants: grantsGlob},
	{name: "host rw", column: "deep-rw", dir: "/hostBASE/in", scope: "abs:BASE/in/**", write: true, cwd: "cwd"},
	{name: "host ro", column: "deep-ro", dir: "/hostBASE/in", scope: "abs:BASE/in/**", cwd: "cwd"},
	{name: "host glob rw", column: "glob-rw", dir: "/hostBASE/in", scope: "abs:BASE/in/*", write: true, cwd: "cwd", grants: grantsGlob},
	{name: "app", column: "top-ro", dir: "/app", assets: true, cwd: "cwd"},
	{name: "tmp", column: "tmp", dir: "/tmp", cwd: "cwd", grants: grantsNone},
}

// probe is one line of the guest.
type probe struct{ id, errno, text string }

// wasiErrno are the numbers of WASI that occur.
var wasiErrno = map[int]string{
	0: "ok", 2: "ACCES", 6: "AGAIN", 8: "BADF", 20: "EXIST", 21: "FAULT", 28: "INVAL", 29: "IO", 31: "ISDIR", 32: "LOOP",
	37: "NAMETOOLONG", 44: "NOENT", 52: "NOSYS", 54: "NOTDIR", 55: "NOTEMPTY", 58: "NOTSUP", 61: "OVERFLOW", 63: "PERM", 69: "ROFS",
}

// parseProbes reads what the guest printed; the last line says that it came to its end.
func parseProbes(t testing.TB, out []byte) []probe {
	t.Helper()
	var list []probe
	ended := false
	for line := range strings.Lines(string(out)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), "|", 3)
		if len(f) != 3 {
			continue
		}
		if ended = f[0] == "end"; ended {
			break
		}
		n, err := strconv.Atoi(f[1])
		if err != nil {
			t.Fatalf("probe %q", line)
		}
		name, ok := wasiErrno[n]
		if !ok {
			name = "E" + f[1]
		}
		list = append(list, probe{id: f[0], errno: name, text: f[2]})
	}
	if !ended {
		t.Fatalf("the guest stopped after %d probes: %s", len(list), tail(out))
	}
	return list
}

func tail(b []byte) []byte { return b[max(0, len(b)-300):] }

// escapeIDs are the names of all probes, from a run that reaches nothing.
var escapeIDs = sync.OnceValues(func() ([]string, error) {
	dir, err := os.MkdirTemp("", "ds-escape-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // a temporary directory
	b, err := os.ReadFile(escapeWASM)
	if err != nil {
		return nil, err
	}
	var out []byte
	if out, err = bareRun(b, "osroot", dir, dir); err != nil {
		return nil, err
	}
	var ids []string
	for line := range strings.Lines(string(out)) {
		if id, _, ok := strings.Cut(line, "|"); ok && id != "end" {
			ids = append(ids, id)
		}
	}
	return ids, nil
})

// escapeWorld is a host: in is what a mount shows, outside what no guest may reach.
type escapeWorld struct {
	t    testing.TB
	base string
	kind escapeKind
}

// newEscapeWorld plants everything that the probes of a kind use. Without pipes nothing can block.
func newEscapeWorld(t testing.TB, k escapeKind, pipes bool) *escapeWorld {
	t.Helper()
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &escapeWorld{t: t, base: base, kind: k}
	for _, d := range []string{"outside/new", "outside/w", "outside/e", "outside/d", "cwd", "in"} {
		w.mkdir(d)
	}
	w.file("outside/d/"+canary, "")
	ids, err := escapeIDs()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if group, _, _ := strings.Cut(id, "."); slices.Contains([]string{"own", "fd", "hidden", "mount", "sparse", "readlink"}, group) {
			continue // use no file outside
		}
		w.file("outside/w/"+id, canary+" "+id+strings.Repeat(" ", canarySize-len(canary)-1-len(id)))
		if strings.HasSuffix(id, ".rmdir") {
			w.mkdir("outside/e/" + id)
		}
	}
	w.plant("in", ids, pipes)
	return w
}

// plant fills a directory that is a mount, or part of one.
func (w *escapeWorld) plant(in string, ids []string, pipes bool) {
	tree, names := canary, canary // contents of what only some scopes grant
	switch w.kind.grants {
	case grantsTree, grantsNone:
		tree, names = "granted", "granted"
	case grantsGlob:
		names = "granted"
	}
	w.mkdir(in + "/empty")
	w.mkdir(in + "/sub/only")
	w.file(in+"/plain", "granted")
	w.file(in+"/sub/file", tree)
	w.file(in+"/sub/only/"+tree, "")
	w.file(in+"/sub/p_own.sub.movein", tree)
	w.file(in+"/p_linked", names)
	w.file(in+"/p_own.victim", names)
	if w.kind.hide {
		w.mkdir(in + "/private")
		w.file(in+"/private/key", canary)
	}
	for _, id := range ids {
		op := id[strings.LastIndexByte(id, '.')+1:]
		if strings.HasPrefix(id, "own.") || op == "moveout" || id == "made.overfile" || id == "hidden.over" || id == "tmp.move" {
			w.file(in+"/p_"+id, names)
		}
		for form, to := range map[string]string{"absfile.": w.base + "/outside/", "relfile.": "../outside/", "chainfile.": "l_rel_dir/"} {
			if strings.HasPrefix(id, form) {
				w.link(in+"/l"+form[:1]+"_"+id, to+"w/"+id)
				w.link(in+"/n"+form[:1]+"_"+id, to+"new/"+id)
			}
		}
	}
	for name, to := range map[string]string{
		"l_abs_dir": w.base + "/outside", "l_rel_dir": "../outside", "l_chain": "l_chain2", "l_chain2": "l_rel_dir", "l_self": ".",
		"l_selfup": "l_self/../outside", "l_up": "..", "sub/l_out": "../../outside", "l_root": "/", "l_proc_root": "/proc/self/root",
		"l_environ": "/proc/self/environ", "l_maps": "/proc/self/maps", "l_mem": "/proc/self/mem", "l_proc_fd": "/proc/self/fd", "l_proc_cwd": "/proc/self/cwd",
		"l_zero": "/dev/zero", "l_null": "/dev/null", "l_loop": "l_loop", "l_in": "plain", "l_in_w": "p_linked", "l_in_dir": "sub",
		"l_priv": "private", "l_privkey": "private/key",
	} {
		w.link(in+"/"+name, to)
	}
	if !pipes {
		return
	}
	for name, mode := range map[string]uint32{"fifo": unix.S_IFIFO, "socket": unix.S_IFSOCK} {
		if err := unix.Mknod(filepath.Join(w.base, in, name), mode|0o600, 0); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *escapeWorld) mkdir(name string) {
	if err := os.MkdirAll(filepath.Join(w.base, name), 0o700); err != nil {
		w.t.Fatal(err)
	}
}

func (w *escapeWorld) file(name, text string) {
	if err := os.WriteFile(filepath.Join(w.base, name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *escapeWorld) link(name, to string) {
	if err := os.Symlink(to, filepath.Join(w.base, name)); err != nil {
		w.t.Fatal(err)
	}
}

// state is what a probe could change of a file.
type state struct {
	mode  fs.FileMode
	size  int64
	mtime time.Time
	text  string // content or target
	links uint64
}

// look is the state of everything in the world.
func (w *escapeWorld) look() map[string]state {
	w.t.Helper()
	out := make(map[string]state)
	err := filepath.WalkDir(w.base, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		s := state{mode: d.Type()}
		switch {
		case d.Type() == fs.ModeSymlink:
			s.text, err = os.Readlink(name)
		case d.Type() == 0:
			s.size, s.mtime, s.links = st.Size, time.Unix(st.Mtim.Unix()), st.Nlink
			if st.Size <= 1<<20 {
				var b []byte
				b, err = os.ReadFile(name)
				s.text = string(b)
			}
		}
		rel, _ := filepath.Rel(w.base, name)
		out[rel] = s
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// mayChange reports whether the grant of the world covers a name, so that the guest may do with it what it likes.
func (w *escapeWorld) mayChange(rel string) bool {
	rel, in := strings.CutPrefix(rel, "in/")
	switch {
	case !in || !w.kind.write || w.kind.hide && (rel == "private" || strings.HasPrefix(rel, "private/")):
		return false
	case w.kind.grants == grantsGlob:
		return !strings.Contains(rel, "/")
	case w.kind.grants == grantsOne:
		return rel == "plain"
	case w.kind.grants == grantsMade:
		return rel == "made" || strings.HasPrefix(rel, "made/")
	}
	return w.kind.grants == grantsTree
}

// opensOutside are probes that must not succeed, whatever they read.
func opensOutside(id string) bool {
	for _, p := range []string{"proc.", "fifo.read", "fifo.write", "socket.", "zero.", "null.", "device.", "name.etc", "name.many", "name.args", "loop."} {
		if strings.HasPrefix(id, p) {
			return true
		}
	}
	return false
}

// escapes names the probes that reached what was not granted, from what they said and from what has changed.
func (w *escapeWorld) escapes(before, after map[string]state, probes []probe) []string {
	found := make(map[string]bool)
	for _, p := range probes {
		leaks := strings.Contains(p.text, canary) || strings.Contains(p.text, "size "+strconv.Itoa(canarySize)) || strings.Contains(p.text, w.base) || strings.Contains(p.text, "more than")
		if leaks || p.errno == "ok" && (opensOutside(p.id) || strings.HasPrefix(p.id, "readlink.") && strings.HasPrefix(p.text, "/")) {
			found[p.id] = true
		}
	}
	changed := func(rel string) {
		id := filepath.Base(rel)
		for _, p := range []string{"p_", "c_", "got_", "moved_", "la_", "lr_", "lc_", "na_", "nr_", "nc_", "x_"} {
			id = strings.TrimPrefix(id, p)
		}
		found[id] = true
	}
	for rel, old := range before {
		now, there := after[rel]
		if (!there || now != old) && !w.mayChange(rel) {
			changed(rel)
		}
	}
	for rel, now := range after {
		_, was := before[rel]
		switch {
		case !was && !w.mayChange(rel),
			!was && now.mode == fs.ModeSymlink && !strings.HasPrefix(filepath.Base(rel), "moved_"), // it would wait there for the host
			now.links > 1, now.size > 1<<33:
			changed(rel)
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// probe runs the guest on the mount and returns what it said.
func (w *escapeWorld) probe(b *Backend) []probe {
	w.t.Helper()
	k := w.kind
	expand := func(s string) string { return strings.ReplaceAll(s, "BASE", w.base) }
	p := *installed(w.t, escapeWASM)
	p.Manifest = &plugin.Manifest{APIVersion: plugin.APIVersion, Name: p.Name}
	o := sandbox.BoxOptions{Plugin: &p, Home: w.base, Granted: make(map[hostabi.Capability]sandbox.Scopes)}
	inv := &plugin.Invocation{Dir: filepath.Join(w.base, k.cwd), Deadline: time.Now().Add(time.Minute)}
	inv.Args = []string{expand(k.dir), w.base, "all"}
	if k.grants == grantsOne {
		inv.Args[2] = "one"
	}
	c, mode := hostabi.FSRead, "read"
	if k.write {
		c, mode = hostabi.FSWrite, "readwrite"
	}
	if k.grants == grantsMade {
		mode = "write"
	}
	if k.scope != "" {
		scope := []string{expand(k.scope)}
		p.Manifest.Capabilities = []plugin.Request{{Cap: c, Scope: scope, Reason: "test"}}
		o.Granted[c] = sandbox.Scopes{Scope: scope}
	}
	if k.typed != "" {
		value := filepath.Join(w.base, k.typed)
		inv.Args = append(inv.Args, value)
		inv.Typed = []plugin.Typed{{Index: 3, Type: "path", Mode: mode, Value: value}}
	}
	if k.hide {
		o.Protected = []string{filepath.Join(w.base, "in/private")}
	}
	if k.assets {
		p.Program.Assets = filepath.Join(w.base, "in")
	}
	o.Invocation = inv
	box, err := sandbox.NewBox(o)
	if err != nil {
		w.t.Fatal(err)
	}
	var out, errs bytes.Buffer
	inv.Stdout, inv.Stderr = &out, &errs
	if err := b.Run(w.t.Context(), &p, box, inv, &fakeSession{}); err != nil {
		w.t.Fatalf("%v: %s %s", err, tail(out.Bytes()), &errs)
	}
	return parseProbes(w.t, out.Bytes())
}

// backend runs the probes of a kind; /tmp of the guest lies beside outside and is filled for its kind.
func (w *escapeWorld) backend() *Backend {
	dir := filepath.Join(sharedCache(), "wasm")
	b := New(Options{CacheDir: dir, TempDir: w.base})
	w.t.Cleanup(func() { _ = b.Close() })
	if w.kind.dir == "/tmp" {
		b.prepared = func(in *instance) {
			t := in.mounts[len(in.mounts)-1].mounts[0].tree
			if _, err := t.root(); err != nil {
				w.t.Error(err)
				return
			}
			ids, _ := escapeIDs()
			w.plant(filepath.Base(t.host), ids, true)
		}
	}
	return b
}

// sharedCache is where compiled modules of these tests are kept.
func sharedCache() string { shared(); return sharedDir }

// TestS1_Escape runs every probe on every kind of mount: nothing escapes, and each probe gets the errno that the
// table says.
func TestS1_Escape(t *testing.T) {
	t.Parallel()
	table := readEscapeTable(t)
	got := make(map[string]map[string]string) // column, id, errno
	var order []string
	var mu sync.Mutex
	var probesRun, escaped int
	kinds := escapeKinds
	if scale(0, 1, 1) == 0 && !*updateEscape { // one of each column
		seen := make(map[string]bool)
		kinds = slices.DeleteFunc(slices.Clone(kinds), func(k escapeKind) bool {
			was := seen[k.column]
			seen[k.column] = true
			return was
		})
	}
	t.Run("kinds", func(t *testing.T) {
		for _, k := range kinds {
			t.Run(k.name, func(t *testing.T) {
				t.Parallel()
				w := newEscapeWorld(t, k, true)
				b := w.backend()
				before := w.look()
				probes := w.probe(b)
				out := w.escapes(before, w.look(), probes)
				for _, id := range out {
					t.Errorf("%s escapes: %v", id, find(probes, id))
				}
				mu.Lock()
				defer mu.Unlock()
				probesRun, escaped = probesRun+len(probes), escaped+len(out)
				if len(probes) > len(order) {
					order = nil
					for _, p := range probes {
						order = append(order, p.id)
					}
				}
				first := got[k.column] == nil
				if first {
					got[k.column] = make(map[string]string)
				}
				for _, p := range probes {
					if !first && got[k.column][p.id] != p.errno {
						t.Errorf("%s: %s, another mount of this column has %s", p.id, p.errno, got[k.column][p.id])
					}
					got[k.column][p.id] = p.errno
				}
				if *updateEscape {
					return
				}
				for _, p := range probes {
					if want := table[p.id][k.column]; want != p.errno {
						t.Errorf("%s: %s %q, want %q", p.id, p.errno, p.text, want)
					}
				}
				if len(probes) != len(table) || len(probes) < minProbes {
					t.Errorf("%d probes, %d in the table, at least %d", len(probes), len(table), minProbes)
				}
			})
		}
	})
	if *updateEscape {
		writeEscapeTable(t, order, got)
	}
	for _, top := range preopens {
		if !slices.ContainsFunc(escapeKinds, func(k escapeKind) bool { return strings.HasPrefix(k.dir, top) }) {
			t.Errorf("%s is not probed", top)
		}
	}
	t.Logf("S1: %d probes x %d mounts = %d, %d escapes", len(order), len(kinds), probesRun, escaped)
}

func find(probes []probe, id string) probe {
	for _, p := range probes {
		if p.id == id {
			return p
		}
	}
	return probe{}
}

// escapeColumns are the columns of the table in the order of the kinds.
func escapeColumns() []string {
	var out []string
	for _, k := range escapeKinds {
		if !slices.Contains(out, k.column) {
			out = append(out, k.column)
		}
	}
	return out
}

// readEscapeTable reads the expected errno of each probe by column.
func readEscapeTable(t *testing.T) map[string]map[string]string {
	t.Helper()
	b, err := os.ReadFile(escapeTable)
	if err != nil && !*updateEscape {
		t.Fatal(err)
	}
	out := make(map[string]map[string]string)
	var columns []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case len(f) == 0 || f[0][0] == '#':
		case columns == nil:
			columns = f[1:]
		case len(f) != len(columns)+1:
			t.Fatalf("%s: %q", escapeTable, line)
		default:
			out[f[0]] = make(map[string]string)
			for i, c := range columns {
				out[f[0]][c] = f[i+1]
			}
		}
	}
	return out
}

func writeEscapeTable(t *testing.T, order []string, got map[string]map[string]string) {
	t.Helper()
	var out bytes.Buffer
	out.WriteString("# What the probes of testdata/guests/c/escape.c get on each kind of mount (escape_linux_test.go): WASI errno, ok = 0.\n")
	out.WriteString("# Rewritten by go test -run TestS1_Escape -update-escape; every changed cell needs a reason.\n")
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	columns := escapeColumns()
	fmt.Fprintln(w, "probe\t"+strings.Join(columns, "\t"))
	for _, id := range order {
		row := id
		for _, c := range columns {
			row += "\t" + got[c][id]
		}
		fmt.Fprintln(w, row)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(escapeTable, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
