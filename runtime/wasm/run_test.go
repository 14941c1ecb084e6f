package wasm

import (
	"context"
	"crypto/sha256"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/wasmcheck"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

func TestResults(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file  string
		words []string
		want  string
	}{
		"returns":           {demoWASM, []string{"args"}, ""},
		"exit 3":            {demoWASM, []string{"exit", "3"}, "exit 3"},
		"exit 255":          {demoWASM, []string{"exit", "255"}, "exit 255"},
		"exit over 255":     {probeWASM, []string{"exitcode", "1000"}, "exit 255"},
		"exit 0":            {probeWASM, []string{"exitcode", "0"}, ""},
		"exit 0xffffffff":   {probeWASM, []string{"exitcode", "0xffffffff"}, "exit 255"},
		"exit 0xefffffff":   {probeWASM, []string{"exitcode", "0xefffffff"}, "exit 255"},
		"trap unreachable":  {demoWASM, []string{"trap"}, "WASM_TRAP: demo: wasm trap: unreachable"},
		"trap bounds":       {probeWASM, []string{"bounds"}, "WASM_TRAP: probe: wasm trap: out of bounds memory access"},
		"trap division":     {probeWASM, []string{"div"}, "WASM_TRAP: probe: wasm trap: integer divide by zero"},
		"trap indirect":     {probeWASM, []string{"indirect"}, "WASM_TRAP: probe: wasm trap: invalid table access"},
		"trap stack":        {probeWASM, []string{"recurse"}, "WASM_TRAP: probe: wasm trap: "},
		"panic of the host": {probeWASM, []string{"callfor", "/panic"}, "INTERNAL: probe: internal error in the wasm engine, trace 0af7"},
		"unknown method":    {probeWASM, []string{"callfor", "/nope"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &runOf{inv: plugin.Invocation{TraceID: "0af7"}}
			got := resultOf(r.run(t.Context(), t, installed(t, c.file), c.words...))
			if got != c.want && (!strings.HasSuffix(c.want, ": ") || !strings.HasPrefix(got, c.want)) {
				t.Errorf("got %q, want %q; stderr %s", got, c.want, &r.err)
			}
		})
	}
}

func TestHello(t *testing.T) {
	t.Parallel()
	r := &runOf{}
	if err := r.run(t.Context(), t, installed(t, helloWASM)); err != nil || !strings.Contains(r.out.String(), "ello") {
		t.Errorf("%v: %q", err, &r.out)
	}
}

func TestArgsAndEnvironment(t *testing.T) {
	t.Parallel()
	p := installed(t, demoWASM)
	r := &runOf{box: fakeBox{env: []string{"MY_TOKEN=x", "DS_PLUGIN=evil"}}}
	r.inv = plugin.Invocation{
		ID: "id", Kind: plugin.KindRun, TraceID: "t", TraceParent: "tp", NoInput: true, LogLevel: "debug",
		Env: []string{"LANG=de_DE", "LC_ALL=C", "PATH=/bin", "HOME=/root", "TZ=UTC"},
	}
	if err := r.run(t.Context(), t, p, "env"); err != nil {
		t.Fatal(err)
	}
	want := "DS_ABI=ds.host/v1\nDS_INVOCATION=id\nDS_KIND=run\nDS_LOG_LEVEL=debug\nDS_NO_INPUT=1\nDS_PLUGIN=demo\nDS_PLUGIN_VERSION=1.0.0\n" +
		"DS_TRACE_ID=t\nLANG=de_DE\nLC_ALL=C\nMY_TOKEN=x\nPWD=/\nTMPDIR=/tmp\nTRACEPARENT=tp\nTZ=UTC\n"
	if got := r.out.String(); got != want {
		t.Errorf("environment:\n%swant:\n%s", got, want)
	}
	r = &runOf{box: fakeBox{args: []string{"args", "/args/1/x"}}}
	if err := r.run(t.Context(), t, p, "args", "/etc/x"); err != nil || r.out.String() != "ds-demo\nargs\n/args/1/x\n" {
		t.Errorf("%v: %q", err, &r.out)
	}
	q := *p
	q.Manifest = &plugin.Manifest{Run: plugin.Run{WASM: &plugin.RunWASM{Argv: []string{"py", "-m"}}}}
	r = &runOf{}
	if err := r.run(t.Context(), t, &q, "args"); resultOf(err) != "exit 2" { // the demo sees "-m" as its command
		t.Errorf("interpreter argv: %v", err)
	}
}

