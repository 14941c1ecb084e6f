package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/delivery-station/ds/hostabi"
)

const (
	maxKeyFile = 64 << 10
	minRSA     = 2048 // bits

	pemPublic    = "PUBLIC KEY"
	pemPrivate   = "PRIVATE KEY"
	pemEncrypted = "ENCRYPTED PRIVATE KEY"
	pemEC        = "EC PRIVATE KEY"
)

// Key is a public key. It is not changed after it was made.
type Key struct {
	id  KeyID
	der []byte // PKIX
	pub crypto.PublicKey
}

// NewKey reads a PKIX public key in DER form: Ed25519, ECDSA P-256, or RSA of at least 2048 bits.
func NewKey(der []byte) (*Key, error) {
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, badKey("it is no public key: %w", err)
	}
	return keyOf(pub)
}

// keyOf encodes pub again, so that one key has one id whatever form it came in.
func keyOf(pub crypto.PublicKey) (*Key, error) {
	kind := ""
	switch p := pub.(type) {
	case ed25519.PublicKey:
		kind = Ed25519
	case *ecdsa.PublicKey:
		if p.Curve != elliptic.P256() {
			return nil, badKey("its curve is %s, want P-256", p.Params().Name)
		}
		kind = ECDSA
	case *rsa.PublicKey:
		if p.N.BitLen() < minRSA {
			return nil, badKey("its RSA key has %d bits, at least %d", p.N.BitLen(), minRSA)
		}
		kind = RSA
	default:
		return nil, badKey("a %T is not supported, want Ed25519 or ECDSA P-256", pub)
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, badKey("%w", err)
	}
	return &Key{id: keyID(kind, der), der: der, pub: pub}, nil
}

// ParseKey reads a PEM public key; text around the one block is allowed.
func ParseKey(text []byte) (*Key, error) {
	b, err := onePEM(text)
	if err != nil {
		return nil, err
	}
	if b.Type != pemPublic {
		return nil, badKey("it holds a %q, want a %q", clip(b.Type), pemPublic)
	}
	return NewKey(b.Bytes)
}

// ID names the key.
func (k *Key) ID() KeyID { return k.id }

// DER is the PKIX form. The caller does not change it.
func (k *Key) DER() []byte { return k.der }

// PEM is the PKIX form as a file holds it.
func (k *Key) PEM() []byte { return pem.EncodeToMemory(&pem.Block{Type: pemPublic, Bytes: k.der}) }

// Public is the key itself: ed25519.PublicKey, *ecdsa.PublicKey or *rsa.PublicKey.
func (k *Key) Public() crypto.PublicKey { return k.pub }

// Verify reports whether sig is k's signature of message: Ed25519 of the message, or ECDSA of its SHA-256 in
// ASN.1. An RSA key verifies nothing here.
func (k *Key) Verify(message, sig []byte) bool {
	switch p := k.pub.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(p, message, sig)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(message)
		return ecdsa.VerifyASN1(p, sum[:], sig)
	}
	return false
}

// PrivateKey signs.
type PrivateKey struct {
	*Key
	signer crypto.Signer
}

// GenerateKey makes an Ed25519 key.
func GenerateKey() (*PrivateKey, error) {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return privateKey(priv)
}

// ErrPassphrase says that a private key is encrypted and no or a wrong passphrase was given.
var ErrPassphrase = errors.New("wrong passphrase")

// ParsePrivateKey reads a PEM private key: PKCS#8, PKCS#8 encrypted with PBES2, or SEC 1. passphrase is asked
// for an encrypted key only; nil means that there is none to ask for.
func ParsePrivateKey(text []byte, passphrase func() ([]byte, error)) (*PrivateKey, error) {
	b, err := onePEM(text)
	if err != nil {
		return nil, err
	}
	der := b.Bytes
	var key any
	switch b.Type {
	case pemEncrypted:
		if passphrase == nil {
			return nil, badKey("it is encrypted: %w", ErrPassphrase)
		}
		word, err := passphrase()
		if err != nil {
			return nil, err
		}
		if der, err = decryptPKCS8(der, word); err != nil {
			return nil, err
		}
		key, err = x509.ParsePKCS8PrivateKey(der)
		if err != nil { // the padding fits one wrong passphrase in 256
			return nil, badKey("%w", ErrPassphrase)
		}
		return privateKey(key)
	case pemPrivate:
		key, err = x509.ParsePKCS8PrivateKey(der)
	case pemEC:
		key, err = x509.ParseECPrivateKey(der)
	default:
		return nil, badKey("it holds a %q, want a %q", clip(b.Type), pemPrivate)
	}
	if err != nil {
		return nil, badKey("it is no PKCS#8 private key") // the cause could quote it
	}
	return privateKey(key)
}

func privateKey(key any) (*PrivateKey, error) {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, badKey("a %T cannot sign", key)
	}
	pub, err := keyOf(signer.Public())
	if err != nil {
		return nil, err
	}
	if pub.id.Kind() == RSA {
		return nil, badKey("an RSA key cannot sign packages, want Ed25519 or ECDSA P-256")
	}
	return &PrivateKey{pub, signer}, nil
}

// Encode is the PEM form of k: PKCS#8, encrypted with the passphrase unless that is empty.
func (k *PrivateKey) Encode(passphrase []byte) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.signer)
	if err != nil {
		return nil, err
	}
	b := &pem.Block{Type: pemPrivate, Bytes: der}
	if len(passphrase) > 0 {
		b.Type = pemEncrypted
		if b.Bytes, err = encryptPKCS8(der, passphrase); err != nil {
			return nil, err
		}
	}
	return pem.EncodeToMemory(b), nil
}

// sign is the signature that Key.Verify accepts.
func (k *PrivateKey) sign(message []byte) ([]byte, error) {
	if _, ok := k.pub.(ed25519.PublicKey); ok {
		return k.signer.Sign(rand.Reader, message, crypto.Hash(0))
	}
	sum := sha256.Sum256(message)
	return k.signer.Sign(rand.Reader, sum[:], crypto.SHA256)
}

// onePEM is the only block of a key file.
func onePEM(text []byte) (*pem.Block, error) {
	if len(text) > maxKeyFile {
		return nil, badKey("%d bytes, at most %d", len(text), maxKeyFile)
	}
	b, rest := pem.Decode(text)
	if b == nil {
		return nil, badKey("it holds no PEM block")
	}
	if again, _ := pem.Decode(rest); again != nil {
		return nil, badKey("it holds more than one PEM block")
	}
	return b, nil
}

// badKey is about a key file, whose name the caller puts in front as Op.
func badKey(format string, a ...any) error {
	return hostabi.Errorf(hostabi.ReasonUsage, "key cannot be used: %w", fmt.Errorf(format, a...))
}
