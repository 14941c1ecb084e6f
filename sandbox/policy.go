package sandbox

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/yamlfile"
	"github.com/delivery-station/ds/plugin"
)

// DefaultPolicyFile is the ceiling on Unix; on Windows it is %ProgramData%\ds\policy.yaml.
const DefaultPolicyFile = "/etc/ds/policy.yaml"

const maxRecord = 1 << 20 // bytes of a policy or grants file

// Policy is /etc/ds/policy.yaml, the admin's ceiling; no flag or variable overrides it. nil is no ceiling.
type Policy struct {
	File                      string
	SourcesAllow, SourcesDeny []string // repository patterns; no allow = any source
	Signers                   []string // key ids; none = any
	RequireSigned             bool
	Legacy                    string // allow, deny
	Native                    string // allow, confined, deny
	Grants                    string // user, policy: only Max counts
	// Max lists what may be used at most; a capability without an entry has no ceiling, one with an empty list
	// is never allowed.
	Max, Deny map[hostabi.Capability][]string
	Memory    int64         // bytes, 0 = none
	Time      time.Duration // 0 = none
}

// LoadPolicy reads the policy file at path; nil if there is none. Every other trouble is an error of reason
// POLICY_FILE, so that nothing starts: the file can be changed by others than the administrator, cannot be
// read, or does not parse.
func LoadPolicy(path string) (*Policy, error) { return loadPolicy(path, adminOnly) }

