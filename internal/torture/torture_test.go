package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree is a module with the given files.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files["go.mod"] = "module example.com/x\n\ngo 1.24\n"
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const header = "package a\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\n"

func TestScoreboard(t *testing.T) {
	if testing.Short() {
		t.Skip("builds test programs")
	}
	t.Parallel()
	dir := tree(t, map[string]string{
		"a/a_test.go": header +
			"func TestS1_Good(t *testing.T) { t.Logf(\"S1: %s %s\", os.Getenv(\"DS_TORTURE\"), os.Getenv(\"DS_TORTURE_SEED\")) }\n" +
			"func TestS2_Bad(t *testing.T) { t.Error(\"planted\") }\n" +
			"func TestS3_Skipped(t *testing.T) { t.Skip(\"planted\") }\n" +
			"func TestREG001_One(t *testing.T) { t.Run(\"sub\", func(t *testing.T) { t.Log(\"REG-001: counted\") }) }\n" +
			"func TestREG002_Two(t *testing.T) { t.Fatal(\"planted\") }\n" +
			"func TestSomething(t *testing.T) { t.Fatal(\"no row\") }\n" +
			"func TestS4_Panics(t *testing.T) { panic(\"planted\") }\n",
		"broken/c_test.go":   header + "func TestS5_Builds(t *testing.T) { notThere() }\n",
		"testdata/b_test.go": header + "func TestS1_Elsewhere(t *testing.T) {}\n",
	})
	for _, c := range []struct {
		args   []string
		code   int
		stdout string
		stderr string
	}{
		{[]string{"-only", "S1", "-seed", "7"}, 0, "S1  S1: ci 7\n", ""},
		{[]string{"-only", "S1", "-level", "full"}, 0, "scale full", ""},
		{[]string{"-only", "S2"}, 1, "S2   MISSED", "repeat: DS_TORTURE=ci"},
		{[]string{"-only", "S3"}, 1, "S3   skipped", ""},
		{[]string{"-only", "S4"}, 1, "S4   MISSED", "planted"},
		{[]string{"-only", "REG001"}, 0, "REG  REG-001: counted (sub)\n", ""},
		{[]string{"-only", "REG"}, 1, "REG  MISSED", "planted"},
		{[]string{"-only", "S5"}, 1, "S5   BROKEN", "undefined: notThere"},
		{[]string{"-only", "S6"}, 1, "", `no tests for row "S6"`},
		{[]string{"-level", "much"}, 2, "", "takes"},
		{[]string{"-root", filepath.Join(dir, "none")}, 2, "", "torture:"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			t.Parallel()
			var out, errs bytes.Buffer
			if got := run(t.Context(), append([]string{"-root", dir}, c.args...), &out, &errs); got != c.code {
				t.Errorf("exit %d, want %d", got, c.code)
			}
			if !strings.Contains(out.String(), c.stdout) || !strings.Contains(errs.String(), c.stderr) {
				t.Errorf("stdout %s\nstderr %s", &out, &errs)
			}
		})
	}
}

// TestRowsOfTests: each test of this tree that is named like a row belongs to one.
func TestRowsOfTests(t *testing.T) {
	t.Parallel()
	tests, err := find(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]bool)
	for _, r := range rows {
		known[r.id] = true
	}
	for _, x := range tests {
		if !known[x.row] {
			t.Errorf("%s in %s names no row", x.name, x.dir)
		}
	}
}
