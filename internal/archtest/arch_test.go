// Package archtest holds the import table of the module and the test that enforces it.
package archtest

import (
	"bufio"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/delivery-station/ds"

type row struct {
	layer int
	may   []string
}

type rule struct{ subject, list, reason string }

type table struct {
	rows         map[string]row
	owned, never []rule
}

func TestImports(t *testing.T) {
	tab := readTable(t, "table.txt")
	for _, problem := range tab.check(t, packages(t, "../..")) {
		t.Error(problem)
	}
}

// TestPlanted shows that the table can fail: each foreign import must be named with file, import and reason.
func TestPlanted(t *testing.T) {
	tab := readTable(t, "table.txt")
	for _, c := range []struct{ pkg, imp, want string }{
		{"registry", module + "/plugin/manager", "layer 1 may not import plugin/manager"},
		{"hostabi", module + "/cache", "layer 0 may not import cache"},
		{"cache", "oras.land/oras-go/v2", "only registry"},
		{"util", "fmt", "no row"},
	} {
		found := strings.Join(tab.check(t, map[string][]file{c.pkg: {{"planted.go", []string{c.imp}, false}}}), "\n")
		if !strings.Contains(found, c.want) || !strings.Contains(found, c.pkg) {
			t.Errorf("planted %s -> %s: got %q, want it to say %q", c.pkg, c.imp, found, c.want)
		}
	}
}

func TestNeverLinked(t *testing.T) {
	if testing.Short() {
		t.Skip("lists dependencies of whole programs")
	}
	for _, r := range readTable(t, "table.txt").never {
		for target := range strings.FieldsSeq(r.list) {
			for _, dep := range deps(t, r.subject, target) {
				for bad := range strings.FieldsSeq(r.reason) {
					if dep == bad || (strings.Contains(bad, ".") && strings.HasPrefix(dep, bad+"/")) {
						t.Errorf("%s (%s) links %s, which it must never", r.subject, target, dep)
					}
				}
			}
		}
	}
}

type file struct {
	name    string
	imports []string
	test    bool // external _test package: exempt from layers, not from ownership of what ships
}

// check lists what breaks the table in pkgs (package path below the module -> files).
func (tab *table) check(t *testing.T, pkgs map[string][]file) (problems []string) {
	t.Helper()
	for pkg, files := range pkgs {
		r, ok := tab.row(pkg)
		if !ok {
			problems = append(problems, fmt.Sprintf("%s: no row in internal/archtest/table.txt", pkg))
			continue
		}
		for _, f := range files {
			for _, imp := range f.imports {
				if p := tab.problem(pkg, r, f, imp); p != "" {
					problems = append(problems, fmt.Sprintf("%s/%s: %s", pkg, f.name, p))
				}
			}
		}
	}
	if len(pkgs) > 1 {
		for pkg := range tab.rows {
			if _, ok := pkgs[pkg]; !ok && !strings.Contains(pkg, "*") {
				problems = append(problems, fmt.Sprintf("%s: row without package in internal/archtest/table.txt", pkg))
			}
		}
	}
	slices.Sort(problems)
	return problems
}

func (tab *table) row(pkg string) (row, bool) {
	if r, ok := tab.rows[pkg]; ok {
		return r, true
	}
	for name, r := range tab.rows {
		if prefix, ok := strings.CutSuffix(name, "*"); ok && strings.HasPrefix(pkg, prefix) {
			return r, true
		}
	}
	return row{}, false
}

func (tab *table) problem(pkg string, r row, f file, imp string) string {
	if own, ok := strings.CutPrefix(imp, module+"/"); ok {
		if f.test || slices.Contains(r.may, own) {
			return ""
		}
		if slices.Contains(r.may, "*") {
			if low, ok := tab.row(own); ok && low.layer < r.layer && !strings.HasSuffix(own, "test") {
				return ""
			}
		}
		return fmt.Sprintf("layer %d may not import %s", r.layer, own)
	}
	if f.test {
		return ""
	}
	for _, o := range tab.owned {
		if (imp == o.subject || strings.HasPrefix(imp, o.subject+"/")) && o.list != "*" && !slices.Contains(strings.Fields(o.list), pkg) {
			return fmt.Sprintf("imports %s, owned by only %s: %s", imp, o.list, o.reason)
		}
	}
	return ""
}

func readTable(t *testing.T, name string) *table {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tab, section := &table{rows: make(map[string]row)}, ""
	for s := bufio.NewScanner(f); s.Scan(); {
		line := strings.TrimSpace(s.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if name, ok := strings.CutPrefix(line, "---- "); ok {
			section = name
			continue
		}
		part := strings.SplitN(line, " : ", 3)
		switch {
		case section == "":
			head, list, _ := strings.Cut(line, " :")
			layer, pkg, _ := strings.Cut(head, " ")
			n, err := strconv.Atoi(layer)
			if err != nil {
				t.Fatalf("table.txt: %q does not start with a layer", line)
			}
			tab.rows[pkg] = row{n, expand(list)}
		case len(part) != 3:
			t.Fatalf("table.txt: %q has no three parts", line)
		case section == "owned":
			tab.owned = append(tab.owned, rule{part[0], part[1], part[2]})
		case section == "never":
			tab.never = append(tab.never, rule{part[0], part[1], part[2]})
		}
	}
	return tab
}

// expand splits a list and its {a,b} groups.
func expand(list string) (out []string) {
	for word := range strings.FieldsSeq(list) {
		pre, rest, ok := strings.Cut(word, "{")
		if !ok {
			out = append(out, word)
			continue
		}
		group, post, _ := strings.Cut(rest, "}")
		for item := range strings.SplitSeq(group, ",") {
			out = append(out, pre+item+post)
		}
	}
	return out
}

// packages reads the imports of every Go file of the main module below root.
func packages(t *testing.T, root string) map[string][]file {
	t.Helper()
	pkgs := make(map[string][]file)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			_, mod := os.Stat(filepath.Join(path, "go.mod"))
			if base := d.Name(); rel != "." && (mod == nil || base == "testdata" || strings.HasPrefix(base, ".") || base == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		src, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		f := file{name: d.Name(), test: strings.HasSuffix(src.Name.Name, "_test")}
		inPackageTest := strings.HasSuffix(f.name, "_test.go") && !f.test
		for _, imp := range src.Imports {
			p, _ := strconv.Unquote(imp.Path.Value)
			// Unit tests of a package may use test kits and foreign modules; else layers hold for them too.
			if inPackageTest && (!strings.HasPrefix(p, module+"/") || strings.HasSuffix(p, "test")) {
				continue
			}
			f.imports = append(f.imports, p)
		}
		dir := filepath.ToSlash(filepath.Dir(rel))
		pkgs[dir] = append(pkgs[dir], f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	delete(pkgs, "internal/archtest")
	return pkgs
}

func deps(t *testing.T, pkg, target string) []string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "./"+pkg)
	cmd.Dir = "../.."
	cmd.Env = os.Environ()
	if target == "wasip1" {
		cmd.Env = append(cmd.Env, "GOOS=wasip1", "GOARCH=wasm")
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -deps ./%s (%s): %v", pkg, target, err)
	}
	return strings.Fields(string(out))
}
