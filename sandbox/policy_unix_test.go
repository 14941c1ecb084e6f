//go:build unix

package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
)

func TestPolicyOwner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ds")
	path := filepath.Join(dir, "policy.yaml")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("version: 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	root := os.Geteuid() == 0
	for name, c := range map[string]struct {
		dir, file os.FileMode
		uid       int
		ok        bool
	}{
		"root":           {0o755, 0o644, 0, true},
		"group writable": {0o755, 0o664, 0, false},
		"world writable": {0o755, 0o646, 0, false},
		"sticky file":    {0o755, 0o666 | os.ModeSticky, 0, false},
		"directory":      {0o777, 0o644, 0, false},
		"sticky":         {0o777 | os.ModeSticky, 0o644, 0, true},
		"another's file": {0o755, 0o644, 1234, false},
	} {
		t.Run(name, func(t *testing.T) {
			for p, mode := range map[string]os.FileMode{dir: c.dir, path: c.file} {
				if err := os.Chmod(p, mode); err != nil {
					t.Fatal(err)
				}
			}
			if root {
				if err := os.Chown(path, c.uid, 0); err != nil {
					t.Fatal(err)
				}
			}
			p, err := LoadPolicy(path)
			if !c.ok || !root { // a file of an ordinary user is never the administrator's
				if p != nil || hostabi.ReasonOf(err) != hostabi.ReasonPolicyFile || !strings.Contains(err.Error(), path+" can be changed by others; no plugin was started") {
					t.Errorf("got %+v %v", p, err)
				}
				return
			}
			if err != nil || p == nil || p.File != path {
				t.Errorf("got %+v %v", p, err)
			}
		})
	}
	if p, err := LoadPolicy(dir); p != nil || hostabi.ReasonOf(err) != hostabi.ReasonPolicyFile {
		t.Errorf("a directory: %v %v", p, err)
	}
}
