package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// artifact is what the rows of the registry move: so many layers of noise.
type artifact struct {
	name        string
	count, size int
}

// artifacts are those of the contract; a quick run is content with less.
func artifacts(quick bool) []artifact {
	if quick {
		return []artifact{{"one", 1, 8 << 20}, {"many", 64, 64 << 10}, {"small", 50, 4 << 10}}
	}
	return []artifact{{"one", 1, 1 << 30}, {"many", 64, 8 << 20}, {"small", 2000, 4 << 10}}
}

// server is the registry that the rows of its group talk to: distribution v3 on this machine, with its blobs on
// the same file system as everything else.
type server struct {
	host    string
	digests map[string]string
	stdin   io.Closer // the server ends with it
	cmd     *exec.Cmd
	fresh   int
}

// usesRegistry reports whether one of rows talks to the server.
func usesRegistry(rows []Row) bool {
	for _, r := range rows {
		if r.Group == "registry" {
			return true
		}
	}
	return false
}

// startRegistry starts the server and fills it. Without the contenders' programs there is none, and the rows
// say so.
func (f *fixture) startRegistry(ctx context.Context, quick bool) error {
	for _, p := range []string{"testreg", "lim"} {
		if _, err := os.Stat(filepath.Join(f.peers, p)); err != nil {
			return nil //nolint:nilerr // the rows are "not run"
		}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(f.peers, "testreg"), "-dir", filepath.Join(f.tmp, "registry"))
	cmd.Env = f.env()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s := &server{digests: make(map[string]string), stdin: stdin, cmd: cmd}
	f.server = s
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return fmt.Errorf("testreg: %w", err)
	}
	s.host = strings.TrimSpace(line)
	for _, a := range artifacts(quick) {
		ref := s.host + "/bench/" + a.name + ":1"
		text, err := f.output(ctx, filepath.Join(f.peers, "lim"), "seed", ref, strconv.Itoa(a.count), strconv.Itoa(a.size))
		if err != nil {
			return err
		}
		s.digests[a.name] = strings.TrimSpace(text)
		// What pushing starts from, and what pulling again finds.
		for _, args := range [][]string{
			{f.ds, "porter", "copy", ref, "oci-layout:" + filepath.Join(f.tmp, "layouts", a.name) + ":1"},
			{filepath.Join(f.peers, "lim"), "pull", ref, filepath.Join(f.tmp, "limpush", a.name)},
			{f.ds, "--cache-dir", filepath.Join(f.tmp, "full"), "porter", "pull", ref},
		} {
			if _, err := f.output(ctx, args[0], args[1:]...); err != nil {
				return err
			}
		}
	}
	// What R8 unpacks: programs, one after the other.
	size := 56 << 20
	if quick {
		size = 4 << 20
	}
	if _, err := f.output(ctx, filepath.Join(f.peers, "lim"), "pack", filepath.Join(f.tmp, "big"), strconv.Itoa(size), f.ds, filepath.Join(f.peers, "testreg")); err != nil {
		return err
	}
	_, err = f.output(ctx, f.ds, "plugin", "push", filepath.Join(f.guests, "raw"), s.host+"/plugins/raw", "--unsigned")
	return err
}

