package wasm

import (
	"cmp"
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// argv is what the guest gets as arguments: "ds-NAME" or the interpreter's words, then the user's.
func argv(p *plugin.Installed, words []string) []string {
	head := []string{"ds-" + string(p.Name)}
	if p.Manifest != nil && p.Manifest.Run.WASM != nil && len(p.Manifest.Run.WASM.Argv) > 0 {
		head = p.Manifest.Run.WASM.Argv
	}
	return slices.Concat(head, words)
}

// environ is the guest's environment, sorted (host-abi.md section 9): what ds says, the locale of the host
// and granted variables. The host's environment is never copied.
func environ(p *plugin.Installed, inv *plugin.Invocation, granted []string, cwd bool) []string {
	env := map[string]string{
		"DS_ABI": hostabi.ABI, "DS_PLUGIN": string(p.Name), "DS_PLUGIN_VERSION": p.Version, "DS_INVOCATION": inv.ID,
		"DS_KIND": cmp.Or(inv.Kind, plugin.KindRun), "TMPDIR": "/tmp", "PWD": "/",
	}
	if cwd {
		env["PWD"] = "/cwd"
	}
	for k, v := range map[string]string{"DS_TRACE_ID": inv.TraceID, "TRACEPARENT": inv.TraceParent, "DS_LOG_LEVEL": inv.LogLevel} {
		if v != "" {
			env[k] = v
		}
	}
	if inv.NoInput {
		env["DS_NO_INPUT"] = "1"
	}
	if inv.Offline {
		env["DS_OFFLINE"] = "1"
	}
	switch t := inv.Terminal; { // only where a program would decide otherwise by itself
	case !t.Color && (t.StdoutTTY || t.StderrTTY):
		env["NO_COLOR"] = "1"
	case t.Color && !t.StdoutTTY && !t.StderrTTY:
		env["CLICOLOR_FORCE"] = "1"
	}
	for _, kv := range slices.Concat(locale(inv.Env), granted) {
		k, v := cutEnv(kv)
		if _, ours := env[k]; !ours && k != "" && !strings.ContainsRune(kv, 0) {
			env[k] = v
		}
	}
	out := make([]string, 0, len(env))
	for k, v := range env {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return out
}

// locale picks the variables that every plugin gets.
func locale(host []string) []string {
	var out []string
	for _, kv := range host {
		if k, _ := cutEnv(kv); k == "LANG" || k == "TZ" || strings.HasPrefix(k, "LC_") {
			out = append(out, kv)
		}
	}
	return out
}

func cutEnv(kv string) (key, value string) {
	key, value, _ = strings.Cut(kv, "=")
	return key, value
}
