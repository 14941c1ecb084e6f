package sandbox

import (
	"runtime"
	"slices"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// Covers reports whether every resource that b matches in a run is matched by a in that run. It may say no
// when unsure, never yes. Scopes of different capabilities never cover each other.
func (a Scope) Covers(b Scope) bool {
	if a.cap != b.cap || a.form == nothing || b.form == nothing {
		return false
	}
	if a.form == everything {
		return true
	}
	switch a.form {
	case anyBlob:
		return true // of the cache: own, args and artifact: are parts of it
	case args, own:
		return a.form == b.form
	}
	if a.form != b.form {
		return false
	}
	switch a.form {
	case dotted:
		return coversDots(a.segs, b.segs)
	case variable:
		return a.segs[0].coversOne(b.segs[0], foldVariables())
	case originOf:
		return a.origin.covers(b.origin)
	case fromSetting:
		return a.text == b.text || "private:"+b.text == a.text
	case inCwd, inHome, absolute:
		return coversPath(a.segs, b.segs, a.fold)
	case repoOf, artifact:
		return a.repo.covers(b.repo)
	case stateKey:
		return a.owner == b.owner && coversPath(a.segs, b.segs, false)
	case callee:
		return (a.owner == "*" || a.owner == b.owner) && a.segs[0].coversOne(b.segs[0], false)
	case registryOf, word, blobOf:
		return a.segs[0].coversOne(b.segs[0], false)
	}
	return false
}

// Covers is Scope.Covers for scopes as text, of the plugin name; a scope that does not parse covers nothing.
func Covers(c hostabi.Capability, name plugin.Name, a, b string) bool {
	x, errA := parseAll(c, name, []string{a}, true)
	y, errB := parseAll(c, name, []string{b}, true)
	return errA == nil && errB == nil && x[0].Covers(y[0])
}

// coveredBy reports whether one of list covers s.
func (s Scope) coveredBy(list []Scope) bool {
	return slices.ContainsFunc(list, func(a Scope) bool { return a.Covers(s) })
}

// foldCase reports whether the file systems of this system usually fold the case of names.
func foldCase() bool { return runtime.GOOS == "darwin" || runtime.GOOS == "windows" }

// foldVariables reports whether names of environment variables fold case.
func foldVariables() bool { return runtime.GOOS == "windows" }
