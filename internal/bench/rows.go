package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Metric is what is compared.
type Metric string

const (
	Wall     Metric = "wall"      // start to exit of a process, ns
	CPU      Metric = "cpu"       // user and system time of a process and its children, ns
	Reported Metric = "call"      // what the program measured itself and printed, ns
	PerOp    Metric = "ns/op"     // of a Go benchmark
	Allocs   Metric = "allocs/op" // of a Go benchmark, a count and not a ratio
	Peak     Metric = "peak"      // resident memory of a process at most, MiB
)

// Spec is one side of a row: a command line or a Go benchmark. Words in ${} are directories and programs of
// the fixture.
type Spec struct {
	Label string // in reports
	Argv  []string
	Clear string // directory that is removed before every run
	Want  Output // what Argv must print

	Pkg, Bench string // package directory and full name of the benchmark, instead of Argv
	Seeded     bool   // the benchmark reads what is made with the registry
}

// needsServer reports whether there is nothing to measure without the registry.
func (s Spec) needsServer() bool {
	return s.Seeded || strings.Contains(strings.Join(s.Argv, " "), "${registry}")
}

// Output is what a side must print to stdout to count. The zero Output wants nothing printed.
type Output struct {
	Text   string
	Prefix bool  // Text is only how it starts
	Bytes  int64 // instead of Text: so many bytes of anything

	Contains string // instead of Text: what is somewhere in it
}

// Row is one promise. The value of a row is Metric of Ours divided by Metric of Against, lower is better.
type Row struct {
	ID, Group, Workload string
	Ours, Against       Spec // without Against the value is the metric itself
	Metric              Metric
	Above               bool // the value is how much Ours is above Against, not the ratio
	Goal                float64
	N                   int    // rounds, 0 = as asked for; for rows that take seconds
	Context             bool   // no promise: shown because it explains another row
	Note                string // why a goal is missed, or what limits the row in this release
}

// is reports whether id names the row: the row's id, or its start up to a letter or point.
func (r Row) is(id string) bool {
	rest, ok := strings.CutPrefix(r.ID, id)
	return ok && (rest == "" || rest[0] < '0' || rest[0] > '9')
}

// Group is rows that are measured together, with one program that is compared with itself.
type Group struct {
	Name, Title string
	Anchor      Spec
	Metric      Metric // of Anchor
}

func groups() []Group {
	return []Group{
		{"start", "Start-up, whole process", linkfloor(), Wall},
		{"spawn", "Spawn to exit inside one warm host", spawn("exec"), PerOp},
		{"call", "Host calls", grpcUnary(64, 2000), Reported},
		{"stream", "Output", Spec{Label: "the program itself", Argv: []string{"${guests}/guest/native", "flood", "134217728"}, Want: Output{Bytes: 128 << 20}}, Wall},
		{"blob", "Blobs", openRead(), Reported},
		{"cache", "Cache", Spec{Label: "open + fstat + close", Pkg: "cache", Bench: "BenchmarkOpenHit/open+fstat+close"}, PerOp},
		{"registry", "Registry, distribution v3 on loopback", registryAnchor(), Wall},
		{"bus", "Events", channels("8"), PerOp},
	}
}

func groupNames() (out []string) {
	for _, g := range groups() {
		out = append(out, g.Name)
	}
	return out
}

// registryAnchor is the minimal client.
func registryAnchor() Spec { return registryRows()[4].Against }

var hello = Output{Text: "hello\n"} //nolint:gochecknoglobals // a constant

func ds(label string, want Output, args ...string) Spec {
	return Spec{Label: "ds " + label, Argv: append([]string{"${ds}"}, args...), Want: want}
}

// linkfloor is L, with words L+raw.
func linkfloor(words ...string) Spec {
	s := Spec{Label: "L", Argv: append([]string{"${peers}/linkfloor"}, words...)}
	if len(words) > 0 {
		s.Label, s.Want = "L+raw", hello
	}
	return s
}

