package trust

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

const (
	// MaxBundle bounds the bytes of one bundle.
	MaxBundle = 4 << 20

	bundleOld   = "application/vnd.dev.sigstore.bundle+json;version=0.3"
	payloadType = "application/vnd.in-toto+json"
)

// bundleJSON is a Sigstore bundle as far as ds reads it. Members that it does not know are left alone.
type bundleJSON struct {
	MediaType            string       `json:"mediaType"`
	VerificationMaterial materialJSON `json:"verificationMaterial"`
	Envelope             *envelope    `json:"dsseEnvelope,omitempty"`
	MessageSignature     *struct{}    `json:"messageSignature,omitempty"`
}

type materialJSON struct {
	PublicKey   *keyHint         `json:"publicKey,omitempty"`
	Certificate *json.RawMessage `json:"certificate,omitempty"`
	Chain       *json.RawMessage `json:"x509CertificateChain,omitempty"`
}

type keyHint struct {
	Hint string `json:"hint"`
}

type envelope struct {
	Payload     string        `json:"payload"`
	PayloadType string        `json:"payloadType"`
	Signatures  []envelopeSig `json:"signatures"`
}

type envelopeSig struct {
	Sig string `json:"sig"`
}

// Bundle is one decoded bundle. Nothing in it is proven before a key verified it.
type Bundle struct {
	Digest    hostabi.Digest // of its bytes
	Hint      string         // key that it says signed it
	Statement Statement      // empty when Keyless
	Keyless   bool           // signed for a certificate: listed, never trusted

	payload, sig []byte
}

// ParseBundle reads a Sigstore bundle v0.3 with one DSSE signature over an in-toto statement. One that carries a
// certificate is not looked into.
func ParseBundle(text []byte) (*Bundle, error) {
	if len(text) > MaxBundle {
		return nil, fmt.Errorf("%d bytes, at most %d", len(text), MaxBundle)
	}
	var j bundleJSON
	if err := json.Unmarshal(text, &j); err != nil {
		return nil, errors.New("it is no bundle")
	}
	if j.MediaType != plugin.BundleType && j.MediaType != bundleOld {
		return nil, fmt.Errorf("media type %q, want %s", clip(j.MediaType), plugin.BundleType)
	}
	b := &Bundle{Digest: hostabi.DigestOf(text)}
	m := j.VerificationMaterial
	if m.Certificate != nil || m.Chain != nil {
		b.Keyless = true
		return b, nil
	}
	if m.PublicKey == nil || j.Envelope == nil || j.MessageSignature != nil {
		return nil, errors.New("it has no public key or no DSSE envelope")
	}
	b.Hint = m.PublicKey.Hint
	return b, b.open(j.Envelope)
}

func (b *Bundle) open(e *envelope) (err error) {
	if e.PayloadType != payloadType {
		return fmt.Errorf("payload type %q, want %s", clip(e.PayloadType), payloadType)
	}
	if len(e.Signatures) != 1 {
		return fmt.Errorf("%d signatures in one envelope, want 1", len(e.Signatures))
	}
	if b.payload, err = base64.StdEncoding.DecodeString(e.Payload); err != nil {
		return errors.New("its payload is not base64")
	}
	if b.sig, err = base64.StdEncoding.DecodeString(e.Signatures[0].Sig); err != nil {
		return errors.New("its signature is not base64")
	}
	if err := json.Unmarshal(b.payload, &b.Statement); err != nil {
		return errors.New("its payload is no statement")
	}
	if t := b.Statement.Type; t != statementType && t != statementOld {
		return fmt.Errorf("statement type %q, want %s", clip(t), statementType)
	}
	return nil
}

// verifiedBy reports whether k signed the bundle.
func (b *Bundle) verifiedBy(k *Key) bool { return k.Verify(preAuth(b.payload), b.sig) }

// signBundle wraps a statement.
func signBundle(k *PrivateKey, payload []byte) ([]byte, error) {
	sig, err := k.sign(preAuth(payload))
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return json.Marshal(bundleJSON{
		MediaType: plugin.BundleType, VerificationMaterial: materialJSON{PublicKey: &keyHint{k.ID().Hex()}},
		Envelope: &envelope{
			Payload: base64.StdEncoding.EncodeToString(payload), PayloadType: payloadType,
			Signatures: []envelopeSig{{base64.StdEncoding.EncodeToString(sig)}},
		},
	})
}

// preAuth is what DSSE signs (pre-authentication encoding): lengths are decimal byte counts.
func preAuth(payload []byte) []byte {
	out := []byte("DSSEv1 " + strconv.Itoa(len(payloadType)) + " " + payloadType + " " + strconv.Itoa(len(payload)) + " ")
	return append(out, payload...)
}
