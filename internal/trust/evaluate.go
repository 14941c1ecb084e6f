package trust

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// Input is everything that a verdict depends on: Evaluate reads nothing else, not even the clock.
type Input struct {
	Ref        string         // as the user wrote it, for messages
	Repository string         // canonical name of where the index was asked for
	Index      hostabi.Digest // of the OCI index
	Name       string         // of the plugin, as the index says
	Version    string
	Bundles    [][]byte // every referrer of the index that is a Sigstore bundle
	Legacy     KeyID    // trusted RSA key whose layer signature verifies, or empty

	Policy *Policy // nil = the zero policy
	Pin    *Pin    // of Repository, nil = not pinned
	Now    time.Time

	TrustKey       KeyID  // the user names this key: it becomes the pin
	TrustHow       string // how the pin came to be; empty = HowFlag
	AllowUnsigned  bool   // the user accepts this digest without a signature
	AllowDowngrade bool   // a version below the highest seen
	Force          bool   // other content under a version that was seen
}

// Verdict says why an index may be used.
type Verdict struct {
	Level         string
	Key           KeyID          // that decided; empty = none
	Rule          string         // pattern of the rule, or "default"
	Bundle        hostabi.Digest // of the signature that decided
	SignedAt      time.Time      // as the signature says; zero = it does not
	AllowUnsigned bool           // accepted only because Input.AllowUnsigned
	Ask           bool           // accepted only if the user accepts Key, which Repository never had before
	RotatedFrom   KeyID          // the pin moves from this key to Key
	Pin           *Pin           // to record once the plugin is installed; nil = nothing
	Bundles       []Found        // everything that was attached, for people
}

// Found is one bundle as people are shown it.
type Found struct {
	Digest hostabi.Digest
	Type   string // predicate type; empty for one with a certificate
	Key    KeyID  // that verified it; empty = none did
	At     time.Time
}

// signature is a valid signature of the index.
type signature struct {
	key    *Key
	bundle *Bundle
	at     time.Time
}

type rotation struct {
	Rotation
	bundle *Bundle
}

type evaluation struct {
	Input
	rule      Rule
	valid     []signature
	rotations []rotation
	attested  []string // predicate types that a key of the rule signed
	found     []Found
	pinned    *Key // after rotations
}

// Evaluate gives the verdict of install-trust.md section 4, then makes the checks of section 5. The errors
// have reasons SIGNATURE, UNSIGNED, SIGNER_UNTRUSTED, SIGNER_CHANGED, POLICY_FILE, DOWNGRADE and VERSION_MOVED.
func Evaluate(in Input) (Verdict, error) {
	if in.Policy == nil {
		in.Policy = &Policy{Default: RequireTOFU}
	}
	e := &evaluation{Input: in, rule: in.Policy.Rule(in.Repository)}
	for _, text := range in.Bundles {
		if err := e.read(text); err != nil {
			return Verdict{}, err
		}
	}
	if err := e.rotate(); err != nil {
		return Verdict{}, err
	}
	v, err := e.decide()
	if err != nil {
		return Verdict{}, err
	}
	v.Rule, v.Bundles = e.rule.Match, e.found
	for _, check := range []func(*Verdict) error{e.predicates, e.age, e.versions} {
		if err := check(&v); err != nil {
			return Verdict{}, err
		}
	}
	return v, nil
}

func (e *evaluation) bad(format string, a ...any) error {
	err := hostabi.Errorf(hostabi.ReasonSignature, format, a...)
	err.Msg = "signature of " + e.Ref + " is bad: " + err.Msg
	return err
}

// read sorts one bundle. A bad one is fatal: an attacker must not be able to hide behind noise.
func (e *evaluation) read(text []byte) error {
	b, err := ParseBundle(text)
	if err != nil {
		return e.bad("%w", err)
	}
	f := Found{Digest: b.Digest, Type: b.Statement.PredicateType}
	if !b.Keyless {
		if !b.Statement.about(e.Index) {
			return e.bad("it is about another package")
		}
		switch f.Type {
		case ReleaseType:
			err = e.release(b, &f)
		case CosignType:
			err = e.cosign(b, &f)
		case RotationType:
			err = e.rotation(b)
		default:
			err = e.attestation(b, &f)
		}
	}
	e.found = append(e.found, f)
	return err
}