func loadPolicy(path string, adminOnly func(path string, f *os.File) error) (*Policy, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, policyError(path, "%s cannot be read; no plugin was started: %w", path, err)
	}
	defer f.Close() // only read
	if err := adminOnly(path, f); err != nil {
		return nil, policyError(path, "%s can be changed by others; no plugin was started: %w", path, err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err != nil {
		return nil, policyError(path, "%s cannot be read; no plugin was started: %w", path, err)
	}
	p, err := ParsePolicy(path, b)
	if err != nil {
		return nil, policyError(path, "%w; no plugin was started", err)
	}
	return p, nil
}

func policyError(path, format string, a ...any) error {
	return hostabi.Errorf(hostabi.ReasonPolicyFile, format, a...).WithMeta("file", path)
}

// ParsePolicy reads the text of a policy file. Unknown keys are errors: a restriction must not be overlooked.
func ParsePolicy(name string, data []byte) (*Policy, error) {
	root, err := yamlfile.Parse(name, data, yamlfile.Limits{})
	if err != nil {
		return nil, err
	}
	p := &Policy{File: name, Legacy: "allow", Native: "allow", Grants: "user"}
	r := newReader(name)
	r.Object(root, "the policy", map[string]func(*yamlfile.Node){
		"version": r.Version,
		"sources": func(n *yamlfile.Node) {
			r.Object(n, "sources", map[string]func(*yamlfile.Node){
				"allow": func(n *yamlfile.Node) { p.SourcesAllow = r.sources(n) },
				"deny":  func(n *yamlfile.Node) { p.SourcesDeny = r.sources(n) },
			})
		},
		"signers":        func(n *yamlfile.Node) { p.Signers = r.Strings(n, "signers") },
		"require_signed": func(n *yamlfile.Node) { p.RequireSigned = r.Bool(n, "require_signed") },
		"legacy":         func(n *yamlfile.Node) { p.Legacy = r.Word(n, "legacy", "allow", "deny") },
		"native":         func(n *yamlfile.Node) { p.Native = r.Word(n, "native", "allow", "confined", "deny") },
		"grants":         func(n *yamlfile.Node) { p.Grants = r.Word(n, "grants", "user", "policy") },
		"capabilities": func(n *yamlfile.Node) {
			r.Object(n, "capabilities", map[string]func(*yamlfile.Node){
				"max":  func(n *yamlfile.Node) { p.Max = r.bounds(n, "max") },
				"deny": func(n *yamlfile.Node) { p.Deny = r.bounds(n, "deny") },
			})
		},
		"limits": func(n *yamlfile.Node) {
			r.Object(n, "limits", map[string]func(*yamlfile.Node){
				"memory": func(n *yamlfile.Node) { p.Memory = r.size(n, "memory") },
				"time": func(n *yamlfile.Node) {
					d, err := hostabi.ParseDuration(r.Str(n, "time"))
					if err != nil {
						r.Errorf(n, "time: %s", err)
					}
					p.Time = d
				},
			})
		},
	})
	if root.Get("version") == nil {
		r.Errorf(root, "version is required")
	}
	if r.Err() != nil {
		return nil, r.Err()
	}
	return p, nil
}

// sources reads patterns of AllowSource.
func (r *reader) sources(n *yamlfile.Node) []string {
	list := r.Strings(n, "sources")
	for _, s := range list {
		if _, err := parseSource(s); err != nil {
			r.Errorf(n, "source %q: %s", clip(s), err)
		}
	}
	return list
}

// bounds reads lists of scopes by capability; those that name a plugin's own things are checked when they are
// used.
func (r *reader) bounds(n *yamlfile.Node, what string) map[hostabi.Capability][]string {
	out := make(map[hostabi.Capability][]string)
	r.capabilities(n, what, func(c hostabi.Capability, n *yamlfile.Node) {
		list := r.Strings(n, string(c))
		if list == nil {
			list = []string{}
		}
		for _, s := range list {
			if _, err := parseLoose(c, "x", s); err != nil {
				r.Errorf(n, "%s", err)
			}
		}
		out[c] = list
	})
	return out
}

// Decides reports whether the policy grants instead of the user.
func (p *Policy) Decides() bool { return p != nil && p.Grants == "policy" }

func (p *Policy) file() string {
	if p == nil || p.File == "" {
		return DefaultPolicyFile
	}
	return p.File
}

func (p *Policy) scopes(c hostabi.Capability, name plugin.Name, texts []string) ([]Scope, error) {
	out := make([]Scope, 0, len(texts))
	for _, t := range texts {
		s, err := parseLoose(c, name, t)
		if err != nil {
			return nil, policyError(p.file(), "%s: %w", p.file(), err)
		}
		out = append(out, s)
	}
	return out, nil
}

// AllowSource says whether plugins may come from a source as Installed.Repository names it; the error has
// reason POLICY_FILE.
func (p *Policy) AllowSource(repository string) error {
	if p == nil {
		return nil
	}
	matches := func(pattern string) bool {
		s, err := parseSource(pattern)
		return err == nil && s.covers(repository)
	}
	if slices.ContainsFunc(p.SourcesDeny, matches) || len(p.SourcesAllow) > 0 && !slices.ContainsFunc(p.SourcesAllow, matches) {
		return policyError(p.file(), "plugins from %s are refused by %s", repository, p.file())
	}
	return nil
}

// AllowSigner says whether a plugin signed by key id signer, "none" or "" for unsigned, may be used.
func (p *Policy) AllowSigner(signer string) error {
	switch unsigned := signer == "" || signer == noSigner; {
	case p == nil:
		return nil
	case unsigned && (p.RequireSigned || len(p.Signers) > 0):
		return policyError(p.file(), "unsigned plugins are refused by %s", p.file())
	case !unsigned && len(p.Signers) > 0 && !slices.Contains(p.Signers, signer):
		return policyError(p.file(), "plugins signed by %s are refused by %s", clip(signer), p.file())
	}
	return nil
}

// AllowKind says whether programs of kind k may run at all; whether they must be confined says Confined.
func (p *Policy) AllowKind(k plugin.Kind) error {
	if p != nil && k == plugin.Native && p.Native == "deny" {
		return policyError(p.file(), "native plugins are refused by %s", p.file())
	}
	return nil
}

// Confined reports whether native plugins must be confined by the operating system.
func (p *Policy) Confined() bool { return p != nil && p.Native == "confined" }

// Allow is everything that the policy says about a plugin as a whole, of the program that was chosen or of all
// that it holds: one that may run is enough.
func (p *Policy) Allow(in *plugin.Installed) (err error) {
	if p == nil {
		return nil
	}
	if err := p.AllowSource(in.Repository); err != nil {
		return err
	}
	if err := p.AllowSigner(in.Signer); err != nil {
		return err
	}
	if in.Legacy() && p.Legacy == "deny" {
		return policyError(p.file(), "protocol 1 plugins are refused by %s", p.file())
	}
	if in.Program != nil {
		return p.AllowKind(in.Program.Kind)
	}
	for _, pr := range in.Programs {
		if err = p.AllowKind(pr.Kind); err == nil {
			return nil
		}
	}
	return err
}

// source is a pattern of sources: a repository, a layout, or a path of this machine after dir: or file:.
type source struct {
	all    bool
	scheme string // dir:, file: or empty
	path   []seg
	repo   repo
}

func parseSource(s string) (source, error) {
	if s == "**" {
		return source{all: true}, nil
	}
	for _, scheme := range []string{"dir:", "file:"} {
		if rest, ok := strings.CutPrefix(s, scheme); ok {
			segs, err := parseFileGlob(strings.Trim(filepath.ToSlash(rest), "/"))
			return source{scheme: scheme, path: segs}, err
		}
	}
	r, err := parseRepo(s)
	return source{repo: r}, err
}

func (s source) covers(name string) bool {
	if s.all {
		return true
	}
	if s.scheme != "" {
		rest, ok := strings.CutPrefix(name, s.scheme)
		parts, abs := absParts(rest)
		return ok && abs && coversPath(s.path, literalSegs(parts), foldCase())
	}
	r, ok := repository(name)
	return ok && s.repo.covers(r)
}

var errNotAdmin = errors.New("it does not belong to the administrator")
