package native

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
)

// maxInterpreters is how deep the kernel follows scripts that are interpreters of scripts.
const maxInterpreters = 4

// interpreterDirs are the directories outside the system's own that a confined script needs: for each
// interpreter on the way the one above its bin/, by name and where links lead to. One that is not safe to open
// is START_FAILED.
func (r *run) interpreterDirs() (dirs []string, err error) {
	line := io.ReaderAt(r.p.Program.File)
	for range maxInterpreters {
		words := interpreterWords(line)
		if len(words) == 0 {
			return dirs, nil
		}
		path := r.interpreter(words)
		if path == "" {
			return dirs, nil // the start fails and says why
		}
		target, err := filepath.EvalSymlinks(path)
		if err != nil {
			return dirs, nil // as above
		}
		more, err := r.interpreterDir(path, target)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, more...)
		f, err := os.Open(target)
		if err != nil {
			return dirs, nil // as above
		}
		defer f.Close() // at most four files, only read
		line = f
	}
	return dirs, nil
}

// interpreterDir is what the interpreter at path, which is really at target, needs beside the system.
func (r *run) interpreterDir(path, target string) (dirs []string, err error) {
	if !systemPath(target) {
		dir := filepath.Dir(filepath.Dir(target))
		if r.unsafeDir(dir) {
			return nil, r.fail(hostabi.ReasonStartFailed, "its interpreter %s is outside what a confined plugin may run", path)
		}
		dirs = append(dirs, dir)
	}
	// A virtual environment has a link to the interpreter and files of its own beside it.
	if dir := filepath.Dir(filepath.Dir(path)); !systemPath(path) && !r.unsafeDir(dir) && !slices.Contains(dirs, dir) {
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// unsafeDir reports whether dir is too much to open for an interpreter.
func (r *run) unsafeDir(dir string) bool {
	if dir == string(filepath.Separator) {
		return true
	}
	if home := r.box.Home(); home != "" && (inside(home, dir) || inside(realDir(home), dir)) {
		return true
	}
	_, hidden := r.box.Hides(dir)
	return hidden
}

// inside reports whether path is dir or below it.
func inside(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

func realDir(dir string) string {
	if target, err := filepath.EvalSymlinks(dir); err == nil {
		return target
	}
	return dir
}

// interpreter is the absolute path of the interpreter that a #! line names; env NAME is looked up as env does.
func (r *run) interpreter(words []string) string {
	if filepath.Base(words[0]) != "env" {
		if filepath.IsAbs(words[0]) {
			return words[0]
		}
		return filepath.Join(r.inv.Dir, words[0])
	}
	for _, w := range words[1:] {
		if strings.HasPrefix(w, "-") || strings.Contains(w, "=") {
			continue // -S, -i, NAME=VALUE
		}
		if strings.ContainsRune(w, filepath.Separator) {
			return w
		}
		return r.lookPath(w)
	}
	return words[0]
}

// lookPath finds a program on the PATH that the plugin gets.
func (r *run) lookPath(name string) string {
	path := ""
	for _, kv := range r.inv.Env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	if path == "" {
		path = "/bin:/usr/bin"
	}
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			continue
		}
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return file
		}
	}
	return ""
}

// interpreterWords are the words after #!, none if the file is no script.
func interpreterWords(f io.ReaderAt) []string {
	var h [256]byte
	n, err := f.ReadAt(h[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	line, ok := strings.CutPrefix(string(h[:n]), "#!")
	if !ok {
		return nil
	}
	line, _, _ = strings.Cut(line, "\n")
	return strings.Fields(line)
}

// systemPath reports whether every confined program may run path anyway.
func systemPath(path string) bool {
	return slices.ContainsFunc(systemPrograms(), func(dir string) bool { return inside(path, dir) })
}

// systemPrograms are the directories whose programs and libraries every confined program may run and read.
func systemPrograms() []string {
	return []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store"}
}
