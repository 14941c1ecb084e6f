package config

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/delivery-station/ds/hostabi"
)

// reservedEnv are DS_ variables that are no keys: read by ds elsewhere, given to plugins, or for tests.
var reservedEnv = []string{
	"DS_CONFIG", "DS_HOME", "DS_CONFIG_DIR", "DS_DATA_DIR", "DS_NO_PLUGINS", "DS_NO_INPUT", "DS_NO_COLOR", "DS_OFFLINE", "DS_OTEL", "DS_DEBUG",
	"DS_GRANT", "DS_SIGNING_KEY", "DS_PLUGIN_WRAP", "DS_REATTACH",
	"DS_ABI", "DS_PLUGIN", "DS_PLUGIN_VERSION", "DS_INVOCATION", "DS_KIND", "DS_TRACE_ID", "DS_LOG_LEVEL", "DS_RUN_DIR",
	"DS_HOST_FD", "DS_CTL_FD", "DS_STDIO_FDS", "DS_PLUGIN_MAGIC_COOKIE", "DS_FAULT", "DS_WASI_TESTSUITE",
}

// shortEnv are variables that set a key to a fixed value when they are not empty.
var shortEnv = []struct{ name, key, value string }{
	{"DS_OFFLINE", "registry.offline", "true"}, {"DS_NO_COLOR", "ui.color", "never"}, {"DS_NO_INPUT", "ui.input", "never"},
}

const settingsEnv = "DS_PLUGINS_SETTINGS_"

// env is the layer of DS_* variables. Names are looked up, never split by rule.
func (l *loader) env() map[string]Value {
	var names []string
	for name := range l.env0 {
		if strings.HasPrefix(name, "DS_") {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	values := make(map[string]Value)
	for _, s := range shortEnv {
		if v := l.env0[s.name]; v != "" && v != "0" && v != "false" {
			l.set(values, s.key, s.value, Origin{Layer: Env, Name: s.name}, l.in.WorkDir, nil)
		}
	}
	for i := range keys {
		l.keyFromEnv(values, &keys[i])
	}
	for _, name := range names {
		if rest, ok := strings.CutPrefix(name, settingsEnv); ok && l.env0[name] != "" {
			l.settingFromEnv(values, name, rest)
		}
	}
	l.unknownEnv(names)
	return values
}

func (l *loader) keyFromEnv(values map[string]Value, k *Key) {
	name := k.Env()
	text, set := l.env0[name]
	items, list := l.indexed(name, k)
	switch {
	case set && list:
		l.problem(Problem{Reason: hostabi.ReasonUsage, Msg: fmt.Sprintf("%s and %s_0 both set %s", name, name, k.Name)})
	case list:
		l.set(values, k.Name, items, Origin{Layer: Env, Name: name + "_0"}, l.in.WorkDir, nil)
	case !set || text == "" && k.Type != TypeList: // an empty scalar counts as unset, an empty list is a list
	default:
		l.set(values, k.Name, text, Origin{Layer: Env, Name: name}, l.in.WorkDir, nil)
	}
}

// indexed reads NAME_0, NAME_1, … of a list, or NAME_0_FIELD, … of a list of objects, without gaps.
func (l *loader) indexed(name string, k *Key) (items []any, ok bool) {
	if k.Type != TypeList && k.Type != TypeObjects {
		return nil, false
	}
	for i := 0; ; i++ {
		at := name + "_" + strconv.Itoa(i)
		if v, set := l.env0[at]; set && k.Type == TypeList {
			items = append(items, v)
			continue
		}
		fields := make(map[string]any)
		for _, f := range k.Fields {
			if v, set := l.env0[at+"_"+strings.ToUpper(f)]; set {
				fields[f] = v
			}
		}
		if len(fields) == 0 {
			return items, len(items) > 0
		}
		items = append(items, fields)
	}
}

// settingFromEnv maps DS_PLUGINS_SETTINGS_NAME_KEY: the last word is the key, the words before it are the
// plugin's name with _ for -. A value that starts like JSON is parsed as JSON.
func (l *loader) settingFromEnv(values map[string]Value, variable, rest string) {
	i := strings.LastIndexByte(rest, '_')
	if i <= 0 || i == len(rest)-1 {
		l.warn("--set plugins.settings.NAME.KEY=VALUE", "%s names no plugin and key", variable)
		return
	}
	name := strings.ToLower(strings.ReplaceAll(rest[:i], "_", "-"))
	var raw any = l.env0[variable]
	if text := l.env0[variable]; strings.HasPrefix(text, "[") || strings.HasPrefix(text, "{") {
		if err := json.Unmarshal([]byte(text), &raw); err != nil {
			l.problem(Problem{Reason: hostabi.ReasonConfigValue, Msg: variable + " starts like JSON but is none"})
			return
		}
	}
	l.set(values, settingsPrefix+name+delimiter+strings.ToLower(rest[i+1:]), raw, Origin{Layer: Env, Name: variable}, l.in.WorkDir, nil)
}

// unknownEnv warns of those of the DS_ variables set that nothing reads.
func (l *loader) unknownEnv(set []string) {
	names := make([]string, len(keys))
	for i := range keys {
		names[i] = keys[i].Env()
	}
	for _, name := range set {
		if l.used[name] || slices.Contains(reservedEnv, name) || slices.Contains(names, name) ||
			strings.HasPrefix(name, settingsEnv) || strings.HasPrefix(name, "DS_TEST_") || strings.HasPrefix(name, "DS_TORTURE") {
			continue
		}
		if slices.ContainsFunc(names, func(n string) bool { return isIndexed(name, n) }) {
			continue
		}
		l.warn(nearest(name, names), "unknown variable %s", name)
	}
}

func isIndexed(name, list string) bool {
	rest, ok := strings.CutPrefix(name, list+"_")
	return ok && rest != "" && rest[0] >= '0' && rest[0] <= '9'
}
