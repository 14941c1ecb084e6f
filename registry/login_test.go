package registry_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/registry"
)

// noHelpers keeps the credential helpers of this machine out of a test.
func noHelpers(t *testing.T) { t.Setenv("PATH", t.TempDir()) }

func TestLogin(t *testing.T) {
	noHelpers(t)
	for _, token := range []bool{false, true} {
		srv, ref, _ := pushed(t, dstest.RegistryOptions{Username: "u", Password: canary, Token: token}, noise(1, 10))
		file := filepath.Join(t.TempDir(), "ds", "auth.json")
		o := registry.Options{CredentialFiles: []string{file, filepath.Join(t.TempDir(), "none.json")}, AuthFile: file}
		c, _ := newClient(t, o)
		pull := func(c *registry.Client, want hostabi.Reason) {
			t.Helper()
			_, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, newSink(t), nil)
			wantReason(t, err, want)
			noCanary(t, err)
			if want == hostabi.ReasonAuthRequired && hostabi.AsError(err).Fix != "ds registry login "+srv.Host {
				t.Errorf("fix is %q", hostabi.AsError(err).Fix)
			}
		}
		good := registry.Credential{Registry: srv.Host, Username: "u", Password: canary}

		pull(c, hostabi.ReasonAuthRequired)
		bad := good
		bad.Password += "x"
		_, _, err := c.Login(t.Context(), srv.Host, bad, true)
		wantReason(t, err, hostabi.ReasonAuthRequired)
		noCanary(t, err)
		if _, plain, err := c.Login(t.Context(), srv.Host, good, false); err != nil || plain {
			t.Errorf("only asking: %v", err)
		}
		if _, err := os.Stat(file); err == nil {
			t.Error("credentials were stored that were refused, or only tried")
		}
		stored, plain, err := c.Login(t.Context(), srv.Host, good, true)
		if err != nil || stored != file || !plain {
			t.Fatalf("stored in %q, plain %v: %v", stored, plain, err)
		}
		if fi, err := os.Stat(file); err != nil || (fi.Mode().Perm() != 0o600 && runtime.GOOS != "windows") {
			t.Errorf("%v, %v", fi.Mode(), err)
		}
		pull(c, "") // the same client looks again
		other, _ := newClient(t, o)
		pull(other, "")
		logins, err := other.Logins(t.Context())
		if err != nil || len(logins) != 1 || logins[0] != (registry.LoginInfo{Host: srv.Host, User: "u", Source: file}) {
			t.Errorf("logins: %+v, %v", logins, err)
		}

		withConfig := o
		withConfig.Credentials = []registry.Credential{good}
		c, _ = newClient(t, withConfig)
		if removed, _, err := c.Logout(t.Context(), srv.Host, true); err != nil || len(removed) != 1 {
			t.Errorf("trying to log out: %v, %v", removed, err)
		}
		removed, left, err := c.Logout(t.Context(), srv.Host, false)
		if err != nil || strings.Join(removed, " ") != file || strings.Join(left, " ") != "auth.credentials" {
			t.Errorf("removed %v, left %v, %v", removed, left, err)
		}
		other, _ = newClient(t, o)
		pull(other, hostabi.ReasonAuthRequired)
		if removed, left, err := other.Logout(t.Context(), srv.Host, false); err != nil || len(removed)+len(left) > 0 {
			t.Errorf("logging out twice: %v, %v, %v", removed, left, err)
		}
		b, err := os.ReadFile(file)
		if err != nil || strings.Contains(string(b), srv.Host) {
			t.Errorf("the file still has %s, %v", b, err)
		}
	}
}

