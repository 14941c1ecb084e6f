package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/delivery-station/ds/internal/dstest"
)

// canaries are the planted secrets by what they are. All begin alike, so that a missed form is found by eye.
type canaries map[string]string

// plant makes a secret that looks different in every form: it has characters that URLs and JSON escape.
func (c canaries) plant(name string) string {
	c[name] = "cnry/" + rand.Text()[:16] + `+"&é`
	return c[name]
}

// forms are the ways a secret may be written down (security.md section 7).
func forms(secret string) map[string]string {
	quoted, _ := json.Marshal(secret)
	out := map[string]string{
		"raw": secret, "query": url.QueryEscape(secret), "path": url.PathEscape(secret), "user": url.User(secret).String(),
		"json": strings.Trim(string(quoted), `"`), "quoted": strings.Trim(strconv.Quote(secret), `"`), "ascii": strings.Trim(strconv.QuoteToASCII(secret), `"`),
	}
	for shift := range 3 { // what stands before it moves it against the groups of three bytes
		padded := append(make([]byte, shift), secret...)
		padded = padded[:len(padded)/3*3]
		cut := []int{0, 2, 3}[shift]
		out[fmt.Sprintf("base64+%d", shift)] = base64.RawStdEncoding.EncodeToString(padded)[cut:]
		out[fmt.Sprintf("base64url+%d", shift)] = base64.RawURLEncoding.EncodeToString(padded)[cut:]
	}
	return out
}

// find reports which secrets are in b, but for the ones that are allowed there.
func (c canaries) find(t *testing.T, where string, b []byte, allowed ...string) {
	t.Helper()
	for name, secret := range c {
		if strings.Contains(strings.Join(allowed, " "), name) {
			continue
		}
		for form, text := range forms(secret) {
			if i := bytes.Index(b, []byte(text)); i >= 0 {
				t.Errorf("%s: %s is there (%s): …%.300q…", where, name, form, b[max(0, i-150):min(len(b), i+150)])
			}
		}
	}
}

// world is a user's machine with secrets everywhere, and the servers that it talks to.
type canaryWorld struct {
	t       *testing.T
	c       canaries
	home    string
	work    string // where the user is
	env     []string
	planted map[string]bool // files that hold secrets because the user put them there
	own     map[string]*dstest.RegistryServer
	foreign *watched
	proxy   *watched

	commandsRun int
}

// watched is a server that remembers everything it was sent.
type watched struct {
	*httptest.Server
	mu   sync.Mutex
	seen bytes.Buffer
}

func watch(t *testing.T, answer http.HandlerFunc) *watched {
	w := new(watched)
	w.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, q *http.Request) {
		w.mu.Lock()
		_ = q.Write(&w.seen) // what was sent, in the form it was sent
		_, _ = fmt.Fprintln(&w.seen, q.Header)
		w.mu.Unlock()
		answer(rw, q)
	}))
	t.Cleanup(w.Close)
	return w
}

func (w *watched) text() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Clone(w.seen.Bytes())
}

