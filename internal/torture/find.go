package main

import (
	"io/fs"
	"path"
	"regexp"
	"strings"
)

// test is one test function of a row.
type test struct{ row, name, dir string }

var testFunc = regexp.MustCompile(`(?m)^func (Test(?:(R[0-9]+|S[0-9]+)[A-Z_]|(REG)[0-9]{3}_)[A-Za-z0-9_]*)\(`)

// find lists the tests of all rows in a source tree.
func find(tree fs.FS) ([]test, error) {
	var out []test
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") || d.Name() == "bin"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, "_test.go"):
			return nil
		}
		b, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		for _, m := range testFunc.FindAllSubmatch(b, -1) {
			out = append(out, test{row: string(m[2]) + string(m[3]), name: string(m[1]), dir: path.Dir(name)})
		}
		return nil
	})
	return out, err
}
