package main

import (
	"os"
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
		{"call", "Host calls", grpcUnary("2000", "64", "calls 2000 bytes 128000 ns "), Reported},
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

func grpcUnary(calls, size, want string) Spec {
	return Spec{
		Label: "grpc unary, unix socket", Argv: []string{"${peers}/grpcecho", "-calls", calls, "-size", size},
		Want: Output{Text: want, Prefix: true},
	}
}

func channels(subscribers string) Spec {
	return Spec{Label: "blocking channel of 100", Pkg: "testdata/peers/chanbus", Bench: "BenchmarkPublish/subscribers=" + subscribers}
}

// calls is a row of 20 000 host calls: Config.Get with a reply of size bytes. A round takes seconds.
func calls(id, plugin, carrier, size, total string, goal float64) Row {
	want := Output{Text: "calls 20000 bytes " + total + " ns ", Prefix: true}
	return Row{
		ID: id, Group: "call", Workload: carrier + ", " + size + " B", Metric: Reported, Goal: goal, N: 7,
		Ours: ds(plugin+" calls", want, "--config", "${tmp}/calls.yaml", plugin, "calls", "v"+size, "20000"), Against: grpcUnary("20000", size, want.Text),
	}
}

// large is a row of 2000 host calls with a reply of 64 KiB.
func large(id, plugin, carrier string, goal float64) Row {
	want := Output{Text: "calls 2000 bytes 131072000 ns ", Prefix: true}
	return Row{
		ID: id, Group: "call", Workload: carrier + ", 64 KiB", Metric: Reported, Goal: goal, N: 7,
		Ours:    ds(plugin+" calls", want, "--config", "${tmp}/large.yaml", plugin, "calls", "v65536", "2000"),
		Against: grpcUnary("2000", "65536", want.Text),
	}
}

var blobRead = Output{Text: "read 268435456 ns ", Prefix: true} //nolint:gochecknoglobals // a constant

// openRead reads a file as large as the blobs; its program compares the bytes before it reads them for the clock.
func openRead() Spec {
	return Spec{Label: "os.Open + read, 256 KiB buffer", Argv: []string{"${guests}/guest/native", "file", "268435456"}, Want: blobRead}
}

func blob(id, plugin, way string, goal float64) Row {
	return Row{
		ID: id, Group: "blob", Workload: "256 MiB " + way, Metric: Reported, Goal: goal, N: 7,
		Ours: ds(plugin+" blob", blobRead, plugin, "blob", "268435456"), Against: openRead(),
	}
}

// contract is every row that this release can measure. Goals are those of the performance contract; a row gets
// looser only with the reason in its Note.
func contract() []Row {
	cHello := Output{Text: "hello from C\n"}
	h4a := calls("H4.frames", "guest", "frames against the go-plugin broker", "64", "1280000", 0.6)
	h4a.Against = Spec{
		Label: "go-plugin broker call", Argv: []string{"${peers}/gphost", "-calls", "20000", "${peers}/gpplugin"},
		Want: Output{Text: "calls 20000 bytes 1280000 ns ", Prefix: true},
	}
	h4b := h4a
	h4b.ID, h4b.Workload, h4b.Goal = "H4.broker", "broker gRPC against the go-plugin broker, 64 B", 1.1
	h4b.Ours = calls("", "gpguest", "", "64", "1280000", 0).Ours
	sdk := calls("H1.sdk", "wguest", "ds_v1 from the Go SDK in WASM", "64", "1280000", 0)
	sdk.Context = true
	sdk.Note = "mostly the guest's own Go code; the carrier alone is H1a"

	h8 := calls("H8", "wguest", "/ds/call, JSON, from a Go guest", "64", "1280000", 0.30)
	h8.Ours.Label, h8.Ours.Argv[4] = "ds wguest files", "files"

	h3 := calls("H3.64", "guest", "DS_HOST_FD frames", "64", "1280000", 0.30)
	h3.Note = "the host answers where it reads and the guest reads where it waits: a call is seven system calls on both sides together and two context switches"
	b1 := blob("B1", "blob", "by path, native", 1.05)
	b1.Note = "the time includes Cache.Open, which copies the blob to DS_RUN_DIR for a program that cannot open files of the cache"
	one := publish("1")
	one.Note = "an event is checked, numbered and counted against its publisher's rate before anybody gets it"
	gib := Output{Bytes: 1 << 30}
	return append([]Row{
		{ID: "S1", Group: "start", Workload: "ds version", Ours: ds("version", Output{Text: "ds version ", Prefix: true}, "version"), Against: linkfloor(), Metric: Wall, Goal: 1.15, Note: "on both sides most is package initialisation of what is linked; ds adds the configuration and what the linker drops from L"},
		{ID: "S2", Group: "start", Workload: "native direct, no host call", Ours: ds("raw", hello, "raw"), Against: linkfloor("${guests}/raw/native"), Metric: Wall, Goal: 1.25, Note: "on top of S1, the plugin is looked up and checked, and DS_RUN_DIR is made and removed, which can wait for the journal of a busy disk"},
		{ID: "S3", Group: "start", Workload: "native direct, one host call", Ours: ds("guest hello", hello, "guest", "hello"), Against: linkfloor("${guests}/raw/native"), Metric: Wall, Goal: 1.30},
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
		{ID: "S15", Group: "spawn", Workload: "direct, no call, confined", Ours: spawn("confined"), Against: spawn("exec"), Metric: PerOp, Goal: userOrRoot(1.15, 1.20), Note: "DS_RUN_DIR, made and removed for each run, is most of the difference to os/exec"},
		{ID: "S16", Group: "spawn", Workload: "direct, one call, confined", Ours: spawn("call"), Against: spawn("exec"), Metric: PerOp, Goal: 1.35, Note: "the guest is a Go program with the SDK, which alone takes about twice R's time; the call, the first of its process, adds a reader and the poller of Go's runtime: half of what is left"},
		{ID: "S18", Group: "spawn", Workload: "direct, one call, confined", Ours: spawn("call"), Against: stockSpawn("stock go-plugin, same call", "plain"), Metric: PerOp, Goal: 0.35},
		{ID: "S18.tls", Group: "spawn", Workload: "direct, one call, confined", Ours: spawn("call"), Against: stockSpawn("the same with AutoMTLS", "automtls"), Metric: PerOp, Goal: 0.10},
		{ID: "S17", Group: "spawn", Workload: "direct, no call, confined", Ours: spawn("confined"), Against: spawn("unconfined"), Metric: PerOp, Goal: 1.20},

		calls("H1a.64", "cguest", "ds_v1", "64", "1280000", 0.025),
		calls("H1a.1024", "cguest", "ds_v1", "1024", "20480000", 0.03),
		sdk,
		h3,
		calls("H3.1024", "guest", "DS_HOST_FD frames", "1024", "20480000", 0.30),
		large("H1b.64k", "cguest", "ds_v1", 0.10),
		large("H3.64k", "guest", "DS_HOST_FD frames", 0.40),
		h4a, h4b, h8,
		{
			ID: "H6", Group: "call", Workload: "heap allocations of one call in the host, 64 B", Metric: Allocs, Goal: 6, N: 3,
			Ours: Spec{Label: "hostabi/host", Pkg: "hostabi/host", Bench: "BenchmarkInvoke/gate"},
		},

		{
			ID: "O1", Group: "stream", Workload: "1 GiB on stdout into a pipe, direct, 0 bytes lost", Metric: Wall, Goal: 1.1, N: 7,
			Ours:    ds("guest flood", gib, "guest", "flood", "1073741824"),
			Against: Spec{Label: "os/exec of the same program", Argv: []string{"${guests}/guest/native", "flood", "1073741824"}, Want: gib},
		},

		b1,
		blob("B3.file", "wblob", "by /ds/blob, WASM", 1.5),

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
	}, registryRows()...)
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