// release checks a signature of ours. It carries its key, and what it claims must be what was asked for.
func (e *evaluation) release(b *Bundle, f *Found) error {
	var r Release
	if err := json.Unmarshal(b.Statement.Predicate, &r); err != nil {
		return e.bad("its predicate cannot be read")
	}
	k, err := embeddedKey(r.PublicKey)
	switch {
	case err != nil:
		return e.bad("%w", err)
	case b.Hint != k.ID().Hex():
		return e.bad("it names another key than it carries")
	case !b.verifiedBy(k):
		return e.bad("it does not verify with %s", k.ID())
	case r.Name != e.Name:
		return e.bad("it is for plugin %q, not %q", clip(r.Name), clip(e.Name))
	case r.Version != e.Version:
		return e.bad("it is for version %q, not %q", clip(r.Version), clip(e.Version))
	case r.Repository != e.Repository && (e.rule.Origin == "" || r.Repository != e.rule.Origin):
		return e.bad("it is for repository %q, not %q", clip(r.Repository), clip(e.Repository))
	}
	f.Key, f.At = k.ID(), r.CreatedAt
	e.valid = append(e.valid, signature{k, b, r.CreatedAt})
	return nil
}

// cosign looks for the signer among the keys of the rule: cosign's statement carries none and claims nothing.
func (e *evaluation) cosign(b *Bundle, f *Found) error {
	k, err := e.byRule(b)
	if k != nil {
		f.Key = k.ID()
		e.valid = append(e.valid, signature{key: k, bundle: b})
	}
	return err
}

func (e *evaluation) attestation(b *Bundle, f *Found) error {
	k, err := e.byRule(b)
	if k != nil {
		f.Key = k.ID()
		e.attested = append(e.attested, b.Statement.PredicateType)
	}
	return err
}

// byRule is the key of the rule that signed b, nil if none did. It is an error if b says that one of them did.
func (e *evaluation) byRule(b *Bundle) (*Key, error) {
	for _, k := range e.rule.Keys {
		if b.verifiedBy(k) {
			return k, nil
		}
		if hintNames(b.Hint, k) {
			return nil, e.bad("it does not verify with %s", k.ID())
		}
	}
	return nil, nil
}

func (e *evaluation) rotation(b *Bundle) error {
	r := rotation{bundle: b}
	if err := json.Unmarshal(b.Statement.Predicate, &r.Rotation); err != nil {
		return e.bad("its predicate cannot be read")
	}
	if r.Repository != e.Repository && (e.rule.Origin == "" || r.Repository != e.rule.Origin) {
		return e.bad("its key rotation is for repository %q", clip(r.Repository))
	}
	e.rotations = append(e.rotations, r)
	return nil
}

// rotate follows rotations from the pinned key on, each signed by the key before it. Rotations of keys that
// nobody knows prove nothing and are left alone.
func (e *evaluation) rotate() error {
	if e.Pin == nil {
		return nil
	}
	if e.pinned = e.Pin.key(); e.pinned == nil {
		return hostabi.Errorf(hostabi.ReasonStateCorrupt, "the pin of %s does not fit its key", e.Repository)
	}
	left := slices.Clone(e.rotations)
	for {
		i := slices.IndexFunc(left, func(r rotation) bool { return r.OldKey == e.pinned.ID() })
		if i < 0 {
			return nil
		}
		r := left[i]
		left = slices.Delete(left, i, i+1)
		next, err := embeddedKey(r.NewPublicKey)
		switch {
		case err != nil:
			return e.bad("%w", err)
		case next.ID() != r.NewKey:
			return e.bad("its key rotation names another key than it carries")
		case !r.bundle.verifiedBy(e.pinned):
			return e.bad("its key rotation does not verify with %s", e.pinned.ID())
		}
		if slices.ContainsFunc(e.valid, func(s signature) bool { return s.key.ID() == e.pinned.ID() }) && !e.signedBy(next.ID()) {
			return nil // announced; the known key still signs
		}
		e.pinned = next
	}
}

func (e *evaluation) signedBy(id KeyID) bool { return e.by(id) != nil }

func (e *evaluation) by(id KeyID) *signature {
	i := slices.IndexFunc(e.valid, func(s signature) bool { return s.key.ID() == id })
	if i < 0 {
		return nil
	}
	return &e.valid[i]
}

// decide is the table of section 4, row by row; bad signatures have ended it before.
func (e *evaluation) decide() (Verdict, error) {
	if s := e.byThreshold(); s != nil {
		return e.accept(LevelSigned, s, HowRule), nil
	}
	if e.Pin != nil {
		s := e.by(e.pinned.ID())
		switch {
		case s == nil:
			return Verdict{}, e.changed()
		case e.rule.Require == RequireSignature:
			return Verdict{}, e.untrusted(s)
		}
		how := e.Pin.How
		if e.pinned.ID() != e.Pin.Key {
			how = HowRotation
		}
		return e.accept(LevelPinned, s, how), nil
	}
	if len(e.valid) > 0 {
		return e.unknown()
	}
	return e.unsigned()
}

// byThreshold is a signature by a key of the rule, if enough of them signed.
func (e *evaluation) byThreshold() *signature {
	var first *signature
	signers := make(map[KeyID]bool) // one key under two names is one signer
	for _, k := range e.rule.Keys {
		if s := e.by(k.ID()); s != nil {
			signers[k.ID()] = true
			first = cmp.Or(first, s)
		}
	}
	if len(signers) < e.rule.Threshold {
		return nil
	}
	return first
}

