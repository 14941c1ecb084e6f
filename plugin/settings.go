package plugin

import (
	"strconv"

	"github.com/delivery-station/ds/internal/schema"
)

// SecretSettings tells which settings the plugin's schema marks as secret: the value at a path below
// settings.NAME, or something inside it. Without a schema none is.
func (m *Manifest) SecretSettings() func(value any, path ...string) bool {
	if len(m.Settings) == 0 {
		return func(any, ...string) bool { return false }
	}
	s, err := schema.Compile("config_schema", m.Settings)
	if err != nil { // where it is read, it is checked
		return func(any, ...string) bool { return false }
	}
	var secret func(value any, path ...string) bool
	secret = func(value any, path ...string) bool {
		if s.Secret(path...) {
			return true
		}
		path = path[:len(path):len(path)] // every child has its own
		switch value := value.(type) {
		case map[string]any:
			for name, v := range value {
				if secret(v, append(path, name)...) {
					return true
				}
			}
		case []any:
			for i, v := range value {
				if secret(v, append(path, strconv.Itoa(i))...) {
					return true
				}
			}
		}
		return false
	}
	return secret
}
