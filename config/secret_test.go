package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestExcerptsShowNoSecret breaks configurations next to a secret in many ways.
func TestExcerptsShowNoSecret(t *testing.T) {
	const secret = "hunter2-hunter2"
	for name, text := range map[string]string{
		"unknown field":         "auth:\n  credentials:\n    - registry: r\n      password: S\n      usrname: u\n",
		"before":                "auth:\n  credentials:\n    - registry: r\n      password: S\n    oops\n",
		"scalar":                "auth:\n  credentials: S\n",
		"list":                  "auth:\n  credentials: [S]\n",
		"flat list":             "auth:\n  credentials:\n  - S\n",
		"twice":                 "plugins:\n  settings:\n    x:\n      token: S\n      token: x\n",
		"flow":                  "plugins:\n  settings:\n    x: {token: S}\nregistry: {default: [}\n",
		"map for a proxy":       "proxy:\n  http_proxy: {a: S}\n",
		"user of a URL":         "registry:\n  defaul: https://u:S@h\n",
		"top":                   "token: S\n",
		"block":                 "auth:\n  credentials: |\n    S\n    x\n  : [\n",
		"block at the end":      "plugins:\n  settings:\n    x:\n      token: >\n        S\n  ]\n",
		".toml":                 "[auth]\ncredentials = [{password = \"S\"}]\nx = \n",
		"table.toml":            "[[auth.credentials]]\nuser = \"S\"\nx = \n",
		"text of lines.toml":    "[plugins.settings.x]\npassword = '''\nS\n'''\nx = \n",
		"unfinished lines.toml": "[plugins.settings.x]\npassword = '''\nS\n",
	} {
		file := "config.yaml"
		if strings.HasSuffix(name, ".toml") {
			file = "config.toml"
		}
		_, err := load(t, file, strings.ReplaceAll(text, "S", secret), Input{})
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for _, p := range err.(Errors) { //nolint:errorlint,forcetypeassert // Load returns no other
			if all := p.Error() + p.Hint + strings.Join(p.Excerpt, "\n"); strings.Contains(all, secret) {
				t.Errorf("%s: %s", name, all)
			}
		}
	}
}

func TestSecretsInside(t *testing.T) {
	c := mustLoad(t, "config.yaml", `
auth: {credentials: [{registry: r, username: someone, password: first-secret}]}
proxy: {http_proxy: "http://u:sec%2Fond@h:1"}
plugins:
  settings:
    x:
      servers: [{name: one, secret-key: third-secret}]
      secretKey: fourth-secret
      plain: [{name: two}]
      token: ${T}
`, Input{Env: []string{"T=fifth-secret"}})
	for key, want := range map[string]bool{"servers": true, "secretKey": true, "plain": false, "token": true} {
		if v, ok := c.Get("plugins.settings.x." + key); !ok || v.Secret != want {
			t.Errorf("%s: secret is %v", key, v.Secret)
		}
	}
	got := c.Secrets()
	slices.Sort(got)
	if want := "[${T} fifth-secret first-secret fourth-secret sec%2Fond sec/ond third-secret]"; fmt.Sprint(slices.Compact(got)) != want {
		t.Errorf("secrets are %v", got)
	}
	if got := WithoutUser("http://u:p@w@h/x"); got != "http://***@h/x" {
		t.Error(got)
	}
}
