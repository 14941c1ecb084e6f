package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/runtime/native"
)

// guestDir holds the acceptance program in every language, and its manifest.
var guestDir = filepath.Join("..", "..", "testdata", "guests")

// tour is what the acceptance program prints, in every language.
const tour = `args: 3 [one] [two words] []
stdin: 17 bytes, erste Zeile
config: Grüße
cache: put sha256:983bf3492085a4209c8dcd9defe492ed547a801b104e32c4de0c31f58b3a9ff8
cache: got the same
state: visits = 1
event: published tour.done
call: demo echo ended with 0 and gave the same
call: demo exit ended with 3
denied: code 7, CAPABILITY_DENIED: tour may not use registry.pull ghcr.io/acme/app: tour does not ask for it
`

// language makes the acceptance program of one language. put puts it into the directory of a plugin; its result
// is what stands below "run:" in the manifest.
type language struct {
	name, needs string // a program without which it cannot run, empty = none
	put         func(dir string) (string, error)
	fetched     string // a module that others built, in fetchedDir; empty = none
}

// fetchedDir is where make interpreters puts unmodified interpreters. They are not kept here.
var fetchedDir = filepath.Join("..", "..", "bin", "guests")

func languages() []language {
	return []language{
		{"go native", "", goTour("ds-tour", program("ds-tour"), "CGO_ENABLED=0"), ""},
		{"go wasm", "", goTour("tour.wasm", module, "GOOS=wasip1", "GOARCH=wasm"), ""},
		{"c", "", prebuilt("c"), ""},
		{"rust", "", prebuilt("rust"), ""},
		{"assemblyscript", "", prebuilt("assemblyscript"), ""},
		{"python", "python3", script("python", "ds-tour", "ds.py"), ""},
		{"node", "node", script("node", "ds-tour", "ds.js"), ""},
		{"cpython wasm", "", interpreted("python.wasm", "tour.py", "/app/bin/python3, -B"), "python.wasm"},
		{"ruby wasm", "", interpreted("ruby.wasm", "tour.rb", "ruby"), "ruby.wasm"},
	}
}

const module = "  wasm: {artifact: tour.wasm}\n"

func program(name string) string {
	return fmt.Sprintf("  native: {%s/%s: %s}\n", runtime.GOOS, runtime.GOARCH, name)
}

func goTour(name, run string, env ...string) func(string) (string, error) {
	return func(dir string) (string, error) {
		return run, dstest.GoBuild(filepath.Join(guestDir, "go", "tour"), filepath.Join(dir, name), env)
	}
}

func prebuilt(name string) func(string) (string, error) {
	return func(dir string) (string, error) {
		return module, copyFile(filepath.Join(guestDir, name, "tour.wasm"), filepath.Join(dir, "tour.wasm"))
	}
}

// script is the native program called name with the SDK of its language beside it, in a directory that is called assets here
// and where a package is unpacked.
func script(language, name, sdk string) func(string) (string, error) {
	return func(dir string) (string, error) {
		err := errors.Join(
			os.Mkdir(filepath.Join(dir, "assets"), 0o700),
			copyFile(filepath.Join("..", "..", "hostabi", "abi", sdk), filepath.Join(dir, "assets", sdk)),
			copyFile(filepath.Join(guestDir, language, name), filepath.Join(dir, "ds-tour")),
		)
		return program("ds-tour") + "assets: assets\n", err
	}
}

// interpreted is a script for an interpreter that knows nothing of ds and finds it through files below /ds. What
// the interpreter needs beside its module is in a directory named like that.
func interpreted(module, script, argv string) func(string) (string, error) {
	return func(dir string) (string, error) {
		app := filepath.Join(dir, "app")
		err := os.Mkdir(app, 0o700)
		if lib := filepath.Join(fetchedDir, strings.TrimSuffix(module, ".wasm")); err == nil {
			if _, serr := os.Stat(lib); serr == nil {
				err = os.CopyFS(app, os.DirFS(lib))
			}
		}
		err = errors.Join(
			err,
			copyFile(filepath.Join(fetchedDir, module), filepath.Join(dir, module)),
			copyFile(filepath.Join(guestDir, "files", script), filepath.Join(app, script)),
		)
		return fmt.Sprintf("  wasm: {artifact: %s, argv: [%s, /app/%s]}\nassets: app\n", module, argv, script), err
	}
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o700)
}

// said is stderr without what ds says on a busy machine, where compiling takes long enough to be noticed.
func (c *call) said() string {
	lines := slices.DeleteFunc(strings.SplitAfter(c.stderr.String(), "\n"), func(line string) bool {
		return strings.HasPrefix(line, "compiling ") && strings.HasSuffix(line, " for this ds version (once)\n")
	})
	return strings.Join(lines, "")
}

