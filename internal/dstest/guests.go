package dstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Guests are the directories of plugins that tests install. Each holds porter, cache, probe and demo (C, WASM only),
// ready for `ds plugin install DIR`, and other-native and other-wasm: the probe under the name other, with one
// kind only, for calls between plugins; listener and answerer are the probe with its event handler declared.
type Guests struct {
	Both     string // programs that run direct, and modules
	GoPlugin string // native programs are stock go-plugin servers
}

// BuildGuests builds below dir the Go plugins that tests run: porter, cache and everything below testdata/guests/go that
// has a plugin.yaml.
func BuildGuests(dir string) (Guests, error) {
	g := Guests{Both: filepath.Join(dir, "both"), GoPlugin: filepath.Join(dir, "goplugin")}
	root, err := moduleRoot()
	if err != nil {
		return g, err
	}
	srcs := []string{filepath.Join(root, "cmd", "ds-porter"), filepath.Join(root, "cmd", "ds-cache")}
	manifests, err := filepath.Glob(filepath.Join(root, "testdata", "guests", "go", "*", "plugin.yaml"))
	if err != nil {
		return g, err
	}
	for _, m := range manifests {
		srcs = append(srcs, filepath.Dir(m))
	}
	for _, src := range srcs {
		if err := errors.Join(BuildPlugin(src, filepath.Join(g.Both, nameOf(src))), buildGoPlugin(src, filepath.Join(g.GoPlugin, nameOf(src)))); err != nil {
			return g, err
		}
	}
	demo := os.DirFS(filepath.Join(root, "testdata", "guests", "c", "demo"))
	for _, to := range []string{g.Both, g.GoPlugin} {
		for _, name := range []string{"listener", "answerer"} {
			if err := handler(to, name); err != nil {
				return g, err
			}
		}
	}
	return g, errors.Join(
		other(g.Both, g.Both, "native"), other(g.Both, g.Both, "wasm"), other(g.GoPlugin, g.GoPlugin, "native"), other(g.Both, g.GoPlugin, "wasm"),
		os.CopyFS(filepath.Join(g.Both, "demo"), demo), os.CopyFS(filepath.Join(g.GoPlugin, "demo"), demo),
	)
}

// other copies the probe of from to to under the name other, with the one kind.
func other(from, to, kind string) error {
	dir := filepath.Join(to, "other-"+kind)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(from, "probe"))); err != nil {
		return err
	}
	m, err := os.ReadFile(filepath.Join(dir, "plugin.yaml"))
	if err != nil {
		return err
	}
	head, run, _ := strings.Cut(strings.Replace(string(m), "name: probe", "name: other", 1), "  native:\n")
	if kind == "wasm" {
		run = ""
	} else {
		run = "  native:\n" + run
		head = strings.Replace(head, "  wasm: {artifact: dist/probe.wasm}\n", "", 1)
	}
	return os.WriteFile(filepath.Join(dir, "plugin.yaml"), []byte(head+run), 0o600)
}

// handler copies the probe in dir to one whose command heard events start: those of porter and of the other one.
func handler(dir, name string) error {
	to := filepath.Join(dir, name)
	if err := os.CopyFS(to, os.DirFS(filepath.Join(dir, "probe"))); err != nil {
		return err
	}
	m, err := os.ReadFile(filepath.Join(to, "plugin.yaml"))
	if err != nil {
		return err
	}
	text := strings.NewReplacer("name: probe", "name: "+name, `scope: ["probe.**", `, `scope: [artifact.pulled, "*.said", "probe.**", `, "capabilities:\n",
		"events: {subscribe: [{topic: artifact.pulled, handler: heard}, {topic: \"*.said\", handler: heard}]}\ncapabilities:\n").Replace(string(m))
	return os.WriteFile(filepath.Join(to, "plugin.yaml"), []byte(text), 0o600)
}

// nameOf is the plugin that a source directory builds.
func nameOf(src string) string { return strings.TrimPrefix(filepath.Base(src), "ds-") }

// BuildPlugin builds the Go program in src for this platform and for wasip1 and puts both with its plugin.yaml
// into dir, where the manifest expects them: dist/OS/ARCH/ds-NAME and dist/NAME.wasm. Lines of other platforms
// are dropped from the manifest.
func BuildPlugin(src, dir string) error {
	if err := buildNative(src, dir); err != nil {
		return err
	}
	if err := GoBuild(src, filepath.Join(dir, "dist", nameOf(src)+".wasm"), []string{"GOOS=wasip1", "GOARCH=wasm"}); err != nil {
		return err
	}
	return copyManifest(src, dir, nil)
}

// buildGoPlugin is BuildPlugin for the build tag goplugin; there is no module of it.
func buildGoPlugin(src, dir string) error {
	if err := buildNative(src, dir, "-tags=goplugin"); err != nil {
		return err
	}
	return copyManifest(src, dir, func(line string) string {
		switch {
		case strings.HasPrefix(line, "  native:"):
			return line + "\n    mode: goplugin"
		case strings.HasPrefix(line, "  wasm:"):
			return ""
		}
		return line
	})
}

// LegacyGenerations are the stub plugins of the original DS, one for each generation of its wire.
func LegacyGenerations() []string { return []string{"field3", "field4", "metadata"} }

// BuildLegacy builds the stub plugin of one generation as the file out.
func BuildLegacy(generation, out string) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	return GoBuild(filepath.Join(root, "testdata", "legacy", generation), out, []string{"CGO_ENABLED=0"})
}

func buildNative(src, dir string, flags ...string) error {
	out := filepath.Join(dir, "dist", runtime.GOOS, runtime.GOARCH, "ds-"+nameOf(src))
	if runtime.GOOS == "windows" {
		out += ".exe"
	}
	return GoBuild(src, out, []string{"CGO_ENABLED=0"}, flags...)
}

// GoBuild builds the Go program in src as tests run it, with env beside the environment of this process.
func GoBuild(src, out string, env []string, flags ...string) error {
	cmd := exec.Command("go", append(append([]string{"build", "-trimpath", "-ldflags=-s -w", "-o", out}, flags...), ".")...)
	cmd.Dir = src
	cmd.Env = append(os.Environ(), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", src, err, text)
	}
	return nil
}

// copyManifest copies plugin.yaml without the lines that name the program of another platform. change, if not
// nil, changes lines.
func copyManifest(src, dir string, change func(string) string) error {
	manifest, err := os.ReadFile(filepath.Join(src, "plugin.yaml"))
	if err != nil {
		return err
	}
	inRun := false
	var out []string
	for line := range strings.SplitSeq(string(manifest), "\n") {
		if line != "" && line[0] != ' ' {
			inRun = line == "run:"
		}
		key, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		if ok && strings.Count(key, "/") == 1 && strings.Contains(value, "dist/") && key != runtime.GOOS+"/"+runtime.GOARCH {
			continue
		}
		if inRun && change != nil {
			line = change(line)
		}
		out = append(out, line)
	}
	return os.WriteFile(filepath.Join(dir, "plugin.yaml"), []byte(strings.Join(out, "\n")), 0o600)
}

// moduleRoot is the directory of go.mod at or above the working directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = up
	}
}
