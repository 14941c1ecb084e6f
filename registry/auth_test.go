package registry_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/registry"
)

const canary = "canary-7c1f-s3cret"

// dockerConfig writes a file of docker's format with one entry and returns its path.
func dockerConfig(t *testing.T, key, user, password string) string {
	t.Helper()
	return writeFile(t, "config.json", marshal(t, object{"auths": object{
		key: object{"auth": base64.StdEncoding.EncodeToString([]byte(user + ":" + password))},
	}}))
}

func writeFile(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	for _, token := range []bool{false, true} {
		o := dstest.RegistryOptions{Username: "u", Password: canary, Token: token}
		srv, ref, _ := pushed(t, o, noise(1, 10))
		for name, k := range map[string]struct {
			o    registry.Options
			want hostabi.Reason
		}{
			"none":                  {registry.Options{}, hostabi.ReasonAuthRequired},
			"option":                {registry.Options{Credentials: []registry.Credential{{Registry: srv.Host, Username: "u", Password: canary}}}, ""},
			"option, token word":    {registry.Options{Credentials: []registry.Credential{{Registry: srv.Host, Username: "u", Token: canary}}}, ""},
			"option with path":      {registry.Options{Credentials: []registry.Credential{{Registry: srv.Host, Username: "u", Password: "wrong"}, {Registry: srv.Host + "/team", Username: "u", Password: canary}}}, ""},
			"option wrong":          {registry.Options{Credentials: []registry.Credential{{Registry: srv.Host, Username: "u", Password: canary + "x"}}}, hostabi.ReasonAuthRequired},
			"docker file":           {registry.Options{CredentialFiles: []string{"/nowhere/auth.json", dockerConfig(t, srv.Host, "u", canary)}}, ""},
			"docker file with path": {registry.Options{CredentialFiles: []string{dockerConfig(t, srv.Host+"/team/app", "u", canary)}}, ""},
			"another host's":        {registry.Options{CredentialFiles: []string{dockerConfig(t, "ghcr.io", "u", canary)}}, hostabi.ReasonAuthRequired},
			"first file wins":       {registry.Options{CredentialFiles: []string{dockerConfig(t, srv.Host, "u", canary), dockerConfig(t, srv.Host, "u", "wrong")}}, ""},
			"broken file":           {registry.Options{CredentialFiles: []string{writeFile(t, "c.json", []byte("{\n\n\"auths\": [}"))}}, hostabi.ReasonCredentialHelper},
			"broken entry":          {registry.Options{CredentialFiles: []string{writeFile(t, "c.json", []byte(`{"auths":{"`+srv.Host+`":{"auth":"`+base64.StdEncoding.EncodeToString([]byte(canary))+`"}}}`))}}, hostabi.ReasonCredentialHelper},
			"empty file":            {registry.Options{CredentialFiles: []string{writeFile(t, "c.json", nil)}}, hostabi.ReasonAuthRequired},
		} {
			t.Run(fmt.Sprintf("token=%v/%s", token, name), func(t *testing.T) {
				c, _ := newClient(t, k.o)
				cache := newSink(t)
				_, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, cache, nil)
				wantReason(t, err, k.want)
				noCanary(t, err)
				if name == "option wrong" && !strings.Contains(err.Error(), "auth.credentials") {
					t.Errorf("%v does not name the source", err)
				}
				if name == "broken file" && !strings.Contains(err.Error(), "line 3") {
					t.Errorf("%v does not name the line", err)
				}
			})
		}
	}
}

// noCanary looks for the secret in everything that an error shows.
func noCanary(t *testing.T, err error) {
	t.Helper()
	for e := err; e != nil; e = errors.Unwrap(e) {
		if s := fmt.Sprintf("%v %+v %#v", e, e, e); strings.Contains(s, canary) || strings.Contains(s, base64.StdEncoding.EncodeToString([]byte("u:"+canary))) {
			t.Fatalf("the secret is in the error %s", s)
		}
	}
}