// accept makes the verdict for a signature and the pin that goes with it.
func (e *evaluation) accept(level string, s *signature, how string) Verdict {
	v := Verdict{Level: level, Key: s.key.ID(), Bundle: s.bundle.Digest, SignedAt: s.at}
	pin := Pin{FirstSeen: e.Now.UTC().Truncate(time.Second)}
	if e.Pin != nil {
		pin = *e.Pin
		if pin.Key != v.Key {
			pin.FirstSeen = e.Now.UTC().Truncate(time.Second)
			if level == LevelPinned {
				v.RotatedFrom = e.Pin.Key
			}
		}
	}
	pin.Key, pin.SPKI, pin.How = v.Key, s.key.DER(), how
	v.Pin = &pin
	return v
}

// unknown is about valid signatures of keys that nobody said to trust, in a repository without a pin.
func (e *evaluation) unknown() (Verdict, error) {
	s := &e.valid[0]
	if named := e.by(e.TrustKey); named != nil {
		s = named
	}
	switch {
	case e.rule.Require == RequireSignature:
		return Verdict{}, e.untrusted(s)
	case e.rule.Require == RequireNone:
		return Verdict{Level: LevelUnsigned}, nil
	case e.TrustKey == "":
		v := e.accept(LevelPinned, s, HowPrompt)
		v.Ask = true
		return v, nil
	case s.key.ID() != e.TrustKey:
		return Verdict{}, e.untrusted(s)
	}
	return e.accept(LevelPinned, s, cmp.Or(e.TrustHow, HowFlag)), nil
}

func (e *evaluation) unsigned() (Verdict, error) {
	require := e.rule.Require
	v := Verdict{Level: LevelUnsigned}
	if e.Legacy != "" {
		v.Level = LevelLegacy
	}
	switch {
	case require == RequireNone || require == RequireLegacy && e.Legacy != "":
		v.Key = e.Legacy
		return v, nil
	case require != RequireSignature && e.AllowUnsigned:
		v.AllowUnsigned = true // whatever key a layer names: this holds for one digest
		return v, nil
	}
	err := hostabi.Errorf(hostabi.ReasonUnsigned, "%s is not signed", e.Ref)
	if require != RequireSignature {
		err = err.WithFix("ds plugin install %s --allow-unsigned", e.Ref)
	}
	return Verdict{}, err
}

// Untrusted is the refusal of a verdict that asks where nobody can answer.
func (v Verdict) Untrusted(ref string) error {
	return hostabi.Errorf(hostabi.ReasonSignerUntrusted, "%s is signed by %s, not trusted yet", ref, v.Key).
		WithFix("ds plugin install %s --trust-key %s", ref, v.Key).WithMeta("key", string(v.Key))
}

func (e *evaluation) untrusted(s *signature) error {
	if e.rule.Require != RequireSignature {
		return Verdict{Key: s.key.ID()}.Untrusted(e.Ref)
	}
	return hostabi.Errorf(hostabi.ReasonSignerUntrusted, "%s is signed by %s, not by the keys that trust.yaml requires for %s", e.Ref, s.key.ID(), e.rule.Match)
}

func (e *evaluation) changed() error {
	now := "none"
	if len(e.valid) > 0 {
		now = string(e.valid[0].key.ID())
	}
	name := e.Name
	if !hostabi.PluginName(name).Valid() { // nobody has signed it, and it is to be pasted
		name = e.Repository
	}
	return hostabi.Errorf(hostabi.ReasonSignerChanged, "signer of %s changed: was %s since %s, now %s",
		e.Repository, e.Pin.Key, e.Pin.FirstSeen.UTC().Format(time.DateOnly), now).WithFix("ds trust rotate %s --to KEYFILE", name)
}

// predicates demands the attestations of the rule, signed by one of its keys.
func (e *evaluation) predicates(*Verdict) error {
	for _, p := range e.rule.Predicates {
		if !slices.Contains(e.attested, p) {
			return hostabi.Errorf(hostabi.ReasonUnsigned, "%s has no attestation %s signed by a key of rule %s", e.Ref, p, e.rule.Match)
		}
	}
	return nil
}

// age refuses a release that is too young: time for its publisher to notice a stolen key.
func (e *evaluation) age(v *Verdict) error {
	if e.Policy.MinAge == 0 || v.SignedAt.IsZero() || e.Now.Sub(v.SignedAt) >= e.Policy.MinAge {
		return nil
	}
	return hostabi.Errorf(hostabi.ReasonPolicyFile, "%s was signed at %s, less than min_release_age (%s) ago",
		e.Ref, v.SignedAt.UTC().Format(time.RFC3339), e.Policy.MinAge)
}
