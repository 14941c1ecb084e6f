package wasm

import (
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/delivery-station/ds/internal/wasmcheck"
)

// TestImportLists: what Check lets a module import is what the engine and this package have, no more and no less.
func TestImportLists(t *testing.T) {
	t.Parallel()
	have := map[string]map[string]string{wasmcheck.WASIModule: {}, wasmcheck.HostModule: {}}
	rt := wazero.NewRuntime(t.Context())
	defer func() { _ = rt.Close(t.Context()) }()
	m, err := wasi_snapshot_preview1.NewBuilder(rt).Compile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range m.ExportedFunctions() {
		have[wasmcheck.WASIModule][name] = signature(f)
	}
	for name, f := range imports {
		have[wasmcheck.HostModule][name] = f.signature()
	}
	for module, functions := range have {
		for name, want := range functions {
			if got, _ := wasmcheck.Signature(module, name); got != want {
				t.Errorf("%s.%s is %s, Check says %q", module, name, want, got)
			}
		}
		if n := len(wasmcheck.Names(module)); n != len(functions) {
			t.Errorf("%s has %d functions, Check knows %d", module, len(functions), n)
		}
	}
}
