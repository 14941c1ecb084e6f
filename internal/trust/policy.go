package trust

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/internal/yamlfile"
	"github.com/delivery-station/ds/plugin"
)

// The values of Rule.Require, from the strictest on.
const (
	RequireSignature = "signature" // by keys of the rule
	RequireTOFU      = "tofu"      // by the key accepted at the first install
	RequireLegacy    = "legacy"    // as tofu, and a signed layer counts
	RequireNone      = "none"      // unsigned is accepted; only for one repository
)

const maxPolicy = 1 << 20

// Policy is trust.yaml: whom the user trusts for what. The zero value is the policy without a file: tofu.
type Policy struct {
	Keys    []NamedKey
	Rules   []Rule
	Default string        // RequireSignature or RequireTOFU
	MinAge  time.Duration // a signature made later than this before now is refused
}

// NamedKey is one entry of keys.
type NamedKey struct {
	Name string
	Key  *Key
	File string // as written in trust.yaml, or empty
}

// Rule says what the repositories that it matches need.
type Rule struct {
	Match      string
	Origin     string // repository that signatures name instead of the matched one, or empty
	Require    string
	Keys       []*Key
	Threshold  int      // how many of Keys must have signed, at least 1
	Predicates []string // attestations that one of Keys must have signed

	match pattern
}

// LoadPolicy reads trust.yaml in the configuration directory; no file is the zero policy. Errors have reason
// CONFIG_SYNTAX: nothing is installed by rules that are not understood.
func LoadPolicy(dir string) (*Policy, error) {
	name := filepath.Join(dir, "trust.yaml")
	b, err := atomicfile.ReadFile(atomicfile.OS(), name, maxPolicy)
	if errors.Is(err, fs.ErrNotExist) {
		return &Policy{Default: RequireTOFU}, nil
	}
	if err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonConfigSyntax, "%s: %w", name, err)
	}
	return ParsePolicy(name, b, keyFiles(dir))
}

// keyFiles reads key files that trust.yaml in dir names.
func keyFiles(dir string) func(file string) ([]byte, error) {
	return func(file string) ([]byte, error) {
		if !filepath.IsAbs(file) {
			file = filepath.Join(dir, filepath.FromSlash(file))
		}
		return atomicfile.ReadFile(atomicfile.OS(), file, maxKeyFile)
	}
}

// ParsePolicy reads the text of trust.yaml; read gives the content of a key file that it names.
func ParsePolicy(name string, data []byte, read func(file string) ([]byte, error)) (*Policy, error) {
	root, err := yamlfile.Parse(name, data, yamlfile.Limits{})
	if err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonConfigSyntax, "%w", err)
	}
	r := &reader{Reader: yamlfile.Reader{Name: name, Suggest: plugin.Suggest}, read: read}
	p := r.policy(root)
	if err := r.Err(); err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonConfigSyntax, "%w", err)
	}
	return p, nil
}

// Rule is the first rule that matches repository; the default if none does. Origin is the repository that
// signatures of this one may name.
func (p *Policy) Rule(repository string) Rule {
	for _, r := range p.Rules {
		if parts := r.match.parts(repository); parts != nil {
			if r.Origin != "" {
				r.Origin = fill(r.Origin, parts)
			}
			return r
		}
	}
	return Rule{Match: "default", Require: cmp.Or(p.Default, RequireTOFU), Threshold: 1}
}

// Find is the key with that name or id, nil if trust.yaml has none.
func (p *Policy) Find(nameOrID string) *NamedKey {
	i := slices.IndexFunc(p.Keys, func(k NamedKey) bool { return k.Name == nameOrID || string(k.Key.ID()) == nameOrID })
	if i < 0 {
		return nil
	}
	return &p.Keys[i]
}

// reader reads trust.yaml.
type reader struct {
	yamlfile.Reader
	read func(file string) ([]byte, error)
	keys map[string]*Key
}

func (r *reader) policy(root *yamlfile.Node) *Policy {
	p := &Policy{Default: RequireTOFU}
	if root.Kind == yamlfile.Null {
		return p
	}
	r.keys = make(map[string]*Key)
	var rules []*yamlfile.Node
	r.Object(root, "trust.yaml", map[string]func(*yamlfile.Node){
		"version": r.Version,
		"keys":    func(n *yamlfile.Node) { r.List(n, "keys", func(n *yamlfile.Node) { r.key(p, n) }) },
		"rules":   func(n *yamlfile.Node) { r.List(n, "rules", func(n *yamlfile.Node) { rules = append(rules, n) }) },
		"default": func(n *yamlfile.Node) { p.Default = r.Word(n, "default", RequireSignature, RequireTOFU) },
		"min_release_age": func(n *yamlfile.Node) {
			d, err := hostabi.ParseDuration(r.Str(n, "min_release_age"))
			if err != nil || d < 0 {
				r.Errorf(n, "min_release_age is not a time such as 72h")
			}
			p.MinAge = d
		},
	})
	if root.Kind == yamlfile.Map && root.Get("version") == nil {
		r.Errorf(root, "version is required")
	}
	for _, n := range rules { // after keys, wherever those stand
		p.Rules = append(p.Rules, r.rule(n))
	}
	return p
}