func wazero(label, module string, want Output, flags ...string) Spec {
	return Spec{Label: label, Argv: append(append([]string{"${peers}/wazero", "run"}, flags...), module), Want: want}
}

func goplugin(flags ...string) Spec {
	label := "stock go-plugin"
	if len(flags) > 0 {
		label = "stock go-plugin, AutoMTLS"
	}
	return Spec{Label: label, Argv: append(append([]string{"${peers}/gphost"}, flags...), "${peers}/gpplugin"), Want: hello}
}

func spawn(kind string) Spec {
	label := map[string]string{"exec": "os/exec of R", "call": "runtime/native", "confined": "runtime/native", "unconfined": "the same, unconfined"}[kind]
	return Spec{Label: label, Pkg: "internal/bench", Bench: "BenchmarkSpawn/" + kind}
}

// stockSpawn is the host of goplugin as a benchmark: from spawn to exit, one call.
func stockSpawn(label, kind string) Spec {
	return Spec{Label: label, Pkg: "testdata/peers/gphost", Bench: "BenchmarkSpawn/" + kind}
}

func grpcUnary(size, n int) Spec {
	return Spec{
		Label: "grpc unary, unix socket", Argv: []string{"${peers}/grpcecho", "-calls", strconv.Itoa(n), "-size", strconv.Itoa(size)},
		Want: callsMade(size, n),
	}
}

// extism is a row of calls of the same guest against a host function of Extism.
func extism(id string, size, n int, goal float64) Row {
	r := calls(id, "cguest", "ds_v1", size, n, goal)
	r.Against = Spec{
		Label: "Extism host function", Argv: []string{"${peers}/extismcall", "-calls", strconv.Itoa(n), "-size", strconv.Itoa(size)},
		Want: callsMade(size, n),
	}
	return r
}

func channels(subscribers string) Spec {
	return Spec{Label: "blocking channel of 100", Pkg: "testdata/peers/chanbus", Bench: "BenchmarkPublish/subscribers=" + subscribers}
}

// small is how many calls a round of the rows of small messages makes: with all rounds some 35 000 of each side, of which
// each round gives the median. large is that of others.
const (
	small = 5000
	large = 1000
)

// calls is a row of n host calls: Config.Get with a reply of size bytes.
func calls(id, plugin, carrier string, size, n int, goal float64) Row {
	label, file := fmt.Sprintf("%d B", size), "calls.yaml"
	switch {
	case size >= 1e6:
		label, file = "1 MB", "huge.yaml"
	case size > 1<<10:
		label, file = fmt.Sprintf("%d KiB", size>>10), "large.yaml"
	}
	want := callsMade(size, n)
	return Row{
		ID: id, Group: "call", Workload: carrier + ", " + label, Metric: Reported, Goal: goal, N: 7,
		Ours:    ds(plugin+" calls", want, "--config", "${tmp}/"+file, plugin, "calls", fmt.Sprintf("v%d", size), strconv.Itoa(n)),
		Against: grpcUnary(size, n),
	}
}

// callsMade is what a program prints that made n calls.
func callsMade(size, n int) Output {
	return Output{Text: fmt.Sprintf("calls %d bytes %d ns ", n, size*n), Prefix: true}
}

var blobRead = Output{Text: "read 268435456 ns ", Prefix: true} //nolint:gochecknoglobals // a constant

// openRead reads a file as large as the blobs; its program compares the bytes before it reads them for the clock.
func openRead() Spec {
	return Spec{Label: "os.Open + read, 256 KiB buffer", Argv: []string{"${guests}/guest/native", "file", "268435456"}, Want: blobRead}
}

// blob is a row of a plugin that opens a blob at the host one way, "sdk", "path" or "handle", and reads it.
func blob(id, plugin, way, how string, goal float64) Row {
	return Row{
		ID: id, Group: "blob", Workload: "256 MiB " + how, Metric: Reported, Goal: goal, N: 7,
		Ours: ds(plugin+" blob", blobRead, plugin, "blob", "268435456", way), Against: openRead(),
	}
}