func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	r := &runOf{box: fakeBox{limits: plugin.Limits{Memory: 2 << 20}}}
	if err := r.run(t.Context(), t, installed(t, demoWASM), "oom"); err != nil || r.out.String() != "oom: 21 pages\n" {
		t.Errorf("%v: %q", err, &r.out)
	}
	if r.err.Len() > 0 {
		t.Errorf("hint after success: %s", &r.err)
	}
	r = &runOf{box: fakeBox{limits: plugin.Limits{Memory: 64 << 10}}}
	if got := resultOf(r.run(t.Context(), t, installed(t, demoWASM), "args")); got != "MEMORY_LIMIT: demo: module needs 320KiB of memory, the limit is 64KiB" {
		t.Errorf("minimum over the limit: %q", got)
	}
}

func TestMemoryOfAllInstances(t *testing.T) {
	t.Parallel()
	b := New(Options{MemoryMax: 100 << 20})
	t.Cleanup(func() { _ = b.Close() })
	s := &fakeSession{entered: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	p := installed(t, probeWASM)
	go func() {
		r := &runOf{b: b, session: s}
		first <- r.run(ctx, t, p, "callfor", "/block")
	}()
	<-s.entered
	r := &runOf{b: b}
	if got := resultOf(r.run(t.Context(), t, p, "callfor", "/echo")); !strings.HasPrefix(got, "MEMORY_LIMIT: ") {
		t.Errorf("second: %q", got)
	}
	cancel()
	if got := resultOf(<-first); !strings.HasPrefix(got, "INTERRUPTED: ") {
		t.Errorf("first: %q", got)
	}
	if err := r.run(t.Context(), t, p, "callfor", "/echo"); err != nil {
		t.Errorf("after the first ended: %v", err)
	}
}

// TestS3_Waits: whatever a guest waits for, it ends 100 ms after its deadline.
func TestS3_Waits(t *testing.T) {
	t.Parallel()
	p, q := installed(t, demoWASM), installed(t, probeWASM)
	for _, x := range []*plugin.Installed{p, q} { // compile outside of the deadline
		if err := shared().Check(t.Context(), x); err != nil {
			t.Fatal(err)
		}
		_, _ = shared().await(x, &plugin.Invocation{}, newStopper(t.Context(), &plugin.Invocation{}))
	}
	pipeR, pipeW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = pipeR.Close(), pipeW.Close() })
	memR, _ := io.Pipe()
	_, memW := io.Pipe()
	sockR, sockW := socketpair(t)
	_ = sockW
	full, fullW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = full.Close(), fullW.Close() })
	for name, c := range map[string]struct {
		p      *plugin.Installed
		words  []string
		stdin  io.Reader
		stdout io.Writer
	}{
		"loop":              {p: p, words: []string{"loop"}},
		"sleep":             {p: p, words: []string{"sleep", "3600"}},
		"sleep, exits 0":    {p: q, words: []string{"sleep0"}},
		"stdin pipe":        {p: p, words: []string{"echo"}, stdin: pipeR},
		"stdin in memory":   {p: p, words: []string{"echo"}, stdin: memR},
		"stdin socket":      {p: p, words: []string{"echo"}, stdin: sockR},
		"poll pipe":         {p: q, words: []string{"poll"}, stdin: pipeR},
		"poll in memory":    {p: q, words: []string{"poll"}, stdin: memR},
		"full pipe":         {p: p, words: []string{"flood", "1000000"}, stdout: fullW},
		"host call":         {p: q, words: []string{"callfor", "/block"}},
		"loop after a call": {p: q, words: []string{"callwait", "/echo"}},
		"output in memory":  {p: p, words: []string{"flood", "1000000"}, stdout: memW},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limit := 200*time.Millisecond + slack
			if c.stdout == memW {
				limit += abandonAfter
			}
			r := &runOf{inv: plugin.Invocation{Stdin: c.stdin, Stdout: c.stdout}}
			within(t, limit, func() {
				r.inv.Deadline = time.Now().Add(200 * time.Millisecond)
				if got := resultOf(r.run(t.Context(), t, c.p, c.words...)); !strings.HasPrefix(got, "TIMEOUT: ") {
					t.Errorf("got %q", got)
				}
			})
		})
	}
}

