package sandbox

import (
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// TestPolicyAllow: the ceiling decides about a plugin as a whole before it is installed and before it runs.
func TestPolicyAllow(t *testing.T) {
	const key = "ed25519:0000000000000000000000000000000000000000000000000000000000000000"
	both := []plugin.Program{{Kind: plugin.WASM}, {Kind: plugin.Native}}
	in := func(repository, signer string, programs ...plugin.Program) *plugin.Installed {
		return &plugin.Installed{Name: "x", Repository: repository, Signer: signer, Manifest: &plugin.Manifest{APIVersion: plugin.APIVersion}, Programs: programs}
	}
	chosen := in("ghcr.io/acme/x", key, both...)
	chosen.Program = &both[1]
	for name, c := range map[string]struct {
		p  *Policy
		in *plugin.Installed
		ok bool
	}{
		"no policy":         {nil, in("dir:/x", "none"), true},
		"other source":      {&Policy{SourcesAllow: []string{"ghcr.io/acme/**"}}, in("ghcr.io/evil/x", key), false},
		"a directory":       {&Policy{SourcesAllow: []string{"ghcr.io/acme/**"}}, in("dir:/home/u/x", "none"), false},
		"right source":      {&Policy{SourcesAllow: []string{"ghcr.io/acme/**"}}, in("ghcr.io/acme/x", key), true},
		"unsigned":          {&Policy{RequireSigned: true}, in("ghcr.io/acme/x", "none"), false},
		"other signer":      {&Policy{Signers: []string{"ed25519:1"}}, in("ghcr.io/acme/x", key), false},
		"native only":       {&Policy{Native: "deny"}, in("ghcr.io/acme/x", key, both[1]), false},
		"one kind may run":  {&Policy{Native: "deny"}, in("ghcr.io/acme/x", key, both...), true},
		"the chosen is not": {&Policy{Native: "deny"}, chosen, false},
	} {
		if err := c.p.Allow(c.in); (err == nil) != c.ok || err != nil && hostabi.ReasonOf(err) != hostabi.ReasonPolicyFile {
			t.Errorf("%s: %v", name, err)
		}
	}
}
