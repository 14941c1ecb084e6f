package trust

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
)

// PBES2 (RFC 8018) as openssl writes it for PKCS#8: PBKDF2 with HMAC-SHA256 and AES-256-CBC. Other algorithms
// are not read. Strangers do not choose the work: a file asks for at most maxIterations.
const (
	iterations    = 600_000
	maxIterations = 10_000_000
	aesKey        = 32
	saltSize      = 16
)

var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidSHA256 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}
	oidAES256 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
)

type encryptedPKCS8 struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

type pbes2Params struct {
	KDF, Cipher pkix.AlgorithmIdentifier
}

type pbkdf2Params struct {
	Salt       []byte
	Iterations int
	KeyLength  int                      `asn1:"optional"`
	PRF        pkix.AlgorithmIdentifier `asn1:"optional"` // absent = HMAC-SHA1, which is not read
}

func encryptPKCS8(der, passphrase []byte) ([]byte, error) {
	var salt [saltSize]byte
	var iv [aes.BlockSize]byte
	_, _ = rand.Read(salt[:]) // never fails (crypto/rand)
	_, _ = rand.Read(iv[:])
	block, err := cipherOf(passphrase, salt[:], iterations)
	if err != nil {
		return nil, err
	}
	pad := aes.BlockSize - len(der)%aes.BlockSize
	data := append(bytes.Clone(der), bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, iv[:]).CryptBlocks(data, data)

	kdf, err := asn1.Marshal(pbkdf2Params{Salt: salt[:], Iterations: iterations, PRF: pkix.AlgorithmIdentifier{Algorithm: oidSHA256, Parameters: asn1.NullRawValue}})
	if err != nil {
		return nil, err
	}
	ivDER, err := asn1.Marshal(iv[:])
	if err != nil {
		return nil, err
	}
	params, err := asn1.Marshal(pbes2Params{
		KDF:    pkix.AlgorithmIdentifier{Algorithm: oidPBKDF2, Parameters: asn1.RawValue{FullBytes: kdf}},
		Cipher: pkix.AlgorithmIdentifier{Algorithm: oidAES256, Parameters: asn1.RawValue{FullBytes: ivDER}},
	})
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(encryptedPKCS8{pkix.AlgorithmIdentifier{Algorithm: oidPBES2, Parameters: asn1.RawValue{FullBytes: params}}, data})
}

func decryptPKCS8(der, passphrase []byte) ([]byte, error) {
	var outer encryptedPKCS8
	var params pbes2Params
	var kdf pbkdf2Params
	var iv []byte
	for _, step := range []struct {
		from func() []byte
		into any
	}{
		{func() []byte { return der }, &outer},
		{func() []byte { return outer.Algorithm.Parameters.FullBytes }, &params},
		{func() []byte { return params.KDF.Parameters.FullBytes }, &kdf},
		{func() []byte { return params.Cipher.Parameters.FullBytes }, &iv},
	} {
		if rest, err := asn1.Unmarshal(step.from(), step.into); err != nil || len(rest) > 0 {
			return nil, badKey("it is no encrypted PKCS#8 key")
		}
	}
	if !outer.Algorithm.Algorithm.Equal(oidPBES2) || !params.KDF.Algorithm.Equal(oidPBKDF2) || !params.Cipher.Algorithm.Equal(oidAES256) || !kdf.PRF.Algorithm.Equal(oidSHA256) {
		return nil, badKey("its encryption is not PBES2 with PBKDF2-SHA256 and AES-256-CBC")
	}
	if kdf.Iterations < 1 || kdf.Iterations > maxIterations || len(iv) != aes.BlockSize || len(outer.Data) == 0 || len(outer.Data)%aes.BlockSize != 0 {
		return nil, badKey("its encryption has parameters out of range")
	}
	block, err := cipherOf(passphrase, kdf.Salt, kdf.Iterations)
	if err != nil {
		return nil, err
	}
	plain := bytes.Clone(outer.Data)
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, plain)
	pad := int(plain[len(plain)-1])
	if pad < 1 || pad > aes.BlockSize || !bytes.HasSuffix(plain, bytes.Repeat([]byte{byte(pad)}, pad)) {
		return nil, badKey("%w", ErrPassphrase)
	}
	return plain[:len(plain)-pad], nil
}

func cipherOf(passphrase, salt []byte, n int) (cipher.Block, error) {
	key, err := pbkdf2.Key(sha256.New, string(passphrase), salt, n, aesKey)
	if err != nil {
		return nil, badKey("%w", err)
	}
	return aes.NewCipher(key)
}
