package sandbox

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// MaxScope bounds the text of one scope in bytes.
const MaxScope = 512

// Scope is one parsed scope of one capability: what a request, a grant, a deny or a ceiling is made of. The
// zero value matches nothing.
type Scope struct {
	cap  hostabi.Capability
	text string
	form form

	segs     []seg     // dotted, slashed and path forms; of own it is what own stands for
	owner    string    // state: the owner; call: the plugin
	fold     bool      // paths of a file system that folds case
	origin   origin    // net.http
	template [2]string // net.http: text before and after ${…}
	setting  string    // net.http: the key inside ${…}
	repo     repo      // registry.*, artifact:
}

type form uint8

const (
	nothing     form = iota
	everything       // ** of a deny or ceiling, whatever the capability
	args             // what the user typed
	own              // cache: the plugin's own blobs
	anyBlob          // cache: any
	dotted           // keys and topics
	variable         // env
	originOf         // net.http
	fromSetting      // net.http with ${settings…}
	inCwd            // fs, relative to the working directory
	inHome           // fs, relative to the home directory
	absolute         // fs
	repoOf           // registry.*
	artifact         // cache: artifact:<repository>
	registryOf       // secret.read registry:<host>, protocol 1 only
	stateKey         // <owner>:<key>
	callee           // name/command
	word             // prompt kinds
	blobOf           // cache: one blob by digest, typed
)

// String is the scope as it was written.
func (s Scope) String() string { return s.text }

// ParseScope reads one scope of a request or grant of the plugin name. The error says what is wrong with it.
func ParseScope(c hostabi.Capability, name plugin.Name, text string) (Scope, error) {
	s := Scope{cap: c, text: text}
	if err := s.parse(name, text); err != nil {
		return Scope{}, hostabi.Errorf(hostabi.ReasonUsage, "%s: scope %q: %w", c, clip(text), err)
	}
	return s, nil
}

func (s *Scope) parse(name plugin.Name, text string) error {
	if text == "" || len(text) > MaxScope {
		return fmt.Errorf("it is empty or longer than %d bytes", MaxScope)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r <= 0x20 || r == 0x7f }) && !strings.HasPrefix(string(s.cap), "fs.") && s.cap != hostabi.PluginsCall {
		return errors.New("it has spaces or control characters")
	}
	switch s.cap {
	case hostabi.ConfigRead, hostabi.SecretRead:
		return s.parseKey(name, text)
	case hostabi.EnvRead:
		return s.parseVariable(text)
	case hostabi.NetHTTP:
		return s.parseNet(text)
	case hostabi.FSRead, hostabi.FSWrite:
		return s.parseFile(text)
	case hostabi.CacheRead, hostabi.CacheWrite:
		return s.parseBlob(text)
	case hostabi.RegistryPull, hostabi.RegistryPush:
		return s.parseRegistry(text)
	case hostabi.EventsPublish, hostabi.EventsSubscribe:
		return s.parseTopic(name, text)
	case hostabi.StateRead, hostabi.StateWrite:
		return s.parseState(name, text)
	case hostabi.PluginsCall:
		return s.parseCall(text)
	case hostabi.TermPrompt:
		return s.parsePrompt(text)
	}
	return errors.New("unknown capability")
}

func (s *Scope) parseKey(name plugin.Name, text string) error {
	if text == "own" {
		s.form, s.segs = dotted, parseSegs([]string{"settings", string(name), "**"})
		return nil
	}
	if host, ok := strings.CutPrefix(text, "registry:"); ok && s.cap == hostabi.SecretRead {
		if host != "*" && !registryHost(host) {
			return errors.New("want registry:<host>")
		}
		s.form, s.segs = registryOf, parseSegs([]string{host})
		return nil
	}
	return s.parseDotted(text, validKeyPart)
}

// parseDotted reads segments of which each is a literal or *, and the last may be **.
func (s *Scope) parseDotted(text string, valid func(string) bool) error {
	parts := strings.Split(text, ".")
	for i, p := range parts {
		switch {
		case p == "*", p == "**" && i == len(parts)-1:
		case !valid(p):
			return fmt.Errorf("%q is not a name, * or a final **", clip(p))
		}
	}
	s.form, s.segs = dotted, parseSegs(parts)
	return nil
}