// grpcStream takes as many bytes from a server stream.
func grpcStream(label, chunk string) Spec {
	return Spec{Label: "grpc stream, " + label + " chunks", Argv: []string{"${peers}/grpcecho", "-read", "268435456", "-chunk", chunk}, Want: blobRead}
}

// blobRows: a confined plugin gets a descriptor of the cache's file, if it asks as the SDK does; a path is one of a copy.
func blobRows() []Row {
	b1 := blob("B1", "blob", "sdk", "as the SDK opens it, native", 1.05)
	copied := blob("B1.copy", "blob", "path", "by path, native, confined", 0)
	copied.Context = true
	copied.Note = "for programs that can open nothing but paths: Cache.Open copies the blob to DS_RUN_DIR, since the cache is closed to confined plugins"
	b2 := blob("B2", "blob", "sdk", "by passed descriptor, native", 0.33)
	b2.Against = grpcStream("256 KiB", "262144")
	b4 := blob("B4", "wblob", "path", "by /ds/blob, WASM", 0.20)
	b4.Against = grpcStream("1 MiB", "1048576")
	return []Row{b1, copied, b2, blob("B3.file", "wblob", "path", "by /ds/blob, WASM", 1.5), blob("B3.read", "wblob", "handle", "by read, WASM", 1.5), b4}
}

