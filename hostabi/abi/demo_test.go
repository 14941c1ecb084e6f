package abi_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1lite"
)

// fakeHost is just enough of ds_v1 for the demo guest: it answers with the Go messages what the guest wrote
// and reads with ds_v1.h. The real imports are tested with the backend.
type fakeHost struct {
	config []byte // reply of Config.Get, nil = not granted
	value  []byte // of the state key
	events []hostv1lite.Event
	blob   []byte
	offset int
	kept   []byte
}

const maxTake = 7 // bytes of one take, so that guests must take in pieces

func (h *fakeHost) reply(kept []byte, e *hostabi.Error) ([]byte, uint64) {
	if e != nil {
		h.kept = e.AppendStatus(nil, hostabi.EncProto)
		return nil, uint64(e.Code)<<32 | uint64(len(h.kept))
	}
	return kept, uint64(len(kept))
}

func (h *fakeHost) call(method string, req []byte) ([]byte, uint64) {
	parse := func(m hostv1lite.Message) {
		if err := m.ParseProto(req); err != nil {
			panic(err)
		}
	}
	ok := func(m hostv1lite.Message) ([]byte, uint64) { return h.reply(m.AppendProto(nil), nil) }
	switch method {
	case hostv1lite.ConfigGet:
		var m hostv1lite.GetConfigRequest
		if parse(&m); m.Key == "settings.demo.greeting" && h.config != nil {
			return h.reply(h.config, nil)
		}
		return h.reply(nil, hostabi.Errorf(hostabi.ReasonConfigKey, "no %s", m.Key))
	case hostv1lite.CacheCreate:
		parse(new(hostv1lite.CreateBlobRequest))
		h.blob = nil
		return ok(&hostv1lite.OpenedBlob{Handle: 3})
	case hostv1lite.CacheCommit:
		var m hostv1lite.CommitRequest
		if parse(&m); m.Handle != 3 {
			return h.reply(nil, hostabi.Errorf(hostabi.ReasonBadHandle, "handle %d", m.Handle))
		}
		return ok(&hostv1lite.BlobInfo{Digest: string(hostabi.DigestOf(h.blob)), Size: int64(len(h.blob))})
	case hostv1lite.CacheOpen:
		var m hostv1lite.OpenBlobRequest
		if parse(&m); m.Digest != string(hostabi.DigestOf(h.blob)) {
			return h.reply(nil, hostabi.Errorf(hostabi.ReasonNotCached, "no %s", m.Digest))
		}
		h.offset = 0
		return ok(&hostv1lite.OpenedBlob{Handle: 4})
	case hostv1lite.EventsPublish:
		var m hostv1lite.Event
		parse(&m)
		h.events = append(h.events, m)
		return ok(&hostv1lite.PublishAck{})
	case hostv1lite.EventsPoll:
		var m hostv1lite.PollRequest
		if parse(&m); m.Subscription == "" {
			return ok(&hostv1lite.PollReply{Subscription: "s1"})
		}
		return ok(&hostv1lite.PollReply{Subscription: "s1", Events: []hostv1lite.Event{{Topic: "a.b", Data: []byte("{}")}}})
	case hostv1lite.StateGet:
		if h.value == nil {
			return h.reply(nil, hostabi.Errorf(hostabi.ReasonKeyNotFound, "no such key"))
		}
		return ok(&hostv1lite.StateEntry{Key: "runs", Value: h.value, Revision: 7})
	case hostv1lite.StatePut:
		var m hostv1lite.PutStateRequest
		parse(&m)
		h.value = m.Value
		return ok(&hostv1lite.StateEntry{Key: m.Key, Revision: 8})
	case hostv1lite.RegistryResolve:
		var m hostv1lite.RefRequest
		parse(&m)
		return h.reply(nil, hostabi.Errorf(hostabi.ReasonCapabilityDenied, "registry.pull %s is not granted", m.Ref).WithMeta("capability", "registry.pull").WithFix("ds plugin grant demo"))
	}
	return h.reply(nil, hostabi.Errorf(hostabi.ReasonUnknownMethod, "no %s", method))
}

