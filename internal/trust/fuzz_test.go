package trust_test

import (
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/trust"
	"github.com/delivery-station/ds/plugin"
)

// FuzzBundle: nothing that is not a bundle of a trusted key is accepted, and nothing panics.
func FuzzBundle(f *testing.F) {
	k, pin := newKey(f), newKey(f)
	f.Add(signed(f, k, nil))
	f.Add(rotation(f, pin, k))
	f.Add([]byte(`{"mediaType":"` + plugin.BundleType + `","verificationMaterial":{"certificate":{}}}`))
	f.Add([]byte(`{"mediaType":"` + plugin.BundleType + `","verificationMaterial":{"publicKey":{}},"dsseEnvelope":{"signatures":[{}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := trust.Evaluate(input(nil, pinned(pin), b))
		if err == nil && v.Key != pin.ID() {
			t.Errorf("accepted %+v", v)
		}
	})
}

func FuzzPolicy(f *testing.F) {
	k := newKey(f)
	f.Add([]byte("version: 1\nkeys: [{name: k, file: k}]\nrules: [{match: 'a/**', origin: 'b/**', require: signature, keys: [k], threshold: 1, predicates: [x]}]\n"))
	f.Add([]byte("version: 1\ndefault: signature\nmin_release_age: 72h\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := trust.ParsePolicy("trust.yaml", b, func(string) ([]byte, error) { return k.PEM(), nil })
		if err != nil {
			if hostabi.ReasonOf(err) != hostabi.ReasonConfigSyntax {
				t.Errorf("%v", err)
			}
			return
		}
		r := p.Rule("a/b")
		if r.Require == trust.RequireNone && r.Match != "a/b" {
			t.Errorf("rule %+v", r)
		}
	})
}

func FuzzKeyFile(f *testing.F) {
	k := newKey(f)
	for _, passphrase := range []string{"", "x"} {
		b, err := k.Encode([]byte(passphrase))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(k.PEM())
	f.Fuzz(func(t *testing.T, b []byte) {
		if pub, err := trust.ParseKey(b); err == nil {
			if again, err := trust.ParseKey(pub.PEM()); err != nil || again.ID() != pub.ID() {
				t.Errorf("not itself: %v", err)
			}
		}
		if k, err := trust.ParsePrivateKey(b, nil); err == nil {
			if _, err := trust.ParseKey(k.PEM()); err != nil {
				t.Errorf("%v", err)
			}
		}
	})
}
