package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/delivery-station/ds/internal/dstest"
)

// TestBadPlaces runs ds where something is missing, endless or full: one clear error, the right exit code.
func TestBadPlaces(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("uses devices of Linux")
	}
	home := t.TempDir()
	garbage := filepath.Join(home, "garbage.yaml")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("\x00\xff[", 1<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	many := make([]string, 10_000)
	for i := range many {
		many[i] = "--x"
	}
	for name, c := range map[string]struct {
		env    []string
		args   []string
		stdout string // "" = read by the test
		gone   bool   // the working directory
		code   int
		want   string
	}{
		"endless configuration":  {args: []string{"--config", "/dev/zero", "plugin", "list"}, code: 2, want: "DS1103"},
		"garbage configuration":  {args: []string{"--config", garbage, "plugin", "list"}, code: 2, want: "DS1103"},
		"directory as file":      {args: []string{"--config", home, "plugin", "list"}, code: 2, want: "DS1105"},
		"relative home":          {env: []string{"HOME=relative"}, args: []string{"plugin", "list"}, code: 2, want: "DS1112"},
		"no home":                {env: []string{"HOME="}, args: []string{"plugin", "list"}, code: 2, want: "DS1112"},
		"working directory gone": {args: []string{"plugin", "list"}, gone: true, code: 2, want: "working directory"},
		"disk of stdout full":    {args: []string{"plugin", "list"}, stdout: "/dev/full", code: 1, want: "no space left"},
		"very long name":         {args: []string{strings.Repeat("a", 100_000)}, code: 127, want: "DS3001"},
		"name with a path":       {args: []string{"../../bin/sh"}, code: 127, want: "DS3001"},
		"name of another script": {args: []string{"\u0130nfo"}, code: 127, want: "DS3001"},
		"10 000 flags":           {args: many, code: 2, want: "DS1002"},
		"state is a file":        {env: []string{"DS_STATE_DIR=" + garbage}, args: []string{"plugin", "list"}, code: 0},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "ds", c.args...)
			cmd.Env = append([]string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}, c.env...)
			cmd.Dir = t.TempDir()
			if c.gone {
				cmd.Args = append([]string{"sh", "-c", `rmdir "$PWD" && exec ds "$@"`, "sh"}, c.args...)
				cmd.Path = "/bin/sh"
			}
			var stderr strings.Builder
			cmd.Stderr = &stderr
			if c.stdout != "" {
				f, err := os.OpenFile(c.stdout, os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				cmd.Stdout = f
			}
			_ = cmd.Run() // the code is looked at
			text := stderr.String()
			if got := cmd.ProcessState.ExitCode(); got != c.code || !strings.Contains(text, c.want) || strings.Contains(text, "goroutine ") || strings.Count(text, "Error ") > 1 {
				t.Errorf("exit %d, want %d with %q:\n%.600s", got, c.code, c.want, text)
			}
		})
	}
}

// TestManyAtOnce installs, runs and removes one plugin in many processes: each run is a whole one or none.
func TestManyAtOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many processes")
	}
	reg := dstest.Registry(t, dstest.RegistryOptions{})
	c := newCall(t)
	c.want(0, "plugin", "push", spyDir(t), reg.Host+"/x/spy", "--unsigned")
	install := []string{"plugin", "install", reg.Host + "/x/spy:0.1.0", "--allow-unsigned", "--backend", "native", "--grant", "manifest"}
	ds := func(ok func(code int, out string) bool, args ...string) {
		cmd := exec.CommandContext(t.Context(), "ds", args...)
		cmd.Env, cmd.Dir = []string{"HOME=" + c.home, "PATH=" + os.Getenv("PATH")}, c.home
		out, _ := cmd.CombinedOutput() // the code is looked at
		if code := cmd.ProcessState.ExitCode(); !ok(code, string(out)) {
			t.Errorf("ds %q: exit %d\n%s", args, code, out)
		}
	}
	done := func(code int, _ string) bool { return code == 0 }
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { ds(done, install...) })
	}
	wg.Wait()
	ds(done, "spy", "remember", "x")
	wg.Go(func() {
		for range 8 {
			ds(done, "plugin", "remove", "spy")
			ds(done, install...)
		}
	})
	for range 2 {
		wg.Go(func() {
			for range 20 {
				ds(func(code int, out string) bool {
					return code == 0 && strings.Contains(out, "remembered: x") || code == 127 && strings.Contains(out, "DS3001")
				}, "spy", "remember", "x")
			}
		})
	}
	wg.Wait()
	ds(done, "spy", "remember")
	if left, _ := filepath.Glob(filepath.Join(c.home, ".local/share/ds/plugins/.staging/*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