func (r *reader) key(p *Policy, n *yamlfile.Node) {
	var k NamedKey
	var text, id string
	r.Object(n, "a key", map[string]func(*yamlfile.Node){
		"name": func(n *yamlfile.Node) { k.Name = r.Str(n, "name") },
		"file": func(n *yamlfile.Node) { k.File = r.Str(n, "file") },
		"pem":  func(n *yamlfile.Node) { text = r.Str(n, "pem") },
		"id":   func(n *yamlfile.Node) { id = r.Str(n, "id") },
	})
	if r.Err() != nil {
		return
	}
	switch {
	case k.Name == "":
		r.Errorf(n, "a key needs a name")
		return
	case r.keys[k.Name] != nil:
		r.Errorf(n, "key %q is there twice", clip(k.Name))
		return
	case (k.File == "") == (text == ""):
		r.Errorf(n, "key %q needs either file or pem", clip(k.Name))
		return
	}
	content := []byte(text)
	var err error
	if k.File != "" {
		content, err = r.read(k.File)
	}
	if err == nil {
		k.Key, err = ParseKey(content)
	}
	if err != nil {
		r.Errorf(n, "key %q: %s", clip(k.Name), err)
		return
	}
	if id != "" && id != string(k.Key.ID()) {
		r.Errorf(n, "key %q is %s, want %s", clip(k.Name), k.Key.ID(), clip(id))
		return
	}
	r.keys[k.Name] = k.Key
	p.Keys = append(p.Keys, k)
}

func (r *reader) rule(n *yamlfile.Node) Rule {
	rule := Rule{Threshold: 1}
	r.Object(n, "a rule", map[string]func(*yamlfile.Node){
		"match":  func(n *yamlfile.Node) { rule.Match = r.Str(n, "match") },
		"origin": func(n *yamlfile.Node) { rule.Origin = r.Str(n, "origin") },
		"require": func(n *yamlfile.Node) {
			rule.Require = r.Word(n, "require", RequireSignature, RequireTOFU, RequireLegacy, RequireNone)
		},
		"keys": func(n *yamlfile.Node) {
			r.List(n, "keys", func(n *yamlfile.Node) {
				k := r.keys[r.Str(n, "an item of keys")]
				switch {
				case k == nil:
					r.Errorf(n, "there is no key %q in keys", clip(n.Text))
				case k.ID().Kind() == RSA:
					r.Errorf(n, "key %q is RSA, which verifies layers of the original DS only", clip(n.Text))
				case slices.Contains(rule.Keys, k):
					r.Errorf(n, "key %q is there twice", clip(n.Text))
				}
				rule.Keys = append(rule.Keys, k)
			})
		},
		"threshold": func(n *yamlfile.Node) {
			v, err := n.Int(r.Name, "threshold")
			if err != nil || v < 1 || v > 100 {
				r.Errorf(n, "threshold is %s, want 1 to 100", clip(n.Text))
			}
			rule.Threshold = int(v)
		},
		"predicates": func(n *yamlfile.Node) { rule.Predicates = r.Strings(n, "predicates") },
	})
	if r.Err() == nil {
		if err := rule.check(); err != nil {
			r.Errorf(n, "%s", err)
		}
	}
	return rule
}

// check compiles the patterns and refuses rules that could never hold or would hold for more than they seem to.
func (rule *Rule) check() (err error) {
	switch {
	case rule.Match == "":
		return errors.New("a rule needs match")
	case rule.Require == "":
		return fmt.Errorf("rule %q needs require", clip(rule.Match))
	}
	if rule.match, err = parsePattern(rule.Match); err != nil {
		return fmt.Errorf("match %q: %w", clip(rule.Match), err)
	}
	if rule.Origin != "" {
		origin, err := parsePattern(rule.Origin)
		if err != nil {
			return fmt.Errorf("origin %q: %w", clip(rule.Origin), err)
		}
		if !slices.Equal(origin.wild, rule.match.wild) && len(origin.wild) > 0 {
			return fmt.Errorf("origin %q has other wildcards than match", clip(rule.Origin))
		}
		if len(origin.wild) == 0 && len(rule.match.wild) > 0 {
			return fmt.Errorf("origin %q is one repository for many", clip(rule.Origin))
		}
	}
	switch {
	case rule.Require == RequireNone && len(rule.match.wild) > 0:
		return fmt.Errorf("rule %q: require none is for one repository, without wildcards", clip(rule.Match))
	case rule.Require == RequireSignature && len(rule.Keys) == 0:
		return fmt.Errorf("rule %q requires a signature and names no keys", clip(rule.Match))
	case len(rule.Keys) > 0 && rule.Threshold > len(rule.Keys):
		return fmt.Errorf("rule %q: threshold %d of %d keys", clip(rule.Match), rule.Threshold, len(rule.Keys))
	case len(rule.Predicates) > 0 && len(rule.Keys) == 0:
		return fmt.Errorf("rule %q demands predicates and names no keys", clip(rule.Match))
	}
	return nil
}
