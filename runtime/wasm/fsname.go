package wasm

import (
	"path"
	"runtime"
	"strings"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"
)

const (
	maxPath = 4096
	maxName = 255
)

// cleanName is the guest's name relative to the mount, "." for the mount itself, and whether it ended in a
// slash, which only directories may.
func cleanName(name string) (clean string, slash bool, e experimentalsys.Errno) {
	if len(name) > maxPath {
		return "", false, experimentalsys.ENAMETOOLONG
	}
	if strings.ContainsRune(name, 0) || runtime.GOOS == "windows" && strings.ContainsAny(name, `\:`) {
		return "", false, experimentalsys.EINVAL
	}
	rel := strings.TrimLeft(name, "/")
	slash = len(rel) > 1 && strings.HasSuffix(rel, "/")
	clean = path.Clean(rel)
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", false, experimentalsys.EACCES
	}
	for part := range strings.SplitSeq(clean, "/") {
		if len(part) > maxName {
			return "", false, experimentalsys.ENAMETOOLONG
		}
	}
	return clean, slash, 0
}

// glob is a pattern of names: "*" is any run inside a part, "**" zero or more whole parts.
type glob []string

func parseGlob(pattern string) glob { return strings.Split(fold(path.Clean(pattern)), "/") }

// parseGlobs parses several patterns.
func parseGlobs(patterns []string) []glob {
	var out []glob
	for _, p := range patterns {
		out = append(out, parseGlob(p))
	}
	return out
}

// fold is a name as the usual file system of this system compares it.
func fold(name string) string {
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		return strings.ToLower(name)
	}
	return name
}

// match reports whether name matches, and whether a longer name below it may.
func (g glob) match(name string) (whole, leads bool) {
	at := make([]bool, len(g)+1)
	next := make([]bool, len(g)+1)
	at[0] = true
	g.skip(at)
	if name != "." {
		for part := range strings.SplitSeq(fold(name), "/") {
			clear(next)
			for i, p := range g {
				if !at[i] {
					continue
				}
				if p == "**" {
					next[i] = true
				} else if matchPart(p, part) {
					next[i+1] = true
				}
			}
			g.skip(next)
			at, next = next, at
		}
	}
	for i := range g {
		leads = leads || at[i]
	}
	return at[len(g)], leads
}

// skip marks what "**" reaches by matching nothing.
func (g glob) skip(at []bool) {
	for i, p := range g {
		if at[i] && p == "**" {
			at[i+1] = true
		}
	}
}

// matchPart matches one part; it is linear in the number of stars times the length.
func matchPart(pattern, s string) bool {
	star, from := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, i
			p++
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			from++
			p, i = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