func (h *fakeHost) functions() map[string]any {
	mem := func(m api.Module, p, n uint32) []byte {
		b, ok := m.Memory().Read(p, n)
		if !ok {
			panic("pointer outside memory")
		}
		return b
	}
	return map[string]any{
		"call": func(_ context.Context, m api.Module, name, mlen, req, reqlen, resp, size uint32) uint64 {
			b, r := h.call(string(mem(m, name, mlen)), slices.Clone(mem(m, req, reqlen)))
			if len(b) > int(size) {
				h.kept = b
				return 256<<32 | uint64(len(b))
			}
			copy(mem(m, resp, size), b)
			return r
		},
		"take": func(_ context.Context, m api.Module, dst, size uint32) uint64 {
			n := copy(mem(m, dst, min(size, maxTake)), h.kept)
			h.kept = h.kept[n:]
			if len(h.kept) > 0 {
				return 256<<32 | uint64(n)
			}
			return uint64(n)
		},
		"read": func(_ context.Context, m api.Module, _, p, size uint32) uint64 {
			n := copy(mem(m, p, min(size, 10)), h.blob[h.offset:])
			h.offset += n
			return uint64(n)
		},
		"write": func(_ context.Context, m api.Module, _, p, n uint32) uint64 {
			h.blob = append(h.blob, mem(m, p, n)...)
			return uint64(n)
		},
		"close": func(context.Context, api.Module, uint32, uint32) uint64 { return 0 },
	}
}

type result struct {
	exit           uint32
	stdout, stderr string
	err            error
}

// guest compiles a module once and returns a function that runs it.
func guest(t testing.TB, name string, pages uint32, h *fakeHost) func(stdin string, args ...string) result {
	t.Helper()
	ctx := t.Context()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithMemoryLimitPages(pages).WithCloseOnContextDone(true))
	t.Cleanup(func() { rt.Close(context.WithoutCancel(ctx)) })
	wasi_snapshot_preview1.MustInstantiate(ctx, rt)
	if h != nil {
		b := rt.NewHostModuleBuilder("ds_v1")
		for name, f := range h.functions() {
			b.NewFunctionBuilder().WithFunc(f).Export(name)
		}
		if _, err := b.Instantiate(ctx); err != nil {
			t.Fatal(err)
		}
	}
	code, err := os.ReadFile(filepath.Join(guests, name))
	if err != nil {
		t.Fatal(err)
	}
	compiled, err := rt.CompileModule(ctx, code)
	if err != nil {
		t.Fatal(err)
	}
	return func(stdin string, args ...string) (r result) {
		var out, diag bytes.Buffer
		m, err := rt.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName("").WithArgs(append([]string{"ds-demo"}, args...)...).
			WithEnv("DS_PLUGIN", "demo").WithEnv("LANG", "C").WithStdin(strings.NewReader(stdin)).WithStdout(&out).WithStderr(&diag))
		if m != nil {
			m.Close(ctx)
		}
		var exit *sys.ExitError
		if errors.As(err, &exit) {
			r.exit, err = exit.ExitCode(), nil
		}
		r.stdout, r.stderr, r.err = out.String(), diag.String(), err
		return r
	}
}

func TestHello(t *testing.T) {
	if r := guest(t, "hello.wasm", 16, nil)(""); r.err != nil || r.exit != 0 || r.stdout != "hello from C\n" {
		t.Errorf("got %+v", r)
	}
}

