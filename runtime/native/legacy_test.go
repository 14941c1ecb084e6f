//go:build unix

package native_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/runtime/native"
	"github.com/delivery-station/ds/sandbox"
)

// stubs are the stub plugins of the original DS, built when the first test asks for one.
var stubs struct {
	once sync.Once
	dir  string
	err  error
}

func removeStubs() {
	if stubs.dir != "" {
		_ = os.RemoveAll(stubs.dir)
	}
}

func stub(t *testing.T, generation string) string {
	t.Helper()
	stubs.once.Do(func() {
		if stubs.dir, stubs.err = os.MkdirTemp("", "ds-legacy-"); stubs.err != nil {
			return
		}
		for _, g := range dstest.LegacyGenerations() {
			if err := dstest.BuildLegacy(g, filepath.Join(stubs.dir, "ds-"+g)); err != nil {
				stubs.err = err
				return
			}
		}
	})
	if stubs.err != nil {
		t.Fatal(stubs.err)
	}
	return filepath.Join(stubs.dir, "ds-"+generation)
}

// legacy is a run of a stub with these words.
func legacy(t *testing.T, generation string, words ...string) call {
	t.Helper()
	c := call{mode: "protocol1", name: "old", path: stub(t, generation), args: words, session: newLegacyHost()}
	c.change(func(o *sandbox.BoxOptions) {
		o.Plugin.Programs = []plugin.Program{*o.Plugin.Program}
		o.Granted = map[hostabi.Capability]sandbox.Scopes{
			hostabi.ConfigRead: {Scope: []string{"own", "registry.**"}},
			hostabi.SecretRead: {Scope: []string{"own", "registry:granted.example"}},
			hostabi.EnvRead:    {Scope: []string{"AWS_*"}},
		}
	})
	return c
}

// legacyHost is a host with a configuration, logins of two registries and other plugins.
type legacyHost struct {
	fakeSession
	values map[string]string
	secret map[string]string

	mu    sync.Mutex
	asked []string // keys of Config.Get
	calls []*hostv1.CallStart
	exit  int32
	err   error // of a call
}

func newLegacyHost() *legacyHost {
	return &legacyHost{
		values: map[string]string{
			"registry.default": `"registry.example/base"`, "registry.insecure_registries": `["localhost:5000"]`, "cache.max_size": "1024", "cache.ttl": "60000000000",
			"settings.old.a.b": `"deep"`, "settings.old.a": `"shallow"`, "settings.old.list": `[1,2]`, "settings.generic.x": "true", "settings.other.x": `"foreign"`,
		},
		secret: map[string]string{
			"settings.old.token":                    `"own secret"`,
			"auth.credentials.granted.example":      `{"username":"me","password":"granted password"}`,
			"auth.credentials.registry.example":     `{"username":"me","password":"other password"}`,
			"auth.credentials.not-granted.example":  `{"username":"me","password":"other password"}`,
			"auth.credentials.localhost:5000":       `{"username":"me","password":"other password"}`,
			"auth.credentials.without.login.sample": "",
		},
	}
}

func (h *legacyHost) Invoke(_ context.Context, c hostabi.Call) ([]byte, error) {
	switch c.Method {
	case hostv1.Config_List_FullMethodName:
		tree := &hostv1.ConfigTree{}
		for k, v := range h.values {
			tree.Values = append(tree.Values, &hostv1.ConfigValue{Key: k, Json: v})
		}
		tree.Values = append(tree.Values, &hostv1.ConfigValue{Key: "settings.old.token", Secret: true})
		return proto.Marshal(tree)
	case hostv1.Config_Get_FullMethodName:
		req := &hostv1.GetConfigRequest{}
		if err := proto.Unmarshal(c.Req, req); err != nil {
			return nil, err
		}
		h.mu.Lock()
		h.asked = append(h.asked, req.GetKey())
		h.mu.Unlock()
		if v := h.secret[req.GetKey()]; v != "" {
			return proto.Marshal(&hostv1.ConfigValue{Key: req.GetKey(), Json: v, Secret: true})
		}
		return nil, hostabi.Errorf(hostabi.ReasonKeyNotFound, "none")
	}
	return nil, hostabi.Errorf(hostabi.ReasonUnknownMethod, "%s", c.Method)
}