const (
	lower = "abcdefghijklmnopqrstuvwxyz"
	upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digit = "0123456789"
)

func validKeyPart(p string) bool { return only(p, lower+upper+digit+"_-") && len(p) <= 128 }

func validTopicPart(p string) bool { return only(p, lower+digit+"_-") && len(p) <= 32 }

// only reports whether p is not empty and made of set.
func only(p, set string) bool { return p != "" && strings.Trim(p, set) == "" }

func (s *Scope) parseVariable(text string) error {
	s.form = variable
	name, wild := strings.CutSuffix(text, "*")
	switch {
	case !only(name, lower+upper+digit+"_") || strings.Contains(digit, name[:1]):
		return errors.New("want NAME or PREFIX_*")
	case strings.HasPrefix(strings.ToUpper(name), "DS_"):
		return errors.New("variables of ds itself are not handed out")
	case wild && (len(name) < 3 || name[len(name)-1] != '_'):
		return errors.New("want at least three letters and _ before *, such as AWS_*")
	}
	s.segs = []seg{parseSeg(text)}
	return nil
}

func (s *Scope) parseNet(text string) error {
	if text == "args" {
		s.form = args
		return nil
	}
	before, rest, ok := strings.Cut(text, "${")
	if !ok {
		s.form = originOf
		var err error
		s.origin, err = parseOrigin(text)
		return err
	}
	key, after, ok := strings.Cut(rest, "}")
	keyParts := strings.Split(key, ".")
	if !ok || len(keyParts) < 3 || keyParts[0] != "settings" || slices.ContainsFunc(keyParts, func(p string) bool { return !validKeyPart(p) }) {
		return errors.New("want ${settings.NAME.key}")
	}
	s.form, s.setting, s.template = fromSetting, key, [2]string{before, after}
	switch before {
	case "", "private:":
		if after != "" {
			return errors.New("a whole origin in ${…} takes nothing after it")
		}
		return nil
	}
	_, err := parseOrigin(before + "host.invalid" + after) // the value stands for a host
	return err
}

// resolved is the origin that a scope with a setting stands for once the user has set it.
func (s *Scope) resolved(value string) (origin, error) {
	before, private := strings.CutPrefix(s.template[0], "private:")
	if before == "" && !strings.Contains(value, "://") {
		before = "https://"
	}
	text := before + value + s.template[1]
	if strings.Contains(value, "*") {
		return origin{}, errors.New("it has a wildcard")
	}
	u, o, err := canonicalURL(text)
	if err != nil {
		return o, err
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery {
		return o, errors.New("it has a path")
	}
	o.private = private
	return o, nil
}

func (s *Scope) parseFile(text string) error {
	s.fold = foldCase()
	if text == "args" {
		s.form = args
		return nil
	}
	where, glob, ok := strings.Cut(text, ":")
	if !ok {
		return errors.New("want args, cwd:…, home:… or abs:…")
	}
	literals := 0
	switch where {
	case "cwd":
		s.form = inCwd
	case "home":
		s.form, literals = inHome, 1
	case "abs":
		s.form, literals = absolute, 2
		if glob, ok = strings.CutPrefix(glob, "/"); !ok {
			return errors.New("abs: needs an absolute path")
		}
	default:
		return errors.New("want args, cwd:…, home:… or abs:…")
	}
	segs, err := parseFileGlob(glob)
	if err != nil {
		return err
	}
	if !literalStart(segs, literals) {
		return fmt.Errorf("%s: needs %d literal elements at the start", where, literals)
	}
	s.segs = segs
	return nil
}

// parseFileGlob reads a relative path with globs.
func parseFileGlob(s string) ([]seg, error) {
	if strings.ContainsAny(s, "\\\x7f") || strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 }) {
		return nil, errors.New("a path has no backslashes or control characters")
	}
	parts := strings.Split(s, "/")
	for _, p := range parts {
		if p == "" || p == "." || p == ".." || badStars(p) {
			return nil, errors.New("a path has no empty elements, no . and .., and ** only as a whole element")
		}
	}
	return parseSegs(parts), nil
}

