package sandbox

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

const layoutPrefix = "oci-layout:"

// repo is a repository, host/path or oci-layout:/abs/path, or a pattern of them.
type repo struct {
	all    bool // **: any registry, but no layout of the file system
	layout bool
	host   host
	port   string
	path   []seg
}

func (a repo) covers(b repo) bool {
	switch {
	case a.layout != b.layout:
		return false
	case a.layout:
		return coversPath(a.path, b.path, foldCase())
	case a.all:
		return true
	}
	return !b.all && a.port == b.port && a.host.covers(b.host) && coversPath(a.path, b.path, false)
}

// parseRepo reads a repository pattern: ** or host/path with globs.
func parseRepo(s string) (repo, error) {
	if s == "**" {
		return repo{all: true}, nil
	}
	if rest, ok := strings.CutPrefix(s, layoutPrefix); ok {
		return parseLayout(rest)
	}
	name, path, ok := strings.Cut(s, "/")
	if !ok {
		return repo{}, errors.New("want host/path, such as ghcr.io/acme/**")
	}
	var r repo
	h, port := splitPort(name)
	if port != "" {
		if _, err := parsePort(port); err != nil {
			return r, err
		}
	} else if h != name {
		return r, errors.New("the port is empty")
	}
	var err error
	if r.host, err = parseHost(h); err != nil {
		return r, err
	}
	if r.host.depth == deep {
		return r, errors.New("a registry takes *.suffix, not **.suffix")
	}
	r.port = port
	parts := strings.Split(path, "/")
	for _, p := range parts {
		if p == "" || strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789._-*") != "" || p == "." || p == ".." || badStars(p) {
			return r, fmt.Errorf("%q is not a repository path", clip(path))
		}
	}
	r.path = parseSegs(parts)
	return r, nil
}

// Repositories compiles patterns of repositories, as registry.pull has them, into one match of canonical names.
func Repositories(patterns []string) (func(repository string) bool, error) {
	all := make([]repo, 0, len(patterns))
	for _, p := range patterns {
		r, err := parseRepo(p)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", clip(p), err)
		}
		all = append(all, r)
	}
	return func(name string) bool {
		r, ok := repository(name)
		return ok && slices.ContainsFunc(all, func(a repo) bool { return a.covers(r) })
	}, nil
}

func parseLayout(path string) (repo, error) {
	segs, err := parseFileGlob(strings.TrimPrefix(path, "/"))
	if err != nil {
		return repo{}, err
	}
	if !strings.HasPrefix(path, "/") || !literalStart(segs, 2) {
		return repo{}, errors.New("a layout needs an absolute path with two literal elements")
	}
	return repo{layout: true, path: segs}, nil
}

// repository reads the canonical name of a repository, as the registry client gives it.
func repository(s string) (repo, bool) {
	if rest, ok := strings.CutPrefix(s, layoutPrefix); ok {
		parts, ok := absParts(rest)
		return repo{layout: true, path: literalSegs(parts)}, ok
	}
	if strings.Contains(s, "*") {
		return repo{}, false
	}
	r, err := parseRepo(s)
	return r, err == nil
}

// badStars reports ** inside an element, which would look like more than it is.
func badStars(p string) bool { return p != "**" && strings.Contains(p, "**") }