func (h *legacyHost) Stream(_ context.Context, method string, _ hostabi.Encoding) (hostabi.Stream, error) {
	if method != hostv1.Plugins_Call_FullMethodName {
		return nil, hostabi.Errorf(hostabi.ReasonUnknownMethod, "%s", method)
	}
	return &callStream{h: h}, nil
}

// callStream is one call of another plugin.
type callStream struct {
	h    *legacyHost
	said bool
}

func (s *callStream) Send(msg []byte) error {
	req := &hostv1.CallRequest{}
	if err := proto.Unmarshal(msg, req); err != nil {
		return err
	}
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	s.h.calls = append(s.h.calls, req.GetStart())
	return nil
}

func (s *callStream) CloseSend() error { return nil }
func (s *callStream) Close() error     { return nil }

func (s *callStream) Recv() ([]byte, error) {
	if s.h.err != nil {
		return nil, s.h.err
	}
	if s.said {
		return nil, io.EOF
	}
	s.said = true
	return proto.Marshal(&hostv1.CallEvent{Event: &hostv1.CallEvent_Exit{Exit: &hostv1.CallExit{Code: s.h.exit}}})
}

func TestLegacyRun(t *testing.T) {
	t.Parallel()
	words := []string{"echo", "one", "--Key=V", "-x", "--flag", "./dist", "-abc", "--neg", "-5", "--", "-z", " "}
	pairs := "arg0=one key=V x=true flag=./dist a=true b=true c=true neg=-5 arg1=-z\n"
	for _, c := range []struct {
		name, generation string
		words            []string
		out              string
		code             int
	}{
		{"newest, arguments", "field3", words, pairs, 0},
		{"middle, arguments", "field4", words, pairs, 0},
		{"oldest, raw words", "metadata", words, strings.Join(words[1:], " ") + "\n", 0},
		{"newest, configuration", "field3", []string{"config", "Registry.Default"}, "\"registry.example/base\"\n", 0},
		{"middle, configuration", "field4", []string{"config", "Registry.Default"}, "\"registry.example/base\"\n", 0},
		{"exit 7", "field3", []string{"exit", "7"}, "", 7},
		{"exit 300", "field4", []string{"exit", "300"}, "", 255},
		{"an error without a code", "field3", []string{"fail"}, "", 1},
		{"an error with a code", "field4", []string{"fail", "9"}, "", 9},
		{"a method that fails", "field3", []string{"error"}, "", 1},
		{"standard input", "field3", []string{"stdin"}, "typed\n", 0},
		{"no command", "field3", nil, "", 2},
		{"a blank command", "field3", []string{" ", "x"}, "", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			run := legacy(t, c.generation, c.words...)
			run.stdin = strings.NewReader("typed")
			if out, code := run.output(t); out != c.out || code != c.code {
				t.Errorf("got %q, %d, want %q, %d", out, code, c.out, c.code)
			}
		})
	}
}

// TestLegacySays: what goes to standard error beside the plugin's own text.
func TestLegacySays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		words []string
		want  string
	}{
		{[]string{"echo"}, "echoed\n"},
		{[]string{"fail"}, "old: it did not work\n"},
		{[]string{"error"}, "old: a method that failed\n"},
		{nil, "plugin \"old\" requires a command\n"},
	} {
		var errs syncBuffer
		run := legacy(t, "field3", c.words...)
		run.stdout, run.stderr = io.Discard, &errs
		if _, _, err := run.do(t.Context()); err != nil || errs.String() != c.want {
			t.Errorf("%q: %q, %v; want %q", c.words, errs.String(), err, c.want)
		}
	}
}

