package trust

import (
	"cmp"
	"crypto"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

const maxLayerKeys = 1000

// VerifyLayer verifies the signature of the original DS over the digest of a layer: base64 of RSA PKCS#1 v1.5
// with SHA-256. named is the hex id of the key that the layer names, or empty: then every key is tried. The
// result is the key that fits, empty when none of keys does; that is no error, because the signer may be
// unknown. An undecodable signature, or one that the known named key did not make, is bad: SIGNATURE.
func VerifyLayer(keys []*Key, layer hostabi.Digest, signature, named string) (KeyID, error) {
	sum, err := hex.DecodeString(layer.Hex())
	if err != nil || !layer.Valid() {
		return "", badLayer(layer, "its digest is no SHA-256")
	}
	sig, err := base64.StdEncoding.DecodeString(signature)
	if err != nil {
		return "", badLayer(layer, "it is no base64")
	}
	for _, k := range keys {
		pub, ok := k.Public().(*rsa.PublicKey)
		if !ok || named != "" && k.ID().Hex() != strings.ToLower(named) {
			continue
		}
		if rsa.VerifyPKCS1v15(pub, crypto.SHA256, sum, sig) == nil {
			return k.ID(), nil
		}
		if named != "" {
			return "", badLayer(layer, "key %s did not make it", k.ID().Short())
		}
	}
	return "", nil
}

func badLayer(layer hostabi.Digest, format string, a ...any) error {
	e := hostabi.Errorf(hostabi.ReasonSignature, format, a...)
	e.Msg = "signature of layer " + clip(string(layer)) + " is bad: " + e.Msg
	return e
}

// LayerKeys reads the RSA public keys that verify layers of the original DS: the .pem and .pub files in dirs, and
// files. A directory that is not there holds none, and in a directory what is no RSA key is not looked at. A file
// that was named is an error if it is none: CONFIG_VALUE.
func LayerKeys(dirs, files []string) ([]*Key, error) {
	var out []*Key
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, hostabi.Errorf(hostabi.ReasonConfigValue, "keys in %s: %w", dir, err)
		}
		for _, e := range entries {
			if ext := strings.ToLower(filepath.Ext(e.Name())); ext != ".pem" && ext != ".pub" || len(out) == maxLayerKeys {
				continue
			}
			if k, err := readLayerKey(filepath.Join(dir, e.Name())); err == nil {
				out = append(out, k)
			}
		}
	}
	for _, file := range files {
		k, err := readLayerKey(file)
		if err != nil {
			return nil, hostabi.Errorf(hostabi.ReasonConfigValue, "key %s: %w", file, err)
		}
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b *Key) int { return cmp.Compare(a.ID(), b.ID()) })
	return slices.CompactFunc(out, func(a, b *Key) bool { return a.ID() == b.ID() }), nil
}

func readLayerKey(file string) (*Key, error) {
	text, err := atomicfile.ReadFile(atomicfile.OS(), file, maxKeyFile)
	if err != nil {
		return nil, err
	}
	k, err := ParseKey(text)
	if err == nil && k.ID().Kind() != RSA {
		err = badKey("it is %s, layers are signed with RSA", k.ID().Kind())
	}
	if err != nil {
		return nil, err
	}
	return k, nil
}