func TestCredentialHelper(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the helper of this test is a shell script")
	}
	srv, ref, _ := pushed(t, dstest.RegistryOptions{Username: "u", Password: canary, Token: true}, noise(1, 10))
	dir := t.TempDir()
	calls := filepath.Join(dir, "calls")
	script := "#!/bin/sh\nread host\necho \"$1 $host\" >>" + calls + "\n" +
		"if [ \"$host\" = broken ]; then echo '" + canary + "'; exit 1; fi\n" +
		"echo '{\"ServerURL\":\"x\",\"Username\":\"u\",\"Secret\":\"" + canary + "\"}'\n"
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-dstest"), []byte(script), 0o700); err != nil { // a program has to be executable
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	for _, member := range []object{{"credsStore": "dstest"}, {"credHelpers": object{srv.Host: "dstest"}}} {
		c, _ := newClient(t, registry.Options{CredentialFiles: []string{writeFile(t, "config.json", marshal(t, member))}})
		for range 3 {
			if _, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, newSink(t), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	b, err := os.ReadFile(calls)
	if err != nil || strings.Count(string(b), "\n") != 2 {
		t.Errorf("the helper ran %q times, want once per client: %v", b, err)
	}
	c, _ := newClient(t, registry.Options{CredentialFiles: []string{writeFile(t, "config.json", []byte(`{"credsStore":"not-there"}`))}})
	_, err = c.Pull(t.Context(), ref, hostabi.PullOptions{}, newSink(t), nil)
	wantReason(t, err, hostabi.ReasonCredentialHelper)
	noCanary(t, err)
}

// TestTokens counts token requests: one per scope, also after a token expired.
func TestTokens(t *testing.T) {
	t.Parallel()
	layers := [][]byte{noise(1, 10), noise(2, 10), noise(3, 10)}
	srv, ref, root := pushed(t, dstest.RegistryOptions{Username: "u", Password: canary, Token: true}, layers...)
	c, _ := newClient(t, registry.Options{Credentials: []registry.Credential{{Registry: srv.Host, Username: "u", Password: canary}}})
	cache := newSink(t)
	steps := []struct {
		name string
		do   func() error
	}{
		{"pull", func() error {
			_, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, cache, nil)
			return err
		}},
		{"push", func() error { return c.Push(t.Context(), srv.Host+"/team/b:v1", root, cache.OpenFunc, nil) }},
		{"expired", func() error {
			srv.ExpireTokens()
			_, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, newSink(t), nil)
			return err
		}},
	}
	for _, s := range steps {
		srv.Forget()
		if err := s.do(); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if n := srv.Count("", "/token"); n != 1 {
			t.Errorf("%s: %d token requests, want 1", s.name, n)
		}
	}

	anonymous := dstest.Registry(t, dstest.RegistryOptions{Username: "u", Password: canary, Token: true, AnonymousPull: true})
	owner, _ := newClient(t, registry.Options{Credentials: []registry.Credential{{Registry: anonymous.Host, Username: "u", Password: canary}}})
	mustPush(t, owner, anonymous.Host+"/team/app:v1", root, cache)
	nobody, _ := newClient(t, registry.Options{})
	if _, err := nobody.Pull(t.Context(), anonymous.Host+"/team/app:v1", hostabi.PullOptions{}, newSink(t), nil); err != nil {
		t.Errorf("anonymous pull: %v", err)
	}
	wantReason(t, nobody.Push(t.Context(), anonymous.Host+"/team/new:v1", root, cache.OpenFunc, nil), hostabi.ReasonAuthRequired)
}