// contract is every row that this release can measure. Goals are those of the performance contract; a row gets
// looser only with the reason in its Note.
func contract() []Row {
	cHello := Output{Text: "hello from C\n"}
	h4a := calls("H4.frames", "guest", "frames against the go-plugin broker", 64, small, 0.6)
	h4a.Against = Spec{
		Label: "go-plugin broker call", Argv: []string{"${peers}/gphost", "-calls", strconv.Itoa(small), "${peers}/gpplugin"},
		Want: callsMade(64, small),
	}
	h4b := h4a
	h4b.ID, h4b.Workload, h4b.Goal = "H4.broker", "broker gRPC against the go-plugin broker, 64 B", 1.1
	h4b.Ours = calls("", "gpguest", "", 64, small, 0).Ours
	sdk := calls("H1.sdk", "wguest", "ds_v1 from the Go SDK in WASM", 64, small, 0)
	sdk.Context = true
	sdk.Note = "mostly the guest's own Go code; the carrier alone is H1a"

	h8 := calls("H8", "cguest", "/ds/call, JSON", 64, small, 0.30)
	h8.Ours.Label, h8.Ours.Argv[4] = "ds cguest files", "files"
	h8go := calls("H8.go", "wguest", "/ds/call, JSON, from a Go guest", 64, small, 0)
	h8go.Ours.Label, h8go.Ours.Argv[4], h8go.Context = "ds wguest files", "files", true
	h8go.Note = "mostly the guest's own Go code, see H1.sdk"

	h3 := calls("H3.64", "guest", "DS_HOST_FD frames", 64, small, 0.30)
	h3.Note = "the host answers where it reads and the guest reads where it waits: a call is seven system calls on both sides together and two context switches"
	one := publish("1")
	one.Note = "an event is checked, numbered and counted against its publisher's rate before anybody gets it"
	gib := Output{Bytes: 1 << 30}
	return append([]Row{
		{ID: "S1", Group: "start", Workload: "ds version", Ours: ds("version", Output{Text: "ds version ", Prefix: true}, "version"), Against: linkfloor(), Metric: Wall, Goal: 1.15, Note: "on both sides most is package initialisation of what is linked, some 5 ms in 200 packages, two fifths of it in semver, gojq, protodesc, oras-go and gob; ds adds the configuration and what the linker drops from L"},
		{ID: "S2", Group: "start", Workload: "native direct, no host call", Ours: ds("raw", hello, "raw"), Against: linkfloor("${guests}/raw/native"), Metric: Wall, Goal: 1.25, Note: "on top of S1, the plugin is looked up and checked, and DS_RUN_DIR is made and removed, which can wait for the journal of a busy disk"},
		{ID: "S3", Group: "start", Workload: "native direct, one host call", Ours: ds("guest hello", hello, "guest", "hello"), Against: linkfloor("${guests}/raw/native"), Metric: Wall, Goal: 1.30, Note: "S2, with a guest as in S16; the same for S4 and S5"},
		{ID: "S4", Group: "start", Workload: "native direct, one host call", Ours: ds("guest hello", hello, "guest", "hello"), Against: goplugin(), Metric: Wall, Goal: 0.55},
		{ID: "S5", Group: "start", Workload: "native direct, one host call", Ours: ds("guest hello", hello, "guest", "hello"), Against: goplugin("-automtls"), Metric: Wall, Goal: 0.15},
		{ID: "S6", Group: "start", Workload: "native mode goplugin, one host call", Ours: ds("gpguest hello", hello, "gpguest", "hello"), Against: goplugin(), Metric: Wall, Goal: 1.15},
		{
			ID: "S7", Group: "start", Workload: "WASM C, warm", Ours: ds("chello", cHello, "chello"),
			Against: wazero("wazero run -cachedir", "${guests}/chello/chello.wasm", cHello, "-cachedir", "${tmp}/wazero"), Metric: Wall, Goal: 1.8,
			Note: "ds needs more than all of wazero's time before it looks at the module, see S1",
		},
		{
			ID: "S10", Group: "start", Workload: "WASM Go, warm", Ours: ds("gohello", hello, "gohello"),
			Against: wazero("wazero run -cachedir", "${guests}/gohello/gohello.wasm", hello, "-cachedir", "${tmp}/wazero"), Metric: Wall, Goal: 1.1,
		},
		cold("S12.c", "WASM C, no compiled entry", "chello", cHello, 1.6),
		cold("S12.go", "WASM Go, no compiled entry", "gohello", hello, 1.4),

		{ID: "S15.off", Group: "spawn", Workload: "direct, no call, sandbox.native off", Ours: spawn("unconfined"), Against: spawn("exec"), Metric: PerOp, Goal: 1.05},
		{ID: "S15", Group: "spawn", Workload: "direct, no call, confined", Ours: spawn("confined"), Against: spawn("exec"), Metric: PerOp, Goal: userOrRoot(1.15, 1.20), Note: "most is DS_RUN_DIR: making and removing a directory takes 0.02 ms on tmpfs and up to some ms on ext4 while others write; then 10 more waits between threads than os/exec, for the thread that starts the program and the one that serves it; confinement itself, 29 rules of four system calls each, is row S17"},
		{ID: "S16", Group: "spawn", Workload: "direct, one call, confined", Ours: spawn("call"), Against: spawn("exec"), Metric: PerOp, Goal: 1.35, Note: "on top of S15 the guest is a Go program with the SDK, twice as large as R, which alone takes 1.3 of its time, most of it in the runtime before main; then come its one call and the threads that this wakes"},
		{ID: "S18", Group: "spawn", Workload: "direct, one call, confined", Ours: spawn("call"), Against: stockSpawn("stock go-plugin, same call", "plain"), Metric: PerOp, Goal: 0.35, Note: "as S16"},
		{ID: "S18.tls", Group: "spawn", Workload: "direct, one call, confined", Ours: spawn("call"), Against: stockSpawn("the same with AutoMTLS", "automtls"), Metric: PerOp, Goal: 0.10},
		{ID: "S17", Group: "spawn", Workload: "direct, no call, confined", Ours: spawn("confined"), Against: spawn("unconfined"), Metric: PerOp, Goal: 1.20},

		calls("H1a.64", "cguest", "ds_v1", 64, small, 0.025),
		calls("H1a.1024", "cguest", "ds_v1", 1024, small, 0.03),
		sdk,
		h3,
		calls("H3.1024", "guest", "DS_HOST_FD frames", 1024, small, 0.30),
		calls("H1b.64k", "cguest", "ds_v1", 64<<10, large, 0.10),
		calls("H1b.1m", "cguest", "ds_v1", 1e6, 300, 0.25),
		calls("H3.64k", "guest", "DS_HOST_FD frames", 64<<10, large, 0.40),
		h4a, h4b,
		extism("H5.0", 0, small, 0.02),
		extism("H5.64k", 64<<10, large, 0.05),
		h8, h8go,
		{
			ID: "H6", Group: "call", Workload: "heap allocations of one call in the host, 64 B", Metric: Allocs, Goal: 6, N: 3,
			Ours: Spec{Label: "hostabi/host", Pkg: "hostabi/host", Bench: "BenchmarkInvoke/gate"},
		},
		{
			ID: "H7", Group: "call", Workload: "gate, limits and span, frames, 64 B", Metric: PerOp, Goal: 1.3,
			Ours:    Spec{Label: "one call", Pkg: "internal/bench", Bench: "BenchmarkCall/gate"},
			Against: Spec{Label: "the handler alone", Pkg: "internal/bench", Bench: "BenchmarkCall/plain"},
		},

		{
			ID: "O1", Group: "stream", Workload: "1 GiB on stdout into a pipe, direct, 0 bytes lost", Metric: Wall, Goal: 1.1, N: 7,
			Ours:    ds("guest flood", gib, "guest", "flood", "1073741824"),
			Against: Spec{Label: "os/exec of the same program", Argv: []string{"${guests}/guest/native", "flood", "1073741824"}, Want: gib},
		},

		{
			ID: "C5.open", Group: "cache", Workload: "hit: Open", Metric: PerOp, Goal: 2,
			Ours:    Spec{Label: "cache.Store.Open", Pkg: "cache", Bench: "BenchmarkOpenHit/Open"},
			Against: Spec{Label: "open + fstat + close", Pkg: "cache", Bench: "BenchmarkOpenHit/open+fstat+close"},
		},
		{
			ID: "C5.path", Group: "cache", Workload: "hit: Path with lease", Metric: PerOp, Goal: 2,
			Ours:    Spec{Label: "cache.View.Path", Pkg: "cache", Bench: "BenchmarkOpenHit/Path"},
			Against: Spec{Label: "open + fstat + close", Pkg: "cache", Bench: "BenchmarkOpenHit/open+fstat+close"},
		},

		one, publish("8"), publish("64"),
		{
			ID: "E2", Group: "bus", Workload: "publish to 8 subscribers, one of them stuck", Metric: PerOp, Goal: 1.1,
			Ours:    Spec{Label: "events.Bus.Publish", Pkg: "internal/events", Bench: "BenchmarkStuck/one"},
			Against: Spec{Label: "the same, all 8 read", Pkg: "internal/events", Bench: "BenchmarkStuck/none"},
		},
	}, append(blobRows(), registryRows()...)...)
}

// userOrRoot is a goal that differs: root's files and capabilities cost the kernel more checks.
func userOrRoot(user, root float64) float64 {
	if os.Geteuid() == 0 {
		return root
	}
	return user
}

// cold is a run of a module that nothing compiled before. What install compiled is removed, and wazero has no
// cache without -cachedir.
func cold(id, workload, plugin string, want Output, goal float64) Row {
	ours := ds(plugin+", wasm cache removed", want, plugin)
	ours.Clear = "${home}/.cache/ds/wasm"
	return Row{
		ID: id, Group: "start", Workload: workload, Ours: ours, Metric: Wall, Goal: goal, N: 7,
		Against: wazero("wazero run", "${guests}/"+plugin+"/"+plugin+".wasm", want),
	}
}

func publish(subscribers string) Row {
	return Row{
		ID: "E1." + subscribers, Group: "bus", Workload: "publish to " + subscribers + " subscribers in process", Metric: PerOp, Goal: 1.5,
		Ours:    Spec{Label: "events.Bus.Publish", Pkg: "internal/events", Bench: "BenchmarkPublish/subscribers=" + subscribers},
		Against: channels(subscribers),
	}
}
