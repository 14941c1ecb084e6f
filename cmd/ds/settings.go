package main

import (
	"context"
	"encoding/json"
	"strings"
	"sync"

	"github.com/delivery-station/ds/config"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// settings is the configuration as plugins see it: config knows secrets by their names, a plugin's schema may
// mark more. What is handed out of them stays out of logs.
type settings struct {
	*schemas
	view *config.HostView
	a    *app

	served sync.Map // key to hostabi.ConfigValue: the configuration never changes, and plugins ask often
}

// Get implements host.Config.
func (s *settings) Get(ctx context.Context, caller hostabi.PluginName, key string) (hostabi.ConfigValue, error) {
	if s.forLegacy(ctx, caller, key) {
		return s.legacy(ctx, key)
	}
	if v, ok := s.served.Load(key); ok {
		return v.(hostabi.ConfigValue), nil
	}
	v, err := s.view.Get(ctx, caller, key)
	if err != nil {
		return v, err
	}
	s.mark(ctx, &v)
	if v.Secret {
		var value any
		if json.Unmarshal([]byte(v.JSON), &value) == nil {
			s.a.secrets.Add(config.Texts(value)...)
		}
	}
	s.served.Store(key, v)
	return v, nil
}

// List implements host.Config.
func (s *settings) List(ctx context.Context, caller hostabi.PluginName, prefix string) ([]hostabi.ConfigValue, error) {
	all, err := s.view.List(ctx, caller, prefix)
	for i := range all {
		if s.mark(ctx, &all[i]); all[i].Secret {
			all[i].JSON = ""
		}
	}
	if err == nil && prefix == "" && s.forLegacy(ctx, caller, proxyPrefix) {
		all = append(all, s.proxies()...)
	}
	return all, err
}

func (s *settings) mark(ctx context.Context, v *hostabi.ConfigValue) {
	if v.Secret {
		return
	}
	var value any
	v.Secret = json.Unmarshal([]byte(v.JSON), &value) == nil && s.secret(ctx, v.Key, value)
}

// schemas asks the manifests of installed plugins, each once.
type schemas struct {
	lookup func(context.Context, plugin.Name) (*plugin.Installed, error)
	mu     sync.Mutex
	known  map[string]func(value any, path ...string) bool
}

// secret reports whether the schema of the plugin that key belongs to marks it, or something in its value.
func (s *schemas) secret(ctx context.Context, key string, value any) bool {
	rest, ok := strings.CutPrefix(strings.TrimPrefix(key, "plugins."), "settings.")
	name, path, below := strings.Cut(rest, ".")
	if !ok || !below {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.known[name]
	if f == nil {
		f = func(any, ...string) bool { return false }
		if p, err := s.lookup(ctx, plugin.Name(name)); err == nil {
			f = p.Manifest.SecretSettings()
		}
		if s.known == nil {
			s.known = make(map[string]func(any, ...string) bool)
		}
		s.known[name] = f
	}
	return f(value, strings.Split(path, ".")...)
}

func (p *parts) newSchemas() *schemas { return &schemas{lookup: p.store().Lookup} }
