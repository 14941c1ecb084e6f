package wasm

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/delivery-station/ds/hostabi"
)

const (
	maxModule    = 64 << 20 // bytes of one module, security.md section 2
	sectionStart = 8
	sectionCode  = 10
	wasiName     = wasi_snapshot_preview1.ModuleName
)

// inspect looks at the frame of a module before an engine sees it: magic, version and section headers. It
// returns the size of the code section in bytes. The error is MODULE_REFUSED.
func inspect(b []byte) (code int64, err error) {
	if !bytes.HasPrefix(b, []byte("\x00asm")) {
		return 0, refused("not a WASM module")
	}
	if len(b) > maxModule {
		return 0, refused("module of %d bytes is over the limit of %d", len(b), maxModule)
	}
	if bytes.HasPrefix(b, []byte("\x00asm\x0d\x00\x01\x00")) {
		return 0, refused("component model is not supported, build for wasip1")
	}
	if !bytes.HasPrefix(b, []byte("\x00asm\x01\x00\x00\x00")) {
		return 0, refused("WASM version is not 1")
	}
	for at := 8; at < len(b); {
		id := b[at]
		size, n := binary.Uvarint(b[at+1 : min(at+6, len(b))])
		if n <= 0 || size > uint64(len(b)-at-1-n) {
			return 0, refused("section %d at byte %d is cut off", id, at)
		}
		switch id {
		case sectionStart:
			return 0, refused("start section at byte %d: a plugin starts at _start only", at)
		case sectionCode:
			code += int64(size)
		}
		at += 1 + n + int(size)
	}
	return code, nil
}

// checkModule refuses what a command module of WASI preview 1 is not: other imports, no memory, no _start.
// The error is MODULE_REFUSED, or ABI_UNSUPPORTED for a ds_v1 function that this ds lacks.
func checkModule(m wazero.CompiledModule, wasi map[string]string) error {
	if err := checkImports(m); err != nil {
		return err
	}
	for _, f := range m.ImportedFunctions() {
		module, name, _ := f.Import()
		got := signature(f)
		switch module {
		case importModule:
		case wasiName:
			if want, ok := wasi[name]; !ok || want != got {
				return refused("module imports %s.%s %s, which does not exist", module, name, got)
			}
		default:
			return refused("module imports %s.%s; only %s and %s are there", module, name, wasiName, importModule)
		}
	}
	if len(m.ImportedMemories()) > 0 {
		return refused("module imports its memory; it must export one")
	}
	memories := m.ExportedMemories()
	if _, ok := memories["memory"]; !ok || len(memories) != 1 {
		return refused("module does not export one memory named memory; build a command, not a reactor")
	}
	start, ok := m.ExportedFunctions()["_start"]
	if !ok || signature(start) != "() -> ()" {
		return refused("module does not export _start; build a command, not a reactor or library")
	}
	return nil
}

// checkImports refuses a module that imports a ds_v1 function that this ds lacks.
func checkImports(m wazero.CompiledModule) error {
	for _, f := range m.ImportedFunctions() {
		module, name, _ := f.Import()
		if module != importModule {
			continue
		}
		got := signature(f)
		if want, ok := imports[name]; !ok || want.signature() != got {
			return hostabi.Errorf(hostabi.ReasonABIUnsupported, "module imports %s.%s %s: needs a newer ds", module, name, got)
		}
	}
	return nil
}

// wasiFunctions is name and signature of every function of WASI preview 1.
func wasiFunctions(ctx context.Context, rt wazero.Runtime) (map[string]string, error) {
	m, err := wasi_snapshot_preview1.NewBuilder(rt).Compile(ctx)
	if err != nil {
		return nil, err
	}
	functions := m.ExportedFunctions()
	out := make(map[string]string, len(functions))
	for name, f := range functions {
		out[name] = signature(f)
	}
	return out, m.Close(ctx)
}

func signature(f api.FunctionDefinition) string {
	return signatureOf(f.ParamTypes(), f.ResultTypes())
}

func signatureOf(params, results []api.ValueType) string {
	return fmt.Sprintf("(%s) -> (%s)", types(params), types(results))
}

func types(ts []api.ValueType) string {
	var b []byte
	for i, t := range ts {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(b, api.ValueTypeName(t)...)
	}
	return string(b)
}

func refused(format string, a ...any) *hostabi.Error {
	return hostabi.Errorf(hostabi.ReasonModuleRefused, format, a...)
}
