package store

import (
	"encoding/json"
	"path/filepath"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/plugin"
)

// maxLegacy bounds what is kept of what one program says about itself.
const maxLegacy = 256 << 10

func (s *Store) legacyPath(d hostabi.Digest) string {
	return filepath.Join(s.o.Dir, "stamps", "rpc-"+d.Hex()+".json")
}

// LegacyManifest is what the program of protocol 1 with this digest said about itself at its first run, or nil.
func (s *Store) LegacyManifest(d hostabi.Digest) *plugin.LegacyManifest {
	if !d.Valid() {
		return nil
	}
	b, err := atomicfile.ReadFile(s.o.FS, s.legacyPath(d), maxLegacy)
	if err != nil {
		return nil // it has not run yet
	}
	m := &plugin.LegacyManifest{}
	if json.Unmarshal(b, m) != nil {
		return nil // damaged: the next run asks again
	}
	return m.Clean()
}

// KeepLegacyManifest keeps what a program said about itself.
func (s *Store) KeepLegacyManifest(d hostabi.Digest, m *plugin.LegacyManifest) error {
	b, err := json.Marshal(m.Clean())
	if err != nil {
		return err
	}
	if err := s.mkdirs("stamps"); err != nil {
		return err
	}
	return writeError(atomicfile.Write(s.o.FS, s.legacyPath(d), b, 0o600))
}

// describe completes the manifest of a protocol 1 plugin by what its program said at its first run; a plugin
// that has not run yet has no commands. Nothing is started to learn about it.
func (s *Store) describe(p *plugin.Installed) {
	pr := p.Find(plugin.Native)
	if pr == nil || pr.Mode != plugin.Protocol1 {
		return
	}
	digest := pr.Digest
	if digest == "" { // hand-placed: known by its stamp
		f, st, err := s.openVerified(pr.Path, handKey(pr.Path))
		if err != nil {
			return // the start says so
		}
		_ = f.Close() // read-only
		digest = st.Digest
	}
	if m := s.LegacyManifest(digest); m != nil {
		p.Manifest = m.Describe(p.Manifest)
		if p.Version == "" {
			p.Version = p.Manifest.Version
		}
	}
}
