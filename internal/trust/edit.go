package trust

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/internal/yamlfile"
)

// AddKey names a key in trust.yaml of the configuration directory, and keeps its text in trust/NAME.pem there. With
// a pattern, the repositories that match need its signature from now on; the rule comes last. The rest of
// the file is not touched. A key that is there keeps its name.
func AddKey(ctx context.Context, dir, name string, key *Key, pattern string) error {
	if !validName(name) {
		return hostabi.Errorf(hostabi.ReasonUsage, "key name %q: want letters, digits, dot, dash, underscore", clip(name))
	}
	if pattern != "" && key.ID().Kind() == RSA {
		return hostabi.Errorf(hostabi.ReasonUsage, "%s is an RSA key, which verifies layers of the original DS only", key.ID())
	}
	if err := atomicfile.MkdirAll(atomicfile.OS(), filepath.Join(dir, "trust"), 0o700); err != nil {
		return err
	}
	return editPolicy(ctx, dir, func(p *Policy, file string, text []byte) ([]byte, error) {
		named := p.Find(string(key.ID()))
		if other := p.Find(name); named == nil && other != nil {
			return nil, hostabi.Errorf(hostabi.ReasonUsage, "trust.yaml names another key %q, %s", name, other.Key.ID()).WithFix("--name OTHER")
		}
		var err error
		if named == nil {
			rel := "trust/" + name + ".pem"
			if err := atomicfile.Write(atomicfile.OS(), filepath.Join(dir, filepath.FromSlash(rel)), key.PEM(), 0o644); err != nil {
				return nil, err
			}
			named = &NamedKey{Name: name}
			entry := yamlfile.Ordered{{Key: "name", Value: name}, {Key: "file", Value: rel}, {Key: "id", Value: string(key.ID())}}
			if text, err = appendTo(file, text, entry, "keys"); err != nil {
				return nil, err
			}
		}
		if pattern == "" {
			return text, nil
		}
		if r := p.Rule(pattern); r.Match != "default" {
			if r.Match == pattern && slices.ContainsFunc(r.Keys, func(k *Key) bool { return k.ID() == key.ID() }) {
				return text, nil
			}
			return nil, hostabi.Errorf(hostabi.ReasonUsage, "rule %q of trust.yaml comes first for %s", r.Match, clip(pattern)).WithFix("add %s to its keys in %s", named.Name, file)
		}
		rule := yamlfile.Ordered{{Key: "match", Value: pattern}, {Key: "require", Value: RequireSignature}, {Key: "keys", Value: []any{named.Name}}}
		return appendTo(file, text, rule, "rules")
	})
}

// RemoveKey takes a key, by name or id, out of trust.yaml; removed is false if it is not there. A rule that uses it is
// an error: without the key it would mean something else.
func RemoveKey(ctx context.Context, dir, nameOrID string) (removed bool, err error) {
	err = editPolicy(ctx, dir, func(p *Policy, file string, text []byte) ([]byte, error) {
		i := slices.IndexFunc(p.Keys, func(k NamedKey) bool { return k.Name == nameOrID || string(k.Key.ID()) == nameOrID })
		if i < 0 {
			return nil, nil
		}
		for _, r := range p.Rules {
			if slices.ContainsFunc(r.Keys, func(k *Key) bool { return k.ID() == p.Keys[i].Key.ID() }) {
				return nil, hostabi.Errorf(hostabi.ReasonUsage, "rule %q of trust.yaml needs key %q", r.Match, p.Keys[i].Name).WithFix("change the rule in %s first", file)
			}
		}
		removed = true
		text, err := yamlfile.RemoveItem(file, text, yamlfile.Limits{}, i, "keys")
		return text, manual(file, err)
	})
	return removed, err
}

// editPolicy changes trust.yaml under its lock; what comes out must be a policy.
func editPolicy(ctx context.Context, dir string, change func(p *Policy, file string, text []byte) ([]byte, error)) error {
	file := filepath.Join(dir, "trust.yaml")
	if err := atomicfile.MkdirAll(atomicfile.OS(), dir, 0o700); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	err := atomicfile.Edit(ctx, atomicfile.OS(), file, func(old []byte) ([]byte, error) {
		p, err := LoadPolicy(dir)
		if err != nil {
			return nil, err
		}
		text := old
		if len(text) == 0 {
			text = []byte("version: 1\n")
		}
		text, err = change(p, file, text)
		if err != nil || text == nil {
			return nil, err
		}
		_, err = ParsePolicy(file, text, keyFiles(dir))
		return text, err
	})
	if errors.Is(err, atomicfile.ErrLocked) {
		return hostabi.Errorf(hostabi.ReasonLockHeld, "%s is being changed by another ds", file)
	}
	return err
}

func appendTo(file string, text []byte, entry yamlfile.Ordered, list string) ([]byte, error) {
	out, err := yamlfile.Append(file, text, yamlfile.Limits{}, entry, list)
	return out, manual(file, err)
}

func manual(file string, err error) error {
	if !errors.Is(err, yamlfile.ErrManual) {
		return err
	}
	return hostabi.Errorf(hostabi.ReasonConfigSyntax, "%s: %w", file, fmt.Errorf("change it by hand: %w", err))
}

func validName(s string) bool {
	return s != "" && len(s) <= 64 && s[0] != '.' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == ""
}
