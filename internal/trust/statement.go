package trust

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// The predicate types that mean something here; bundles of all others are attestations.
const (
	ReleaseType  = "https://delivery-station.io/plugin-release/v1"
	RotationType = "https://delivery-station.io/key-rotation/v1"
	// CosignType is what cosign signs images with: it names the digest and nothing else.
	CosignType = "https://sigstore.dev/cosign/sign/v1"

	statementType = "https://in-toto.io/Statement/v1"
	statementOld  = "https://in-toto.io/Statement/v0.1" // attestations of older tools
)

// Statement is an in-toto statement: what a predicate says about subjects.
type Statement struct {
	Type          string          `json:"_type"`
	Subject       []Subject       `json:"subject"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate"`
}

// Subject is what a statement is about.
type Subject struct {
	Name   string            `json:"name,omitempty"`
	Digest map[string]string `json:"digest"`
}

// Release is the predicate of a plugin's signature.
type Release struct {
	Name       string    `json:"name"`
	Version    string    `json:"version"`
	Repository string    `json:"repository"`
	CreatedAt  time.Time `json:"createdAt"`
	ABI        string    `json:"abi"`
	PublicKey  string    `json:"publicKey"` // base64 of the PKIX DER; set by SignRelease
}

// Rotation is the predicate by which the holder of an old key names the next one.
type Rotation struct {
	Repository   string    `json:"repository"`
	OldKey       KeyID     `json:"oldKey"`
	NewKey       KeyID     `json:"newKey"`
	NewPublicKey string    `json:"newPublicKey"` // base64 of the PKIX DER
	CreatedAt    time.Time `json:"createdAt"`
}

// SignRelease signs that the index of that digest is a plugin release.
func SignRelease(k *PrivateKey, index hostabi.Digest, r Release) ([]byte, error) {
	r.PublicKey, r.CreatedAt = base64.StdEncoding.EncodeToString(k.DER()), r.CreatedAt.UTC().Truncate(time.Second)
	return signPredicate(k, index, r.Repository, ReleaseType, r)
}

// SignRotation signs, with the key that users know, that to is the next key of repository.
func SignRotation(from *PrivateKey, to *Key, index hostabi.Digest, repository string, at time.Time) ([]byte, error) {
	return signPredicate(from, index, repository, RotationType, Rotation{
		Repository: repository, OldKey: from.ID(), NewKey: to.ID(), NewPublicKey: base64.StdEncoding.EncodeToString(to.DER()), CreatedAt: at.UTC().Truncate(time.Second),
	})
}

// SignAttestation signs a predicate of any other type about the index. The predicate is JSON.
func SignAttestation(k *PrivateKey, index hostabi.Digest, repository, predicateType string, predicate []byte) ([]byte, error) {
	if !json.Valid(predicate) {
		return nil, hostabi.Errorf(hostabi.ReasonUsage, "the predicate is no JSON")
	}
	switch predicateType {
	case "", ReleaseType, RotationType, CosignType:
		return nil, hostabi.Errorf(hostabi.ReasonUsage, "predicate type %q is no attestation", clip(predicateType))
	}
	return signPredicate(k, index, repository, predicateType, json.RawMessage(predicate))
}

func signPredicate(k *PrivateKey, index hostabi.Digest, repository, predicateType string, predicate any) ([]byte, error) {
	p, err := json.Marshal(predicate)
	if err != nil {
		return nil, err
	}
	payload, err := json.Marshal(Statement{
		Type: statementType, Subject: []Subject{{Name: repository, Digest: map[string]string{"sha256": index.Hex()}}}, PredicateType: predicateType, Predicate: p,
	})
	if err != nil {
		return nil, err
	}
	return signBundle(k, payload)
}

// about reports whether index is a subject of s.
func (s *Statement) about(index hostabi.Digest) bool {
	for _, sub := range s.Subject {
		if sub.Digest["sha256"] == index.Hex() {
			return true
		}
	}
	return false
}

// embeddedKey reads a key that a predicate carries and that must have the given id.
func embeddedKey(text string) (*Key, error) {
	der, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, badKey("it is not base64")
	}
	return NewKey(der)
}

// hintNames reports whether a bundle's hint is k: the hex of its id, or base64 of the same hash as cosign writes it.
func hintNames(hint string, k *Key) bool {
	sum := sha256.Sum256(k.der)
	return hint == hex.EncodeToString(sum[:]) || hint == base64.StdEncoding.EncodeToString(sum[:])
}
