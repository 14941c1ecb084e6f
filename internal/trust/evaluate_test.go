package trust_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/trust"
)

const repo = "ghcr.io/acme/hello"

var (
	index = hostabi.DigestOf([]byte("index"))
	now   = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
)

func newKey(t testing.TB) *trust.PrivateKey {
	t.Helper()
	k, err := trust.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func signed(t testing.TB, k *trust.PrivateKey, change func(*trust.Release)) []byte {
	t.Helper()
	r := trust.Release{Name: "hello", Version: "1.4.0", Repository: repo, CreatedAt: now.Add(-time.Hour), ABI: "ds.host/v1"}
	if change != nil {
		change(&r)
	}
	b, err := trust.SignRelease(k, index, r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func rotation(t testing.TB, from, to *trust.PrivateKey) []byte {
	t.Helper()
	b, err := trust.SignRotation(from, to.Key, index, repo, now)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func pinned(k *trust.PrivateKey) *trust.Pin {
	return &trust.Pin{Key: k.ID(), SPKI: k.DER(), FirstSeen: now.AddDate(-1, 0, 0), How: trust.HowPrompt, Highest: "1.3.0", HighestDigest: hostabi.DigestOf([]byte("old"))}
}

func input(p *trust.Policy, pin *trust.Pin, bundles ...[]byte) trust.Input {
	return trust.Input{Ref: "hello", Repository: repo, Index: index, Name: "hello", Version: "1.4.0", Bundles: bundles, Policy: p, Pin: pin, Now: now}
}

// flip changes the signature of a bundle, which stays well formed.
func flip(t testing.TB, bundle []byte) []byte {
	t.Helper()
	var j map[string]any
	if err := json.Unmarshal(bundle, &j); err != nil {
		t.Fatal(err)
	}
	sigs := j["dsseEnvelope"].(map[string]any)["signatures"].([]any)
	sig, err := base64.StdEncoding.DecodeString(sigs[0].(map[string]any)["sig"].(string))
	if err != nil {
		t.Fatal(err)
	}
	sig[10] ^= 1
	sigs[0].(map[string]any)["sig"] = base64.StdEncoding.EncodeToString(sig)
	b, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// policy is trust.yaml with the keys ruleA and ruleB and one rule for repo.
func policy(t testing.TB, ruleA, ruleB *trust.PrivateKey, require, more string) *trust.Policy {
	t.Helper()
	text := fmt.Sprintf("version: 1\nkeys:\n  - {name: a, pem: %q, id: %q}\n  - {name: b, file: b.pem}\nrules:\n  - {match: %s, require: %s, keys: [a, b]%s}\n",
		ruleA.PEM(), ruleA.ID(), repo, require, more)
	p, err := trust.ParsePolicy("trust.yaml", []byte(text), func(string) ([]byte, error) { return ruleB.PEM(), nil })
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestTable is every cell of the table of install-trust.md section 4, for a repository that is new, pinned, and
// pinned with a rotation to the key that signed.
func TestTable(t *testing.T) {
	a, b, old, other := newKey(t), newKey(t), newKey(t), newKey(t)
	requires := []string{"signature", "tofu", "legacy", "none"}
	rotate := rotation(t, old, other)
	type row struct {
		bundles [][]byte
		pin     *trust.Pin
		legacy  trust.KeyID
		change  func(*trust.Input)
		want    [4]string // by requires: a level, "ask", or a DS number
	}
	allow := func(in *trust.Input) { in.AllowUnsigned = true }
	name := func(k *trust.PrivateKey) func(*trust.Input) { return func(in *trust.Input) { in.TrustKey = k.ID() } }
	all := func(s string) [4]string { return [4]string{s, s, s, s} }
	for what, r := range map[string]row{
		"bad, new":                       {[][]byte{flip(t, signed(t, other, nil))}, nil, "", nil, all("DS3005")},
		"bad, pinned":                    {[][]byte{flip(t, signed(t, old, nil))}, pinned(old), "", nil, all("DS3005")},
		"bad, rotated":                   {[][]byte{signed(t, other, nil), flip(t, rotate)}, pinned(old), "", nil, all("DS3005")},
		"bad beside good, allowed":       {[][]byte{signed(t, a, nil), flip(t, signed(t, other, nil))}, nil, "", allow, all("DS3005")},
		"key of the rule, new":           {[][]byte{signed(t, a, nil)}, nil, "", nil, all("signed")},
		"key of the rule, pinned other":  {[][]byte{signed(t, a, nil)}, pinned(old), "", nil, all("signed")},
		"key of the rule, pinned it":     {[][]byte{signed(t, a, nil)}, pinned(a), "", nil, all("signed")},
		"key of the rule, rotated":       {[][]byte{signed(t, a, nil), rotate}, pinned(old), "", nil, all("signed")},
		"pinned key":                     {[][]byte{signed(t, old, nil)}, pinned(old), "", nil, [4]string{"DS3017", "pinned", "pinned", "pinned"}},
		"pinned key and another":         {[][]byte{signed(t, other, nil), signed(t, old, nil)}, pinned(old), "", nil, [4]string{"DS3017", "pinned", "pinned", "pinned"}},
		"pinned key, rotated":            {[][]byte{signed(t, other, nil), rotate}, pinned(old), "", nil, [4]string{"DS3017", "pinned", "pinned", "pinned"}},
		"other key, new":                 {[][]byte{signed(t, other, nil)}, nil, "", nil, [4]string{"DS3017", "ask", "ask", "unsigned"}},
		"other key, new, named":          {[][]byte{signed(t, other, nil)}, nil, "", name(other), [4]string{"DS3017", "pinned", "pinned", "unsigned"}},
		"other key, new, another named":  {[][]byte{signed(t, other, nil)}, nil, "", name(old), [4]string{"DS3017", "DS3017", "DS3017", "unsigned"}},
		"other key, new, rotation":       {[][]byte{signed(t, other, nil), rotate}, nil, "", nil, [4]string{"DS3017", "ask", "ask", "unsigned"}},
		"other key, pinned":              {[][]byte{signed(t, other, nil)}, pinned(old), "", nil, all("DS3015")},
		"other key, pinned, named":       {[][]byte{signed(t, other, nil)}, pinned(old), "", name(other), all("DS3015")},
		"other key, pinned, old rotated": {[][]byte{signed(t, b, nil), rotate}, pinned(old), "", nil, all("signed")},
		"old key, rotated away":          {[][]byte{signed(t, old, nil)}, pinned(other), "", nil, all("DS3015")},
		"none, seen signed":              {nil, pinned(old), "", nil, all("DS3015")},
		"none, seen signed, allowed":     {nil, pinned(old), "", allow, all("DS3015")},
		"none, rotation only":            {[][]byte{rotate}, pinned(old), "", nil, all("DS3015")},
		"legacy layer":                   {nil, nil, "rsa:1", nil, [4]string{"DS3006", "DS3006", "legacy-signed", "legacy-signed"}},
		"legacy layer, allowed":          {nil, nil, "rsa:1", allow, [4]string{"DS3006", "legacy-signed", "legacy-signed", "legacy-signed"}},
		"legacy layer, pinned":           {nil, pinned(old), "rsa:1", nil, all("DS3015")},
		"none":                           {nil, nil, "", nil, [4]string{"DS3006", "DS3006", "DS3006", "unsigned"}},
		"none, allowed":                  {nil, nil, "", allow, [4]string{"DS3006", "unsigned", "unsigned", "unsigned"}},
	} {
		for i, require := range requires {
			in := input(policy(t, a, b, require, ""), r.pin, r.bundles...)
			in.Legacy = r.legacy
			if r.change != nil {
				r.change(&in)
			}
			v, err := trust.Evaluate(in)
			got := v.Level
			switch {
			case err != nil:
				got = fmt.Sprintf("DS%d", hostabi.AsError(err).Number())
			case v.Ask:
				got = "ask"
			}
			if got != r.want[i] {
				t.Errorf("%s, require %s: %s (%v), want %s", what, require, got, err, r.want[i])
			}
			if v.Pin != nil && (v.Pin.Key != v.Key || v.Pin.Highest != "1.4.0" || v.Pin.HighestDigest != index) {
				t.Errorf("%s, require %s: pin %+v", what, require, v.Pin)
			}
		}
	}
}

func TestRotationMovesThePin(t *testing.T) {
	first, second, third := newKey(t), newKey(t), newKey(t)
	chain := [][]byte{rotation(t, second, third), signed(t, third, nil), rotation(t, first, second)}
	v, err := trust.Evaluate(input(nil, pinned(first), chain...))
	if err != nil || v.Key != third.ID() || v.RotatedFrom != first.ID() || v.Pin.How != trust.HowRotation || !v.Pin.FirstSeen.Equal(now) {
		t.Errorf("%+v, %v", v, err)
	}
	// A rotation alone moves nothing while the known key signs.
	v, err = trust.Evaluate(input(nil, pinned(first), signed(t, first, nil), rotation(t, first, second)))
	if err != nil || v.Key != first.ID() || v.RotatedFrom != "" {
		t.Errorf("announced: %+v, %v", v, err)
	}
	// A rotation for another repository, signed by the right key, is bad.
	b, err := trust.SignRotation(first, second.Key, index, "ghcr.io/acme/other", now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = trust.Evaluate(input(nil, pinned(first), b, signed(t, second, nil))); hostabi.ReasonOf(err) != hostabi.ReasonSignature {
		t.Errorf("other repository: %v", err)
	}
}

func TestFalseClaimsAreBad(t *testing.T) {
	k := newKey(t)
	for what, change := range map[string]func(*trust.Release){
		"name":       func(r *trust.Release) { r.Name = "other" },
		"version":    func(r *trust.Release) { r.Version = "1.4.1" },
		"repository": func(r *trust.Release) { r.Repository = "ghcr.io/acme/other" },
	} {
		_, err := trust.Evaluate(input(nil, nil, signed(t, k, change)))
		if hostabi.ReasonOf(err) != hostabi.ReasonSignature || !strings.HasPrefix(err.Error(), "signature of hello is bad: ") {
			t.Errorf("%s: %v", what, err)
		}
	}
	other, err := trust.SignRelease(k, hostabi.DigestOf([]byte("x")), trust.Release{Name: "hello", Version: "1.4.0", Repository: repo})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trust.Evaluate(input(nil, nil, other)); hostabi.ReasonOf(err) != hostabi.ReasonSignature {
		t.Errorf("other subject: %v", err)
	}
	if _, err := trust.Evaluate(input(nil, nil, []byte("{}"))); hostabi.ReasonOf(err) != hostabi.ReasonSignature {
		t.Errorf("no bundle: %v", err)
	}
}

// TestEveryByteCounts changes each byte of a bundle: it is refused, or is the same statement and signature. With
// another predicate type it is no signature any more, as if it were not there.
func TestEveryByteCounts(t *testing.T) {
	k := newKey(t)
	good := signed(t, k, nil)
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 1
		v, err := trust.Evaluate(input(nil, nil, bad))
		if err == nil && v.Key != k.ID() {
			t.Fatalf("byte %d of %d: %+v", i, len(good), v)
		}
		if r := hostabi.ReasonOf(err); err != nil && r != hostabi.ReasonSignature && r != hostabi.ReasonUnsigned {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
}

func TestThresholdAndPredicates(t *testing.T) {
	a, b := newKey(t), newKey(t)
	p := policy(t, a, b, "signature", `, threshold: 2, predicates: ["https://slsa.dev/provenance/v1"]`)
	attest := func(k *trust.PrivateKey) []byte {
		x, err := trust.SignAttestation(k, index, repo, "https://slsa.dev/provenance/v1", []byte(`{"x":1}`))
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	sa, sb := signed(t, a, nil), signed(t, b, nil)
	for what, c := range map[string]struct {
		bundles [][]byte
		want    hostabi.Reason
	}{
		"one of two":                {[][]byte{sa, attest(a)}, hostabi.ReasonSignerUntrusted},
		"one twice":                 {[][]byte{sa, sa, attest(a)}, hostabi.ReasonSignerUntrusted},
		"both":                      {[][]byte{sa, sb, attest(b)}, ""},
		"no attestation":            {[][]byte{sa, sb}, hostabi.ReasonUnsigned},
		"attestation of a stranger": {[][]byte{sa, sb, attest(newKey(t))}, hostabi.ReasonUnsigned},
		"broken attestation":        {[][]byte{sa, sb, attest(a), flip(t, attest(b))}, hostabi.ReasonSignature},
	} {
		v, err := trust.Evaluate(input(p, nil, c.bundles...))
		if hostabi.ReasonOf(err) != c.want {
			t.Errorf("%s: %v", what, err)
		}
		if c.want == "" && len(v.Bundles) != 3 {
			t.Errorf("%s: %+v", what, v.Bundles)
		}
	}
	same := policy(t, a, a, "signature", ", threshold: 2")
	if _, err := trust.Evaluate(input(same, nil, sa)); hostabi.ReasonOf(err) != hostabi.ReasonSignerUntrusted {
		t.Errorf("one key under two names counts twice: %v", err)
	}
}

func TestMinimumAge(t *testing.T) {
	k := newKey(t)
	p := &trust.Policy{MinAge: 72 * time.Hour}
	if _, err := trust.Evaluate(input(p, pinned(k), signed(t, k, nil))); hostabi.ReasonOf(err) != hostabi.ReasonPolicyFile {
		t.Errorf("an hour old: %v", err)
	}
	old := signed(t, k, func(r *trust.Release) { r.CreatedAt = now.Add(-73 * time.Hour) })
	if _, err := trust.Evaluate(input(p, pinned(k), old)); err != nil {
		t.Errorf("three days old: %v", err)
	}
}

func TestOrigin(t *testing.T) {
	k := newKey(t)
	p, err := trust.ParsePolicy("trust.yaml", fmt.Appendf(nil,
		"version: 1\nkeys: [{name: k, pem: %q}]\nrules: [{match: 'mirror.corp/*/acme/**', origin: 'ghcr.io/*/**', require: signature, keys: [k]}]\n", k.PEM()), nil)
	if err != nil {
		t.Fatal(err)
	}
	in := input(p, nil, signed(t, k, func(r *trust.Release) { r.Repository = "ghcr.io/x/tools/hello" }))
	in.Repository = "mirror.corp/x/acme/tools/hello"
	if v, err := trust.Evaluate(in); err != nil || v.Level != trust.LevelSigned {
		t.Errorf("%+v, %v", v, err)
	}
	in.Repository = "mirror.corp/x/acme/tools/other" // a mirror that hands out another plugin
	if _, err := trust.Evaluate(in); hostabi.ReasonOf(err) != hostabi.ReasonSignature {
		t.Errorf("swapped: %v", err)
	}
}

func TestRollback(t *testing.T) {
	k := newKey(t)
	for what, c := range map[string]struct {
		highest string
		digest  hostabi.Digest
		change  func(*trust.Input)
		want    hostabi.Reason
		after   string
	}{
		"newer":               {"1.3.0", "", nil, "", "1.4.0"},
		"older":               {"1.5.0", "", nil, hostabi.ReasonDowngrade, ""},
		"older, allowed":      {"1.5.0", "", func(in *trust.Input) { in.AllowDowngrade = true }, "", "1.5.0"},
		"same":                {"1.4.0", index, nil, "", "1.4.0"},
		"same, moved":         {"1.4.0", hostabi.DigestOf(nil), nil, hostabi.ReasonVersionMoved, ""},
		"same, moved, forced": {"1.4.0", hostabi.DigestOf(nil), func(in *trust.Input) { in.Force = true }, "", "1.4.0"},
		"pre-release before":  {"1.4.0-rc.1", "", nil, "", "1.4.0"},
	} {
		pin := pinned(k)
		pin.Highest, pin.HighestDigest = c.highest, c.digest
		in := input(nil, pin, signed(t, k, nil))
		if c.change != nil {
			c.change(&in)
		}
		v, err := trust.Evaluate(in)
		if hostabi.ReasonOf(err) != c.want || err == nil && v.Pin.Highest != c.after {
			t.Errorf("%s: %+v, %v", what, v.Pin, err)
		}
	}
}

func TestPinsAreRecordedOnce(t *testing.T) {
	k, other := newKey(t), newKey(t)
	path := filepath.Join(t.TempDir(), "trust", "pins.json")
	pins := trust.OpenPins(path)
	install := func(in trust.Input) error {
		v, err := trust.Evaluate(in)
		if err != nil {
			return err
		}
		return pins.Record(t.Context(), in, v)
	}
	if err := install(input(nil, nil, signed(t, k, nil))); err != nil {
		t.Fatal(err)
	}
	got, err := pins.Get(repo)
	if err != nil || got == nil || got.Key != k.ID() || got.How != trust.HowPrompt || got.Highest != "1.4.0" {
		t.Errorf("%+v, %v", got, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	// Two installations asked at the same time: the first one that is recorded decides.
	if err := install(input(nil, nil, signed(t, other, nil))); hostabi.ReasonOf(err) != hostabi.ReasonSignerChanged {
		t.Errorf("second signer: %v", err)
	}
	for _, text := range []string{"", "{", `{"version":2}`, `{"version":1,"repositories":{"x":null}}`, strings.Replace(read(t, path), string(k.ID()), string(other.ID()), 1)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := pins.Get(repo); hostabi.ReasonOf(err) != hostabi.ReasonStateCorrupt {
			t.Errorf("%.40q: %v", text, err)
		}
		if err := install(input(nil, nil, signed(t, k, nil))); hostabi.ReasonOf(err) != hostabi.ReasonStateCorrupt || read(t, path) != text {
			t.Errorf("%.40q was rewritten: %v", text, err)
		}
	}
}

func read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
