package hostabi

import (
	"encoding/hex"
	"strings"
)

// Digest names content: "sha256:" and 64 lower-case hex digits, nothing else.
type Digest string

const digestPrefix = "sha256:"

// ParseDigest checks s; the error has reason BAD_DIGEST.
func ParseDigest(s string) (Digest, error) {
	if !Digest(s).Valid() {
		return "", Errorf(ReasonBadDigest, "digest %q is not sha256: and 64 lower-case hex digits", clip(s, 80))
	}
	return Digest(s), nil
}

// DigestOf is the digest of b.
func DigestOf(b []byte) Digest {
	sum := sum256(b)
	return DigestFromSum(sum[:])
}

// DigestFromSum is the digest whose raw SHA-256 is sum (32 bytes).
func DigestFromSum(sum []byte) Digest { return Digest(digestPrefix + hex.EncodeToString(sum)) }

// Valid reports whether d has the one accepted form.
func (d Digest) Valid() bool {
	h, ok := strings.CutPrefix(string(d), digestPrefix)
	if !ok || len(h) != 64 {
		return false
	}
	for _, c := range []byte(h) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// Hex is the 64 hex digits of a valid digest.
func (d Digest) Hex() string { return strings.TrimPrefix(string(d), digestPrefix) }

// clip is s cut to at most n bytes, with "…" where something was cut.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
