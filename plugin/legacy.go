package plugin

import (
	"slices"
	"strings"
	"unicode"
)

// The most that is kept of what a program of protocol 1 says about itself.
const (
	maxLegacyCommands = 200
	maxLegacyName     = 64
	maxLegacyText     = 200 // runes
)

// LegacyManifest is what a program of protocol 1 says about itself over RPC. Nobody checked it when it was
// written: Clean makes it fit to be shown.
type LegacyManifest struct {
	// Metadata says that the program is of the oldest generation, which has GetMetadata and takes raw words.
	Metadata    bool      `json:"metadata,omitempty"`
	Version     string    `json:"version,omitempty"`
	Description string    `json:"description,omitempty"`
	Commands    []Command `json:"commands,omitempty"`
}

// Clean is m without control characters and without commands that nobody could type, cut to what is kept.
func (m *LegacyManifest) Clean() *LegacyManifest {
	out := &LegacyManifest{Metadata: m.Metadata, Version: cleanLegacy(m.Version), Description: cleanLegacy(m.Description)}
	for _, c := range m.Commands {
		taken := slices.ContainsFunc(out.Commands, func(o Command) bool { return o.Name == c.Name })
		if len(out.Commands) < maxLegacyCommands && len(c.Name) <= maxLegacyName && commandName(c.Name) && !taken {
			out.Commands = append(out.Commands, Command{Name: c.Name, Summary: cleanLegacy(c.Summary)})
		}
	}
	return out
}

// Describe is the manifest of a protocol 1 plugin completed by what its program said; what plugin.yaml or the
// package says wins.
func (m *LegacyManifest) Describe(of *Manifest) *Manifest {
	out := *of
	if out.Version == "" {
		out.Version = m.Version
	}
	if out.Description == "" {
		out.Description = m.Description
	}
	if len(out.Commands) == 0 {
		out.Commands = m.Commands
	}
	return &out
}

func cleanLegacy(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, ""))
	if r := []rune(strings.TrimSpace(s)); len(r) > maxLegacyText {
		return string(r[:maxLegacyText])
	}
	return strings.TrimSpace(s)
}
