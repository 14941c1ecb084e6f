package main

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"

	"github.com/delivery-station/ds/hostabi"
)

// What plugins of the original DS are served beside the configuration of all plugins: they talk to registries
// themselves. Whether a run may read it is the gate's decision, as for every key.
const (
	proxyPrefix      = "proxy."
	credentialPrefix = "auth.credentials."
)

// forLegacy says that key is one of those, and caller such a plugin.
func (s *settings) forLegacy(ctx context.Context, caller hostabi.PluginName, key string) bool {
	if !strings.HasPrefix(key, proxyPrefix) && !strings.HasPrefix(key, credentialPrefix) {
		return false
	}
	p, err := s.lookup(ctx, caller)
	return err == nil && p.Legacy()
}

func (s *settings) legacy(ctx context.Context, key string) (hostabi.ConfigValue, error) {
	if host, ok := strings.CutPrefix(key, credentialPrefix); ok {
		return s.login(ctx, key, host)
	}
	for _, v := range s.proxies() {
		if v.Key == key {
			return v, nil
		}
	}
	return hostabi.ConfigValue{}, notSet(key)
}

// login is the login for one registry, as {"username", "password"}.
func (s *settings) login(ctx context.Context, key, host string) (hostabi.ConfigValue, error) {
	c, err := s.a.parts.registry()
	if err != nil {
		return hostabi.ConfigValue{}, err
	}
	username, password, err := c.LoginOf(ctx, host)
	if err != nil {
		return hostabi.ConfigValue{}, err
	}
	if password == "" {
		return hostabi.ConfigValue{}, notSet(key)
	}
	s.a.secrets.Add(password)
	b, err := json.Marshal(map[string]string{"username": username, "password": password})
	return hostabi.ConfigValue{Key: key, JSON: string(b), Origin: "credentials", Secret: true}, err
}

// proxies are the proxy settings, without the user and password that an address may hold.
func (s *settings) proxies() (out []hostabi.ConfigValue) {
	for _, v := range s.a.cfg.All() {
		if !strings.HasPrefix(v.Key, proxyPrefix) {
			continue
		}
		if address, ok := v.Effective.(string); ok {
			v.Effective = withoutUser(address)
		}
		if b, err := json.Marshal(v.Effective); err == nil { // strings and lists of strings
			out = append(out, hostabi.ConfigValue{Key: v.Key, JSON: string(b), Origin: v.Origin.String()})
		}
	}
	return out
}

// withoutUser is an address without user and password, empty if it cannot be read.
func withoutUser(address string) string {
	if !strings.Contains(address, "@") {
		return address
	}
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	u.User = nil
	return u.String()
}

func notSet(key string) error {
	return hostabi.Errorf(hostabi.ReasonKeyNotFound, "no configuration key %s", key)
}
