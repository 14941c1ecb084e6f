package native

import (
	"runtime"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// environment is built from nothing (host-abi.md section 9): what every program needs, what the Box picks, what
// ds says, in this order; a later value of a name replaces an earlier one. more are variables of the mode.
func (r *run) environment(more ...string) []string {
	e := &environ{at: make(map[string]int)}
	for _, kv := range r.inv.Env {
		name, value, ok := strings.Cut(kv, "=")
		switch {
		case !ok || name == "":
		case base(name):
			e.set(name, value)
		case r.box.Sockets() && transport(name):
			e.set(name, withoutUser(name, value))
		}
	}
	e.add(r.box.Env(r.inv.Env))
	e.set("TMPDIR", r.dir)
	if runtime.GOOS == "windows" {
		e.set("TEMP", r.dir)
		e.set("TMP", r.dir)
	}
	if r.p.Program.Mode != plugin.Protocol1 { // it knows none of them
		e.add(r.variables())
	}
	e.add(more)
	return e.list
}

// variables are what ds tells the plugin, the same in both modes.
func (r *run) variables() []string {
	v := []string{
		"DS_ABI=" + hostabi.ABI, "DS_PLUGIN=" + string(r.p.Name), "DS_PLUGIN_VERSION=" + r.p.Version,
		"DS_INVOCATION=" + r.inv.ID, "DS_KIND=" + r.inv.Kind, "DS_RUN_DIR=" + r.dir,
	}
	for _, o := range []struct {
		name, value string
		applies     bool
	}{
		{"DS_TRACE_ID", r.inv.TraceID, r.inv.TraceID != ""},
		{"TRACEPARENT", r.inv.TraceParent, r.inv.TraceParent != ""},
		{"DS_NO_INPUT", "1", r.inv.NoInput},
		{"DS_OFFLINE", "1", r.inv.Offline},
		{"DS_LOG_LEVEL", r.inv.LogLevel, r.inv.LogLevel != ""},
		{"NO_COLOR", "1", r.noColor()},
		{"CLICOLOR_FORCE", "1", r.forceColor()},
	} {
		if o.applies {
			v = append(v, o.name+"="+o.value)
		}
	}
	return v
}

// noColor: a program would colour by itself here, and the user decided against it.
func (r *run) noColor() bool {
	t := r.inv.Terminal
	return !t.Color && (t.StdoutTTY || t.StderrTTY)
}

// forceColor: a program would not colour by itself here, and the user decided for it.
func (r *run) forceColor() bool {
	t := r.inv.Terminal
	return t.Color && !t.StdoutTTY && !t.StderrTTY
}

// environ is an environment without duplicate names.
type environ struct {
	list []string
	at   map[string]int
}

func (e *environ) add(vars []string) {
	for _, kv := range vars {
		if name, value, ok := strings.Cut(kv, "="); ok && name != "" {
			e.set(name, value)
		}
	}
}

func (e *environ) set(name, value string) {
	key := fold(name)
	if i, ok := e.at[key]; ok {
		e.list[i] = name + "=" + value
		return
	}
	e.at[key] = len(e.list)
	e.list = append(e.list, name+"="+value)
}

// fold is name as the system compares it.
func fold(name string) string {
	if runtime.GOOS == "windows" {
		return strings.ToUpper(name)
	}
	return name
}

// base names what every native plugin gets of the host's environment.
func base(name string) bool {
	switch fold(name) {
	case "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "COLORTERM", "LANG", "TZ":
		return true
	case "SYSTEMROOT", "COMSPEC", "PATHEXT", "USERPROFILE", "APPDATA", "LOCALAPPDATA":
		return runtime.GOOS == "windows"
	}
	return strings.HasPrefix(name, "LC_")
}

// transport names what a plugin with sockets of its own needs to reach the network the way ds does.
func transport(name string) bool {
	return name == "SSL_CERT_FILE" || name == "SSL_CERT_DIR" || strings.HasSuffix(strings.ToUpper(name), "_PROXY")
}

// withoutUser removes user and password from the address of a proxy: everything between the scheme and the
// last @, since a password may hold any character. NO_PROXY is a list of hosts and stays as it is.
func withoutUser(name, value string) string {
	if !strings.HasSuffix(strings.ToUpper(name), "_PROXY") || strings.EqualFold(name, "NO_PROXY") {
		return value
	}
	at := strings.LastIndexByte(value, '@')
	if at < 0 {
		return value
	}
	scheme := ""
	if i := strings.Index(value, "://"); i >= 0 && i < at {
		scheme = value[:i+3]
	}
	return scheme + value[at+1:]
}
