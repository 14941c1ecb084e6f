package main

import (
	"bytes"
	"encoding/hex"
	"encoding/pem"
	"strings"

	"github.com/delivery-station/ds/hostabi"
)

// bundleKey is a public key that a bundle holds. It is shown, never trusted: whoever made the bundle chose it.
type bundleKey struct {
	ID  string `json:"id"`
	PEM string `json:"pem"`
}

// Beginnings of a PKIX public key in DER, which say what kind it is.
const (
	derEd25519 = "302a300506032b6570032100"
	derP256    = "3059301306072a8648ce3d020106082a8648ce3d030107034200"
	derRSA     = "300d06092a864886f70d0101010500" // after the length of the whole
)

// publicKeys are the keys in a PEM file. Anything else in it is an error, a private key most of all.
func publicKeys(name string, text []byte) (keys []bundleKey, err error) {
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if len(bytes.TrimSpace(rest)) > 0 || len(keys) == 0 {
				return nil, hostabi.Errorf(hostabi.ReasonUsage, "%s is no file of public keys in PEM", name)
			}
			return keys, nil
		}
		if block.Type != "PUBLIC KEY" {
			return nil, hostabi.Errorf(hostabi.ReasonUsage, "%s holds a %s; a bundle takes public keys only", name, block.Type)
		}
		keys = append(keys, bundleKey{keyID(block.Bytes), string(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))})
	}
}

// keyID names a key as ds does everywhere.
func keyID(der []byte) string {
	kind := "unknown"
	switch s := hex.EncodeToString(der[:min(len(der), 32)]); {
	case len(der) == 44 && strings.HasPrefix(s, derEd25519):
		kind = "ed25519"
	case len(der) == 91 && strings.HasPrefix(s, derP256):
		kind = "ecdsa-p256"
	case len(s) == 64 && strings.HasPrefix(s[8:], derRSA):
		kind = "rsa"
	}
	return kind + ":" + hostabi.DigestOf(der).Hex()
}