func TestLegacyConfig(t *testing.T) {
	t.Parallel()
	run := legacy(t, "field3", "config", "registry.example/base/app:1")
	run.args[1] = "" // everything
	run.options.LegacyCache = func(n plugin.Name) (string, error) { return "/cache/" + string(n), nil }
	out, _ := run.output(t)
	var got struct {
		Registry struct {
			Default                     string
			Mirrors, InsecureRegistries []string
		}
		Auth struct {
			DockerConfig string
			Credentials  []map[string]string
		}
		Cache struct {
			Dir          string
			MaxSize, TTL int64
		}
		Logging  struct{ Output string }
		Plugins  struct{ Settings map[string]map[string]any }
		Settings map[string]map[string]any
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if got.Registry.Default != "registry.example/base" || !slices.Equal(got.Registry.InsecureRegistries, []string{"localhost:5000"}) {
		t.Errorf("registry: %+v", got.Registry)
	}
	if got.Cache.Dir != "/cache/old" || got.Cache.MaxSize != 1024 || got.Cache.TTL != int64(time.Minute) || got.Logging.Output != "stderr" {
		t.Errorf("cache: %+v, logging: %+v", got.Cache, got.Logging)
	}
	if len(got.Auth.Credentials) != 1 || got.Auth.DockerConfig != "" {
		t.Fatalf("credentials: %v", got.Auth)
	}
	if c := got.Auth.Credentials[0]; c["Registry"] != "granted.example" || c["Username"] != "me" || c["Password"] != "granted password" || c["Token"] != "" {
		t.Errorf("credential: %v", c)
	}
	if strings.Contains(out, "other password") || strings.Contains(out, "foreign") {
		t.Errorf("more than was granted: %s", out)
	}
	own := map[string]any{"a": "shallow", "a.b": "deep", "list": []any{1.0, 2.0}, "token": "own secret"}
	for name, settings := range map[string]map[string]map[string]any{"Settings": got.Settings, "Plugins.Settings": got.Plugins.Settings} {
		if a, _ := json.Marshal(settings["old"]); !sameJSON(t, own, a) {
			t.Errorf("%s: %s", name, a)
		}
		if settings["generic"]["x"] != true || settings["other"] != nil {
			t.Errorf("%s: %v", name, settings)
		}
	}
}

func sameJSON(t *testing.T, want any, got []byte) bool {
	t.Helper()
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(b, got)
}

// TestLegacyCredentialsOfEveryRegistry: a grant of all registries is used for those that the run is about.
func TestLegacyCredentialsOfEveryRegistry(t *testing.T) {
	t.Parallel()
	run := legacy(t, "field3", "config", "Auth.Credentials", "--ref=not-granted.example/app:1", "./dist/x", "a.b")
	run.change(func(o *sandbox.BoxOptions) {
		o.Granted[hostabi.SecretRead] = sandbox.Scopes{Scope: []string{"own", "registry:*"}}
	})
	out, _ := run.output(t)
	for _, host := range []string{"registry.example", "not-granted.example", "localhost:5000"} {
		if !strings.Contains(out, `"Registry":"`+host+`"`) {
			t.Errorf("no login of %s in %s", host, out)
		}
	}
	h := run.session.(*legacyHost)
	for _, key := range h.asked {
		if strings.Contains(key, "a.b") || strings.Contains(key, "./dist") || strings.HasSuffix(key, "*") {
			t.Errorf("asked for %s", key)
		}
	}
}

// TestLegacyDeniedLogin: after a failure the box knows which login was missing.
func TestLegacyDeniedLogin(t *testing.T) {
	t.Parallel()
	run := legacy(t, "field3", "fail", "not-granted.example/app:1")
	box := make(chan *sandbox.Box, 1)
	run.ran = func(b *sandbox.Box) { box <- b }
	run.stdout = io.Discard
	if _, _, err := run.do(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := (<-box).Denials()
	if len(d) != 1 || d[0].Resource != "registry:not-granted.example" || d[0].Fix != "ds plugin grant old secret.read=registry:not-granted.example" {
		t.Errorf("denials: %+v", d)
	}
}

func TestLegacyEnvironment(t *testing.T) {
	t.Parallel()
	run := legacy(t, "field4", "env")
	run.env = []string{"PATH=/bin", "AWS_REGION=x", "SECRET=canary", "DS_HOME=/x"}
	out, _ := run.output(t)
	if strings.Contains(out, "canary") || strings.Contains(out, "DS_HOST_FD") || strings.Contains(out, "DS_CTL_FD") || strings.Contains(out, "DS_RUN_DIR") {
		t.Errorf("environment: %s", out)
	}
	for _, want := range []string{"PATH=/bin", "AWS_REGION=x", "DS_PLUGIN_MAGIC_COOKIE=delivery-station-plugin", "PLUGIN_PROTOCOL_VERSIONS=1"} {
		if !slices.Contains(strings.Split(strings.TrimSpace(out), "\n"), want) {
			t.Errorf("no %s in %s", want, out)
		}
	}
}

// TestLegacyLogs: records go to the log, everything else to standard error, nothing of it to standard output.
func TestLegacyLogs(t *testing.T) {
	t.Parallel()
	var errs, log syncBuffer
	run := legacy(t, "field3", "logs")
	run.stderr, run.options.Log = &errs, slog.New(slog.NewTextHandler(&log, nil))
	if out, code := run.output(t); out != "done\n" || code != 0 {
		t.Errorf("got %q, %d", out, code)
	}
	for _, want := range []string{"plain text\n", "{" + strings.Repeat("y", 70_000) + "\n", "stray on descriptor 1\n", "stray on os.Stdout\n", "stray on os.Stderr\n"} {
		if !strings.Contains(errs.String(), want) {
			t.Errorf("%.40q is not in %d bytes of standard error", want, len(errs.String()))
		}
	}
	if strings.Contains(errs.String(), "@message") {
		t.Error("a record is in standard error")
	}
	for _, want := range []string{`level=WARN msg="a record" plugin=old module=stub count=3`, "msg=1 plugin=old"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %q in the log: %s", want, log.String())
		}
	}
}

func TestLegacyFinalizers(t *testing.T) {
	t.Parallel()
	ask := func(t *testing.T, h *legacyHost, words ...string) (stderr string, code int) {
		t.Helper()
		var errs syncBuffer
		run := legacy(t, "field3", append([]string{"finalize", "--self=old"}, words...)...)
		run.session, run.stderr = h, &errs
		out, code := run.output(t)
		if out != "pulled\n" {
			t.Errorf("printed %q", out)
		}
		return errs.String(), code
	}
	t.Run("each once, never itself", func(t *testing.T) {
		t.Parallel()
		h := newLegacyHost()
		if _, code := ask(t, h, "--name=s3", "--words=file=./x --evil -n arg"); code != 0 {
			t.Errorf("exit %d", code)
		}
		if len(h.calls) != 1 {
			t.Fatalf("%d calls: %v", len(h.calls), h.calls)
		}
		s := h.calls[0]
		if s.GetPlugin() != "s3" || s.GetCommand() != "upload" || !s.GetInheritStdout() || !s.GetInheritStderr() {
			t.Errorf("call %v", s)
		}
		if want := []string{"--file=./x", "--", "--evil", "-n", "arg"}; !slices.Equal(s.GetArgs(), want) {
			t.Errorf("words %q, want %q", s.GetArgs(), want)
		}
	})
	t.Run("denied", func(t *testing.T) {
		t.Parallel()
		h := newLegacyHost()
		h.err = hostabi.Errorf(hostabi.ReasonCapabilityDenied, "no").WithFix("ds plugin grant old plugins.call=s3/sync")
		stderr, code := ask(t, h, "--name=s3", "--operation=sync")
		if want := "warning: finalizer s3/sync skipped; to allow: ds plugin grant old plugins.call=s3/sync\n"; !strings.Contains(stderr, want) || code != 0 {
			t.Errorf("stderr %q, exit %d", stderr, code)
		}
	})
	t.Run("not found", func(t *testing.T) {
		t.Parallel()
		h := newLegacyHost()
		h.err = hostabi.Errorf(hostabi.ReasonPluginNotFound, "no plugin \x1b[31ms3")
		stderr, code := ask(t, h, "--name=s3")
		if !strings.Contains(stderr, "warning: finalizer s3/upload skipped: no plugin \uFFFD[31ms3\n") || code != 0 {
			t.Errorf("stderr %q, exit %d", stderr, code)
		}
	})
	t.Run("failed", func(t *testing.T) {
		t.Parallel()
		h := newLegacyHost()
		h.exit = 3
		stderr, code := ask(t, h, "--name=s3")
		if !strings.Contains(stderr, "warning: finalizer s3/upload ended with exit status 3\n") || code != 0 {
			t.Errorf("stderr %q, exit %d", stderr, code)
		}
	})
	t.Run("not after a failure", func(t *testing.T) {
		t.Parallel()
		run := legacy(t, "field3", "exit", "4")
		if _, code := run.output(t); code != 4 || len(run.session.(*legacyHost).calls) != 0 {
			t.Errorf("exit %d, calls %v", code, run.session.(*legacyHost).calls)
		}
	})
}

// keptManifests keeps manifests in memory and counts.
type keptManifests struct {
	mu   sync.Mutex
	kept map[hostabi.Digest]*plugin.LegacyManifest
	puts int
}

func (k *keptManifests) LegacyManifest(d hostabi.Digest) *plugin.LegacyManifest {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.kept[d]
}

func (k *keptManifests) KeepLegacyManifest(d hostabi.Digest, m *plugin.LegacyManifest) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.puts++
	if k.kept == nil {
		k.kept = make(map[hostabi.Digest]*plugin.LegacyManifest)
	}
	k.kept[d] = m
	return nil
}

