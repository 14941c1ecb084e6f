package native

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/runtime/native/legacyv1"
)

const (
	credentialKey  = "auth.credentials." // Config.Get of it is secret.read of registry:HOST
	registryScope  = "registry:"
	settingsPrefix = "settings."
)

// legacyConfig is the configuration as the original DS gave it to plugins: JSON with the names of its Go fields.
type legacyConfig struct {
	Registry struct {
		Default                     string
		Mirrors, InsecureRegistries []string
	}
	Auth struct {
		DockerConfig string
		Credentials  []legacyCredential
	}
	Cache struct {
		Dir          string
		MaxSize, TTL int64 // bytes, ns
	}
	Logging struct{ Level, Format, Output string }
	Proxy   struct{ HTTPProxy, HTTPSProxy, NoProxy string }
	Plugins struct {
		Dir         string
		AutoInstall bool
		Sources     []struct{ Registry, VersionConstraint string }
		Signature   struct {
			Mode          string
			PublicKeys    []string
			TrustStore    string
			AllowUnsigned bool
		}
		Settings map[string]map[string]any
	}
	Settings map[string]map[string]any
}

// legacyCredential has its secret in Password: with a Token plugins forget the password.
type legacyCredential struct{ Registry, Username, Token, Password string }

// hostConfig serves the configuration of one run to its plugin. It holds what the run's session answers and
// nothing else, so credentials are those of the registries that were granted.
type hostConfig struct {
	legacyv1.UnimplementedHostConfigServer
	r *run
}

// GetEffectiveConfig implements legacyv1.HostConfigServer.
func (h *hostConfig) GetEffectiveConfig(ctx context.Context, _ *legacyv1.GetEffectiveConfigRequest) (*legacyv1.GetEffectiveConfigResponse, error) {
	c, err := h.r.legacyConfig(ctx)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(c)
	return &legacyv1.GetEffectiveConfigResponse{ConfigJson: b}, err
}

func (r *run) legacyConfig(ctx context.Context) (*legacyConfig, error) {
	values, err := r.listConfig(ctx)
	if err != nil {
		return nil, err
	}
	c := &legacyConfig{}
	c.Registry.Default = text(values["registry.default"])
	c.Registry.Mirrors = texts(values["registry.mirrors"])
	c.Registry.InsecureRegistries = texts(values["registry.insecure_registries"])
	c.Cache.MaxSize, c.Cache.TTL = integer(values["cache.max_size"]), integer(values["cache.ttl"])
	c.Logging.Level, c.Logging.Format, c.Logging.Output = text(values["logging.level"]), text(values["logging.format"]), "stderr"
	c.Proxy.HTTPProxy, c.Proxy.HTTPSProxy = text(values["proxy.http_proxy"]), text(values["proxy.https_proxy"])
	c.Proxy.NoProxy = strings.Join(texts(values["proxy.no_proxy"]), ",")
	if c.Cache.Dir, err = r.legacyCache(); err != nil {
		return nil, err
	}
	if c.Settings, err = r.legacySettings(ctx, values); err != nil {
		return nil, err
	}
	c.Plugins.Settings = c.Settings // releases differ in where they look
	c.Auth.Credentials, err = r.legacyCredentials(ctx, values)
	return c, err
}

// legacyCache is where the plugin may keep what it likes, apart from ds's cache, which it could damage.
func (r *run) legacyCache() (string, error) {
	if r.b.o.LegacyCache == nil {
		return tmpIn(r.sockDir), nil
	}
	return r.b.o.LegacyCache(r.p.Name)
}

// listConfig is every value that this run may read, by key; secrets are empty.
func (r *run) listConfig(ctx context.Context) (map[string]*hostv1.ConfigValue, error) {
	tree := &hostv1.ConfigTree{}
	if err := r.callHost(ctx, hostv1.Config_List_FullMethodName, &hostv1.ListConfigRequest{}, tree); err != nil {
		return nil, err
	}
	out := make(map[string]*hostv1.ConfigValue, len(tree.GetValues()))
	for _, v := range tree.GetValues() {
		out[v.GetKey()] = v
	}
	return out, nil
}

