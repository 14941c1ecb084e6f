package plugin

import "testing"

func TestSecretSettings(t *testing.T) {
	m := &Manifest{Settings: []byte(`{"type": "object", "properties": {
		"api": {"type": "string", "x-ds-secret": true}, "plain": {"type": "string"}, "vault": {"type": "object", "x-ds-secret": true},
		"servers": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}, "login": {"x-ds-secret": true}}}}
	}}`)}
	secret := m.SecretSettings()
	for _, c := range []struct {
		path  []string
		value any
		want  bool
	}{
		{[]string{"api"}, "x", true},
		{[]string{"plain"}, "x", false},
		{[]string{"vault", "deep"}, "x", true},
		{[]string{"other"}, "x", false},
		{[]string{"servers"}, []any{map[string]any{"name": "x"}}, false},
		{[]string{"servers"}, []any{map[string]any{"name": "x"}, map[string]any{"login": "x"}}, true},
	} {
		if got := secret(c.value, c.path...); got != c.want {
			t.Errorf("%v %v: %v", c.path, c.value, got)
		}
	}
	if new(Manifest).SecretSettings()("x", "api") {
		t.Error("no schema, but a secret")
	}
}