// installPorter installs the plugin that moves artifacts.
func (f *fixture) installPorter(ctx context.Context) error {
	dir := filepath.Join(f.guests, "porter")
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // programs, not secrets
		return err
	}
	if err := copyFile(filepath.Join(f.root, "cmd", "ds-porter", "plugin.yaml"), filepath.Join(dir, "plugin.yaml")); err != nil {
		return err
	}
	goos, err := f.output(ctx, "go", "env", "GOOS", "GOARCH")
	if err != nil {
		return err
	}
	platform := strings.Join(strings.Fields(goos), "/")
	native := filepath.Join(dir, "dist", filepath.FromSlash(platform))
	if err := f.goTool(ctx, f.root, []string{"CGO_ENABLED=0"}, "build", "-trimpath", "-ldflags=-s -w", "-o", native+string(filepath.Separator), "./cmd/ds-porter"); err != nil {
		return err
	}
	// Installed as users have it: a package, of which only what was built here is part.
	name := filepath.Join(dir, "plugin.yaml")
	manifest, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var kept strings.Builder
	for line := range strings.Lines(string(manifest)) {
		if i := strings.Index(line, ": dist/"); i < 0 || strings.TrimSpace(line[:i]) == platform {
			if !strings.Contains(line, "wasm: {artifact:") {
				kept.WriteString(line)
			}
		}
	}
	if err := os.WriteFile(name, []byte(kept.String()), 0o600); err != nil {
		return err
	}
	tar := filepath.Join(f.guests, "porter.tar")
	for _, args := range [][]string{
		{"plugin", "package", dir, "-o", tar}, {"plugin", "install", tar, "--allow-unsigned", "--backend", "native", "--grant", "manifest"},
	} {
		if _, err := f.output(ctx, f.ds, args...); err != nil {
			return err
		}
	}
	return nil
}

// output runs a program of the fixture that is not measured.
func (f *fixture) output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env, cmd.Dir = f.env(), f.tmp
	if name == "go" {
		cmd.Env = os.Environ()
	}
	text, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w\n%s", err, exit.Stderr)
		}
		return "", fmt.Errorf("%s %s: %w", filepath.Base(name), strings.Join(args, " "), err)
	}
	return string(text), nil
}

// close ends the server.
func (f *fixture) close() {
	if f.server != nil {
		_ = f.server.stdin.Close() // it ends
		_ = f.server.cmd.Wait()
	}
}

// registryWord is ${registry}, ${digest.NAME} or ${fresh}, a repository that nobody used yet.
func (f *fixture) registryWord(name string) (string, bool) {
	if f.server == nil {
		return "", false
	}
	if of, ok := strings.CutPrefix(name, "digest."); ok {
		return f.server.digests[of], true
	}
	switch name {
	case "registry":
		return f.server.host, true
	case "fresh":
		f.server.fresh++
		return fmt.Sprintf("%s/fresh/r%d", f.server.host, f.server.fresh), true
	}
	return "", false
}

