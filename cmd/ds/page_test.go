package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPageExample does what docs/abi.md tells an author of a new language to do: it takes manifest and source
// from the page, builds the module where there is a compiler, and runs the commands; their output is the page's.
func TestPageExample(t *testing.T) {
	page := readFile(t, filepath.Join("..", "..", "docs", "abi.md"))
	source := block(t, page, "c", "int main(")
	if committed := readFile(t, filepath.Join(guestDir, "c", "greet.c")); source != committed {
		t.Error("testdata/guests/c/greet.c is not what the page has: copy it and run make guests")
	}
	prebuilt := []byte(readFile(t, filepath.Join(guestDir, "c", "greet.wasm")))
	c := newCall(t)
	t.Chdir(t.TempDir())
	if err := os.Mkdir("greet", 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"plugin.yaml": block(t, page, "yaml", "name: greet\n"), "greet.c": source} {
		if err := os.WriteFile(filepath.Join("greet", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for step := range strings.SplitSeq(strings.TrimPrefix(block(t, page, "console", "greet.c"), "$ "), "\n$ ") {
		line, want, _ := strings.Cut(strings.TrimSuffix(step, "\n")+"\n", "\n")
		words := strings.Fields(line)
		if words[0] == "ds" {
			if got := c.shell(words[1:]); got != want {
				t.Errorf("$ %s\n%swant\n%s", line, got, want)
			}
			continue
		}
		if why := compile(t, words); why != "" {
			t.Logf("%s; running the prebuilt module", why)
			if err := os.WriteFile(filepath.Join("greet", "greet.wasm"), prebuilt, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// shell runs ds with words and returns its output as a terminal would show it. `… || echo "exit $?"` may follow.
func (c *call) shell(words []string) string {
	c.t.Helper()
	line, or, _ := strings.Cut(strings.Join(words, " "), " || ")
	code := c.run(strings.Fields(line)...)
	out := c.stdout.String() + c.said()
	switch {
	case code != 0 && or == `echo "exit $?"`:
		out += fmt.Sprintf("exit %d\n", code)
	case code != 0 || or != "":
		c.t.Errorf("ds %s: exit %d", line, code)
	}
	return out
}

// compile runs a compiler, or says what is missing.
func compile(t *testing.T, words []string) string {
	t.Helper()
	for _, program := range []string{words[0], "wasm-ld"} {
		if _, err := exec.LookPath(program); err != nil {
			return program + " is not here"
		}
	}
	if _, err := os.Stat("/usr/include/wasm32-wasi/stdio.h"); err != nil {
		return "wasi-libc is not here"
	}
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(words, " "), err, out)
	}
	return ""
}

// block is the fenced block of page in a language that has mark in it.
func block(t *testing.T, page, language, mark string) string {
	t.Helper()
	parts := strings.Split(page, "\n```")
	for i := 1; i < len(parts); i += 2 {
		if text, ok := strings.CutPrefix(parts[i], language+"\n"); ok && strings.Contains(text, mark) {
			return text + "\n"
		}
	}
	t.Fatalf("abi.md has no block of %s with %q", language, mark)
	return ""
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
