package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// load runs Load with a home in a temporary directory and an optional user file.
func load(t *testing.T, name, text string, in Input) (*Config, error) {
	t.Helper()
	home := t.TempDir()
	p, err := FindPaths(func(string) string { return "" }, home, "linux")
	if err != nil {
		t.Fatal(err)
	}
	if name != "" {
		if err := os.MkdirAll(p.Config, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(p.Config, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in.Paths = p
	if in.WorkDir == "" {
		in.WorkDir = "/work"
	}
	return Load(in)
}

func mustLoad(t *testing.T, name, text string, in Input) *Config {
	t.Helper()
	c, err := load(t, name, text, in)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaultsAreValid(t *testing.T) {
	c := mustLoad(t, "", "", Input{})
	if got := c.Int("cache.max_size"); got != 10<<30 {
		t.Errorf("cache.max_size = %d", got)
	}
	if got := c.Duration("cache.ttl"); got != 7*24*time.Hour {
		t.Errorf("cache.ttl = %v", got)
	}
	if got := c.Float("cache.clean_threshold"); got != 0.9 {
		t.Errorf("cache.clean_threshold = %v", got)
	}
	if got := c.String("plugins.dir"); got != filepath.Join(c.Paths().Data, "plugins") {
		t.Errorf("plugins.dir = %s", got)
	}
	if got := c.List("plugins.extra_dirs"); len(got) != 1 || got[0] != filepath.Join(c.Paths().Config, "plugins") {
		t.Errorf("plugins.extra_dirs = %v", got)
	}
	if !c.Bool("cache.auto_clean") || c.String("ui.format") != "table" {
		t.Error("cache.auto_clean or ui.format has another default")
	}
}

func TestKeyTable(t *testing.T) {
	seen := make(map[string]string)
	for _, k := range Keys() {
		if k.Doc == "" || k.Type == "" {
			t.Errorf("%s has no text or type", k.Name)
		}
		if other, ok := seen[k.Env()]; ok {
			t.Errorf("%s and %s share %s", k.Name, other, k.Env())
		}
		seen[k.Env()] = k.Name
	}
	for _, r := range reservedEnv {
		if k, ok := seen[r]; ok {
			t.Errorf("%s is reserved and the variable of %s", r, k)
		}
	}
}

// TestLayers sets one key in all four layers and removes them one by one.
func TestLayers(t *testing.T) {
	in := Input{
		Flags: []Override{{"logging.level", "error", "--log-level"}},
		Env:   []string{"DS_LOGGING_LEVEL=info"},
	}
	file := "logging:\n  level: debug\n"
	for _, want := range []struct{ value, origin string }{
		{"error", "flag --log-level"}, {"info", "env DS_LOGGING_LEVEL"}, {"debug", "config.yaml:2:10"}, {"warn", "default"},
	} {
		c := mustLoad(t, "config.yaml", file, in)
		v, _ := c.Get("logging.level")
		if v.Effective != want.value || !strings.HasSuffix(v.Origin.String(), want.origin) {
			t.Errorf("logging.level = %v from %s, want %s from %s", v.Effective, v.Origin, want.value, want.origin)
		}
		if got := c.String("logging.level"); got != want.value {
			t.Errorf("String gives %s, want %s", got, want.value)
		}
		switch {
		case in.Flags != nil:
			in.Flags = nil
		case in.Env != nil:
			in.Env = nil
		default:
			file = ""
		}
	}
}

func TestExplainListsEveryLayer(t *testing.T) {
	c := mustLoad(t, "config.yaml", "cache: {max_size: 5GiB}\n", Input{Env: []string{"DS_CACHE_MAX_SIZE=3GiB"}})
	var got []string
	for _, v := range c.Explain("cache.max_size") {
		got = append(got, fmt.Sprintf("%v %d", v.Raw, v.Origin.Layer))
	}
	if want := "3GiB 2, 5GiB 1, 10GiB 0"; strings.Join(got, ", ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestTOMLIsTheSame(t *testing.T) {
	c := mustLoad(t, "config.toml", "[cache]\nmax_size = \"1GB\"\nttl = \"1d12h\"\n[plugins.settings.s3]\nbucket = \"b\"\nport = 9\n", Input{})
	if c.Int("cache.max_size") != 1e9 || c.Duration("cache.ttl") != 36*time.Hour {
		t.Error("TOML values differ")
	}
	if v, _ := c.Get("plugins.settings.s3.port"); v.Effective != int64(9) {
		t.Errorf("port is %#v", v.Effective)
	}
}

func TestMapsMergeListsReplace(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "1.yaml"), filepath.Join(dir, "2.yaml")
	write(t, one, "registry:\n  concurrency: 3\n  insecure_registries: [a, b]\nlogging: {level: info}\n")
	write(t, two, "registry:\n  insecure_registries: [c]\nlogging: {level: null}\n")
	c := mustLoad(t, "config.yaml", "registry: {concurrency: 9}\n", Input{Files: []string{one, two}})
	if c.Int("registry.concurrency") != 3 {
		t.Error("--config must replace the user file, and maps must merge")
	}
	if got := c.List("registry.insecure_registries"); len(got) != 1 || got[0] != "c" {
		t.Errorf("lists must be replaced, got %v", got)
	}
	if c.String("logging.level") != "warn" {
		t.Error("null must reset to the default")
	}
}

func TestVariables(t *testing.T) {
	c := mustLoad(t, "", "", Input{Env: []string{
		"DS_REGISTRY_INSECURE_REGISTRIES=a:1, b", "DS_AUTH_CREDENTIALS_0_REGISTRY=ghcr.io", "DS_AUTH_CREDENTIALS_0_TOKEN=t0ken",
		"DS_PLUGINS_EXTRA_DIRS_0=/x", "DS_PLUGINS_EXTRA_DIRS_1=/y", "DS_PLUGINS_SETTINGS_S3_BUCKET=b", "DS_PLUGINS_SETTINGS_MY_TOOL_LIST=[1,2]",
		"DS_OFFLINE=1", "DS_NO_COLOR=1", "DS_CACHE_VERIFY=", "OTHER=x",
	}})
	if got := c.List("registry.insecure_registries"); strings.Join(got, "|") != "a:1|b" {
		t.Errorf("insecure_registries = %v", got)
	}
	var creds []struct{ Registry, Token string }
	if err := c.Objects("auth.credentials", &creds); err != nil || len(creds) != 1 || creds[0].Token != "t0ken" {
		t.Errorf("auth.credentials = %v, %v", creds, err)
	}
	if got := c.List("plugins.extra_dirs"); strings.Join(got, "|") != "/x|/y" {
		t.Errorf("extra_dirs = %v", got)
	}
	if v, _ := c.Get("plugins.settings.s3.bucket"); v.Effective != "b" {
		t.Errorf("bucket = %v", v.Effective)
	}
	if v, _ := c.Get("plugins.settings.my-tool.list"); fmt.Sprint(v.Effective) != "[1 2]" {
		t.Errorf("list = %v", v.Effective)
	}
	if !c.Bool("registry.offline") || c.String("ui.color") != "never" || c.String("cache.verify") != "stamp" {
		t.Error("short variables or the empty one are not honoured")
	}
	if len(c.Warnings()) != 0 {
		t.Errorf("warnings: %v", c.Warnings())
	}
}

func TestExpansion(t *testing.T) {
	in := Input{Env: []string{"A=va$lue", "E="}}
	c := mustLoad(t, "config.yaml", "plugins: {settings: {p: {a: '${A}', b: 'x${E:-d}y', c: '$$HOME $HOME', d: ['${A}'], e: '${E}'}}}\n", in)
	for key, want := range map[string]string{"a": "va$lue", "b": "xdy", "c": "$HOME $HOME", "d": "[va$lue]", "e": ""} {
		if v, _ := c.Get("plugins.settings.p." + key); fmt.Sprint(v.Effective) != want {
			t.Errorf("%s = %v, want %s", key, v.Effective, want)
		}
	}
	if v, _ := c.Get("plugins.settings.p.a"); v.Raw != "${A}" {
		t.Errorf("raw is %v, want it unexpanded", v.Raw)
	}
}

func TestProblems(t *testing.T) {
	for name, c := range map[string]struct {
		file, text string
		in         Input
		reason     hostabi.Reason
		want       string // in the problem
		hint       string
	}{
		"unknown key":       {"config.yaml", "cache:\n  ttl: 7d\n  maxsize: 1GB\n", Input{}, hostabi.ReasonConfigKey, `config.yaml:3:3: unknown key "maxsize" in cache`, "did you mean max_size?"},
		"unknown top":       {"config.yaml", "cahce: {}\n", Input{}, hostabi.ReasonConfigKey, `config.yaml:1:1: unknown key "cahce"`, "did you mean cache?"},
		"enum":              {"config.yaml", "logging:\n  level:   verbose\n", Input{}, hostabi.ReasonConfigValue, `config.yaml:2:12: logging.level is "verbose", want one of trace, debug, info, warn, error`, ""},
		"type":              {"config.yaml", "registry: {concurrency: many}\n", Input{}, hostabi.ReasonConfigValue, `is "many", want an integer`, ""},
		"range":             {"config.yaml", "registry: {concurrency: 33}\n", Input{}, hostabi.ReasonConfigValue, `is 33, want 1 to 32`, ""},
		"size":              {"config.yaml", "cache: {max_size: 10 apples}\n", Input{}, hostabi.ReasonConfigValue, `want a size`, ""},
		"negative size":     {"config.yaml", "cache: {max_size: -1}\n", Input{}, hostabi.ReasonConfigValue, `want a size`, ""},
		"huge size":         {"config.yaml", "cache: {max_size: 99999999TiB}\n", Input{}, hostabi.ReasonConfigValue, `want a size`, ""},
		"duration":          {"config.yaml", "cache: {ttl: 7}\n", Input{}, hostabi.ReasonConfigValue, `want a duration`, ""},
		"field":             {"config.yaml", "registry: {hosts: [{hots: x}]}\n", Input{}, hostabi.ReasonConfigValue, `unknown field "hots"`, ""},
		"list of objects":   {"config.yaml", "registry: {hosts: x}\n", Input{}, hostabi.ReasonConfigValue, `is no JSON list`, ""},
		"duplicate":         {"config.yaml", "cache: {}\ncache: {}\n", Input{}, hostabi.ReasonConfigSyntax, `config.yaml:2:1`, ""},
		"syntax":            {"config.yaml", "a: [\n", Input{}, hostabi.ReasonConfigSyntax, `config.yaml:`, ""},
		"not a map":         {"config.yaml", "- 1\n", Input{}, hostabi.ReasonConfigSyntax, `want a map`, ""},
		"toml syntax":       {"config.toml", "a = \n", Input{}, hostabi.ReasonConfigSyntax, `config.toml:1:`, ""},
		"toml key":          {"config.toml", "nope = 1\n", Input{}, hostabi.ReasonConfigKey, `config.toml: unknown key "nope"`, ""},
		"unset variable":    {"config.yaml", "registry: {default: '${NOPE}'}\n", Input{}, hostabi.ReasonConfigVariable, `config.yaml:1:21: ${NOPE} is not set`, ""},
		"unterminated":      {"config.yaml", "registry: {default: '${NOPE'}\n", Input{}, hostabi.ReasonConfigSyntax, `${ without }`, ""},
		"newer":             {"config.yaml", "config_version: 2\n", Input{}, hostabi.ReasonConfigVersion, `newer ds`, ""},
		"bad version":       {"config.yaml", "config_version: x\n", Input{}, hostabi.ReasonConfigValue, `config_version`, ""},
		"missing file":      {"", "", Input{Files: []string{"/does/not/exist.yaml"}}, hostabi.ReasonConfigFile, `/does/not/exist.yaml: no such file`, "ds config path"},
		"flag conflict":     {"", "", Input{Flags: []Override{{"ui.color", "always", "--color"}, {"ui.color", "never", "--no-color"}}}, hostabi.ReasonUsage, "--color and --no-color set ui.color to different values", ""},
		"flag key":          {"", "", Input{Flags: []Override{{"ui.colour", "always", "--set"}}}, hostabi.ReasonConfigKey, `--set: unknown key "ui.colour"`, "did you mean ui.color?"},
		"version by flag":   {"", "", Input{Flags: []Override{{"config_version", "1", "--set"}}}, hostabi.ReasonUsage, "belongs into a file", ""},
		"variable value":    {"", "", Input{Env: []string{"DS_CACHE_TTL=soon"}}, hostabi.ReasonConfigValue, `DS_CACHE_TTL: cache.ttl is "soon"`, ""},
		"both list forms":   {"", "", Input{Env: []string{"DS_PLUGINS_EXTRA_DIRS=/a", "DS_PLUGINS_EXTRA_DIRS_0=/b"}}, hostabi.ReasonUsage, "DS_PLUGINS_EXTRA_DIRS_0", ""},
		"json setting":      {"", "", Input{Env: []string{"DS_PLUGINS_SETTINGS_P_X=[1"}}, hostabi.ReasonConfigValue, "starts like JSON", ""},
		"secret stays dark": {"config.yaml", "auth: {credentials: [{registry: r, passwort: hunter2}]}\n", Input{}, hostabi.ReasonConfigValue, "auth.credentials has a value of the wrong type", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, c.file, c.text, c.in)
			errs, ok := errors.AsType[Errors](err)
			if !ok || len(errs) == 0 {
				t.Fatalf("got %v", err)
			}
			if p := errs[0]; p.Reason != c.reason || !strings.Contains(p.Error(), c.want) || p.Hint != c.hint && c.hint != "" {
				t.Errorf("got %s %q hint %q\nwant %s %q hint %q", p.Reason, p.Error(), p.Hint, c.reason, c.want, c.hint)
			}
			if got := hostabi.ReasonOf(err); got != c.reason {
				t.Errorf("as a host error it has reason %s", got)
			}
			if strings.Contains(fmt.Sprintf("%+v", errs[0].Msg), "hunter2") {
				t.Error("the message holds a secret")
			}
		})
	}
}

func TestEveryProblemIsReportedInOrder(t *testing.T) {
	_, err := load(t, "config.yaml", "logging: {level: loud}\ncache:\n  maxsize: 1\n", Input{Env: []string{"DS_CACHE_TTL=soon"}})
	errs, _ := errors.AsType[Errors](err)
	if len(errs) != 3 || errs[0].File != "" || errs[1].Line != 1 || errs[2].Line != 3 {
		t.Fatalf("got %+v", errs)
	}
	want := []string{"    2 | cache:", ">   3 |   maxsize: 1", "      |   ^^^^^^^"}
	if got := strings.Join(errs[2].Excerpt, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("excerpt\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	many := make(Errors, maxProblems+5)
	if shown, more := many.Shown(); len(shown) != maxProblems || more != 5 {
		t.Errorf("shows %d and counts %d", len(shown), more)
	}
}

func TestTwoFormatsSideBySide(t *testing.T) {
	home := t.TempDir()
	p, _ := FindPaths(func(string) string { return "" }, home, "linux")
	if err := os.MkdirAll(p.Config, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(p.Config, "config.yaml"), "")
	write(t, filepath.Join(p.Config, "config.toml"), "")
	_, err := Load(Input{Paths: p})
	if hostabi.ReasonOf(err) != hostabi.ReasonConfigFile || !strings.Contains(err.Error(), "config.toml") {
		t.Errorf("got %v", err)
	}
}

func TestSpellingsOfTheOriginal(t *testing.T) {
	c := mustLoad(t, "config.yaml", `
settings: {ds-s3: {bucket: b}}
communication: {event_buffer_size: 7, state_ttl: 1h, events_enabled: true}
plugins: {auto_install: true, signature: {mode: strict}}
logging: {output: stdout}
`, Input{Env: []string{"DS_CASHE_DIR=/x"}})
	if v, _ := c.Get("plugins.settings.s3.bucket"); v.Effective != "b" {
		t.Errorf("settings.ds-s3.bucket = %v", v.Effective)
	}
	if c.Int("events.buffer") != 7 || c.Duration("state.default_ttl") != time.Hour || c.String("logging.output") != "stderr" {
		t.Error("renamed keys have no effect")
	}
	var all []string
	for _, w := range c.Warnings() {
		all = append(all, w.Msg)
	}
	for _, want := range []string{"called events.buffer", "plugins.auto_install", "stdout is treated as stderr", "unknown variable DS_CASHE_DIR"} {
		if !strings.Contains(strings.Join(all, "\n"), want) {
			t.Errorf("no warning about %q in %q", want, all)
		}
	}
}

func TestFindPaths(t *testing.T) {
	env := map[string]string{"XDG_CONFIG_HOME": "/xdg", "XDG_DATA_HOME": "relative", "DS_CACHE_DIR": "/c", "APPDATA": `C:\A`, "LOCALAPPDATA": `C:\L`}
	get := func(k string) string { return env[k] }
	p, err := FindPaths(get, "/home/u", "linux")
	if err != nil || p.Config != "/xdg/ds" || p.Data != "/home/u/.local/share/ds" || p.Cache != "/c" || p.State != "/home/u/.local/state/ds" {
		t.Errorf("got %+v, %v", p, err)
	}
	if p, _ := FindPaths(get, "/home/u", "windows"); !strings.HasPrefix(p.Data, `C:\L`) || !strings.HasPrefix(p.Config, `C:\A`) {
		t.Errorf("windows: %+v", p)
	}
	env = map[string]string{"DS_HOME": "/h"}
	if p, _ := FindPaths(get, "", "linux"); p.Config != "/h/config" || p.State != "/h/state" {
		t.Errorf("DS_HOME: %+v", p)
	}
	env = nil
	if _, err := FindPaths(get, "", "linux"); hostabi.ReasonOf(err) != hostabi.ReasonUnsafeDir {
		t.Errorf("no home: %v", err)
	}
	if got := p.Shorten("/home/u/x/y"); got != "~/x/y" {
		t.Errorf("Shorten = %s", got)
	}
}

func TestSecretNeverPrints(t *testing.T) {
	s := Secret("hunter2")
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "s", s)
	b, _ := json.Marshal(map[string]any{"s": s})
	for _, out := range []string{fmt.Sprint(s), fmt.Sprintf("%q %#v %x %+v", s, s, s, struct{ S Secret }{s}), log.String(), string(b)} {
		if strings.Contains(out, "hunter2") || strings.Contains(out, "68756e746572") || !strings.Contains(out, "***") {
			t.Errorf("printed %q", out)
		}
	}
	if s.Reveal() != "hunter2" || Secret("").String() != "" {
		t.Error("Reveal or the empty secret is wrong")
	}
}

func TestHostView(t *testing.T) {
	c := mustLoad(t, "config.yaml", `
plugins: {settings: {s3: {bucket: b, secret_key: hunter2, deep: {n: 1}}, other: {x: 1}}}
auth: {credentials: [{registry: r, password: hunter2}]}
`, Input{})
	h := c.HostView()
	v, err := h.Get(t.Context(), "s3", "settings.s3.bucket")
	if err != nil || v.JSON != `"b"` || !strings.Contains(v.Origin, "config.yaml:2:") {
		t.Errorf("got %+v, %v", v, err)
	}
	if v, err := h.Get(t.Context(), "s3", "settings.s3.secret_key"); err != nil || !v.Secret || v.JSON != `"hunter2"` {
		t.Errorf("got %+v, %v", v, err)
	}
	for _, key := range []string{"auth.credentials", "sandbox.memory_max", "settings.s3.nope", "nope"} {
		if _, err := h.Get(t.Context(), "s3", key); hostabi.ReasonOf(err) != hostabi.ReasonKeyNotFound {
			t.Errorf("%s: %v", key, err)
		}
	}
	list, err := h.List(t.Context(), "s3", "settings.s3.")
	if err != nil || len(list) != 3 {
		t.Fatalf("listed %+v, %v", list, err)
	}
	all, _ := h.List(t.Context(), "s3", "")
	if strings.Contains(fmt.Sprint(all), "hunter2") {
		t.Error("a listing holds a secret")
	}
	if got := c.Plugin("s3"); len(got) != 3 || got[0].Key != "plugins.settings.s3.bucket" {
		t.Errorf("Plugin lists %+v", got)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("config.yaml", "cache: {max_size: 1GB}\nplugins: {settings: {a: {b: '${X:-y}'}}}\n")
	f.Add("config.yaml", "settings: {a: {b: {c: 1}, 'b.c': 2}}\n")
	f.Add("config.toml", "[cache]\nttl = '1d'\n")
	f.Fuzz(func(t *testing.T, name, text string) {
		if name != "config.toml" {
			name = "config.yaml"
		}
		read := func(n string) ([]byte, error) {
			if filepath.Base(n) == name {
				return []byte(text), nil
			}
			return nil, os.ErrNotExist
		}
		c, err := Load(Input{Paths: Paths{Home: "/h", Config: "/h/c", Data: "/h/d", Cache: "/h/x", State: "/h/s"}, Read: read})
		if err == nil {
			for _, v := range c.All() {
				_ = v.Origin.String()
			}
		}
	})
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestLayersAreNotMixed: merging a higher layer into a map leaves the map of the lower layer as it was.
func TestLayersAreNotMixed(t *testing.T) {
	c := mustLoad(t, "", "", Input{
		Env:   []string{`DS_PLUGINS_SETTINGS_X_MAP={"a": {"b": 1}}`},
		Flags: []Override{{"plugins.settings.x.map.a.c", "2", "--set"}},
	})
	v, _ := c.Get("plugins.settings.x.map")
	if got := fmt.Sprint(v.Effective); got != "map[a:map[b:1]]" {
		t.Errorf("the variable has become %s", got)
	}
	if got := c.Int("plugins.settings.x.map.a.b")*10 + c.Int("plugins.settings.x.map.a.c"); got != 12 {
		t.Errorf("merged to %d", got)
	}
}

// TestFilesAreReadOnce counts what Load opens.
func TestFilesAreReadOnce(t *testing.T) {
	files := map[string]string{"/h/c/config.yaml": "ui: {format: json}\n", "/h/other.yaml": "ui: {format: yaml}\n"}
	for _, c := range []struct {
		explicit []string
		want     string
	}{{nil, "/h/c/config.yaml /h/c/config.toml"}, {[]string{"/h/other.yaml"}, "/h/other.yaml"}} {
		var opened []string
		_, err := Load(Input{Files: c.explicit, Paths: Paths{Home: "/h", Config: "/h/c"}, Read: func(name string) ([]byte, error) {
			opened = append(opened, filepath.ToSlash(name))
			if text, ok := files[filepath.ToSlash(name)]; ok {
				return []byte(text), nil
			}
			return nil, fs.ErrNotExist
		}})
		if got := strings.Join(opened, " "); err != nil || got != c.want {
			t.Errorf("opened %s, want %s (%v)", got, c.want, err)
		}
	}
}

// TestLoadIsCheap counts what every start of ds pays without a file and variables.
func TestLoadIsCheap(t *testing.T) {
	in := Input{Env: []string{"HOME=/h", "PATH=/bin"}, Paths: Paths{Home: "/h", Config: "/h/c"}, Read: func(string) ([]byte, error) { return nil, fs.ErrNotExist }}
	n := testing.AllocsPerRun(20, func() {
		if _, err := Load(in); err != nil {
			t.Fatal(err)
		}
	})
	if n > 800 {
		t.Errorf("Load makes %.0f allocations", n)
	}
	t.Logf("%.0f allocations", n)
}