func literalStart(segs []seg, n int) bool {
	return len(segs) >= n && !slices.ContainsFunc(segs[:n], func(s seg) bool { return s.kind != literal })
}

func (s *Scope) parseBlob(text string) error {
	switch {
	case text == "own":
		s.form = own
		return nil
	case text == "any":
		s.form = anyBlob
		return nil
	case text == "args" && s.cap == hostabi.CacheRead:
		s.form = args
		return nil
	}
	rest, ok := strings.CutPrefix(text, "artifact:")
	if !ok || s.cap != hostabi.CacheRead {
		if s.cap == hostabi.CacheWrite {
			return errors.New("want own or any")
		}
		return errors.New("want own, args, any or artifact:<repository>")
	}
	var err error
	s.form = artifact
	s.repo, err = parseRepo(rest)
	return err
}

func (s *Scope) parseRegistry(text string) error {
	if text == "args" {
		s.form = args
		return nil
	}
	var err error
	s.form = repoOf
	s.repo, err = parseRepo(text)
	return err
}

func (s *Scope) parseTopic(name plugin.Name, text string) error {
	if s.cap == hostabi.EventsPublish && text == "own" {
		s.form, s.segs = dotted, parseSegs([]string{string(name), "**"})
		return nil
	}
	if err := s.parseDotted(text, validTopicPart); err != nil {
		return err
	}
	if len(text) > hostabi.MaxTopic {
		return fmt.Errorf("a topic has at most %d bytes", hostabi.MaxTopic)
	}
	if s.cap == hostabi.EventsPublish && name != "" && s.segs[0] != (seg{literal, string(name)}) {
		return fmt.Errorf("a plugin publishes under its own name, %s.…", name)
	}
	return nil
}

func (s *Scope) parseState(name plugin.Name, text string) error {
	s.form = stateKey
	if text == "own" {
		s.owner, s.segs = string(name), []seg{{kind: deep}}
		return nil
	}
	owner, key, ok := strings.Cut(text, ":")
	if !ok || !plugin.Name(owner).Valid() {
		return errors.New("want own or <owner>:<key>")
	}
	parts := strings.Split(key, "/")
	for _, p := range parts {
		if strings.Trim(p, lower+upper+digit+"._=-*") != "" || badStars(p) {
			return fmt.Errorf("%q is not a state key or glob", clip(key))
		}
	}
	if key == "" || len(key) > hostabi.MaxStateKey {
		return fmt.Errorf("a key has 1 to %d bytes", hostabi.MaxStateKey)
	}
	s.owner, s.segs = owner, parseSegs(parts)
	return nil
}

func (s *Scope) parseCall(text string) error {
	s.form = callee
	name, command, ok := strings.Cut(text, "/")
	if !ok || !plugin.Name(name).Valid() {
		return errors.New("want name/command or name/*")
	}
	if command != "*" && !validCommand(command) {
		return fmt.Errorf("%q is not a command", clip(command))
	}
	s.owner, s.segs = name, parseSegs([]string{command})
	return nil
}

// validCommand accepts a command path, names separated by single spaces.
func validCommand(s string) bool {
	for name := range strings.SplitSeq(s, " ") {
		if !only(name, lower+upper+digit+"._:-") || name[0] == '-' {
			return false
		}
	}
	return true
}

func (s *Scope) parsePrompt(text string) error {
	if !slices.Contains(promptKinds(), text) {
		return fmt.Errorf("want one of %s", strings.Join(promptKinds(), ", "))
	}
	s.form, s.segs = word, []seg{{literal, text}}
	return nil
}

func promptKinds() []string { return []string{"confirm", "line", "choose", "secret"} }

// registryHost accepts host[:port] of a registry.
func registryHost(s string) bool {
	r, err := parseRepo(s + "/x")
	return err == nil && !strings.Contains(s, "/") && !r.all && !r.layout && r.host.depth == literal
}

// clip cuts s for a message.
func clip(s string) string {
	if len(s) <= 80 {
		return s
	}
	return strings.ToValidUTF8(s[:80], "") + "…"
}
