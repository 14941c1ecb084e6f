package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/dstest"
)

// spyBuilt is the hostile plugin, built once beside the other guests.
var spyBuilt sync.Once

// spyDir is a copy of the spy that a test may change.
func spyDir(t *testing.T) string {
	t.Helper()
	guests(t)
	from := filepath.Join(built.dir, "spy")
	spyBuilt.Do(func() {
		if err := dstest.BuildPlugin(filepath.Join("..", "..", "testdata", "guests", "spy"), from); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(t.TempDir(), "spy")
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// edit changes a text file.
func edit(t *testing.T, name, old, with string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, []byte(old)) {
		t.Fatalf("%s has no %q", name, old)
	}
	_ = os.Chmod(name, 0o600)
	if err := os.WriteFile(name, bytes.Replace(b, []byte(old), []byte(with), 1), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestAttackSameNameOtherSource: who takes the name of a plugin gets nothing of what it kept.
func TestAttackSameNameOtherSource(t *testing.T) {
	reg := dstest.Registry(t, dstest.RegistryOptions{})
	for _, backend := range []string{"native", "wasm"} {
		t.Run(backend, func(t *testing.T) {
			c := newCall(t)
			dir := spyDir(t)
			for _, repo := range []string{"good", "evil"} {
				c.want(0, "plugin", "push", dir, reg.Host+"/"+repo+"/spy", "--unsigned", "--force")
			}
			install := func(ref string) {
				t.Helper()
				c.want(0, "plugin", "install", ref, "--allow-unsigned", "--backend", backend, "--grant", "manifest")
			}
			install(reg.Host + "/good/spy:0.1.0")
			c.want(0, "spy", "remember", "precious")
			c.want(0, "spy", "remember")
			if !strings.Contains(c.stdout.String(), "remembered: precious <nil>\nblob: sha256:") {
				t.Fatalf("it does not remember: %s", c.stdout.String())
			}
			digest := string(hostabi.DigestOf([]byte("precious")))
			nothing := func(what string) {
				t.Helper()
				c.want(0, "spy", "remember")
				if out := c.stdout.String(); strings.Contains(out, "precious") || strings.Contains(out, "blob:") {
					t.Errorf("%s inherits: %s", what, out)
				}
				if c.run("spy", "steal", digest) == 0 {
					t.Errorf("%s reads the blob: %s", what, c.stdout.String())
				}
			}
			install(reg.Host + "/evil/spy:0.1.0") // in its place
			nothing("another repository")
			c.want(0, "spy", "remember", "mine")
			c.want(0, "plugin", "remove", "spy")
			install(reg.Host + "/good/spy:0.1.0") // after it was removed
			c.want(0, "spy", "remember")
			if strings.Contains(c.stdout.String(), "mine") {
				t.Error("the good one inherits from the evil one")
			}
			c.want(0, "spy", "remember", "precious")
			c.want(0, "plugin", "remove", "spy")
			c.want(0, "plugin", "install", dir, "--grant", "manifest")
			nothing("a directory")
		})
	}
}

// TestAttackChangedInPlace: what an installed plugin asks for and is cannot be changed behind ds.
func TestAttackChangedInPlace(t *testing.T) {
	reg := dstest.Registry(t, dstest.RegistryOptions{})
	c := newCall(t)
	dir := spyDir(t)
	c.want(0, "plugin", "push", dir, reg.Host+"/x/spy", "--unsigned")
	c.want(0, "plugin", "install", reg.Host+"/x/spy:0.1.0", "--allow-unsigned", "--backend", "native", "--grant", "manifest")
	c.want(0, "spy", "dump")
	files, err := filepath.Glob(filepath.Join(c.home, ".local", "share", "ds", "plugins", "store", "*", "plugin.json"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	edit(t, files[0], `"type":"url"`, `"type":"ref"`)
	c.want(125, "spy", "dump")
	if !strings.Contains(c.stderr.String(), "DS3009") {
		t.Error(c.stderr.String())
	}
	c.want(0, "plugin", "list")
	if !strings.Contains(c.stdout.String(), "not usable: DS3009") {
		t.Error(c.stdout.String())
	}
	c.want(0, "plugin", "install", reg.Host+"/x/spy:0.1.0", "--allow-unsigned", "--backend", "native", "--grant", "manifest", "--force")
	c.want(0, "spy", "dump")
}

// TestAttackGrantOfAnotherDigest: what was granted to an unsigned plugin holds for that digest only.
func TestAttackGrantOfAnotherDigest(t *testing.T) {
	reg := dstest.Registry(t, dstest.RegistryOptions{})
	c := newCall(t)
	dir := spyDir(t)
	c.want(0, "plugin", "push", dir, reg.Host+"/x/spy", "--unsigned")
	c.want(0, "plugin", "install", reg.Host+"/x/spy:0.1.0", "--allow-unsigned", "--backend", "native", "--grant", "manifest")
	edit(t, filepath.Join(dir, "plugin.yaml"), "description: Print", "description: Steal")
	c.want(0, "plugin", "push", dir, reg.Host+"/x/spy", "--unsigned", "--force")
	c.want(5, "-y", "plugin", "install", reg.Host+"/x/spy:0.1.0", "--allow-unsigned", "--backend", "native") // DS3018
	c.want(125, "-y", "plugin", "install", reg.Host+"/x/spy:0.1.0", "--allow-unsigned", "--backend", "native", "--force")
	c.want(0, "plugin", "info", "spy")
	if !strings.Contains(c.stdout.String(), "Print everything") {
		t.Errorf("the refused one is installed: %s", c.stdout.String())
	}
	// The receipt names the other digest now, but grants.yaml does not.
	receipts, _ := filepath.Glob(filepath.Join(c.home, ".local", "share", "ds", "plugins", "active", "spy.json"))
	var r struct{ Index string }
	b, _ := os.ReadFile(receipts[0])
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	other := hostabi.DigestOf([]byte("other"))
	text := strings.ReplaceAll(string(b), strings.TrimPrefix(r.Index, "sha256:"), other.Hex())
	if err := os.WriteFile(receipts[0], []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := c.run("spy", "dump"); code == 0 {
		t.Error("a receipt that was edited runs")
	}
}

var escapes = regexp.MustCompile("[\x00-\x08\x0b-\x1f\x7f\u0080-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]")

// TestAttackTextOnTerminal: no text of a plugin drives the terminal, wherever ds shows it.
func TestAttackTextOnTerminal(t *testing.T) {
	const evil = `\u001b]0;owned\u0007\u001b[2J\u001b[1A\u009b31m\u202etxt\u2066\u200fB\u0008\u000d`
	reg := dstest.Registry(t, dstest.RegistryOptions{})
	for field, change := range map[string][2]string{
		"description": {"description: Print everything it can lay hands on", `description: "` + evil + `"`},
		"reason":      {`reason: "ask"`, `reason: "` + evil + `"`},
		"license":     {"license: MIT", `license: "` + evil + `"`},
		"version":     {"version: 0.1.0", `version: "0.1.0` + evil + `"`},
		"name":        {"name: spy", `name: "spy` + evil + `"`},
		"command":     {"name: fetch, summary: ask a server", `name: fetch, summary: "` + evil + `"`},
		"scope":       {`scope: [args], reason: "ask"`, `scope: ["https://` + evil + `.example"], reason: "ask"`},
		"file scope":  {`{cap: net.http, scope: [args], reason: "ask", optional: true}`, `{cap: fs.read, scope: ["home:` + evil + `"], reason: "ask"}`},
		"key":         {"license: MIT", `"` + evil + `": MIT`},
		"capability":  {"cap: net.http", `cap: "` + evil + `"`},
	} {
		t.Run(field, func(t *testing.T) {
			c := newCall(t)
			dir := spyDir(t)
			edit(t, filepath.Join(dir, "plugin.yaml"), change[0], change[1])
			for _, args := range [][]string{
				{"plugin", "install", dir},
				{"plugin", "install", dir, "--grant", "manifest"},
				{"plugin", "list"},
				{"--format", "json", "plugin", "list"},
				{"--format", "wide", "plugin", "list"},
				{"plugin", "info", "spy"},
				{"--format", "yaml", "plugin", "info", "spy"},
				{"plugin", "info", "spy", "--capabilities"},
				{"plugin", "info", "spy", "--manifest"},
				{"spy", "--help"},
				{"spy", "fetch", "--help"},
				{"help"},
				{"help", "spy"},
				{"spy", "dump"},
				{"plugin", "push", dir, reg.Host + "/x/spy", "--unsigned"},
				{"plugin", "install", reg.Host + "/x/spy:0.1.0", "--allow-unsigned"},
				{"--error-format", "json", "plugin", "install", dir + "x"},
				{"__complete", "spy", ""},
				{"__complete", ""},
			} {
				c.run(args...)
				for stream, b := range map[string]*bytes.Buffer{"stdout": &c.stdout, "stderr": &c.stderr} {
					if args[0] == "spy" && len(args) > 1 && args[1] == "dump" && stream == "stdout" {
						continue // the plugin's own
					}
					if at := escapes.FindIndex(b.Bytes()); at != nil {
						t.Errorf("ds %q: %s has %q", args, stream, b.Bytes()[max(0, at[0]-60):min(b.Len(), at[0]+30)])
					}
				}
			}
		})
	}
}

// TestAttackAnswersFromAPipe: neither piped answers nor --yes grant anything.
func TestAttackAnswersFromAPipe(t *testing.T) {
	c := newCall(t)
	c.stdin = "y\ny\nyes\n"
	dir := spyDir(t)
	for _, args := range [][]string{{"plugin", "install", dir}, {"-y", "plugin", "install", dir}, {"--yes", "plugin", "install", dir}} {
		c.want(125, args...)
		c.want(3, "plugin", "info", "spy")
	}
	c.env["DS_GRANT"] = "manifest-all"
	if c.run("plugin", "install", dir) == 0 {
		t.Error("DS_GRANT grants what it does not say")
	}
	c.env["DS_GRANT"] = "config.read=own"
	c.want(125, "plugin", "install", dir)
	if _, err := os.Stat(filepath.Join(c.home, ".config", "ds", "grants.yaml")); err == nil {
		t.Error("a refused install left grants")
	}
}

// TestAttackUnsafeDirectories: where other users can write, nothing is run, granted or remembered.
func TestAttackUnsafeDirectories(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes mean nothing here")
	}
	reg := dstest.Registry(t, dstest.RegistryOptions{})
	c := newCall(t)
	c.want(0, "plugin", "push", spyDir(t), reg.Host+"/x/spy", "--unsigned")
	c.want(0, "plugin", "install", reg.Host+"/x/spy:0.1.0", "--allow-unsigned", "--backend", "native", "--grant", "manifest")
	c.want(0, "spy", "remember", "x")
	version, err := filepath.Glob(filepath.Join(c.home, ".local/share/ds/plugins/store/*-native"))
	if err != nil || len(version) != 1 {
		t.Fatal(version, err)
	}
	for _, path := range []string{
		".config/ds", ".config/ds/grants.yaml", ".local/share/ds/plugins", ".local/share/ds/plugins/active", ".local/share/ds/plugins/store",
		strings.TrimPrefix(version[0], c.home+"/"), ".cache/ds", ".local/state/ds", ".local/state/ds/kv",
	} {
		path = filepath.Join(c.home, path)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		_ = os.Chmod(path, 0o777)
		if code := c.run("spy", "remember", "y"); code == 0 || !strings.Contains(c.stdout.String()+c.stderr.String(), "writable by") {
			t.Errorf("%s: exit %d, %s%s", path, code, c.stdout.String(), c.stderr.String())
		}
		_ = os.Chmod(path, info.Mode().Perm())
	}
	elsewhere := filepath.Join(t.TempDir(), "version")
	if err := os.Rename(version[0], elsewhere); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, version[0]); err != nil {
		t.Fatal(err)
	}
	if code := c.run("spy", "remember", "y"); code == 0 {
		t.Errorf("a version that is a link runs: %s", c.stdout.String())
	}
}

// TestDenyOfAnInstalledPlugin: --deny and --grant count too when the version is there already.
func TestDenyOfAnInstalledPlugin(t *testing.T) {
	reg := dstest.Registry(t, dstest.RegistryOptions{})
	c := newCall(t)
	c.want(0, "plugin", "push", spyDir(t), reg.Host+"/x/spy", "--unsigned")
	install := []string{"plugin", "install", reg.Host + "/x/spy:0.1.0", "--allow-unsigned", "--backend", "native"}
	c.want(0, append(install, "--grant", "manifest")...)
	fetch := func() bool { return c.run("spy", "fetch", reg.URL+"/v2/") == 0 }
	if !fetch() {
		t.Fatal(c.stderr.String())
	}
	c.want(0, append(install, "--deny", "net.http=args")...)
	if fetch() {
		t.Error("what was denied is allowed")
	}
	c.want(0, append(install, "--grant", "net.http=args")...)
	if !fetch() {
		t.Errorf("what was granted is denied: %s", c.stderr.String())
	}
}
