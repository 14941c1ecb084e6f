package install_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/plugin/install"
)

// TestPackageCannotLiftCachedContent: a package that names content of another repository does not get it from the
// cache.
func TestPackageCannotLiftCachedContent(t *testing.T) {
	w := newWorld(t)
	private, other := dstest.Registry(t, dstest.RegistryOptions{}), w.reg
	secret := source(t, "1.0.0", nil)
	if err := os.WriteFile(filepath.Join(secret, "app", "key.pem"), []byte("private"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.reg = private
	w.publish(secret, private.Host+"/corp/hello")
	if _, err := w.install(install.Request{Ref: private.Host + "/corp/hello:1.0.0", AllowUnsigned: true}); err != nil {
		t.Fatal(err)
	}
	var layer plugin.OCIDescriptor
	w.pushChanged(secret, private.Host+"/corp/again", func(_ *plugin.OCIDocument, d map[string]*plugin.OCIDocument) { layer = d[plugin.AssetsType].Layers[0] })
	// The other registry takes the package with the layer and then has it no more.
	w.reg = other
	repo := other.Host + "/evil/hello"
	w.publish(secret, repo)
	w.pushChanged(source(t, "1.0.0", nil), repo, func(_ *plugin.OCIDocument, d map[string]*plugin.OCIDocument) { d[plugin.AssetsType].Layers[0] = layer })
	other.Inject(dstest.Fault{Path: layer.Digest, Status: http.StatusNotFound})
	_, err := w.install(install.Request{Ref: repo + ":1.0.0", AllowUnsigned: true})
	if hostabi.ReasonOf(err) != hostabi.ReasonPackageInvalid || !strings.Contains(err.Error(), "does not hold") {
		t.Errorf("got %v", err)
	}
	if p, err := w.store.Lookup(t.Context(), "hello"); err != nil || !strings.HasPrefix(p.Repository, private.Host) {
		t.Errorf("%+v, %v", p, err)
	}
}