// registryRows are the promises about moving artifacts.
func registryRows() []Row {
	digest := func(name string) Output { return Output{Contains: "${digest." + name + "}"} }
	dsPull := func(name string) Spec {
		s := ds("porter pull", digest(name), "--cache-dir", "${tmp}/dscache", "porter", "pull", "${registry}/bench/"+name+":1")
		s.Clear = "${tmp}/dscache"
		return s
	}
	limPull := func(name string) Spec {
		return Spec{Label: "lim", Argv: []string{"${peers}/lim", "pull", "${registry}/bench/" + name + ":1", "${tmp}/limpull"}, Clear: "${tmp}/limpull", Want: digest(name)}
	}
	cranePull := func(name string) Spec {
		return Spec{Label: "crane pull", Argv: []string{"${peers}/crane", "pull", "--insecure", "--format", "oci", "${registry}/bench/" + name + ":1", "${tmp}/crane"}, Clear: "${tmp}/crane", Want: Output{Prefix: true}}
	}
	// Everything is in the cache and only has to be sent: ds forgets what it saw in other repositories.
	dsPush := func(name string) Spec {
		s := ds("porter copy", digest(name), "--cache-dir", "${tmp}/full", "porter", "copy", "oci-layout:${tmp}/layouts/"+name+":1", "${fresh}:1")
		s.Clear = "${tmp}/full/registry"
		return s
	}
	limPush := func(name string) Spec {
		return Spec{Label: "lim", Argv: []string{"${peers}/lim", "push", "${fresh}:1", "${tmp}/limpush/" + name}, Want: digest(name)}
	}
	pull := func(id, workload, name string, goal float64) Row {
		return Row{ID: id, Group: "registry", Workload: "pull " + workload, Ours: dsPull(name), Against: limPull(name), Metric: Wall, Goal: goal, N: 7}
	}
	push := func(id, workload, name string, goal float64) Row {
		return Row{ID: id, Group: "registry", Workload: "push " + workload, Ours: dsPush(name), Against: limPush(name), Metric: Wall, Goal: goal, N: 7}
	}
	cpu, peak := pull("R1.cpu", "1 GiB, processor time", "one", 1.15), pull("R1.peak", "1 GiB, peak memory above ds version", "one", 40)
	cpu.Metric = CPU
	peak.Metric, peak.Above, peak.N = Peak, true, 5
	idle := ds("version", Output{Prefix: true}, "version")
	idle.Label = "ds version"
	peak.Against = idle
	crane1, crane3 := pull("R1.crane", "1 GiB", "one", 1), pull("R3.crane", "2000 x 4 KiB", "small", 0.2)
	crane1.Against, crane3.Against = cranePull("one"), cranePull("small")
	crane3.N, crane3.Note = 1, "one round: crane needs a minute"
	again := func(id, workload, ref string, goal float64) Row {
		return Row{
			ID: id, Group: "registry", Workload: "pull 64 x 8 MiB that are all there, " + workload, Against: idle, Metric: Wall, Goal: goal,
			Ours: ds("porter pull", digest("many"), "--cache-dir", "${tmp}/full", "porter", "pull", "${registry}/bench/many"+ref),
		}
	}
	byDigest := again("R4.digest", "by digest", "@${digest.many}", 2)
	byDigest.Note = "of the processor time half is ds version and the process of the plugin, which is why 1.7 is the least; no part of the rest is over a tenth: looking at 65 entries, their 65 events over frames, the sandbox, one garbage collection"
	byTag := again("R4.tag", "by tag", ":1", 0)
	byTag.Context, byTag.Note = true, "R4.digest and one HEAD"
	mount := push("R6", "1 GiB known in another repository of the host", "one", 0.1)
	mount.Ours = ds("porter copy, mounted", digest("one"), "--cache-dir", "${tmp}/full", "porter", "copy", "${registry}/bench/one:1", "${fresh}:1")
	mount.Against = dsPush("one")
	wire := func(mode string) Spec {
		return Spec{
			Label: "ds porter pull, " + mode, Clear: "${tmp}/dscache", Want: Output{Text: "wire bytes ", Prefix: true},
			Argv: []string{
				"${peers}/lim", "through", mode, "${registry}", "${digest.many}", "${ds}", "--cache-dir", "${tmp}/dscache", "porter", "pull", "{proxy}/bench/many:1",
			},
		}
	}
	return []Row{
		pull("R1", "1 GiB", "one", 1.2), cpu, peak, crane1,
		pull("R2", "64 x 8 MiB", "many", 1.2),
		pull("R3", "2000 x 4 KiB", "small", 1.1), crane3,
		byDigest, byTag,
		push("R5.one", "1 GiB", "one", 1.1), push("R5.many", "64 x 8 MiB", "many", 1.1), push("R5.small", "2000 x 4 KiB", "small", 1),
		mount,
		{
			ID: "R7", Group: "registry", Workload: "pull 64 x 8 MiB, every blob cut once at 30 %: bytes on the wire", Metric: Reported, Goal: 1.05, N: 3,
			Ours: wire("cut"), Against: wire("whole"),
		},
		{
			ID: "R8", Group: "registry", Workload: "unpack a 56 MiB program at install", Metric: PerOp, Goal: 1.3,
			Ours:    Spec{Label: "plugin/install", Pkg: "plugin/install", Bench: "BenchmarkUnpack", Seeded: true},
			Against: Spec{Label: "zstd decode + sha256 + write", Pkg: peersModule + "/lim", Bench: "BenchmarkUnpack", Seeded: true},
		},
		{
			ID: "R9", Group: "registry", Workload: "ds plugin install of the active version", Against: idle, Metric: Wall, Goal: 4,
			Ours: ds("plugin install", Output{Prefix: true}, "plugin", "install", "${registry}/plugins/raw:0.1.0", "--allow-unsigned", "--grant", "manifest"),
		},
	}
}
