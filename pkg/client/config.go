package client

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1lite"
)

// Config reads the plugin's own settings into a struct or map (json tags). Secrets are left out: Secret
// reads one. Values of WithConfig are laid over.
func (c *Client) Config(ctx context.Context, into any) error {
	name, err := c.plugin(ctx)
	if err != nil && (c.o.config == nil || !isNoHost(err)) {
		return err
	}
	prefix := "settings." + name + "."
	tree := map[string]any{}
	if err == nil {
		if err := c.settings(ctx, prefix, tree); err != nil {
			return err
		}
	}
	if c.o.config != nil {
		over, err := toTree(c.o.config)
		if err != nil {
			return err
		}
		merge(tree, over)
	}
	b, err := json.Marshal(tree)
	if err != nil {
		return badValue("settings", err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		return badValue("settings."+name, err)
	}
	return nil
}

// settings reads what is below prefix into tree.
func (c *Client) settings(ctx context.Context, prefix string, tree map[string]any) error {
	var values hostv1lite.ConfigTree
	if err := c.invoke(ctx, hostv1lite.ConfigList, &hostv1lite.ListConfigRequest{Prefix: prefix}, &values); err != nil {
		if c.o.config != nil && isNoHost(err) {
			return nil
		}
		return err
	}
	for i := range values.Values {
		v := &values.Values[i]
		key, ok := strings.CutPrefix(v.Key, prefix)
		if !ok || v.Json == "" {
			continue
		}
		var value any
		if err := json.Unmarshal([]byte(v.Json), &value); err != nil {
			return badValue(v.Key, err)
		}
		put(tree, strings.Split(key, "."), value)
	}
	return nil
}

// ConfigValue reads one key, "registry.default" or "settings.NAME.key", for which the plugin has config.read.
func (c *Client) ConfigValue(ctx context.Context, key string, into any) error {
	text, err := c.value(ctx, key)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		return badValue(key, err)
	}
	return nil
}

// Secret reads one secret, "settings.NAME.key", for which the plugin has secret.read.
func (c *Client) Secret(ctx context.Context, key string) (string, error) {
	text, err := c.value(ctx, key)
	if err != nil {
		return "", err
	}
	var s string
	if json.Unmarshal([]byte(text), &s) != nil {
		return text, nil //nolint:nilerr // no string: a number or a document, as it is
	}
	return s, nil
}

// value is the JSON text of a key.
func (c *Client) value(ctx context.Context, key string) (string, error) {
	if c.o.config != nil {
		if text, ok, err := c.overlaid(ctx, key); ok || err != nil {
			return text, err
		}
	}
	var v hostv1lite.ConfigValue
	err := c.invoke(ctx, hostv1lite.ConfigGet, &hostv1lite.GetConfigRequest{Key: key}, &v)
	return v.Json, err
}

// overlaid looks a key of the plugin's own settings up in WithConfig's values.
func (c *Client) overlaid(ctx context.Context, key string) (text string, ok bool, err error) {
	name, err := c.plugin(ctx)
	if err != nil && !isNoHost(err) {
		return "", false, err
	}
	rest, own := strings.CutPrefix(key, "settings."+name+".")
	if !own {
		return "", false, nil
	}
	tree, err := toTree(c.o.config)
	if err != nil {
		return "", false, err
	}
	var value any = tree
	for part := range strings.SplitSeq(rest, ".") {
		m, isMap := value.(map[string]any)
		if !isMap {
			return "", false, nil
		}
		if value, ok = m[part]; !ok {
			return "", false, nil
		}
	}
	b, err := json.Marshal(value)
	return string(b), true, err
}

// toTree is v as decoded JSON.
func toTree(v any) (map[string]any, error) {
	b, err := json.Marshal(v)
	if err == nil {
		var tree map[string]any
		if err = json.Unmarshal(b, &tree); err == nil {
			return tree, nil
		}
	}
	return nil, badValue("WithConfig", err)
}

// put sets the value at path and makes the objects above it.
func put(tree map[string]any, path []string, value any) {
	for _, p := range path[:len(path)-1] {
		next, ok := tree[p].(map[string]any)
		if !ok {
			next = map[string]any{}
			tree[p] = next
		}
		tree = next
	}
	last := path[len(path)-1]
	into, old := tree[last].(map[string]any)
	if over, ok := value.(map[string]any); ok && old {
		merge(into, over)
		return
	}
	tree[last] = value
}

// merge lays over upon tree, object by object.
func merge(tree, over map[string]any) {
	for k, v := range over {
		put(tree, []string{k}, v)
	}
}

func badValue(key string, err error) error {
	return classify(hostabi.Errorf(hostabi.ReasonConfigValue, "configuration %s: %w", key, err))
}