// tourOf is the directory of the acceptance program in language l.
func tourOf(t *testing.T, l language) string {
	t.Helper()
	if l.needs != "" {
		if runtime.GOOS == "windows" {
			t.Skip("host calls of native plugins need descriptors that Windows does not pass yet")
		}
		if _, err := exec.LookPath(l.needs); err != nil {
			t.Skip(l.needs + " is not here")
		}
	}
	if l.fetched != "" {
		if _, err := os.Stat(filepath.Join(fetchedDir, l.fetched)); err != nil {
			t.Skip("bin/guests/" + l.fetched + " is not here: make interpreters fetches it")
		}
	}
	dir := filepath.Join(t.TempDir(), "tour")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	run, err := l.put(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile(filepath.Join(guestDir, "tour.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "plugin.yaml"), append(manifest, "run:\n"+run...), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestLanguages runs the acceptance program of every language: words, input, configuration, cache, state, events,
// another plugin, a refusal and the exit code are the same. Then a plugin in Go calls it and hears its event.
func TestLanguages(t *testing.T) {
	g := guests(t)
	for _, l := range languages() {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			dir := tourOf(t, l)
			c := newCall(t)
			c.want(0, "plugin", "install", filepath.Join(g.Both, "demo"), "--grant", "manifest")
			c.want(0, "plugin", "install", filepath.Join(g.Both, "probe"), "--grant", "manifest")
			if l.needs != "" { // a package has to bring the SDK along
				c.want(0, "plugin", "push", dir, "oci-layout:"+filepath.Join(c.home, "layout")+":0.1.0", "--unsigned")
				dir = "oci-layout:" + filepath.Join(c.home, "layout") + ":0.1.0"
			}
			c.want(0, "plugin", "install", dir, "--grant", "manifest", "--allow-unsigned")
			c.stdin = "erste Zeile\nzwei\n"
			c.want(7, "--set", "plugins.settings.tour.greeting=Grüße", "tour", "one", "two words", "")
			if got := c.stdout.String(); got != tour {
				t.Errorf("printed\n%swant\n%s", got, tour)
			}
			said := c.said()
			if strings.Count(said, "\n") != 1 || !strings.HasPrefix(said, "denied: tour registry.pull ") {
				t.Errorf("stderr: %s", said)
			}
			c.stdin = ""
			if l.needs != "" && native.Probe().Confines() { // and interpreters found what they need
				c.want(0, "plugin", "info", "tour")
				if !strings.Contains(c.stdout.String(), "Native, confined by the kernel") {
					t.Errorf("not confined: %s", c.stdout.String())
				}
			}
			c.want(0, "--backend", "native", "--set", "plugins.settings.tour.greeting=x", "probe", "relay", "tour", "one")
			if got := c.stdout.String(); got != "tour.done from /plugins/tour: {\"words\":1}\n" {
				t.Errorf("event: %s", got)
			}
		})
	}
}

// TestInputOfSDKs: input of another plugin is sent beside the receiving of its output. The plugin writes before it has read
// all, and nothing between them holds that much.
func TestInputOfSDKs(t *testing.T) {
	for _, l := range languages() {
		if l.fetched != "" { // streams in files are not interactive
			continue
		}
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			dir := tourOf(t, l)
			c := newCall(t)
			c.want(0, "plugin", "install", filepath.Join(guestDir, "c", "demo"), "--grant", "manifest")
			c.want(0, "plugin", "install", dir, "--grant", "manifest")
			c.stdin = "first\n" + strings.Repeat("0123456789abcdef", 8<<20/16)
			c.want(7, "--set", "plugins.settings.tour.greeting=hello", "tour", "one")
			if want := "call: demo echo ended with 0 and gave the same\n"; !strings.Contains(c.stdout.String(), want) {
				t.Errorf("printed\n%s", c.stdout.String())
			}
		})
	}
}

// TestStreamsOfSDKs: the SDKs that speak frames keep to the credit of streams and can give one up.
func TestStreamsOfSDKs(t *testing.T) {
	const want = `echo 0 True
list 100
given up k/00 v
talk YQ==
conflict 10 STATE_CONFLICT True
unknown 12 UNKNOWN_METHOD
`
	for _, l := range []language{
		{"python", "python3", script("python", "ds-streams", "ds.py"), ""},
		{"node", "node", script("node", "ds-streams", "ds.js"), ""},
	} {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			dir := tourOf(t, l)
			c := newCall(t)
			c.want(0, "plugin", "install", filepath.Join(guestDir, "c", "demo"), "--grant", "manifest")
			c.want(0, "plugin", "install", dir, "--grant", "manifest")
			c.want(0, "tour", "one")
			if got := c.stdout.String(); got != want {
				t.Errorf("printed\n%swant\n%s%s", got, want, c.stderr.String())
			}
		})
	}
}
