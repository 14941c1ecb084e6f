package sandbox_test

import (
	"testing"

	"github.com/delivery-station/ds/sandbox"
)

func TestRepositories(t *testing.T) {
	match, err := sandbox.Repositories([]string{"ghcr.io/acme/**", "*.corp.example/shared", "127.0.0.1:5000/a/*"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"ghcr.io/acme/app": true, "ghcr.io/acme/a/b": true, "ghcr.io/acme-evil/app": false, "ghcr.io/private/app": false, "GHCR.IO/private": false,
		"r.corp.example/shared": true, "corp.example/shared": false, "r.corp.example/shared/x": false,
		"127.0.0.1:5000/a/b": true, "127.0.0.1:5001/a/b": false, "127.0.0.1/a/b": false,
		"oci-layout:/home/u/acme": false, "": false, "ghcr.io/**": false,
	} {
		if match(name) != want {
			t.Errorf("%q matches: %v", name, !want)
		}
	}
	all, err := sandbox.Repositories([]string{"**"})
	if err != nil || !all("any.example/x") || all("oci-layout:/home/u/x") {
		t.Errorf("** takes any registry and no layout, %v", err)
	}
	none, err := sandbox.Repositories(nil)
	if err != nil || none("ghcr.io/acme/app") {
		t.Errorf("no pattern takes nothing, %v", err)
	}
	for _, bad := range []string{"ghcr.io", "", "https://ghcr.io/a", "ghcr.io/a b", "ghcr.io/../x"} {
		if _, err := sandbox.Repositories([]string{"ghcr.io/ok", bad}); err == nil {
			t.Errorf("%q is a pattern", bad)
		}
	}
}
