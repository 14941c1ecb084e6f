package main

import (
	"bufio"
	"bytes"
	"context"
	"debug/buildinfo"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

// machine is what the numbers depend on.
type machine struct {
	date, commit, cpu, kernel string
	cores                     int
	load                      float64
	versions                  []string // of engines and contenders
	native                    string   // what holds native plugins here
}

func describe(ctx context.Context, o options, f *fixture, load float64) machine {
	return machine{
		date: time.Now().UTC().Format(time.DateOnly), commit: commit(ctx, f.root, o.out), cores: runtime.NumCPU(), load: load,
		cpu: field("/proc/cpuinfo", "model name"), kernel: firstLine("/proc/sys/kernel/osrelease"), versions: versions(f),
		native: enforcement(ctx, f),
	}
}

// commit is the revision of the tree, marked if files of it differ. The results file itself does not count.
func commit(ctx context.Context, root, out string) string {
	git := func(args ...string) string {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Dir = root
		text, err := cmd.Output()
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(text))
	}
	rev := git("rev-parse", "--short=12", "HEAD")
	if rev == "" {
		return "unknown"
	}
	args := []string{"status", "--porcelain", "-uno", "--", "."}
	if out != "" {
		args = append(args, ":!"+out)
	}
	if git(args...) != "" {
		rev += " with changes"
	}
	return rev
}

// enforcement is what ds says about a native plugin of the fixture.
func enforcement(ctx context.Context, f *fixture) string {
	cmd := exec.CommandContext(ctx, f.ds, "plugin", "info", "raw") //nolint:gosec // the copy of -ds in the fixture
	cmd.Env, cmd.Dir = f.env(), f.tmp
	out, err := cmd.Output()
	if err != nil {
		return "unknown"
	}
	_, text, _ := strings.Cut(string(out), "ENFORCEMENT")
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return strings.TrimSuffix(line, ".")
}

// versions lists Go and, for ds and for each contender, the modules that it is compared by.
func versions(f *fixture) []string {
	interesting := []string{"github.com/tetratelabs/wazero", "github.com/hashicorp/go-plugin", "google.golang.org/grpc"}
	out := []string{runtime.Version()}
	names := []string{f.ds}
	peers, _ := filepath.Glob(filepath.Join(f.peers, "*")) // the pattern is well formed
	for _, path := range append(names, peers...) {
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			continue
		}
		var with []string
		for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
			if slices.Contains(interesting, m.Path) {
				with = append(with, m.Path[strings.LastIndexByte(m.Path, '/')+1:]+" "+m.Version)
			}
		}
		if len(with) > 0 {
			out = append(out, filepath.Base(path)+" ("+strings.Join(with, ", ")+")")
		}
	}
	return out
}

// loadAverage is the load of the last minute; NaN if it is not known.
func loadAverage(path string) float64 {
	word, _, _ := strings.Cut(firstLine(path), " ")
	load, err := strconv.ParseFloat(word, 64)
	if err != nil {
		return math.NaN()
	}
	return load
}

func firstLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return line
}

// field is the value of the first line "name : value".
func field(path, name string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func (m machine) String() string {
	return fmt.Sprintf("%s, commit %s, %s, %d cores, Linux %s, load %.2f", m.date, m.commit, m.cpu, m.cores, m.kernel, m.load)
}
