// Package trust says whose a plugin package is: keys, signatures over the digest of an index, the user's trust
// policy, and pins of the signers seen before (install-trust.md sections 2 to 5). It uses the standard
// library's cryptography only, and no network: the caller fetches bundles and hands them to Evaluate. It never
// trusts a certificate, and nothing that a package says about itself. Start with Evaluate.
package trust

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/delivery-station/ds/hostabi"
)

// Levels say why a package was accepted, from the strongest to the weakest.
const (
	LevelSigned   = "signed"        // by the keys of a rule
	LevelPinned   = "pinned"        // by the key that the user accepted for this repository
	LevelLegacy   = "legacy-signed" // its layer is signed, its name and version are not
	LevelUnsigned = "unsigned"
)

// KeyID names a public key: its kind and the lower-case hex SHA-256 of its PKIX DER, "ed25519:9f3c…". It is
// empty where there is no key.
type KeyID string

// The kinds of keys.
const (
	Ed25519 = "ed25519"
	ECDSA   = "ecdsa-p256"
	RSA     = "rsa" // layers of packages of the original DS only
)

const shortID = 12 // hex digits that people compare

// ParseKeyID checks s; the error has reason USAGE.
func ParseKeyID(s string) (KeyID, error) {
	kind, digits, _ := strings.Cut(s, ":")
	switch kind {
	case Ed25519, ECDSA, RSA:
		if hostabi.Digest("sha256:" + digits).Valid() {
			return KeyID(s), nil
		}
	}
	return "", hostabi.Errorf(hostabi.ReasonUsage, "key id %q is not ed25519:, ecdsa-p256: or rsa: and 64 lower-case hex digits", clip(s))
}

func keyID(kind string, der []byte) KeyID {
	sum := sha256.Sum256(der)
	return KeyID(kind + ":" + hex.EncodeToString(sum[:]))
}

// Kind is Ed25519, ECDSA or RSA.
func (id KeyID) Kind() string { kind, _, _ := strings.Cut(string(id), ":"); return kind }

// Hex is the hash in id.
func (id KeyID) Hex() string { _, h, _ := strings.Cut(string(id), ":"); return h }

// Short is id as people are shown it, with 12 digits of the hash. It proves nothing.
func (id KeyID) Short() string {
	kind, h, _ := strings.Cut(string(id), ":")
	if len(h) <= shortID {
		return string(id)
	}
	return kind + ":" + h[:shortID] + "…"
}

// clip is s for an error text.
func clip(s string) string {
	if len(s) > 100 {
		s = s[:100] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