// legacySettings is {NAME: own settings, "generic": …}; secrets that the run may read are in it.
func (r *run) legacySettings(ctx context.Context, values map[string]*hostv1.ConfigValue) (map[string]map[string]any, error) {
	out := map[string]map[string]any{string(r.p.Name): {}}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		rest, ok := strings.CutPrefix(key, settingsPrefix)
		name, path, below := strings.Cut(rest, ".")
		if !ok || !below || name != string(r.p.Name) && name != "generic" {
			continue
		}
		v := values[key]
		if v.GetSecret() {
			if !r.box.Allowed(hostabi.SecretRead, key) {
				continue
			}
			v = &hostv1.ConfigValue{}
			if err := r.callHost(ctx, hostv1.Config_Get_FullMethodName, &hostv1.GetConfigRequest{Key: key}, v); err != nil {
				return nil, err
			}
		}
		var value any
		if json.Unmarshal([]byte(v.GetJson()), &value) != nil {
			continue // nothing but JSON is served
		}
		if out[name] == nil {
			out[name] = make(map[string]any)
		}
		put(out[name], strings.Split(path, "."), value)
	}
	return out, nil
}

// put sets the value at a path of nested maps; where a value stands in the way, the key keeps its dots.
func put(m map[string]any, path []string, value any) {
	if len(path) == 1 {
		m[path[0]] = value
		return
	}
	next, ok := m[path[0]].(map[string]any)
	if m[path[0]] != nil && !ok {
		m[strings.Join(path, ".")] = value
		return
	}
	if !ok {
		next = make(map[string]any)
		m[path[0]] = next
	}
	put(next, path[1:], value)
}

// legacyCredentials are the logins of the registries that were granted to this plugin.
func (r *run) legacyCredentials(ctx context.Context, values map[string]*hostv1.ConfigValue) ([]legacyCredential, error) {
	var out []legacyCredential
	for _, host := range r.credentialHosts(values) {
		if !r.box.Allowed(hostabi.SecretRead, registryScope+host) {
			continue
		}
		v := &hostv1.ConfigValue{}
		err := r.callHost(ctx, hostv1.Config_Get_FullMethodName, &hostv1.GetConfigRequest{Key: credentialKey + host}, v)
		if hostabi.ReasonOf(err) == hostabi.ReasonKeyNotFound {
			continue // the user has no login there
		}
		if err != nil {
			return nil, err
		}
		var login struct{ Username, Password string }
		if err := json.Unmarshal([]byte(v.GetJson()), &login); err != nil {
			return nil, hostabi.Errorf(hostabi.ReasonInternal, "the login of %s is not what it should be", host)
		}
		out = append(out, legacyCredential{Registry: host, Username: login.Username, Password: login.Password})
	}
	return out, nil
}

// credentialHosts are the registries that this run may have to do with: those that its grants name, and, for a
// grant of every registry, those of the configuration and of the words that the user typed.
func (r *run) credentialHosts(values map[string]*hostv1.ConfigValue) []string {
	var hosts []string
	for _, g := range r.box.Grants() {
		if g.Cap != hostabi.SecretRead {
			continue
		}
		for _, scope := range g.Allow {
			if host, ok := strings.CutPrefix(scope, registryScope); ok && host != "*" {
				hosts = append(hosts, host)
			}
		}
	}
	if host := hostOf(text(values["registry.default"])); host != "" {
		hosts = append(hosts, host)
	}
	hosts = append(hosts, texts(values["registry.insecure_registries"])...)
	hosts = append(hosts, r.typedHosts()...)
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// typedHosts are the registries of references among the user's words.
func (r *run) typedHosts() (hosts []string) {
	for _, word := range r.inv.Args {
		if i := strings.IndexByte(word, '='); i >= 0 && strings.HasPrefix(word, "-") {
			word = word[i+1:]
		}
		if host := hostOf(word); host != "" && strings.Contains(word, "/") {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// hostOf is the registry of a reference, or "" if it names none.
func hostOf(ref string) string {
	host, _, _ := strings.Cut(ref, "/")
	name, _, _ := strings.Cut(host, ":")
	if name != "localhost" && !strings.ContainsAny(strings.Trim(name, "."), ".") || strings.ContainsAny(host, " @*") || name == "" {
		return ""
	}
	return host
}

// noteCredentials records, after a run that failed, that logins of the registries which it was about were not
// granted: the user is then told what would allow them.
func (r *run) noteCredentials() {
	if !r.box.Has(hostabi.ConfigRead) {
		return // it did not get that far
	}
	for _, host := range r.typedHosts() {
		_ = r.box.Check(hostabi.SecretRead, registryScope+host)
	}
}

func text(v *hostv1.ConfigValue) (s string) {
	_ = json.Unmarshal([]byte(v.GetJson()), &s) // not set, or of another type: empty
	return s
}

func texts(v *hostv1.ConfigValue) (list []string) {
	_ = json.Unmarshal([]byte(v.GetJson()), &list) // as above
	return list
}

func integer(v *hostv1.ConfigValue) (n int64) {
	_ = json.Unmarshal([]byte(v.GetJson()), &n) // as above
	return n
}
