package trust_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/trust"
)

func TestPolicyErrorsHaveAPlace(t *testing.T) {
	k := newKey(t)
	key := "keys:\n- {name: k, file: k.pem}\n"
	rule := func(s string) string { return "version: 1\n" + key + "rules:\n- {match: ghcr.io/acme/x, " + s + "}\n" }
	for text, want := range map[string]string{
		"version: 1\nkey: []\n":                                           `trust.yaml:2:1: unknown key "key"`,
		"keys: []\n":                                                      "version is required",
		"version: 2\n":                                                    "trust.yaml:1:10: version is 2",
		"version: 1\ndefault: none\n":                                     `default is "none"`,
		"version: 1\nmin_release_age: soon\n":                             "min_release_age is not a time",
		"version: 1\nkeys: {}\n":                                          "keys must be a list",
		"version: 1\nkeys: [{name: k}]\n":                                 "needs either file or pem",
		"version: 1\nkeys: [{file: k.pem}]\n":                             "a key needs a name",
		"version: 1\nkeys: [{name: k, file: gone.pem}]\n":                 `key "k": `,
		"version: 1\nkeys: [{name: k, file: k.pem, id: 'ed25519:00'}]\n":  "want ed25519:00",
		"version: 1\n" + key + "- {name: k, file: k.pem}\n":               `key "k" is there twice`,
		rule("require: none, keys: [x]"):                                  `there is no key "x"`,
		rule("require: signature"):                                        "names no keys",
		rule("require: signature, keys: [k], threshold: 2"):               "threshold 2 of 1 keys",
		rule("require: signature, keys: [k, k]"):                          `key "k" is there twice`,
		rule("require: signature, keys: [k], threshold: 0"):               "threshold is 0",
		rule("require: always"):                                           `require is "always"`,
		rule("keys: [k]"):                                                 "needs require",
		rule("require: tofu, predicates: [a]"):                            "names no keys",
		rule("require: tofu, origin: 'ghcr.io/**'"):                       "other wildcards",
		"version: 1\nrules: [{match: '**', require: none}]\n":             "without wildcards",
		"version: 1\nrules: [{match: '***', require: tofu}]\n":            "stars",
		"version: 1\nrules: [{match: 'a b', require: tofu}]\n":            "want a repository",
		"version: 1\nrules: [{match: 'a/*', origin: b, require: tofu}]\n": "one repository for many",
		"version: 1\nrules: [{require: tofu}]\n":                          "needs match",
		"version: [\n":                                                    "trust.yaml:",
	} {
		_, err := trust.ParsePolicy("trust.yaml", []byte(text), func(name string) ([]byte, error) {
			if name != "k.pem" {
				return nil, os.ErrNotExist
			}
			return k.PEM(), nil
		})
		if hostabi.ReasonOf(err) != hostabi.ReasonConfigSyntax || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestLoadPolicy(t *testing.T) {
	dir := t.TempDir()
	p, err := trust.LoadPolicy(dir)
	if err != nil || p.Rule(repo).Require != trust.RequireTOFU {
		t.Errorf("no file: %+v, %v", p, err)
	}
	k := newKey(t)
	if err := os.MkdirAll(filepath.Join(dir, "trust"), 0o700); err != nil {
		t.Fatal(err)
	}
	text := `version: 1
rules:
  - {match: "ghcr.io/acme/*", require: signature, keys: [acme]}
  - {match: "ghcr.io/**", require: tofu}
keys:
  - {name: acme, file: trust/acme.pem, id: "` + string(k.ID()) + `"}
default: signature
`
	for name, b := range map[string][]byte{"trust.yaml": []byte(text), "trust/acme.pem": k.PEM()} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if p, err = trust.LoadPolicy(dir); err != nil {
		t.Fatal(err)
	}
	for repository, want := range map[string]string{
		"ghcr.io/acme/hello": "ghcr.io/acme/*", "ghcr.io/acme/a/b": "ghcr.io/**", "ghcr.io/acmehello": "ghcr.io/**",
		"quay.io/acme/hello": "default", "ghcrXio/acme/hello": "default",
	} {
		if r := p.Rule(repository); r.Match != want {
			t.Errorf("%s: %s, want %s", repository, r.Match, want)
		}
	}
	if p.Rule("quay.io/x").Require != trust.RequireSignature || p.Find("acme") == nil || p.Find(string(k.ID())) == nil || p.Find("x") != nil {
		t.Error("default or keys")
	}
}