func TestContextDeadline(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if got := resultOf((&runOf{}).run(ctx, t, installed(t, demoWASM), "loop")); !strings.HasPrefix(got, "TIMEOUT: ") {
		t.Errorf("got %q", got)
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		words   []string
		signals []os.Signal
		want    string
		atLeast time.Duration
		out     string
	}{
		"host call":      {words: []string{"callfor", "/block"}, signals: []os.Signal{syscall.SIGTERM}, want: "[exit 143]", out: "code 1\n"},
		"loop, grace":    {words: []string{"callwait", "/block"}, signals: []os.Signal{syscall.SIGINT}, want: "[exit 130]", atLeast: grace},
		"loop, twice":    {words: []string{"callwait", "/block"}, signals: []os.Signal{syscall.SIGINT, syscall.SIGINT}, want: "[exit 130]"},
		"cleans up":      {words: []string{"callfor", "/block"}, signals: []os.Signal{syscall.Signal(99), syscall.SIGHUP}, want: "[exit 129]", out: "code 1\n"},
		"caller is gone": {words: []string{"callfor", "/block"}, want: "INTERRUPTED: probe: caller is gone; the plugin was stopped", out: "code 1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			signals := make(chan os.Signal, 2)
			s := &fakeSession{entered: make(chan struct{}, 1)}
			r := &runOf{session: s, inv: plugin.Invocation{Signals: signals}}
			var begin time.Time
			go func() {
				<-s.entered
				begin = time.Now()
				for _, sig := range c.signals {
					signals <- sig
				}
				if len(c.signals) == 0 {
					cancel()
				}
			}()
			got := resultOf(r.run(ctx, t, installed(t, probeWASM), c.words...))
			if !strings.HasPrefix(got, "INTERRUPTED: ") || !strings.HasSuffix(got, c.want) {
				t.Errorf("got %q", got)
			}
			if took := time.Since(begin); took < c.atLeast || took > c.atLeast+slack {
				t.Errorf("took %v", took)
			}
			if r.out.String() != c.out {
				t.Errorf("printed %q", &r.out)
			}
		})
	}
}

func TestStdoutLosesNothing(t *testing.T) {
	t.Parallel()
	n := 64 << 20
	if testing.Short() {
		n = 4 << 20
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	want, got := sha256.New(), sha256.New()
	pattern := make([]byte, 251*4096)
	for i := range pattern {
		pattern[i] = byte(i % 251)
	}
	for left := n; left > 0; left -= min(left, len(pattern)) {
		_, _ = want.Write(pattern[:min(left, len(pattern))])
	}
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(got, pr)
		done <- err
	}()
	r := &runOf{inv: plugin.Invocation{Stdout: pw}}
	if err := r.run(t.Context(), t, installed(t, demoWASM), "flood", itoa(n)); err != nil {
		t.Fatal(err)
	}
	_ = pw.Close()
	if err := <-done; err != nil || string(got.Sum(nil)) != string(want.Sum(nil)) {
		t.Errorf("output differs: %v", err)
	}
}

