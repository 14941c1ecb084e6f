package sigstore_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"testing"
	"time"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/trust"
)

const repo = "ghcr.io/acme/hello"

var index = hostabi.DigestOf([]byte("index"))

// keys are one private key of each kind, and its public half as sigstore takes it.
func keys(t *testing.T) map[string]*trust.PrivateKey {
	t.Helper()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]*trust.PrivateKey)
	for name, k := range map[string]any{"ed25519": ed, "ecdsa": ec} {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		if out[name], err = trust.ParsePrivateKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// TestSigstoreVerifiesOurs: sigstore-go, given the key, accepts our bundle for the index, and for no other digest.
func TestSigstoreVerifiesOurs(t *testing.T) {
	for name, k := range keys(t) {
		text, err := trust.SignRelease(k, index, trust.Release{Name: "hello", Version: "1.0.0", Repository: repo, CreatedAt: time.Now(), ABI: hostabi.ABI})
		if err != nil {
			t.Fatal(err)
		}
		var b bundle.Bundle
		if err := b.UnmarshalJSON(text); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, text)
		}
		v, err := signature.LoadVerifier(k.Public(), crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		material := root.NewTrustedPublicKeyMaterial(func(hint string) (root.TimeConstrainedVerifier, error) {
			if hint != k.ID().Hex() {
				return nil, fmt.Errorf("hint %q", hint)
			}
			return root.NewExpiringKey(v, time.Time{}, time.Time{}), nil
		})
		verifier, err := verify.NewVerifier(material, verify.WithNoObserverTimestamps())
		if err != nil {
			t.Fatal(err)
		}
		for digest, want := range map[hostabi.Digest]bool{index: true, hostabi.DigestOf(nil): false} {
			raw, _ := hex.DecodeString(digest.Hex())
			result, err := verifier.Verify(&b, verify.NewPolicy(verify.WithArtifactDigest("sha256", raw), verify.WithKey()))
			if (err == nil) != want {
				t.Errorf("%s, %s: %v", name, digest, err)
			}
			if want && result.Statement.PredicateType != trust.ReleaseType {
				t.Errorf("%s: predicate type %s", name, result.Statement.PredicateType)
			}
		}
	}
}

// TestWeVerifySigstores: a bundle that sigstore-go made counts with a key of a rule, in cosign's form and in ours.
func TestWeVerifySigstores(t *testing.T) {
	for name, algorithm := range map[string]protocommon.PublicKeyDetails{
		"ecdsa": protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256, "ed25519": protocommon.PublicKeyDetails_PKIX_ED25519,
	} {
		pair, err := sign.NewEphemeralKeypair(&sign.EphemeralKeypairOptions{Algorithm: algorithm})
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(pair.GetPublicKey())
		if err != nil {
			t.Fatal(err)
		}
		key, err := trust.NewKey(der)
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("version: 1\nkeys: [{name: k, pem: %q}]\nrules: [{match: %s, require: signature, keys: [k]}]\n", key.PEM(), repo)
		policy, err := trust.ParsePolicy("trust.yaml", []byte(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		cosign := map[string]any{
			"_type": "https://in-toto.io/Statement/v1", "subject": []any{map[string]any{"digest": map[string]string{"sha256": index.Hex()}, "annotations": map[string]any{}}},
			"predicateType": trust.CosignType, "predicate": map[string]any{},
		}
		in := trust.Input{Ref: "hello", Repository: repo, Index: index, Name: "hello", Version: "1.0.0", Policy: policy, Now: time.Now(), Bundles: [][]byte{made(t, pair, cosign)}}
		v, err := trust.Evaluate(in)
		if err != nil || v.Level != trust.LevelSigned || v.Key != key.ID() {
			t.Errorf("%s, cosign: %+v, %v", name, v, err)
		}
		in.Policy = nil // without the rule it says nothing
		if _, err := trust.Evaluate(in); hostabi.ReasonOf(err) != hostabi.ReasonUnsigned {
			t.Errorf("%s, cosign without a rule: %v", name, err)
		}
		in.Policy = policy
		in.Index = hostabi.DigestOf(nil)
		if _, err := trust.Evaluate(in); hostabi.ReasonOf(err) != hostabi.ReasonSignature {
			t.Errorf("%s, another index: %v", name, err)
		}
	}

	pair, err := sign.NewEphemeralKeypair(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(pair.GetPublicKey())
	if err != nil {
		t.Fatal(err)
	}
	key, err := trust.NewKey(der)
	if err != nil {
		t.Fatal(err)
	}
	ours := map[string]any{
		"_type": "https://in-toto.io/Statement/v1", "subject": []any{map[string]any{"name": repo, "digest": map[string]string{"sha256": index.Hex()}}},
		"predicateType": trust.ReleaseType,
		"predicate": trust.Release{
			Name: "hello", Version: "1.0.0", Repository: repo, CreatedAt: time.Now(), ABI: hostabi.ABI, PublicKey: base64.StdEncoding.EncodeToString(der),
		},
	}
	in := trust.Input{
		Ref: "hello", Repository: repo, Index: index, Name: "hello", Version: "1.0.0", Now: time.Now(), TrustKey: key.ID(),
		Bundles: [][]byte{made(t, hinted{pair, key.ID().Hex()}, ours)},
	}
	if v, err := trust.Evaluate(in); err != nil || v.Level != trust.LevelPinned || v.Key != key.ID() {
		t.Errorf("our statement: %+v, %v", v, err)
	}
}

// hinted is a key pair with a hint of ours.
type hinted struct {
	*sign.EphemeralKeypair
	hint string
}

func (h hinted) GetHint() []byte { return []byte(h.hint) }

// made is a statement as sigstore-go signs it.
func made(t *testing.T, pair sign.Keypair, statement any) []byte {
	t.Helper()
	payload, err := json.Marshal(statement)
	if err != nil {
		t.Fatal(err)
	}
	b, err := sign.Bundle(&sign.DSSEData{Data: payload, PayloadType: "application/vnd.in-toto+json"}, pair, sign.BundleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := protojson.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