// TestLegacyManifestIsKept: it is asked for at the first run only, and what is kept decides about arguments.
func TestLegacyManifestIsKept(t *testing.T) {
	t.Parallel()
	for _, generation := range dstest.LegacyGenerations() {
		keeper := &keptManifests{}
		digest := hostabi.DigestOf([]byte(generation))
		for range 2 {
			run := legacy(t, generation, "exit", "0")
			run.options.Legacy = keeper
			run.change(func(o *sandbox.BoxOptions) { o.Plugin.Program.Digest = digest })
			run.output(t)
		}
		m := keeper.kept[digest]
		if keeper.puts != 1 || m == nil || m.Version != "1.2.3" || m.Metadata != (generation == "metadata") {
			t.Fatalf("%s: kept %d times: %+v", generation, keeper.puts, m)
		}
		var names []string
		for _, c := range m.Commands {
			names = append(names, c.Name)
		}
		slices.Sort(names)
		if !slices.Equal(names, []string{"config", "echo"}) {
			t.Errorf("%s: commands %q", generation, names)
		}
	}
}

func TestLegacyBroken(t *testing.T) {
	t.Parallel()
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		code, signal, err := legacy(t, "field3", "die").do(t.Context())
		if code != 137 || signal != 9 || err != nil {
			t.Errorf("got %d, %d, %v", code, signal, err)
		}
	})
	t.Run("a reply over 64 MiB", func(t *testing.T) {
		t.Parallel()
		wantError(t, legacy(t, "field3", "big", "67108900").refused(t), hostabi.ReasonProtocol, "sent a reply over 67108864 bytes")
	})
	t.Run("a reply over 4 MiB", func(t *testing.T) {
		t.Parallel()
		if out, _ := legacy(t, "field3", "big", "5000000").output(t); len(out) != 5_000_001 {
			t.Errorf("%d bytes", len(out))
		}
	})
	t.Run("protocol 2", func(t *testing.T) {
		t.Parallel()
		wantError(t, call{mode: "protocol1", name: "gp", args: []string{"x"}}.refused(t), hostabi.ReasonABIUnsupported, "speaks ds.plugin.v1, which needs a plugin.yaml")
	})
	t.Run("another protocol 1", func(t *testing.T) { // go-plugin, but not DSPlugin
		t.Parallel()
		wantError(t, call{mode: "protocol1", name: "gp-one", args: []string{"x"}}.refused(t), hostabi.ReasonProtocol, "does not serve plugin.DSPlugin")
	})
	t.Run("no configuration", func(t *testing.T) {
		t.Parallel()
		run := legacy(t, "field3", "echo")
		run.session = &fakeSession{}
		if _, code := run.output(t); code != 1 {
			t.Errorf("exit %d", code)
		}
	})
}

