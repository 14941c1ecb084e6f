package store

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/plugin"
)

// cookie is what every program of protocol 1 contains: the name of its handshake variable.
const cookie = "DS_PLUGIN_MAGIC_COOKIE"

// hasCookie scans a program for the cookie; nothing is run.
func hasCookie(r io.ReaderAt) (bool, error) {
	buf := make([]byte, 256<<10)
	for off := int64(0); ; off += int64(len(buf) - len(cookie)) {
		n, err := r.ReadAt(buf, off)
		if bytes.Contains(buf[:n], []byte(cookie)) {
			return true, nil
		}
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
}

// handDirs are searched for hand-placed plugins, in order; ds never writes a plugin there.
func (s *Store) handDirs() []string { return append(slices.Clone(s.o.ExtraDirs), s.o.Dir) }

// handPlaced finds ds-NAME[.exe|.sh] and ds-NAME.wasm in one directory of the search path.
func (s *Store) handPlaced(name plugin.Name) (*plugin.Installed, error) {
	for _, dir := range s.handDirs() {
		for _, at := range []string{dir, filepath.Join(dir, string(name))} {
			if p, err := s.handPlacedIn(at, name); p != nil || err != nil {
				return p, err
			}
		}
	}
	return nil, nil
}

func (s *Store) handPlacedIn(dir string, name plugin.Name) (*plugin.Installed, error) {
	p := &plugin.Installed{Name: name, HandPlaced: true, Level: LevelLocal, Signer: "none"}
	for _, c := range []struct {
		suffix string
		kind   plugin.Kind
	}{{"", plugin.Native}, {".exe", plugin.Native}, {".sh", plugin.Native}, {".wasm", plugin.WASM}} {
		path := filepath.Join(dir, "ds-"+string(name)+c.suffix)
		info, err := os.Lstat(path)
		if err != nil || p.Find(c.kind) != nil {
			continue
		}
		if err := s.checkHandPlaced(dir, path, info); err != nil {
			return &plugin.Installed{Name: name, HandPlaced: true}, err
		}
		p.Programs = append(p.Programs, plugin.Program{Kind: c.kind, Mode: plugin.Direct, Dir: dir, Path: path, Size: info.Size()})
	}
	if len(p.Programs) == 0 {
		return nil, nil
	}
	p.Repository = "file:" + p.Programs[0].Path
	err := s.handManifest(p, dir)
	if err == nil {
		s.describe(p)
	}
	return p, err
}

// checkHandPlaced refuses what others could have put or could change there.
func (s *Store) checkHandPlaced(dir, path string, info fs.FileInfo) error {
	unsafe := func(what, why string) error {
		return hostabi.Errorf(hostabi.ReasonUnsafeDir, "%s %s", what, why).WithFix("chmod go-w %s", what)
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		return hostabi.Errorf(hostabi.ReasonUnsafeDir, "%s is a symbolic link; a plugin directory holds the file itself", path)
	}
	if !info.Mode().IsRegular() {
		return hostabi.Errorf(hostabi.ReasonStartFailed, "%s is no regular file", path)
	}
	if why := atomicfile.Unsafe(info); why != "" {
		return unsafe(path, why)
	}
	d, err := os.Stat(dir)
	if err != nil {
		return hostabi.Errorf(hostabi.ReasonUnsafeDir, "%s: %w", dir, err)
	}
	if why := atomicfile.Unsafe(d); why != "" {
		return unsafe(dir, why)
	}
	return nil
}

// handManifest reads ds-NAME.yaml, else plugin.yaml beside the program if its name is NAME. Without either
// the plugin asks for nothing and gets nothing.
func (s *Store) handManifest(p *plugin.Installed, dir string) error {
	p.Manifest = &plugin.Manifest{Name: p.Name}
	for _, base := range []string{"ds-" + string(p.Name) + ".yaml", "plugin.yaml"} {
		path := filepath.Join(dir, base)
		b, err := atomicfile.ReadFile(s.o.FS, path, maxManifest+1)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return hostabi.Errorf(hostabi.ReasonManifest, "%s: %w", path, err)
		}
		m, _, err := plugin.ParseManifest(path, b)
		if err != nil {
			return err
		}
		if m.Name != p.Name {
			continue
		}
		return s.useManifest(p, m, dir)
	}
	return s.scanCookie(p)
}

// useManifest completes p from its manifest.
func (s *Store) useManifest(p *plugin.Installed, m *plugin.Manifest, dir string) error {
	p.Manifest, p.Version = m, m.Version
	if err := readSettings(s.o.FS, m, dir); err != nil {
		return err
	}
	if !m.Legacy() {
		p.RequestDigest = plugin.RequestDigest(m.Capabilities)
	}
	for i := range p.Programs {
		pr := &p.Programs[i]
		if pr.Kind == plugin.Native {
			pr.Mode = modeOf(m)
		}
		if m.Assets != "" {
			pr.Assets = filepath.Join(dir, m.Assets)
		}
	}
	return nil
}

// scanCookie tells a program of protocol 1 from one that runs direct; the result is remembered by stamp.
func (s *Store) scanCookie(p *plugin.Installed) error {
	pr := p.Find(plugin.Native)
	if pr == nil {
		return nil
	}
	f, st, err := s.openVerified(pr.Path, handKey(pr.Path))
	if err != nil {
		return hostabi.Errorf(hostabi.ReasonStartFailed, "%s: %w", pr.Path, err)
	}
	script := make([]byte, 2)
	_, _ = f.ReadAt(script, 0) // shorter than two bytes is no script
	_ = f.Close()              // read-only
	if st.Cookie && string(script) != "#!" {
		pr.Mode = plugin.Protocol1
	}
	return nil
}

func handKey(path string) string { return "hand-" + hostabi.DigestOf([]byte(path)).Hex() }

// allHandPlaced yields every hand-placed plugin whose name is not in seen.
func (s *Store) allHandPlaced(seen map[plugin.Name]bool) iter.Seq2[*plugin.Installed, error] {
	return func(yield func(*plugin.Installed, error) bool) {
		for _, dir := range s.handDirs() {
			entries, err := os.ReadDir(dir)
			if err != nil {
				continue // a directory that is not there holds no plugins
			}
			for _, e := range entries {
				name := handName(e)
				if name == "" || seen[name] {
					continue
				}
				p, err := s.handPlaced(name)
				if p == nil && err == nil {
					continue
				}
				seen[name] = true
				if !yield(p, err) {
					return
				}
			}
		}
	}
}

// handName is the plugin that a directory entry may be, or "".
func handName(e fs.DirEntry) plugin.Name {
	if e.IsDir() {
		if n := plugin.Name(e.Name()); n.Valid() && !slices.Contains(storeDirs, e.Name()) {
			return n
		}
		return ""
	}
	base, ok := strings.CutPrefix(e.Name(), "ds-")
	if !ok {
		return ""
	}
	for _, suffix := range []string{".exe", ".sh", ".wasm"} {
		base = strings.TrimSuffix(base, suffix)
	}
	if n := plugin.Name(base); n.Valid() {
		return n
	}
	return ""
}
