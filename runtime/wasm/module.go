package wasm

import (
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/wasmcheck"
)

// inspect looks at a module before an engine sees it and returns the size of its code section in bytes. The
// error is MODULE_REFUSED, or ABI_UNSUPPORTED for a ds_v1 function that this ds lacks.
func inspect(b []byte) (code int64, err error) {
	report, err := wasmcheck.Check(b, wasmcheck.Limits{})
	return int64(report.Code), refusal(err)
}

// metered is what is compiled of a module, which is checked here too. The error is that of inspect.
func metered(b []byte) ([]byte, error) {
	out, err := wasmcheck.Meter(b)
	return out, refusal(err)
}

// refusal gives an error of wasmcheck its reason.
func refusal(err error) error {
	e, ok := errors.AsType[*wasmcheck.Error](err)
	if !ok {
		return err
	}
	if e.Newer {
		return hostabi.Errorf(hostabi.ReasonABIUnsupported, "%s", e.Error())
	}
	return refused("%s", e.Error())
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