func newCanaryWorld(t *testing.T) *canaryWorld {
	w := &canaryWorld{t: t, c: make(canaries), home: t.TempDir(), planted: make(map[string]bool), own: make(map[string]*dstest.RegistryServer)}
	for _, name := range []string{"config", "docker", "helper", "login"} {
		w.own[name] = dstest.Registry(t, dstest.RegistryOptions{Username: "u", Password: w.c.plant(name + "-password"), Token: name == "docker"})
	}
	w.foreign = watch(t, func(rw http.ResponseWriter, q *http.Request) {
		rw.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		rw.WriteHeader(http.StatusUnauthorized)
		_, _ = fmt.Fprintf(rw, `{"errors":[{"code":"DENIED","message":%q}]}`, fmt.Sprint(q.Header))
	})
	w.proxy = watch(t, func(rw http.ResponseWriter, q *http.Request) { // a proxy that tells everything it knows
		rw.WriteHeader(http.StatusForbidden)
		_, _ = fmt.Fprintf(rw, `{"errors":[{"code":"DENIED","message":%q}]}`, fmt.Sprint(q.Header))
	})
	w.work = filepath.Join(w.home, "work")
	helpers := t.TempDir()
	w.plantFile(filepath.Join(helpers, "docker-credential-canary"), fmt.Sprintf("#!/bin/sh\ncat <<'E'\n{\"ServerURL\":\"x\",\"Username\":\"u\",\"Secret\":%s}\nE\n", mustJSON(w.c["helper-password"])), 0o700)
	w.plantFile(filepath.Join(w.home, ".docker", "config.json"), mustJSON(map[string]any{
		"auths":       map[string]any{w.own["docker"].Host: map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte("u:" + w.c["docker-password"]))}},
		"credHelpers": map[string]string{w.own["helper"].Host: "canary"},
	}), 0o600)
	proxy := strings.Replace(w.proxy.URL, "//", "//user:"+url.QueryEscape(w.c.plant("proxy-password"))+"@", 1)
	w.plantFile(filepath.Join(w.home, ".config", "ds", "config.yaml"), mustJSON(map[string]any{ // JSON is YAML
		"auth": map[string]any{"credentials": []any{map[string]string{"registry": w.own["config"].Host, "username": "u", "password": w.c["config-password"]}}},
		"registry": map[string]any{
			"insecure_registries": []string{"registry.invalid"}, "retry": map[string]any{"attempts": 0},
			"hosts": []any{ // a mirror that fails and tells everything it was sent
				map[string]any{"host": w.own["config"].Host, "mirrors": []string{strings.TrimPrefix(w.foreign.URL, "http://")}},
				map[string]any{"host": w.own["docker"].Host, "mirrors": []string{strings.TrimPrefix(w.foreign.URL, "http://") + "/cache"}},
			},
		},
		"proxy": map[string]any{"http_proxy": proxy},
		"plugins": map[string]any{"settings": map[string]any{
			"spy":   map[string]any{"password": w.c.plant("spy-setting"), "marked": w.c.plant("marked-setting"), "servers": []any{map[string]any{"name": "x", "token": w.c.plant("spy-list-setting")}}},
			"other": map[string]any{"token": w.c.plant("other-setting"), "deep": map[string]any{"access_key": "${SECRET_KEY}"}},
		}},
	}), 0o600)
	w.env = []string{
		"HOME=" + w.home, "PATH=" + helpers + string(os.PathListSeparator) + os.Getenv("PATH"), "LANG=C.UTF-8",
		"SECRET_KEY=" + w.c.plant("env"), "HTTPS_PROXY=" + strings.Replace(proxy, url.QueryEscape(w.c["proxy-password"]), url.QueryEscape(w.c.plant("env-proxy-password")), 1),
		"DS_PLUGINS_SETTINGS_SPY_API_TOKEN=" + w.c.plant("env-setting"),
	}
	return w
}

func mustJSON(v any) string { b, _ := json.Marshal(v); return string(b) }

func (w *canaryWorld) plantFile(name, text string, mode os.FileMode) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		w.t.Fatal(err)
	}
	w.planted[name] = true
}

// ds runs the program itself and searches what it writes. The exit code matters to nobody here but as a sign
// that the command did what it should: want is 0 or -1 for "not 0".
func (w *canaryWorld) ds(want int, args ...string) string {
	w.t.Helper()
	return w.dsReading(want, "", args...)
}

// dsReading is ds with something on its standard input.
func (w *canaryWorld) dsReading(want int, stdin string, args ...string) string {
	w.t.Helper()
	w.commandsRun++
	cmd := exec.CommandContext(w.t.Context(), "ds", args...)
	cmd.Env, cmd.Dir, cmd.Stdin = w.env, w.work, strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if (err == nil) != (want == 0) {
		w.t.Errorf("ds %q: %v\n%s", args, err, out)
	}
	w.c.find(w.t, fmt.Sprintf("ds %q", args), out)
	return string(out)
}

