package trust_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/trust"
)

func TestEditPolicy(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "config")
	a, b := newKey(t), newKey(t)
	add := func(name string, k *trust.PrivateKey, pattern string) error {
		return trust.AddKey(t.Context(), dir, name, k.Key, pattern)
	}
	if err := add("a", a, "ghcr.io/acme/**"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "trust.yaml")
	commented := "# mine\n" + read(t, file) + "default: signature # strict\n"
	if err := os.WriteFile(file, []byte(commented), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := add("b", b, ""); err != nil {
		t.Fatal(err)
	}
	if err := add("ignored", b, "quay.io/acme/*"); err != nil { // the key is there, under its name
		t.Fatal(err)
	}
	p, err := trust.LoadPolicy(dir)
	if err != nil || p.Rule("ghcr.io/acme/x").Keys[0].ID() != a.ID() || p.Rule("quay.io/acme/x").Keys[0].ID() != b.ID() || p.Default != trust.RequireSignature {
		t.Fatalf("%+v, %v", p, err)
	}
	if text := read(t, file); !strings.HasPrefix(text, "# mine\n") || !strings.Contains(text, "# strict") {
		t.Errorf("comments went: %s", text)
	}
	for what, err := range map[string]error{
		"name of another key":  add("a", newKey(t), ""),
		"rule that is hidden":  add("b", b, "ghcr.io/acme/**"),
		"name that is a path":  add("../a", a, ""),
		"pattern of nonsense":  add("a", a, "a b"),
		"key that a rule uses": func() error { _, err := trust.RemoveKey(t.Context(), dir, "a"); return err }(),
	} {
		if r := hostabi.ReasonOf(err); r != hostabi.ReasonUsage && r != hostabi.ReasonConfigSyntax {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := add("a", a, "ghcr.io/acme/**"); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := add("c", newKey(t), ""); err != nil {
		t.Fatal(err)
	}
	if removed, err := trust.RemoveKey(t.Context(), dir, "c"); !removed || err != nil {
		t.Errorf("remove: %v, %v", removed, err)
	}
	if removed, err := trust.RemoveKey(t.Context(), dir, "c"); removed || err != nil {
		t.Errorf("remove again: %v, %v", removed, err)
	}
}
