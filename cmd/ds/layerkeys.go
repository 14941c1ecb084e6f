package main

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/delivery-station/ds/internal/trust"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/install"
	"github.com/delivery-station/ds/plugin/store"
)

// layerKey is the trusted key that signed the program of a package of the original DS, empty if none did. The keys
// are those of the original's configuration, and what the user put beside trust.yaml.
func (a *app) layerKey(l *install.Layer) (trust.KeyID, error) {
	if l == nil {
		return "", nil
	}
	dirs := []string{filepath.Join(a.paths.Config, "trust")}
	if dir := a.cfg.String("plugins.signature.trust_store"); dir != "" {
		dirs = append(dirs, dir)
	}
	var files []string
	for _, file := range a.cfg.List("plugins.signature.public_keys") {
		files = append(files, a.absolute(file))
	}
	keys, err := trust.LayerKeys(dirs, files)
	if err != nil {
		return "", err
	}
	return trust.VerifyLayer(keys, l.Digest, l.Signature, l.KeyID)
}

// installedLayer is the signed program of an installed package of the original DS, whose files are unchanged; nil
// for every other package.
func installedLayer(s *store.Store, r *store.Receipt) *install.Layer {
	for _, k := range r.Kinds {
		b, err := os.ReadFile(filepath.Join(s.Dir(), "store", k.Dir, "oci", "child.json"))
		var child plugin.OCIDocument
		if err == nil && json.Unmarshal(b, &child) == nil && k.Kind == plugin.Native {
			return install.SignedLayer(child)
		}
	}
	return nil
}