// TestS7Canaries plants secrets wherever ds may find some, runs commands that succeed and fail, and looks for
// the secrets in everything that they leave or send.
func TestS7Canaries(t *testing.T) {
	if testing.Short() {
		t.Skip("builds plugins and runs many commands")
	}
	guests := guests(t)
	spy := spyDir(t)
	w := newCanaryWorld(t)
	w.plantFile(filepath.Join(w.work, "payload"), "nothing secret\n", 0o600)
	w.ds(0, "plugin", "install", filepath.Join(guests.Both, "porter"), "--grant", "manifest")
	w.ds(0, "plugin", "install", spy, "--grant", "config.read=own", "--grant", "config.read=registry.**", "--grant", "config.read=cache.**", "--grant", "config.read=logging.**",
		"--grant", "config.read=plugins.**", "--grant", "cache.read=own", "--grant", "cache.write=own", "--grant", "state.read=own", "--grant", "state.write=own", "--grant", "net.http=args")
	w.ds(0, "plugin", "install", filepath.Join(guests.GoPlugin, "probe"), "--grant", "manifest")
	rounds := 1
	if os.Getenv("DS_TORTURE") == "full" {
		rounds = 3
	}
	for range rounds {
		w.logins()
		w.artifacts()
		w.plugins()
		w.commands()
	}
	w.left()
	t.Logf("S7: %d secrets, each in %d forms, looked for in what %d commands printed, sent and left: 0 hits unless listed", len(w.c), len(forms("a secret")), w.commandsRun)
}

var loud = []string{"-vv", "--log-format", "json"}

func louder(args ...string) []string { return append(append([]string{}, loud...), args...) }

// logins logs in, lists and logs out: into the file of ds, and into a helper that prints what it should not.
// At the end "login" is logged in.
func (w *canaryWorld) logins() {
	w.planted[filepath.Join(w.home, ".config", "ds", "auth.json")] = true
	foreign := strings.TrimPrefix(w.foreign.URL, "http://")
	for _, name := range []string{"login", "helper"} {
		host, secret := w.own[name].Host, w.c[name+"-password"]
		login := louder("registry", "login", host, "-u", "u", "--password-stdin")
		w.dsReading(-1, secret+"x\n", login...)
		w.own[name].Inject(dstest.Fault{Status: 403, Body: `{"errors":[{"code":"DENIED","message":"no"}]}`})
		w.dsReading(-1, secret+"\n", login...)
		w.own[name].Heal()
		w.dsReading(0, secret+"\n", append(login, "--dry-run")...)
		w.dsReading(0, secret+"\n", login...)
		w.ds(0, louder("registry", "ping", host)...)
		w.ds(0, louder("registry", "ping", foreign)...)
		for _, format := range []string{"table", "json", "yaml"} {
			w.ds(0, louder("--format", format, "registry", "list")...)
		}
		w.ds(0, louder("registry", "logout", host)...)
		w.dsReading(0, secret+"\n", login...)
	}
}