// TestLoginKeepsTheFile: members of a credential file that are nothing of ours stay, a broken file is not
// replaced.
func TestLoginKeepsTheFile(t *testing.T) {
	noHelpers(t)
	srv := dstest.Registry(t, dstest.RegistryOptions{Username: "u", Password: canary})
	file := writeFile(t, "auth.json", []byte(`{"auths":{"ghcr.io":{"auth":"eDp5"}},"HttpHeaders":{"A":"b"},"credHelpers":null}`))
	o := registry.Options{CredentialFiles: []string{file}, AuthFile: file}
	c, _ := newClient(t, o)
	if _, _, err := c.Login(t.Context(), srv.Host, registry.Credential{Username: "u", Password: canary}, true); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Logout(t.Context(), "ghcr.io", false); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Auths       map[string]any
		HttpHeaders map[string]string
	}
	b, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(b, &got) != nil || got.HttpHeaders["A"] != "b" || len(got.Auths) != 1 || got.Auths[srv.Host] == nil {
		t.Errorf("the file is %s, %v", b, err)
	}
	for _, broken := range []string{"{", `{"auths":[]}`, `{"credHelpers":3}`} {
		file := writeFile(t, "auth.json", []byte(broken))
		c, _ := newClient(t, registry.Options{AuthFile: file})
		_, _, err := c.Login(t.Context(), srv.Host, registry.Credential{Username: "u", Password: canary}, true)
		wantReason(t, err, hostabi.ReasonCredentialHelper)
		noCanary(t, err)
		if b, _ := os.ReadFile(file); string(b) != broken {
			t.Errorf("the broken file became %s", b)
		}
	}
	c, _ = newClient(t, registry.Options{})
	_, _, err = c.Login(t.Context(), srv.Host, registry.Credential{Username: "u", Password: canary}, true)
	wantReason(t, err, hostabi.ReasonCredentialHelper)
	for _, host := range []string{"", "a b", "https://x.example", "x.example/repo", "u:" + canary + "@x.example"} {
		_, _, err := c.Login(t.Context(), host, registry.Credential{Username: "u", Password: canary}, true)
		wantReason(t, err, hostabi.ReasonRef)
		noCanary(t, err)
		_, _, err = c.Logout(t.Context(), host, false)
		wantReason(t, err, hostabi.ReasonRef)
	}
}

// helperProgram puts a credential helper on PATH that keeps one secret in a file, and returns that file and
// the log of its actions.
func helperProgram(t *testing.T, name string) (kept, calls string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the helper of this test is a shell script")
	}
	dir := t.TempDir()
	kept, calls = filepath.Join(dir, "kept"), filepath.Join(dir, "calls")
	script := "#!/bin/sh\nprintf '%s|%s\\n' \"$*\" \"$(env)\" >>" + calls + "\ncase $1 in\n" +
		"store) read -r line; printf '%s' \"$line\" >" + kept + " ;;\n" +
		"get) test -f " + kept + " || { echo 'credentials not found in native keychain'; exit 1; }; /bin/cat " + kept + " ;;\n" +
		"erase) test -f " + kept + " && /bin/rm " + kept + " ;;\nesac\n"
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-"+name), []byte(script), 0o700); err != nil { // a program has to be executable
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+"/usr/bin"+string(os.PathListSeparator)+"/bin")
	return kept, calls
}

func TestLoginHelper(t *testing.T) {
	detected := map[string]string{"darwin": "osxkeychain", "linux": "secretservice"}[runtime.GOOS]
	for name, k := range map[string]struct {
		program string
		config  string // docker's file; HOST is replaced
	}{
		"credsStore":  {"dstest", `{"credsStore":"dstest"}`},
		"credHelpers": {"dstest", `{"credHelpers":{"HOST":"dstest"},"credsStore":"other"}`},
		"detected":    {detected, `{}`},
	} {
		t.Run(name, func(t *testing.T) {
			if k.program == "" {
				t.Skip("this system has no usual helper")
			}
			kept, calls := helperProgram(t, k.program)
			srv, ref, _ := pushed(t, dstest.RegistryOptions{Username: "u", Password: canary, Token: true}, noise(1, 10))
			docker := writeFile(t, "config.json", []byte(strings.ReplaceAll(k.config, "HOST", srv.Host)))
			own := writeFile(t, "auth.json", []byte(`{"auths":{"`+srv.Host+`":{"auth":"dTpvbGQ="}}}`)) // an older login
			o := registry.Options{CredentialFiles: []string{own, docker}, AuthFile: own}
			c, _ := newClient(t, o)
			stored, plain, err := c.Login(t.Context(), srv.Host, registry.Credential{Username: "u", Password: canary}, true)
			if err != nil || plain || stored != "docker-credential-"+k.program {
				t.Fatalf("stored by %q, plain %v, %v", stored, plain, err)
			}
			other, _ := newClient(t, o)
			if _, err := other.Pull(t.Context(), ref, hostabi.PullOptions{}, newSink(t), nil); err != nil {
				t.Error(err)
			}
			for _, file := range []string{own, docker, calls} { // calls has arguments and environment of the helper
				if b, err := os.ReadFile(file); err != nil || strings.Contains(string(b), canary) || strings.Contains(string(b), "dTpvbGQ=") {
					t.Errorf("%s holds %s, %v", file, b, err)
				}
			}
			logins, err := other.Logins(t.Context())
			if err != nil || (name != "credsStore" && (len(logins) != 1 || logins[0].User != "u" || logins[0].Source != stored)) {
				t.Errorf("logins: %+v, %v", logins, err)
			}
			removed, left, err := other.Logout(t.Context(), srv.Host, false)
			if err != nil || len(removed) != 1 || removed[0] != stored || len(left) != 0 {
				t.Errorf("removed %v, left %v, %v", removed, left, err)
			}
			if _, err := os.Stat(kept); err == nil {
				t.Error("the helper still has the secret")
			}
		})
	}
	t.Run("fails", func(t *testing.T) {
		noHelpers(t)
		srv := dstest.Registry(t, dstest.RegistryOptions{Username: "u", Password: canary})
		c, _ := newClient(t, registry.Options{CredentialFiles: []string{writeFile(t, "c.json", []byte(`{"credsStore":"gone"}`))}})
		_, _, err := c.Login(t.Context(), srv.Host, registry.Credential{Username: "u", Password: canary}, true)
		wantReason(t, err, hostabi.ReasonCredentialHelper)
		noCanary(t, err)
		_, _, err = c.Logout(t.Context(), srv.Host, false)
		wantReason(t, err, hostabi.ReasonCredentialHelper)
	})
}

