package trust_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/internal/trust"
)

func TestVerifyLayer(t *testing.T) {
	dir := t.TempDir()
	priv, err := dstest.RSAKeyFile(filepath.Join(dir, "a.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dstest.RSAKeyFile(filepath.Join(dir, "b.pub")); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"c.pem": "no key", "README": "text"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ec := filepath.Join(dir, "ed.pem")
	if err := os.WriteFile(ec, newKey(t).PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := trust.LayerKeys(nil, []string{filepath.Join(dir, "a.pem")})
	if err != nil || len(a) != 1 {
		t.Fatal(a, err)
	}
	keys, err := trust.LayerKeys([]string{dir, filepath.Join(dir, "none")}, []string{filepath.Join(dir, "a.pem")})
	if err != nil || len(keys) != 2 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	for _, file := range []string{ec, filepath.Join(dir, "c.pem"), filepath.Join(dir, "missing")} {
		if _, err := trust.LayerKeys(nil, []string{file}); hostabi.ReasonOf(err) != hostabi.ReasonConfigValue {
			t.Errorf("%s: %v", file, err)
		}
	}
	content := []byte("the program")
	sum := sha256.Sum256(content)
	raw, err := rsa.SignPKCS1v15(rand.Reader, priv, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	good, layer, id := base64.StdEncoding.EncodeToString(raw), hostabi.DigestOf(content), a[0].ID()
	other := keys[0].ID()
	if other == id {
		other = keys[1].ID()
	}
	for name, c := range map[string]struct {
		keys     []*trust.Key
		layer    hostabi.Digest
		sig, kid string
		want     trust.KeyID
		bad      bool
	}{
		"named":            {keys, layer, good, id.Hex(), id, false},
		"not named":        {keys, layer, good, "", id, false},
		"no keys":          {nil, layer, good, id.Hex(), "", false},
		"unknown key":      {keys, layer, good, "00", "", false},
		"no key fits":      {keys, hostabi.DigestOf(nil), good, "", "", false},
		"named, not by it": {keys, layer, good, other.Hex(), "", true},
		"other content":    {keys, hostabi.DigestOf(nil), good, id.Hex(), "", true},
		"no base64":        {keys, layer, "!format-v2", "", "", true},
		"no digest":        {keys, "sha256:x", good, "", "", true},
	} {
		got, err := trust.VerifyLayer(c.keys, c.layer, c.sig, c.kid)
		if got != c.want || (hostabi.ReasonOf(err) == hostabi.ReasonSignature) != c.bad || (err != nil) != c.bad {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