// artifacts pushes and pulls with every kind of credential, also where servers misbehave.
func (w *canaryWorld) artifacts() {
	for name, r := range w.own {
		for _, backend := range []string{"native", "wasm"} {
			ref := r.Host + "/team/app:1"
			run := func(want int, args ...string) {
				w.t.Helper()
				w.ds(want, louder(append([]string{"--backend", backend, "porter"}, args...)...)...)
			}
			run(0, "push", "payload", ref)
			run(0, "pull", ref, "-o", "out-"+name)
			run(0, "inspect", ref)
			run(-1, "pull", r.Host+"/team/missing:1")
			run(-1, "pull", strings.TrimPrefix(w.foreign.URL, "http://")+"/team/app:1")
			run(-1, "copy", ref, strings.TrimPrefix(w.foreign.URL, "http://")+"/team/app:1")
			run(-1, "pull", "registry.invalid/team/app:1")
			run(-1, "pull", "secure.invalid/team/app:1")
			run(-1, "pull", "http://user:"+url.QueryEscape("not a canary")+"@"+ref)
			echo := `{"errors":[{"code":"DENIED","message":"you said %s"}]}`
			for what, f := range map[string]dstest.Fault{
				"redirect":     {Path: "/blobs/", Method: "GET", Status: 307, Header: http.Header{"Location": {w.foreign.URL + "/v2/x"}}},
				"link":         {Path: "/manifests/", Status: 307, Header: http.Header{"Location": {w.foreign.URL + "/v2/x"}}},
				"realm":        {Path: "/manifests/", Status: 401, Header: http.Header{"Www-Authenticate": {`Bearer realm="` + strings.Replace(w.foreign.URL, "127.0.0.1", "localhost", 1) + `/token",service="x"`}}},
				"upload":       {Path: "/blobs/uploads/", Method: "POST", Status: 202, Header: http.Header{"Location": {w.foreign.URL + "/v2/x/blobs/uploads/1"}}},
				"error":        {Path: "/manifests/", Status: 500, Body: fmt.Sprintf(echo, "no")},
				"cut":          {Path: "/manifests/", CutAt: -1},
				"unauthorised": {Path: "/", Status: 401, Header: http.Header{"Www-Authenticate": {`Basic realm="x"`}}},
			} {
				r.Inject(f)
				w.ds(0, "version") // the cache must not answer
				_ = os.RemoveAll(filepath.Join(w.home, ".cache", "ds", "artifacts"))
				cmd := exec.CommandContext(w.t.Context(), "ds", louder("--backend", backend, "porter", "pull", ref, "-o", "again-"+name)...)
				cmd.Env, cmd.Dir = w.env, w.work
				out, _ := cmd.CombinedOutput() // some faults are survived
				w.c.find(w.t, what, out)
				if what == "upload" {
					w.plantFile(filepath.Join(w.work, "other"), rand.Text(), 0o600)
					cmd := exec.CommandContext(w.t.Context(), "ds", louder("--backend", backend, "porter", "push", "other", r.Host+"/team/other:1")...)
					cmd.Env, cmd.Dir = w.env, w.work
					out, _ := cmd.CombinedOutput()
					w.c.find(w.t, what, out)
				}
				r.Heal()
			}
		}
		for _, q := range r.Requests() { // its own credential, and nobody else's
			w.c.find(w.t, "requests to "+name, []byte(q.Path+q.Query+basic(q.Authorization)), name+"-password")
		}
	}
	w.c.find(w.t, "requests to a foreign host", w.foreign.text())
	w.c.find(w.t, "requests to the proxy", []byte(basicLines(w.proxy.text())), "proxy-password", "env-proxy-password")
}

// basic adds what Basic encodes.
func basic(header string) string {
	b, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(header, "Basic "))
	return header + string(b)
}

func basicLines(b []byte) string {
	var out strings.Builder
	for line := range strings.Lines(string(b)) {
		_, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		out.WriteString(line + basic(value))
	}
	return out.String()
}

