package config

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/delivery-station/ds/hostabi"
)

// HostView is the configuration as plugins may see it through the host ABI: settings.NAME.… stands for
// plugins.settings.NAME.…, and what only the host uses is never served, whatever is granted.
type HostView struct{ c *Config }

// HostView makes the view; who may read what is the gate's decision.
func (c *Config) HostView() *HostView { return &HostView{c} }

// never are the first segments that are not served (config.md section 7).
var never = map[string]bool{"auth": true, "proxy": true, "sandbox": true}

// Get answers KEY_NOT_FOUND for a key that is not set or not served.
func (h *HostView) Get(_ context.Context, _ hostabi.PluginName, key string) (hostabi.ConfigValue, error) {
	v, ok := h.c.Get(inner(key))
	if !ok || !served(v.Key) {
		return hostabi.ConfigValue{}, hostabi.Errorf(hostabi.ReasonKeyNotFound, "no configuration key %s", key)
	}
	return value(key, v)
}

// List yields the served keys that start with prefix; secrets have an empty JSON.
func (h *HostView) List(_ context.Context, _ hostabi.PluginName, prefix string) (out []hostabi.ConfigValue, err error) {
	for _, v := range h.c.All() {
		key := outer(v.Key)
		if !served(v.Key) || !strings.HasPrefix(key, prefix) {
			continue
		}
		cv, err := value(key, v)
		if err != nil {
			return nil, err
		}
		if cv.Secret {
			cv.JSON = ""
		}
		out = append(out, cv)
	}
	return out, nil
}

func served(key string) bool {
	first, _, _ := strings.Cut(key, delimiter)
	return !never[first]
}

func inner(key string) string {
	if strings.HasPrefix(key, "settings.") {
		return "plugins." + key
	}
	return key
}

func outer(key string) string {
	if strings.HasPrefix(key, settingsPrefix) {
		return strings.TrimPrefix(key, "plugins.")
	}
	return key
}

func value(key string, v Value) (hostabi.ConfigValue, error) {
	b, err := json.Marshal(v.Effective)
	if err != nil {
		return hostabi.ConfigValue{}, hostabi.Errorf(hostabi.ReasonInternal, "%s: %w", key, err)
	}
	return hostabi.ConfigValue{Key: key, JSON: string(b), Origin: v.Origin.String(), Secret: v.Secret}, nil
}