func TestDemo(t *testing.T) {
	h := &fakeHost{config: (&hostv1lite.ConfigValue{Key: "settings.demo.greeting", Json: `"hi"`, Origin: "default"}).AppendProto(nil), value: []byte("41")}
	run := guest(t, "demo/demo.wasm", 64, h)
	r := run("")
	want := `config: settings.demo.greeting = "hi"
cache: put 41 bytes, ` + string(hostabi.DigestOf(h.blob)) + `
cache: read 41 bytes back, equal
event: published demo.greeted
state: runs = 42
denied: code 7, CAPABILITY_DENIED: registry.pull ghcr.io/delivery-station/porter:latest is not granted; to allow: ds plugin grant demo
`
	if r.err != nil || r.exit != 0 || r.stdout != want {
		t.Errorf("exit %d %v\ngot\n%swant\n%s", r.exit, r.err, r.stdout, want)
	}
	if len(h.events) != 1 || h.events[0].Topic != "demo.greeted" || string(h.events[0].Data) != `{"from":"demo"}` || h.events[0].Attributes["language"] != "c" {
		t.Errorf("published %+v", h.events)
	}
}

func TestDemoWords(t *testing.T) {
	var flood strings.Builder
	for i := range 100_000 {
		flood.WriteByte(byte(i % 251))
	}
	run := guest(t, "demo/demo.wasm", 64, new(fakeHost))
	for _, c := range []struct {
		args  []string
		stdin string
		want  result
	}{
		{[]string{"config"}, "", result{exit: 1, stdout: "config: code 3, CONFIG_KEY: no settings.demo.greeting\n"}},
		{[]string{"state"}, "", result{stdout: "state: runs = 1\n"}},
		{[]string{"listen", "a.*", "1"}, "", result{stdout: "listen: a.b {}\n"}},
		{[]string{"exit", "0"}, "", result{}},
		{[]string{"exit", "255"}, "", result{exit: 255}},
		{[]string{"echo"}, "a\x00b\n", result{stdout: "a\x00b\n"}},
		{[]string{"args", "a b", "", "--x"}, "", result{stdout: "ds-demo\nargs\na b\n\n--x\n"}},
		{[]string{"env"}, "", result{stdout: "DS_PLUGIN=demo\nLANG=C\n"}},
		{[]string{"isatty"}, "", result{stdout: "isatty: stdin=0 stdout=0 stderr=0\n"}},
		{[]string{"flood", "100000"}, "", result{stdout: flood.String()}},
		{[]string{"sleep", "0"}, "", result{}},
	} {
		got := run(c.stdin, c.args...)
		if got != c.want {
			t.Errorf("%q: got %+v, want %+v", c.args, got, c.want)
		}
	}
	var pages int
	if r := run("", "oom"); r.err != nil || r.exit != 0 {
		t.Errorf("oom: got %+v", r)
	} else if _, err := fmt.Sscanf(r.stdout, "oom: %d pages", &pages); err != nil || pages <= 48 || pages > 64 {
		t.Errorf("oom: %d pages, want 49 to 64 (%v)", pages, err)
	}
	if r := run("", "cat", "/missing"); r.exit != 1 || !strings.HasPrefix(r.stderr, "cat: /missing: ") {
		t.Errorf("cat without files: got %+v", r)
	}
	if r := run("", "trap"); r.err == nil || !strings.Contains(r.err.Error(), "unreachable") {
		t.Errorf("trap: got %+v", r)
	}
	if r := run("", "nonsense"); r.exit != 2 || !strings.HasPrefix(r.stderr, "usage: ") {
		t.Errorf("nonsense: got %+v", r)
	}
}

// TestReaderOnGarbage: whatever the host sent, the reader of ds_v1.h stays inside its buffer.
func TestReaderOnGarbage(t *testing.T) {
	h := new(fakeHost)
	run := guest(t, "demo/demo.wasm", 64, h)
	r := rand.New(rand.NewPCG(1, 2))
	whole := (&hostv1lite.ConfigValue{Key: strings.Repeat("k", 200), Json: "1", Secret: true}).AppendProto(nil)
	for range 300 {
		h.config = slices.Clone(whole[:r.IntN(len(whole))+1])
		for range r.IntN(4) {
			h.config[r.IntN(min(len(h.config), 8))] = byte(r.Uint32())
		}
		if got := run("", "config"); got.err != nil || got.exit != 0 {
			t.Fatalf("%x: %+v", h.config, got)
		}
	}
}