// plugins lets plugins look around, which have no right to any secret.
func (w *canaryWorld) plugins() {
	keys := []string{
		"settings.spy.password", "settings.spy.api_token", "settings.spy.servers", "settings.spy.marked", "settings.other.token", "settings.other.deep.access_key", "plugins.settings.other.token",
		"auth.credentials", "auth.credentials." + w.own["config"].Host, "auth.credentials." + w.own["docker"].Host, "auth.docker_config", "proxy.http_proxy", "proxy.https_proxy",
		"registry.default", "SECRET_KEY",
	}
	for _, backend := range []string{"native", "wasm"} {
		w.ds(0, louder(append([]string{"--backend", backend, "spy", "dump"}, keys...)...)...)
		w.ds(0, louder("--backend", backend, "spy", "remember", "nothing")...)
		for _, r := range w.own { // hoping for credentials: the answer is 401
			w.ds(0, louder("--backend", backend, "spy", "fetch", r.URL+"/v2/")...)
		}
		w.ds(0, louder("--backend", backend, "spy", "fetch", "http://elsewhere.invalid/")...)
		w.ds(-1, louder("--backend", backend, "spy", "tell", "settings.spy.password")...)
	}
	w.ds(0, louder("probe", "env")...)
	// With the right to its own secrets it gets them, but what ds writes of it is masked.
	w.ds(0, "plugin", "grant", "spy", "secret.read=own")
	for _, backend := range []string{"native", "wasm"} {
		if out := w.ds(0, louder("--backend", backend, "spy", "tell", "settings.spy.marked")...); !strings.Contains(out, "the secret is ***") {
			w.t.Errorf("log record of a plugin: %s", out)
		}
	}
	w.ds(0, "plugin", "revoke", "spy", "secret.read=own")
}

// commands asks ds itself, in every format, with a good and with a broken configuration.
func (w *canaryWorld) commands() {
	for _, format := range []string{"table", "json", "yaml", "wide"} {
		w.ds(0, louder("--format", format, "config", "show")...)
		w.ds(0, "--format", format, "config", "show", "plugins.settings")
		w.ds(0, "--format", format, "config", "get", "auth.credentials")
		w.ds(0, "--format", format, "config", "get", "proxy.http_proxy")
		w.ds(0, "--format", format, "plugin", "info", "spy")
		w.ds(0, "--format", format, "plugin", "list")
	}
	w.ds(0, "config", "explain", "auth.credentials")
	w.ds(0, "config", "explain", "proxy.http_proxy")
	w.ds(0, "config", "explain", "plugins.settings.spy.password")
	w.ds(-1, louder("plugin", "install", w.own["config"].Host+"/team/app:1")...)
	w.ds(-1, louder("plugin", "install", "registry.invalid/x/y:1")...)
	secret := w.c["config-password"]
	for i, text := range []string{
		"auth:\n  credentials:\n    - registry: r\n      password: " + mustJSON(secret) + "\n      usrname: u\n",
		"auth:\n  credentials:\n    - registry: r\n      password: " + mustJSON(secret) + "\n    oops\n",
		"auth:\n  credentials: " + mustJSON(secret) + "\n",
		"auth:\n  credentials: [" + mustJSON(secret) + "]\n",
		"plugins:\n  settings:\n    x:\n      token: " + mustJSON(secret) + "\n      token: x\n",
		"proxy:\n  http_proxy: {a: " + mustJSON(secret) + "}\n",
		"proxy:\n  http_prox: " + mustJSON("http://u:"+url.QueryEscape(secret)+"@h") + "\n",
		"plugins:\n  settings:\n    x: {token: " + mustJSON(secret) + "}\nregistry: {default: [}\n",
		"token: " + mustJSON(secret) + "\n",
		"auth:\n  token: " + mustJSON(secret) + "\n  credentials:\n  password: " + mustJSON(secret) + "\n",
	} {
		for _, ext := range []string{"yaml", "toml"} {
			name := filepath.Join(w.home, fmt.Sprintf("broken%d.%s", i, ext))
			if ext == "toml" {
				text = "[auth]\ncredentials = [{registry = \"r\", password = " + mustJSON(secret) + ", oops = 1}]\nx = \n"
			}
			w.plantFile(name, text, 0o600)
			w.ds(-1, "config", "validate", name)
			w.ds(-1, "--config", name, "-vv", "--error-format", "json", "plugin", "info", "porter")
		}
	}
}

// left searches everything that ds keeps.
func (w *canaryWorld) left() {
	err := filepath.WalkDir(w.home, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || w.planted[path] || strings.HasSuffix(path, ".wasm") {
			return err
		}
		b, err := os.ReadFile(path)
		w.c.find(w.t, path, b)
		return err
	})
	if err != nil {
		w.t.Error(err)
	}
}