func TestLegacyStop(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T, ctx context.Context, run call) (chan os.Signal, <-chan error) {
		t.Helper()
		errs, done := newSyncBuffer(), make(chan error, 1)
		run.stdout, run.stderr, run.signals = io.Discard, errs, make(chan os.Signal, 1)
		go func() { done <- run.run(ctx) }()
		select {
		case <-errs.hit:
		case err := <-done:
			t.Fatalf("ended early: %v", err)
		}
		return run.signals, done
	}
	t.Run("an interrupt lets it clean up", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "cleaned")
		signals, done := begin(t, t.Context(), legacy(t, "field3", "wait", file))
		signals <- os.Interrupt
		if err := <-done; hostabi.ReasonOf(err) != hostabi.ReasonInterrupted {
			t.Errorf("got %v, want INTERRUPTED", err)
		}
		if b, err := os.ReadFile(file); err != nil || string(b) != "cleaned up" {
			t.Errorf("%q, %v", b, err)
		}
	})
	t.Run("two interrupts do not wait", func(t *testing.T) {
		t.Parallel()
		signals, done := begin(t, t.Context(), legacy(t, "field4", "wait", filepath.Join(t.TempDir(), "x")))
		signals <- os.Interrupt
		signals <- os.Interrupt
		if err := <-done; hostabi.ReasonOf(err) != hostabi.ReasonInterrupted {
			t.Errorf("got %v, want INTERRUPTED", err)
		}
	})
	t.Run("deadline", func(t *testing.T) {
		t.Parallel()
		run := legacy(t, "field3", "wait", filepath.Join(t.TempDir(), "x"))
		run.inv = func(inv *plugin.Invocation) { inv.Deadline = time.Now().Add(700 * time.Millisecond) }
		wantError(t, run.refused(t), hostabi.ReasonTimeout, "stopped after ")
	})
}

