package trust_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/trust"
)

// ecKey is an ECDSA key in the form that openssl ecparam writes.
func ecKey(t testing.TB, curve elliptic.Curve) []byte {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

func word(s string) func() ([]byte, error) { return func() ([]byte, error) { return []byte(s), nil } }

func TestKeyFiles(t *testing.T) {
	k := newKey(t)
	for _, passphrase := range []string{"", "correct horse"} {
		text, err := k.Encode([]byte(passphrase))
		if err != nil {
			t.Fatal(err)
		}
		again, err := trust.ParsePrivateKey(text, word(passphrase))
		if err != nil || again.ID() != k.ID() {
			t.Errorf("%q: %v", passphrase, err)
		}
	}
	pub, err := trust.ParseKey(append([]byte("comment\n"), k.PEM()...))
	if err != nil || pub.ID() != k.ID() || !bytes.Equal(pub.DER(), k.DER()) {
		t.Errorf("public: %v", err)
	}
	if id, err := trust.ParseKeyID(string(k.ID())); err != nil || id.Kind() != trust.Ed25519 || len(id.Short()) != len("ed25519:")+12+len("…") {
		t.Errorf("%s, %v", id, err)
	}
}

func TestBadKeyFiles(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	smallDER, err := x509.MarshalPKIXPublicKey(&small.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	k := newKey(t)
	locked, err := k.Encode([]byte("right"))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := k.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, parse := range map[string]func() error{
		"no PEM":            func() error { _, err := trust.ParseKey([]byte("x")); return err },
		"two blocks":        func() error { _, err := trust.ParseKey(append(k.PEM(), k.PEM()...)); return err },
		"private as public": func() error { _, err := trust.ParseKey(plain); return err },
		"public as private": func() error { _, err := trust.ParsePrivateKey(k.PEM(), nil); return err },
		"too large":         func() error { _, err := trust.ParseKey(bytes.Repeat([]byte("x"), 1<<20)); return err },
		"P-384":             func() error { _, err := trust.ParsePrivateKey(ecKey(t, elliptic.P384()), nil); return err },
		"RSA of 1024 bits":  func() error { _, err := trust.NewKey(smallDER); return err },
		"wrong passphrase":  func() error { _, err := trust.ParsePrivateKey(locked, word("wrong")); return err },
		"no passphrase":     func() error { _, err := trust.ParsePrivateKey(locked, nil); return err },
		"key id":            func() error { _, err := trust.ParseKeyID("ed25519:9f3c"); return err },
		"key id of a kind":  func() error { _, err := trust.ParseKeyID(strings.Replace(string(k.ID()), "ed", "xd", 1)); return err },
		"attestation type": func() error {
			_, err := trust.SignAttestation(k, index, repo, trust.ReleaseType, []byte("{}"))
			return err
		},
		"predicate": func() error { _, err := trust.SignAttestation(k, index, repo, "https://x", []byte("{")); return err },
	} {
		if err := parse(); hostabi.ReasonOf(err) != hostabi.ReasonUsage {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := trust.ParsePrivateKey(locked, nil); !errors.Is(err, trust.ErrPassphrase) {
		t.Errorf("no passphrase: %v", err)
	}
}

func TestECDSASigns(t *testing.T) {
	k, err := trust.ParsePrivateKey(ecKey(t, elliptic.P256()), nil)
	if err != nil {
		t.Fatal(err)
	}
	in := input(nil, pinned(k), signed(t, k, nil))
	if v, err := trust.Evaluate(in); err != nil || v.Key != k.ID() || v.Key.Kind() != trust.ECDSA {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestOpenSSL reads what openssl writes and has openssl read what ds writes.
func TestOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("there is no openssl here")
	}
	dir := t.TempDir()
	run := func(args ...string) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), openssl, args...)
		c.Dir = dir
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("openssl %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run("genpkey", "-algorithm", "ed25519", "-out", "plain.pem")
	run("pkcs8", "-topk8", "-in", "plain.pem", "-out", "locked.pem", "-passout", "pass:secret")
	run("pkey", "-in", "plain.pem", "-pubout", "-out", "pub.pem")
	run("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "ec.pem")
	pub, err := trust.ParseKey([]byte(read(t, filepath.Join(dir, "pub.pem"))))
	if err != nil {
		t.Fatal(err)
	}
	for name, passphrase := range map[string]string{"plain.pem": "", "locked.pem": "secret"} {
		k, err := trust.ParsePrivateKey([]byte(read(t, filepath.Join(dir, name))), word(passphrase))
		if err != nil || k.ID() != pub.ID() {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := trust.ParsePrivateKey([]byte(read(t, filepath.Join(dir, "ec.pem"))), nil); err != nil {
		t.Error(err)
	}
	k := newKey(t)
	text, err := k.Encode([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ours.pem"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := run("pkey", "-in", "ours.pem", "-passin", "pass:secret", "-pubout"); got != string(k.PEM()) {
		t.Errorf("openssl sees %s, want %s", got, k.PEM())
	}
}