// TestCanaryStaysHome: the credential of one host is seen by no other, whatever the host answers.
func TestCanaryStaysHome(t *testing.T) {
	t.Parallel()
	layer := noise(1, 1000)
	elsewhere, _, _ := pushed(t, dstest.RegistryOptions{}, layer)
	port := elsewhere.Host[strings.LastIndexByte(elsewhere.Host, ':'):]
	foreign := "http://localhost" + port // another name of this machine
	blob := "/blobs/" + string(hostabi.DigestOf(layer))
	for name, k := range map[string]struct {
		fault dstest.Fault
		want  hostabi.Reason
	}{
		"redirect to a private host": {dstest.Fault{Path: blob, Status: 307, Header: http.Header{"Location": {foreign + "/v2/team/app" + blob}}}, hostabi.ReasonAddressDenied},
		"redirect to metadata":       {dstest.Fault{Path: blob, Status: 307, Header: http.Header{"Location": {"http://169.254.169.254/latest"}}}, hostabi.ReasonAddressDenied},
		"redirect to a private net":  {dstest.Fault{Path: blob, Status: 307, Header: http.Header{"Location": {"http://10.0.0.1/x"}}}, hostabi.ReasonAddressDenied},
		"redirect to another scheme": {dstest.Fault{Path: blob, Status: 307, Header: http.Header{"Location": {"ftp://localhost/x"}}}, hostabi.ReasonRedirectDenied},
		"redirect for ever":          {dstest.Fault{Path: blob, Status: 307, Header: http.Header{"Location": {"/v2/team/app" + blob}}}, hostabi.ReasonRedirectDenied},
		"redirect on the same name":  {dstest.Fault{Path: blob, Times: 1, Status: 307, Header: http.Header{"Location": {elsewhere.URL + "/v2/team/app" + blob}}}, ""},
		"token server elsewhere":     {dstest.Fault{Path: "/manifests/", Status: 401, Header: http.Header{"Www-Authenticate": {`Bearer realm="` + foreign + `/token",service="x"`}}}, hostabi.ReasonAddressDenied},
		"redirect of the token":      {dstest.Fault{Path: "/token", Status: 307, Header: http.Header{"Location": {foreign + "/token"}}}, hostabi.ReasonAddressDenied},
	} {
		t.Run(name, func(t *testing.T) {
			srv, ref, _ := pushed(t, dstest.RegistryOptions{Username: "u", Password: canary, Token: true}, layer)
			elsewhere.Forget()
			srv.Inject(k.fault)
			c, _ := newClient(t, registry.Options{Credentials: []registry.Credential{{Registry: srv.Host, Username: "u", Password: canary}}})
			_, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, newSink(t), nil)
			wantReason(t, err, k.want)
			noCanary(t, err)
			for _, q := range elsewhere.Requests() {
				if k.want != "" || q.Authorization != "" {
					t.Errorf("the other host saw %+v", q)
				}
			}
		})
	}

	t.Run("link to a foreign host", func(t *testing.T) {
		srv, ref, _ := pushed(t, dstest.RegistryOptions{Username: "u", Password: canary}, layer)
		elsewhere.Forget()
		srv.Inject(dstest.Fault{Path: "/tags/list", Header: http.Header{"Link": {"<" + foreign + "/v2/team/app/tags/list?n=1>; rel=\"next\""}}})
		c, _ := newClient(t, registry.Options{Credentials: []registry.Credential{{Registry: srv.Host, Username: "u", Password: canary}}})
		var last error
		for _, err := range c.Tags(t.Context(), ref) {
			last = err
		}
		wantReason(t, last, hostabi.ReasonBadAnswer)
		if q := elsewhere.Requests(); len(q) != 0 {
			t.Errorf("the other host saw %v", q)
		}
	})

	t.Run("allowed redirect host", func(t *testing.T) {
		srv, ref, _ := pushed(t, dstest.RegistryOptions{}, layer)
		elsewhere.Forget()
		srv.Inject(dstest.Fault{Path: blob, Status: 307, Header: http.Header{"Location": {foreign + "/v2/team/app" + blob}}})
		c, _ := newClient(t, registry.Options{Hosts: []registry.Host{{Host: srv.Host, RedirectHosts: []string{"localhost"}}}})
		if _, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, newSink(t), nil); err != nil || len(elsewhere.Requests()) != 1 {
			t.Errorf("%v, the other host saw %v", err, elsewhere.Requests())
		}
	})

	t.Run("public only", func(t *testing.T) {
		_, ref, _ := pushed(t, dstest.RegistryOptions{}, layer)
		c, _ := newClient(t, registry.Options{})
		if _, err := c.Resolve(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
		// The connection that the first call left open must not serve the second.
		_, err := c.Resolve(hostabi.WithPublicOnly(t.Context()), ref)
		wantReason(t, err, hostabi.ReasonAddressDenied)
	})
}

