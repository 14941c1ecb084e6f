package dstest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"runtime"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// LegacyPackage is a plugin package as tools of the original DS pushed it.
type LegacyPackage struct {
	Repository, Tag string // "host/acme/ds-old"
	Program         []byte
	Single          bool   // one manifest, no index
	ByAnnotation    bool   // the index tells platforms by annotations only
	Archive         bool   // tar+gzip with the program and a README, not the raw file
	Artifact        bool   // media types of artifact, not of plugin
	MediaType       string // another type of the layer
	Inside          string // name of the program in the archive; empty = the last element of the repository
	Annotations     map[string]string

	Key       *rsa.PrivateKey // signs the layer; nil = no signature
	NoKeyID   bool
	Signature string // in place of a right one
}

// PushLegacy pushes p to a registry on plain HTTP.
func PushLegacy(p LegacyPackage) error {
	host, repo, _ := strings.Cut(p.Repository, "/")
	r := rawRegistry{"http://" + host + "/v2/" + repo}
	content, err := p.content(path.Base(repo))
	if err != nil {
		return err
	}
	layer, err := p.layer(content)
	if err != nil {
		return err
	}
	config := []byte("{}")
	manifest := map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": []any{layer},
		"config": described("application/vnd.oci.empty.v1+json", config),
	}
	if p.Single && p.Annotations != nil {
		manifest["annotations"] = p.Annotations
	}
	for _, b := range [][]byte{content, config} {
		if err := r.blob(b); err != nil {
			return err
		}
	}
	if p.Single {
		_, err := r.manifest(p.Tag, manifest)
		return err
	}
	child, err := r.manifest("", manifest)
	if err != nil {
		return err
	}
	foreign := map[string]any{"mediaType": child["mediaType"], "digest": child["digest"], "size": child["size"], "platform": map[string]string{"os": "plan9", "architecture": "mips"}}
	if p.ByAnnotation {
		child["annotations"] = map[string]string{"os": runtime.GOOS, "architecture": runtime.GOARCH}
	} else {
		child["platform"] = map[string]string{"os": runtime.GOOS, "architecture": runtime.GOARCH}
	}
	index := map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "artifactType": "application/vnd.delivery-station.plugin.index.v1+json",
		"manifests": []any{foreign, child},
	}
	if p.Annotations != nil {
		index["annotations"] = p.Annotations
	}
	_, err = r.manifest(p.Tag, index)
	return err
}

func (p LegacyPackage) content(base string) ([]byte, error) {
	if !p.Archive {
		return p.Program, nil
	}
	if p.Inside != "" {
		base = p.Inside
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for _, f := range []struct {
		name string
		data []byte
	}{{"README.md", []byte("read me")}, {base, p.Program}} {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o755, Size: int64(len(f.data)), Typeflag: tar.TypeReg}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func (p LegacyPackage) layer(content []byte) (map[string]any, error) {
	what, form := "plugin", "binary"
	if p.Artifact {
		what = "artifact"
	}
	if p.Archive {
		form = "archive.tar+gzip"
	}
	mediaType := "application/vnd.delivery-station." + what + ".v1+" + form
	if p.MediaType != "" {
		mediaType = p.MediaType
	}
	l := described(mediaType, content)
	annotations := make(map[string]string)
	if p.Key != nil {
		sum := sha256.Sum256(content)
		sig, err := rsa.SignPKCS1v15(rand.Reader, p.Key, crypto.SHA256, sum[:])
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKIXPublicKey(&p.Key.PublicKey)
		if err != nil {
			return nil, err
		}
		id := sha256.Sum256(der)
		annotations["delivery-station.io/signature"] = base64.StdEncoding.EncodeToString(sig)
		if !p.NoKeyID {
			annotations["delivery-station.io/key.id"] = hex.EncodeToString(id[:])
		}
	}
	if p.Signature != "" {
		annotations["delivery-station.io/signature"] = p.Signature
	}
	if len(annotations) > 0 {
		l["annotations"] = annotations
	}
	return l, nil
}

func described(mediaType string, b []byte) map[string]any {
	return map[string]any{"mediaType": mediaType, "digest": digestText(b), "size": len(b)}
}

func digestText(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// rawRegistry is one repository as its HTTP API.
type rawRegistry struct{ url string }

func (r rawRegistry) blob(b []byte) error {
	return send(http.MethodPost, r.url+"/blobs/uploads/?digest="+digestText(b), "application/octet-stream", b)
}

// manifest puts a document under a tag, or without one under its digest.
func (r rawRegistry) manifest(tag string, doc map[string]any) (map[string]any, error) {
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	if tag == "" {
		tag = digestText(b)
	}
	return described(doc["mediaType"].(string), b), send(http.MethodPut, r.url+"/manifests/"+tag, doc["mediaType"].(string), b)
}

func send(method, url, mediaType string, b []byte) error {
	req, err := http.NewRequest(method, url, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", mediaType)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusCreated {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
		return fmt.Errorf("%s %s: %s %s", method, url, res.Status, text)
	}
	return nil
}

// RSAKeyFile writes the public key of a new RSA key to name.
func RSAKeyFile(name string) (*rsa.PrivateKey, error) {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		return nil, err
	}
	return k, os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600)
}

// pushLegacy is the script command push-legacy [-single] [-archive] [-key FILE] PROGRAM REPOSITORY TAG; with -key the
// layer is signed and FILE gets the public key.
func pushLegacy(ts *testscript.TestScript, neg bool, args []string) {
	var p LegacyPackage
	for ; len(args) > 3; args = args[1:] {
		switch args[0] {
		case "-single":
			p.Single = true
		case "-archive":
			p.Archive = true
		case "-key":
			var err error
			p.Key, err = RSAKeyFile(ts.MkAbs(args[1]))
			ts.Check(err)
			args = args[1:]
		default:
			ts.Fatalf("push-legacy: unknown word %s", args[0])
		}
	}
	if neg || len(args) != 3 {
		ts.Fatalf("usage: push-legacy [-single] [-archive] [-key FILE] PROGRAM REPOSITORY TAG")
	}
	var err error
	p.Program, err = os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	p.Repository, p.Tag = args[1], args[2]
	ts.Check(PushLegacy(p))
}