func TestPing(t *testing.T) {
	t.Parallel()
	secured := dstest.Registry(t, dstest.RegistryOptions{TLS: true})
	creds := func(srv *dstest.RegistryServer, password string) registry.Options {
		return registry.Options{Credentials: []registry.Credential{{Registry: srv.Host, Username: "u", Password: password}}}
	}
	open, ref, _ := pushed(t, dstest.RegistryOptions{NoReferrers: true, NoRanges: true}, noise(1, 100))
	basic, basicRef, _ := pushed(t, dstest.RegistryOptions{Username: "u", Password: canary}, noise(1, 100))
	bearer, _, _ := pushed(t, dstest.RegistryOptions{Username: "u", Password: canary, Token: true}, noise(1, 100))
	for name, k := range map[string]struct {
		o     registry.Options
		where string
		want  registry.HostInfo
		fails hostabi.Reason
	}{
		"open":              {registry.Options{}, open.Host, registry.HostInfo{Host: open.Host, TLS: "plain HTTP", Auth: "none"}, ""},
		"repository":        {registry.Options{}, ref, registry.HostInfo{Host: open.Host, TLS: "plain HTTP", Auth: "none", Referrers: "tag", Ranges: "no"}, ""},
		"no such tag":       {registry.Options{}, open.Host + "/team/app:none", registry.HostInfo{Host: open.Host, TLS: "plain HTTP", Auth: "none", Referrers: "tag"}, ""},
		"basic":             {creds(basic, canary), basicRef, registry.HostInfo{Host: basic.Host, TLS: "plain HTTP", Auth: "Basic", Login: "auth.credentials", Referrers: "api", Ranges: "yes"}, ""},
		"wrong password":    {creds(basic, "x"), basic.Host, registry.HostInfo{}, hostabi.ReasonAuthRequired},
		"bearer":            {creds(bearer, canary), bearer.Host, registry.HostInfo{Host: bearer.Host, TLS: "plain HTTP", Auth: "Bearer", Realm: bearer.Host, Login: "auth.credentials"}, ""},
		"nobody":            {registry.Options{}, bearer.Host, registry.HostInfo{Host: bearer.Host, TLS: "plain HTTP", Auth: "Bearer", Realm: bearer.Host}, ""},
		"TLS":               {registry.Options{Hosts: []registry.Host{{Host: secured.Host, InsecureTLS: true}}}, secured.Host, registry.HostInfo{Host: secured.Host, TLS: "TLS 1.3", Auth: "none"}, ""},
		"unknown authority": {registry.Options{Hosts: []registry.Host{{Host: secured.Host, CAFile: writeFile(t, "ca.pem", selfSigned(t))}}}, secured.Host, registry.HostInfo{}, hostabi.ReasonTLS},
		"offline":           {registry.Options{Offline: true}, open.Host, registry.HostInfo{}, hostabi.ReasonOffline},
		"layout":            {registry.Options{}, "oci-layout:/x", registry.HostInfo{}, hostabi.ReasonRef},
		"nonsense":          {registry.Options{}, "a b", registry.HostInfo{}, hostabi.ReasonRef},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := newClient(t, k.o)
			got, err := c.Ping(t.Context(), k.where)
			wantReason(t, err, k.fails)
			noCanary(t, err)
			if err == nil && got != k.want {
				t.Errorf("got %+v, want %+v", got, k.want)
			}
		})
	}
	strange := dstest.Registry(t, dstest.RegistryOptions{})
	strange.Inject(dstest.Fault{Status: 401, Header: http.Header{"Www-Authenticate": {"Digest realm=\"x\""}}})
	c, _ := newClient(t, registry.Options{})
	_, err := c.Ping(t.Context(), strange.Host)
	wantReason(t, err, hostabi.ReasonBadAnswer)
}