func TestTLS(t *testing.T) {
	t.Parallel()
	srv := dstest.Registry(t, dstest.RegistryOptions{TLS: true})
	ca := writeFile(t, "ca.pem", srv.CertPEM())
	local := newSink(t)
	root := local.artifact(t, noise(1, 10))
	for name, k := range map[string]struct {
		host registry.Host
		want hostabi.Reason
	}{
		"with its CA":     {registry.Host{CAFile: ca}, ""},
		"unchecked":       {registry.Host{InsecureTLS: true}, ""},
		"unknown CA":      {registry.Host{CAFile: writeFile(t, "other.pem", selfSigned(t))}, hostabi.ReasonTLS},
		"CA file missing": {registry.Host{CAFile: ca + ".not"}, hostabi.ReasonTLS},
		"CA file is none": {registry.Host{CAFile: writeFile(t, "no.pem", []byte("x"))}, hostabi.ReasonTLS},
		"no certificate":  {registry.Host{InsecureTLS: true, CertFile: "/nowhere", KeyFile: "/nowhere"}, hostabi.ReasonTLS},
	} {
		t.Run(name, func(t *testing.T) {
			k.host.Host = srv.Host
			c, clock := newClient(t, registry.Options{Hosts: []registry.Host{k.host}})
			err := c.Push(t.Context(), srv.Host+"/team/app:v1", root, local.OpenFunc, nil)
			wantReason(t, err, k.want)
			if len(clock.slept) > 0 {
				t.Error("a TLS error was repeated")
			}
		})
	}
	plain := dstest.Registry(t, dstest.RegistryOptions{})
	c, _ := newClient(t, registry.Options{Hosts: []registry.Host{{Host: plain.Host, CAFile: ca}}})
	wantReason(t, c.Push(t.Context(), plain.Host+"/team/app:v1", root, local.OpenFunc, nil), hostabi.ReasonTLS)
}

// selfSigned is a certificate that signed nothing here.
func selfSigned(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestCredentialHidesItself(t *testing.T) {
	t.Parallel()
	c := registry.Credential{Registry: "ghcr.io", Username: "u", Password: canary, Token: canary}
	if s := fmt.Sprintf("%v %+v %#v %s", c, c, c, c); strings.Contains(s, canary) {
		t.Errorf("printed %s", s)
	}
}

// TestServerRepeatsTheCredential: what a registry says of a login that it was sent reaches no error.
func TestServerRepeatsTheCredential(t *testing.T) {
	for _, token := range []bool{false, true} {
		var seen []string
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path == "/token" {
				_, _ = io.WriteString(w, `{"token":"bearer-`+canary+`-bearer"}`)
				return
			}
			sent := q.Header.Get("Authorization")
			if sent == "" {
				challenge := `Basic realm="x"`
				if token {
					challenge = `Bearer realm="http://` + q.Host + `/token",service="x"`
				}
				w.Header().Set("WWW-Authenticate", challenge)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			_, password, _ := q.BasicAuth()
			seen = append(seen, strings.Fields(sent)[1])
			w.WriteHeader(http.StatusForbidden)
			_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": "DENIED", "message": "not for " + sent + " and " + password}}})
		}))
		host := strings.TrimPrefix(srv.URL, "http://")
		c, _ := newClient(t, registry.Options{Credentials: []registry.Credential{{Registry: host, Username: "u", Password: canary}}})
		_, err := c.Pull(t.Context(), host+"/team/app:1", hostabi.PullOptions{}, nil, nil)
		for _, err := range []error{err, func() error { _, err := firstTag(c.Tags(t.Context(), host+"/team/app")); return err }()} {
			text := fmt.Sprintf("%v %+v", err, hostabi.AsError(err))
			if hostabi.ReasonOf(err) != hostabi.ReasonForbidden || strings.Contains(text, canary) || len(seen) == 0 || strings.Contains(text, seen[0]) {
				t.Errorf("token %v: %s", token, text)
			}
		}
		srv.Close()
	}
}

func firstTag(tags iter.Seq2[string, error]) (string, error) {
	for tag, err := range tags {
		return tag, err
	}
	return "", nil
}