func TestStdoutReaderGone(t *testing.T) {
	t.Parallel()
	for name, stdout := range map[string]func() io.Writer{
		"pipe": func() io.Writer {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = w.Close() })
			_ = r.Close()
			return w
		},
		"memory": func() io.Writer {
			r, w := io.Pipe()
			_ = r.Close()
			return w
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := &runOf{inv: plugin.Invocation{Stdout: stdout()}}
			if got := resultOf(r.run(t.Context(), t, installed(t, demoWASM), "flood", "100000000")); got != "exit 141" {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestStdinIsNotReadAhead: the next program of a pipeline keeps its input.
func TestStdinIsNotReadAhead(t *testing.T) {
	t.Parallel()
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pr.Close() }()
	if _, err := pw.WriteString("one\ntwo\n"); err != nil {
		t.Fatal(err)
	}
	_ = pw.Close()
	r := &runOf{inv: plugin.Invocation{Stdin: pr}}
	if err := r.run(t.Context(), t, installed(t, demoWASM), "args"); err != nil {
		t.Fatal(err)
	}
	r = &runOf{inv: plugin.Invocation{Stdin: pr}}
	if err := r.run(t.Context(), t, installed(t, demoWASM), "echo"); err != nil || r.out.String() != "one\ntwo\n" {
		t.Errorf("%v: %q", err, &r.out)
	}
}

func TestStdinKinds(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/in"
	if err := os.WriteFile(file, []byte("skip this"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Seek(5, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	for name, c := range map[string]struct {
		in   io.Reader
		want string
	}{
		"none":   {nil, ""},
		"memory": {strings.NewReader("hello"), "hello"},
		"file":   {f, "this"},
		"null":   {null, ""},
	} {
		r := &runOf{inv: plugin.Invocation{Stdin: c.in}}
		if err := r.run(t.Context(), t, installed(t, demoWASM), "echo"); err != nil || r.out.String() != c.want {
			t.Errorf("%s: %v: %q", name, err, &r.out)
		}
	}
	r := &runOf{inv: plugin.Invocation{Stdin: null}}
	if err := r.run(t.Context(), t, installed(t, demoWASM), "isatty"); err != nil || r.out.String() != "isatty: stdin=0 stdout=0 stderr=0\n" {
		t.Errorf("%v: %q", err, &r.out)
	}
}

func TestPollSeesInput(t *testing.T) {
	t.Parallel()
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = pr.Close(), pw.Close() }()
	_, _ = pw.WriteString("x")
	for name, c := range map[string]struct {
		in   io.Reader
		want string
	}{
		"pipe":        {pr, "poll: 1\n"},
		"memory":      {strings.NewReader("x"), "poll: 1\n"},
		"end of file": {strings.NewReader(""), "poll: 1\n"},
	} {
		r := &runOf{inv: plugin.Invocation{Stdin: c.in}}
		if err := r.run(t.Context(), t, installed(t, probeWASM), "poll", "10000"); err != nil || r.out.String() != c.want {
			t.Errorf("%s: %v: %q", name, err, &r.out)
		}
	}
	empty, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = empty.Close(), w.Close() }()
	memory, _ := io.Pipe()
	for name, in := range map[string]io.Reader{"pipe": empty, "memory": memory} {
		r := &runOf{inv: plugin.Invocation{Stdin: in}}
		if err := r.run(t.Context(), t, installed(t, probeWASM), "poll", "50"); err != nil || r.out.String() != "poll: 0\n" {
			t.Errorf("%s without input: %v: %q", name, err, &r.out)
		}
	}
}

// TestFiles runs a guest over the mounts; the rules themselves are tested in fs_test.go.
func TestFiles(t *testing.T) {
	t.Parallel()
	dir, app := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{dir + "/in.txt": "input", app + "/lib.txt": "library"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	box := fakeBox{mounts: []sandbox.Mount{{Host: dir, Guest: "/cwd", Write: true, Follow: true}}}
	p := installed(t, demoWASM)
	p.Program.Assets = app
	for _, c := range []struct {
		words []string
		out   string
		code  int
	}{
		{words: []string{"cat", "in.txt"}, out: "input"},
		{words: []string{"cat", "/cwd/in.txt"}, out: "input"},
		{words: []string{"cat", "/app/lib.txt"}, out: "library"},
		{words: []string{"write", "/cwd/out.txt", "output"}},
		{words: []string{"cat", "out.txt"}, out: "output"},
		{words: []string{"ls", "/cwd"}, out: "in.txt\nout.txt\n"},
		{words: []string{"ls", "."}, out: "in.txt\nout.txt\n"},
		{words: []string{"write", "/tmp/x", "temporary"}},
		{words: []string{"cat", "/tmp/x"}, code: 1}, // another run has another /tmp
		{words: []string{"write", "/app/x", "no"}, code: 1},
		{words: []string{"cat", "/etc/passwd"}, code: 1},
		{words: []string{"cat", "../../../../etc/passwd"}, code: 1},
	} {
		r := &runOf{box: box}
		err := r.run(t.Context(), t, p, c.words...)
		got := 0
		if e, ok := err.(*plugin.ExitError); ok { //nolint:errorlint // the bare one
			got = e.Code
		} else if err != nil {
			t.Fatal(err)
		}
		if got != c.code || r.out.String() != c.out {
			t.Errorf("%v: exit %d, %q; stderr %s", c.words, got, &r.out, &r.err)
		}
	}
	left, err := os.ReadDir(os.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		if strings.HasPrefix(e.Name(), "ds-wasm-") && !strings.HasPrefix(e.Name(), "ds-wasm-test-") {
			t.Logf("left behind or of another test: %s", e.Name())
		}
	}
}

func TestOpenFilesAreCounted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/f", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := &runOf{box: fakeBox{mounts: []sandbox.Mount{{Host: dir, Guest: "/cwd"}}}}
	if err := r.run(t.Context(), t, installed(t, probeWASM), "openmany", "/cwd/f"); err != nil {
		t.Fatal(err)
	}
	if got := r.out.String(); got < "opened 240" || got > "opened 256\n" || len(got) != len("opened 256\n") {
		t.Errorf("got %q", got)
	}
	if got := r.err.String(); !strings.HasSuffix(got, "warning: /cwd/f: more than 256 open files\n") || strings.Count(got, "warning") != 1 {
		t.Errorf("stderr %q", got)
	}
}

func TestRefusedModules(t *testing.T) {
	t.Parallel()
	invalid := module(nil, true, "_start")
	invalid = append(invalid[:len(invalid)-6], 0x0a, 5, 1, 3, 0, 0x1a, 0x0b) // drop without a value
	for name, c := range map[string]struct {
		module []byte
		want   string
	}{
		"empty":          {nil, "MODULE_REFUSED: x: not a WASM module"},
		"script":         {[]byte("#!/bin/sh\n"), "MODULE_REFUSED: x: not a WASM module"},
		"component":      {[]byte("\x00asm\x0d\x00\x01\x00"), "MODULE_REFUSED: x: component model is not supported, build for wasip1"},
		"version":        {[]byte("\x00asm\x02\x00\x00\x00"), "MODULE_REFUSED: x: WASM version is not 1"},
		"cut off":        {[]byte("\x00asm\x01\x00\x00\x00\x01\x10"), "MODULE_REFUSED: x: module is damaged: section is cut off (type section, byte 8)"},
		"start section":  {[]byte("\x00asm\x01\x00\x00\x00\x08\x01\x00"), "MODULE_REFUSED: x: module has a start section: a plugin starts at _start only (start section, byte 8)"},
		"nothing":        {[]byte("\x00asm\x01\x00\x00\x00"), "MODULE_REFUSED: x: module does not export one memory named memory; build a command, not a reactor"},
		"damaged":        {[]byte("\x00asm\x01\x00\x00\x00\x01\x01\x7f"), "MODULE_REFUSED: x: module is damaged: "},
		"invalid":        {invalid, "MODULE_REFUSED: x: module does not compile: "},
		"no _start":      {module(nil, true, ""), "MODULE_REFUSED: x: module does not export _start; build a command, not a reactor or library"},
		"no memory":      {module(nil, false, "_start"), "MODULE_REFUSED: x: module does not export one memory named memory; build a command, not a reactor"},
		"newer ds_v1":    {module([]string{"ds_v1", "fly"}, true, "_start"), "ABI_UNSUPPORTED: x: module imports ds_v1.fly () -> (): needs a newer ds (import section, byte 17)"},
		"other type":     {module([]string{"ds_v1", "call"}, true, "_start"), "ABI_UNSUPPORTED: x: module imports ds_v1.call () -> (): needs a newer ds (import section, byte 17)"},
		"unknown module": {module([]string{"env", "x"}, true, "_start"), "MODULE_REFUSED: x: module imports env.x; only wasi_snapshot_preview1 and ds_v1 are there (import section, byte 17)"},
		"unknown wasi":   {module([]string{wasmcheck.WASIModule, "x"}, true, "_start"), "MODULE_REFUSED: x: module imports wasi_snapshot_preview1.x () -> (), which does not exist (import section, byte 17)"},
		"fine":           {module(nil, true, "_start"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := installedBytes(t, c.module)
			for _, b := range []*Backend{New(Options{CacheDir: t.TempDir()}), New(Options{})} {
				got := resultOf((&runOf{b: b}).run(t.Context(), t, p))
				if got != c.want && (!strings.HasSuffix(c.want, ": ") || !strings.HasPrefix(got, c.want)) {
					t.Errorf("run: %q, want %q", got, c.want)
				}
				if err := b.Check(t.Context(), p); (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(c.want, string(hostabi.ReasonOf(err))+": ") {
					t.Errorf("check: %v", err)
				}
				if err := b.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// module makes a small module: an import of type () -> (), a memory, one function under a name.
func module(imported []string, memory bool, start string) []byte {
	b := []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00") // type () -> ()
	index := byte(0)
	section := func(id byte, body []byte) { b = append(append(b, id, byte(len(body))), body...) }
	name := func(s string) []byte { return append([]byte{byte(len(s))}, s...) }
	if imported != nil {
		section(2, append(append(append([]byte{1}, name(imported[0])...), name(imported[1])...), 0, 0))
		index = 1
	}
	section(3, []byte{1, 0})
	if memory {
		section(5, []byte{1, 0, 1})
	}
	exports, n := []byte{}, byte(0)
	if memory {
		exports, n = append(append(exports, name("memory")...), 2, 0), n+1
	}
	if start != "" {
		exports, n = append(append(exports, name(start)...), 0, index), n+1
	}
	section(7, append([]byte{n}, exports...))
	section(10, []byte{1, 2, 0, 0x0b})
	return b
}

// TestRun is the whole way with a real Box: typed paths, mounts, environment.
func TestRun(t *testing.T) {
	t.Parallel()
	cwd, outside := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{cwd + "/in.txt": "input", outside + "/far.txt": "far away"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := installed(t, demoWASM)
	p.Manifest.Name = p.Name
	p.Manifest.Capabilities = []plugin.Request{{Cap: hostabi.FSRead, Scope: []string{"args"}, Reason: "reads files"}}
	for _, c := range []struct{ typed, out, path string }{
		{cwd + "/in.txt", "input", "/cwd/in.txt"},
		{outside + "/far.txt", "far away", "/args/"},
		{"in.txt", "input", "/cwd/in.txt"},
	} {
		inv := &plugin.Invocation{
			Args: []string{"cat", c.typed}, Typed: []plugin.Typed{{Index: 1, Type: "path", Mode: "read", Value: c.typed}}, Dir: cwd,
		}
		box, err := sandbox.NewBox(sandbox.BoxOptions{
			Plugin: p, Invocation: inv, Granted: map[hostabi.Capability]sandbox.Scopes{hostabi.FSRead: {Scope: []string{"args"}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		var out, stderr strings.Builder
		inv.Stdout, inv.Stderr = &out, &stderr
		if got := resultOf(shared().Run(t.Context(), p, box, inv, &fakeSession{})); got != "" || out.String() != c.out {
			t.Errorf("%s: %q, printed %q, %s", c.typed, got, &out, &stderr)
		}
		if len(inv.Paths) != 1 || !strings.HasPrefix(inv.Paths[0].Path, c.path) {
			t.Errorf("%s: paths %+v", c.typed, inv.Paths)
		}
	}
}