func TestLegacyArgs(t *testing.T) {
	for _, c := range []struct{ words, want string }{
		{"", ""},
		{"a b", "arg0=a arg1=b"},
		{"--key=v", "key=v"},
		{"--KEY=V", "key=V"},
		{"--key v", "key=v"},
		{"--key", "key=true"},
		{"--key --other", "key=true other=true"},
		{"--key -5", "key=-5"},
		{"--key -1.5e3 x", "key=-1.5e3 arg0=x"},
		{"--key= x", "key= arg0=x"},
		{"-o v", "o=v"},
		{"-o", "o=true"},
		{"-o=v", "o=v"},
		{"-abc v", "a=true b=true c=true arg0=v"},
		{"--cleanup ./dist", "cleanup=./dist"},
		{"a --k v b", "arg0=a k=v arg1=b"},
		{"-- --key -x a", "arg0=--key arg1=-x arg2=a"},
		{"--key -- v", "key=true arg0=v"},
		{"- -7", "arg0=- arg1=-7"},
		{"--=x", ""},
	} {
		if got := strings.Join(native.LegacyArgs(strings.Fields(c.words)), " "); got != c.want {
			t.Errorf("%q: %q, want %q", c.words, got, c.want)
		}
	}
	if got := native.LegacyArgs([]string{"", " ", "x y", "--k", "a b"}); !slices.Equal(got, []string{"arg0=x y", "k=a b"}) {
		t.Errorf("blanks: %q", got)
	}
}

// FuzzLogLines: nothing is lost but records, however the bytes come.
func FuzzLogLines(f *testing.F) {
	for _, s := range []string{"plain\n", "{\"@message\":\"x\"}\n", "{\"@message\":1}\n{", "{}\n{]\n", "a{\"@message\":1}\n", strings.Repeat("{", 70_000)} {
		f.Add([]byte(s), 7)
	}
	f.Fuzz(func(t *testing.T, b []byte, step int) {
		var out, log bytes.Buffer
		l := native.NewLogLines(&out, slog.New(slog.NewTextHandler(&log, nil)))
		for piece := range slices.Chunk(b, max(1, step%97+1)) {
			if n, err := l.Write(piece); n != len(piece) || err != nil {
				t.Fatal(n, err)
			}
		}
		l.Flush()
		var want bytes.Buffer
		for line := range bytes.Lines(b) {
			var fields map[string]any
			record := len(line) <= 64<<10 && line[0] == '{' && line[len(line)-1] == '\n' && json.Unmarshal(line, &fields) == nil
			if _, ok := fields["@message"]; !record || !ok {
				want.Write(line)
			}
		}
		if !bytes.Equal(out.Bytes(), want.Bytes()) {
			t.Errorf("%q became %q, want %q", b, out.Bytes(), want.Bytes())
		}
	})
}
